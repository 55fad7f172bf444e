"""Solves multinomial logistic regression on principal components, by L-BFGS on weights scaled by a bound of the curvature.

scikit-learn's solver does not scale the directions, uses one thread, and lets probabilities underflow: with a weak penalty most
probabilities become subnormal numbers, which a processor multiplies ten times more slowly. On 27,629 signs with 512 features a step
of scikit-learn took 0.05 s at first and 0.5 s later, and the head took ten minutes. This solver takes 26 s.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads._runtime.machine import usable_processors

MAX_STEPS, GRADIENT_TOLERANCE = 1000, 1e-5
"""L-BFGS stops after `MAX_STEPS` steps per penalty, or once no component of the gradient exceeds `GRADIENT_TOLERANCE`. The gradient
is that of the mean loss with respect to the scaled weights. With ten times the tolerance, MobileNet's features of 4,300 signs had
an accuracy of 0.707 instead of 0.711."""

CURVATURE = 0.5
"""Upper bound of the curvature of the loss along a direction with unit spread per image (Böhning, 1992). Weights are scaled by it.

On 4,300 signs with two penalties, the values 0.5, 0.1 and 0.02 needed 241, 321 and 510 evaluations of the loss on SqueezeNet's
features, and 175, 212 and 266 on MobileNet's, to reach the same loss. Directions whose spread is below the average are scaled by
the average. When they were scaled by their own spread, a weak penalty needed up to twice as many steps to reach the same minimum.
"""

MIN_SCORE = -30.0
"""Lowest score relative to the highest. In the gradient, probabilities below 1e-13 count as 1e-13, so no number is subnormal."""

BLOCK_SIZE = 2048
"""Images per block. It does not depend on the number of threads, so the sums are the same on every machine."""


def logistic(
    coordinates: NDArray[np.float32],
    codes: NDArray[np.integer],
    weights: NDArray[np.float64],
    spread: NDArray[np.float64],
    penalty: float,
    start: tuple[NDArray[np.float64], NDArray[np.float64]],
    tolerance: float = GRADIENT_TOLERANCE,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the kernel (r, k) and bias (k,) that minimise the mean cross-entropy plus penalty / 2 times the squared kernel.

    Two classes are separated by one score, as in binary logistic regression. It is then split between their two columns.

    Args:
        coordinates: float32 (n, r).
        codes: Integers (n,) in [0, k).
        weights: float64 (n,), the weights of the images.
        spread: float64 (r,), the weighted sums of squares of the coordinates.
        penalty: Per image.
        start: Kernel (q, k) for the first q <= r coordinates, and bias (k,).
        tolerance: The search ends once no component of the gradient exceeds it.
    """
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    kernel, bias = start
    (n, r), k, total = coordinates.shape, len(bias), float(weights.sum())
    ridge = penalty * (2 if k == 2 else 1)
    curvature = CURVATURE * np.append(np.maximum(spread, spread.mean()) / total, 1.0) + np.append(np.full(r, ridge), 0.0)
    scale = 1 / np.sqrt(curvature)[:, None]  # (r + 1, 1)
    scaled_ridge = ridge * scale[:-1] ** 2
    firsts = range(0, n, BLOCK_SIZE)

    def block_loss(first: int, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> tuple[float, NDArray[np.float32]]:
        block = slice(first, first + BLOCK_SIZE)
        return loss_and_gradient(coordinates[block], codes[block], weights[block], kernel, bias)

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        values = flat.reshape(r + 1, k)
        unscaled = (values * scale).astype(np.float32)
        loss, gradient = 0.0, np.zeros((r + 1, k))
        for one_loss, one_gradient in in_order(partial(block_loss, kernel=unscaled[:-1], bias=unscaled[-1]), firsts):
            loss += one_loss
            gradient += one_gradient
        gradient *= scale / total
        gradient[:-1] += scaled_ridge * values[:-1]
        return loss / total + 0.5 * float((scaled_ridge * values[:-1] ** 2).sum()), gradient.ravel()

    begin = np.zeros((r + 1, k))
    begin[: len(kernel)], begin[-1] = kernel, bias
    options = {"maxiter": MAX_STEPS, "gtol": tolerance, "ftol": 64 * np.finfo(np.float64).eps, "maxls": 50}
    # The thread pools of NumPy and SciPy are limited to one thread each, since they would wait for each other at every step. On
    # 4,320 images with 1,024 features and 36 classes, two busy cores take 0.6 s per penalty instead of 6 s.
    with _thread_pools().limit(limits=1), ThreadPoolExecutor(usable_processors(len(firsts)), "crossroads-head") as pool:
        in_order = map if len(firsts) == 1 else pool.map
        result = minimize(objective, (begin / scale).ravel(), jac=True, method="L-BFGS-B", options=options)
    best = result.x.reshape(r + 1, k) * scale  # the lowest seen, even if rounding ended the search before the tolerance was met
    return best[:-1], best[-1]


@cache
def _thread_pools() -> Any:
    """Returns the thread pools of the loaded libraries. Finding them takes 5 ms, as long as a fit to 70 images."""
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


def loss_and_gradient(
    coordinates: NDArray[np.float32],
    codes: NDArray[np.integer],
    weights: NDArray[np.float64],
    kernel: NDArray[np.float32],
    bias: NDArray[np.float32],
) -> tuple[float, NDArray[np.float32]]:
    """Returns the weighted sum of the cross-entropies in nats, and its gradient float32 (r + 1, k) by kernel and bias.

    The gradient by the score of the true class is p - 1. It is computed as minus the sum of the other probabilities, since 1 - p
    would be lost to rounding for a confident image.
    """
    indices = np.arange(len(coordinates))
    scores = coordinates @ kernel  # (n, k)
    scores += bias
    scores -= scores.max(axis=1, keepdims=True)
    true = scores[indices, codes].astype(np.float64)
    np.exp(np.maximum(scores, MIN_SCORE, out=scores), out=scores)
    scores[indices, codes] = 0
    others = scores.sum(axis=1, dtype=np.float64)  # (n,)
    loss = float(weights @ (np.logaddexp(true, np.log(others)) - true))
    factor = weights / (others + np.exp(true))
    scores *= factor.astype(np.float32)[:, None]
    scores[indices, codes] = -factor * others
    return loss, np.concatenate([coordinates.T @ scores, scores.sum(axis=0, keepdims=True)])
