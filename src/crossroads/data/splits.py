"""Train, validation and test: stratified by class, whole groups, decided by the seed alone; the test stays locked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from crossroads.data._draws import Ints, Sides, Wanted, draw
from crossroads.data.dataset import NO_SPLIT, SPLITS, TEST, TRAIN, VALIDATION, Dataset
from crossroads.errors import SealedTestError, SplitError
from crossroads.files._words import plural


class SealedTest:
    """A test set that can be counted but not looked at before the final evaluation.

    Only `n`, `classes` and `len()` answer; `unseal` gives the data set and is for the final evaluation alone; all else raises
    `SealedTestError`.
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
        """The test set, for the final evaluation."""
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
        if name.startswith("__"):  # Python asks for these itself: copying and pickling look at no image
            raise AttributeError(name)
        self._refuse(f".{name}")

    def _refuse(self, what: str) -> NoReturn:
        raise SealedTestError("the test split is locked before the final evaluation", received=what, hint="use train or validation")


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """Three parts that share no row.

    Attributes:
        train: What the network learns from.
        validation: What chooses the best epoch.
        test: SealedTest until the final evaluation; None where there is none.
        notes: What the user should know, such as a validation set that was taken out of the train rows.
    """

    train: Dataset
    validation: Dataset
    test: SealedTest | None
    notes: tuple[str, ...] = ()


def split(
    dataset: Dataset, *, validation: float, test: float, seed: int, separate_test: Dataset | None = None, strict: bool = False
) -> Splits:
    """Train, validation and test rows of a data set; reads no image.

    A split that the data brings stays as it is; rows that it leaves out go to train, and a part that it lacks is taken out of
    train. Each class is partition on its own: its groups are shuffled and taken until the number of images comes as close as one
    exchange can bring it to the fraction, with at least one group of each class in each part. A group that holds several classes
    stays whole and counts as one of the class it holds most of. Where there are no groups, images of a class that are known to be
    equal stay together likewise, unless a class has too few others. The draw of a class depends on the seed, the class's name and
    its own rows alone.

    A class with fewer groups (images, where there are no groups) than parts is trained on in any case: a class with one is in
    train alone, and a class with two is in train and in test, or in validation where no test is drawn. One note names them.

    Args:
        dataset: The labelled rows.
        validation: Fraction of the images (of the train rows, where the data brings a split) to validate on, in (0, 0.9].
        test: Likewise to test on, in [0, 0.9]; 0 for no test unless the data or `separate_test` brings one.
        seed: Decides the draw.
        separate_test: A test set from elsewhere, over the same classes; test rows of `dataset` are then left out.
        strict: Whether a class that is too small for every part is an error.

    Raises:
        SplitError: Fractions out of range, no rows to train on, or none left for a part that is drawn. With `strict`, classes that
            cannot be in every part; all of them are named.
    """
    _require_shares(validation, test, separate_test)
    if separate_test is not None and separate_test.classes != dataset.classes:
        raise SplitError(
            "the test set must have the classes of the data",
            received=f"{len(separate_test.classes)} classes beside {len(dataset.classes)}",
            hint="align its labels with the data's classes first",
        )
    if separate_test is not None and len(separate_test) == 0:
        raise SplitError(f"the test set {separate_test.origin} must have rows", received="0 rows")
    sides, notes = _given(dataset)
    wanted = _wanted(sides, validation, test, tested=separate_test is not None)
    if dataset.splits is not None and (sides != NO_SPLIT).any():
        notes += [f"the data brings no {SPLITS[side]} rows: {share:g} of its train rows were taken" for side, share in wanted]
    if separate_test is not None and (sides == TEST).any():
        notes.append(f"{np.count_nonzero(sides == TEST)} test rows of the data are left out, since another test set is given")
    pool = _pool(sides)
    if len(pool) == 0:
        raise SplitError(f"{dataset.origin}: there must be rows to train on", received=f"{len(dataset)} rows, none for train")
    drawn = draw(dataset.select(pool), wanted, seed, strict=strict)
    sides[pool] = drawn.sides
    train, validated, held = (dataset.select(np.flatnonzero(sides == side)) for side in (TRAIN, VALIDATION, TEST))
    parts = {TRAIN: train, VALIDATION: validated, TEST: held if separate_test is None else separate_test}
    reported = {side: drawn.small for side, _ in wanted}
    notes += [*drawn.notes, *(note for side, part in parts.items() for note in _absences(side, part, reported.get(side)))]
    return Splits(train, validated, SealedTest(parts[TEST]) if len(parts[TEST]) else None, tuple(notes))


def rows_to_split(dataset: Dataset, *, validation: float, test: float, tested: bool) -> Ints:
    """The rows that `split` would divide; none where the data, or a test set beside them, bring every side."""
    sides = dataset.effective_splits()
    return _pool(sides) if _wanted(sides, validation, test, tested=tested) else np.empty(0, np.int64)


def _pool(sides: Sides) -> Ints:
    return np.flatnonzero((sides == NO_SPLIT) | (sides == TRAIN))


def _wanted(sides: Sides, validation: float, test: float, *, tested: bool) -> Wanted:
    """The sides that must be drawn, with their fractions."""
    wanted: Wanted = []
    if not tested and test > 0 and not (sides == TEST).any():
        wanted.append((TEST, test))
    if not (sides == VALIDATION).any():
        wanted.append((VALIDATION, validation))
    return wanted


def split_digest(digests: NDArray[np.uint8], labels: NDArray[np.integer], classes: Sequence[str]) -> str:
    """One hexadecimal digest of a split: the same for the same images with the same class names, in any order.

    Args:
        digests: uint8 (n, 16), of the images.
        labels: int (n,), indices into `classes`.
        classes: Class names.
    """
    names = np.frombuffer(b"".join(hashlib.blake2b(name.encode(), digest_size=16).digest() for name in classes), np.uint8)
    rows = np.concatenate([digests, names.reshape(-1, 16)[labels]], axis=1)
    keys = np.ascontiguousarray(rows).view(np.uint64)
    return hashlib.blake2b(rows[np.lexsort(keys.T)].tobytes(), digest_size=16).hexdigest()


def _require_shares(validation: float, test: float, separate_test: Dataset | None) -> None:
    if not 0 < validation <= 0.9:
        raise SplitError("the validation share must lie in (0, 0.9]", received=validation)
    if not 0 <= test <= 0.9:
        raise SplitError("the test share must lie in [0, 0.9]", received=test)
    if separate_test is None and validation + test > 0.95:
        raise SplitError("validation and test together must leave at least 0.05 for train", received=f"{validation} + {test}")


def _given(dataset: Dataset) -> tuple[Sides, list[str]]:
    """The side of each row as the data says, and remarks on it."""
    notes = []
    loose = 0 if dataset.splits is None else int(np.count_nonzero(dataset.splits == NO_SPLIT))
    if 0 < loose < len(dataset):
        notes.append(f"{plural(loose, 'row')} for which the data names no split put with train")
    cut = dataset.groups_across_splits()
    if len(cut):
        notes.append(
            f"{plural(len(cut), 'group')} on two sides of the split that the data brings, "
            f"such as that of {dataset.name(int(cut[0]))}: scores will look better than they are"
        )
    return dataset.effective_splits(), notes


def _absences(side: int, part: Dataset, reported: NDArray[np.bool_] | None) -> Iterator[str]:
    """A remark on the classes that a part has no image of, except those already reported."""
    counts = part.counts()
    absent = np.flatnonzero((counts == 0) & (True if reported is None else ~reported))
    if len(absent) and (len(part) or side == TRAIN):
        named = ", ".join(repr(part.classes[label]) for label in absent[:5]) + ", …" * (len(absent) > 5)
        yield f"{SPLITS[side]} has no image of {len(absent)} of {len(counts)} classes: {named}"
