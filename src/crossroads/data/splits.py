"""Splits labelled images into train, validation and a sealed test set. Splits are stratified by class and keep groups whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from crossroads.data._draws import Fractions, Ints, SplitCodes, draw_splits
from crossroads.data.dataset import NO_SPLIT, SPLITS, TEST, TRAIN, VALIDATION, Dataset
from crossroads.data.labels import name_classes
from crossroads.errors import SealedTestError, SplitError, option
from crossroads.files.text import plural, were
from crossroads.progress import Note


class SealedTest:
    """A test set that can be counted but not read before the final evaluation.

    Only `n`, `classes` and `len()` are available. The final evaluation, and nothing else, calls `unseal` to get the data set.
    Any other access raises `SealedTestError`.
    """

    __slots__ = ("__dataset",)

    def __init__(self, dataset: Dataset) -> None:
        self.__dataset = dataset

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.__dataset)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in their order."""
        return self.__dataset.classes

    def unseal(self) -> Dataset:
        """Returns the test set, for the final evaluation."""
        return self.__dataset

    def __len__(self) -> int:
        return len(self.__dataset)

    def __repr__(self) -> str:
        return f"SealedTest(n={len(self.__dataset)})"

    def __iter__(self) -> Iterator[object]:
        self._refuse("iteration")

    def __getitem__(self, row: object) -> object:
        self._refuse(f"[{row!r}]")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # Python itself looks these up, for example to copy or pickle; that reads no image
            raise AttributeError(name)
        self._refuse(f".{name}")

    def _refuse(self, access: str) -> NoReturn:
        raise SealedTestError(
            "the test set is sealed before the final evaluation",
            code="test-sealed",
            received=access,
            hint="use train or validation",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """Three disjoint sets of rows.

    Attributes:
        train: Training rows.
        validation: Validation rows.
        test: Test rows, sealed until the final evaluation. None if there is no test set.
        notes: Notes to the user, for example that validation rows were taken from train.
    """

    train: Dataset
    validation: Dataset
    test: SealedTest | None
    notes: tuple[str, ...] = ()


def split(
    dataset: Dataset, *, validation: float, test: float, seed: int, separate_test: Dataset | None = None, strict: bool = False
) -> Splits:
    """Splits the rows of a data set into train, validation and test. Does not read any image.

    If the data already has splits, they are kept. Rows without a split go to train, and a missing split is drawn from train.

    Each class is drawn separately. Its groups are shuffled, and some are chosen so that their number of images is close to the
    fraction. Each split gets at least one group of each class. A group with several classes stays whole and counts as its most
    frequent class. If the data has no groups, identical images of a class stay together, unless the class has too few distinct
    images. The draw of a class depends only on the seed, the name of the class and its own rows.

    A class may have fewer groups (or images, if there are no groups) than there are splits. Its first group then goes to train, and
    a second one to test, or to validation if no test is drawn. One note names all such classes.

    Args:
        dataset: The labelled rows.
        validation: Fraction of the images for validation, in (0, 0.9]. If the data has a split, the fraction of its train rows.
        test: Fraction of the images for the test, in [0, 0.9]. No test rows are drawn if it is 0, if the data has a test split, or
            if `separate_test` is given.
        seed: Seed of the draw.
        separate_test: A separate test set with the same classes. Test rows of `dataset` are then ignored.
        strict: Whether a class that is too small to be in every split is an error.

    Raises:
        SplitError: A fraction is out of range, or no rows are left for train or for a split that is drawn. With `strict`, also if
            a class cannot be in every split.
    """
    _require_fractions(validation, test, separate_test)
    if separate_test is not None:
        _require_test(separate_test, dataset.classes)
    assigned, notes = _given_splits(dataset)
    fractions = _missing_splits(assigned, validation, test, has_test=separate_test is not None)
    if dataset.splits is not None and (assigned != NO_SPLIT).any():
        for code, fraction in fractions:
            text = f"the data has no {SPLITS[code]} rows: {fraction:g} of its train rows are used"
            notes.append(Note(text, "split-taken-from-train", split=SPLITS[code], fraction=fraction))
    if separate_test is not None and (ignored := int(np.count_nonzero(assigned == TEST))):
        text = f"{plural(ignored, 'test row')} of the data {were(ignored)} ignored: a separate test set is given"
        notes.append(Note(text, "test-rows-ignored", rows=ignored))
    trainable = _trainable_rows(assigned)
    if len(trainable) == 0:
        raise SplitError(
            f"{dataset.origin} has no rows to train on", code="no-training-rows", received=f"{len(dataset)} rows, none for train"
        )
    drawn = draw_splits(dataset.select(trainable), fractions, seed, strict=strict)
    assigned[trainable] = drawn.splits
    parts = {code: dataset.select(np.flatnonzero(assigned == code)) for code in (TRAIN, VALIDATION, TEST)}
    if separate_test is not None:
        parts[TEST] = separate_test
    drawn_codes = [code for code, _ in fractions]
    notes += drawn.notes
    for code, part in parts.items():
        notes += _absent_classes(code, part, drawn.too_small if code in drawn_codes else None)
    return Splits(parts[TRAIN], parts[VALIDATION], SealedTest(parts[TEST]) if len(parts[TEST]) else None, tuple(notes))


def rows_to_split(dataset: Dataset, *, validation: float, test: float, has_test: bool) -> Ints:
    """Returns the rows that `split` would draw from. There are none if the data or a separate test set already gives each split."""
    assigned = dataset.effective_splits()
    drawn = _missing_splits(assigned, validation, test, has_test=has_test)
    return _trainable_rows(assigned) if drawn else np.empty(0, np.int64)


def split_digest(digests: NDArray[np.uint8], labels: NDArray[np.integer], classes: Sequence[str]) -> str:
    """Returns a hexadecimal digest of a split. It depends on the images and their class names, but not on their order.

    Args:
        digests: uint8 (n, 16), the digests of the images.
        labels: int (n,), indices into `classes`.
        classes: Class names.
    """
    names = np.frombuffer(b"".join(hashlib.blake2b(name.encode(), digest_size=16).digest() for name in classes), np.uint8)
    rows = np.concatenate([digests, names.reshape(-1, 16)[labels]], axis=1)
    keys = np.ascontiguousarray(rows).view(np.uint64)
    return hashlib.blake2b(rows[np.lexsort(keys.T)].tobytes(), digest_size=16).hexdigest()


def _trainable_rows(assigned: SplitCodes) -> Ints:
    return np.flatnonzero((assigned == NO_SPLIT) | (assigned == TRAIN))


def _missing_splits(assigned: SplitCodes, validation: float, test: float, *, has_test: bool) -> Fractions:
    """Returns the splits that must be drawn, with their fractions.

    The test comes first, so that it gets the second group of a class.
    """
    missing: Fractions = []
    if not has_test and test > 0 and not (assigned == TEST).any():
        missing.append((TEST, test))
    if not (assigned == VALIDATION).any():
        missing.append((VALIDATION, validation))
    return missing


def _require_fractions(validation: float, test: float, separate_test: Dataset | None) -> None:
    for field, value, good, limits in (
        ("validation", validation, 0 < validation <= 0.9, "(0, 0.9]"),
        ("test_fraction", test, 0 <= test <= 0.9, "[0, 0.9]"),
    ):
        if not good:
            rule, hint = f"{option(field)} must be in {limits}", "use a fraction such as 0.1"
            raise SplitError(rule, code="fraction-out-of-range", field=field, received=value, hint=hint)
    if separate_test is None and validation + test > 0.95:
        raise SplitError(
            f"{option('validation')} and {option('test_fraction')} must leave at least 0.05 for train",
            code="fractions-leave-no-train",
            field="validation",
            received=f"{validation} + {test}",
            hint="lower one of them",
        )


def _require_test(separate_test: Dataset, classes: tuple[str, ...]) -> None:
    if separate_test.classes != classes:
        raise SplitError(
            "the test set must have the classes of the data",
            code="classes-differ",
            received=f"{len(separate_test.classes)} classes instead of {len(classes)}",
            hint="align its labels with the data's classes first",
        )
    if len(separate_test) == 0:
        raise SplitError(f"the test set {separate_test.origin} has no rows", code="empty-test")


def _given_splits(dataset: Dataset) -> tuple[SplitCodes, list[str]]:
    """Returns the split that the data gives each row, and notes.

    The notes name rows without a split and groups that are in several splits.
    """
    notes: list[str] = []
    unassigned = 0 if dataset.splits is None else int(np.count_nonzero(dataset.splits == NO_SPLIT))
    if 0 < unassigned < len(dataset):
        text = f"{plural(unassigned, 'row')} without a split {were(unassigned)} added to train"
        notes.append(Note(text, "rows-without-split", rows=unassigned))
    divided = dataset.groups_across_splits()
    if len(divided):
        example = dataset.name(int(divided[0]))
        such = f"{plural(len(divided), 'group')}, such as that of {example}"
        text = f"the split in the data divides {such}; the scores will be optimistically biased"
        notes.append(Note(text, "groups-across-splits", groups=len(divided), example=example))
    return dataset.effective_splits(), notes


def _absent_classes(code: int, part: Dataset, reported: NDArray[np.bool_] | None) -> Iterator[Note]:
    """Yields a note if a split has no image of some classes. Leaves out the classes in `reported`."""
    counts = part.counts()
    absent = np.flatnonzero((counts == 0) & (True if reported is None else ~reported))
    if len(absent) and (len(part) or code == TRAIN):
        text = f"{SPLITS[code]} has no image of {len(absent)} of {len(counts)} classes: {name_classes(part.classes, absent)}"
        names = [part.classes[label] for label in absent]
        yield Note(text, "classes-missing-from-split", split=SPLITS[code], absent=names, classes=len(counts))
