"""Looks up the features of a frozen part in the cache, and computes those that are missing."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cached_property, partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from crossroads._runtime.keras_setup import library_versions
from crossroads._runtime.machine import has_gpu
from crossroads.data.dataset import Dataset
from crossroads.data.images import Resize
from crossroads.errors import RecipeError
from crossroads.progress import Note, Watcher
from crossroads.recipe import Augmentation, Recipe

if TYPE_CHECKING:
    import keras

    from crossroads.features.cache import Key
    from crossroads.features.engine import Engine
    from crossroads.features.extract import Extraction
    from crossroads.networks.records import Backbone


class Lookup:
    """Features of one frozen part. One engine, created when features are missing, serves every data set.

    Args:
        frozen: The frozen part: uint8 images (n, size, size, 3) in, features out.
        record: Its backbone.
        recipe: A resolved recipe.
        cut: The name of the layer that ends the frozen part. Training reuses the features of the advice if model and cut are the
            same.
        watcher: Receives progress.
    """

    def __init__(
        self,
        frozen: keras.Model,
        record: Backbone,
        recipe: Recipe,
        cut: str,
        watcher: Watcher,
    ) -> None:
        from crossroads.features.cache import Cache

        self._frozen, self._record, self._recipe, self._cut, self._watcher = frozen, record, recipe, cut, watcher
        self._cache = Cache()
        self._engine: Engine | None = None

    @cached_property
    def _key(self) -> Key:
        """The key of features without augmentation; computing it reads every weight."""
        return feature_key(self._frozen, self._record, self._recipe, self._cut)

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
        from crossroads.features.extract import extract

        key = replace(self._key, augmentation=augmentation)
        return extract(
            dataset,
            resize=resize_of(self._recipe),
            engine=self._get_engine,
            cache=self._cache,
            store=self._cache.store(key, tuple(self._frozen.output_shape[1:])),
            views=views,
            augmentation=augmentation,
            strict=self._recipe.strict,
            progress=partial(self._watcher.progress, stage),
        )

    @property
    def note(self) -> Note | None:
        """A note about the engine, if one was created and has a note."""
        return self._engine.note if self._engine else None

    @property
    def runs_on(self) -> str:
        """What computed the missing features: ``openvino``, ``keras``, or ``the cache`` if none were missing."""
        return self._engine.runs_on if self._engine else "the cache"

    def _get_engine(self) -> Engine:
        from crossroads.features.engine import Engine

        if self._engine is None:
            self._engine = Engine(self._frozen, graphs=self._cache.graphs)
        return self._engine


def feature_key(frozen: keras.Model, record: Backbone, recipe: Recipe, cut: str) -> Key:
    """Returns the cache key of features without augmentation; the arguments are those of `Lookup`."""
    from crossroads.features.cache import Key
    from crossroads.networks.export import function_digest

    computed_by = library_versions() | {"openvino": version("openvino"), "device": "GPU" if has_gpu() else "CPU"}
    return Key(
        weights=function_digest(frozen),
        preprocessing=f"{record.name}: {record.preprocessing}",
        resize=resize_of(recipe),
        cut=cut,
        pooling=str(recipe.pooling) if len(frozen.output_shape) == 2 else "map",
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
    return Resize(recipe.image_size, recipe.resize)
