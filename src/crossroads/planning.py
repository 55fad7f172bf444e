"""From labelled images to what is trained on them: the split, the task of a recipe, and whom to race where the choice is open."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crossroads import __version__
from crossroads._platform import has_gpu
from crossroads.advice.candidates import Candidate, within
from crossroads.advice.offers import offers_of
from crossroads.advice.recommend import recommend
from crossroads.data.audit import BALANCE_MEND, IMBALANCE
from crossroads.data.dataset import DIGEST_BYTES, Dataset
from crossroads.data.images import Resize
from crossroads.data.labels import align
from crossroads.data.loading import Loaded, digests_of, load_all, sizes
from crossroads.data.mirrors import flip_is_safe
from crossroads.data.readers import read
from crossroads.data.splits import Locked, divided_rows, split
from crossroads.data.trees import existing
from crossroads.errors import DataError, RecipeError
from crossroads.fitting import Task
from crossroads.lookup import resize_of
from crossroads.networks.catalog import DEFAULT_FROM_SCRATCH
from crossroads.networks.construct import choose, is_own, object_name
from crossroads.networks.weights.store import require_imagenet
from crossroads.race.records import Entrant, Plan
from crossroads.recipe import Recipe
from crossroads.scoring import test_rows
from crossroads.strategies import refuse_chosen, resolve, strategy
from crossroads.training.watch import Watcher

Source = object
"""Labelled images in any form that `read` takes."""

BUDGET = 600.0
"""Seconds that the choice of a strategy and its training may take where the user names no budget: ten minutes."""

LONG = 2.0
"""Seconds from which on the reading of files before the split is told of."""

MIRROR_SIZE = 32
"""Side in pixels at which images are compared with their mirror images where they are not decoded for training."""


@dataclass(frozen=True, slots=True, eq=False)
class Divided:
    """Labelled images, listed and split; nothing is decoded.

    Attributes:
        recipe: What the user asked for; without a share for a test where one is given.
        train: Training images.
        validation: Validation images.
        test: Locked, or None.
        side: Median of the shorter sides of the training images, in pixels.
        notes: What the user was told.
    """

    recipe: Recipe
    train: Dataset
    validation: Dataset
    test: Locked | None
    side: float
    notes: tuple[str, ...]


def divide(data: Source | None, test: Source | None, recipe: Recipe, watcher: Watcher) -> Divided:
    """List and split; the test stays locked. Files that are divided are read, to find equal ones; nothing is decoded.

    Args:
        data: Labelled images.
        test: A separate test set, or None.
        recipe: What the user asked for.
        watcher: Is told what goes on.

    Raises:
        CrossroadsError: As `fit` does.
    """
    if data is None:
        raise DataError("there must be labelled images", mend="give DATA, or `data` in the recipe")
    dataset = read(data, class_names=recipe.class_names)
    if len(dataset.classes) < 2:
        raise DataError(
            f"{dataset.origin}: a classifier needs at least two classes",
            received=f"{len(dataset.classes)} ({', '.join(dataset.classes)})",
            mend="add images of another class",
        )
    locked = None if test is None else test_rows(align(read(test, class_names=recipe.class_names), dataset.classes))
    if dataset.groups is None:
        dataset = _with_digests(dataset, recipe, locked is not None, watcher)
    parts = split(dataset, validation=recipe.validation, test=recipe.test_share, seed=recipe.seed, locked_test=locked)
    if locked is not None:
        recipe = replace(recipe, test_share=0.0)  # which then does nothing; so the stored recipe repeats the run
    notes = (*dataset.notes, *(() if locked is None else (f"test: {note}" for note in locked.notes)), *parts.notes)
    if recipe.class_weights == "none":
        notes += _unequal(parts.train)
    for note in notes:
        watcher.warning(note)
    side = float(sizes(parts.train, seed=recipe.seed).median)
    return Divided(recipe, parts.train, parts.validation, parts.test, side, notes)


def _unequal(train: Dataset) -> tuple[str, ...]:
    """A note where the classes of the training images are of very unequal size; else nothing."""
    counts = train.counts()
    held = np.flatnonzero(counts)
    most, least = held[np.argmax(counts[held])], held[np.argmin(counts[held])]
    if counts[most] <= IMBALANCE * counts[least]:
        return ()
    return (
        f"of class {train.classes[most]} there are {counts[most]:,} training images, of class {train.classes[least]} "
        f"{counts[least]:,}: {BALANCE_MEND}",
    )


def _with_digests(dataset: Dataset, recipe: Recipe, tested: bool, watcher: Watcher) -> Dataset:
    """With the digests of the rows that are divided, by which equal ones come on one side; a given test stays unread."""
    rows = divided_rows(dataset, validation=recipe.validation, test=recipe.test_share, tested=tested)
    began = time.perf_counter()

    def progress(done: int, total: int) -> None:
        if time.perf_counter() - began > LONG:
            watcher.progress("comparing images", done, total)

    digests = np.zeros((len(dataset), DIGEST_BYTES), np.uint8)
    digests[rows] = digests_of(dataset.select(rows), progress=progress)
    return replace(dataset, digests=digests)


def require_sound(recipe: Recipe, own: Any) -> None:
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
        refuse_chosen(recipe)
    elif recipe.budget is not None:
        raise RecipeError("budget does nothing with a strategy that is named", received=recipe.budget, mend="leave one of them out")
    named = recipe.backbone or (None if recipe.strategy == "auto" else strategy(recipe.strategy).default_backbone)
    if own is not None or named is None or is_own(named):  # of which nothing is known before Keras is loaded
        return
    record = choose(named).record
    size = recipe.image_size or record.reference_size
    record.check_size(size)
    if recipe.weights == "imagenet":
        require_imagenet(record)
    if recipe.strategy != "auto":
        resolve(recipe, record, images=100, image_size=size)


class Tasks:
    """From a recipe to what is to be carried out; pixels that were decoded once serve every task of their size."""

    def __init__(self, divided: Divided, scratch: Path, own: Any, watcher: Watcher) -> None:
        self._divided, self._scratch, self._own, self._watcher = divided, scratch, own, watcher
        self._decoded: tuple[Resize, tuple[Loaded, Loaded]] | None = None

    def __call__(self, recipe: Recipe) -> Task:
        """The task of a recipe; images are decoded where it trains on pixels."""
        divided, record = self._divided, strategy(recipe.strategy)
        own = (
            self._own
            if recipe.backbone is not None and self._own is not None and recipe.backbone == object_name(self._own)
            else None
        )
        choice = choose(own or recipe.backbone or record.default_backbone)
        chosen = choice.record
        size = recipe.image_size or chosen.size_for(divided.side)
        resolved = resolve(recipe, chosen, images=len(divided.train), image_size=size, side=divided.side)
        chosen.check_size(size)
        pixels = None if record.frozen or resolved.freeze_to is not None else self._pixels(resize_of(resolved), resolved.strict)
        _refuse_flip(resolved, divided.train, pixels)
        return Task(resolved, choice, record, divided.train, divided.validation, pixels)

    def _pixels(self, resize: Resize, strict: bool) -> tuple[Loaded, Loaded]:
        if self._decoded is None or self._decoded[0] != resize:
            self._decoded = None  # before more are read
            train, validation = (
                load_all(
                    part,
                    resize,
                    strict=strict,
                    progress=partial(self._watcher.progress, f"decoding {name}"),
                    spill=self._scratch / f"{name}-{resize.size}-{resize.mode}.pixels",
                )
                for name, part in (("train", self._divided.train), ("validation", self._divided.validation))
            )
            self._decoded = (resize, (train, validation))
        return self._decoded[1]


def _refuse_flip(recipe: Recipe, train: Dataset, pixels: tuple[Loaded, Loaded] | None) -> None:
    if recipe.augmentation is None or not recipe.augmentation.flip:
        return
    seen = load_all(train, MIRROR_SIZE) if pixels is None else pixels[0]
    verdict = flip_is_safe(seen.pixels, seen.dataset.labels, seen.dataset.classes, seen.dataset.groups)
    if not verdict.safe:
        raise RecipeError(
            "a flip must not change what an image shows",
            received="; ".join(verdict.reasons),
            mend="set flip = false in [augmentation]",
        )


def identity_of(divided: Divided) -> str:
    """Digest of the images that a race is run on, their labels and groups, and of the version; reads those that have no digest."""
    hasher = hashlib.blake2b(digest_size=16)
    hasher.update(json.dumps([__version__, divided.train.classes]).encode())
    for side in (divided.train, divided.validation):
        hasher.update(digests_of(side).tobytes())
        hasher.update(np.ascontiguousarray(side.labels).tobytes())
        hasher.update(b"" if side.groups is None else np.ascontiguousarray(side.groups).tobytes())
    return hasher.hexdigest()


def planned(divided: Divided, own: Any, watcher: Watcher) -> Plan:
    """Whom to race: those that nothing stands in the way of, and a head on frozen features in any case that memory holds."""
    recipe = divided.recipe
    _refuse_flip(recipe, divided.train, None)
    named = own if own is not None else recipe.backbone
    weights = (recipe.weights,) if recipe.weights else ()
    offers = () if recipe.weights == "none" else offers_of(() if named is None else (named,), weights, watcher)
    if not offers:
        usual = named in (None, DEFAULT_FROM_SCRATCH)
        if named is None:
            watcher.note("nothing pretrained to choose from: training from scratch")
        elif recipe.budget is not None and not usual:
            watcher.warning(f"{recipe.backbone} is trained from scratch, which the budget does not shorten; --epochs does")
        if not usual or recipe.budget is None:  # nothing to measure, or no limit to measure it for
            return Plan((), BUDGET, 0.0, {})
    budget = recipe.budget or BUDGET
    advice = recommend(divided.train, divided.side, offers, replace(recipe, budget=budget), watcher)
    free = [one for one in advice.ranked if not one.obstacle]
    frozen = [one for one in advice.ranked if strategy(one.recipe.strategy).frozen]
    held = [one for one in frozen if one.fits]
    first: list[Candidate] = []
    if not free:
        first = [max(held or frozen or list(advice.ranked), key=lambda one: one.accuracy.value)]
        small = "budget" if first[0].fits else "memory"
        least = first[0].seconds_of_least(shortens=recipe.epochs is None)
        watcher.warning(f"the {small} is too small for anything; {first[0].name} is trained all the same, in about {least:,.0f} s")
    elif not any(one in frozen for one in free):
        first = held[:1]
    for one in advice.ranked:
        if one.obstacle and one not in first:
            watcher.note(f"{one.name} is left out: it {one.obstacle}")
        elif one.obstacle and free:
            watcher.note(f"{one.name} is the first answer all the same, though it {one.obstacle}")
        elif one.unshortened and (left := within(one.unshortened, budget - advice.evidence.seconds, None)).shortened:
            watcher.note(f"{one.name}: what is left of the budget has room for about {left.shortened}")
    free += first
    # The race shortens by what it measures. The seconds are a CPU's: on a GPU nothing is known of them before a first turn.
    whole = [one.unshortened or one for one in free]
    times = [(0.0, 0.0) if has_gpu() else (one.seconds, one.epoch_seconds) for one in whole]
    entrants = tuple(
        Entrant(one.recipe, one.accuracy, *seconds, shortens=recipe.epochs is None)
        for one, seconds in zip(whole, times, strict=True)
    )
    return Plan(entrants, budget, advice.evidence.seconds, advice.to_json())
