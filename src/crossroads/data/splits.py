"""Train, validation and test: stratified by class, whole groups, decided by the seed alone; the test stays locked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from crossroads.data._words import plural
from crossroads.data.dataset import NO_SPLIT, SPLITS, TEST, TRAIN, VALIDATION, Dataset
from crossroads.errors import LockedError, SplitError

Ints = NDArray[np.int64]
Sides = NDArray[np.uint8]

_ATTEMPTS = 32
"""Draws tried where groups hold several classes, so that one draw may leave a class out of a side."""


class Locked:
    """A test set that can be counted but not looked at before the final evaluation.

    Only `n`, `classes` and `len()` answer; `unlock` gives the data set and is for the final evaluation alone; all else raises
    `LockedError`.
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

    def unlock(self) -> Dataset:
        """The test set, for the final evaluation."""
        return self.__dataset

    def __len__(self) -> int:
        return len(self.__dataset)

    def __repr__(self) -> str:
        return f"Locked(n={len(self.__dataset)})"

    def __iter__(self) -> Iterator[object]:
        self._refuse("iteration")

    def __getitem__(self, row: object) -> object:
        self._refuse(f"[{row!r}]")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # Python asks for these itself: copying and pickling look at no image
            raise AttributeError(name)
        self._refuse(f".{name}")

    def _refuse(self, what: str) -> NoReturn:
        raise LockedError("the test split is locked before the final evaluation", received=what, mend="use train or validation")


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """Three parts that share no row.

    Attributes:
        train: What the network learns from.
        validation: What chooses the best epoch.
        test: Locked until the final evaluation; None where there is none.
        notes: What the user should know, such as a validation set that was taken out of the train rows.
    """

    train: Dataset
    validation: Dataset
    test: Locked | None
    notes: tuple[str, ...] = ()


def split(dataset: Dataset, *, validation: float, test: float, seed: int, locked_test: Dataset | None = None) -> Splits:
    """Train, validation and test rows of a data set; reads no image.

    A split that the data brings stays as it is; rows that it leaves out go to train, and a part that it lacks is taken out of
    train. Each class is divided on its own: its groups are shuffled and taken until the number of images comes as close as one
    exchange can bring it to the share, with at least one group of each class in each part. A group that holds several classes
    stays whole and counts as one of the class it holds most of. Where there are no groups, images of a class that are known to be
    equal stay together likewise, unless a class has too few others. The draw of a class depends on the seed, the class's name and
    its own rows alone.

    Args:
        dataset: The labelled rows.
        validation: Share of the images (of the train rows, where the data brings a split) to validate on, in (0, 0.9].
        test: Likewise to test on, in [0, 0.9]; 0 for no test unless the data or `locked_test` brings one.
        seed: Decides the draw.
        locked_test: A test set from elsewhere, over the same classes; test rows of `dataset` are then left out.

    Raises:
        SplitError: Shares out of range, no rows to train on, or classes with fewer groups (images, where there are no groups) than
            parts; all such classes are named.
    """
    _require_shares(validation, test, locked_test)
    if locked_test is not None and locked_test.classes != dataset.classes:
        raise SplitError(
            "the test set must have the classes of the data",
            received=f"{len(locked_test.classes)} classes beside {len(dataset.classes)}",
            mend="align its labels with the data's classes first",
        )
    if locked_test is not None and len(locked_test) == 0:
        raise SplitError(f"the test set {locked_test.origin} must have rows", received="0 rows")
    sides, notes = _given(dataset)
    wanted = _wanted(sides, validation, test, tested=locked_test is not None)
    if dataset.splits is not None and (sides != NO_SPLIT).any():
        notes += [f"the data brings no {SPLITS[side]} rows: {share:g} of its train rows were taken" for side, share in wanted]
    if locked_test is not None and (sides == TEST).any():
        notes.append(f"{np.count_nonzero(sides == TEST)} test rows of the data are left out, since another test set is given")
    pool = _pool(sides)
    if len(pool) == 0:
        raise SplitError(f"{dataset.origin}: there must be rows to train on", received=f"{len(dataset)} rows, none for train")
    drawn, more = _drawn_together(dataset.select(pool), wanted, seed)
    sides[pool] = drawn
    held = dataset.select(np.flatnonzero(sides == TEST)) if locked_test is None else locked_test
    return Splits(
        train=dataset.select(np.flatnonzero(sides == TRAIN)),
        validation=dataset.select(np.flatnonzero(sides == VALIDATION)),
        test=Locked(held) if len(held) else None,
        notes=tuple(notes + more + _absences(dataset, sides)),
    )


def divided_rows(dataset: Dataset, *, validation: float, test: float, tested: bool) -> Ints:
    """The rows that `split` would divide between sides; none where the data, or a test set beside them, bring every side."""
    sides = dataset.sides()
    return _pool(sides) if _wanted(sides, validation, test, tested=tested) else np.empty(0, np.int64)


def _pool(sides: Sides) -> Ints:
    return np.flatnonzero((sides == NO_SPLIT) | (sides == TRAIN))


def _wanted(sides: Sides, validation: float, test: float, *, tested: bool) -> list[tuple[int, float]]:
    """The sides that must be drawn, with their shares."""
    wanted = []
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


def _require_shares(validation: float, test: float, locked_test: Dataset | None) -> None:
    if not 0 < validation <= 0.9:
        raise SplitError("the validation share must lie in (0, 0.9]", received=validation)
    if not 0 <= test <= 0.9:
        raise SplitError("the test share must lie in [0, 0.9]", received=test)
    if locked_test is None and validation + test > 0.95:
        raise SplitError("validation and test together must leave at least 0.05 for train", received=f"{validation} + {test}")


def _given(dataset: Dataset) -> tuple[Sides, list[str]]:
    """The side of each row as the data says, and remarks on it."""
    notes = []
    loose = 0 if dataset.splits is None else int(np.count_nonzero(dataset.splits == NO_SPLIT))
    if 0 < loose < len(dataset):
        notes.append(f"{plural(loose, 'row')} for which the data names no split put with train")
    cut = dataset.cut_groups()
    if len(cut):
        notes.append(
            f"{plural(len(cut), 'group')} on two sides of the split that the data brings, "
            f"such as that of {dataset.name(int(cut[0]))}: scores will look better than they are"
        )
    return dataset.sides(), notes


def _absences(dataset: Dataset, sides: Sides) -> list[str]:
    """Remarks on classes that a part has no image of."""
    k = len(dataset.classes)
    notes = []
    for side in (TRAIN, VALIDATION, TEST):
        counts = np.bincount(dataset.labels[sides == side], minlength=k)
        absent = [repr(dataset.classes[label]) for label in np.flatnonzero(counts == 0)]
        if absent and (counts.any() or side == TRAIN):
            notes.append(
                f"{SPLITS[side]} has no image of {len(absent)} of {k} classes: {', '.join(absent[:5])}{', …' * (len(absent) > 5)}"
            )
    return notes


@dataclass(frozen=True, slots=True, eq=False)
class _Groups:
    """The groups of some rows: of each row its group; of each group its size, the class it holds most of, its first row."""

    numbers: Ints
    sizes: Ints
    homes: Ints
    firsts: Ints
    per_class: Ints
    mixed: int

    @classmethod
    def of(cls, dataset: Dataset) -> _Groups:
        n, k = len(dataset), len(dataset.classes)
        labels = dataset.labels.astype(np.int64)
        if dataset.groups is None:
            rows = np.arange(n)
            return cls(rows, np.ones(n, np.int64), labels, rows, np.bincount(labels, minlength=k), 0)
        _, firsts, numbers = np.unique(dataset.groups, return_index=True, return_inverse=True)
        pairs, counts = np.unique(numbers * k + labels, return_counts=True)
        of_pair = pairs // k
        order = np.lexsort((pairs % k, -counts, of_pair))
        homes = (pairs % k)[order][np.unique(of_pair[order], return_index=True)[1]]
        mixed = int(np.count_nonzero(np.bincount(of_pair) > 1))
        return cls(numbers, np.bincount(numbers), homes, firsts, np.bincount(pairs % k, minlength=k), mixed)


def _drawn_together(dataset: Dataset, wanted: list[tuple[int, float]], seed: int) -> tuple[Sides, list[str]]:
    """As `_drawn`, with rows on one side that are equal, where they have no groups and the classes have enough others."""
    equal = None if not wanted or dataset.groups is not None else dataset.equals()
    if equal is None:
        return _drawn(dataset, wanted, seed)
    _require_groups(dataset, _Groups.of(dataset), 1 + len(wanted))
    firsts = np.unique(equal, return_index=True)[1]
    several = np.bincount(dataset.labels[firsts], minlength=len(dataset.classes))
    short = (several > 0) & (several <= len(wanted)) & (dataset.counts() > several)
    alone = short[dataset.labels]  # classes that cannot be divided but between equal images; no other class is touched by that
    equal[alone] = int(equal.max()) + 1 + np.flatnonzero(alone)
    sides, notes = _drawn(replace(dataset, groups=equal), wanted, seed)
    repeats = len(equal) - len(np.unique(equal))
    said = [f"images that are equal to others of their class: {repeats}; they were put on the side of those"]
    names = ", ".join(repr(dataset.classes[label]) for label in np.flatnonzero(short)[:5])
    cut = [f"equal images of {names} may be on several sides: there are too few others to divide"] if short.any() else []
    return sides, [*(said if repeats else []), *cut, *notes]


def _drawn(dataset: Dataset, wanted: list[tuple[int, float]], seed: int) -> tuple[Sides, list[str]]:
    """A side for each row: those wanted by their shares, train for the rest."""
    if not wanted:
        return np.full(len(dataset), TRAIN, np.uint8), []
    groups = _Groups.of(dataset)
    _require_groups(dataset, groups, 1 + len(wanted))
    if not groups.mixed:
        return _attempt(dataset.classes, groups, wanted, seed, 0)[groups.numbers], []
    note = f"{plural(groups.mixed, 'group')} with images of several classes: each stays whole"
    k = len(dataset.classes)
    missing: set[int] = set()
    best: tuple[float, Sides] | None = None
    for attempt in range(_ATTEMPTS):
        # Class by class, or, since each group may serve many classes at once, as if there were only one.
        strata, names = (groups, dataset.classes) if attempt % 2 else (replace(groups, homes=np.zeros_like(groups.homes)), ("",))
        sides = _attempt(names, strata, wanted, seed, attempt)[groups.numbers]
        table = np.bincount(sides.astype(np.int64) * k + dataset.labels, minlength=len(SPLITS) * k).reshape(-1, k)
        there = table.any(0)
        lacking = {
            int(label) for side in (TRAIN, *(side for side, _ in wanted)) for label in np.flatnonzero(there & (table[side] == 0))
        }
        if not lacking:
            miss = sum(np.abs(table[side][there] / table[:, there].sum(0) - share).mean() for side, share in wanted)
            best = min(best or (np.inf, sides), (float(miss), sides), key=lambda draw: draw[0])
        missing |= lacking
    if best is not None:
        return best[1], [note]
    raise SplitError(
        f"each class must be on each side without cutting a group ({_ATTEMPTS} draws tried)",
        received=f"groups of several classes that bind {', '.join(repr(dataset.classes[label]) for label in sorted(missing))}",
        mend="give these classes groups of their own, or bring a split in the data",
    )


def _require_groups(dataset: Dataset, groups: _Groups, parts: int) -> None:
    counts = dataset.counts()
    short = np.flatnonzero((counts > 0) & (groups.per_class < parts))
    if len(short) == 0:
        return
    grouped = dataset.groups is not None
    found = [
        f"{dataset.classes[label]!r} ({plural(counts[label], 'image')}"
        + (f", {plural(groups.per_class[label], 'group')})" if grouped else ")")
        for label in short
    ]
    sides, fewer = ("train, validation and test", "set the test share to 0, ") if parts > 2 else ("the two sides", "")
    raise SplitError(
        f"each class must have at least {parts} {'groups' if grouped else 'images'}, one for each of {sides}",
        received=", ".join(found[:10]) + (f" and {len(found) - 10} other classes" if len(found) > 10 else ""),
        mend=f"add images{' of other groups' if grouped else ''}, {fewer}leave these classes out, or bring a split in the data",
    )


def _attempt(classes: tuple[str, ...], groups: _Groups, wanted: list[tuple[int, float]], seed: int, attempt: int) -> Sides:
    """A side for each group."""
    sides = np.full(len(groups.sizes), TRAIN, np.uint8)
    # Groups by class, in the order in which they appear in the data: their numbers may depend on other classes.
    order = np.lexsort((groups.firsts, groups.homes))
    starts = np.searchsorted(groups.homes[order], np.arange(len(classes) + 1))
    for label, name in enumerate(classes):
        members = order[starts[label] : starts[label + 1]]
        if len(members):
            word = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
            rng = np.random.default_rng([seed, attempt, word])
            sides[members] = _sides(groups.sizes[members], wanted, rng)
    return sides


def _sides(sizes: Ints, wanted: list[tuple[int, float]], rng: np.random.Generator) -> Sides:
    """A side for each group of one class."""
    sides = np.full(len(sizes), TRAIN, np.uint8)
    free = rng.permutation(len(sizes))
    for later, (side, share) in zip(reversed(range(len(wanted))), wanted, strict=True):
        most = len(free) - 1 - later  # leaves one group for each part still to come, and one for train
        if most < 1:
            # Only where groups hold several classes can this one have so few of its own.
            most = int(rng.integers(0, len(free) + 1)) if len(free) else 0
        chosen = _closest(sizes[free], share * float(sizes.sum()), most)
        sides[free[chosen]] = side
        free = free[~chosen]
    return sides


def _closest(sizes: Ints, target: float, most: int) -> NDArray[np.bool_]:
    """Of sizes in random order, a choice of 1 to `most` whose sum is near `target`: the first ones, one more, then one exchange.

    The sum ends within half of the smallest size that was not chosen, or nearer; O(n log n).
    """
    chosen = np.zeros(len(sizes), bool)
    if most < 1:
        return chosen
    first = int(np.searchsorted(np.cumsum(sizes[:most]), target, side="right"))
    chosen[:first] = True
    gap = target - float(sizes[:first].sum())
    if first < most:
        next_one = first + int(np.argmin(np.abs(sizes[first:] - gap)))
        if first == 0 or abs(sizes[next_one] - gap) < gap:
            chosen[next_one] = True
            gap -= float(sizes[next_one])
    # One exchange of a chosen size for another, or for nothing.
    inside, outside = np.flatnonzero(chosen), np.flatnonzero(~chosen)
    outside = outside[np.argsort(sizes[outside], kind="stable")]
    offered = sizes[outside] if len(inside) == 1 else np.concatenate([[0], sizes[outside]])
    if len(offered) == 0:
        return chosen
    place = np.searchsorted(offered, sizes[inside] + gap)
    options = np.clip(np.stack([place - 1, place]), 0, len(offered) - 1)
    left = np.abs(gap + sizes[inside] - offered[options])
    best = np.unravel_index(int(np.argmin(left)), left.shape)
    if left[best] < abs(gap) - 1e-9:
        taken = int(options[best]) - (len(offered) - len(outside))
        chosen[inside[best[1]]] = False
        if taken >= 0:
            chosen[outside[taken]] = True
    return chosen
