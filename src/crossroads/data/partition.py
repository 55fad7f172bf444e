"""Reads the data of a run and splits it into training, validation and sealed test rows. Only this module does so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import DIGEST_BYTES, TEST, Dataset
from crossroads.data.duplicates import digests_of_duplicates
from crossroads.data.imbalance import BALANCE_HINT, imbalance
from crossroads.data.labels import align, name_classes
from crossroads.data.loading import median_side, require_readable
from crossroads.data.readers import read
from crossroads.data.splits import SealedTest, rows_to_split, split
from crossroads.errors import DataError
from crossroads.progress import Note, Watcher
from crossroads.recipe import Recipe

Source = object
"""Labelled images in any form that `read` accepts."""

QUIET_SECONDS = 2.0
"""Progress of reading files before the split is reported only after this many seconds."""

BIASED = "these scores are optimistically biased"
"""The end of every warning about scores on images that the classifier was trained on."""


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """Labelled images that are split but not decoded.

    Attributes:
        recipe: What the user asked for. Its test fraction is 0 if a separate test set is given.
        train: Training images.
        validation: Validation images.
        test: Test images, sealed until the final evaluation. None if there is no test set.
        median_side: Median of the shorter sides of the training images, in pixels.
        notes: The warnings that were sent to the watcher.
    """

    recipe: Recipe
    train: Dataset
    validation: Dataset
    test: SealedTest | None
    median_side: float
    notes: tuple[str, ...]


def load_and_split(data: Source | None, test: Source | None, recipe: Recipe, watcher: Watcher) -> Partition:
    """Reads and splits labelled images. The test set stays sealed.

    Files that will be split are compared to find duplicates. Only possible duplicates are read in full. No image is decoded.

    Args:
        data: Labelled images.
        test: A separate test set, or None.
        recipe: What the user asked for.
        watcher: Receives progress and warnings.

    Raises:
        DataError: The images or labels cannot be read, or a class has no readable training image.
        SplitError: The images cannot be split as asked.
    """
    if data is None:
        raise DataError("no labelled images are given", code="no-data", field="data", hint="give DATA, or `data` in the recipe")
    dataset = read(data, class_names=recipe.class_names)
    if len(dataset.classes) < 2:
        raise DataError(
            f"{dataset.origin}: a classifier needs at least two classes",
            code="too-few-classes",
            received=f"{len(dataset.classes)} ({', '.join(dataset.classes)})",
            hint="add images of another class",
        )
    separate_test = None if test is None else test_rows(align(read(test, class_names=recipe.class_names), dataset.classes))
    if dataset.groups is None:  # groups already say which rows stay together
        dataset = _with_digests(dataset, recipe, separate_test is not None, watcher)
    parts = split(
        dataset,
        validation=recipe.validation,
        test=recipe.test_fraction,
        seed=recipe.seed,
        separate_test=separate_test,
        strict=recipe.strict,
    )
    _require_training_images(parts.train)
    if separate_test is not None:
        recipe = replace(recipe, test_fraction=0.0)  # it has no effect beside a test set, and a stored 0 repeats this run
    about_test = [] if separate_test is None else separate_test.notes
    about_test = [note.prefixed("test: ") if isinstance(note, Note) else f"test: {note}" for note in about_test]
    notes = [*dataset.notes, *about_test, *parts.notes]
    notes += conflicting_label_notes(dataset)
    if recipe.class_weights == "none":
        notes += unbalanced_notes(parts.train)
    for note in notes:
        watcher.warning(note)
    require_readable(parts.train)
    side = float(median_side(parts.train, seed=recipe.seed))
    return Partition(recipe, parts.train, parts.validation, parts.test, side, tuple(notes))


def test_rows(dataset: Dataset) -> Dataset:
    """Returns the test rows of a data set with a split, or all rows if it has none."""
    if dataset.splits is None or not (dataset.splits == TEST).any() or (dataset.splits == TEST).all():
        return dataset
    test = dataset.select(dataset.splits == TEST)
    ignored = len(dataset) - len(test)
    text = f"{dataset.origin}: only its test split is scored; its {ignored} other images are ignored"
    return replace(test, notes=(*test.notes, Note(text, "only-test-rows-scored", ignored=ignored)))


def count_seen(digests: NDArray[np.uint8], seen: NDArray[np.uint8]) -> int:
    """Counts the digests, uint8 (n, 16), that also occur in `seen`, uint8 (m, 16)."""
    known = {digest.tobytes() for digest in seen}
    return sum(digest.tobytes() in known for digest in digests)


def absent_class_notes(dataset: Dataset) -> Iterator[Note]:
    """Yields a note if some classes have no image in a data set that is about to be scored."""
    absent = np.flatnonzero(dataset.counts() == 0)
    if len(absent):
        names = name_classes(dataset.classes, absent)
        text = f"{len(absent)} of {len(dataset.classes)} classes have no images ({names}); balanced accuracy covers the others"
        yield Note(text, "absent-classes", absent=[dataset.classes[label] for label in absent], classes=len(dataset.classes))


def conflicting_label_notes(dataset: Dataset) -> Iterator[Note]:
    """Yields a note if identical images have different labels."""
    rows = dataset.conflicting_rows()
    if not len(rows) or dataset.digests is None:
        return
    first = rows[0]
    equal = (dataset.digests[rows] == dataset.digests[first]).all(axis=1)
    other = rows[equal & (dataset.labels[rows] != dataset.labels[first])][0]
    example = [f"{dataset.name(int(row))} ({dataset.classes[dataset.labels[row]]})" for row in (first, other)]
    text = f"{len(rows):,} images also occur under another label, for example {' and '.join(example)}; run `crossroads audit`"
    yield Note(text, "conflicting-labels", images=len(rows), example=example)


def unbalanced_notes(train: Dataset) -> Iterator[Note]:
    """Yields a note if the classes of the training images differ widely in size."""
    if (found := imbalance(train)) is not None:
        largest, most, smallest, fewest = found
        text = f"class {largest} has {most:,} training images, class {smallest} has {fewest:,}: {BALANCE_HINT}"
        yield Note(text, "classes-unbalanced", largest=largest, smallest=smallest, counts=[most, fewest])


def _require_training_images(train: Dataset) -> None:
    """Raises `DataError` if a class has no image to train on."""
    absent = np.flatnonzero(train.counts() == 0)
    if len(absent):
        raise DataError(
            f"{train.origin}: each class needs a training image",
            code="empty-class",
            received=f"none of {name_classes(train.classes, absent)}",
            hint="add images of it to train, or leave the class out",
        )


def _with_digests(dataset: Dataset, recipe: Recipe, has_test: bool, watcher: Watcher) -> Dataset:
    """Returns the data set with digests of possible duplicates among the rows that will be split, so that they can stay together.

    Test images that are given are not read.
    """
    rows = rows_to_split(dataset, validation=recipe.validation, test=recipe.test_fraction, has_test=has_test)
    started = time.perf_counter()

    def progress(done: int, total: int) -> None:
        if time.perf_counter() - started > QUIET_SECONDS:
            watcher.progress("comparing images", done, total)

    digests = np.zeros((len(dataset), DIGEST_BYTES), np.uint8)
    digests[rows] = digests_of_duplicates(dataset.select(rows), progress=progress)
    return replace(dataset, digests=digests)
