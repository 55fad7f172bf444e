"""Creates the random control of the depth profile: the same graph with new random weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads.inference import evaluate, operations, runtime
from crossroads.networks.body import Body
from crossroads.networks.graphs.nodes import CONVOLUTIONS, Key, Node, constant_roots, is_float, nodes_of, shape_of

EPSILON = 1e-5
_AFFINE = ("Add", "Subtract", "Multiply", "Divide", "BatchNormInference")
_LIKE_RELU = ("Relu", "Clamp", "Gelu", "Swish", "HSwish", "Elu", "PRelu")
_FEW_VALUES = 10
"""A constant with fewer different values is a mask rather than an embedding."""


@dataclass(frozen=True, slots=True)
class _Statistics:
    """Mean and inverse deviation of each channel as outputs of the graph, which become constants."""

    mean: Any
    inverse: Any


def random_control(body: Body, images: NDArray[np.uint8], seed: int) -> Body | None:
    """Returns a backbone with the same graph, and weights that were never trained.

    Kernels of convolutions have the deviation sqrt(2 / fan in) (He et al. 2015, https://arxiv.org/abs/1502.01852). Bias and batch
    normalisation after them become a normalisation to mean 0 and variance 1 per channel. Other kernels have the deviation 1 /
    sqrt(fan in), sqrt(2) times that before an activation, and no bias. Layer normalisation has neither scale nor shift. Embeddings
    keep their deviation. What comes before the first kernel stays.

    Args:
        body: The backbone.
        images: uint8 (n, size, size, 3), for the statistics of the normalisation. Only the first one is used if the graph takes
            images one by one.
        seed: Seed of the weights.

    Returns:
        The control; None for a quantised graph, whose ranges would not fit other weights.
    """
    if body.quantised:
        return None
    images = images[: body.batch]
    model = body.model.clone()
    model.reshape({model.inputs[0]: list(images.shape)})
    statistics = _redrawn(model, np.random.default_rng(seed))
    _fix(model, statistics, images)
    model.reshape({model.inputs[0]: [body.batch or -1, body.size, body.size, 3]})
    key = f"{body.digest} random {seed} ".encode() + np.ascontiguousarray(images).tobytes()
    return replace(
        body,
        model=model,
        digest=hashlib.blake2b(key, digest_size=32).hexdigest(),
        weights=None,
        notes=(),
        keras_part=None,
    )


@dataclass(frozen=True, slots=True)
class _Ports:
    """Which inputs of each node depend on the pixels, and which nodes were removed, by the unique name of the node."""

    of: dict[str, tuple[int, ...]]
    gone: set[str]

    def constants(self, node: Any) -> list[Any]:
        """Returns the inputs of a node that do not depend on the pixels."""
        ports = self.of[node.get_name()]
        return [place for number, place in enumerate(node.inputs()) if number not in ports]


def _redrawn(model: Any, random: np.random.Generator) -> list[_Statistics]:
    """Replaces the weights of a graph with static shapes. Returns the statistics that are computed within it."""
    nodes = nodes_of(model, model.get_parameters()[0].output(0), named=True).nodes
    ports = _Ports({node.node.get_name(): node.ports for node in nodes}, set())
    after_kernel: set[Key] = set()
    statistics = []
    for node in nodes:
        if not node.step.kernel and not after_kernel.intersection(node.data):
            continue
        after_kernel.update(node.outputs)
        if node.node.get_name() not in ports.gone:
            statistics += _replaced(node, ports, random)
    return statistics


def _replaced(node: Node, ports: _Ports, random: np.random.Generator) -> list[_Statistics]:
    """Replaces the weights of one operation, and the scales and shifts that follow it."""
    output = node.node.output(0)
    if node.kind in CONVOLUTIONS and len(node.data) == 1:
        _draw(node, ports, 2.0, random)
        return [_normalised(output, output, 1, ports)]
    if node.step.kernel:
        _draw(node, ports, 2.0 if _next_kind(output, ports) in _LIKE_RELU else 1.0, random)
        _bypass_affine(output, ports)
    elif _ends_layer_norm(node):
        _bypass_affine(output, ports)
    elif (axis := _batch_norm_axis(node, ports)) is not None:
        return [_normalised(node.node.input_value(node.ports[0]), output, axis, ports)]
    else:
        _redraw_embedding(node, ports, random)
    return []


def _draw(node: Node, ports: _Ports, gain: float, random: np.random.Generator) -> None:
    """Replaces a kernel by one with variance `gain` / fan in."""
    place = ports.constants(node.node)[0]
    shape = shape_of(place.get_source_output())
    beside = {"Convolution": math.prod(shape[1:]), "GroupConvolution": math.prod(shape[2:])}
    fan_in = beside.get(node.kind) or max(1, math.prod(shape) // node.shape[-1])
    kernel = random.normal(0, math.sqrt(gain / fan_in), shape)
    place.replace_source_output(_constant(kernel, place.get_source_output()))


def _normalised(tensor: Any, output: Any, axis: int, ports: _Ports) -> _Statistics:
    """Normalises a tensor per channel by its own statistics, in place of another tensor and the constants that follow that."""
    ops = operations()
    _bypass_affine(output, ports)
    targets = list(output.get_target_inputs())
    rank = len(tensor.get_partial_shape())
    axes = ops.constant(np.array([number for number in range(rank) if number != axis], np.int64))
    # In float32, since a variance can be too large for float16.
    values = tensor if tensor.get_element_type().get_type_name() == "f32" else ops.convert(tensor, "f32")
    mean = ops.reduce_mean(values, axes, True)
    centred = ops.subtract(values, mean)
    variance = ops.reduce_mean(ops.multiply(centred, centred), axes, True)
    one, epsilon = (ops.constant(np.float32(value)) for value in (1, EPSILON))
    inverse = ops.divide(one, ops.sqrt(ops.add(variance, epsilon)))
    result = ops.multiply(centred, inverse)
    if values is not tensor:
        result = ops.convert(result, tensor.get_element_type())
    for target in targets:
        target.replace_source_output(result.output(0))
    return _Statistics(mean, inverse)


def _fix(model: Any, statistics: list[_Statistics], images: NDArray[np.uint8]) -> None:
    """Computes all statistics in one run and makes them constants."""
    if not statistics:
        return
    outputs = [node.output(0) for each in statistics for node in (each.mean, each.inverse)]
    values = evaluate(runtime().Model(outputs, model.get_parameters(), "statistics"), images)
    for output, value in zip(outputs, values, strict=True):
        output.replace(operations().constant(value.astype(np.float32)).output(0))
    model.validate_nodes_and_infer_types()


def _consumers(tensor: Any) -> list[Any]:
    """Returns the nodes that use a tensor; the outputs of the model do not count."""
    nodes = [target.get_node() for target in tensor.get_target_inputs()]
    return [node for node in nodes if node.get_type_name() not in ("Result", "ShapeOf")]


def _chain(tensor: Any, ports: _Ports) -> Iterator[Any]:
    """Yields, one after another, the operations after a tensor that use one constant per channel. Skips transpositions."""
    while len(consumers := _consumers(tensor)) == 1:
        (node,) = consumers
        if node.get_type_name() in _AFFINE:
            if not _per_channel(node, ports):
                return
            yield node
        elif node.get_type_name() not in ("Transpose", "Convert"):
            return
        tensor = node.output(0)


def _per_channel(node: Any, ports: _Ports) -> bool:
    """Returns whether the other inputs of a node are constants with one value per channel, along one axis."""
    data = ports.of[node.get_name()]
    others = [place.get_source_output() for place in ports.constants(node)]
    same = len(data) == 1 and shape_of(node.output(0)) == shape_of(node.input_value(data[0]))
    return same and all(map(_is_vector, others))


def _is_vector(value: Any) -> bool:
    return is_float(value) and sum(side > 1 for side in shape_of(value)) == 1


def _bypass_affine(tensor: Any, ports: _Ports) -> None:
    """Removes the operations after a tensor that scale or shift each channel."""
    for node in list(_chain(tensor, ports)):
        ports.gone.add(node.get_name())
        node.output(0).replace(node.input_value(ports.of[node.get_name()][0]))


def _next_kind(tensor: Any, ports: _Ports) -> str:
    """Returns the type of the operation after a tensor and the scales and shifts that follow it."""
    for node in _chain(tensor, ports):
        tensor = node.output(0)
    kinds = {node.get_type_name() for node in _consumers(tensor)}
    return str(kinds.pop()) if len(kinds) == 1 else ""


def _ends_layer_norm(node: Node) -> bool:
    """Returns whether a node ends a normalisation of each position: one operation, or ``(x - mean) / deviation``."""
    if node.kind == "MVN":
        return True
    if node.kind not in ("Divide", "Multiply") or len(node.data) != 2:
        return False
    shapes = [shape_of(value) for value in node.node.input_values()]
    return shapes[0][:-1] == shapes[1][:-1] and {shape[-1] for shape in shapes} == {1, node.shape[-1]} and node.shape[-1] > 1


def _batch_norm_axis(node: Node, ports: _Ports) -> int | None:
    """Returns the axis of the channels if a node scales each channel of a map by a constant; None otherwise."""
    if node.kind == "BatchNormInference":
        return 1
    if node.kind != "Multiply" or len(node.shape) != 4 or not _per_channel(node.node, ports):
        return None
    shape = shape_of(ports.constants(node.node)[0].get_source_output())
    return 4 - len(shape) + next(axis for axis, side in enumerate(shape) if side > 1)


def _redraw_embedding(node: Node, ports: _Ports, random: np.random.Generator) -> None:
    """Draws class tokens, positions and slopes anew, with the deviation that they had. A shift per channel becomes 0.

    The scale of a layer normalisation, which Keras multiplies the inverse deviation by, becomes 1.
    """
    places = [place for place in ports.constants(node.node) if is_float(place.get_source_output())]
    for place in places:
        value = place.get_source_output()
        if node.kind in ("Add", "Subtract") and _is_vector(value):
            place.replace_source_output(_constant(np.zeros(shape_of(value)), value))
        elif node.kind == "Multiply" and _is_vector(value) and _is_inverse(node.node.input_value(node.ports[0])):
            place.replace_source_output(_constant(np.ones(shape_of(value)), value))
        elif node.kind in ("Add", "Concat", "PRelu"):
            _redraw(constant_roots(value), random)


def _is_inverse(tensor: Any) -> bool:
    """Returns whether a tensor is one over the deviation of each position."""
    return tensor.get_node().get_type_name() in ("Power", "Divide") and shape_of(tensor)[-1] == 1


def _redraw(roots: list[Any], random: np.random.Generator) -> None:
    for root in roots:
        old = np.array(root.data, np.float32)
        if old.size > 1 and is_float(root.output(0)) and len(np.unique(old)) >= min(_FEW_VALUES, old.size):
            drawn = random.normal(0, float(old.std()) or 1.0, old.shape)
            root.output(0).replace(_constant(drawn, root.output(0)))


def _constant(values: NDArray[Any], like: Any) -> Any:
    """Returns the output of a constant of the same type as another tensor."""
    kind = like.get_element_type().to_dtype()
    return operations().constant(values.astype(kind)).output(0)
