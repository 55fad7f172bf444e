"""Ridge regression of many images with many features: the penalty is chosen on a part of the images, the fit is on all of them.

Principal axes cost ten times a Cholesky factor and more: of 9,000 images with 8,192 features a head took nine minutes by axes,
most of it logistic regression, which then lost to ridge regression (as on GTSRB's grids, 0.877 against 0.927).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossroads.training._principal import Standard, standard_of, turned
from crossroads.training._ridge import by_size, centred, leave_out, path, temperature
from crossroads.training.batches import Rows

FEWEST, MOST = 2048, 12_288
"""Both images and features must be more than the first; features no more than the second, whose factor takes 1.2 GB."""

PART = 2000
"""Images that the penalty is chosen on, and that the temperature of the whole fit is found with."""


@dataclass(frozen=True, slots=True, eq=False)
class Ridge:
    """A fit on standardised features.

    Attributes:
        standard: How they are standardised.
        kernel: float64 (d, k), times the sharpness that makes its softmax calibrated.
        bias: float64 (k,), likewise.
        penalty: That was chosen, per image.
        tried: Each penalty with its held-out loss: the chosen one's on the whole fit, the others' on the part.
    """

    standard: Standard
    kernel: NDArray[np.float64]
    bias: NDArray[np.float64]
    penalty: float
    tried: tuple[tuple[float, float], ...]


def is_large(n: int, d: int) -> bool:
    """Whether `n` images of `d` features are solved here."""
    return min(n, d) > FEWEST and d <= MOST


def ridge_of_many(
    features: Rows,
    codes: NDArray[np.integer],
    classes: int,
    weights: NDArray[np.float64],
    groups: NDArray[np.integer] | None,
    penalties: Sequence[float],
) -> Ridge:
    """Solve ridge regression on one-hot rows.

    Args:
        features: Float (n, d), read a chunk at a time.
        codes: Integers (n,) in [0, classes).
        classes: All of which occur.
        weights: float64 (n,) of the images.
        groups: Integers (n,) of images that are left out together, or None.
        penalties: Strong to weak, per image.
    """
    from scipy.linalg import cho_solve, cholesky, solve_triangular  # type: ignore[import-untyped]

    rows = _some(codes, groups)
    part, seen, together = features[rows], weights[rows], None if groups is None else groups[rows]
    penalty, tried = _chosen(part, codes[rows], seen, together, penalties)
    total = float(weights.sum())
    standard = standard_of(features, weights)
    level = np.bincount(codes, weights, classes) / total
    products, correlations = _sums(features, standard, codes, level, weights)
    products[np.diag_indices_from(products)] += penalty * total
    factor = cholesky(products, lower=True, overwrite_a=True, check_finite=False)
    kernel = cho_solve((factor, True), correlations, check_finite=False)
    # In the coordinates L^-1 x the penalised inner products are 1, so that what is left out is as in `held_out_scores`.
    own = (part - standard.mean) * standard.scale
    coordinates = solve_triangular(factor, own.T, lower=True, check_finite=False).T.astype(np.float32)
    targets = np.eye(classes)[codes[rows]] - level
    residuals = targets - own @ kernel
    for members in by_size(np.flatnonzero(seen > 0), together):
        leave_out(residuals, members, coordinates, np.ones(coordinates.shape[1]), seen, total)
    sharpness, loss = temperature(targets - residuals + level, codes[rows], seen)
    tried = tuple((step, loss if step == penalty else lost) for step, lost in tried)
    return Ridge(standard, sharpness * kernel, sharpness * level, penalty, tried)


def _chosen(
    part: NDArray[np.float32],
    codes: NDArray[np.integer],
    weights: NDArray[np.float64],
    groups: NDArray[np.integer] | None,
    penalties: Sequence[float],
) -> tuple[float, tuple[tuple[float, float], ...]]:
    """The penalty with the least held-out loss on some images, and the loss of each."""
    present, dense = np.unique(codes, return_inverse=True)
    turn = turned(part, weights)
    steps = path(turn, *centred(turn, dense, len(present), weights), dense, weights, groups, penalties)
    tried = tuple((step.penalty, step.loss) for step in steps)
    return min(tried, key=lambda row: row[1])[0], tried


def _sums(
    features: Rows, standard: Standard, codes: NDArray[np.integer], level: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """X'WX (d, d) and X'WY (d, k): products in float32, sums in float64."""
    n, d = features.shape
    products, correlations = np.zeros((d, d)), np.zeros((d, len(level)))
    for start, rows in standard.rows(features, 0, n, np.float32):
        some = slice(start, start + len(rows))
        targets = (np.eye(len(level))[codes[some]] - level) * weights[some, None]
        correlations += rows.T @ targets.astype(np.float32)
        rows *= np.sqrt(weights[some, None]).astype(np.float32)
        products += rows.T @ rows
    return products, correlations


def _some(codes: NDArray[np.integer], groups: NDArray[np.integer] | None) -> NDArray[np.int64]:
    """About `PART` rows, whole groups where there are any, the same for the same images."""
    units = np.arange(len(codes)) if groups is None else np.unique(groups, return_inverse=True)[1]
    order = np.random.default_rng(0).permutation(int(units.max()) + 1)
    sizes = np.bincount(units)[order]
    kept = order[: max(2, int(np.searchsorted(np.cumsum(sizes), PART, side="right")))]
    return np.flatnonzero(np.isin(units, kept))
