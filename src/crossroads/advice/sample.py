"""The images that evidence is measured on: some of the training images, of all classes and of as many groups as can be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import Dataset

MOST_CLASSES = 400
"""Classes that a probe is asked to tell apart; of more, so many are drawn. A probe holds images times classes of numbers."""

PAIRS = 150
"""Groups of which a sample holds a second image at least, so that it can tell how alike the images of a group are."""

FEWEST_OF_A_CLASS = 3
"""Images of each class at least, where it has so many: an image that is left out must leave some of its class behind."""


def sample(dataset: Dataset, most: int, seed: int) -> NDArray[np.int64]:
    """Rows of `dataset`, int64 in order, about `most`: from each class its share, in turn from each of its groups.

    Frames of one object tell little more than one of them, so that few of many objects tell more than many of few.
    """
    rng = np.random.default_rng([seed, 11])
    order = rng.permutation(len(dataset))
    classes = np.unique(dataset.labels)
    if len(classes) > MOST_CLASSES:
        kept = rng.choice(classes, MOST_CLASSES, replace=False)
        order = order[np.isin(dataset.labels[order], kept)]
    if len(order) <= most:
        return np.sort(order)
    turn = np.zeros(len(order), np.int64) if dataset.groups is None else _rank(dataset.groups[order])
    labels = dataset.labels[order]
    # Ranked in its class by turns of its groups, a row's place says at which size of the sample it comes in.
    by_turn = np.lexsort((np.arange(len(order)), turn, labels))
    place = _rank(labels[by_turn])
    counts = np.bincount(labels)[labels[by_turn]]
    quota = np.maximum(np.rint(counts * most / len(order)), np.minimum(FEWEST_OF_A_CLASS, counts))
    rows = order[by_turn[place < quota]]
    if dataset.groups is not None:
        rows = np.concatenate([rows, _seconds(dataset.groups, rows, rng)])
    return np.sort(rows)


def merge_duplicates(groups: NDArray[np.integer] | None, digests: NDArray[np.uint8]) -> NDArray[np.int64] | None:
    """Groups in which images of equal digests, uint8 (n, 16), are together as well; None where each image stands alone.

    Copies of an image must not be on both sides of a fold, because one reveals the other.
    """
    _, copies = np.unique(digests, axis=0, return_inverse=True)
    if groups is None and len(np.unique(copies)) == len(copies):
        return None
    own = np.arange(len(digests)) if groups is None else np.unique(groups, return_inverse=True)[1]
    from scipy.sparse import coo_array  # type: ignore[import-untyped]
    from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

    # Groups and digests are the points of a graph, and each image ties its group to its digest.
    size = int(own.max()) + int(copies.max()) + 2
    ties = coo_array((np.ones(len(own)), (own, int(own.max()) + 1 + copies)), shape=(size, size))
    found: NDArray[np.int64] = connected_components(ties, directed=False)[1][own].astype(np.int64)
    return found


def _seconds(groups: NDArray[np.integer], rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """One more row of some groups of which `rows` has one alone, for as many as are missing to `PAIRS`."""
    taken, counts = np.unique(groups[rows], return_counts=True)
    single = rng.permutation(taken[counts == 1])[: max(0, PAIRS - int((counts > 1).sum()))]
    rest = rng.permutation(np.setdiff1d(np.flatnonzero(np.isin(groups, single)), rows))
    _, first = np.unique(groups[rest], return_index=True)
    return rest[first]


def compact(dataset: Dataset) -> Dataset:
    """The same rows over those classes alone that occur."""
    present, labels = np.unique(dataset.labels, return_inverse=True)
    if len(present) == len(dataset.classes):
        return dataset
    return replace(dataset, labels=labels.astype(np.int32), classes=tuple(dataset.classes[index] for index in present))


def part(
    labels: NDArray[np.integer], groups: NDArray[np.integer] | None, share: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Indices of a random part of some rows: `share` of each class, at least two, as whole groups where there are any."""
    units = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    _, first = np.unique(units, return_index=True)
    chosen = []
    for label in np.unique(labels):
        members = first[labels[first] == label]
        wanted = max(min(2, len(members)), round(share * len(members)))
        chosen.append(units[rng.permutation(members)[:wanted]])
    return np.flatnonzero(np.isin(units, np.concatenate(chosen)))


def _rank(values: NDArray[np.integer]) -> NDArray[np.int64]:
    """How many equal values stand before each."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[starts, len(ordered)])
    ranks = np.empty(len(values), np.int64)
    ranks[order] = np.arange(len(values)) - np.repeat(starts, lengths)
    return ranks
