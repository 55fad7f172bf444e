"""Splits the graph of an artifact at its last feature map: a body from images to the map, and a rest from the map to the scores.

The scores are the inputs of the softmax. For a transformer, the map is made of the tokens of the patches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads.inference import Part, operations, runtime
from crossroads.networks.crossings import crossings
from crossroads.networks.graphs.layouts import Arrangement, arranged, axes_of
from crossroads.networks.graphs.nodes import Node, Nodes, nodes_of

TOLERANCE = 1e-3
"""Largest allowed difference between the scores of the split graph and those of the whole, relative to the largest score."""

_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Convert", "Pad", "Gather", "Slice", "StridedSlice", "Split", "Identity")
"""Operations that only move values."""

_MEANS = ("ReduceMean", "ReduceSum", "AvgPool", "AdaptiveAvgPool")
_SUMS = ("Add", "Subtract", "Concat")
_PRODUCTS = ("MatMul", "Multiply", "Divide", "Convolution", "GroupConvolution", "BatchNormInference")
_ATTENTION = ("MatMul", "Einsum", "ScaledDotProductAttention")


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """A graph in two parts.

    Attributes:
        body: From images, uint8 (n, size, size, 3), to the map and the scores (n, k).
        rest: From the map to the scores, any n.
        layout: The axes of the map: ``NHWC``, ``NCHW`` or ``NTC``.
        prefix: Number of tokens before those of the patches.
        sides: Rows and columns of the map.
        linear: Whether the scores are a linear function of the map, plus a constant.
    """

    body: Part
    rest: Part
    layout: str
    prefix: int
    sides: tuple[int, int]
    linear: bool

    def masked(self, features: NDArray[np.float32], masks: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns a map with only some positions kept, once for each mask. Tokens before those of the patches are always kept.

        Args:
            features: The map of one image, (...).
            masks: (p, rows, columns), 1 for the positions that are kept and 0 for the others.
            others: The values of the other positions, (...).

        Returns:
            (p, ...).
        """
        if self.layout == "NCHW":
            kept = masks[:, None]
        elif self.layout == "NHWC":
            kept = masks[..., None]
        else:
            first = np.ones((len(masks), self.prefix), np.float32)
            kept = np.concatenate([first, masks.reshape(len(masks), -1)], axis=1)[..., None]
        masked: NDArray[np.float32] = np.where(kept > 0, features[None], others[None])
        return masked

    def mean(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the map of one image with every position set to the mean of all, (...)."""
        axes = {"NCHW": (1, 2), "NHWC": (0, 1), "NTC": (0,)}[self.layout]
        return np.broadcast_to(features[self.prefix :].mean(axis=axes, keepdims=True), features.shape)


def split_of(model: Any, size: int, threads: int | None = None) -> Split | None:
    """Returns a graph, split at the last map on whose positions the scores depend; None if it has no such map.

    Args:
        model: An OpenVINO model from uint8 (n, size, size, 3) to probabilities (n, k).
        size: Side of the images in pixels.
        threads: CPU threads to use, None for all.
    """
    single = model.clone()
    single.reshape({single.inputs[0]: [1, size, size, 3]})
    graph = nodes_of(single, single.inputs[0], named=True)
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    # If the scores depend on a class token, the positions count only where a later attention mixes them into it.
    for attended in (False, True):
        for node, how, rest in _candidates(graph):
            if attended and not any(_is_attention(each) for each in rest):
                continue
            split = _divided(model, _position(single, node), node, how, all(map(_is_linear, rest)), threads)
            found = _depends(split, images)
            if found is None:
                return None
            if found.patches and (attended or not found.prefix):
                return split
            break
    return None


def whole(model: Any, threads: int | None = None) -> Part:
    """Returns the graph from images to scores (n, k). The arguments are those of `split_of`."""
    copy = model.clone()
    return Part(runtime().Model([scores_of(copy)], copy.get_parameters(), "scores"), threads=threads)


def scores_of(model: Any) -> Any:
    """Returns the output that holds the scores: the input of the softmax, or else the logarithm of the output."""
    last = model.outputs[0].get_node().input_value(0)
    node = last.get_node()
    if node.get_type_name() == "Softmax":
        return node.input_value(0)
    ops = operations()
    return ops.log(ops.clamp(last, 1e-7, 1.0)).output(0)


def _candidates(graph: Nodes) -> Iterator[tuple[Node, Arrangement, tuple[Node, ...]]]:
    """Yields the maps and token sequences that alone connect what is before and after them, last first, with the nodes after."""
    axes = axes_of(graph, "NHWC")
    end = -1 if graph.nodes and graph.nodes[-1].kind == "Softmax" else None
    for crossing in reversed(list(crossings(graph.steps()))):
        node, key = graph.nodes[crossing.position], crossing.tensor
        how = arranged(axes[key], node.shape)  # type: ignore[index]
        if how is None or how.order is not None or key != node.outputs[0] or node.kind in (*_MOVES, *_MEANS):
            continue
        if math.prod(_sides(node.shape, how)) > 1:
            yield node, how, graph.nodes[crossing.position + 1 : end]


def _sides(shape: tuple[int, ...], how: Arrangement) -> tuple[int, int]:
    """Returns the rows and columns of a map; (0, 0) for a vector and for tokens that form no square."""
    if how.layout == "NCHW":
        return shape[2], shape[3]
    if how.layout == "NHWC":
        return shape[1], shape[2]
    side = math.isqrt(shape[1] - how.prefix) if how.layout == "NTC" else 0
    return (side, side) if how.layout == "NTC" and side * side == shape[1] - how.prefix else (0, 0)


def _is_linear(node: Node) -> bool:
    """Returns whether the output of a node is a linear function of the pixels' part of its inputs, plus a constant."""
    if node.kind in (*_MOVES, *_MEANS, *_SUMS):
        return True
    return node.kind in _PRODUCTS and node.ports == (0,)


def _is_attention(node: Node) -> bool:
    return node.kind in _ATTENTION and len(node.data) > 1


def _position(model: Any, node: Node) -> int:
    """Returns the position of a node among the operations of a model, which is the same in its clones."""
    return next(number for number, each in enumerate(model.get_ordered_ops()) if each.get_name() == node.node.get_name())


def _divided(model: Any, position: int, node: Node, how: Arrangement, linear: bool, threads: int | None) -> Split:
    ops, core = operations(), runtime()
    below = model.clone()
    features = below.get_ordered_ops()[position].output(0)
    given = features if features.get_element_type().get_type_name() == "f32" else ops.convert(features, "f32").output(0)
    body = core.Model([given, scores_of(below)], below.get_parameters(), "body")
    above = model.clone()
    cut = above.get_ordered_ops()[position].output(0)
    source = ops.parameter([-1, *node.shape[1:]], np.float32, name="features")
    same = cut.get_element_type().get_type_name() == "f32"
    start = source.output(0) if same else ops.convert(source, cut.get_element_type().get_type_name()).output(0)
    scores = scores_of(above)
    for target in list(cut.get_target_inputs()):
        target.replace_source_output(start)
    rest = core.Model([scores], [source], "rest")
    parts = Part(body, threads=threads), Part(rest, threads=threads)
    return Split(*parts, how.layout, how.prefix, _sides(node.shape, how), linear)


@dataclass(frozen=True, slots=True)
class _Dependence:
    """Whether the scores depend on the positions of a map, and on the tokens before them."""

    patches: bool
    prefix: bool


def _depends(split: Split, images: NDArray[np.uint8]) -> _Dependence | None:
    """Returns what the scores depend on; None if the two parts do not compose to the whole."""
    features, scores = split.body(images)
    (again,) = split.rest(features)
    allowed = TOLERANCE * max(float(np.abs(scores).max()), 1.0)
    if again.shape != scores.shape or not np.abs(again - scores).max() <= allowed:
        return None
    none = np.zeros((1, *split.sides), np.float32)
    empty = np.concatenate([split.masked(each, none, np.zeros_like(each)) for each in features])
    (without,) = split.rest(empty)
    if not split.prefix:
        return _Dependence(bool((without != again).any()), prefix=False)
    other = features.copy()
    other[:, : split.prefix] = 0
    (alone,) = split.rest(other)
    return _Dependence(bool((without != again).any()), bool((alone != again).any()))
