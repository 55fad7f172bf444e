"""Draws the sample that evidence is measured on. It has images of all classes and of as many groups as possible."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import Dataset

MOST_CLASSES = 400
"""Largest number of classes in a sample. A probe holds images times classes of numbers."""

PAIRS = 150
"""Number of groups with at least two images in a sample, which show how similar the images of a group are."""

FEWEST_OF_A_CLASS = 3
"""Smallest number of images per class if the class has them. An image that is left out must leave others of its class behind."""


def sample(dataset: Dataset, most: int, seed: int) -> NDArray[np.int64]:
    """Returns about `most` row indices of `dataset`, int64 in ascending order: a proportional number from each class.

    The groups of a class take turns, because few images of many objects say more than many images of few.
    """
    rng = np.random.default_rng([seed, 11])
    order = rng.permutation(len(dataset))
    classes = np.unique(dataset.labels)
    if len(classes) > MOST_CLASSES:
        kept = rng.choice(classes, MOST_CLASSES, replace=False)
        order = order[np.isin(dataset.labels[order], kept)]
    if len(order) <= most:
        return np.sort(order)
    turn = np.zeros(len(order), np.int64) if dataset.groups is None else _occurrence(dataset.groups[order])
    labels = dataset.labels[order]
    # One class with groups a a a b b c: the turns are 0 1 2 0 1 0, so that the rows are taken in the order a b c a b a.
    by_turn = np.lexsort((np.arange(len(order)), turn, labels))
    place = _occurrence(labels[by_turn])
    counts = np.bincount(labels)[labels[by_turn]]
    quota = np.maximum(np.rint(counts * most / len(order)), np.minimum(FEWEST_OF_A_CLASS, counts))
    indices = order[by_turn[place < quota]]
    if dataset.groups is not None:
        indices = np.concatenate([indices, _second_images(dataset.groups, indices, rng)])
    return np.sort(indices)


def merge_duplicates(groups: NDArray[np.integer] | None, digests: NDArray[np.uint8]) -> NDArray[np.int64] | None:
    """Returns groups that also keep images with equal digests, uint8 (n, 16), together. Returns None if no images belong together.

    Copies of an image must be in the same fold. Otherwise, a probe would be tested on images that it has learned from.
    """
    _, copies = np.unique(digests, axis=0, return_inverse=True)
    if groups is None and len(np.unique(copies)) == len(copies):
        return None
    own = np.arange(len(digests)) if groups is None else np.unique(groups, return_inverse=True)[1]
    from scipy.sparse import coo_array  # type: ignore[import-untyped]
    from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

    # Groups and digests are the nodes of a graph. Each image is an edge between its group and its digest.
    size = int(own.max()) + int(copies.max()) + 2
    edges = coo_array((np.ones(len(own)), (own, int(own.max()) + 1 + copies)), shape=(size, size))
    merged: NDArray[np.int64] = connected_components(edges, directed=False)[1][own].astype(np.int64)
    return merged


def _second_images(groups: NDArray[np.integer], indices: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Returns a second row for groups with only one row in `indices`, until `PAIRS` groups have two rows."""
    sampled, counts = np.unique(groups[indices], return_counts=True)
    single = rng.permutation(sampled[counts == 1])[: max(0, PAIRS - int((counts > 1).sum()))]
    rest = rng.permutation(np.setdiff1d(np.flatnonzero(np.isin(groups, single)), indices))
    _, first = np.unique(groups[rest], return_index=True)
    return rest[first]


def compact(dataset: Dataset) -> Dataset:
    """Returns the same rows, with only the classes that occur."""
    present, labels = np.unique(dataset.labels, return_inverse=True)
    if len(present) == len(dataset.classes):
        return dataset
    return replace(dataset, labels=labels.astype(np.int32), classes=tuple(dataset.classes[index] for index in present))


def random_part(
    labels: NDArray[np.integer], groups: NDArray[np.integer] | None, fraction: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Returns the indices of a random part: a fraction of each class, at least two images or groups. Groups stay whole."""
    units = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    _, first = np.unique(units, return_index=True)
    chosen = []
    for label in np.unique(labels):
        members = first[labels[first] == label]
        wanted = max(min(2, len(members)), round(fraction * len(members)))
        chosen.append(units[rng.permutation(members)[:wanted]])
    return np.flatnonzero(np.isin(units, np.concatenate(chosen)))


def _occurrence(values: NDArray[np.integer]) -> NDArray[np.int64]:
    """Returns for each value how many equal ones precede it: 0 0 1 2 1 for a b a a b."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[starts, len(ordered)])
    occurrence = np.empty(len(values), np.int64)
    occurrence[order] = np.arange(len(values)) - np.repeat(starts, lengths)
    return occurrence
