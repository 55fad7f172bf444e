"""Pools a feature map, or a sequence of tokens, into the vector that a head takes."""

from __future__ import annotations

import keras
from keras import layers

from crossroads.errors import BackboneError, option
from crossroads.networks.body import require_pooling, square_side


def pool(x: keras.KerasTensor, pooling: str, prefix: int = 0) -> keras.KerasTensor:
    """Turns features into vectors, as `Body.until` does in a graph.

    Args:
        x: Float (None, height, width, channels); (None, tokens, channels); or (None, channels), which is returned unchanged.
        pooling: ``average`` over the whole map, or ``average-2`` to ``average-4`` over each region of a 2x2 to 4x4 grid, which
            keeps positions. Region i of k on a side of n positions goes from floor(i n / k) to ceil((i + 1) n / k), so that
            neighbouring regions overlap if n is not a multiple of k. A grid larger than the map has the size of the map. Tokens of
            image patches are averaged as the map that they form. ``class-token`` and ``class-and-average`` need a class token.
        prefix: Number of tokens before those of the patches: a class token, then register tokens.

    Returns:
        Float (None, d), d = channels times the number of regions, with channels changing fastest and rows of the grid slowest.

    Raises:
        BackboneError: The pooling is unknown, or does not fit `x`.
    """
    require_pooling(pooling, prefix if len(x.shape) == 3 else 0, f"features of shape {x.shape[1:]}")
    if len(x.shape) == 2:
        return x
    if len(x.shape) not in (3, 4) or None in x.shape[1:]:
        raise BackboneError(
            "pooling needs a vector, tokens, or a map (height, width, channels) of a known size",
            code="shape-not-poolable",
            received=f"features of shape {x.shape[1:]}",
            hint=f"choose another {option('cut')}",
        )
    return _pooled_tokens(x, pooling, prefix) if len(x.shape) == 3 else _pooled_map(x, pooling)


def _pooled_tokens(x: keras.KerasTensor, pooling: str, prefix: int) -> keras.KerasTensor:
    tokens, channels = x.shape[1:]
    patches = layers.Cropping1D((prefix, 0), name="patches")(x) if prefix else x
    if pooling.startswith("average-"):
        side = square_side(tokens - prefix, pooling)
        return _pooled_map(layers.Reshape((side, side, channels), name="map")(patches), pooling)
    average = layers.GlobalAveragePooling1D(name="features" if pooling == "average" else "average")
    if pooling == "average":
        return average(patches)
    first = layers.Cropping1D((0, tokens - 1), name="class_token")(x)
    token = layers.Flatten(name="features" if pooling == "class-token" else "token")(first)
    return token if pooling == "class-token" else layers.Concatenate(name="features")([token, average(patches)])


def _pooled_map(x: keras.KerasTensor, pooling: str) -> keras.KerasTensor:
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
