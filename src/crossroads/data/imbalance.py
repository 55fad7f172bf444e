"""Decides when the classes of a data set differ so much in size that accuracy misleads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from crossroads.data.dataset import Dataset

MAX_RATIO = 10.0
"""Classes count as unbalanced if the largest has more than this many times the images of the smallest."""

BALANCE_HINT = "judge by balanced accuracy; class_weights = 'balanced' gives small classes more weight"


class Imbalance(NamedTuple):
    """The largest and the smallest class of an unbalanced data set, with their numbers of images."""

    largest: str
    most: int
    smallest: str
    fewest: int


def imbalance(dataset: Dataset) -> Imbalance | None:
    """Returns the largest and smallest class with images if their ratio exceeds `MAX_RATIO`; otherwise None."""
    counts = dataset.counts()
    present = np.flatnonzero(counts)
    if not len(present):
        return None
    largest, smallest = present[np.argmax(counts[present])], present[np.argmin(counts[present])]
    if counts[largest] <= MAX_RATIO * counts[smallest]:
        return None
    return Imbalance(dataset.classes[largest], int(counts[largest]), dataset.classes[smallest], int(counts[smallest]))
