"""Looks up the features of a frozen part in the cache, and computes those that are missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version

from crossroads._runtime.keras_setup import library_versions
from crossroads._runtime.machine import has_gpu
from crossroads.data.dataset import Dataset
from crossroads.data.images import FILTER, Resize, default_crop_fraction
from crossroads.errors import RecipeError
from crossroads.features.cache import Cache, Key
from crossroads.features.engine import Engine
from crossroads.features.extract import Extraction, Stored, extract, fill
from crossroads.features.store import Stores
from crossroads.networks.body import Body, Frozen
from crossroads.progress import Watcher
from crossroads.recipe import Augmentation, Recipe


class Lookup:
    """Features of one frozen part. One engine, created when features are missing, serves every data set.

    Args:
        frozen: The frozen part.
        backbone: Name of its backbone.
        recipe: A resolved recipe.
        cut: The name of the layer that ends the frozen part. Training reuses the features of the advice if model and cut are the
            same.
        watcher: Receives progress.
    """

    def __init__(self, frozen: Frozen, backbone: str, recipe: Recipe, cut: str, watcher: Watcher) -> None:
        self._frozen, self._recipe, self._watcher = frozen, recipe, watcher
        self._key = feature_key(frozen, backbone, recipe, cut)
        self._cache = Cache()
        self._engine: Engine | None = None

    def features(self, dataset: Dataset, stage: str, *, views: int = 1, augmentation: Augmentation | None = None) -> Extraction:
        """Returns the features of every readable image, in the order of the rows.

        Args:
            dataset: The rows.
            stage: Name of the stage for the watcher.
            views: Per image.
            augmentation: The limits of the augmentation of further views; None for a single view.

        Raises:
            CrossroadsError: No image is readable, or the cache has no room.
        """
        key = replace(self._key, augmentation=augmentation)
        return extract(
            dataset,
            resize=resize_of(self._recipe),
            engine=self._get_engine,
            cache=self._cache,
            store=self._cache.store(key, self._frozen.shape),
            views=views,
            augmentation=augmentation,
            strict=self._recipe.strict,
            progress=partial(self._watcher.progress, stage),
        )

    @property
    def runs_on(self) -> str:
        """What computed the missing features: ``openvino``, ``keras``, or ``the cache`` if none were missing."""
        return self._engine.runs_on if self._engine else "the cache"

    def _get_engine(self) -> Engine:
        if self._engine is None:
            self._engine = Engine(self._frozen)
        return self._engine


class SinglePass:
    """Computes the features of several frozen parts in one pass over the images.

    Each lookup then finds its features in the cache. An image that one of them lacks is computed for all.

    Args:
        body: The backbone of every part.
        lookups: The lookups of the parts. They share a recipe, a watcher and an image size, and their parts end in vectors.
    """

    def __init__(self, body: Body, lookups: Sequence[Lookup]) -> None:
        self._body, self._lookups = body, lookups
        self._engine: Engine | None = None

    def fill(self, dataset: Dataset, stage: str) -> Stored:
        """Computes what is missing.

        On a GPU, Keras computes each part on its own.

        Args:
            dataset: The rows.
            stage: Name of the stage for the watcher.

        Returns:
            The readable images.

        Raises:
            CrossroadsError: No image is readable, or the cache has no room.
        """
        first = self._lookups[0]
        if first._frozen.keras_model is not None and has_gpu():
            found, *_ = [lookup.features(dataset, stage) for lookup in self._lookups]
            return found
        return fill(
            dataset,
            resize=resize_of(first._recipe),
            engine=self._get_engine,
            cache=first._cache,
            store=Stores([first._cache.store(lookup._key, lookup._frozen.shape) for lookup in self._lookups]),
            strict=first._recipe.strict,
            progress=partial(first._watcher.progress, stage),
        )

    def _get_engine(self) -> Engine:
        if self._engine is None:
            outputs = [output for lookup in self._lookups for output in lookup._frozen.outputs]
            self._engine = Engine(self._body.side_by_side(outputs))
        return self._engine


def feature_key(frozen: Frozen, backbone: str, recipe: Recipe, cut: str) -> Key:
    """Returns the cache key of features without augmentation. The arguments are the same as for `Lookup`."""
    computed_by = {name: version(name) for name in ("openvino", "numpy", "pillow")}
    if frozen.keras_model is not None and has_gpu():
        computed_by |= library_versions() | {"device": "GPU"}
    return Key(
        weights=frozen.digest,
        backbone=backbone,
        resize=resize_of(recipe),
        cut=cut,
        pooling=str(recipe.pooling) if len(frozen.shape) == 1 else "map",
        augmentation=None,
        dtype=recipe.feature_type or "float32",
        computed_by=json.dumps(computed_by, sort_keys=True),
    )


def resize_of(recipe: Recipe) -> Resize:
    """Returns how a resolved recipe makes images square. Raises `RecipeError` if the recipe is not resolved."""
    if recipe.image_size is None or recipe.resize is None:
        raise RecipeError(
            "a resolved recipe has an image size and a resize mode",
            code="recipe-not-resolved",
            received="none",
            hint="resolve the recipe with strategies.resolve_recipe",
        )
    fraction = default_crop_fraction(recipe.resize) if recipe.crop_fraction is None else recipe.crop_fraction
    return Resize(recipe.image_size, recipe.resize, recipe.resample or FILTER, fraction)
