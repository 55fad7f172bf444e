"""Represents the operations of an OpenVINO graph as steps, among which cuts are found."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from crossroads.networks.crossings import Cost, Step, Steps, snake_case

Key = tuple[str, int]
"""A tensor: the unique name of its node within the process, and the number of the output."""

CONVOLUTIONS = ("Convolution", "GroupConvolution")
TRANSPOSED = ("ConvolutionBackpropData", "GroupConvolutionBackpropData")
SOFTMAXES = ("Softmax", "LogSoftmax", "Sigmoid", "TopK")
_WITH_WEIGHTS = (
    *CONVOLUTIONS,
    *TRANSPOSED,
    "MatMul",
    "Einsum",
    "Add",
    "Subtract",
    "Multiply",
    "Divide",
    "PRelu",
    "BatchNormInference",
    "Concat",
    "GroupNormalization",
)
_PASSIVE = ("Reshape", "Squeeze", "Unsqueeze", "Pad", "Transpose", "Gather", "StridedSlice", "Slice", "Identity", "Split")
_FOLLOWING = ("FakeQuantize", "Convert")
"""These are passive after a passive step, and part of the run otherwise."""
_POOLS = ("AvgPool", "MaxPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "ReduceMean", "ReduceMax")


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operation that depends on the pixels of the image.

    Attributes:
        node: The OpenVINO node.
        kind: Its type.
        data: The input tensors that depend on the pixels, in order.
        ports: The numbers of these inputs.
        outputs: The output tensors.
        step: The operation as a step.
    """

    node: Any
    kind: str
    data: tuple[Key, ...]
    ports: tuple[int, ...]
    outputs: tuple[Key, ...]
    step: Step

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first output."""
        return shape_of(self.node.output(0))


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """The operations between the input and one tensor.

    Attributes:
        source: The input tensor.
        sink: The tensor.
        nodes: Every operation that the tensor depends on, in topological order.
    """

    source: Key
    sink: Key
    nodes: tuple[Node, ...]

    def steps(self) -> Steps:
        """Returns the operations as steps."""
        return Steps(self.source, self.sink, tuple(node.step for node in self.nodes))

    def costs(self) -> list[Cost]:
        """Returns the cost of each operation for one image. The graph must have static shapes and a batch size of 1."""
        return [Cost(_multiply_adds(node), sum(math.prod(shape_of(o)) for o in node.node.outputs())) for node in self.nodes]

    def tensor(self, key: Key) -> Any:
        """Returns the OpenVINO output of a tensor."""
        node = next(node for node in self.nodes if key in node.outputs)
        return node.node.output(key[1])

    def until(self, sink: Key) -> Nodes:
        """Returns the operations that another tensor of the graph depends on."""
        needed, kept = {sink}, []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                needed.update(node.data)
                kept.append(node)
        return Nodes(self.source, sink, tuple(reversed(kept)))


def nodes_of(model: Any, source: Any, named: bool) -> Nodes:
    """Returns the operations of a model that depend on the pixels. The sink is the first output.

    Values that are computed from constants or from the shapes of tensors do not depend on the pixels.

    Args:
        model: An OpenVINO model with static shapes.
        source: The tensor where the network begins.
        named: Whether the nodes have names from the file. Otherwise, only the tensors do, and OpenVINO numbers the nodes with a
            counter of the process.
    """
    start = key_of(source)
    data: set[Key] = {start}
    chosen: list[tuple[Any, tuple[Key, ...]]] = []
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        inputs = tuple(key for key in map(key_of, node.input_values()) if key in data)
        if inputs and kind not in ("ShapeOf", "Result") and node.get_name() != start[0]:
            chosen.append((node, inputs))
            data.update((node.get_name(), number) for number in range(node.get_output_size()))
    names = _names([node for node, _ in chosen], named)
    passive: set[Key] = set()
    nodes = []
    for (node, inputs), name in zip(chosen, names, strict=True):
        outputs = tuple((node.get_name(), number) for number in range(node.get_output_size()))
        idle = _is_passive(node) or (node.get_type_name() in _FOLLOWING and passive.issuperset(inputs))
        if idle:
            passive.update(outputs)
        step = Step(name, name, tuple(dict.fromkeys(inputs)), outputs, _has_kernel(node, inputs), idle, _weights(node, inputs))
        ports = tuple(number for number, value in enumerate(node.input_values()) if key_of(value) in data)
        nodes.append(Node(node, node.get_type_name(), inputs, ports, outputs, step))
    sink = key_of(model.outputs[0].get_node().input_value(0))
    return Nodes(start, sink, tuple(nodes))


def key_of(output: Any) -> Key:
    """Returns the key of an OpenVINO output."""
    return output.get_node().get_name(), output.get_index()


def shape_of(output: Any) -> tuple[int, ...]:
    """Returns a shape. Unknown sides count as 1."""
    shape = output.get_partial_shape()
    if shape.rank.is_dynamic:
        return ()
    return tuple(side.get_length() if side.is_static else 1 for side in shape)


def is_float(output: Any) -> bool:
    """Returns whether a tensor holds floating-point numbers."""
    return bool(output.get_element_type().is_real())


def constant_roots(output: Any) -> list[Any]:
    """Returns the constants whose values, not only their shapes, a tensor is computed from."""
    found, stack, seen = [], [output.get_node()], set()
    while stack:
        node = stack.pop()
        if node.get_name() in seen:
            continue
        seen.add(node.get_name())
        if node.get_type_name() == "Constant":
            found.append(node)
        if node.get_type_name() != "ShapeOf":
            stack.extend(value.get_node() for value in node.input_values())
    return found


def _names(nodes: list[Any], named: bool) -> list[str]:
    """Returns a unique name for each node that is the same in every process."""
    counts: Counter[str] = Counter()
    proposed = []
    for node in nodes:
        kind = snake_case(node.get_type_name())
        given = _given_name(node, named)
        proposed.append(given or (f"{kind}_{counts[kind]}" if counts[kind] else kind))
        counts[kind] += 1
    return list(_unique(proposed))


def _given_name(node: Any, named: bool) -> str | None:
    """Returns the name that the file gives to a node, or to its first tensor; None if it gives none."""
    friendly = str(node.get_friendly_name())
    tensors = sorted((name for output in node.outputs() for name in output.get_names()), key=lambda name: (len(name), name))
    if named or friendly in tensors:
        return friendly
    automatic = re.fullmatch(r"[A-Z][A-Za-z]+_\d+", friendly)
    if automatic or friendly.isdigit():
        return tensors[0] if tensors else None
    return friendly


def _unique(names: Iterable[str]) -> Iterable[str]:
    used: set[str] = set()
    for name in names:
        number, unique = 1, name
        while unique in used:
            number, unique = number + 1, f"{name}_{number}"
        used.add(unique)
        yield unique


def _constants(node: Any, data: tuple[Key, ...]) -> list[Any]:
    """Returns the inputs of a node that do not depend on the pixels."""
    return [value for value in node.input_values() if key_of(value) not in data]


def _has_kernel(node: Any, data: tuple[Key, ...]) -> bool:
    kind = node.get_type_name()
    if kind in (*CONVOLUTIONS, *TRANSPOSED):
        return True
    return kind in ("MatMul", "Einsum") and any(len(shape_of(value)) >= 2 for value in _constants(node, data))


def _weights(node: Any, data: tuple[Key, ...]) -> dict[Hashable, int]:
    """Returns the number of parameters of each weight of a node, by its constant."""
    if node.get_type_name() not in _WITH_WEIGHTS:
        return {}
    sizes: dict[Hashable, int] = {}
    for value in _constants(node, data):
        size = math.prod(shape_of(value))
        roots = constant_roots(value)
        if size > 1 and roots and is_float(value):
            largest = max(roots, key=lambda root: math.prod(shape_of(root.output(0))))
            sizes[largest.get_name()] = size
    return sizes


def _is_passive(node: Any) -> bool:
    kind = node.get_type_name()
    if kind in _PASSIVE:
        return True
    if kind not in _POOLS:
        return False
    before, after = shape_of(node.input_value(0)), shape_of(node.output(0))
    if kind.startswith("Reduce"):  # over positions: of a map, or of tokens
        fewer = math.prod(after) < math.prod(before) or len(after) < len(before)
        return len(before) in (3, 4) and fewer and before[0] == after[0]
    return len(after) == 4 and after[2:] == (1, 1)


def _multiply_adds(node: Node) -> int:
    if not node.step.kernel and (node.kind != "MatMul" or len(node.data) < 2):
        return 0
    inputs = [shape_of(value) for value in node.node.input_values()]
    if node.kind in CONVOLUTIONS:
        return math.prod(inputs[1]) * math.prod(node.shape[2:])
    if node.kind in TRANSPOSED:
        return math.prod(inputs[1]) * math.prod(inputs[0][2:])
    if node.kind == "MatMul":
        inner = inputs[0][-2 if node.node.get_attributes().get("transpose_a") else -1]
        return math.prod(node.shape) * inner
    return math.prod(max(inputs, key=len)[1:-1]) * min(map(math.prod, inputs))
