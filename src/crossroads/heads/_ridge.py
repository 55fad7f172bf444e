"""Ridge regression with images, or whole groups of images, left out in closed form, and the temperature of its scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossroads.heads._principal import PrincipalComponents

TEMPERATURE_ROWS = 20_000  # Images that one number is fitted to; more do not move it.
STEPS = 30
TOGETHER = 1 << 22  # Coordinates of groups that are solved in one call.


class Step(NamedTuple):
    """One penalty: scores float64 (n, k) of what was left out, and their cross-entropy in nats once `sharpness` makes it least."""

    penalty: float
    loss: float
    sharpness: float
    scores: NDArray[np.float64]


def centred(
    turn: PrincipalComponents, codes: NDArray[np.integer], classes: int, weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.floating]]:
    """One-hot rows (n, k) minus their weighted mean, that mean (k,), and their products with the coordinates (r, k)."""
    targets = np.zeros((len(codes), classes))
    targets[np.arange(len(targets)), codes] = 1
    level = weights @ targets / weights.sum()
    targets -= level
    return targets, level, turn.coordinates.T @ (weights[:, None] * targets).astype(np.float32)


def path(
    turn: PrincipalComponents,
    targets: NDArray[np.float64],
    level: NDArray[np.float64],
    correlations: NDArray[np.floating],
    codes: NDArray[np.integer],
    weights: NDArray[np.float64],
    groups: NDArray[np.integer] | None,
    penalties: Sequence[float],
) -> Iterator[Step]:
    """What each penalty, per image, does to images or groups that are left out. The first six are of `centred` and for it."""
    sharp, total = 1.0, float(weights.sum())
    for penalty in penalties:
        scores = held_out_scores(turn.coordinates, targets, turn.spread, penalty * total, correlations, weights, groups) + level
        sharp, loss = temperature(scores, codes, weights, start=sharp)
        yield Step(penalty, loss, sharp, scores)


def held_out_scores(
    coordinates: NDArray[np.float32],
    targets: NDArray[np.float64],
    spread: NDArray[np.float64],
    penalty: float,
    correlations: NDArray[np.floating],
    weights: NDArray[np.float64],
    groups: NDArray[np.integer] | None,
) -> NDArray[np.float64]:
    """What ridge regression with an intercept predicts for each image when its group is left out of the fit.

    With the hat matrix H of the fit, residuals e and a group G, the residuals without the group are (I - H_GG)^-1 e_G; for single
    images e_i / (1 - h_ii) (PRESS: Allen, 1974; Golub, Heath and Wahba, 1979, for ridge regression). By Woodbury's identity the
    inverse is I + A (M - A'A)^-1 A' where A holds the group's rows and M the inner products with the penalty, which is the
    smaller problem for a group of more images than coordinates. Means and scales of the features stay those of all images.

    Args:
        coordinates: Z, float32 (n, r), whose weighted mean is zero and whose weighted Z'Z is diagonal.
        targets: Y, float64 (n, k), whose weighted mean is zero.
        spread: The diagonal of Z'WZ, float64 (r,).
        penalty: Added to the diagonal.
        correlations: Z'WY, (r, k).
        weights: W, float64 (n,), of the images.
        groups: Integers (n,), or None where each image stands alone.

    Returns:
        float64 (n, k), with the mean of the targets at zero.
    """
    diagonal = spread + penalty
    residuals = targets - coordinates @ (correlations / diagonal[:, None]).astype(np.float32)
    # An image of weight nothing leaves nothing behind when it goes: the fit is the same without it.
    rows = np.flatnonzero(weights > 0)
    for members in by_size(rows, groups):
        leave_out(residuals, members, coordinates, diagonal, weights, float(weights.sum()))
    return targets - residuals


def by_size(rows: NDArray[np.integer], groups: NDArray[np.integer] | None) -> list[NDArray[np.integer]]:
    """Index arrays (m, g) of the groups of g rows each; single rows where all would be one group."""
    if groups is None:
        return [rows[:, None]]
    _, codes, sizes = np.unique(groups[rows], return_inverse=True, return_counts=True)
    if len(sizes) == 1:
        return [rows[:, None]]
    order = rows[np.argsort(codes, kind="stable")]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return [order[starts[sizes == size][:, None] + np.arange(size)] for size in np.unique(sizes)]


def leave_out(
    residuals: NDArray[np.float64],
    members: NDArray[np.integer],
    coordinates: NDArray[np.float32],
    diagonal: NDArray[np.float64],
    weights: NDArray[np.float64],
    total: float,
) -> None:
    """Turn the residuals of the groups in `members`, (m, g), into those without the group, in place.

    `total` is the weight of all images of the fit, which may be more than those here.
    """
    size, width = members.shape[1], len(diagonal)
    step = max(1, TOGETHER // (width * size))
    for first in range(0, len(members), step):
        rows = members[first : first + step]
        root = np.sqrt(weights[rows])  # (m, g)
        if size == 1:
            hat = weights[rows[:, 0]] * (coordinates[rows[:, 0]].astype(np.float64) ** 2 @ (1 / diagonal) + 1 / total)
            residuals[rows[:, 0]] /= (1 - hat)[:, None]
            continue
        # The intercept is one more direction, in which the images are their weights' roots and no penalty is laid.
        part = np.concatenate([root[..., None] * coordinates[rows], root[..., None]], axis=2)  # A, (m, g, r + 1)
        inner = np.append(diagonal, total)
        outside = root[..., None] * residuals[rows]
        if size <= width:
            hat = (part / inner) @ part.transpose(0, 2, 1)
            outside = np.linalg.solve(np.eye(size) - hat, outside)
        else:
            turned = part.transpose(0, 2, 1)
            outside = outside + part @ np.linalg.solve(np.diag(inner) - turned @ part, turned @ outside)
        residuals[rows] = outside / root[..., None]


def temperature(
    scores: NDArray[np.float64], labels: NDArray[np.integer], weights: NDArray[np.float64], *, start: float = 1.0
) -> tuple[float, float]:
    """The factor t > 0 for which softmax(t x scores) has the least cross-entropy, and that cross-entropy in nats.

    The loss is convex in t: Newton's method on its slope, kept inside the interval in which the slope changes its sign.

    Args:
        scores: (n, k).
        labels: Integers (n,).
        weights: Of the images, (n,).
        start: Where to begin.
    """
    if len(scores) > TEMPERATURE_ROWS:
        rows = np.linspace(0, len(scores) - 1, TEMPERATURE_ROWS).astype(np.int64)
        scores, labels, weights = scores[rows], labels[rows], weights[rows]
    share = weights / weights.sum()
    true = scores[np.arange(len(labels)), labels]
    low, high, t = 1e-3, 1e4, min(max(start, 1e-2), 1e3)
    for _ in range(STEPS):
        odds, _ = _softmax(t * scores)
        mean = (odds * scores).sum(axis=1)
        slope = share @ (mean - true)
        bend = share @ ((odds * scores**2).sum(axis=1) - mean**2)
        low, high = (t, high) if slope < 0 else (low, t)
        ahead = t - slope / bend if bend > 0 else -1.0
        following = ahead if low < ahead < high else float(np.sqrt(low * high))
        if abs(following - t) <= 1e-4 * t:
            break
        t = following
    _, log_sum = _softmax(t * scores)
    return t, float(share @ (log_sum - t * true))


def _softmax(scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    peak = scores.max(axis=1, keepdims=True)
    raised = np.exp(scores - peak)
    total = raised.sum(axis=1, keepdims=True)
    return raised / total, (peak + np.log(total))[:, 0]
