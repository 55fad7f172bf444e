"""Mixup (Zhang et al., 2018): each image of a batch and its target are averaged with another image of the batch."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray


class Mix(keras.layers.Layer):  # type: ignore[misc]
    """Mixes float inputs (n, ...) with their partners, int32 (n, 1), by fractions float32 (n, 1). It is never saved."""

    def __init__(self, **options: Any) -> None:
        super().__init__(dtype="float32", **options)

    def call(self, inputs: tuple[Any, Any, Any]) -> Any:
        """Returns the mixed inputs."""
        x, others, fractions = inputs
        fractions = ops.reshape(fractions, (-1, *[1] * (len(x.shape) - 1)))
        return fractions * x + (1 - fractions) * ops.take(x, ops.reshape(others, (-1,)), axis=0)


def pairs(n: int, concentration: float, generator: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Draws for `n` images a rank that decides the partner, and the fraction of the image itself from Beta(a, a): (n,) each."""
    return generator.random(n), generator.beta(concentration, concentration, n).astype(np.float32)


def others(ranks: NDArray[np.float64]) -> NDArray[np.int32]:
    """Returns the partner of each image of a batch with these ranks: a permutation of the batch, int32 (b,)."""
    return np.argsort(ranks, kind="stable").astype(np.int32)


def mixed_targets(
    targets: NDArray[np.float32], other: NDArray[np.int32], fractions: NDArray[np.float32], weights: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Mixes one-hot targets (b, k) and weights (b,), so that weight x cross-entropy is the mixture of the two weighted losses."""
    own = fractions if weights is None else fractions * weights
    foreign = 1 - fractions if weights is None else (1 - fractions) * weights[other]
    total = own + foreign
    safe = np.where(total > 0, total, 1)[:, None]
    mixed = (own[:, None] * targets + foreign[:, None] * targets[other]) / safe
    return mixed.astype(np.float32), None if weights is None else total.astype(np.float32)
