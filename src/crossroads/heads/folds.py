"""Deals images to the folds of a cross-validation: stratified by class, groups kept whole, the same for the same draw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def deal(labels: NDArray[np.integer], groups: NDArray[np.integer] | None = None, *, count: int, draw: int = 0) -> NDArray[np.int64]:
    """Returns the fold of each row, int64 (n,) in [0, `count`).

    The groups of each class are shuffled and dealt in turn. A group with several classes counts as one of the class of its first
    row.

    Args:
        labels: Integers (n,).
        groups: Integers (n,) of rows that stay in one fold; None if each row stands alone.
        count: Number of folds.
        draw: Each number gives another draw.
    """
    units = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    _, first = np.unique(units, return_index=True)
    order = np.random.default_rng([len(labels), draw] if draw else len(labels)).permutation(len(first))
    order = order[np.argsort(labels[first[order]], kind="stable")]  # by class, so that each fold gets equally many of each class
    dealt = np.empty(len(first), np.int64)
    dealt[order] = np.arange(len(first)) % count
    fold: NDArray[np.int64] = dealt[units]
    return fold


def divisible(units: NDArray[np.integer], labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Returns which rows may be left out, bool (n,): the rows of every unit that is not the only one of a class."""
    pairs = np.unique(np.stack([labels.astype(np.int64), units.astype(np.int64)]), axis=1)
    alone = np.bincount(pairs[0])[pairs[0]] == 1
    return ~np.isin(units, pairs[1][alone])


def joined(*columns: NDArray[np.integer]) -> NDArray[np.int64]:
    """Returns a number for each row, int64 (n,). Rows that are equal in any column have the same one, and so on in chains.

    For example, the columns [0, 0, 1, 2] and [5, 6, 6, 7] give [0, 0, 0, 1].
    """
    from scipy.sparse import coo_matrix  # type: ignore[import-untyped]
    from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

    n, ends, nodes = len(columns[0]), [], len(columns[0])
    for column in columns:
        values, codes = np.unique(column, return_inverse=True)
        ends.append(nodes + codes.reshape(n))
        nodes += len(values)
    rows = np.tile(np.arange(n), len(columns))
    edges = coo_matrix((np.ones(len(rows), np.int8), (rows, np.concatenate(ends))), shape=(nodes, nodes))
    numbers: NDArray[np.int64] = np.unique(connected_components(edges, directed=False)[1][:n], return_inverse=True)[1].reshape(n)
    return numbers.astype(np.int64)
