"""From labelled images to training, validation and a sealed test set."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crossroads.data.audit import BALANCE_HINT, IMBALANCE
from crossroads.data.dataset import DIGEST_BYTES, TEST, Dataset
from crossroads.data.labels import align
from crossroads.data.loading import digests_of, median_side, require_readable
from crossroads.data.readers import read
from crossroads.data.splits import SealedTest, rows_to_split, split
from crossroads.errors import DataError
from crossroads.progress import Watcher
from crossroads.recipe import Recipe

Source = object
"""Labelled images in any form that `read` takes."""


LONG = 2.0
"""Seconds from which on the reading of files before the split is told of."""


BIASED = "these scores are optimistically biased"
"""What a warning says of scores on images that the classifier has learned from."""


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """Labelled images, listed and split; nothing is decoded.

    Attributes:
        recipe: What the user asked for; without a share for a test where one is given.
        train: Training images.
        validation: Validation images.
        test: SealedTest, or None.
        median_side: Median of the shorter sides of the training images, in pixels.
        notes: What the user was told.
    """

    recipe: Recipe
    train: Dataset
    validation: Dataset
    test: SealedTest | None
    median_side: float
    notes: tuple[str, ...]


def load_and_split(data: Source | None, test: Source | None, recipe: Recipe, watcher: Watcher) -> Partition:
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
        raise DataError("there must be labelled images", hint="give DATA, or `data` in the recipe")
    dataset = read(data, class_names=recipe.class_names)
    if len(dataset.classes) < 2:
        raise DataError(
            f"{dataset.origin}: a classifier needs at least two classes",
            received=f"{len(dataset.classes)} ({', '.join(dataset.classes)})",
            hint="add images of another class",
        )
    locked = None if test is None else test_rows(align(read(test, class_names=recipe.class_names), dataset.classes))
    if dataset.groups is None:
        dataset = _with_digests(dataset, recipe, locked is not None, watcher)
    shares = {"validation": recipe.validation, "test": recipe.test_fraction}
    parts = split(dataset, **shares, seed=recipe.seed, separate_test=locked, strict=recipe.strict)
    _require_all_trained(parts.train)
    if locked is not None:
        recipe = replace(recipe, test_fraction=0.0)  # which then does nothing; so the stored recipe repeats the run
    notes = (*dataset.notes, *(() if locked is None else (f"test: {note}" for note in locked.notes)), *parts.notes)
    notes += _with_two_labels(dataset)
    if recipe.class_weights == "none":
        notes += _unequal(parts.train)
    for note in notes:
        watcher.warning(note)
    require_readable(parts.train)
    side = float(median_side(parts.train, seed=recipe.seed))
    return Partition(recipe, parts.train, parts.validation, parts.test, side, notes)


def _require_all_trained(train: Dataset) -> None:
    """Raises `DataError` where a class has no image to train on."""
    absent = [repr(train.classes[label]) for label in np.flatnonzero(train.counts() == 0)]
    if absent:
        raise DataError(
            f"{train.origin}: each class needs a training image",
            received=f"none of {', '.join(absent[:5])}{', …' * (len(absent) > 5)}",
            hint="add images of it to train, or leave the class out",
        )


def _with_two_labels(dataset: Dataset) -> tuple[str, ...]:
    """A note where equal images have different labels; else nothing."""
    rows = dataset.conflicting_rows()
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
        f"{counts[least]:,}: {BALANCE_HINT}",
    )


def _with_digests(dataset: Dataset, recipe: Recipe, tested: bool, watcher: Watcher) -> Dataset:
    """With the digests of the rows that are partition, by which equal ones come on one side; a given test stays unread."""
    rows = rows_to_split(dataset, validation=recipe.validation, test=recipe.test_fraction, tested=tested)
    began = time.perf_counter()

    def progress(done: int, total: int) -> None:
        if time.perf_counter() - began > LONG:
            watcher.progress("comparing images", done, total)

    digests = np.zeros((len(dataset), DIGEST_BYTES), np.uint8)
    digests[rows] = digests_of(dataset.select(rows), progress=progress)
    return replace(dataset, digests=digests)


def test_rows(dataset: Dataset) -> Dataset:
    """The test rows of a data set that brings a split, else all."""
    if dataset.splits is None or not (dataset.splits == TEST).any() or (dataset.splits == TEST).all():
        return dataset
    test = dataset.select(dataset.splits == TEST)
    left_out = len(dataset) - len(test)
    return replace(
        test, notes=(*test.notes, f"{dataset.origin}: only its test split is scored; {left_out} other rows are left out")
    )


def count_seen(digests: NDArray[np.uint8], seen: NDArray[np.uint8]) -> int:
    """How many of the images with the first digests, uint8 (n, 16), are among those with the others, uint8 (m, 16)."""
    known = {digest.tobytes() for digest in seen}
    return sum(digest.tobytes() in known for digest in digests)


def absent_class_notes(dataset: Dataset) -> Iterator[str]:
    """A remark on the classes that the data set has no image of."""
    absent = [dataset.classes[label] for label in np.flatnonzero(dataset.counts() == 0)]
    if absent:
        named = ", ".join(map(repr, absent[:5])) + (", …" if len(absent) > 5 else "")
        yield f"no images of {len(absent)} of {len(dataset.classes)} classes ({named}); balanced accuracy is over the others"
