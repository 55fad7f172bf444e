"""Multinomial logistic regression on principal coordinates, by L-BFGS on weights that curvature has made alike.

scikit-learn's does not scale the directions, keeps to one thread, and lets probabilities underflow: once a weak penalty has made
most images sure, the products of its gradient meet numbers that a processor handles ten times more slowly than others. Of 27,629
signs with 512 features a step took 0.05 s at first and 0.5 s later, and the head ten minutes; now it takes 34 s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from crossroads._platform import usable_processors

STEPS, FLAT = 1000, 1e-5
"""Of L-BFGS: most steps a penalty, and the largest slope at which it stops, for directions of about unit curvature. Ten times that
stopped it on GTSRB at an accuracy of 0.864 where it goes on to 0.877."""

CURVATURE = 0.1
"""Curvature of the loss along a direction, for a spread of one an image. One half bounds it (Böhning, 1992), where all classes are
as likely; where images are told for the most part it is less. On 4,300 signs 0.5, 0.1 and 0.02 take 139, 97 and 92 steps with
MobileNet's features and 158, 143 and 134 with SqueezeNet's, and 150, 119 and 131 or 165, 167 and 202 looks at the images. A
direction of less spread than the average counts as one of that: scaled like the others it takes up to twice the steps of a weak
penalty, to the same minimum."""

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

    kernel, bias = start
    (n, r), k, total = coordinates.shape, len(bias), float(weights.sum())
    held = penalty * (2 if k == 2 else 1)
    curved = CURVATURE * np.append(np.maximum(spread, spread.mean()) / total, 1.0) + np.append(np.full(r, held), 0.0)
    scale = 1 / np.sqrt(curved)[:, None]
    held_scaled = held * scale[:-1] ** 2
    share = weights.astype(np.float32)

    def of_block(first: int, inner: NDArray[np.float32], outer: NDArray[np.float32]) -> tuple[float, NDArray[np.float32]]:
        """Loss of a block, and its slope by kernel and bias, (r + 1, k)."""
        some = slice(first, first + BLOCK)
        rows, truth = coordinates[some], codes[some]
        places = np.arange(len(rows))
        scores = rows @ inner
        scores += outer
        scores -= scores.max(axis=1, keepdims=True)
        right = scores[places, truth]
        np.exp(np.maximum(scores, FLOOR, out=scores), out=scores)
        sums = scores.sum(axis=1, keepdims=True)
        loss = float(weights[some] @ (np.log(sums[:, 0].astype(np.float64)) - right))
        scores /= sums
        scores[places, truth] -= 1
        scores *= share[some, None]
        return loss, np.concatenate([rows.T @ scores, scores.sum(axis=0, keepdims=True)])

    def of_all(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        values = flat.reshape(r + 1, k)
        here = (values * scale).astype(np.float32)
        loss, slope = 0.0, np.zeros((r + 1, k))
        for part, by in blocks(lambda first: of_block(first, here[:-1], here[-1])):
            loss += part
            slope += by
        slope *= scale / total
        slope[:-1] += held_scaled * values[:-1]
        return loss / total + 0.5 * float((held_scaled * values[:-1] ** 2).sum()), slope.ravel()

    first = np.zeros((r + 1, k))
    first[: len(kernel)], first[-1] = kernel, bias
    options = {"maxiter": STEPS, "gtol": FLAT, "ftol": 64 * np.finfo(np.float64).eps, "maxls": 50}
    with _in_threads(n) as blocks:
        found = minimize(of_all, (first / scale).ravel(), jac=True, method="L-BFGS-B", options=options)
    best = found.x.reshape(r + 1, k) * scale
    return best[:-1], best[-1]


_Sums = tuple[float, NDArray[np.float32]]


@contextmanager
def _in_threads(n: int) -> Iterator[Callable[[Callable[[int], _Sums]], Iterator[_Sums]]]:
    """A function that gives what another makes of each block of `n` images, in order, several at a time where there are several.

    NumPy's and SciPy's own threads are off: they bring a pool each, which wait for each other at every step. Measured on 4,320
    images of 1,024 features and 36 classes, two busy cores: 0.6 s a penalty against 6 s.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    firsts = range(0, n, BLOCK)
    with threadpool_limits(limits=1), ThreadPoolExecutor(usable_processors(len(firsts)), "crossroads-head") as pool:
        yield lambda work: map(work, firsts) if len(firsts) == 1 else pool.map(work, firsts)
