"""Multinomial logistic regression on principal coordinates, by L-BFGS on weights that are scaled by a bound of the curvature.

scikit-learn's does not scale the directions, keeps to one thread, and lets probabilities underflow: once a weak penalty has made
most images sure, the products of its gradient meet numbers that a processor handles ten times more slowly than others. Of 27,629
signs with 512 features a step took 0.05 s at first and 0.5 s later, and the head ten minutes; now it takes 26 s.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from crossroads._runtime.machine import usable_processors

STEPS, FLAT = 1000, 1e-5
"""Of L-BFGS: most steps a penalty, and the largest slope at which it stops, of the mean loss by the scaled weights. Ten times that
stops MobileNet's features of 4,300 signs at an accuracy of 0.707 where it goes on to 0.711."""

CURVATURE = 0.5
"""Bound of the loss's curvature along a direction, for a spread of one an image (Böhning, 1992), by which weights are scaled. Over
two penalties of 4,300 signs 0.5, 0.1 and 0.02 look at SqueezeNet's features 241, 321 and 510 times, and at MobileNet's 175, 212 and
266, to the same loss. A direction of less spread than the average counts as one of that: scaled alike it takes up to twice
the steps of a weak penalty, to the same minimum too."""

FLOOR = -30.0
"""Least score below the highest: what is less likely than 1e-13 counts as that, in the slope, and no number is subnormal."""

BLOCK = 2048
"""Images at a time, whatever the number of threads, so that sums come out alike on every machine."""


def logistic(
    coordinates: NDArray[np.float32],
    codes: NDArray[np.integer],
    weights: NDArray[np.float64],
    spread: NDArray[np.float64],
    penalty: float,
    start: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Kernel (r, k) and bias (k,) of the least weighted mean of cross-entropies, plus half the penalty times the kernel's squares.

    Two classes are told apart by one score, on which the penalty is, as usual; their two columns share it.

    Args:
        coordinates: float32 (n, r).
        codes: Integers (n,) in [0, k).
        weights: float64 (n,) of the images.
        spread: float64 (r,): weighted sums of squares of the coordinates.
        penalty: Per image.
        start: Kernel (q, k) of the first q <= r coordinates, and bias (k,).
    """
    from scipy.optimize import minimize  # type: ignore[import-untyped]
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    kernel, bias = start
    (n, r), k, total = coordinates.shape, len(bias), float(weights.sum())
    held = penalty * (2 if k == 2 else 1)
    curved = CURVATURE * np.append(np.maximum(spread, spread.mean()) / total, 1.0) + np.append(np.full(r, held), 0.0)
    scale = 1 / np.sqrt(curved)[:, None]
    held_scaled = held * scale[:-1] ** 2

    def of_block(first: int, inner: NDArray[np.float32], outer: NDArray[np.float32]) -> tuple[float, NDArray[np.float32]]:
        some = slice(first, first + BLOCK)
        return loss_and_slope(coordinates[some], codes[some], weights[some], inner, outer)

    def of_all(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        values = flat.reshape(r + 1, k)
        here = (values * scale).astype(np.float32)
        loss, slope = 0.0, np.zeros((r + 1, k))
        for part, by in in_order(partial(of_block, inner=here[:-1], outer=here[-1]), firsts):
            loss += part
            slope += by
        slope *= scale / total
        slope[:-1] += held_scaled * values[:-1]
        return loss / total + 0.5 * float((held_scaled * values[:-1] ** 2).sum()), slope.ravel()

    begin = np.zeros((r + 1, k))
    begin[: len(kernel)], begin[-1] = kernel, bias
    options = {"maxiter": STEPS, "gtol": FLAT, "ftol": 64 * np.finfo(np.float64).eps, "maxls": 50}
    firsts = range(0, n, BLOCK)
    # NumPy's and SciPy's own threads are off: they bring a pool each, which wait for each other at every step. Measured on 4,320
    # images of 1,024 features and 36 classes, two busy cores: 0.6 s a penalty against 6 s.
    with threadpool_limits(limits=1), ThreadPoolExecutor(usable_processors(len(firsts)), "crossroads-head") as pool:
        in_order = map if len(firsts) == 1 else pool.map
        found = minimize(of_all, (begin / scale).ravel(), jac=True, method="L-BFGS-B", options=options)
    best = found.x.reshape(r + 1, k) * scale  # also where rounding ends the search before the slope is flat: it is the least seen
    return best[:-1], best[-1]


def loss_and_slope(
    rows: NDArray[np.float32],
    codes: NDArray[np.integer],
    weights: NDArray[np.float64],
    kernel: NDArray[np.float32],
    bias: NDArray[np.float32],
) -> tuple[float, NDArray[np.float32]]:
    """Weighted sum of cross-entropies in nats, and its slope float32 (r + 1, k) by kernel and bias.

    Of images that are sure what the other classes are left is summed, not 1 less what the right one has, which rounding takes.
    """
    places = np.arange(len(rows))
    scores = rows @ kernel
    scores += bias
    scores -= scores.max(axis=1, keepdims=True)
    right = scores[places, codes].astype(np.float64)
    np.exp(np.maximum(scores, FLOOR, out=scores), out=scores)
    scores[places, codes] = 0
    others = scores.sum(axis=1, dtype=np.float64)
    loss = float(weights @ (np.logaddexp(right, np.log(others)) - right))
    share = weights / (others + np.exp(right))
    scores *= share.astype(np.float32)[:, None]
    scores[places, codes] = -share * others
    return loss, np.concatenate([rows.T @ scores, scores.sum(axis=0, keepdims=True)])
