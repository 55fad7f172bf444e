"""Decides whether the classes of a data set differ so much in size that accuracy is misleading."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from crossroads.data.dataset import Dataset

MAX_RATIO = 10.0
"""Classes are unbalanced if the largest has more than this many times as many images as the smallest."""

BALANCE_HINT = "judge by balanced accuracy; class_weights = 'balanced' gives small classes more weight"


class Imbalance(NamedTuple):
    """The largest and the smallest class of an unbalanced data set, with the number of images in each."""

    largest: str
    most: int
    smallest: str
    fewest: int


def imbalance(dataset: Dataset) -> Imbalance | None:
    """Returns the largest and the smallest class if the ratio of their sizes exceeds `MAX_RATIO`; otherwise None.

    Classes without images are ignored.
    """
    counts = dataset.counts()
    present = np.flatnonzero(counts)
    if not len(present):
        return None
    largest, smallest = present[np.argmax(counts[present])], present[np.argmin(counts[present])]
    if counts[largest] <= MAX_RATIO * counts[smallest]:
        return None
    return Imbalance(dataset.classes[largest], int(counts[largest]), dataset.classes[smallest], int(counts[smallest]))
