"""Finds the cuts of a backbone and divides it there.

A cut is a layer where exactly one tensor crosses, so that the parts below and above compose to the whole.
"""

from __future__ import annotations

from collections.abc import Hashable
from itertools import pairwise
from typing import Any

import keras

from crossroads.errors import BackboneError
from crossroads.networks.cost import activations, cost, multiply_adds
from crossroads.networks.crossings import Cost, landmarks, possible
from crossroads.networks.cut import Cut, find_cut
from crossroads.networks.graph import LayerGraph, graph_of, weights_of

__all__ = ["Cut", "after", "between", "blocks", "cuts", "find", "multiply_adds", "possible_cuts", "until"]


def cuts(backbone: keras.Model) -> tuple[Cut, ...]:
    """Returns the useful cuts in order; the last is the end of the backbone.

    There is one cut per run of layers up to the next layer or branch with a kernel. Convolution, normalisation and activation are
    one run, and its cut is the activation. Padding, dropout, flattening and global pooling at the end of a run belong to the upper
    part, so that the map can still be pooled in another way. There is no cut before the first kernel.

    Raises:
        BackboneError: The backbone has no graph of layers, more than one input or output, or an unknown image size.
    """
    return tuple(cut for cut in possible_cuts(backbone) if cut.index is not None)


def possible_cuts(backbone: keras.Model) -> tuple[Cut, ...]:
    """Returns every layer after the first kernel where exactly one tensor crosses. Those of `cuts` have an index.

    Raises:
        BackboneError: For the same reasons as in `cuts`.
    """
    graph = graph_of(backbone)
    costs = [Cost(cost(call), activations(call)) for call in graph.calls]
    shapes: dict[Hashable, tuple[int, ...]] = {id(x): tuple(x.shape[1:]) for call in graph.calls for x in call.outputs}
    return possible(graph.steps(), costs, shapes | {id(graph.source): tuple(graph.source.shape[1:])})


def find(backbone: keras.Model, cut: str | int | float) -> Cut:
    """Finds a cut by name, position or depth, as `find_cut` does. A name may also be that of the layer in this process.

    Raises:
        BackboneError: The layer does not exist, more than one tensor crosses there, or a number is out of range.
    """
    possible = possible_cuts(backbone)
    if isinstance(cut, str):
        calls = graph_of(backbone).calls
        if cut not in {call.name for call in calls}:  # Keras' name in this process, as `model.summary()` prints it
            cut = next((call.name for call in calls if call.operation.name == cut), cut)
        if cut in {call.name for call in calls} - {known.name for known in possible}:
            raise _no_cut(backbone, graph_of(backbone), cut)
    return find_cut(possible, cut, backbone.name)


def until(backbone: keras.Model, cut: Cut) -> keras.Model:
    """Returns the backbone up to `cut`: images in, float32 (n, *cut.shape) out. Layers and weights are shared."""
    graph = graph_of(backbone)
    return keras.Model(graph.source, _tensor(backbone, graph, cut), name=f"{backbone.name}_to_{cut.name}")


def after(backbone: keras.Model, cut: Cut) -> keras.Model:
    """Returns the part of the backbone after `cut`, with inputs (n, *cut.shape). Layers and weights are shared.

    ``after(backbone, cut)(until(backbone, cut)(images))`` equals ``backbone(images)`` bit for bit. After the last cut the model is
    the identity.
    """
    graph = graph_of(backbone)
    return _part(_tensor(backbone, graph, cut), graph.sink, f"{backbone.name}_from_{cut.name}", cut.name)


def between(backbone: keras.Model, first: Cut, last: Cut) -> keras.Model:
    """Returns the backbone from `first` to `last`: (n, *first.shape) in, (n, *last.shape) out. Layers and weights are shared.

    Raises:
        BackboneError: `last` comes before `first`.
    """
    graph = graph_of(backbone)
    order = {crossing.name: crossing.position for crossing in graph.crossings()}
    start, end = _tensor(backbone, graph, first), _tensor(backbone, graph, last)
    if order[last.name] < order[first.name]:
        raise BackboneError(
            "a part of a backbone must end at a later cut than it begins",
            code="cuts-out-of-order",
            received=f"from {first.name!r} to {last.name!r}",
            hint=f"use from {last.name!r} to {first.name!r}",
        )
    return _part(start, end, f"{backbone.name}_from_{first.name}_to_{last.name}", first.name)


def blocks(model: keras.Model) -> tuple[tuple[keras.Layer, ...], ...]:
    """Returns the layers with weights, grouped between successive cuts, from the input on.

    Every layer with weights is in exactly one group. A nested model is one layer. Groups without weights are left out.

    Raises:
        BackboneError: The model has no graph of layers, or more than one input or output.
    """
    graph = graph_of(model)
    edges = [-1, *(crossing.position for crossing in landmarks(graph.steps()))]
    groups = []
    for below, upto in pairwise(edges):
        layers = {id(c.operation): c.operation for c in graph.calls[below + 1 : upto + 1] if weights_of(c.operation)}
        groups.append(tuple(layers.values()))
    return tuple(group for group in groups if group)


def _tensor(backbone: keras.Model, graph: LayerGraph, cut: Cut) -> Any:
    for crossing in graph.crossings():
        if crossing.name == cut.name:
            return graph.tensor(crossing)
    raise BackboneError(
        "the cut belongs to another backbone", code="cut-of-another-backbone", received=f"{cut.name!r} for {backbone.name!r}"
    )


def _part(start: Any, end: Any, name: str, below: str) -> keras.Model:
    """Returns a model from one tensor to another. Its input is named after the layer below it."""
    if start is end:
        same = keras.Input(batch_shape=start.shape, dtype=start.dtype, name=f"{below}_output")
        return keras.Model(same, keras.layers.Identity(name="end")(same), name=name)
    part = keras.Model(start, end, name=name)
    # Keras names the new input layer after a counter of the process. A saved file must not depend on it.
    part.inputs[0]._keras_history.operation.name = f"{below}_output"
    return part


def _no_cut(backbone: keras.Model, graph: LayerGraph, name: str) -> BackboneError:
    """Returns the error for a layer that is not a cut. The hint names the nearest cuts."""
    position = max(index for index, call in enumerate(graph.calls) if call.name == name)
    useful = landmarks(graph.steps())
    below = [crossing.name for crossing in useful if crossing.position < position][-1:]
    above = [crossing.name for crossing in useful if crossing.position > position][:1]
    return BackboneError(
        "a cut must be a layer where exactly one tensor crosses, after the first kernel",
        code="not-a-cut",
        field="cut",
        received=f"{name!r} of {backbone.name!r}",
        hint="use " + " or ".join(map(repr, below + above)),
    )
