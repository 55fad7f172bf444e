"""What a layer costs: multiply-adds for one image, counted from shapes."""

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
    """Multiply-adds of `model` for one image: convolutions, dense layers, attention and matrix products, as papers count them.

    Biases, normalisation, activations and pooling are left out. A convolution costs the numbers in its kernel at each position of
    its output, with groups and depthwise kernels no exception, since a kernel's own shape leaves out what it does not multiply.

    Raises:
        BackboneError: The model has no graph of layers, or does not know the size of its images.
    """
    return sum(cost(call) for call in graph_of(model).calls)


def activations(call: Call) -> int:
    """Numbers that one call gives out for one image, those of the layers inside a nested model included; unknown sides count 1."""
    operation = call.operation
    if is_nested(operation) and len(call.inputs) == 1:
        return sum(activations(inner) for inner in graph_of(_as_called(operation, call)).calls)
    return sum(math.prod(side or 1 for side in tensor.shape[1:]) for tensor in call.outputs)


def has_depthwise(model: keras.Model) -> bool:
    """Whether a model has depthwise convolutions, whose steps a CPU takes slowly for their multiply-adds."""
    kinds = (keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    return any(isinstance(layer, kinds) for layer in model._flatten_layers())


def cost(call: Call) -> int:
    """Multiply-adds of one call for one image. Raises `BackboneError` where a shape is not known."""
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
    # A dense layer, and whatever else has a kernel: once for each position of what it gives.
    numbers = _kernel_numbers(operation)
    return numbers * _size(call.outputs[0].shape[1:-1]) if numbers else 0


def _as_called(model: Any, call: Call) -> keras.Model:
    """A nested model at the shapes that it is called with: it was often made for any size."""
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
    """One multiply-add for each combination of the letters, but for the first, the image."""
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
    """Projections, scores and weighted sums (Vaswani et al. 2017, section 3.2)."""
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
            "multiply-adds are counted for images of a known size",
            received=f"a layer that gives {('?', *('?' if side is None else side for side in shape))}".replace("'", ""),
            hint="build the network with keras.Input((size, size, 3))",
        )
    return math.prod(known)
