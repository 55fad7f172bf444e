"""Solves ridge regression of many images with many features. A sample of the images chooses the penalty of a fit to all images.

Principal components cost more than ten times as much as a Cholesky factor. With them a head on 9,000 images with 8,192 features
took nine minutes. Most of the time went into logistic regression, which then lost to ridge regression (as on GTSRB's grids, 0.877
against 0.927).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crossroads.features.arrays import Indexable
from crossroads.heads._principal import COORDINATES_LIMIT, principal_components
from crossroads.heads._ridge import groups_by_size, inverse_temperature, leave_out, regularization_path, ridge_problem
from crossroads.heads.standardize import Standardizer, standardizer

MIN_SIZE, MAX_FEATURES = 2048, 12_288
"""This module solves a head if images and features are both more than `MIN_SIZE`, or if their coordinates exceed the memory limit.
The Cholesky factor of `MAX_FEATURES` features takes 1.2 GB."""

SAMPLE_SIZE = 2000
"""Number of images in the sample. Each of them is left out in turn, first of a fit to the sample, which finds the order of
magnitude of the penalty, then of the fit to all images, which chooses the penalty and its temperature. The best total penalty is
nearly constant, so the best penalty per image falls with the number of images: on the CIFAR-10 subset 1e-3 was best for 2,000
images, but 9,000 images reached an accuracy of 0.731 with 1e-3 and 0.761 with 1e-4."""


@dataclass(frozen=True, slots=True, eq=False)
class LargeRidge:
    """A fit on standardised features.

    Attributes:
        standardizer: Standardises the features.
        kernel: float64 (d, k), multiplied by the inverse temperature.
        bias: float64 (k,), likewise.
        penalty: Per image.
        loss: Held-out cross-entropy of the sample in nats.
        path: Each penalty that was fitted, with its loss.
    """

    standardizer: Standardizer
    kernel: NDArray[np.float64]
    bias: NDArray[np.float64]
    penalty: float
    loss: float
    path: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """The images that are left out in turn: features (m, d), and codes, weights and groups (m,)."""

    features: NDArray[np.float32]
    codes: NDArray[np.integer]
    weights: NDArray[np.float64]
    groups: NDArray[np.integer] | None


@dataclass(frozen=True, slots=True, eq=False)
class _NormalEquations:
    """The normal equations of all images, without a penalty.

    Attributes:
        standardizer: Standardises the features of all images.
        products: X'WX, float64 (d, d).
        correlations: X'WY, float64 (d, k).
        mean: float64 (k,), the weighted mean of the one-hot targets.
        total: The sum of the weights.
    """

    standardizer: Standardizer
    products: NDArray[np.float64]
    correlations: NDArray[np.float64]
    mean: NDArray[np.float64]
    total: float


def is_large(n: int, d: int) -> bool:
    """Returns whether this module solves a head on `n` images with `d` features."""
    return d <= MAX_FEATURES and (min(n, d) > MIN_SIZE or 4 * n * min(n, d) > COORDINATES_LIMIT)


def fit_large_ridge(
    features: Indexable,
    codes: NDArray[np.integer],
    classes: int,
    weights: NDArray[np.float64],
    groups: NDArray[np.integer] | None,
    penalties: Sequence[float],
) -> LargeRidge:
    """Solves ridge regression on one-hot targets.

    Args:
        features: Float (n, d), read a chunk at a time.
        codes: Integers (n,) in [0, classes).
        classes: The number of classes, all of which occur.
        weights: float64 (n,), the weights of the images.
        groups: Integers (n,) of images that are left out together; None to leave out each image alone.
        penalties: Strong to weak, per image.
    """
    indices = _sample_indices(codes, groups)
    sample = _Sample(features[indices], codes[indices], weights[indices], None if groups is None else groups[indices])
    equations = _normal_equations(features, codes, classes, weights)
    expected = _sample_penalty(sample, penalties) * sample.weights.sum() / equations.total
    start = int(np.argmin(np.abs(np.log(np.array(penalties) / expected))))
    fits = {start: _fit(equations, sample, penalties[start])}
    for step in (1, -1):  # to weaker penalties, then to stronger ones, as long as the loss falls
        while 0 <= (following := min(fits, key=lambda at: fits[at].loss) + step) < len(penalties) and following not in fits:
            fits[following] = _fit(equations, sample, penalties[following])
    best = min(fits.values(), key=lambda fit: fit.loss)
    return replace(best, path=tuple((penalties[at], fits[at].loss) for at in sorted(fits)))


def _fit(equations: _NormalEquations, sample: _Sample, penalty: float) -> LargeRidge:
    """Fits all images with one penalty per image, and scores it on the sample."""
    from scipy.linalg import cho_solve, cholesky, solve_triangular  # type: ignore[import-untyped]

    standard, mean = equations.standardizer, equations.mean
    penalized = equations.products.copy()
    penalized[np.diag_indices_from(penalized)] += penalty * equations.total
    factor = cholesky(penalized, lower=True, overwrite_a=True, check_finite=False)  # L, (d, d)
    kernel = cho_solve((factor, True), equations.correlations, check_finite=False)  # (d, k)
    # In the coordinates L^-1 x the penalised inner products are the identity, so `leave_out` applies.
    standardized = (sample.features - standard.mean) * standard.scale  # (m, d)
    coordinates = solve_triangular(factor, standardized.T, lower=True, check_finite=False).T.astype(np.float32)
    targets = np.eye(len(mean))[sample.codes] - mean
    residuals = targets - standardized @ kernel
    for members in groups_by_size(np.flatnonzero(sample.weights > 0), sample.groups):
        leave_out(residuals, members, coordinates, np.ones(coordinates.shape[1]), sample.weights, equations.total)
    factor_t, loss = inverse_temperature(targets - residuals + mean, sample.codes, sample.weights)
    return LargeRidge(standard, factor_t * kernel, factor_t * mean, penalty, loss)


def _sample_penalty(sample: _Sample, penalties: Sequence[float]) -> float:
    """Returns the penalty with the lowest held-out loss of a fit to the sample alone."""
    present, codes = np.unique(sample.codes, return_inverse=True)
    components = principal_components(sample.features, sample.weights)
    path = regularization_path(ridge_problem(components, codes, len(present), sample.groups), penalties)
    return min((point.loss, point.penalty) for point in path)[1]


def _normal_equations(
    features: Indexable, codes: NDArray[np.integer], classes: int, weights: NDArray[np.float64]
) -> _NormalEquations:
    """Accumulates the normal equations: products in float32, sums in float64."""
    n, d = features.shape
    standard = standardizer(features, weights)
    mean = np.bincount(codes, weights, classes) / weights.sum()
    products, correlations = np.zeros((d, d)), np.zeros((d, classes))
    for start, chunk in standard.chunks(features, 0, n, np.float32):
        chunk_weights = weights[start : start + len(chunk), None]
        targets = (np.eye(classes)[codes[start : start + len(chunk)]] - mean) * chunk_weights  # (c, k)
        correlations += chunk.T @ targets.astype(np.float32)
        chunk *= np.sqrt(chunk_weights).astype(np.float32)
        products += chunk.T @ chunk
    return _NormalEquations(standard, products, correlations, mean, float(weights.sum()))


def _sample_indices(codes: NDArray[np.integer], groups: NDArray[np.integer] | None) -> NDArray[np.int64]:
    """Returns the indices of about `SAMPLE_SIZE` rows, deterministically and in whole groups.

    One row or group of each class is taken first, because a few large groups alone would leave out most classes. The sample may
    therefore grow to four times `SAMPLE_SIZE`.
    """
    units = np.arange(len(codes)) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(units.max()) + 1
    order = np.random.default_rng(0).permutation(count)
    ranks = np.argsort(order)[units]  # (n,), the place of each row's unit in the order
    first = np.full(int(codes.max()) + 1, count)
    np.minimum.at(first, codes, ranks)
    front = np.unique(first[first < count])
    order = order[np.concatenate([front, np.setdiff1d(np.arange(count), front)])]
    sizes = np.cumsum(np.bincount(units)[order])
    usual, most = (int(np.searchsorted(sizes, limit, side="right")) for limit in (SAMPLE_SIZE, 4 * SAMPLE_SIZE))
    return np.flatnonzero(np.isin(units, order[: max(2, usual, min(len(front), most))]))
