"""Features of frozen parts: their key in the cache, and an engine for those that are missing there."""

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
from crossroads.progress import Watcher
from crossroads.recipe import Augmentation, Recipe

if TYPE_CHECKING:
    import keras

    from crossroads.features.cache import Key
    from crossroads.features.engine import Engine
    from crossroads.features.extract import Extraction
    from crossroads.networks.records import Backbone


class Lookup:
    """Features of one frozen part. One engine serves every data set, and there is none where the cache knows all.

    Args:
        frozen: uint8 images (n, size, size, 3) in, features out.
        record: Its backbone.
        recipe: Resolved.
        cut: Where it ends. Training finds what the advice computed where model and cut are the same.
        watcher: Is told of the progress.
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
        self._made: Engine | None = None

    @cached_property
    def _key(self) -> Key:
        """What features of images that are not moved are kept under: made once, since it reads every weight."""
        return feature_key(self._frozen, self._record, self._recipe, self._cut)

    def features(self, dataset: Dataset, stage: str, *, views: int = 1, augmentation: Augmentation | None = None) -> Extraction:
        """Features of every readable image, in the order of the rows.

        Args:
            dataset: The rows.
            stage: What the watcher is told.
            views: Of each image.
            augmentation: How far views are moved; None where there is one.

        Raises:
            CrossroadsError: No readable image; no room in the cache.
        """
        from crossroads.features.extract import extract

        key = replace(self._key, augmentation=augmentation)
        return extract(
            dataset,
            resize=resize_of(self._recipe),
            engine=self._engine,
            cache=self._cache,
            store=self._cache.store(key, tuple(self._frozen.output_shape[1:])),
            views=views,
            augmentation=augmentation,
            strict=self._recipe.strict,
            progress=partial(self._watcher.progress, stage),
        )

    @property
    def note(self) -> str | None:
        """What the user should know of the engine, if there is something and one was made."""
        return self._made.note if self._made else None

    @property
    def runs_on(self) -> str:
        """What computed the features that were missing."""
        return self._made.runs_on if self._made else "the cache"

    def _engine(self) -> Engine:
        from crossroads.features.engine import Engine

        if self._made is None:
            self._made = Engine(self._frozen, graphs=self._cache.graphs)
        return self._made


def feature_key(
    frozen: keras.Model,
    record: Backbone,
    recipe: Recipe,
    cut: str,
    augmentation: Augmentation | None = None,
) -> Key:
    """What the features of a frozen part are kept under; the arguments are those of `Lookup`."""
    from crossroads.features.cache import Key
    from crossroads.networks.export import function_digest

    computed_by = library_versions() | {"openvino": version("openvino"), "device": "GPU" if has_gpu() else "CPU"}
    return Key(
        weights=function_digest(frozen),
        preprocessing=f"{record.name}: {record.preprocessing}",
        resize=resize_of(recipe),
        cut=cut,
        pooling=str(recipe.pooling) if len(frozen.output_shape) == 2 else "map",
        augmentation=augmentation,
        dtype=recipe.feature_type or "float32",
        computed_by=json.dumps(computed_by, sort_keys=True),
    )


def resize_of(recipe: Recipe) -> Resize:
    """How a resolved recipe makes images square. Raises `RecipeError` where it is not resolved."""
    if recipe.image_size is None or recipe.resize is None:
        raise RecipeError("a resolved recipe names image size and resize", received="none")
    return Resize(recipe.image_size, recipe.resize)
