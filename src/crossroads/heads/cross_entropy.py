"""Computes the cross-entropy and accuracy, by which epochs and heads are chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def summed_metrics(scores: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> tuple[float, float]:
    """Returns the sum of the cross-entropies in nats and the number of correct rows, computed in float64.

    Args:
        scores: Float (n, k), before softmax.
        labels: Integers (n,).
    """
    exact = np.asarray(scores, np.float64)
    peak = exact.max(axis=1, keepdims=True)
    log_sum = peak[:, 0] + np.log(np.exp(exact - peak).sum(axis=1))
    return float((log_sum - exact[np.arange(len(labels)), labels]).sum()), float((exact.argmax(axis=1) == labels).sum())
