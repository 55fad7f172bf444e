"""Features standardised and turned to the principal axes of the training images, in bounded memory however many there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import TrainingError

if TYPE_CHECKING:
    from crossroads.features.arrays import Indexable

LIMIT = 4 << 30
"""Bytes that solving may take for the inner products and their axes; where they would be more, the features are refused."""

MEMORY = 1 << 30
"""Bytes that the turned features may take: beyond it they are refused. `many` solves ridge regression without turning them."""

CHUNK = 1 << 25  # Bytes of features that are read at a time, as float64.
BLOCK = 1 << 29  # Bytes of standardised features that are held at a time where images are compared with images.
PRECISE = 2048
"""Features, or images where they are fewer, up to which inner products and axes are in float64. In float32 they take half the
memory, and the axes of 4,300 images 8 s of a processor against 12."""
FEWEST = {"float64": 1e-10, "float32": 1e-6}
"""Share of the largest spread below which a direction is rounding, by the type of the inner products of float32 features."""


@dataclass(frozen=True, slots=True, eq=False)
class Standard:
    """Features as ``(x - mean) * scale``: unit variance, divided by the root of `width`, the number of features that vary.

    Partition so, the squared length of an average image is one whatever d is, and one table of penalties serves every backbone.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    width: int

    def folded(self, kernel: NDArray[np.float64], bias: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Kernel (d, k) and bias (k,) on standardised features as those on features."""
        whole = kernel * self.scale[:, None]
        return whole.astype(np.float32), (bias - self.mean @ whole).astype(np.float32)

    def rows(self, features: Indexable, start: int, stop: int, dtype: Any) -> Iterator[tuple[int, NDArray[np.floating]]]:
        """Pairs of the first row and standardised rows (c, d), of rows `start` to `stop`."""
        for first, part in chunks(features, start, stop):
            rows = part - self.mean  # never in place: they may be the caller's
            rows *= self.scale
            yield first, rows.astype(dtype, copy=False)


@dataclass(frozen=True, slots=True, eq=False)
class PrincipalComponents:
    """Features in the coordinates of their principal axes.

    Attributes:
        coordinates: float32 (n, r), directions of large spread first.
        spread: float64 (r,): weighted sum of squares of each coordinate.
        standard: What was done before turning.
        axes: (d, r), from standardised features to coordinates; None where the images are fewer than the features. Then the axes
            are sums over images, ``X' W Z / spread``, and never stand in memory.
        features: (n, d) as given.
        weights: float64 (n,) of the images.
    """

    coordinates: NDArray[np.float32]
    spread: NDArray[np.float64]
    standard: Standard
    axes: NDArray[np.floating] | None
    features: Indexable
    weights: NDArray[np.float64]

    def folded(self, kernel: NDArray[np.float64], bias: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Kernel (q, k) and bias (k,) on the first q coordinates as kernel (d, k) and bias on features."""
        q = len(kernel)
        if self.axes is not None:
            whole = (self.axes[:, :q] @ kernel.astype(self.axes.dtype)).astype(np.float64)
        else:
            turned_back = self.coordinates[:, :q] @ (kernel / self.spread[:q, None]).astype(np.float32)
            shares = self.weights[:, None] * turned_back
            whole = np.zeros((self.features.shape[1], kernel.shape[1]))
            for start, rows in self.standard.rows(self.features, 0, len(shares), np.float64):
                whole += rows.T @ shares[start : start + len(rows)]
        return self.standard.folded(whole, bias)


def principal_components(features: Indexable, weights: NDArray[np.float64]) -> PrincipalComponents:
    """Standardise features and turn them to the eigenvectors of their inner products, of features or of images (the dual).

    Args:
        features: Float (n, d), read a chunk at a time.
        weights: float64 (n,) of the images.

    Raises:
        TrainingError: A feature is not finite, or the inner products would take more than `LIMIT`, or the turned features more
            than `MEMORY`.
    """
    from scipy.linalg import eigh  # type: ignore[import-untyped]
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    n, d = features.shape
    size = min(n, d)
    dtype = np.dtype(np.float64 if size <= PRECISE else np.float32)
    _require_room(n, d, dtype)
    standard = standard_of(features, weights)
    products = _of_features(features, weights, standard, dtype) if d <= n else _of_images(features, weights, standard, dtype)
    # One thread: on two busy cores 2,600 images took 3.1 s so, against 8.4 s and three times the processor's time with two.
    with threadpool_limits(limits=1):
        spread, vectors = eigh(products, overwrite_a=True, check_finite=False, driver="evd")
    del products
    spread = np.maximum(spread.astype(np.float64), 0)[::-1]
    real = int((spread > FEWEST[dtype.name] * max(spread[0], 1e-30)).sum())
    real = max(real, 1)  # where all images are alike: a direction that says nothing
    spread, vectors = np.maximum(spread[:real], 1e-30), vectors[:, ::-1][:, :real]
    coordinates = np.empty((n, real), np.float32)
    if d > n:
        # An image of no weight stands nowhere, which nothing asks for.
        coordinates[:] = vectors
        coordinates *= np.sqrt(spread).astype(np.float32)
        coordinates *= np.where(weights > 0, 1 / np.sqrt(np.where(weights > 0, weights, 1)), 0).astype(np.float32)[:, None]
        return PrincipalComponents(coordinates, spread, standard, None, features, weights)
    vectors = np.ascontiguousarray(vectors)  # turned around, they would be copied for each product
    for start, rows in standard.rows(features, 0, n, dtype):
        coordinates[start : start + len(rows)] = rows @ vectors
    return PrincipalComponents(coordinates, spread, standard, vectors, features, weights)


def _require_room(n: int, d: int, dtype: np.dtype[Any]) -> None:
    # The inner products, which become the axes, twice as much for LAPACK to work in, and the turned features.
    products, coordinates = 4 * dtype.itemsize * min(n, d) ** 2, 4 * n * min(n, d)
    for need, limit in ((products, LIMIT), (coordinates, MEMORY)):
        if need > limit:
            raise TrainingError(
                f"a head is solved in {limit / 2**30:.3g} GiB, and these features take {need / 2**30:.3g}",
                received=f"{n} x {d} features",
                hint="use --pooling average, or a cut with fewer features",
            )


def chunks(features: Indexable, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Pairs of the first row and float64 (c, d), a bounded number of rows at a time. Raises `TrainingError` where not finite."""
    n, d = features.shape
    step, stop = max(1, CHUNK // (8 * d)), n if stop is None else stop
    for first in range(start, stop, step):
        rows = np.asarray(features[first : min(first + step, stop)], np.float64)
        if not np.isfinite(rows).all():
            raise TrainingError("features must be finite", received=f"NaN or infinity in rows {first} to {first + len(rows) - 1}")
        yield first, rows


def moments(features: Indexable, weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted mean and deviation of each feature, float64 (d,) each, of features (n, d) read a chunk at a time."""
    d, total = features.shape[1], weights.sum()
    # About the first rows' mean: sums of squares about a far origin would lose the spread in rounding.
    origin = next(chunks(features))[1].mean(axis=0)
    sums, squares = np.zeros(d), np.zeros(d)
    for start, part in chunks(features):
        rows = part - origin
        share = weights[start : start + len(rows)]
        sums += share @ rows
        rows *= rows
        squares += share @ rows
    shift = sums / total
    return origin + shift, np.sqrt(np.maximum(squares / total - shift**2, 0))


def standard_of(features: Indexable, weights: NDArray[np.float64]) -> Standard:
    """How features (n, d) are standardised, by their weighted mean and deviation."""
    mean, deviation = moments(features, weights)
    useful = deviation > 1e-7 * max(deviation.max(), 1e-30)
    width = max(1, int(useful.sum()))
    return Standard(mean, np.where(useful, 1 / np.where(useful, deviation, 1), 0) / np.sqrt(width), width)


def _of_features(features: Indexable, weights: NDArray[np.float64], standard: Standard, dtype: Any) -> NDArray[np.floating]:
    """X'WX, (d, d)."""
    n, d = features.shape
    products = np.zeros((d, d), dtype)
    room = np.empty((d, d), dtype)
    for start, rows in standard.rows(features, 0, n, dtype):
        rows *= np.sqrt(weights[start : start + len(rows), None]).astype(dtype)
        products += np.matmul(rows.T, rows, out=room)
    return products


def _of_images(features: Indexable, weights: NDArray[np.float64], standard: Standard, dtype: Any) -> NDArray[np.floating]:
    """W^1/2 XX' W^1/2, (n, n): each block of images with itself and with those after it."""
    n, d = features.shape
    step = max(1, BLOCK // (dtype.itemsize * d))
    products = np.empty((n, n), dtype)
    for first in range(0, n, step):
        block = np.concatenate([rows for _, rows in standard.rows(features, first, min(first + step, n), dtype)])
        products[first : first + len(block), first : first + len(block)] = block @ block.T
        for start, rows in standard.rows(features, first + len(block), n, dtype):
            found = block @ rows.T
            products[first : first + len(block), start : start + len(rows)] = found
            products[start : start + len(rows), first : first + len(block)] = found.T
    root = np.sqrt(weights).astype(dtype)
    products *= root[:, None]
    products *= root
    return products
