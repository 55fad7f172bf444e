"""Standardises features, and reads a bounded number of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import TrainingError, option
from crossroads.features.arrays import Indexable

CHUNK_BYTES = 1 << 25
"""Bytes of features that are read at a time, as float64."""

DEVIATION_FLOOR = 1.0
"""Features that vary less than the median feature are not amplified. With few training images, some features of a network are 0 for
all images but one. Standardisation would amplify them to hundreds of standard deviations for some new images, and spoil the scores
of these images. With 8 images per class, this floor raised the accuracy on new images from 0.851 to 0.931 (ants/bees), from 0.692
to 0.722 (flowers) and from 0.646 to 0.694 (sign digits). With 36 images per class, it raised the accuracy by 0 to 3 points.
Probes and the heads of small data sets use it."""


@dataclass(frozen=True, slots=True, eq=False)
class Standardizer:
    """Standardises features as ``(x - mean) * scale``: to unit variance, divided by the square root of `width`.

    The mean squared length of a row is then 1 for any number of features, so one list of penalties suits every backbone.

    Attributes:
        mean: float64 (d,).
        scale: float64 (d,); 0 for a constant feature.
        width: The number of features that are not constant.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    width: int

    def fold(self, kernel: NDArray[np.float64], bias: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Converts kernel (d, k) and bias (k,) for standardised features into those for raw features."""
        folded = kernel * self.scale[:, None]  # (d, k)
        return folded.astype(np.float32), (bias - self.mean @ folded).astype(np.float32)

    def chunks(self, features: Indexable, start: int, stop: int, dtype: Any) -> Iterator[tuple[int, NDArray[np.floating]]]:
        """Yields chunks of rows `start` to `stop`: the index of the first row, and the standardised rows (c, d)."""
        for first, chunk in read_chunks(features, start, stop):
            standardized = chunk - self.mean  # a copy: the chunk may be the caller's own array
            standardized *= self.scale
            yield first, standardized.astype(dtype, copy=False)


def standardizer(features: Indexable, weights: NDArray[np.float64], *, floor: float = 0.0) -> Standardizer:
    """Fits a standardizer to the weighted mean and standard deviation of features (n, d).

    Args:
        features: Float (n, d).
        weights: Of the rows.
        floor: The least deviation that a feature is divided by, relative to the median deviation of the features that vary.
    """
    mean, deviation = moments(features, weights)
    varies = deviation > 1e-7 * max(deviation.max(), 1e-30)
    width = max(1, int(varies.sum()))
    if floor and varies.any():
        deviation = np.maximum(deviation, floor * np.median(deviation[varies]))
    return Standardizer(mean, np.where(varies, 1 / np.where(varies, deviation, 1), 0) / np.sqrt(width), width)


def moments(features: Indexable, weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the weighted mean and standard deviation of each feature, float64 (d,) each, of features (n, d)."""
    d, total = features.shape[1], weights.sum()
    # Sums are taken about the mean of the first chunk. Squares about a distant origin would lose the variance to rounding.
    origin = next(read_chunks(features))[1].mean(axis=0)
    sums, squares = np.zeros(d), np.zeros(d)
    for start, chunk in read_chunks(features):
        shifted = chunk - origin  # (c, d)
        chunk_weights = weights[start : start + len(shifted)]
        sums += chunk_weights @ shifted
        shifted *= shifted
        squares += chunk_weights @ shifted
    offset = sums / total
    return origin + offset, np.sqrt(np.maximum(squares / total - offset**2, 0))


def read_chunks(features: Indexable, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yields the index of the first row and float64 rows (c, d), at most `CHUNK_BYTES` at a time.

    Raises:
        TrainingError: A feature is not finite.
    """
    n, d = features.shape
    step, stop = max(1, CHUNK_BYTES // (8 * d)), n if stop is None else stop
    for first in range(start, stop, step):
        chunk = np.asarray(features[first : min(first + step, stop)], np.float64)
        if not np.isfinite(chunk).all():
            raise TrainingError(
                "features must be finite",
                code="features-not-finite",
                received=f"NaN or infinity in rows {first} to {first + len(chunk) - 1}",
                hint=f"use other {option('weights')} or another {option('cut')}",
            )
        yield first, chunk
