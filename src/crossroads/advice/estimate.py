"""A figure with its interval: the form in which all evidence is told."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossroads.evaluation import accuracy_interval


class Estimate(NamedTuple):
    """A share with the limits of its 95 % interval, all in [0, 1]."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """As plain values, rounded to what can be told apart."""
        return {"value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4)}

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def share(correct: NDArray[np.bool_], groups: NDArray[np.integer] | None = None) -> Estimate:
    """The share of True in bool (n,), with an interval over whole groups where there are any."""
    low, high = accuracy_interval(correct, groups)
    return Estimate(float(correct.mean()), low, high)
