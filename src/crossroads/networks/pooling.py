"""Pooling: turns a feature map into the vector that a head takes."""

from __future__ import annotations

import keras
from keras import layers

from crossroads.errors import BackboneError, did_you_mean, option

GRIDS = (2, 3, 4)
"""Sides of the grids that a map can be pooled to."""

POOLINGS = ("average", *(f"average-{side}" for side in GRIDS))
"""The names that `pool` accepts."""


def pool(x: keras.KerasTensor, pooling: str) -> keras.KerasTensor:
    """Turns features into vectors.

    Args:
        x: Float (None, height, width, channels); or (None, channels), which is returned unchanged.
        pooling: ``average`` over the whole map, or ``average-2`` to ``average-4`` over each region of a 2x2 to 4x4 grid, which
            keeps positions. Region i of k on a side of n positions goes from floor(i n / k) to ceil((i + 1) n / k), so that
            neighbouring regions overlap if n is no multiple of k. A grid larger than the map is the map itself.

    Returns:
        Float (None, d), d = channels times the number of regions, with channels changing fastest and rows of the grid slowest.

    Raises:
        BackboneError: The pooling is unknown, or `x` is neither a map nor a vector.
    """
    if pooling not in POOLINGS:
        raise BackboneError(
            "the pooling is unknown",
            code="unknown-pooling",
            field="pooling",
            received=repr(pooling),
            hint=did_you_mean(pooling, POOLINGS),
        )
    if len(x.shape) == 2:
        return x
    if len(x.shape) != 4 or None in x.shape[1:]:
        raise BackboneError(
            "pooling needs a vector or a map (height, width, channels) of a known size",
            code="shape-not-poolable",
            received=f"features of shape {x.shape[1:]}",
            hint=f"choose another {option('cut')}",
        )
    grid = pooling.removeprefix("average").removeprefix("-")
    if not grid:
        return layers.GlobalAveragePooling2D(name="features")(x)
    sides = tuple(min(int(grid), side) for side in x.shape[1:3])
    if sides == tuple(x.shape[1:3]):
        return layers.Flatten(name="features")(x)
    if 1 in sides:  # Keras (3.15 at least) cannot pool an axis of one position adaptively
        x = layers.Reshape((max(x.shape[1:3]), x.shape[3]), name="line")(x)
        regions = layers.AdaptiveAveragePooling1D(max(sides), name="grid")
    else:
        regions = layers.AdaptiveAveragePooling2D(sides, name="grid")
    return layers.Flatten(name="features")(regions(x))
