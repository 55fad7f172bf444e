"""Compares what an inference graph computes with what Keras computes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads._runtime.machine import full_float32

FEW = 4
"""Number of images that Keras processes at a time. It holds the outputs of all layers for all of them: 76 MB for an image of 224 px
in EfficientNet-Lite0."""

ROUNDING = 6e-8
"""Relative rounding error of a weight."""

ALLOWANCE = 100
"""Largest allowed multiple of the difference that rounding errors of the weights make in Keras."""


def computed(model: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns what Keras computes in float32, (n, ...)."""
    import keras

    with full_float32():
        parts = [model(images[start : start + FEW], training=False) for start in range(0, len(images), FEW)]
        return np.concatenate([keras.ops.convert_to_numpy(part) for part in parts]).astype(np.float32)


def rounded_otherwise(model: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns what Keras computes after each weight is changed by a rounding error, float32 (n, ...). Restores the weights."""
    weights, rng = model.get_weights(), np.random.default_rng(0)
    try:
        model.set_weights([(w * (1 + ROUNDING * rng.standard_normal(w.shape))).astype(w.dtype) for w in weights])
        return computed(model, images)
    finally:
        model.set_weights(weights)


def difference(values: NDArray[np.float32], model: Any, images: NDArray[np.uint8], tolerance: float) -> float | None:
    """Returns the difference between `values` and what a Keras model computes, relative to the largest value.

    Returns:
        None if it is within the tolerance, or explained by rounding. With random weights, signals may grow from layer to layer
        until rounding errors dominate; `rounded_otherwise` measures that.
    """
    expected = computed(model, images)
    apart = relative_difference(values.reshape(expected.shape), expected)
    if apart <= tolerance or apart <= ALLOWANCE * relative_difference(rounded_otherwise(model, images), expected):
        return None
    return apart


def relative_difference(values: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Returns the largest difference as a fraction of the largest value; infinite if only one of two values is finite."""
    if not np.array_equal(np.isfinite(values), np.isfinite(expected)):
        return float("inf")
    numbers = np.isfinite(expected)
    largest = np.abs(expected[numbers]).max(initial=0)
    return float(np.abs(values - expected)[numbers].max(initial=0) / max(largest, 1e-30))
