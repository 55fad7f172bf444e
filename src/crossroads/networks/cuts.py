"""Cuts: the layers of a backbone where exactly one tensor crosses, so that the parts below and above compose to the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import keras

from crossroads.errors import BackboneError, did_you_mean
from crossroads.networks.cost import activations, cost, multiply_adds
from crossroads.networks.graph import Crossing, LayerGraph, graph_of, weights_of

__all__ = ["Cut", "after", "between", "blocks", "cuts", "find", "multiply_adds", "until"]


@dataclass(frozen=True, slots=True)
class Cut:
    """A layer after which a backbone can be divided.

    Attributes:
        name: Name of the layer, the same in every process: unnamed layers are numbered within the backbone.
        index: Position in `cuts`, from 0; None for a possible cut that is not listed there, such as a convolution before its
            normalisation and activation.
        depth: Number of layers with kernels on the longest path to the cut, divided by the number to the end; in (0, 1].
        shape: Shape of the tensor without the batch axis: (height, width, channels) or (channels,).
        multiply_adds: Multiply-adds per image up to the cut.
        parameters: Number of parameters up to the cut.
        activations: Number of output values of all layers per image up to the cut.
    """

    name: str
    index: int | None
    depth: float
    shape: tuple[int, ...]
    multiply_adds: int
    parameters: int
    activations: int

    @property
    def channels(self) -> int:
        """Length of the last axis."""
        return self.shape[-1]

    @property
    def side(self) -> int | None:
        """Height of the map in positions; None for vectors."""
        return self.shape[0] if len(self.shape) > 1 else None


def cuts(backbone: keras.Model) -> tuple[Cut, ...]:
    """Returns the useful cuts in order; the last is the end of the backbone.

    A layer with a kernel and the layers after it, up to the next kernel or branch, share one cut. After a convolution with its
    normalisation and activation, the cut is at the activation. Padding, dropout, flattening and global pooling belong to the part
    above the cut, so that the map can still be pooled in another way. There is no cut before the first kernel.

    Raises:
        BackboneError: The backbone has no graph of layers, more than one input or output, or an unknown image size.
    """
    graph = graph_of(backbone)
    return _described(graph, _useful_crossings(graph), numbered=True)


def find(backbone: keras.Model, cut: str | int | float) -> Cut:
    """Finds a cut by name, position or depth.

    Args:
        backbone: Backbone to search.
        cut: Name of a layer where one tensor crosses; or an index into `cuts`, negative from the end; or a depth in (0, 1], for
            the nearest of `cuts` (the deeper one of a tie). Numbers may be text: ``"7"`` is an index, ``"0.6"`` a depth.

    Raises:
        BackboneError: The layer does not exist, more than one tensor crosses there, or a number is out of range.
    """
    if isinstance(cut, bool):
        raise _invalid(cut)
    if isinstance(cut, str):
        named = _by_name(backbone, cut)
        if named is not None:
            return named
        cut = _number(backbone, cut)
    if isinstance(cut, int):
        return _by_index(cuts(backbone), cut)
    return _by_depth(cuts(backbone), cut)


def until(backbone: keras.Model, cut: Cut) -> keras.Model:
    """Returns the backbone up to `cut`: images in, float32 (n, *cut.shape) out. Layers and weights are shared."""
    graph = graph_of(backbone)
    return keras.Model(graph.source, _tensor(backbone, graph, cut), name=f"{backbone.name}_to_{cut.name}")


def after(backbone: keras.Model, cut: Cut) -> keras.Model:
    """Returns the backbone from `cut` on: (n, *cut.shape) in, the backbone's output out. Layers and weights are shared.

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
    edges = [-1, *(crossing.position for crossing in _useful_crossings(graph))]
    groups = []
    for below, upto in pairwise(edges):
        layers = {id(c.operation): c.operation for c in graph.calls[below + 1 : upto + 1] if weights_of(c.operation)}
        groups.append(tuple(layers.values()))
    return tuple(group for group in groups if group)


_WITHOUT_FEATURES = (
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
"""Layers that compute no feature. A cut is placed below them: it keeps what they drop, and does not pad for the next layer."""


def _useful_crossings(graph: LayerGraph) -> list[Crossing]:
    crossings = list(graph.crossings())
    kernels = list(accumulate((call.weighted for call in graph.calls), initial=0))
    landmarks: list[Crossing] = []
    run: list[Crossing] = []
    for crossing in crossings:
        if run and kernels[crossing.position + 1] > kernels[run[-1].position + 1]:
            landmarks.append(_last_feature(graph, run))
            run = []
        if kernels[crossing.position + 1]:
            run.append(crossing)
    # The end is always a cut, also in a network without kernels.
    return landmarks + crossings[-1:]


def _last_feature(graph: LayerGraph, run: list[Crossing]) -> Crossing:
    """Returns the last crossing of a run that computes a feature."""
    active = [crossing for crossing in run if not isinstance(graph.calls[crossing.position].operation, _WITHOUT_FEATURES)]
    return (active or run)[-1]


def _described(graph: LayerGraph, crossings: list[Crossing], *, numbered: bool) -> tuple[Cut, ...]:
    """Returns the cuts at `crossings` with the costs up to each."""
    passed: dict[int, int] = {id(graph.source): 0}
    for call in graph.calls:
        longest = max(passed[id(tensor)] for tensor in call.inputs) + call.weighted
        passed.update((id(tensor), longest) for tensor in call.outputs)
    costs = list(accumulate((cost(call) for call in graph.calls), initial=0))
    sizes = list(accumulate(_new_parameters(graph), initial=0))
    given = list(accumulate((activations(call) for call in graph.calls), initial=0))
    deepest = passed[id(graph.sink)]
    return tuple(
        Cut(
            name=crossing.name,
            index=index if numbered else None,
            depth=passed[id(crossing.tensor)] / deepest if deepest else 1.0,
            shape=tuple(crossing.tensor.shape[1:]),
            multiply_adds=costs[crossing.position + 1],
            parameters=sizes[crossing.position + 1],
            activations=given[crossing.position + 1],
        )
        for index, crossing in enumerate(crossings)
    )


def _new_parameters(graph: LayerGraph) -> list[int]:
    """Counts for each call the parameters that no earlier call has."""
    seen: set[int] = set()
    sizes = []
    for call in graph.calls:
        new = {id(weight): math.prod(weight.shape) for weight in weights_of(call.operation) if id(weight) not in seen}
        seen.update(new)
        sizes.append(sum(new.values()))
    return sizes


def _tensor(backbone: keras.Model, graph: LayerGraph, cut: Cut) -> Any:
    for crossing in graph.crossings():
        if crossing.name == cut.name:
            return crossing.tensor
    raise BackboneError(
        "the cut belongs to another backbone",
        code="cut-of-another-backbone",
        received=f"{cut.name!r} for {backbone.name!r}",
        hint="use a cut that `cuts` or `find` returned for this backbone",
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


def _by_name(backbone: keras.Model, name: str) -> Cut | None:
    """Returns the cut at the layer `name`; None if no layer has this name.

    Raises:
        BackboneError: The layer exists and is no cut.
    """
    graph = graph_of(backbone)
    known = {call.name for call in graph.calls}
    if name not in known:
        # Keras' name in this process, as `model.summary()` prints it, is accepted too.
        name = next((call.name for call in graph.calls if call.operation.name == name), name)
    if name not in known:
        return None
    landmark = next((cut for cut in cuts(backbone) if cut.name == name), None)
    if landmark is not None:
        return landmark
    kernels = list(accumulate((call.weighted for call in graph.calls), initial=0))
    here = [crossing for crossing in graph.crossings() if crossing.name == name and kernels[crossing.position + 1]]
    if here:
        return replace(_described(graph, here, numbered=False)[0], index=None)
    raise _not_a_cut(backbone, graph, name)


def _not_a_cut(backbone: keras.Model, graph: LayerGraph, name: str) -> BackboneError:
    """Returns the error for a layer that is no cut, with the cuts next to it as a hint."""
    position = max(index for index, call in enumerate(graph.calls) if call.name == name)
    landmarks = _useful_crossings(graph)
    below = [crossing.name for crossing in landmarks if crossing.position < position][-1:]
    above = [crossing.name for crossing in landmarks if crossing.position > position][:1]
    return BackboneError(
        "a cut must be a layer where exactly one tensor crosses, after the first kernel",
        code="not-a-cut",
        field="cut",
        received=f"{name!r} of {backbone.name!r}",
        hint="use " + " or ".join(map(repr, below + above)),
    )


def _number(backbone: keras.Model, text: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    names = [cut.name for cut in cuts(backbone)]
    # All possible cuts are searched for the nearest name, listed or not.
    hint = did_you_mean(text, [*names, *(c.name for c in graph_of(backbone).crossings() if c.name not in names)])
    hint += f"{'' if hint.endswith('?') else ';'} `crossroads backbones NAME` lists the cuts of a network"
    raise BackboneError(
        f"no layer of {backbone.name!r} has this name", code="unknown-cut", field="cut", received=repr(text), hint=hint
    )


def _by_index(known: tuple[Cut, ...], index: int) -> Cut:
    if not -len(known) <= index < len(known):
        raise BackboneError(
            f"the index of a cut must be between 0 and {len(known) - 1}, or between {-len(known)} and -1 from the end",
            code="cut-out-of-range",
            field="cut",
            received=str(index),
            hint=f"use {0 if index < 0 else len(known) - 1}, or a depth such as 0.5",
        )
    return known[index]


def _by_depth(known: tuple[Cut, ...], depth: float) -> Cut:
    if not (isinstance(depth, float) and 0 < depth <= 1):
        raise _invalid(depth)
    return min(known, key=lambda cut: (abs(cut.depth - depth), -cut.depth))


def _invalid(cut: object) -> BackboneError:
    return BackboneError(
        "a cut must be the name of a layer, an index, or a depth above 0 and up to 1",
        code="invalid-cut",
        field="cut",
        received=repr(cut),
        hint="use a value such as 0.5 or -1",
    )
