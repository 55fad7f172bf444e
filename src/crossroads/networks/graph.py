"""Represents the layer graph of a Keras model as plain records: its calls in order."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import keras

from crossroads.errors import BackboneError
from crossroads.networks.crossings import Crossing, Step, Steps, crossings, snake_case


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a layer or of an operation of `keras.ops`. A layer that is called twice has two calls.

    Attributes:
        name: Name of the layer, the same in every process (see `_stable_names`).
        operation: The Keras layer or operation.
        inputs: Input tensors.
        outputs: Output tensors.
        arguments: Keras' record of all arguments, with the tensors in their places.
    """

    name: str
    operation: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    arguments: Any

    @property
    def weighted(self) -> bool:
        """Whether the layer has a kernel and so counts for the depth of the network."""
        return has_kernel(self.operation)


@dataclass(frozen=True, slots=True)
class LayerGraph:
    """The calls between the one input and the one output of a model.

    Attributes:
        source: The input tensor.
        sink: The output tensor.
        calls: Every call that the output depends on, in topological order.
    """

    source: Any
    sink: Any
    calls: tuple[Call, ...]

    def steps(self) -> Steps:
        """Returns the calls as steps, whose tensors, weights and layers are known by their ids."""
        return Steps(id(self.source), id(self.sink), tuple(map(_step, self.calls)))

    def crossings(self) -> Iterator[Crossing]:
        """Yields the points where a single tensor crosses, in order, as `crossings.crossings` finds them."""
        return crossings(self.steps())

    def tensor(self, crossing: Crossing) -> Any:
        """Returns the symbolic tensor of a crossing, (None, ...)."""
        return next(tensor for tensor in self.calls[crossing.position].outputs if id(tensor) == crossing.tensor)


def _step(call: Call) -> Step:
    operation = call.operation
    return Step(
        name=call.name,
        layer=id(operation),
        inputs=tuple(map(id, call.inputs)),
        outputs=tuple(map(id, call.outputs)),
        kernel=call.weighted,
        passive=isinstance(operation, _PASSIVE),
        weights={id(weight): math.prod(weight.shape) for weight in weights_of(operation)},
    )


_PASSIVE = (
    keras.layers.ActivityRegularization,
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.Reshape,
    keras.layers.SpatialDropout2D,
    keras.layers.ZeroPadding2D,
)
"""Layers that compute no feature."""


def graph_of(model: keras.Model) -> LayerGraph:
    """Returns the layer graph of `model`.

    A nested model is one call. If it is the only call, its own graph is returned, at the shape of `model`'s input.

    Raises:
        BackboneError: The model has no graph (a subclass with its own `call`, or a Sequential without an input), or more than one
            input or output.
    """
    source, sink = ends(model)
    known = _GRAPHS.get(model)
    if known is not None and known[0] is source and known[1] is sink:
        return known[2]
    graph = _walk(source, sink)
    while len(graph.calls) == 1 and is_nested(graph.calls[0].operation):
        graph = _unwrapped(graph)
    _GRAPHS[model] = (source, sink, graph)
    return graph


_GRAPHS: WeakKeyDictionary[Any, tuple[Any, Any, LayerGraph]] = WeakKeyDictionary()
"""Graphs by model, with the input and output they were read for: a Sequential may have grown since."""


def ends(model: keras.Model) -> tuple[Any, Any]:
    """Returns the input and the output tensor of a model.

    Raises:
        BackboneError: The model has no graph of layers, or more than one input or output.
    """
    try:
        inputs, outputs = tuple(model.inputs or ()), tuple(model.outputs or ())
    except AttributeError:
        inputs, outputs = (), ()
    if not inputs or not outputs:
        raise BackboneError(
            "a network must be a graph of layers from a known input to an output",
            code="no-layer-graph",
            field="backbone",
            received=f"{type(model).__name__} {getattr(model, 'name', '')!r} without one",
            hint="build it as keras.Sequential or keras.Model(inputs, outputs), beginning with keras.Input",
        )
    if (len(inputs), len(outputs)) != (1, 1):
        raise BackboneError(
            "a network must have one input and one output",
            code="several-inputs-or-outputs",
            field="backbone",
            received=f"{len(inputs)} and {len(outputs)} in {model.name!r}",
            hint="make a keras.Model of the part from the image to the features",
        )
    return inputs[0], outputs[0]


def replay(
    graph: LayerGraph,
    source: Any,
    training: bool | None = None,
    *,
    flat: bool = False,
    through: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any] | None = None,
) -> Any:
    """Calls the layers of `graph` again on another symbolic tensor and returns the output tensor.

    Args:
        graph: Graph of any model. Layers and weights are shared.
        source: Keras tensor to use as the input.
        training: Passed to the layers that have this argument, unless it is None.
        flat: Whether nested models, at any depth, are replaced by their layers.
        through: Calls a layer with its arguments in another way; None for an ordinary call.
    """
    tensors = {id(graph.source): source}
    for call in graph.calls:
        args, kwargs = call.arguments.fill_in(tensors)
        mode = kwargs.get("training") if training is None else training
        if flat and is_nested(call.operation) and len(call.inputs) == 1:
            outputs = replay(_walk(*ends(call.operation)), tensors[id(call.inputs[0])], mode, flat=True)
        else:
            if mode is not None and "training" in getattr(call.operation, "_call_context_args", {}):
                kwargs["training"] = mode
            outputs = call.operation(*args, **kwargs) if through is None else through(call.operation, args, kwargs)
        tensors.update(zip(map(id, call.outputs), keras.tree.flatten(outputs), strict=True))
    return tensors[id(graph.sink)]


def is_nested(operation: Any) -> bool:
    """Returns whether an operation is a model with its own layer graph, one input and one output."""
    if not isinstance(operation, keras.Model):
        return False
    try:
        ends(operation)
    except BackboneError:
        return False
    return True


_NOT_KERNELS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.Normalization,
    keras.layers.RMSNormalization,
    keras.layers.PReLU,
)
"""Layers whose weights only scale values one by one. Their weights are not kernels, even if they have several axes."""


def kernels_of(operation: Any) -> list[Any]:
    """Returns the kernels of an operation: weights with two axes or more, without biases and without mere scales."""
    if isinstance(operation, _NOT_KERNELS):
        return []
    if isinstance(operation, keras.Model) or getattr(operation, "_layers", None):
        return [kernel for layer in operation._layers for kernel in kernels_of(layer)] + _own_kernels(operation)
    return _own_kernels(operation)


def _own_kernels(operation: Any) -> list[Any]:
    inner = {id(weight) for layer in getattr(operation, "_layers", None) or () for weight in weights_of(layer)}
    return [w for w in weights_of(operation) if id(w) not in inner and len(w.shape) >= 2 and w.name != "bias"]


def has_kernel(operation: Any) -> bool:
    """Returns whether an operation, or a layer inside it, has a kernel."""
    return bool(kernels_of(operation))


def weights_of(operation: Any) -> list[Any]:
    """Returns the weights of a layer in order; an empty list for an operation of `keras.ops`."""
    return list(operation.weights) if isinstance(operation, keras.Layer) else []


def _unwrapped(graph: LayerGraph) -> LayerGraph:
    """Returns the graph of the nested model that is the only call of `graph`."""
    (call,) = graph.calls
    inner = _walk(*ends(call.operation))
    _, kwargs = call.arguments.fill_in({})
    if not kwargs and tuple(inner.source.shape) == tuple(graph.source.shape) and inner.source.dtype == graph.source.dtype:
        return inner
    return _walk(graph.source, replay(inner, graph.source, kwargs.get("training")))


def _walk(source: Any, sink: Any) -> LayerGraph:
    """Walks depth-first from the output along Keras' records of tensors. It is iterative because graphs are deep."""
    nodes: list[Any] = []
    state: dict[int, bool] = {}
    stack = [_node_of(sink)] if sink is not source else []
    while stack:
        node = stack[-1]
        if id(node) in state:
            stack.pop()
            if not state[id(node)]:
                state[id(node)] = True
                nodes.append(node)
            continue
        state[id(node)] = False
        if node.is_input:
            raise BackboneError(
                "the output of a network must depend on its input alone",
                code="several-inputs-or-outputs",
                field="backbone",
                received=f"layer {node.operation.name!r}",
            )
        parents = [_node_of(tensor) for tensor in node.input_tensors if tensor is not source]
        stack.extend(parent for parent in reversed(parents) if id(parent) not in state)
    names = _stable_names([node.operation for node in nodes])
    return LayerGraph(
        source,
        sink,
        tuple(
            Call(names[id(n.operation)], n.operation, tuple(n.input_tensors), tuple(n.output_tensors), n.arguments) for n in nodes
        ),
    )


def _node_of(tensor: Any) -> Any:
    operation, index, _ = tensor._keras_history
    return operation._inbound_nodes[index]


def _stable_names(operations: list[Any]) -> dict[int, str]:
    """Returns a name for each operation, by id, that does not depend on other networks of this process.

    Keras numbers unnamed layers across the whole process: the first convolution of a second InceptionV3 is ``conv2d_94``. Here each
    kind is numbered from its first layer in this graph, as in a fresh process. Given names stay. If two names would become equal,
    all of Keras' names stay.
    """
    numbered = {id(operation): match for operation in operations if (match := _numbered(operation))}
    first: dict[str, int] = {}
    for kind, number in numbered.values():
        first[kind] = min(number, first.get(kind, number))
    names = {id(operation): operation.name for operation in operations}
    stable = dict(names)
    for key, (kind, number) in numbered.items():
        stable[key] = kind if number == first[kind] else f"{kind}_{number - first[kind]}"
    return stable if len(set(stable.values())) == len(stable) else names


def _numbered(operation: Any) -> tuple[str, int] | None:
    """Returns kind and number of an automatic name such as ``conv2d_94``; None for a given name."""
    kind = snake_case(type(operation).__name__)
    match = re.fullmatch(rf"{re.escape(kind)}(?:_([1-9]\d*))?", operation.name)
    return (kind, int(match[1] or 0)) if match else None
