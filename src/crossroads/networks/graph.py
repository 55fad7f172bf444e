"""The layer graph of a Keras model as plain records: its calls in order, and the tensors that everything passes through."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import keras

from crossroads.errors import BackboneError


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a layer, or of an operation of `keras.ops`. A layer that is called twice has two of them.

    Attributes:
        name: Of the layer, the same in every process: see `_stable_names`.
        operation: The Keras layer or operation.
        inputs: The tensors it was given.
        outputs: The tensors it gave.
        arguments: Of the call, with those tensors in their places; Keras' own record of it.
    """

    name: str
    operation: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    arguments: Any

    @property
    def weighted(self) -> bool:
        """Whether it has a kernel: what counts as a layer of the network's depth."""
        return has_kernel(self.operation)


@dataclass(frozen=True, slots=True)
class Crossing:
    """A tensor that is the only one to cross from what was computed before it to what comes after.

    Attributes:
        position: Index of the call that gives it; everything before it in `LayerGraph.calls` lies below the crossing.
        name: Of the layer that gives it.
        tensor: The symbolic tensor, (None, ...).
    """

    position: int
    name: str
    tensor: Any


@dataclass(frozen=True, slots=True)
class LayerGraph:
    """What lies between the one input and the one output of a model.

    Attributes:
        source: The input tensor.
        sink: The output tensor.
        calls: Every call that the output needs, each after those that it needs itself.
    """

    source: Any
    sink: Any
    calls: tuple[Call, ...]

    def crossings(self) -> Iterator[Crossing]:
        """Where one tensor crosses, in order; the last is the output. Linear in the size of the graph.

        These are the articulation points of the graph. In any topological order, a tensor through which every path from input to
        output goes is at some moment the only one that is computed and still needed; and a tensor that is so once is one through
        which every path goes. A layer with weights that is called on both sides would be frozen and trained at once: there is no
        crossing between its calls. And a layer called more than once is a crossing where it is called last, if at all, so that
        its name says which.
        """
        last_use = {id(tensor): position for position, call in enumerate(self.calls) for tensor in call.inputs}
        last_use[id(self.sink)] = len(self.calls)
        last_call = {id(call.operation): position for position, call in enumerate(self.calls)}
        alive: dict[int, Any] = {id(self.source): self.source}
        shared_until = -1
        for position, call in enumerate(self.calls):
            for tensor in call.inputs:
                if last_use[id(tensor)] <= position:
                    alive.pop(id(tensor), None)
            alive.update((id(tensor), tensor) for tensor in call.outputs if last_use.get(id(tensor), -1) > position)
            if weights_of(call.operation):
                shared_until = max(shared_until, last_call[id(call.operation)])
            if len(alive) == 1 and shared_until <= position and last_call[id(call.operation)] == position:
                (tensor,) = alive.values()
                yield Crossing(position, call.name, tensor)


def graph_of(model: keras.Model) -> LayerGraph:
    """The layer graph of `model`.

    A nested model is one call, unless it is all that `model` has: then its own graph is taken, at the shape of `model`'s input.

    Raises:
        BackboneError: The model has no graph (a subclass with code of its own, or a Sequential that does not know its input yet),
            or more than one input or output.
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
"""By model, with the ends it was read for: a Sequential may have grown since."""


def ends(model: keras.Model) -> tuple[Any, Any]:
    """The input and the output tensor of a model that has one of each.

    Raises:
        BackboneError: It has not, or no graph of layers at all.
    """
    try:
        inputs, outputs = tuple(model.inputs or ()), tuple(model.outputs or ())
    except AttributeError:
        inputs, outputs = (), ()
    if not inputs or not outputs:
        raise BackboneError(
            "a network is a graph of layers from a known input to an output",
            received=f"{type(model).__name__} {getattr(model, 'name', '')!r} without one",
            hint="build it as keras.Sequential or keras.Model(inputs, outputs), beginning with keras.Input",
        )
    if (len(inputs), len(outputs)) != (1, 1):
        raise BackboneError(
            "a network has one input and one output",
            received=f"{len(inputs)} and {len(outputs)} in {model.name!r}",
            hint="make a keras.Model of the part that takes the image and gives the features",
        )
    return inputs[0], outputs[0]


def replay(graph: LayerGraph, source: Any, training: bool | None = None, *, flat: bool = False) -> Any:
    """The output tensor of `graph` when its layers are called again, on another symbolic tensor.

    Args:
        graph: Of any model; its layers and weights are shared.
        source: A Keras tensor that the graph's input can be.
        training: Handed to the layers that ask for it, where it is not None.
        flat: Call the layers of nested models, at any depth, in the place of each nested model.
    """
    made = {id(graph.source): source}
    for call in graph.calls:
        args, kwargs = call.arguments.fill_in(made)
        mode = kwargs.get("training") if training is None else training
        if flat and is_nested(call.operation) and len(call.inputs) == 1:
            outputs = replay(_walk(*ends(call.operation)), made[id(call.inputs[0])], mode, flat=True)
        else:
            if mode is not None and "training" in getattr(call.operation, "_call_context_args", {}):
                kwargs["training"] = mode
            outputs = call.operation(*args, **kwargs)
        made.update(zip(map(id, call.outputs), keras.tree.flatten(outputs), strict=True))
    return made[id(graph.sink)]


def is_nested(operation: Any) -> bool:
    """Whether it is a model with a layer graph of its own, one input and one output."""
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
"""Layers whose weights scale each number by itself, however many axes they have."""


def kernels_of(operation: Any) -> list[Any]:
    """The weights of `operation` that mix numbers: no bias, and two axes or more, in layers that do not only scale."""
    if isinstance(operation, _NOT_KERNELS):
        return []
    if isinstance(operation, keras.Model) or getattr(operation, "_layers", None):
        return [kernel for layer in operation._layers for kernel in kernels_of(layer)] + _own_kernels(operation)
    return _own_kernels(operation)


def _own_kernels(operation: Any) -> list[Any]:
    inner = {id(weight) for layer in getattr(operation, "_layers", None) or () for weight in weights_of(layer)}
    return [w for w in weights_of(operation) if id(w) not in inner and len(w.shape) >= 2 and w.name != "bias"]


def has_kernel(operation: Any) -> bool:
    """Whether `operation`, or a layer inside it, has a kernel."""
    return bool(kernels_of(operation))


def weights_of(operation: Any) -> list[Any]:
    """The weights of a layer in order; none for an operation of `keras.ops`."""
    return list(operation.weights) if isinstance(operation, keras.Layer) else []


def _unwrapped(graph: LayerGraph) -> LayerGraph:
    """The graph of the nested model that is all that `graph` has."""
    (call,) = graph.calls
    inner = _walk(*ends(call.operation))
    _, kwargs = call.arguments.fill_in({})
    if not kwargs and tuple(inner.source.shape) == tuple(graph.source.shape) and inner.source.dtype == graph.source.dtype:
        return inner
    return _walk(graph.source, replay(inner, graph.source, kwargs.get("training")))


def _walk(source: Any, sink: Any) -> LayerGraph:
    """Depth first from the output, by Keras' own record of who made a tensor; iterative, because graphs are deep."""
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
            raise BackboneError("the output of a network needs nothing but its input", received=f"layer {node.operation.name!r}")
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
    """A name for each operation, by its id, that does not depend on what the process built before.

    Keras numbers layers that were given no name across the whole process: the first convolution of a second InceptionV3 is
    ``conv2d_94``. Here each kind is numbered from the first one in this graph, as Keras would in a fresh process. Names that were
    given stay, and so do all of them where that would make two alike.
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
    """The kind and the number in a name that Keras made up, such as ``conv2d_94``; None for one that was given."""
    kind = snake_case(type(operation).__name__)
    match = re.fullmatch(rf"{re.escape(kind)}(?:_([1-9]\d*))?", operation.name)
    return (kind, int(match[1] or 0)) if match else None


def snake_case(name: str) -> str:
    """``Conv2D`` as ``conv2d``, ``BatchNormalization`` as ``batch_normalization``: how Keras names layers and what it saves."""
    spaced = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", spaced).lower()
