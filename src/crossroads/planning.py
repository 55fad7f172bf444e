"""From labelled images to training: the split, the task of a recipe, and which candidates to race if the strategy is open."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from contextlib import suppress
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
from crossroads.data.loading import IN_MEMORY, Loaded, digests_of, load_all, require_readable, sample_notes, sizes
from crossroads.data.readers import read
from crossroads.data.splits import Locked, divided_rows, split
from crossroads.data.trees import existing
from crossroads.errors import ArtifactError, DataError, RecipeError
from crossroads.fitting import Task, refuse_flip, rehearse
from crossroads.lookup import resize_of
from crossroads.networks._named import require_present
from crossroads.networks.catalog import DEFAULT_FROM_SCRATCH
from crossroads.networks.construct import OBJECT, Choice, choose, is_own, object_name
from crossroads.networks.weights.store import require_imagenet
from crossroads.race.records import Entrant, Plan
from crossroads.recipe import Recipe
from crossroads.scoring import test_rows
from crossroads.strategies import refuse_chosen, resolve, strategy
from crossroads.training.checkpoint import identity_of_parts
from crossroads.training.watch import Watcher

Source = object
"""Labelled images in any form that `read` takes."""

BUDGET = 600.0
"""Seconds that the choice of a strategy and its training may take where the user names no budget: ten minutes."""

LONG = 2.0
"""Seconds from which on the reading of files before the split is told of."""


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
    """List and split the images; the test stays locked.

    Reads the files to be split, to find duplicates; decodes nothing.

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
    shares = {"validation": recipe.validation, "test": recipe.test_share}
    parts = split(dataset, **shares, seed=recipe.seed, locked_test=locked, strict=recipe.strict)
    _require_all_trained(parts.train)
    if locked is not None:
        recipe = replace(recipe, test_share=0.0)  # which then does nothing; so the stored recipe repeats the run
    notes = (*dataset.notes, *(() if locked is None else (f"test: {note}" for note in locked.notes)), *parts.notes)
    notes += _with_two_labels(dataset)
    if recipe.class_weights == "none":
        notes += _unequal(parts.train)
    for note in notes:
        watcher.warning(note)
    require_readable(parts.train)
    side = float(sizes(parts.train, seed=recipe.seed).median)
    return Divided(recipe, parts.train, parts.validation, parts.test, side, notes)


def _require_all_trained(train: Dataset) -> None:
    """Raises `DataError` where a class has no image to train on."""
    absent = [repr(train.classes[label]) for label in np.flatnonzero(train.counts() == 0)]
    if absent:
        raise DataError(
            f"{train.origin}: each class needs a training image",
            received=f"none of {', '.join(absent[:5])}{', …' * (len(absent) > 5)}",
            mend="add images of it to train, or leave the class out",
        )


def _with_two_labels(dataset: Dataset) -> tuple[str, ...]:
    """A note where equal images have different labels; else nothing."""
    rows = dataset.with_two_labels()
    if not len(rows) or dataset.digests is None:
        return ()
    same = (dataset.digests[rows] == dataset.digests[rows[0]]).all(axis=1)
    other = rows[same & (dataset.labels[rows] != dataset.labels[rows[0]])][0]
    return (
        f"{len(rows):,} images also occur under another label, for example {dataset.name(int(rows[0]))} "
        f"({dataset.classes[dataset.labels[rows[0]]]}) and {dataset.name(int(other))} ({dataset.classes[dataset.labels[other]]}); "
        "run `crossroads audit`",
    )


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
        resolve(recipe, record, images=100, image_size=size)


class Tasks:
    """From a recipe to what is to be carried out; pixels that were decoded once serve every task of their size."""

    def __init__(self, divided: Divided, scratch: Path, own: Any, watcher: Watcher) -> None:
        self._divided, self._scratch, self._own, self._watcher = divided, scratch, own, watcher
        self._decoded: dict[Resize, tuple[Loaded, Loaded]] = {}
        self._choices: dict[str, Choice] = {}
        self._sampled = False

    def __call__(self, recipe: Recipe) -> Task:
        """The task of a recipe. Its images are decoded when they are asked for."""
        divided, record = self._divided, strategy(recipe.strategy)
        choice = self._choice(recipe)
        size = recipe.image_size or choice.record.size_for(divided.side)
        resolved = resolve(recipe, choice.record, images=len(divided.train), image_size=size, side=divided.side)
        choice.record.check_size(size)
        return Task(resolved, choice, record, divided.train, divided.validation, partial(self._images, resolved))

    def able(self, plan: Plan) -> Plan:
        """The plan with those entrants whose networks can become an artifact. The user is told of the others, and why.

        Raises:
            ArtifactError: None can.
        """
        refused: dict[tuple[object, ...], ArtifactError | None] = {}
        kept: list[Entrant] = []
        for one in plan.entrants:
            recipe = one.recipe
            network = (recipe.backbone, recipe.image_size, recipe.cut, recipe.pooling, recipe.head == "mlp")
            if network not in refused:
                try:
                    rehearse(self._choice(recipe), int(recipe.image_size or 0), len(self._divided.train.classes), recipe)
                    refused[network] = None
                except ArtifactError as error:
                    refused[network] = error
            if why := refused[network]:
                self._watcher.note(f"{recipe.strategy} of {recipe.backbone} is left out: {why}")
            else:
                kept.append(one)
        self._sampled = bool(plan.entrants)  # by the advice
        if plan.entrants and not kept:
            raise next(why for why in refused.values() if why)
        return replace(plan, entrants=tuple(kept))

    def _choice(self, recipe: Recipe) -> Choice:
        given = self._own is not None and recipe.backbone == object_name(self._own)
        named = self._own if given else recipe.backbone or strategy(recipe.strategy).default_backbone
        name = recipe.backbone or str(named)
        if name not in self._choices:  # a network of the user's own is built to learn its size
            self._choices[name] = choose(named)
        return self._choices[name]

    def _images(self, recipe: Recipe) -> tuple[Loaded, Loaded] | None:
        """Both sides, decoded where a recipe trains on pixels. Raises `RecipeError` for a flip that changes what images show."""
        if not self._sampled:
            self._sampled = True
            for note in sample_notes(self._divided.train):
                self._watcher.warning(note)
        frozen = strategy(recipe.strategy).frozen or recipe.freeze_to is not None
        pixels = None if frozen else self._pixels(resize_of(recipe), recipe.strict)
        refuse_flip(recipe, self._divided.train, pixels)
        return pixels

    def _pixels(self, resize: Resize, strict: bool) -> tuple[Loaded, Loaded]:
        """Both sides at one size. Several sizes are kept: in `IN_MEMORY` bytes together, what goes beyond in files of the run."""
        if resize not in self._decoded:
            sides = (("train", self._divided.train), ("validation", self._divided.validation))
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


def identity_of(divided: Divided) -> str:
    """Digest of the images that a race is run on, their labels and groups, and the version; reads those that have no digest."""
    hasher = hashlib.blake2b(json.dumps(divided.train.classes).encode(), digest_size=16)
    for side in (divided.train, divided.validation):
        hasher.update(digests_of(side).tobytes())
        hasher.update(np.ascontiguousarray(side.labels).tobytes())
        hasher.update(b"" if side.groups is None else np.ascontiguousarray(side.groups).tobytes())
    return identity_of_parts({"images or labels": hasher.hexdigest(), "versions": __version__})


def planned(divided: Divided, own: Any, watcher: Watcher) -> Plan:
    """Which candidates to race: those without an obstacle, and always a head on frozen features if memory holds them."""
    recipe = divided.recipe
    named = own if own is not None else recipe.backbone
    weights = (recipe.weights,) if recipe.weights else ()
    offers = () if recipe.weights == "none" else offers_of(() if named is None else (named,), weights, watcher)
    if not offers:
        usual = named in (None, DEFAULT_FROM_SCRATCH)
        if named is None:
            watcher.note("nothing pretrained to choose from: training from scratch")
        elif recipe.budget is not None and not usual:
            watcher.warning(f"{recipe.backbone} trains from scratch; the budget cannot shorten that, use --epochs")
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
