"""Matches the layers of a file with the layers of a model, by several methods in order of reliability."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from crossroads.files.text import natural_key
from crossroads.networks.crossings import snake_case
from crossroads.networks.weights._state_dicts import below, prefixes, unwrapped
from crossroads.networks.weights.record import LayerWeights, WeightFile
from crossroads.networks.weights.torchvision import NAMES

if TYPE_CHECKING:
    import keras

Method = Literal["name", "place", "order"]


@dataclass(frozen=True, slots=True)
class ModelLayer:
    """A layer of the model that has weights.

    Attributes:
        name: Name of the layer.
        path: The path at which Keras 3 saves it, such as ``layers/conv2d_3``.
        automatic: Whether Keras chose the name. Such a name depends on what else the process has built, and identifies nothing.
        layer: The Keras layer.
        owners: The nested models that contain it, from the outermost.
        variables: Its variables in the order in which files hold them.
        flattened: Shape (height, width, channels) of the map that was flattened into this layer's input, or None.
    """

    name: str
    path: str
    automatic: bool
    layer: keras.Layer
    owners: tuple[keras.Layer, ...]
    variables: tuple[Any, ...]
    flattened: tuple[int, ...] | None

    @property
    def key(self) -> int:
        """Identifies the Keras layer."""
        return id(self.layer)


@dataclass(frozen=True, slots=True)
class LayerMatch:
    """A layer of the model with the weights that it takes: those of a layer of the file.

    If `parts` is more than one, it takes only slice `part` of `parts` equal slices along the output axis.
    """

    target: ModelLayer
    weights: LayerWeights
    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Match:
    """One way to match a file with a model.

    Attributes:
        method: What the layers were matched by.
        targets: All layers of the model that have weights.
        layers: The layers of the model that the file has weights for.
        skipped: Layers of the file that match no layer of the model although a later one does. They show that the file belongs to
            another network.
        place: The place of the layers in the file: the dict, then the prefix of their names; "" for the whole file.
    """

    method: Method
    targets: tuple[ModelLayer, ...]
    layers: tuple[LayerMatch, ...]
    skipped: tuple[str, ...]
    place: str = ""

    @property
    def missing(self) -> tuple[ModelLayer, ...]:
        """Layers of the model that the file has no weights for."""
        matched = {match.target.key for match in self.layers}
        return tuple(target for target in self.targets if target.key not in matched)


def matches(model: keras.Model, file: WeightFile) -> Iterator[tuple[Match, ...]]:
    """Yields the ways to match the file with the model, the most reliable first. The first one that fits is right.

    Each item is one match, or several of equal reliability if the names match below several prefixes.

    1. By name, if the user named the layers of the model, and at least half of the names of the shorter list are in both lists.
       The names of a torchvision state dict are translated by a table. A prefix of all names is ignored.
    2. By path in a file of Keras 3, that is, by place in the saved model. The model may be nested within a larger one, as one
       model or as several.
    3. By order, if the file is in the order of the model.

    In the files of older Keras versions a nested model counts as one layer. If that does not fit, its layers replace it. Layers of
    the file after the last one that matches are a head and are ignored.
    """
    for nested in (False, True) if file.folded else (True,):
        targets = layers_with_weights(model, nested=nested)
        layers = _unfolded(file.layers) if file.folded and nested else file.layers
        yield from _by_name(targets, layers, file)
        yield from ((match,) for match in _by_path(targets, layers))
        # Single numbers, such as the steps of a moving average, are not a layer.
        arrays = [layer for layer in layers if file.layout != "torch" or any(array.ndim for array in layer.arrays)]
        if file.ordered and arrays:
            ordered = {target.key: layer for target, layer in zip(targets, arrays, strict=False)}
            yield (replace(_match("order", targets, arrays, ordered), place=file.place),)


def layers_with_weights(model: keras.Model, *, nested: bool) -> tuple[ModelLayer, ...]:
    """Returns the layers that have weights, in order. A nested model counts as its layers if `nested`, otherwise as one layer."""
    return tuple(_walk(model, "", (), nested, _Flattened(), set()))


class _Flattened:
    """The shape of the map that was flattened last during the walk through the layers."""

    shape: tuple[int, ...] | None = None


def _walk(
    model: keras.Model, prefix: str, owners: tuple[keras.Layer, ...], nested: bool, flattened: _Flattened, seen: set[int]
) -> Iterator[ModelLayer]:
    counts: Counter[str] = Counter()
    for layer in model.layers:
        kind = snake_case(type(layer).__name__)
        path = f"{prefix}layers/{kind}{f'_{counts[kind]}' if counts[kind] else ''}"
        counts[kind] += 1
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        if kind == "flatten":
            flattened.shape = tuple(layer.input.shape[1:])
        if nested and hasattr(layer, "layers"):
            yield from _walk(layer, f"{path}/", (*owners, layer), nested, flattened, seen)
        elif layer.weights:
            automatic = re.fullmatch(rf"{kind}(_\d+)?", layer.name) is not None
            # Keras' older files hold the trainable weights first, also for a layer that is itself a model.
            variables = (*layer.trainable_weights, *layer.non_trainable_weights) if hasattr(layer, "layers") else layer.weights
            yield ModelLayer(layer.name, path, automatic, layer, owners, tuple(variables), flattened.shape)
            if kind == "dense":
                flattened.shape = None


# By name


def _by_name(targets: Sequence[ModelLayer], layers: Sequence[LayerWeights], file: WeightFile) -> Iterator[tuple[Match, ...]]:
    if any(target.automatic for target in targets):
        return
    for known in (layers, unwrapped(layers) if file.layout == "torch" else None):
        rivals = tuple(_below_prefixes(targets, known, file)) if known is not None else ()
        if rivals:
            yield rivals
            return


def _below_prefixes(targets: Sequence[ModelLayer], layers: Sequence[LayerWeights], file: WeightFile) -> Iterator[Match]:
    """Yields a match for each prefix with the most matching names. If names match without a prefix, yields only that match."""
    names = {target.name for target in targets}
    tables = [table for table in NAMES if file.layout == "torch" and names & set(table.values())]
    for table in (*tables, None):
        wanted = set(table) if table else {_spelled(form) for name in names for form in (name, name.rpartition("_")[0])} - {""}
        candidates: dict[str, tuple[int, list[LayerWeights]]] = {}
        for prefix in prefixes(layers, wanted, str if table else _spelled):
            inside = below(layers, prefix)
            if count := _matching_names(targets, inside, layers, table):
                candidates[prefix] = count, inside
        most = max((count for count, _ in candidates.values()), default=0)
        for prefix, (count, inside) in candidates.items():
            if not prefix or ("" not in candidates and count == most):
                renamed = [replace(layer, name=table.get(layer.name, layer.name)) for layer in inside] if table else inside
                yield replace(_named(targets, renamed), place=f"{file.place}.{prefix}".strip("./"))
        if candidates:
            return


def _matching_names(
    targets: Sequence[ModelLayer], inside: Sequence[LayerWeights], layers: Sequence[LayerWeights], table: Mapping[str, str] | None
) -> int:
    """Counts the names of the model, or of a table for it, among the layers below a prefix. Returns 0 if they are too few."""
    by_name = {_spelled(layer.name): layer for layer in inside}
    if len(by_name) < len(inside):
        return 0
    if table is not None:
        return len(table) if set(table) <= {layer.name for layer in inside} else 0
    known = {target.name for target in targets}
    count = sum(_weights_for(name, by_name, targets) is not None for name in known)
    # If only a part of the network matches below a prefix, this prefix must hold most of the file. Otherwise the match may be a
    # block of another network.
    convincing = count == len(known) or 2 * len(inside) >= len(layers)
    return count if convincing and 2 * count >= min(len(known), len(inside)) else 0


def _named(targets: Sequence[ModelLayer], layers: Sequence[LayerWeights]) -> Match:
    by_name = {_spelled(layer.name): layer for layer in layers}
    weights = ((target, _weights_for(target.name, by_name, targets)) for target in targets)
    matched = tuple(LayerMatch(target, *taken) for target, taken in weights if taken is not None)
    return Match("name", tuple(targets), matched, _skipped(layers, matched))


def _spelled(name: str) -> str:
    """Returns a name as Keras 3 spells it. Older versions of Keras allowed ``/`` in names."""
    return name.replace("/", "_")


def _weights_for(
    name: str, by_name: Mapping[str, LayerWeights], targets: Sequence[ModelLayer]
) -> tuple[LayerWeights, int, int] | None:
    """Returns the layer of this name with part 0 of 1.

    If a network splits the grouped convolution ``conv2`` into ``conv2_1`` and ``conv2_2``, ``conv2_2`` takes part 1 of 2.
    """
    name = _spelled(name)
    if name in by_name:
        return by_name[name], 0, 1
    stem, _, number = name.rpartition("_")
    if stem not in by_name or not number.isdecimal() or any(target.name == stem for target in targets):
        return None
    parts = sum(re.fullmatch(rf"{re.escape(stem)}_\d+", target.name) is not None for target in targets)
    return (by_name[stem], int(number) - 1, parts) if 1 <= int(number) <= parts else None


# By path

_ByPath = dict[str, LayerWeights]


def _by_path(targets: Sequence[ModelLayer], layers: Sequence[LayerWeights]) -> Iterator[Match]:
    """Yields the match by paths, if there is one. The model may be nested in the saved one, so every prefix of a path is tried.

    It may also be spread over several models within the saved one, as in a network that was frozen up to a layer. If that is not
    certain, layers that may come before the first one count as skipped, and the file is refused.
    """
    by_path = {layer.path: layer for layer in layers if layer.path}
    starts = {""} | {path[: match.start()] + "/" for path in by_path for match in re.finditer(r"/layers/", path)}
    models = {
        start: {path.removeprefix(start): layer for path, layer in by_path.items() if path.startswith(start)}
        for start in sorted(starts, key=lambda start: (start.count("/"), natural_key(start)))
    }
    start, inside = max(models.items(), key=lambda item: len(_taken(targets, item[1])))  # the first of equals
    taken = _taken(targets, inside)
    if not taken:
        return
    whole = len(taken) == len(targets) == len(inside)
    earlier = () if whole else _earlier(by_path, start, {_kind(target.path) for target in targets if target.key in taken})
    if earlier or len(taken) < len(targets):
        series = [
            joined for joined in map(_in_series, _nested_alike(models)) if _takes_first_layers(_taken(targets, joined), joined)
        ]
        longest = max(series, key=lambda joined: len(_taken(targets, joined)), default={})
        if len(more := _taken(targets, longest)) > len(taken):
            yield _match("place", targets, list(longest.values()), more)
            return
    match = _match("place", targets, list(inside.values()), taken)
    yield replace(match, skipped=(*earlier, *match.skipped))


def _taken(targets: Sequence[ModelLayer], by_path: Mapping[str, LayerWeights]) -> dict[int, LayerWeights]:
    """Returns the weights at the path of each layer of the model."""
    return {target.key: by_path[target.path] for target in targets if target.path in by_path}


def _earlier(by_path: Mapping[str, LayerWeights], start: str, kinds: set[str]) -> tuple[str, ...]:
    """Returns the names of layers of these kinds outside of the model at `start` that may come before it."""
    return tuple(layer.name for path, layer in by_path.items() if _may_precede(path, start) and _kind(path) in kinds)


def _may_precede(path: str, start: str) -> bool:
    """Returns whether a layer outside of the model at `start` may come before it. Numbers show the order only within one kind.

    Example: ``layers/conv2d_1`` may precede ``layers/functional/``, because a convolution and a model are counted separately, but
    ``layers/functional_2/layers/conv2d`` comes after ``layers/functional_1/``.
    """
    if path.startswith(start):
        return False
    own_parts, parts = start.strip("/").split("/"), path.split("/")
    own, other = next((pair for pair in zip(own_parts, parts, strict=False) if pair[0] != pair[1]), ("", ""))
    return _kind(own) != _kind(other) or _number(other) < _number(own)


def _nested_alike(models: Mapping[str, _ByPath]) -> Iterator[list[_ByPath]]:
    """Yields the contents of models that are nested in the same way, in order, if there is more than one."""
    groups: dict[tuple[str, ...], list[_ByPath]] = {}
    for start, inside in models.items():
        groups.setdefault(tuple(map(_kind, start.split("/"))), []).append(inside)
    yield from (group for group in groups.values() if len(group) > 1)


def _in_series(models: Sequence[_ByPath]) -> _ByPath:
    """Returns the layers of successive models by the paths that they would have in one model.

    The numbers of each kind continue from one model to the next. Example: after ``layers/conv2d`` and ``layers/conv2d_1`` of the
    first model, ``layers/conv2d`` of the second one becomes ``layers/conv2d_2``.
    """
    joined: _ByPath = {}
    counts: Counter[str] = Counter()
    for inside in models:
        next_counts = Counter(counts)
        for path, layer in inside.items():
            root, _, rest = path.partition("/")
            name, _, inner = rest.partition("/")
            kind = _kind(name)
            number = counts[kind] + _number(name)
            next_counts[kind] = max(next_counts[kind], number + 1)
            joined["/".join(filter(None, (root, f"{kind}_{number}" if number else kind, inner)))] = layer
        counts = next_counts
    return joined


def _takes_first_layers(taken: Mapping[int, LayerWeights], by_path: Mapping[str, LayerWeights]) -> bool:
    """Returns whether the layers that are taken are the first ones of each kind. Only then are the paths of `_in_series` right."""
    used = {id(layer) for layer in taken.values()}
    last: dict[str, int] = {}
    for path, layer in by_path.items():
        kind, number = _outermost(path)
        if id(layer) in used:
            last[kind] = max(last.get(kind, -1), number)
    outermost = ((layer, *_outermost(path)) for path, layer in by_path.items())
    return all(id(layer) in used or number > last.get(kind, -1) for layer, kind, number in outermost)


def _outermost(path: str) -> tuple[str, int]:
    """Returns kind and number of the outermost layer of a path."""
    name = path.split("/")[1] if "/" in path else path
    return _kind(name), _number(name)


def _kind(path: str) -> str:
    """Returns the kind of a layer: ``conv2d`` for ``layers/conv2d_3``."""
    return re.sub(r"_\d+$", "", path.rpartition("/")[2])


def _number(name: str) -> int:
    """Returns the number of a layer: 3 for ``conv2d_3``, 0 for ``conv2d``."""
    match = re.search(r"_(\d+)$", name)
    return int(match[1]) if match else 0


def _match(
    method: Method, targets: Sequence[ModelLayer], layers: Sequence[LayerWeights], taken: Mapping[int, LayerWeights]
) -> Match:
    matched = tuple(LayerMatch(target, taken[target.key]) for target in targets if target.key in taken)
    return Match(method, tuple(targets), matched, _skipped(layers, matched))


def _skipped(layers: Sequence[LayerWeights], matched: Sequence[LayerMatch]) -> tuple[str, ...]:
    """Returns the unused layers of the file that come before a used one on the same track."""
    used = {match.weights.name for match in matched}
    last = {layer.track: index for index, layer in enumerate(layers) if layer.name in used}
    return tuple(layer.name for index, layer in enumerate(layers) if layer.name not in used and index < last.get(layer.track, -1))


def _unfolded(layers: Sequence[LayerWeights]) -> tuple[LayerWeights, ...]:
    """Replaces each nested model, which is one layer in an older file, by its layers: ``conv1/kernel:0`` belongs to ``conv1``."""
    unfolded: list[LayerWeights] = []
    for layer in layers:
        owners = [role.rpartition("/")[0] for role in layer.roles]
        if layer.path or len(set(owners)) < 2:
            unfolded.append(layer)
            continue
        for owner in dict.fromkeys(owners):
            indices = [index for index, other in enumerate(owners) if other == owner]
            roles, arrays = tuple(layer.roles[i] for i in indices), tuple(layer.arrays[i] for i in indices)
            unfolded.append(replace(layer, name=owner or layer.name, roles=roles, arrays=arrays))
    return tuple(unfolded)
