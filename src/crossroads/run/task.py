"""Defines the task of one training: a resolved recipe, its backbone, and the images, which are decoded on request."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from mmap import mmap
from pathlib import Path
from typing import Any
from weakref import ReferenceType, ref

import numpy as np

from crossroads._runtime.keras_setup import can_train, training_needed
from crossroads.data.dataset import Dataset
from crossroads.data.images import Resize
from crossroads.data.loading import IN_MEMORY, Loaded, load_all, sample_notes
from crossroads.data.mirrors import reasons_against_flip
from crossroads.data.partition import Partition
from crossroads.errors import RecipeError, without_effect
from crossroads.features.lookup import resize_of
from crossroads.files.trees import existing
from crossroads.networks._named import require_present
from crossroads.networks.construct import OBJECT, Choice, Progress, choose, graph_file, is_graph, is_own, object_name
from crossroads.networks.graphs import require_preprocessing
from crossroads.networks.weights.store import require_imagenet
from crossroads.progress import Watcher
from crossroads.recipe import Recipe
from crossroads.recipe.memory import memory_limit_mb
from crossroads.strategies import (
    ABOUT_GRAPHS,
    Strategy,
    needs_keras,
    refuse_strategy_options,
    require_frozen,
    resolve_recipe,
    strategy,
)

MIRROR_SIZE = 32
"""Side in pixels at which images are compared with their mirror images if they are not decoded for training."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One training to run.

    Attributes:
        recipe: The resolved recipe.
        choice: The backbone.
        strategy: The record of the strategy.
        train: Training images, not decoded.
        validation: Validation images, not decoded.
        memory_mb: The most memory that the process may use; None if the user set no limit.
        decode: Decodes both if the strategy trains on pixels, and returns None otherwise. `train` calls it after `rehearse`.
    """

    recipe: Recipe
    choice: Choice
    strategy: Strategy
    train: Dataset
    validation: Dataset
    decode: Callable[[], tuple[Loaded, Loaded] | None]
    memory_mb: float | None = None


def require_valid(recipe: Recipe, own: Any, progress: Progress | None = None) -> None:
    """Refuses mistakes in a recipe that do not depend on the images, before an image is read.

    Args:
        recipe: The requested recipe.
        own: A network that was given as an object, or None.
        progress: Called with a stage, bytes done and total bytes while a graph from the hub is downloaded.

    Raises:
        CrossroadsError: An unknown backbone, size or file of weights; an option without an effect.
    """
    if recipe.weights not in (None, "imagenet", "none", "own"):
        existing(recipe.weights)
    refuse_trained_graph(recipe)
    if recipe.strategy == "auto":
        refuse_strategy_options(recipe)
    if recipe.strategy != "auto" and needs_keras(recipe) and not can_train():
        raise training_needed(f"head {recipe.head!r}" if strategy(recipe.strategy).frozen else f"strategy {recipe.strategy!r}")
    backbone = recipe.backbone or (None if recipe.strategy == "auto" else strategy(recipe.strategy).default_backbone)
    if own is not None or backbone is None:
        return
    if is_graph(backbone):
        require_preprocessing(graph_file(backbone, progress), recipe.preprocessing)
    else:
        for name in ABOUT_GRAPHS:
            if (value := getattr(recipe, name)) is not None:
                raise without_effect(name, repr(value), f"on {backbone}, which is not the file of a graph")
    if is_graph(backbone) or not is_own(backbone):
        _require_catalog_options(recipe, backbone)
    elif not backbone.startswith(OBJECT):  # a custom network; checking more than its name would need Keras
        require_present(backbone)


def refuse_trained_graph(recipe: Recipe) -> None:
    """Raises `RecipeError` if a strategy would train a graph. Its name says so: no file is read and nothing is downloaded."""
    if recipe.strategy != "auto" and recipe.backbone is not None and is_graph(recipe.backbone):
        require_frozen(recipe, strategy(recipe.strategy), recipe.backbone)


def _require_catalog_options(recipe: Recipe, backbone: str) -> None:
    """Refuses a size, weights or options that a backbone of the catalog cannot be used with."""
    record = choose(backbone).record
    size = recipe.image_size or record.reference_size
    record.check_size(size)
    if recipe.weights == "imagenet":
        require_imagenet(record)
    if recipe.strategy != "auto":
        resolve_recipe(recipe, record, images=100, image_size=size)


def refuse_unsafe_flip(recipe: Recipe, train: Dataset, pixels: tuple[Loaded, Loaded] | None = None) -> None:
    """Raises `RecipeError` if a recipe flips images although flipping would make their labels wrong.

    Args:
        recipe: The recipe with its augmentation.
        train: Training images.
        pixels: Training and validation images if they are decoded already.
    """
    if recipe.augmentation is None or not recipe.augmentation.flip:
        return
    decoded = load_all(train, MIRROR_SIZE) if pixels is None else pixels[0]
    reasons = reasons_against_flip(decoded.pixels, decoded.dataset.labels, decoded.dataset.classes, decoded.dataset.groups)
    if reasons:
        raise RecipeError(
            "a flip must not change what an image shows",
            code="unsafe-flip",
            field="augmentation",
            received="; ".join(reasons),
            hint="set flip = false in [augmentation]",
        )


class Tasks:
    """Turns recipes into tasks. Pixels that were decoded once serve every task of their size."""

    def __init__(self, partition: Partition, scratch: Path, own: Any, watcher: Watcher) -> None:
        self._partition, self._scratch, self._own, self._watcher = partition, scratch, own, watcher
        memory = partition.recipe.memory
        self._memory_mb = None if memory is None else memory_limit_mb(memory)
        self._decoded: dict[Resize, tuple[Loaded, Loaded]] = {}
        self._forgotten: list[tuple[ReferenceType[mmap], Path]] = []
        self._spilled = 0
        self._choices: dict[str, Choice] = {}
        self._checked_sample = False

    def task_for(self, recipe: Recipe) -> Task:
        """Returns the task of a recipe."""
        partition, record = self._partition, strategy(recipe.strategy)
        choice = self.choice(recipe)
        size = recipe.image_size or choice.record.size_for(partition.median_side)
        resolved = resolve_recipe(recipe, choice.record, images=len(partition.train), image_size=size, side=partition.median_side)
        choice.record.check_size(size)
        decode = partial(self._decode, resolved)
        return Task(resolved, choice, record, partition.train, partition.validation, decode, self._memory_mb)

    def choice(self, recipe: Recipe) -> Choice:
        """Returns the backbone of a recipe. Each is looked up once, because a custom network must be built to learn its size."""
        is_object = self._own is not None and recipe.backbone == object_name(self._own)
        backbone = self._own if is_object else recipe.backbone or strategy(recipe.strategy).default_backbone
        name = recipe.backbone or str(backbone)
        if name not in self._choices:
            self._choices[name] = choose(backbone, self._watcher.progress)
        return self._choices[name]

    def _decode(self, recipe: Recipe) -> tuple[Loaded, Loaded] | None:
        """Decodes training and validation images if a recipe trains on pixels. Raises `RecipeError` for an unsafe flip."""
        if not self._checked_sample:
            self._checked_sample = True
            for note in sample_notes(self._partition.train):
                self._watcher.warning(note)
        frozen = strategy(recipe.strategy).frozen or recipe.freeze_to is not None
        pixels = None if frozen else self._pixels(resize_of(recipe), recipe.strict)
        refuse_unsafe_flip(recipe, self._partition.train, pixels)
        return pixels

    def _pixels(self, resize: Resize, strict: bool) -> tuple[Loaded, Loaded]:
        """Returns training and validation images at one size.

        Several sizes are kept: up to `IN_MEMORY` bytes of them in memory, the rest in files of the run.
        """
        if resize in self._decoded:
            return self._decoded[resize]
        splits = {"train": self._partition.train, "validation": self._partition.validation}
        needed = sum(map(len, splits.values())) * resize.size**2 * 3
        room = IN_MEMORY - sum(_bytes_in_memory(loaded) for pair in self._decoded.values() for loaded in pair)
        if self._decoded and needed > max(room, shutil.disk_usage(self._scratch).free):
            self._forget_pixels()
            room = IN_MEMORY
        decoded = []
        for name, dataset in splits.items():
            self._spilled += 1
            loaded = load_all(
                dataset,
                resize,
                strict=strict,
                progress=partial(self._watcher.progress, f"decoding {name}"),
                # Each file has a name of its own, because a kept result may still map an earlier one of this size.
                spill=self._scratch / f"{name}-{resize.size}-{resize.mode}-{self._spilled}.pixels",
                in_memory=room,
            )
            decoded.append(loaded)
            room -= _bytes_in_memory(loaded)
        self._decoded[resize] = (decoded[0], decoded[1])
        return self._decoded[resize]

    def _forget_pixels(self) -> None:
        """Forgets the decoded images, and removes their files unless a kept result still maps them."""
        arrays = [loaded.pixels for pair in self._decoded.values() for loaded in pair]
        mapped = [array for array in arrays if isinstance(array, np.memmap)]
        self._forgotten += [(ref(array._mmap), Path(str(array.filename))) for array in mapped]  # type: ignore[attr-defined]
        arrays.clear()
        mapped.clear()
        self._decoded.clear()
        self._forgotten = [pair for pair in self._forgotten if not _removed(*pair)]


def _bytes_in_memory(loaded: Loaded) -> int:
    """Returns the bytes of pixels in memory: 0 if they are mapped to a file."""
    return 0 if isinstance(loaded.pixels, np.memmap) else loaded.pixels.nbytes


def _removed(mapped: ReferenceType[mmap], path: Path) -> bool:
    """Removes a file unless a kept result still maps it. Returns whether the file is gone.

    Windows cannot remove a mapped file. A map is not closed by force, because NumPy would then read freed memory.
    """
    if mapped() is not None:
        return False
    path.unlink()
    return True
