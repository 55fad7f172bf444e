"""Solves ridge regression with images or groups left out in closed form, and finds the temperature that calibrates its scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossroads.heads._principal import PrincipalComponents

TEMPERATURE_ROWS = 20_000
"""Maximum number of images that the temperature is fitted on. More images hardly change it."""

NEWTON_STEPS = 30
BLOCK_SIZE = 1 << 22
"""Maximum number of coordinates of the groups that are solved in one call."""


@dataclass(frozen=True, slots=True, eq=False)
class RidgeProblem:
    """Ridge regression of one-hot targets on principal components.

    Attributes:
        components: The principal components of the training images.
        codes: Integers (n,) in [0, k), the classes of the images.
        groups: Integers (n,) of images that are left out together; None to leave out each image alone.
        targets: Y, float64 (n, k), one-hot rows minus their weighted mean.
        mean: float64 (k,), this weighted mean.
        correlations: Z'WY, (r, k).
    """

    components: PrincipalComponents
    codes: NDArray[np.integer]
    groups: NDArray[np.integer] | None
    targets: NDArray[np.float64]
    mean: NDArray[np.float64]
    correlations: NDArray[np.floating]


def ridge_problem(
    components: PrincipalComponents, codes: NDArray[np.integer], classes: int, groups: NDArray[np.integer] | None
) -> RidgeProblem:
    """Prepares ridge regression of `codes`, integers (n,) in [0, classes)."""
    weights = components.weights
    targets = np.zeros((len(codes), classes))
    targets[np.arange(len(targets)), codes] = 1
    mean = weights @ targets / weights.sum()
    targets -= mean
    correlations = components.coordinates.T @ (weights[:, None] * targets).astype(np.float32)
    return RidgeProblem(components, codes, groups, targets, mean, correlations)


@dataclass(frozen=True, slots=True, eq=False)
class PathPoint:
    """One penalty of a regularisation path.

    Attributes:
        penalty: The penalty per image.
        loss: Cross-entropy in nats of the held-out scores, after they are multiplied by `inverse_temperature`.
        inverse_temperature: The factor that minimises the cross-entropy.
        scores: float64 (n, k), the held-out scores.
    """

    penalty: float
    loss: float
    inverse_temperature: float
    scores: NDArray[np.float64]


def regularization_path(problem: RidgeProblem, penalties: Sequence[float], *, smooth: int = 0) -> Iterator[PathPoint]:
    """Yields the held-out scores and loss of each penalty. `inverse_temperature` explains `smooth`."""
    components = problem.components
    factor = 1.0
    for penalty in penalties:
        scores = problem.mean + held_out_scores(problem, penalty * components.total)
        factor, loss = inverse_temperature(scores, problem.codes, components.weights, start=factor, smooth=smooth)
        yield PathPoint(penalty, loss, factor, scores)


def held_out_scores(problem: RidgeProblem, penalty: float) -> NDArray[np.float64]:
    """Returns the predictions of ridge regression with an intercept for each image, while its group is left out of the fit.

    With the hat matrix H of the fit, residuals e and a group G, the residuals without the group are (I - H_GG)^-1 e_G; for single
    images e_i / (1 - h_ii) (PRESS: Allen, 1974; Golub, Heath and Wahba, 1979, for ridge regression). The means and scales of the
    features stay those of all images.

    Args:
        problem: Its coordinates and targets have a weighted mean of zero.
        penalty: Added to the diagonal of Z'WZ.

    Returns:
        float64 (n, k), relative to the mean of the targets.
    """
    components = problem.components
    diagonal, weights = components.spread + penalty, components.weights
    residuals = problem.targets - components.coordinates @ (problem.correlations / diagonal[:, None]).astype(np.float32)
    # Leaving out an image of weight 0 does not change the fit.
    for members in groups_by_size(np.flatnonzero(weights > 0), problem.groups):
        leave_out(residuals, members, components.coordinates, diagonal, weights, components.total)
    return problem.targets - residuals


def groups_by_size(indices: NDArray[np.integer], groups: NDArray[np.integer] | None) -> list[NDArray[np.integer]]:
    """Returns the row indices of the groups, one array (m, g) for the m groups of g rows each.

    Each row is its own group if `groups` is None or names a single group. For example, groups [7, 5, 7, 9] become [[1], [3]] and
    [[0, 2]].
    """
    if groups is None:
        return [indices[:, None]]
    _, codes, sizes = np.unique(groups[indices], return_inverse=True, return_counts=True)
    if len(sizes) == 1:
        return [indices[:, None]]
    order = indices[np.argsort(codes, kind="stable")]
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
    """Replaces the residuals of the groups in `members`, (m, g), by those of a fit without the group, in place.

    By Woodbury's identity, (I - H_GG)^-1 is I + A (M - A'A)^-1 A', where A are the rows of the group and M the penalised inner
    products. The right-hand side is the smaller problem if the group has more images than coordinates.

    Args:
        residuals: float64 (n, k).
        members: Integers (m, g), row indices.
        coordinates: float32 (n, r).
        diagonal: M, float64 (r,).
        weights: float64 (n,).
        total: The sum of the weights of all images of the fit, which may be more than these n.
    """
    size, width = members.shape[1], len(diagonal)
    step = max(1, BLOCK_SIZE // (width * size))
    for first in range(0, len(members), step):
        block = members[first : first + step]
        root = np.sqrt(weights[block])  # (m, g)
        if size == 1:
            single = block[:, 0]
            hat = weights[single] * (coordinates[single].astype(np.float64) ** 2 @ (1 / diagonal) + 1 / total)  # (m,)
            residuals[single] /= (1 - hat)[:, None]
            continue
        # The intercept is one more direction, without a penalty and with a coordinate of 1 for each image.
        a = np.concatenate([root[..., None] * coordinates[block], root[..., None]], axis=2)  # A, (m, g, r + 1)
        inner = np.append(diagonal, total)
        scaled = root[..., None] * residuals[block]  # (m, g, k)
        if size <= width:
            hat = (a / inner) @ a.transpose(0, 2, 1)  # H_GG, (m, g, g)
            scaled = np.linalg.solve(np.eye(size) - hat, scaled)
        else:
            transposed = a.transpose(0, 2, 1)
            scaled = scaled + a @ np.linalg.solve(np.diag(inner) - transposed @ a, transposed @ scaled)
        residuals[block] = scaled / root[..., None]


def inverse_temperature(
    scores: NDArray[np.float64],
    labels: NDArray[np.integer],
    weights: NDArray[np.float64],
    *,
    start: float = 1.0,
    smooth: int = 0,
) -> tuple[float, float]:
    """Returns the factor t > 0 that minimises the cross-entropy of softmax(t x scores), and that cross-entropy in nats.

    The loss is convex in t. Newton's method finds the zero of its derivative within a bracket.

    If all of a few images are classified correctly, a larger t always seems better, and a mistake on a new image would then cost
    dearly: with ten images of ants and ten of bees the cross-entropy of new images was 11.4 nats. `smooth` prevents that.

    Args:
        scores: (n, k).
        labels: Integers (n,).
        weights: (n,), the weights of the images.
        start: The first value of t.
        smooth: Number of images by which the targets are smoothed; 0 for targets of 0 and 1.
    """
    if len(scores) > TEMPERATURE_ROWS:
        chosen = np.linspace(0, len(scores) - 1, TEMPERATURE_ROWS).astype(np.int64)
        scores, labels, weights = scores[chosen], labels[chosen], weights[chosen]
    relative = weights / weights.sum()
    true = scores[np.arange(len(labels)), labels]
    if smooth:
        true = smoothed(true, scores, smooth)
    low, high, t = 1e-3, 1e4, min(max(start, 1e-2), 1e3)
    for _ in range(NEWTON_STEPS):
        probabilities, _ = _softmax(t * scores)
        mean = (probabilities * scores).sum(axis=1)
        slope = relative @ (mean - true)
        curvature = relative @ ((probabilities * scores**2).sum(axis=1) - mean**2)
        low, high = (t, high) if slope < 0 else (low, t)
        newton = t - slope / curvature if curvature > 0 else -1.0
        following = newton if low < newton < high else float(np.sqrt(low * high))  # bisects on the logarithmic scale
        if abs(following - t) <= 1e-4 * t:
            break
        t = following
    _, log_sum = _softmax(t * scores)
    return t, float(relative @ (log_sum - t * true))


def smoothed(true: NDArray[np.float64], values: NDArray[np.float64], images: int) -> NDArray[np.float64]:
    """Returns values of the true classes, float64 (n,), mixed with those of all classes (n, k) by the weights of smoothed targets.

    With m images the target of the true class is (m + 1) / (m + k), and that of each other class 1 / (m + k), after Platt (1999),
    "Probabilistic outputs for support vector machines".
    """
    mixed: NDArray[np.float64] = (images * true + values.sum(axis=1)) / (images + values.shape[1])
    return mixed


def _softmax(scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the probabilities (n, k) and the logarithm of their denominators (n,)."""
    peak = scores.max(axis=1, keepdims=True)
    exponentials = np.exp(scores - peak)
    total = exponentials.sum(axis=1, keepdims=True)
    return exponentials / total, (peak + np.log(total))[:, 0]
