"""Computes principal components of standardised features, in bounded memory for any number of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import TrainingError, option
from crossroads.features.arrays import Indexable
from crossroads.heads.standardize import Standardizer, standardizer

PRODUCTS_LIMIT = 4 << 30
"""Bytes that the inner products and the axes may take. Features that need more are refused."""

COORDINATES_LIMIT = 1 << 30
"""Bytes that the coordinates may take. Features that need more are refused here; `large_ridge` solves them without coordinates."""

BLOCK_BYTES = 1 << 29
"""Bytes of standardised features that are held at a time while the inner products of images are computed."""

FLOAT64_SIZE = 2048
"""Up to this number of rows, the matrix of inner products and its axes are float64. Larger ones are float32, which halves the
memory: the axes of 4,300 images take 8 s of CPU time instead of 12 s."""

MIN_SPREAD = {"float64": 1e-10, "float32": 1e-6}
"""A direction whose spread is below this fraction of the largest one is rounding error. Depends on the dtype of the products."""


@dataclass(frozen=True, slots=True, eq=False)
class PrincipalComponents:
    """Features in the coordinates of their principal axes.

    Attributes:
        coordinates: Z, float32 (n, r), in descending order of spread.
        spread: float64 (r,), the weighted sum of squares of each coordinate.
        standardizer: Standardises the features before they are projected on the axes.
        axes: (d, r), from standardised features to coordinates; None if there are fewer images than features. The axes are then
            ``X' W Z / spread`` and are not stored.
        features: (n, d), as given.
        weights: W, float64 (n,), the weights of the images.
    """

    coordinates: NDArray[np.float32]
    spread: NDArray[np.float64]
    standardizer: Standardizer
    axes: NDArray[np.floating] | None
    features: Indexable
    weights: NDArray[np.float64]

    @property
    def total(self) -> float:
        """The sum of the weights."""
        return float(self.weights.sum())

    def fold(self, kernel: NDArray[np.float64], bias: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Converts kernel (q, k) for the first q coordinates and bias (k,) into kernel (d, k) and bias for the features."""
        q = len(kernel)
        if self.axes is not None:
            rotated = (self.axes[:, :q] @ kernel.astype(self.axes.dtype)).astype(np.float64)  # (d, k)
        else:
            dual = self.weights[:, None] * (self.coordinates[:, :q] @ (kernel / self.spread[:q, None]).astype(np.float32))  # (n, k)
            rotated = np.zeros((self.features.shape[1], kernel.shape[1]))
            for start, chunk in self.standardizer.chunks(self.features, 0, len(dual), np.float64):
                rotated += chunk.T @ dual[start : start + len(chunk)]
        return self.standardizer.fold(rotated, bias)


def principal_components(features: Indexable, weights: NDArray[np.float64], *, floor: float = 0.0) -> PrincipalComponents:
    """Standardises features and projects them on the eigenvectors of their inner products.

    These are the inner products of the features, X'WX (d, d). If there are fewer images than features, they are those of the
    images, W^1/2 XX' W^1/2 (n, n) (the dual).

    Args:
        features: Float (n, d), read a chunk at a time.
        weights: float64 (n,), the weights of the images.
        floor: The least deviation that a feature is divided by, as `standardizer` takes it.

    Raises:
        TrainingError: A feature is not finite, or the inner products or coordinates exceed the memory limits.
    """
    from scipy.linalg import eigh  # type: ignore[import-untyped]
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    n, d = features.shape
    size = min(n, d)
    dtype = np.dtype(np.float64 if size <= FLOAT64_SIZE else np.float32)
    _require_memory(n, d, dtype)
    standard = standardizer(features, weights, floor=floor)
    products = (_feature_products if d <= n else _image_products)(features, weights, standard, dtype)
    # On two busy cores, one thread took 3.1 s for the axes of 2,600 images. Two took 8.4 s and three times the CPU time.
    with threadpool_limits(limits=1):
        spread, vectors = eigh(products, overwrite_a=True, check_finite=False, driver="evd")
    del products
    spread = np.maximum(spread.astype(np.float64), 0)[::-1]
    rank = int((spread > MIN_SPREAD[dtype.name] * max(spread[0], 1e-30)).sum())
    rank = max(rank, 1)  # if all images are equal, one direction without information remains
    spread, vectors = np.maximum(spread[:rank], 1e-30), vectors[:, ::-1][:, :rank]
    coordinates = np.empty((n, rank), np.float32)
    if d > n:
        # An image of weight 0 gets coordinates of 0, which are never read.
        coordinates[:] = vectors
        coordinates *= np.sqrt(spread).astype(np.float32)
        coordinates *= np.where(weights > 0, 1 / np.sqrt(np.where(weights > 0, weights, 1)), 0).astype(np.float32)[:, None]
        return PrincipalComponents(coordinates, spread, standard, None, features, weights)
    vectors = np.ascontiguousarray(vectors)  # the reversed view would be copied for each product
    for start, chunk in standard.chunks(features, 0, n, dtype):
        coordinates[start : start + len(chunk)] = chunk @ vectors
    return PrincipalComponents(coordinates, spread, standard, vectors, features, weights)


def _require_memory(n: int, d: int, dtype: np.dtype[Any]) -> None:
    """Raises `TrainingError` if n images with d features exceed a memory limit."""
    # First the inner products, which become the axes, with twice their size as LAPACK's workspace; then the coordinates.
    products, coordinates = 4 * dtype.itemsize * min(n, d) ** 2, 4 * n * min(n, d)
    for needed, limit in ((products, PRODUCTS_LIMIT), (coordinates, COORDINATES_LIMIT)):
        if needed > limit:
            raise TrainingError(
                f"solving a head may take {limit / 2**30:.3g} GiB, and these features need {needed / 2**30:.3g} GiB",
                code="head-exceeds-memory",
                received=f"{n} x {d} features",
                hint=f"set {option('pooling')} to average, or choose a {option('cut')} with fewer features",
            )


def _feature_products(
    features: Indexable, weights: NDArray[np.float64], standard: Standardizer, dtype: Any
) -> NDArray[np.floating]:
    """Returns X'WX, (d, d)."""
    n, d = features.shape
    products, buffer = np.zeros((d, d), dtype), np.empty((d, d), dtype)
    for start, chunk in standard.chunks(features, 0, n, dtype):
        chunk *= np.sqrt(weights[start : start + len(chunk), None]).astype(dtype)
        products += np.matmul(chunk.T, chunk, out=buffer)
    return products


def _image_products(features: Indexable, weights: NDArray[np.float64], standard: Standardizer, dtype: Any) -> NDArray[np.floating]:
    """Returns W^1/2 XX' W^1/2, (n, n). Multiplies each block of images with itself and with the blocks after it."""
    n, d = features.shape
    step = max(1, BLOCK_BYTES // (dtype.itemsize * d))
    products = np.empty((n, n), dtype)
    for first in range(0, n, step):
        block = np.concatenate([chunk for _, chunk in standard.chunks(features, first, min(first + step, n), dtype)])  # (b, d)
        stop = first + len(block)
        products[first:stop, first:stop] = block @ block.T
        for start, chunk in standard.chunks(features, stop, n, dtype):
            product = block @ chunk.T  # (b, c)
            products[first:stop, start : start + len(chunk)] = product
            products[start : start + len(chunk), first:stop] = product.T
    root = np.sqrt(weights).astype(dtype)
    products *= root[:, None]
    products *= root
    return products
