"""Counts the cost of layers, as multiply-adds per image, from their shapes."""

from __future__ import annotations

import math
from typing import Any

import keras

from crossroads.errors import BackboneError
from crossroads.networks.graph import Call, ends, graph_of, is_nested, kernels_of, replay

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)
_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)


def multiply_adds(model: keras.Model) -> int:
    """Counts the multiply-adds per image: convolutions, dense layers, attention and matrix products, as papers count them.

    Biases, normalisation, activations and pooling are left out. A convolution multiplies every value of its kernel once per
    position of its output. The same holds for groups and depthwise kernels, whose shapes already leave out the other channels.

    Raises:
        BackboneError: The model has no graph of layers, or its image size is unknown.
    """
    return sum(cost(call) for call in graph_of(model).calls)


def activations(call: Call) -> int:
    """Counts the output values of one call per image, including the layers inside a nested model. Unknown sides count 1."""
    operation = call.operation
    if is_nested(operation) and len(call.inputs) == 1:
        return sum(activations(inner) for inner in graph_of(_as_called(operation, call)).calls)
    return sum(math.prod(side or 1 for side in tensor.shape[1:]) for tensor in call.outputs)


def has_depthwise(model: keras.Model) -> bool:
    """Returns whether a model has depthwise convolutions. On a CPU they train more slowly than their multiply-adds suggest."""
    kinds = (keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    return any(isinstance(layer, kinds) for layer in model._flatten_layers())


def cost(call: Call) -> int:
    """Counts the multiply-adds of one call per image. Raises `BackboneError` if a shape is unknown."""
    operation = call.operation
    if is_nested(operation) and len(call.inputs) == 1:
        return multiply_adds(_as_called(operation, call))
    if isinstance(operation, _TRANSPOSED):
        return _kernel_numbers(operation) * _positions(call.inputs[0], operation.data_format)
    if isinstance(operation, _CONVOLUTIONS):
        return _kernel_numbers(operation) * _positions(call.outputs[0], operation.data_format)
    if isinstance(operation, keras.layers.EinsumDense):
        return _einsum(operation.equation, [call.inputs[0].shape, operation.kernel.shape])
    if isinstance(operation, keras.layers.MultiHeadAttention):
        return _attention(operation, call)
    if type(operation).__name__ == "Matmul" and len(call.inputs) == 2:
        return _size(call.outputs[0].shape[1:]) * _size(call.inputs[0].shape[-1:])
    # A dense layer, or any other layer with a kernel, multiplies the kernel once per position of its output.
    numbers = _kernel_numbers(operation)
    return numbers * _size(call.outputs[0].shape[1:-1]) if numbers else 0


def _as_called(model: Any, call: Call) -> keras.Model:
    """Returns a nested model at the shapes it is called with. It was often built for any size."""
    if tuple(ends(model)[0].shape) == tuple(call.inputs[0].shape):
        nested: keras.Model = model
        return nested
    source = keras.Input(batch_shape=call.inputs[0].shape, dtype=call.inputs[0].dtype)
    return keras.Model(source, replay(graph_of(model), source))


def _kernel_numbers(operation: Any) -> int:
    return sum(math.prod(kernel.shape) for kernel in kernels_of(operation))


def _positions(tensor: Any, data_format: str) -> int:
    return _size(tensor.shape[1:-1] if data_format == "channels_last" else tensor.shape[2:])


def _einsum(equation: str, shapes: list[tuple[int | None, ...]]) -> int:
    """Counts the multiply-adds of an einsum per image: the product of the lengths of all axes except the first, the batch."""
    terms = equation.split("->")[0].split(",")
    sizes: dict[str, int | None] = {}
    for term, shape in zip(terms, shapes, strict=True):
        letters = term.replace("...", "")
        hidden = len(shape) - len(letters)
        at = term.find("...") if "..." in term else 0
        sizes.update(zip(letters[:at], shape[:at], strict=True))
        sizes.update((f"...{i}", shape[at + i]) for i in range(hidden))
        sizes.update(zip(letters[at:], shape[at + hidden :], strict=True))
    first = terms[0][0] if not terms[0].startswith("...") else "...0"
    return _size(tuple(size for letter, size in sizes.items() if letter != first))


def _attention(layer: Any, call: Call) -> int:
    """Counts the multiply-adds of projections, scores and weighted sums (Vaswani et al. 2017, section 3.2)."""
    query, key = call.inputs[0], call.inputs[-1]
    queries, keys = _size(query.shape[1:-1]), _size(key.shape[1:-1])
    at_queries = _kernel_numbers(layer.query_dense) + _kernel_numbers(layer.output_dense)
    at_keys = _kernel_numbers(layer.key_dense) + _kernel_numbers(layer.value_dense)
    scores = int(layer.num_heads * (layer.key_dim + (layer.value_dim or layer.key_dim)))
    return at_queries * queries + at_keys * keys + scores * queries * keys


def _size(shape: tuple[int | None, ...]) -> int:
    known = [side for side in shape if side is not None]
    if len(known) < len(shape):
        raise BackboneError(
            "the image size of a network must be known",
            code="unknown-image-size",
            field="backbone",
            received=f"a layer with output {('?', *('?' if side is None else side for side in shape))}".replace("'", ""),
            hint="build the network with keras.Input((size, size, 3))",
        )
    return math.prod(known)
