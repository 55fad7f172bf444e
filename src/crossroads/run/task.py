"""What one training is to do: the recipe, the backbone, and the images that are decoded for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crossroads.data.dataset import Dataset
from crossroads.data.images import Resize
from crossroads.data.loading import IN_MEMORY, Loaded, load_all, sample_notes
from crossroads.data.mirrors import flip_is_safe
from crossroads.data.partition import Partition
from crossroads.errors import RecipeError
from crossroads.features.lookup import resize_of
from crossroads.files.trees import existing
from crossroads.networks._named import require_present
from crossroads.networks.construct import OBJECT, Choice, choose, is_own, object_name
from crossroads.networks.weights.store import require_imagenet
from crossroads.progress import Watcher
from crossroads.recipe import Recipe
from crossroads.strategies import Strategy, refuse_strategy_options, resolve_recipe, strategy

MIRROR_SIZE = 32
"""Side in pixels at which images are compared with their mirror images where they are not decoded for training."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What is to be carried out.

    Attributes:
        recipe: Resolved.
        choice: The backbone.
        strategy: The record of the strategy.
        train: Training images, not decoded.
        validation: Validation images, not decoded.
        decode: Decodes both where the strategy trains on pixels, else gives None; called once the network is known to be able to
            become an artifact.
    """

    recipe: Recipe
    choice: Choice
    strategy: Strategy
    train: Dataset
    validation: Dataset
    decode: Callable[[], tuple[Loaded, Loaded] | None]


def require_valid(recipe: Recipe, own: Any) -> None:
    """What is wrong with a recipe whatever the images, told before one is read.

    Args:
        recipe: What the user asked for.
        own: A network that was given as an object, or None.

    Raises:
        CrossroadsError: No such backbone, size or file of weights; an option that does nothing with the strategy.
    """
    if recipe.weights not in (None, "imagenet", "none", "own"):
        existing(recipe.weights)
    if recipe.strategy == "auto":
        refuse_strategy_options(recipe)
    elif recipe.budget is not None:
        raise RecipeError("budget does nothing with a strategy that is named", received=recipe.budget, hint="leave one of them out")
    named = recipe.backbone or (None if recipe.strategy == "auto" else strategy(recipe.strategy).default_backbone)
    if own is not None or named is None:
        return
    if is_own(named):  # nothing more is known of it before Keras is loaded
        if not named.startswith(OBJECT):
            require_present(named)
        return
    record = choose(named).record
    size = recipe.image_size or record.reference_size
    record.check_size(size)
    if recipe.weights == "imagenet":
        require_imagenet(record)
    if recipe.strategy != "auto":
        resolve_recipe(recipe, record, images=100, image_size=size)


def refuse_unsafe_flip(recipe: Recipe, train: Dataset, pixels: tuple[Loaded, Loaded] | None = None) -> None:
    """Raises `RecipeError` where a recipe flips images and a flip changes what they show.

    Args:
        recipe: Its augmentation counts.
        train: Training images.
        pixels: Both sides, where they are decoded already.
    """
    if recipe.augmentation is None or not recipe.augmentation.flip:
        return
    seen = load_all(train, MIRROR_SIZE) if pixels is None else pixels[0]
    verdict = flip_is_safe(seen.pixels, seen.dataset.labels, seen.dataset.classes, seen.dataset.groups)
    if not verdict.safe:
        raise RecipeError(
            "a flip must not change what an image shows",
            received="; ".join(verdict.reasons),
            hint="set flip = false in [augmentation]",
        )


class Tasks:
    """From a recipe to what is to be carried out; pixels that were decoded once serve every task of their size."""

    def __init__(self, partition: Partition, scratch: Path, own: Any, watcher: Watcher) -> None:
        self._partition, self._scratch, self._own, self._watcher = partition, scratch, own, watcher
        self._decoded: dict[Resize, tuple[Loaded, Loaded]] = {}
        self._choices: dict[str, Choice] = {}
        self._checked_sample = False

    def task_for(self, recipe: Recipe) -> Task:
        """The task of a recipe. Its images are decoded when they are asked for."""
        partition, record = self._partition, strategy(recipe.strategy)
        choice = self.choice(recipe)
        size = recipe.image_size or choice.record.size_for(partition.median_side)
        resolved = resolve_recipe(recipe, choice.record, images=len(partition.train), image_size=size, side=partition.median_side)
        choice.record.check_size(size)
        return Task(resolved, choice, record, partition.train, partition.validation, partial(self._images, resolved))

    def choice(self, recipe: Recipe) -> Choice:
        """The backbone of a recipe, looked up once."""
        given = self._own is not None and recipe.backbone == object_name(self._own)
        named = self._own if given else recipe.backbone or strategy(recipe.strategy).default_backbone
        name = recipe.backbone or str(named)
        if name not in self._choices:  # a network of the user's own is built to learn its size
            self._choices[name] = choose(named)
        return self._choices[name]

    def _images(self, recipe: Recipe) -> tuple[Loaded, Loaded] | None:
        """Both sides, decoded where a recipe trains on pixels. Raises `RecipeError` for a flip that changes what images show."""
        if not self._checked_sample:
            self._checked_sample = True
            for note in sample_notes(self._partition.train):
                self._watcher.warning(note)
        frozen = strategy(recipe.strategy).frozen or recipe.freeze_to is not None
        pixels = None if frozen else self._pixels(resize_of(recipe), recipe.strict)
        refuse_unsafe_flip(recipe, self._partition.train, pixels)
        return pixels

    def _pixels(self, resize: Resize, strict: bool) -> tuple[Loaded, Loaded]:
        """Both sides at one size. Several sizes are kept: in `IN_MEMORY` bytes together, what goes beyond in files of the run."""
        if resize not in self._decoded:
            sides = (("train", self._partition.train), ("validation", self._partition.validation))
            needed = sum(len(part) for _, part in sides) * resize.size**2 * 3
            room = self._room()
            if self._decoded and needed > max(room, shutil.disk_usage(self._scratch).free):
                self._let_go()
                room = IN_MEMORY
            decoded = []
            for name, part in sides:
                loaded = load_all(
                    part,
                    resize,
                    strict=strict,
                    progress=partial(self._watcher.progress, f"decoding {name}"),
                    spill=self._scratch / f"{name}-{resize.size}-{resize.mode}.pixels",
                    in_memory=room,
                )
                decoded.append(loaded)
                room -= _held(loaded)
            self._decoded[resize] = (decoded[0], decoded[1])
        return self._decoded[resize]

    def _room(self) -> int:
        """Bytes of pixels that may still be kept in memory."""
        return IN_MEMORY - sum(_held(side) for pair in self._decoded.values() for side in pair)

    def _let_go(self) -> None:
        """Forget what was decoded, before more is."""
        for side in (side for pair in self._decoded.values() for side in pair):
            if isinstance(side.pixels, np.memmap) and side.pixels.filename is not None:
                with suppress(OSError):  # Windows keeps a file that is mapped
                    Path(side.pixels.filename).unlink()
        self._decoded.clear()


def _held(side: Loaded) -> int:
    """Bytes of pixels in memory; none where they are mapped to a file."""
    return 0 if isinstance(side.pixels, np.memmap) else side.pixels.nbytes
