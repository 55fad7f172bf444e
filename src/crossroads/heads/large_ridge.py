"""Ridge regression of many images with many features: a part of the images says where to look for the penalty, all are fitted.

Principal axes cost ten times a Cholesky factor and more: of 9,000 images with 8,192 features a head took nine minutes by axes,
most of it logistic regression, which then lost to ridge regression (as on GTSRB's grids, 0.877 against 0.927).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crossroads.heads._principal import MEMORY, Standard, principal_components, standard_of
from crossroads.heads._ridge import by_size, centred, leave_out, path, temperature

if TYPE_CHECKING:
    from crossroads.features.arrays import Indexable

FEWEST, MOST = 2048, 12_288
"""Both images and features must be more than the first, unless there are more of the two together than can be turned; features no
more than the second, whose factor takes 1.2 GB."""

SAMPLE_SIZE = 2000
"""Images that are left out in turn: alone to see where the penalty lies, and of the whole fit to choose it and its temperature. The
best penalty of all images together stays about the same, so that each image's share falls with their number: on CIFAR-10's subset
2,000 images wanted 1e-3, and 9,000 reached 0.731 with that and 0.761 with 1e-4."""


@dataclass(frozen=True, slots=True, eq=False)
class Ridge:
    """A fit on standardised features.

    Attributes:
        standard: How they are standardised.
        kernel: float64 (d, k), times the sharpness that makes its softmax calibrated.
        bias: float64 (k,), likewise.
        penalty: Per image.
        loss: Cross-entropy in nats of images, or groups, of the part, left out of the fit of all.
        tried: Each penalty with its loss.
    """

    standard: Standard
    kernel: NDArray[np.float64]
    bias: NDArray[np.float64]
    penalty: float
    loss: float
    tried: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    features: NDArray[np.float32]
    codes: NDArray[np.integer]
    weights: NDArray[np.float64]
    groups: NDArray[np.integer] | None


def is_large(n: int, d: int) -> bool:
    """Whether `n` images of `d` features are solved here."""
    return d <= MOST and (min(n, d) > FEWEST or 4 * n * min(n, d) > MEMORY)


def fit_large_ridge(
    features: Indexable,
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
    rows = _some(codes, groups)
    part = _Part(features[rows], codes[rows], weights[rows], None if groups is None else groups[rows])
    standard = standard_of(features, weights)
    level = np.bincount(codes, weights, classes) / weights.sum()
    sums = _sums(features, standard, codes, level, weights)
    wanted = _chosen(part, penalties) * part.weights.sum() / weights.sum()
    place = int(np.argmin(np.abs(np.log(np.array(penalties) / wanted))))
    fits = {place: _fit(*sums, standard, level, part, penalties[place], float(weights.sum()))}
    for step in (1, -1):  # weaker, then stronger, for as long as that helps
        while 0 <= (following := min(fits, key=lambda at: fits[at].loss) + step) < len(penalties) and following not in fits:
            fits[following] = _fit(*sums, standard, level, part, penalties[following], float(weights.sum()))
    best = min(fits.values(), key=lambda fit: fit.loss)
    return replace(best, tried=tuple((penalties[at], fits[at].loss) for at in sorted(fits)))


def _fit(
    products: NDArray[np.float64],
    correlations: NDArray[np.float64],
    standard: Standard,
    level: NDArray[np.float64],
    part: _Part,
    penalty: float,
    total: float,
) -> Ridge:
    from scipy.linalg import cho_solve, cholesky, solve_triangular  # type: ignore[import-untyped]

    penalised = products.copy()
    penalised[np.diag_indices_from(penalised)] += penalty * total
    factor = cholesky(penalised, lower=True, overwrite_a=True, check_finite=False)
    kernel = cho_solve((factor, True), correlations, check_finite=False)
    # In the coordinates L^-1 x the penalised inner products are 1, so that what is left out is as in `held_out_scores`.
    own = (part.features - standard.mean) * standard.scale
    coordinates = solve_triangular(factor, own.T, lower=True, check_finite=False).T.astype(np.float32)
    targets = np.eye(len(level))[part.codes] - level
    residuals = targets - own @ kernel
    for members in by_size(np.flatnonzero(part.weights > 0), part.groups):
        leave_out(residuals, members, coordinates, np.ones(coordinates.shape[1]), part.weights, total)
    sharpness, loss = temperature(targets - residuals + level, part.codes, part.weights)
    return Ridge(standard, sharpness * kernel, sharpness * level, penalty, loss)


def _chosen(part: _Part, penalties: Sequence[float]) -> float:
    """The penalty with the least held-out loss where there are no more images than the part."""
    present, dense = np.unique(part.codes, return_inverse=True)
    turn = principal_components(part.features, part.weights)
    steps = path(turn, *centred(turn, dense, len(present), part.weights), dense, part.weights, part.groups, penalties)
    return min((step.loss, step.penalty) for step in steps)[1]


def _sums(
    features: Indexable, standard: Standard, codes: NDArray[np.integer], level: NDArray[np.float64], weights: NDArray[np.float64]
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
    """About `PART` rows, whole groups where there are any, the same for the same images.

    A row or group of each class comes first: where groups are large, what a few of them hold says nothing of the other classes. For
    that no more than four times `PART` rows are taken.
    """
    units = np.arange(len(codes)) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(units.max()) + 1
    order = np.random.default_rng(0).permutation(count)
    places = np.argsort(order)[units]
    first = np.full(int(codes.max()) + 1, count)
    np.minimum.at(first, codes, places)
    front = np.unique(first[first < count])
    order = order[np.concatenate([front, np.setdiff1d(np.arange(count), front)])]
    held = np.cumsum(np.bincount(units)[order])
    usual, most = (int(np.searchsorted(held, rows, side="right")) for rows in (SAMPLE_SIZE, 4 * SAMPLE_SIZE))
    return np.flatnonzero(np.isin(units, order[: max(2, usual, min(len(front), most))]))
