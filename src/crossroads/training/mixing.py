"""Mixup (Zhang et al., 2018): each image of a batch and its target become a weighted mean with another of the same batch."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray


class Mix(keras.layers.Layer):  # type: ignore[misc]
    """Float inputs (n, ...), the other image int32 (n, 1) and the share of the image itself float32 (n, 1) in; inputs mixed out.

    Part of the training graph only, never saved.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(dtype="float32", **options)

    def call(self, inputs: tuple[Any, Any, Any]) -> Any:
        """Inputs, others and shares in, mixed inputs out."""
        x, others, shares = inputs
        shares = ops.reshape(shares, (-1, *[1] * (len(x.shape) - 1)))
        return shares * x + (1 - shares) * ops.take(x, ops.reshape(others, (-1,)), axis=0)


def pairs(n: int, concentration: float, generator: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """For `n` images a rank that decides who is mixed with whom, and the share of the image itself from Beta(a, a): (n,) each."""
    return generator.random(n), generator.beta(concentration, concentration, n).astype(np.float32)


def others(ranks: NDArray[np.float64]) -> NDArray[np.int32]:
    """The other image of each in a batch with these ranks: a permutation of the batch, int32 (b,)."""
    return np.argsort(ranks, kind="stable").astype(np.int32)


def mixed_targets(
    targets: NDArray[np.float32], other: NDArray[np.int32], shares: NDArray[np.float32], weights: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """One-hot rows (b, k) mixed, and weights (b,) so that weight x cross-entropy is the mixture of the two weighted losses."""
    own = shares if weights is None else shares * weights
    foreign = 1 - shares if weights is None else (1 - shares) * weights[other]
    total = own + foreign
    safe = np.where(total > 0, total, 1)[:, None]
    mixed = (own[:, None] * targets + foreign[:, None] * targets[other]) / safe
    return mixed.astype(np.float32), None if weights is None else total.astype(np.float32)
