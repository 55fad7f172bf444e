"""Which layer of a file belongs to which layer of a model: several ways to tell, in order of trust."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

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
        automatic: Whether Keras chose the name: it then depends on what else the process has built, and says nothing.
        layer: The layer.
        owners: The models inside the model that it is part of, from the outermost.
        variables: Its variables in the order in which files hold them.
        flattened: Shape (height, width, channels) of the map that was flattened into this layer's input; None where none was.
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
        pairs: Those that the file has something for.
        skipped: Layers of the file for which the model has none although it has for a later one: the file is of another network.
    """

    how: str
    slots: tuple[Slot, ...]
    pairs: tuple[Pair, ...]
    skipped: tuple[str, ...]

    @property
    def missing(self) -> tuple[Slot, ...]:
        """Layers that the file has nothing for."""
        paired = {id(pair.slot.layer) for pair in self.pairs}
        return tuple(slot for slot in self.slots if id(slot.layer) not in paired)


def pairings(model: keras.Model, file: WeightFile) -> Iterator[Pairing]:
    """Every way in which the file may belong to the model, the surest first; the first that fits is right.

    1. By name, where the names of the model were given and not counted up, and at least half of the shorter side is in both.
       A torchvision state dict goes by the table of its names.
    2. By path, where the file is of Keras 3: its place in the model that was saved, which may be nested within a larger one.
    3. By order, where the file is in order.

    In the files of older Keras versions a model inside the saved one counts as one layer; where that leads to nothing, as its
    layers. Layers of the file behind the last one that the model has are a head, and left out.
    """
    for nested in (False, True) if file.folded else (True,):
        slots = slots_of(model, nested=nested)
        layers = _unfolded(file.layers) if file.folded and nested else file.layers
        yield from _by_name(slots, layers, file.layout)
        yield from _by_path(slots, layers)
        if file.ordered and layers:
            yield _pairing("order", slots, layers, dict(zip(map(_identity, slots), layers, strict=False)))


def slots_of(model: keras.Model, *, nested: bool) -> tuple[Slot, ...]:
    """The layers that take weights, in order; models inside the model are opened where `nested`, and one layer each otherwise."""
    return tuple(_slots(model, "", (), nested, _Flat(), set()))


class _Flat:
    """The map that was flattened last, while one walks through the layers."""

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


def snake_case(name: str) -> str:
    """``Conv2D`` as ``conv2d``, ``BatchNormalization`` as ``batch_normalization``: how Keras 3 names what it saves."""
    spaced = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", spaced).lower()


def _identity(slot: Slot) -> int:
    return id(slot.layer)


def _by_name(slots: Sequence[Slot], layers: Sequence[LayerWeights], layout: str) -> Iterator[Pairing]:
    if any(slot.automatic for slot in slots) or len({_spelt(layer.name) for layer in layers}) < len(layers):
        return
    known = {slot.name for slot in slots}
    if layout == "torch":
        for names in NAMES:
            renamed = [replace(layer, name=names.get(layer.name, layer.name)) for layer in layers]
            if {layer.name for layer in renamed} >= set(names.values()) and known & set(names.values()):
                yield _named(slots, renamed)
    if 2 * len(known & _reachable(slots, layers)) >= min(len(known), len(layers)):
        yield _named(slots, layers)


def _reachable(slots: Sequence[Slot], layers: Sequence[LayerWeights]) -> set[str]:
    by_name = {_spelt(layer.name): layer for layer in layers}
    return {slot.name for slot in slots if _match(slot.name, by_name, slots) is not None}


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
    """The model may lie within the saved one: below each path that begins the paths of the file, the most matches win."""
    by_path = {layer.path: layer for layer in layers if layer.path}
    prefixes = {""} | {path[: match.start()] + "/" for path in by_path for match in re.finditer(r"/layers/", path)}
    best = max(sorted(prefixes, key=len), key=lambda prefix: sum(prefix + slot.path in by_path for slot in slots))
    found = {_identity(slot): by_path[best + slot.path] for slot in slots if best + slot.path in by_path}
    if found:
        yield _pairing("place", slots, [layer for layer in layers if layer.path.startswith(best)], found)


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
