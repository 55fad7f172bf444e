"""Decides when the classes of a data set differ so much in size that accuracy misleads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crossroads.data.dataset import Dataset

MAX_RATIO = 10.0
"""Classes count as unbalanced if the largest has more than this many times the images of the smallest."""

BALANCE_HINT = "judge by balanced accuracy; class_weights = 'balanced' gives small classes more weight"


@dataclass(frozen=True, slots=True)
class Imbalance:
    """The largest and the smallest class of an unbalanced data set. Classes without images do not count.

    Attributes:
        largest: Name of the largest class.
        most: Its images.
        smallest: Name of the smallest class.
        fewest: Its images.
    """

    largest: str
    most: int
    smallest: str
    fewest: int


def imbalance(dataset: Dataset) -> Imbalance | None:
    """Returns the largest and smallest class if their ratio exceeds `MAX_RATIO`; otherwise None."""
    counts = dataset.counts()
    present = np.flatnonzero(counts)
    if not len(present):
        return None
    largest, smallest = present[np.argmax(counts[present])], present[np.argmin(counts[present])]
    if counts[largest] <= MAX_RATIO * counts[smallest]:
        return None
    return Imbalance(dataset.classes[largest], int(counts[largest]), dataset.classes[smallest], int(counts[smallest]))
