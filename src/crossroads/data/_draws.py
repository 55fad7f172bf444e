"""Draws splits for data without any: per class, in whole groups, determined by the seed alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import SPLITS, TRAIN, Dataset
from crossroads.errors import SplitError
from crossroads.files._words import plural

Ints = NDArray[np.int64]
Sides = NDArray[np.uint8]
Wanted = list[tuple[int, float]]
"""The splits to draw, each with its fraction of the images."""

_ATTEMPTS = 32
"""Draws to try if groups hold several classes: a single draw may leave a split without a class."""

_NAMED = 5
"""Most classes that a message names; it counts the others."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """The result of a draw.

    Attributes:
        sides: uint8 (n,), the split of each row.
        small: bool (k,), the classes with too few groups, or images, for every split.
        notes: Sentences that the user should read.
    """

    sides: Sides
    small: NDArray[np.bool_]
    notes: tuple[str, ...] = ()


def draw(dataset: Dataset, wanted: Wanted, seed: int, *, strict: bool) -> Drawn:
    """Draw a split for each row: the wanted splits get their fractions; train gets the rest, and images of every class.

    Raises:
        SplitError: No image is left for a split; with `strict`, a class cannot be in every split.
    """
    k = len(dataset.classes)
    if not wanted:
        return Drawn(np.full(len(dataset), TRAIN, np.uint8), np.zeros(k, bool))
    units = _Groups.of(dataset).per_class
    small = (units > 0) & (units <= len(wanted))
    if strict and small.any():
        raise _too_small(dataset, units, small, wanted)
    together, notes = _together(dataset, wanted)
    groups = _Groups.of(together)
    if groups.mixed:
        sides = _of_mixed(together, groups, wanted, seed, strict=strict)
        notes += [f"{plural(groups.mixed, 'group')} with images of several classes: each stays whole"]
    else:
        sides = _attempt(together.classes, groups, wanted, seed, 0)[groups.numbers]
    _require_every_side(dataset, sides, units, wanted)
    if small.any():
        notes += [_of_small(dataset, sides, units, small, wanted)]
    return Drawn(sides, small, tuple(notes))


def _together(dataset: Dataset, wanted: Wanted) -> tuple[Dataset, list[str]]:
    """The data with duplicates as groups, if there are no groups. Classes with too few distinct images are not grouped."""
    equal = None if dataset.groups is not None else dataset.duplicate_ids()
    if equal is None:
        return dataset, []
    firsts = np.unique(equal, return_index=True)[1]
    several = np.bincount(dataset.labels[firsts], minlength=len(dataset.classes))
    short = (several > 0) & (several <= len(wanted)) & (dataset.counts() > len(wanted))
    alone = short[dataset.labels]  # classes that can only be partition between duplicates; other classes are unaffected
    equal[alone] = int(equal.max()) + 1 + np.flatnonzero(alone)
    notes = []
    if repeats := len(equal) - len(np.unique(equal)):
        duplicates, copies = ("image was", "its copy") if repeats == 1 else ("images were", "their copies")
        notes.append(f"{repeats} duplicate {duplicates} kept in the same split as {copies}")
    if short.any():
        have = "the class has" if short.sum() == 1 else "these classes have"
        notes.append(f"duplicates of {_names(dataset, short)} may be in several splits: {have} too few distinct images")
    return replace(dataset, groups=equal), notes


def _of_mixed(dataset: Dataset, groups: _Groups, wanted: Wanted, seed: int, *, strict: bool) -> Sides:
    """A split for each row if groups hold several classes: the draw in which most classes are in every split."""
    k = len(dataset.classes)
    large = groups.per_class > len(wanted)
    missing = np.zeros(k, bool)
    best: tuple[tuple[float, ...], Sides] | None = None
    for attempt in range(_ATTEMPTS):
        # Class by class, or, since each group may serve many classes at once, as if there were only one.
        strata, names = (groups, dataset.classes) if attempt % 2 else (replace(groups, homes=np.zeros_like(groups.homes)), ("",))
        sides = _with_all_in_train(_attempt(names, strata, wanted, seed, attempt), groups, k)[groups.numbers]
        table = np.bincount(sides.astype(np.int64) * k + dataset.labels, minlength=len(SPLITS) * k).reshape(-1, k)
        there, drawn = table.any(0), [side for side, _ in wanted]
        empty = sum(not table[side].any() for side in drawn)
        lacking = there & (table[drawn] == 0)
        miss = sum(np.abs(table[side][there] / table[:, there].sum(0) - share).mean() for side, share in wanted)
        rank = (empty, int((lacking & large).sum()), int(lacking.sum()), float(miss))
        missing |= (lacking & large).any(0)
        best = min(best or (rank, sides), (rank, sides), key=lambda found: found[0])
    if best is None or (strict and best[0][1]):
        raise SplitError(
            f"each class must be on each side without cutting a group ({_ATTEMPTS} draws tried)",
            received=f"groups of several classes that bind {_names(dataset, missing)}",
            hint="give these classes groups of their own, or bring a split in the data",
        )
    return best[1]


def _with_all_in_train(sides: Sides, groups: _Groups, classes: int) -> Sides:
    """The splits of groups, after the smallest group of each class that train lacks was moved to train."""
    trained = np.zeros(classes, bool)
    trained[groups.pair_labels[sides[groups.pair_groups] == TRAIN]] = True
    order = np.lexsort((groups.firsts[groups.pair_groups], groups.sizes[groups.pair_groups], groups.pair_labels))
    labels, smallest = np.unique(groups.pair_labels[order], return_index=True)
    sides[groups.pair_groups[order][smallest[~trained[labels]]]] = TRAIN
    return sides


def _too_small(dataset: Dataset, units: Ints, small: NDArray[np.bool_], wanted: Wanted) -> SplitError:
    grouped = dataset.groups is not None
    found, rest = [_counted(dataset, label, units) for label in np.flatnonzero(small)[:10]], int(small.sum()) - 10
    unit = "groups" if grouped else "images"
    return SplitError(
        f"each class must have at least {len(wanted) + 1} {unit}, one for each of {_in_words(wanted)}",
        received=", ".join(found) + (f" and {plural(rest, 'other class', 'other classes')}" if rest > 0 else ""),
        hint=f"turn strict off to train on these classes anyway, or {_more(dataset, wanted)}",
    )


def _require_every_side(dataset: Dataset, sides: Sides, units: Ints, wanted: Wanted) -> None:
    empty = [SPLITS[side] for side, _ in wanted if not (sides == side).any()]
    if empty:
        raise SplitError(
            f"the split must leave images for {' and '.join(empty)}",
            received=f"{plural(int((units > 0).sum()), 'class', 'classes')} of at most "
            f"{plural(int(units.max()), 'image' if dataset.groups is None else 'group')}",
            hint=_more(dataset, wanted if units.max() > 1 else wanted[-1:]),
        )


def _of_small(dataset: Dataset, sides: Sides, units: Ints, small: NDArray[np.bool_], wanted: Wanted) -> str:
    """One sentence on all classes that are too small for every split."""
    k, count = len(dataset.classes), int(small.sum())
    named = ", ".join(_counted(dataset, label, units) for label in np.flatnonzero(small)[:_NAMED])
    tables = {side: np.bincount(dataset.labels[sides == side], minlength=k) > 0 for side, _ in wanted}
    verbs = {SPLITS.index("validation"): "validated", SPLITS.index("test"): "tested"}
    lacking: dict[str, int] = {}
    for label in np.flatnonzero(small):
        without = [verbs[side] for side in sorted(tables) if not tables[side][label]]
        said = "not " + without[0] if len(without) == 1 else "neither " + " nor ".join(without)
        if without:
            lacking[said] = lacking.get(said, 0) + 1
    meaning = " and ".join(
        said if number == count else f"{number} {'is' if number == 1 else 'are'} {said}" for said, number in sorted(lacking.items())
    )
    unit = "images" if dataset.groups is None else "groups"
    have, they_are = ("have", "they are") if count > 1 else ("has", "it is")
    return (
        f"{count} of {k} classes {have} too few {unit} for {_in_words(wanted)}: "
        f"{named}{', …' * (count > _NAMED)}; {they_are} trained on, but {meaning}"
    )


def _counted(dataset: Dataset, label: int, units: Ints) -> str:
    images = plural(int(np.count_nonzero(dataset.labels == label)), "image")
    groups = "" if dataset.groups is None else f", {plural(int(units[label]), 'group')}"
    return f"{dataset.classes[label]!r} ({images}{groups})"


def _in_words(wanted: Wanted) -> str:
    *most, last = [SPLITS[side] for side in sorted({TRAIN, *(side for side, _ in wanted)})]
    return f"{', '.join(most)} and {last}"


def _more(dataset: Dataset, wanted: Wanted) -> str:
    """A hint for too few images."""
    of_groups, fewer = "" if dataset.groups is None else " of other groups", "set test_fraction to 0, " if len(wanted) > 1 else ""
    return f"add images{of_groups}, {fewer}or bring a split in the data"


def _names(dataset: Dataset, chosen: NDArray[np.bool_]) -> str:
    labels = np.flatnonzero(chosen)
    return ", ".join(repr(dataset.classes[label]) for label in labels[:_NAMED]) + ", …" * (len(labels) > _NAMED)


@dataclass(frozen=True, slots=True, eq=False)
class _Groups:
    """The groups of some rows.

    Attributes:
        numbers: The group of each row.
        sizes: The number of rows of each group.
        homes: The most frequent class of each group.
        firsts: The first row of each group.
        per_class: The number of groups of each class.
        pair_groups: The group of each pair of a group and a class that it holds.
        pair_labels: The class of each such pair.
        mixed: The number of groups with several classes.
    """

    numbers: Ints
    sizes: Ints
    homes: Ints
    firsts: Ints
    per_class: Ints
    pair_groups: Ints
    pair_labels: Ints
    mixed: int

    @classmethod
    def of(cls, dataset: Dataset) -> _Groups:
        n, k = len(dataset), len(dataset.classes)
        labels = dataset.labels.astype(np.int64)
        if dataset.groups is None:
            rows = np.arange(n)
            return cls(rows, np.ones(n, np.int64), labels, rows, np.bincount(labels, minlength=k), rows, labels, 0)
        _, firsts, numbers = np.unique(dataset.groups, return_index=True, return_inverse=True)
        pairs, counts = np.unique(numbers * k + labels, return_counts=True)
        of_pair = pairs // k
        order = np.lexsort((pairs % k, -counts, of_pair))
        homes = (pairs % k)[order][np.unique(of_pair[order], return_index=True)[1]]
        mixed = int(np.count_nonzero(np.bincount(of_pair) > 1))
        per_class = np.bincount(pairs % k, minlength=k)
        return cls(numbers, np.bincount(numbers), homes, firsts, per_class, of_pair, pairs % k, mixed)


def _attempt(classes: tuple[str, ...], groups: _Groups, wanted: Wanted, seed: int, attempt: int) -> Sides:
    """A split for each group."""
    sides = np.full(len(groups.sizes), TRAIN, np.uint8)
    # Groups by class, in the order in which they appear in the data: their numbers may depend on other classes.
    order = np.lexsort((groups.firsts, groups.homes))
    starts = np.searchsorted(groups.homes[order], np.arange(len(classes) + 1))
    for label, name in enumerate(classes):
        members = order[starts[label] : starts[label + 1]]
        if len(members):
            word = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
            rng = np.random.default_rng([seed, attempt, word])
            sides[members] = _sides(groups.sizes[members], wanted, rng, mixed=groups.mixed > 0)
    return sides


def _sides(sizes: Ints, wanted: Wanted, rng: np.random.Generator, *, mixed: bool) -> Sides:
    """A split for each group of one class; the wanted splits are filled in order, and the rest is train."""
    sides = np.full(len(sizes), TRAIN, np.uint8)
    free = rng.permutation(len(sizes))
    for later, (side, share) in zip(reversed(range(len(wanted))), wanted, strict=True):
        # Leaves one group for each side still to come and, in any case, one for train.
        most = max(len(free) - 1 - later, min(1, len(free) - 1))
        if mixed and len(free) - 1 - later < 1:
            # A class has few groups of its own where it shares others; which of them train needs is seen afterwards.
            most = int(rng.integers(0, len(free) + 1)) if len(free) else 0
        chosen = _closest(sizes[free], share * float(sizes.sum()), most)
        sides[free[chosen]] = side
        free = free[~chosen]
    return sides


def _closest(sizes: Ints, target: float, most: int) -> NDArray[np.bool_]:
    """Choose 1 to `most` sizes, given in random order, whose sum is near `target`.

    Takes the first ones, then one more, then makes one exchange. The sum is off by at most half of the smallest size that was not
    chosen. O(n log n).
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
