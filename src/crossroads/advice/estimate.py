"""Defines an accuracy with its interval, the form of all evidence."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossroads.evaluation import accuracy_interval

DIGITS = 6
"""Significant digits of the figures of advice and races in JSON."""


class Estimate(NamedTuple):
    """A fraction with the limits of its 95 % interval, all in [0, 1]."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def log_odds(value: float, margin: float) -> float:
    """Returns the log odds of a fraction, which is first kept at least `margin` away from 0 and 1."""
    inside = min(max(value, margin), 1 - margin)
    return math.log(inside / (1 - inside))


def from_log_odds(value: float) -> float:
    """Returns the probability with these log odds."""
    return 1 / (1 + math.exp(-value))


def estimate_accuracy(correct: NDArray[np.bool_], groups: NDArray[np.integer] | None = None) -> Estimate:
    """Returns the fraction of True in bool (n,), with an interval over whole groups if there are groups."""
    low, high = accuracy_interval(correct, groups)
    return Estimate(float(correct.mean()), low, high)
