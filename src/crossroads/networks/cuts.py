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
    """A place where a backbone can be taken apart.

    Attributes:
        name: Of the layer whose output crosses. Layers that were given no name are numbered from this backbone's first, so that
            the name is the same in every process.
        index: Place among `cuts`, from 0; None for a layer that could be a cut and is not one of those, such as a convolution
            whose normalisation and activation follow.
        depth: Share of the layers with kernels that are passed on the longest way here, in (0, 1].
        shape: Of the tensor, without the images' axis: (height, width, channels) or (channels,).
        multiply_adds: For one image, up to here.
        parameters: Numbers in the weights, up to here.
        activations: Numbers that layers give out for one image, up to here.
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
    """The cuts worth choosing from, in order; the last is the backbone's end.

    One for each run of layers up to the next layer with a kernel, or the next branching with one: convolution, normalisation and
    activation count once, and the cut is the activation. Padding, dropout, flattening and global pooling at the end of a run are
    left to what comes after, so that the map can still be pooled in another way. What comes before the first kernel is no cut.

    Raises:
        BackboneError: The backbone has no graph of layers, more than one input or output, or no known image size.
    """
    graph = graph_of(backbone)
    return _described(graph, _landmarks(graph), numbered=True)


def find(backbone: keras.Model, cut: str | int | float) -> Cut:
    """The cut that the user means.

    Args:
        backbone: Where to look.
        cut: Name of a layer where one tensor crosses; or a place among `cuts`, negative from the end; or a share of depth in
            (0, 1], for the nearest of `cuts`, the deeper of two. As a number, or as the text of one: ``7`` is a place, ``0.6`` a
            share.

    Raises:
        BackboneError: No such layer, or more than one tensor crosses there, or a number out of range.
    """
    if isinstance(cut, bool):
        raise _neither(cut)
    if isinstance(cut, str):
        named = _by_name(backbone, cut)
        if named is not None:
            return named
        cut = _number(backbone, cut)
    if isinstance(cut, int):
        return _by_index(cuts(backbone), cut)
    return _by_depth(cuts(backbone), cut)


def until(backbone: keras.Model, cut: Cut) -> keras.Model:
    """The backbone up to `cut`: images in, float32 (n, *cut.shape) out. Layers and weights are shared."""
    graph = graph_of(backbone)
    return keras.Model(graph.source, _tensor(backbone, graph, cut), name=f"{backbone.name}_to_{cut.name}")


def after(backbone: keras.Model, cut: Cut) -> keras.Model:
    """The backbone from `cut` on: (n, *cut.shape) in, what the backbone gives out. Layers and weights are shared.

    ``after(backbone, cut)(until(backbone, cut)(images))`` is ``backbone(images)``, bit for bit. After the last cut nothing is left:
    the model gives what it is given.
    """
    graph = graph_of(backbone)
    return _part(_tensor(backbone, graph, cut), graph.sink, f"{backbone.name}_from_{cut.name}", cut.name)


def between(backbone: keras.Model, first: Cut, last: Cut) -> keras.Model:
    """The backbone from `first` to `last`: (n, *first.shape) in, (n, *last.shape) out. Layers and weights are shared.

    Raises:
        BackboneError: `last` comes before `first`.
    """
    graph = graph_of(backbone)
    order = {crossing.name: crossing.position for crossing in graph.crossings()}
    start, end = _tensor(backbone, graph, first), _tensor(backbone, graph, last)
    if order[last.name] < order[first.name]:
        raise BackboneError(
            "a part of a backbone begins at a cut and ends at a later one",
            received=f"from {first.name!r} to {last.name!r}",
            hint=f"use from {last.name!r} to {first.name!r}",
        )
    return _part(start, end, f"{backbone.name}_from_{first.name}_to_{last.name}", first.name)


def blocks(model: keras.Model) -> tuple[tuple[keras.Layer, ...], ...]:
    """The layers with weights, grouped between successive cuts, from the input on.

    Every layer with weights is in exactly one group; a nested model is one layer. None where there are no weights.

    Raises:
        BackboneError: The model has no graph of layers, or more than one input or output.
    """
    graph = graph_of(model)
    edges = [-1, *(crossing.position for crossing in _landmarks(graph))]
    groups = []
    for below, upto in pairwise(edges):
        layers = {id(c.operation): c.operation for c in graph.calls[below + 1 : upto + 1] if weights_of(c.operation)}
        groups.append(tuple(layers.values()))
    return tuple(group for group in groups if group)


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
"""Layers that compute no feature: a cut below them keeps what they drop, and pads nothing for the next convolution."""


def _landmarks(graph: LayerGraph) -> list[Crossing]:
    crossings = list(graph.crossings())
    kernels = list(accumulate((call.weighted for call in graph.calls), initial=0))
    found: list[Crossing] = []
    run: list[Crossing] = []
    for crossing in crossings:
        if run and kernels[crossing.position + 1] > kernels[run[-1].position + 1]:
            found.append(_best(graph, run))
            run = []
        if kernels[crossing.position + 1]:
            run.append(crossing)
    # The end is always a cut: all that there is to a network without kernels, and what follows the last one.
    return found + crossings[-1:]


def _best(graph: LayerGraph, run: list[Crossing]) -> Crossing:
    """The last of a run of crossings that computes something."""
    active = [crossing for crossing in run if not isinstance(graph.calls[crossing.position].operation, _PASSIVE)]
    return (active or run)[-1]


def _described(graph: LayerGraph, crossings: list[Crossing], *, numbered: bool) -> tuple[Cut, ...]:
    """The cuts at `crossings`, with the costs added up to each."""
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
    """For each call the numbers in those weights that no earlier call has."""
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
    raise BackboneError("a cut belongs to the backbone that it was found in", received=f"{cut.name!r} for {backbone.name!r}")


def _part(start: Any, end: Any, name: str, below: str) -> keras.Model:
    """From one tensor to another, as a model whose input is named after the layer below it."""
    if start is end:
        same = keras.Input(batch_shape=start.shape, dtype=start.dtype, name=f"{below}_output")
        return keras.Model(same, keras.layers.Identity(name="end")(same), name=name)
    part = keras.Model(start, end, name=name)
    # Keras makes the input layer itself and names it after a counter of the process; a saved file should not depend on that.
    part.inputs[0]._keras_history.operation.name = f"{below}_output"
    return part


def _by_name(backbone: keras.Model, name: str) -> Cut | None:
    """The cut at the layer `name`, None where there is no such layer and it may be a number.

    Raises:
        BackboneError: There is such a layer, and it is no cut.
    """
    graph = graph_of(backbone)
    known = {call.name for call in graph.calls}
    if name not in known:
        # The name that Keras gave it in this process, as `model.summary()` prints it.
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
    raise _no_cut(backbone, graph, name)


def _no_cut(backbone: keras.Model, graph: LayerGraph, name: str) -> BackboneError:
    """The error for a layer that is there and is no cut, with the cuts around it."""
    position = max(index for index, call in enumerate(graph.calls) if call.name == name)
    landmarks = _landmarks(graph)
    below = [crossing.name for crossing in landmarks if crossing.position < position][-1:]
    above = [crossing.name for crossing in landmarks if crossing.position > position][:1]
    return BackboneError(
        "a cut is a layer where exactly one tensor crosses, with a kernel before it",
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
    # A misspelt name is nearest to one of all the layers that could be cut at, not only of those that are listed.
    hint = did_you_mean(text, [*names, *(c.name for c in graph_of(backbone).crossings() if c.name not in names)])
    hint += f"{'' if hint.endswith('?') else ';'} `crossroads backbones` with the network's name lists where it can be cut"
    raise BackboneError(f"a cut must name a layer of {backbone.name!r}", received=repr(text), hint=hint)


def _by_index(known: tuple[Cut, ...], index: int) -> Cut:
    if not -len(known) <= index < len(known):
        raise BackboneError(
            f"a cut's place is a whole number from 0 to {len(known) - 1}, or from -1 to {-len(known)} counted from the end",
            received=str(index),
            hint=f"use {0 if index < 0 else len(known) - 1}, or a share of depth such as 0.5",
        )
    return known[index]


def _by_depth(known: tuple[Cut, ...], share: float) -> Cut:
    if not (isinstance(share, float) and 0 < share <= 1):
        raise _neither(share)
    return min(known, key=lambda cut: (abs(cut.depth - share), -cut.depth))


def _neither(cut: object) -> BackboneError:
    return BackboneError(
        "a cut is a layer's name, a place among the cuts, or a share of depth above 0 and up to 1",
        received=repr(cut),
        hint="use such as 0.5 or -1",
    )
