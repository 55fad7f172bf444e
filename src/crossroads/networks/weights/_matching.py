"""Matches the layers of a file with the layers of a model, by several ways in order of reliability."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from crossroads.files.text import natural_key
from crossroads.networks.graph import snake_case
from crossroads.networks.weights._state_dicts import below, prefixes, unwrapped
from crossroads.networks.weights.record import LayerWeights, WeightFile
from crossroads.networks.weights.torchvision import NAMES

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, slots=True)
class Slot:
    """A layer of the model that takes weights.

    Attributes:
        name: Its name.
        path: Where Keras 3 saves it, such as ``layers/conv2d_3``.
        automatic: Whether Keras chose the name: it then depends on what else the process has built, and identifies nothing.
        layer: The layer.
        owners: The models inside the model that it is part of, from the outermost.
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


@dataclass(frozen=True, slots=True)
class Pair:
    """A layer of the model with the layer of the file that it takes, or part `part` of `parts` along the output axis."""

    slot: Slot
    weights: LayerWeights
    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Pairing:
    """One way to match a file with a model.

    Attributes:
        how: "name", "place" or "order".
        slots: All layers of the model that take weights.
        pairs: The layers that the file has weights for.
        skipped: Layers of the file for which the model has none although it has for a later one: the file is of another network.
        place: Where in the file the layers stand: the dict, then the prefix of their names; "" for the whole file.
    """

    how: str
    slots: tuple[Slot, ...]
    pairs: tuple[Pair, ...]
    skipped: tuple[str, ...]
    place: str = ""

    @property
    def missing(self) -> tuple[Slot, ...]:
        """Layers that the file has no weights for."""
        paired = {id(pair.slot.layer) for pair in self.pairs}
        return tuple(slot for slot in self.slots if id(slot.layer) not in paired)


def pairings(model: keras.Model, file: WeightFile) -> Iterator[tuple[Pairing, ...]]:
    """Yields every way to match the file with the model, the most reliable first; the first that fits is right.

    Each is one pairing, or several of equal reliability: names that match below several prefixes.

    1. By name, where the names of the model were given and not counted up, and at least half of the shorter side is in both.
       A torchvision state dict goes by the table of its names. A prefix before all of these names is ignored.
    2. By path, where the file is of Keras 3: its place in the model that was saved, which may be nested within a larger one, also
       in several parts.
    3. By order, where the file is in order.

    In the files of older Keras versions a model inside the saved one counts as one layer; where that leads to nothing, as its
    layers. Layers of the file behind the last one that the model has are a head, and left out.
    """
    for nested in (False, True) if file.folded else (True,):
        slots = slots_of(model, nested=nested)
        layers = _unfolded(file.layers) if file.folded and nested else file.layers
        yield from _by_name(slots, layers, file)
        yield from ((pairing,) for pairing in _by_path(slots, layers))
        # Single numbers, such as the steps of a moving average, are not a layer.
        arrays = [layer for layer in layers if file.layout != "torch" or any(array.ndim for array in layer.arrays)]
        if file.ordered and arrays:
            ordered = _pairing("order", slots, arrays, dict(zip(map(_identity, slots), arrays, strict=False)))
            yield (replace(ordered, place=file.place),)


def slots_of(model: keras.Model, *, nested: bool) -> tuple[Slot, ...]:
    """The layers that take weights, in order; models inside the model are opened where `nested`, and one layer each otherwise."""
    return tuple(_slots(model, "", (), nested, _Flat(), set()))


class _Flat:
    """The shape of the map that was flattened last during the walk through the layers."""

    shape: tuple[int, ...] | None = None


def _slots(
    model: keras.Model, prefix: str, owners: tuple[keras.Layer, ...], nested: bool, flat: _Flat, seen: set[int]
) -> Iterator[Slot]:
    counts: Counter[str] = Counter()
    for layer in model.layers:
        kind = snake_case(type(layer).__name__)
        path = f"{prefix}layers/{kind}{f'_{counts[kind]}' if counts[kind] else ''}"
        counts[kind] += 1
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        if kind == "flatten":
            flat.shape = tuple(layer.input.shape[1:])
        if nested and hasattr(layer, "layers"):
            yield from _slots(layer, f"{path}/", (*owners, layer), nested, flat, seen)
        elif layer.weights:
            automatic = re.fullmatch(rf"{kind}(_\d+)?", layer.name) is not None
            # Keras' older files hold what is trained first, also of a layer that is itself a model.
            variables = (*layer.trainable_weights, *layer.non_trainable_weights) if hasattr(layer, "layers") else layer.weights
            yield Slot(layer.name, path, automatic, layer, owners, tuple(variables), flat.shape)
            if kind == "dense":
                flat.shape = None


def _identity(slot: Slot) -> int:
    return id(slot.layer)


def _by_name(slots: Sequence[Slot], layers: Sequence[LayerWeights], file: WeightFile) -> Iterator[tuple[Pairing, ...]]:
    if any(slot.automatic for slot in slots):
        return
    for known in (layers, unwrapped(layers) if file.layout == "torch" else None):
        rivals = tuple(_below_prefixes(slots, known, file)) if known is not None else ()
        if rivals:
            yield rivals
            return


def _below_prefixes(slots: Sequence[Slot], layers: Sequence[LayerWeights], file: WeightFile) -> Iterator[Pairing]:
    """One pairing for each prefix below which the most names of the model stand; the one without a prefix, if it is among them."""
    names = {slot.name for slot in slots}
    tables = [table for table in NAMES if file.layout == "torch" and names & set(table.values())]
    for table in (*tables, None):
        wanted = set(table) if table else {_spelt(form) for name in names for form in (name, name.rpartition("_")[0])} - {""}
        found: dict[str, tuple[int, list[LayerWeights]]] = {}
        for prefix in prefixes(layers, wanted, str if table else _spelt):
            inside = below(layers, prefix)
            if matches := _matches(slots, inside, layers, table):
                found[prefix] = matches, inside
        most = max((matches for matches, _ in found.values()), default=0)
        for prefix, (matches, inside) in found.items():
            if not prefix or ("" not in found and matches == most):
                renamed = [replace(layer, name=table.get(layer.name, layer.name)) for layer in inside] if table else inside
                yield replace(_named(slots, renamed), place=f"{file.place}.{prefix}".strip("./"))
        if found:
            return


def _matches(
    slots: Sequence[Slot], inside: Sequence[LayerWeights], layers: Sequence[LayerWeights], table: Mapping[str, str] | None
) -> int:
    """How many names of the model, or of a table for it, stand among layers below a prefix; 0 where too few do."""
    by_name = {_spelt(layer.name): layer for layer in inside}
    if len(by_name) < len(inside):
        return 0
    if table is not None:
        return len(table) if set(table) <= {layer.name for layer in inside} else 0
    known = {slot.name for slot in slots}
    matches = sum(_match(name, by_name, slots) is not None for name in known)
    # Below a prefix a part of the network must be most of the file: else it may be a block of another one.
    telling = matches == len(known) or 2 * len(inside) >= len(layers)
    return matches if telling and 2 * matches >= min(len(known), len(inside)) else 0


def _named(slots: Sequence[Slot], layers: Sequence[LayerWeights]) -> Pairing:
    by_name = {_spelt(layer.name): layer for layer in layers}
    found = ((slot, _match(slot.name, by_name, slots)) for slot in slots)
    pairs = tuple(Pair(slot, *match) for slot, match in found if match is not None)
    return Pairing("name", tuple(slots), pairs, _skipped(layers, pairs))


def _spelt(name: str) -> str:
    """Keras 3 allows no ``/`` in the name of a layer; older versions did."""
    return name.replace("/", "_")


def _match(name: str, by_name: Mapping[str, LayerWeights], slots: Sequence[Slot]) -> tuple[LayerWeights, int, int] | None:
    """The layer of this name; or, for ``conv2_1`` and ``conv2_2``, the halves of a grouped convolution ``conv2``."""
    name = _spelt(name)
    if name in by_name:
        return by_name[name], 0, 1
    stem, _, number = name.rpartition("_")
    if stem not in by_name or not number.isdecimal() or any(slot.name == stem for slot in slots):
        return None
    parts = sum(re.fullmatch(rf"{re.escape(stem)}_\d+", slot.name) is not None for slot in slots)
    return (by_name[stem], int(number) - 1, parts) if 1 <= int(number) <= parts else None


def _by_path(slots: Sequence[Slot], layers: Sequence[LayerWeights]) -> Iterator[Pairing]:
    """The model may lie within the saved one: below each path that begins the paths of the file, the most matches win.

    It may also lie in several models within the saved one, one behind the other, as where a network was frozen up to a layer.
    Where that is not certain, layers that may come before the first are named as skipped: the file is refused.
    """
    by_path = {layer.path: layer for layer in layers if layer.path}
    starts = {""} | {path[: match.start()] + "/" for path in by_path for match in re.finditer(r"/layers/", path)}
    models = {
        start: {path.removeprefix(start): layer for path, layer in by_path.items() if path.startswith(start)}
        for start in sorted(starts, key=lambda start: (start.count("/"), natural_key(start)))
    }
    start, inside = max(models.items(), key=lambda one: len(_found(slots, one[1])))  # the first of equals
    found = _found(slots, inside)
    if not found:
        return
    whole = len(found) == len(slots) == len(inside)
    kinds = {_kind(slot.path) for slot in slots if _identity(slot) in found}
    before = () if whole else tuple(it.name for path, it in by_path.items() if _may_precede(path, start) and _kind(path) in kinds)
    if before or len(found) < len(slots):
        series = [one for one in (_in_series(mates) for mates in _mates(models)) if _unbroken(_found(slots, one), one)]
        joined = max(series, key=lambda one: len(_found(slots, one)), default={})
        if len(more := _found(slots, joined)) > len(found):
            yield _pairing("place", slots, list(joined.values()), more)
            return
    pairing = _pairing("place", slots, list(inside.values()), found)
    yield replace(pairing, skipped=(*before, *pairing.skipped))


def _found(slots: Sequence[Slot], by_path: Mapping[str, LayerWeights]) -> dict[int, LayerWeights]:
    return {_identity(slot): by_path[slot.path] for slot in slots if slot.path in by_path}


def _may_precede(path: str, start: str) -> bool:
    """Whether a layer outside of the model at `start` may come before it: only those of one kind are counted in order."""
    if path.startswith(start):
        return False
    ours, theirs = start.strip("/").split("/"), path.split("/")
    mine, other = next((pair for pair in zip(ours, theirs, strict=False) if pair[0] != pair[1]), ("", ""))
    return _kind(mine) != _kind(other) or _number(other) < _number(mine)


def _mates(models: Mapping[str, dict[str, LayerWeights]]) -> Iterator[list[dict[str, LayerWeights]]]:
    """What lies in models that are nested in the same way, in order: where there is more than one of such."""
    alike: dict[tuple[str, ...], list[dict[str, LayerWeights]]] = {}
    for start, inside in models.items():
        alike.setdefault(tuple(map(_kind, start.split("/"))), []).append(inside)
    yield from (mates for mates in alike.values() if len(mates) > 1)


def _in_series(mates: Sequence[Mapping[str, LayerWeights]]) -> dict[str, LayerWeights]:
    """The layers of several models by the paths that they have in one: those of a kind are counted on."""
    joined: dict[str, LayerWeights] = {}
    counts: Counter[str] = Counter()
    for inside in mates:
        seen = Counter(counts)
        for path, layer in inside.items():
            root, _, rest = path.partition("/")
            name, _, inner = rest.partition("/")
            number = counts[kind := _kind(name)] + _number(name)
            seen[kind] = max(seen[kind], number + 1)
            joined["/".join(filter(None, (root, f"{kind}_{number}" if number else kind, inner)))] = layer
        counts = seen
    return joined


def _unbroken(found: Mapping[int, LayerWeights], by_path: Mapping[str, LayerWeights]) -> bool:
    """Whether the layers that are taken are the first of each kind, so that counting on went right."""
    taken = {id(layer) for layer in found.values()}
    last: dict[str, int] = {}
    for path, layer in by_path.items():
        if id(layer) in taken:
            last[_outer(path)[0]] = max(last.get(_outer(path)[0], -1), _outer(path)[1])
    return all(id(layer) in taken or _outer(path)[1] > last.get(_outer(path)[0], -1) for path, layer in by_path.items())


def _outer(path: str) -> tuple[str, int]:
    """Kind and number of the outermost layer of a path."""
    name = path.split("/")[1] if "/" in path else path
    return _kind(name), _number(name)


def _kind(path: str) -> str:
    """``layers/conv2d_3`` is of the kind ``conv2d``."""
    return re.sub(r"_\d+$", "", path.rpartition("/")[2])


def _number(name: str) -> int:
    """``conv2d_3`` is number 3, ``conv2d`` number 0."""
    match = re.search(r"_(\d+)$", name)
    return int(match[1]) if match else 0


def _pairing(how: str, slots: Sequence[Slot], layers: Sequence[LayerWeights], found: Mapping[int, LayerWeights]) -> Pairing:
    pairs = tuple(Pair(slot, found[_identity(slot)]) for slot in slots if _identity(slot) in found)
    return Pairing(how, tuple(slots), pairs, _skipped(layers, pairs))


def _skipped(layers: Sequence[LayerWeights], pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Layers of the file that nothing takes, and behind which, on the same track, there is one that something takes."""
    used = {pair.weights.name for pair in pairs}
    last = {layer.track: index for index, layer in enumerate(layers) if layer.name in used}
    return tuple(layer.name for index, layer in enumerate(layers) if layer.name not in used and index < last.get(layer.track, -1))


def _unfolded(layers: Sequence[LayerWeights]) -> tuple[LayerWeights, ...]:
    """An older file holds a model inside the model as one layer; the names of its arrays, ``conv1/kernel:0``, tell its layers."""
    unfolded: list[LayerWeights] = []
    for layer in layers:
        owners = [role.rpartition("/")[0] for role in layer.roles]
        if layer.path or len(set(owners)) < 2:
            unfolded.append(layer)
            continue
        for owner in dict.fromkeys(owners):
            mine = [index for index, one in enumerate(owners) if one == owner]
            roles, arrays = tuple(layer.roles[i] for i in mine), tuple(layer.arrays[i] for i in mine)
            unfolded.append(replace(layer, name=owner or layer.name, roles=roles, arrays=arrays))
    return tuple(unfolded)
