"""Finds the meaning of the axes of each tensor (images, rows, columns, channels or tokens), one operation after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crossroads.networks.body import Layout
from crossroads.networks.graphs.nodes import CONVOLUTIONS, TRANSPOSED, Key, Node, Nodes, constant_roots, shape_of

_WINDOWS = (*CONVOLUTIONS, *TRANSPOSED, "MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool")
_RESHAPES = ("Reshape", "Squeeze", "Unsqueeze", "Gather", "StridedSlice", "Slice")
MOST_EXTRA_TOKENS = 16
"""Class and register tokens, at most. Networks of today have 0, 1, 2 or 5."""


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of a tensor.

    Attributes:
        labels: ``N`` images, ``H`` rows, ``W`` columns, ``C`` channels, ``T`` tokens or another sequence, ``?`` unknown.
        grid: Number of tokens that come from positions of a map; 0 if unknown.
    """

    labels: str
    grid: int = 0


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How a tensor becomes the output of a tap.

    Attributes:
        order: The permutation of its axes; None if they stay.
        layout: The axes after that.
        prefix: Number of tokens that are not positions.
    """

    order: tuple[int, ...] | None
    layout: Layout
    prefix: int = 0


def axes_of(graph: Nodes, layout: str) -> dict[Key, Axes]:
    """Returns the axes of every tensor of a graph with static shapes. `layout` is the layout of the input."""
    known = {graph.source: Axes(layout)}
    for node in graph.nodes:
        axes = _passed_on(node, [known[key] for key in node.data])
        known.update(dict.fromkeys(node.outputs, axes))
    return known


def arranged(axes: Axes, shape: Sequence[int]) -> Arrangement | None:
    """Returns how a tensor of one image becomes the output of a tap; None if its axes are unknown."""
    labels = axes.labels if "?" not in axes.labels else _guessed(axes.labels, shape)
    for layout in ("NCHW", "NHWC", "NTC", "NC"):
        if sorted(labels) == sorted(layout):
            break
    else:
        return None
    if sorted(labels) == sorted("NCHW") and labels not in ("NCHW", "NHWC"):
        layout = "NHWC"
    layout = labels if labels in ("NCHW", "NHWC") else layout
    order = None if labels == layout else tuple(labels.index(axis) for axis in layout)
    if shape[labels.index("N")] != 1:
        return None
    return Arrangement(order, layout, _prefix(axes, shape[labels.index("T")]) if layout == "NTC" else 0)  # type: ignore[arg-type]


def _prefix(axes: Axes, tokens: int) -> int:
    """Returns the number of class and register tokens: those beyond the grid, or beyond the largest square."""
    extra = tokens - (axes.grid or math.isqrt(tokens) ** 2)
    return extra if 0 <= extra <= MOST_EXTRA_TOKENS else 0


def _guessed(labels: str, shape: Sequence[int]) -> str:
    """Returns likely axes of a tensor some of whose axes are unknown, by the convention of networks."""
    if len(shape) == 4:
        return "NHWC" if shape[1] == shape[2] != shape[3] else "NCHW" if shape[2] == shape[3] else labels
    return {2: "NC", 3: "NTC"}.get(len(shape), labels)


def _passed_on(node: Node, inputs: list[Axes]) -> Axes:
    shape, first = node.shape, inputs[0]
    if node.kind in _WINDOWS:
        return Axes("NCHW" if len(shape) == 4 else "NCT" if len(shape) == 3 else "?" * len(shape))
    if node.kind == "Transpose":
        order = _constant(node.node, 1)
        turned = first.labels[::-1] if order is None else "".join(first.labels[int(axis)] for axis in order)
        return replace(first, labels=turned)
    if node.kind == "MatMul":
        if (
            len(node.data) == 1
            and len(first.labels) == len(shape)
            and node.node.input_value(0).get_node().get_name() == node.data[0][0]
        ):
            return replace(first, labels=first.labels[:-1] + "C")
        return Axes("?" * len(shape))
    if node.kind in _RESHAPES or node.kind.startswith("Reduce"):
        before = next(shape_of(v) for v in node.node.input_values() if v.get_node().get_name() == node.data[0][0])
        return first if before == shape else reshaped(first, before, shape)
    return _merged(inputs, len(shape))


def _merged(inputs: list[Axes], rank: int) -> Axes:
    """Returns the axes of an elementwise operation or a concatenation. An axis is known if it is known for any input."""
    alike = [axes for axes in inputs if len(axes.labels) == rank]
    labels = "".join(next((axes.labels[i] for axes in alike if axes.labels[i] != "?"), "?") for i in range(rank))
    return Axes(labels, max((axes.grid for axes in inputs), default=0))


def reshaped(axes: Axes, before: Sequence[int], after: Sequence[int]) -> Axes:
    """Returns the axes after a reshape, a slice or a reduction, from the shapes of one image."""
    if math.prod(before) != math.prod(after):
        return _reduced(axes, before, after)
    labels, grid, i, j = "", axes.grid, 0, 0
    while i < len(before) or j < len(after):
        ends = _group(before, after, i, j)
        olds, news = axes.labels[i : ends[0]], after[j : ends[1]]
        labels += _relabelled(olds, before[i : ends[0]], news)
        if len(news) == 1 and sorted(olds.replace("?", "")) == ["H", "W"]:
            grid = news[0]
        i, j = ends
    return Axes(labels, grid)


def _group(before: Sequence[int], after: Sequence[int], i: int, j: int) -> tuple[int, int]:
    """Returns the ends of the shortest runs of axes, from `i` and `j` on, that have the same total size."""
    if i < len(before) and j < len(after) and before[i] == after[j]:
        return i + 1, j + 1
    left, right, a, b = 1, 1, i, j
    while a < len(before) or b < len(after):
        if (left <= right and a < len(before)) or b >= len(after):
            left, a = left * before[a], a + 1
        else:
            right, b = right * after[b], b + 1
        if left == right and (a > i or b > j) and not (left == 1 and a < len(before) and b < len(after)):
            break
    return a, b


def _relabelled(olds: str, sizes: Sequence[int], news: Sequence[int]) -> str:
    if not news:
        return ""
    large = "".join(label for label, size in zip(olds, sizes, strict=True) if size > 1) or olds
    if len(news) == 1:
        if len(large) == 1:
            return large
        return "T" if sorted(large) == ["H", "W"] else "C" if "C" in large else "?"
    if large == "T" and len(news) == 2:
        return "HW"
    places = [number for number, size in enumerate(news) if size > 1]
    if len(large) == 1 and len(places) == 1:
        return "".join(large if number in places else "?" for number in range(len(news)))
    return "?" * len(news)


def _reduced(axes: Axes, before: Sequence[int], after: Sequence[int]) -> Axes:
    if len(before) == len(after):
        return axes
    lost = len(before) - len(after)
    if lost == 2 and len(before) == 4 and "H" in axes.labels:
        return replace(axes, labels=axes.labels.replace("H", "").replace("W", ""))
    fits = [i for i in range(len(before)) if lost == 1 and tuple(before[:i]) + tuple(before[i + 1 :]) == tuple(after)]
    if not fits:
        return Axes("?" * len(after))
    chosen = next((i for i in fits if axes.labels[i] == "T"), fits[0])
    return replace(axes, labels=axes.labels[:chosen] + axes.labels[chosen + 1 :])


def _constant(node: Any, number: int) -> Any:
    """Returns the value of an input that is a constant; None otherwise."""
    if number >= node.get_input_size():
        return None
    source = node.input_value(number).get_node()
    roots = constant_roots(node.input_value(number))
    return np.array(source.data) if source.get_type_name() == "Constant" and len(roots) == 1 else None
