"""Draws random splits, one class at a time and in whole groups. The seed alone determines the result."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import SPLITS, TRAIN, Dataset
from crossroads.data.labels import name_classes
from crossroads.errors import SplitError, option
from crossroads.files.text import first_few, plural, were
from crossroads.progress import Note

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
SplitCodes = NDArray[np.uint8]
"""Splits as indices into `SPLITS`."""

Fractions = list[tuple[int, float]]
"""The splits to draw, each with its fraction of the images."""

_ATTEMPTS = 32
"""Number of draws to try if groups hold several classes. A single draw may leave a class out of a split."""

_NAMED = 5
"""Largest number of classes that a note names."""


@dataclass(frozen=True, slots=True, eq=False)
class DrawnSplits:
    """The result of a draw.

    Attributes:
        splits: uint8 (n,), the split of each row.
        too_small: bool (k,), whether a class has too few groups (or images, if there are no groups) to be in every split.
        notes: Notes to the user.
    """

    splits: SplitCodes
    too_small: Bools
    notes: tuple[Note, ...] = ()


def draw_splits(dataset: Dataset, fractions: Fractions, seed: int, *, strict: bool) -> DrawnSplits:
    """Draws a split for each row. Rows that are not drawn go to train, which gets images of every class.

    Raises:
        SplitError: No image is left for a split. With `strict`, also if a class cannot be in every split.
    """
    k = len(dataset.classes)
    if not fractions:
        return DrawnSplits(np.full(len(dataset), TRAIN, np.uint8), np.zeros(k, bool))
    available = _Groups.of(dataset).per_class
    too_small = (available > 0) & (available <= len(fractions))
    if strict and too_small.any():
        raise _class_too_small(dataset, available, too_small, fractions)
    together, notes = _group_duplicates(dataset, fractions)
    groups = _Groups.of(together)
    if groups.mixed:
        splits = _draw_mixed(together, groups, fractions, seed, strict=strict)
        text = f"{plural(groups.mixed, 'group')} with images of several classes {were(groups.mixed)} kept whole"
        notes.append(Note(text, "mixed-groups", groups=groups.mixed))
    else:
        splits = _draw_groups(dataset.classes, groups, fractions, seed, 0)[groups.numbers]
    _require_every_split(dataset, splits, available, fractions)
    if too_small.any():
        notes.append(_too_small_note(dataset, splits, available, too_small, fractions))
    return DrawnSplits(splits, too_small, tuple(notes))


def _group_duplicates(dataset: Dataset, fractions: Fractions) -> tuple[Dataset, list[Note]]:
    """Returns the data with duplicates as groups, unless it has groups already.

    Duplicates are not grouped in classes with too few distinct images.
    """
    ids = None if dataset.groups is not None else dataset.duplicate_ids()
    if ids is None:
        return dataset, []
    first_rows = np.unique(ids, return_index=True)[1]
    distinct = np.bincount(dataset.labels[first_rows], minlength=len(dataset.classes))
    # These classes can be in every split only if their duplicates are separated. An example is a class of 3 copies of one image.
    separated = (distinct > 0) & (distinct <= len(fractions)) & (dataset.counts() > len(fractions))
    rows = separated[dataset.labels]
    ids[rows] = int(ids.max()) + 1 + np.flatnonzero(rows)
    notes = []
    if repeats := len(ids) - len(np.unique(ids)):
        text = "1 duplicate image was kept in the same split as its copy"
        if repeats > 1:
            text = f"{repeats} duplicate images were kept in the same split as their copies"
        notes.append(Note(text, "duplicates-kept-together", images=repeats))
    if separated.any():
        have = "the class has" if separated.sum() == 1 else "these classes have"
        names = name_classes(dataset.classes, np.flatnonzero(separated))
        text = f"duplicates of {names} may be in several splits: {have} too few distinct images"
        affected = [dataset.classes[label] for label in np.flatnonzero(separated)]
        notes.append(Note(text, "duplicates-across-splits", classes=affected))
    return replace(dataset, groups=ids), notes


def _draw_mixed(dataset: Dataset, groups: _Groups, fractions: Fractions, seed: int, *, strict: bool) -> SplitCodes:
    """Draws several times and returns the splits that leave out the fewest classes. Used if groups hold several classes."""
    k = len(dataset.classes)
    large = groups.per_class > len(fractions)  # these classes could be in every split
    bound = np.zeros(k, bool)
    best: tuple[tuple[float, ...], SplitCodes] | None = None
    for attempt in range(_ATTEMPTS):
        # Every second attempt draws as if there were only one class, because each group may hold many classes.
        names, strata = (dataset.classes, groups) if attempt % 2 else (("",), replace(groups, homes=np.zeros_like(groups.homes)))
        splits = _move_to_train(_draw_groups(names, strata, fractions, seed, attempt), groups, k)[groups.numbers]
        table = np.bincount(splits.astype(np.int64) * k + dataset.labels, minlength=len(SPLITS) * k).reshape(-1, k)
        present, codes = table.any(0), [code for code, _ in fractions]
        missing = present & (table[codes] == 0)  # bool (drawn splits, k)
        empty = sum(not table[code].any() for code in codes)
        deviation = sum(np.abs(table[code][present] / table[:, present].sum(0) - part).mean() for code, part in fractions)
        rank = (empty, int((missing & large).sum()), int(missing.sum()), float(deviation))
        bound |= (missing & large).any(0)
        best = min(best or (rank, splits), (rank, splits), key=lambda draw: draw[0])
    if best is None or (strict and best[0][1]):
        raise SplitError(
            f"groups keep a class out of a split: no draw of {_ATTEMPTS} has each class in each split",
            code="class-bound-by-groups",
            received=f"groups of several classes with {name_classes(dataset.classes, np.flatnonzero(bound))}",
            hint="give these classes groups of their own, or add a split to the data",
        )
    return best[1]


def _move_to_train(splits: SplitCodes, groups: _Groups, classes: int) -> SplitCodes:
    """Moves groups so that train has images of every class, and returns the split of each group.

    For each class that train lacks, the smallest group with images of this class is moved.
    """
    trained = np.zeros(classes, bool)
    trained[groups.pair_labels[splits[groups.pair_groups] == TRAIN]] = True
    order = np.lexsort((groups.firsts[groups.pair_groups], groups.sizes[groups.pair_groups], groups.pair_labels))
    labels, smallest = np.unique(groups.pair_labels[order], return_index=True)
    splits[groups.pair_groups[order][smallest[~trained[labels]]]] = TRAIN
    return splits


def _class_too_small(dataset: Dataset, available: Ints, too_small: Bools, fractions: Fractions) -> SplitError:
    unit = "images" if dataset.groups is None else "groups"
    return SplitError(
        f"each class must have at least {len(fractions) + 1} {unit}, one for each of {_split_names(fractions)}",
        code="class-too-small",
        field="strict",
        received=_class_sizes(dataset, too_small, available, 10),
        hint=f"turn {option('strict')} off to train on these classes anyway, or {_add_images(dataset, fractions)}",
    )


def _require_every_split(dataset: Dataset, splits: SplitCodes, available: Ints, fractions: Fractions) -> None:
    empty = [SPLITS[code] for code, _ in fractions if not (splits == code).any()]
    if empty:
        classes = plural(int((available > 0).sum()), "class", "classes")
        unit = "image" if dataset.groups is None else "group"
        raise SplitError(
            f"no images are left for {' and '.join(empty)}",
            code="empty-split",
            received=f"{classes} of at most {plural(int(available.max()), unit)}",
            hint=_add_images(dataset, fractions if available.max() > 1 else fractions[-1:]),
        )


def _too_small_note(dataset: Dataset, splits: SplitCodes, available: Ints, too_small: Bools, fractions: Fractions) -> Note:
    """Returns the note on all classes that are too small to be in every split."""
    k, labels = len(dataset.classes), np.flatnonzero(too_small)
    absent = {code: np.bincount(dataset.labels[splits == code], minlength=k)[labels] == 0 for code, _ in sorted(fractions)}
    missing = {SPLITS[code]: int(is_absent.sum()) for code, is_absent in absent.items()}
    absences = [f"{count} {'is' if count == 1 else 'are'} not in {name}" for name, count in missing.items() if count]
    unit = "images" if dataset.groups is None else "groups"
    return Note(
        f"{len(labels)} of {k} classes have too few {unit} for {_split_names(fractions)}: "
        f"{_class_sizes(dataset, too_small, available, _NAMED)}; {', '.join(['all are in train', *absences])}",
        "classes-too-small",
        too_small=[dataset.classes[label] for label in labels],
        classes=k,
        missing_from=missing,
    )


def _class_sizes(dataset: Dataset, chosen: Bools, available: Ints, most: int) -> str:
    """Returns the first classes of `chosen` with their numbers of images and groups, such as ``'a' (3 images, 1 group)``."""
    counts, sizes = dataset.counts(), []
    for label in np.flatnonzero(chosen):
        groups = "" if dataset.groups is None else f", {plural(int(available[label]), 'group')}"
        sizes.append(f"{dataset.classes[label]!r} ({plural(int(counts[label]), 'image')}{groups})")
    return first_few(sizes, most)


def _split_names(fractions: Fractions) -> str:
    *others, last = [SPLITS[code] for code in sorted({TRAIN, *(code for code, _ in fractions)})]
    return f"{', '.join(others)} and {last}"


def _add_images(dataset: Dataset, fractions: Fractions) -> str:
    """Returns a hint for data with too few images or groups."""
    of_groups = "" if dataset.groups is None else " of other groups"
    no_test = f"set {option('test_fraction')} to 0, " if len(fractions) > 1 else ""
    return f"add images{of_groups}, {no_test}or add a split to the data"


@dataclass(frozen=True, slots=True, eq=False)
class _Groups:
    """The groups of some rows.

    Attributes:
        numbers: The group of each row.
        sizes: The number of rows of each group.
        homes: The most frequent class of each group.
        firsts: The first row of each group.
        per_class: The number of groups that hold each class.
        pair_groups: The group in each pair of a group and a class that it holds.
        pair_labels: The class in each of these pairs.
        mixed: Number of groups with several classes.
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
        group_of_pair = pairs // k
        order = np.lexsort((pairs % k, -counts, group_of_pair))
        # The pairs of each group are now sorted by descending count, so the first one has its most frequent class.
        homes = (pairs % k)[order][np.unique(group_of_pair[order], return_index=True)[1]]
        mixed = int(np.count_nonzero(np.bincount(group_of_pair) > 1))
        per_class = np.bincount(pairs % k, minlength=k)
        return cls(numbers, np.bincount(numbers), homes, firsts, per_class, group_of_pair, pairs % k, mixed)


def _draw_groups(classes: tuple[str, ...], groups: _Groups, fractions: Fractions, seed: int, attempt: int) -> SplitCodes:
    """Draws a split for each group, class by class."""
    splits = np.full(len(groups.sizes), TRAIN, np.uint8)
    # Within a class, groups are in the order in which they first appear in the data. The draw must not use their numbers, because
    # these may depend on other classes.
    order = np.lexsort((groups.firsts, groups.homes))
    starts = np.searchsorted(groups.homes[order], np.arange(len(classes) + 1))
    for label, name in enumerate(classes):
        members = order[starts[label] : starts[label + 1]]
        if len(members):
            # The name of the class is part of the seed, so adding or removing another class does not change this draw.
            name_seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
            rng = np.random.default_rng([seed, attempt, name_seed])
            splits[members] = _draw_class(groups.sizes[members], fractions, rng, mixed=groups.mixed > 0)
    return splits


def _draw_class(sizes: Ints, fractions: Fractions, rng: np.random.Generator, *, mixed: bool) -> SplitCodes:
    """Draws a split for each group of one class. The splits are filled in order, and the remaining groups go to train.

    Suppose that test and then validation are drawn. With 5 groups, the test gets at most 3, because validation and train need one
    each. With 2 groups, the test gets one and train the other, and validation gets none. A single group goes to train.
    """
    splits = np.full(len(sizes), TRAIN, np.uint8)
    free = rng.permutation(len(sizes))
    for still_to_fill, (code, fraction) in zip(reversed(range(len(fractions))), fractions, strict=True):
        limit = max(len(free) - 1 - still_to_fill, min(1, len(free) - 1))
        if mixed and len(free) - 1 - still_to_fill < 1:
            # Other groups may also hold this class, so train may get none of these groups. If it then lacks the class,
            # `_move_to_train` moves a group.
            limit = int(rng.integers(0, len(free) + 1)) if len(free) else 0
        chosen = _closest_subset(sizes[free], fraction * float(sizes.sum()), limit)
        splits[free[chosen]] = code
        free = free[~chosen]
    return splits


def _closest_subset(sizes: Ints, target: float, limit: int) -> Bools:
    """Chooses 1 to `limit` of the sizes, which are in random order, so that their sum is close to `target`. Takes O(n log n).

    The best choice is a subset-sum problem. This function takes three greedy steps instead. The error is at most half of the
    smallest size that is not chosen. An example has the sizes 20, 30, 10, 5, 50, 3 and the target 40:

    1. Take sizes from the front while their sum does not exceed the target. Here, 20 is taken, because 20 + 30 would be too much.
       The gap to the target is 20.
    2. Take the size that is closest to the gap, if this narrows the gap. Here, 30 is taken. The sum is 50 and the gap is -10.
    3. Replace one chosen size with another, or drop it, if this narrows the gap further. A chosen size s should become s + gap.
       Here, 20 is replaced with 10. The choice is 30 + 10 = 40.
    """
    chosen = np.zeros(len(sizes), bool)
    if limit < 1:
        return chosen
    first = int(np.searchsorted(np.cumsum(sizes[:limit]), target, side="right"))  # step 1
    chosen[:first] = True
    gap = target - float(sizes[:first].sum())
    if first < limit:  # step 2, which always takes a size if none is chosen yet
        closest = first + int(np.argmin(np.abs(sizes[first:] - gap)))
        if first == 0 or abs(sizes[closest] - gap) < gap:
            chosen[closest] = True
            gap -= float(sizes[closest])
    inside, outside = np.flatnonzero(chosen), np.flatnonzero(~chosen)  # step 3
    outside = outside[np.argsort(sizes[outside], kind="stable")]
    # A replacement of size 0 drops the chosen size. If only one size is chosen, it must not be dropped.
    replacements = sizes[outside] if len(inside) == 1 else np.concatenate([[0], sizes[outside]])
    if len(replacements) == 0:
        return chosen
    place = np.searchsorted(replacements, sizes[inside] + gap)
    # The replacements just below and just above the size that would close the gap, (2, chosen).
    neighbours = np.clip(np.stack([place - 1, place]), 0, len(replacements) - 1)
    gap_after = np.abs(gap + sizes[inside] - replacements[neighbours])
    best = np.unravel_index(int(np.argmin(gap_after)), gap_after.shape)
    if gap_after[best] < abs(gap) - 1e-9:
        replacement = int(neighbours[best]) - (len(replacements) - len(outside))
        chosen[inside[best[1]]] = False
        if replacement >= 0:
            chosen[outside[replacement]] = True
    return chosen
