"""Arrays of a file into the variables of a backbone: all that fits, or one clear error and nothing assigned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import WeightsError
from crossroads.networks.cuts import cuts, until
from crossroads.networks.weights._matching import Pair, Pairing, Slot, pairings, slots_of
from crossroads.networks.weights._state_dicts import averaged
from crossroads.networks.weights.record import LayerWeights, WeightFile, from_bfloat16

if TYPE_CHECKING:
    import keras

_MEND = "give the weights of this very network, or choose the backbone that they are of"
_FLAT = "it comes behind a flattened map: use the --image-size that the weights were trained at, or those of this very network"


@dataclass(frozen=True, slots=True)
class Assignment:
    """What became of a file.

    Attributes:
        loaded_to: The last cut up to which everything is loaded; None where the whole backbone is. Behind it weights are random.
        layers: Layers that were loaded.
        missing: Layers that the file has nothing for, in order.
        notes: What the user should know.
    """

    loaded_to: str | None
    layers: int
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class _Misfit(Exception):
    """A layer of the file that is not one of the network's."""

    def __init__(self, rule: str, received: str, hint: str = _MEND) -> None:
        super().__init__(rule)
        self.rule, self.received, self.hint = rule, received, hint


_Values = list[list[NDArray[Any]]]
"""What each variable of each pair becomes."""


def assign_weights(backbone: keras.Model, file: WeightFile) -> Assignment:
    """Assign the weights of a file to a backbone, in place.

    Layers are matched by name where names were given, else by their place in the saved model, else by order. PyTorch's arrays are
    turned into the layout of Keras, those of a dense layer behind a flattened map included. A file may hold a head as well, which
    is left out; and it may stop early, which `Assignment.loaded_to` tells. Given both weights and their moving average, the average
    is used, which `Assignment.notes` says.

    Args:
        backbone: A built model.
        file: What `read_weights` made of a file.

    Raises:
        WeightsError: A layer has another shape than the network's, the layers are those of another network, or the file holds
            several networks that fit. Nothing is assigned.
    """
    fits, misfits = _fits(backbone, file)
    if not fits:
        raise _refused(backbone, file, misfits)
    (pairing, values), notes = _chosen(fits, file.origin)
    loaded_to = _loaded_to(backbone, pairing, file)
    for pair, arrays in zip(pairing.pairs, values, strict=True):
        for variable, array in zip(pair.slot.variables, arrays, strict=True):
            variable.assign(array)
        if hasattr(pair.slot.layer, "finalize_state"):  # Normalization computes with copies of its weights
            pair.slot.layer.finalize_state()
    return Assignment(loaded_to, len(pairing.pairs), tuple(slot.name for slot in pairing.missing), notes)


def _fits(backbone: keras.Model, file: WeightFile) -> tuple[list[tuple[Pairing, _Values]], list[_Misfit]]:
    """What fits of each dict of the file, in the surest way in which any of it does."""
    fits: list[tuple[Pairing, _Values]] = []
    misfits: list[_Misfit] = []
    for state in (file, *file.others):
        for rivals in pairings(backbone, state):
            found = []
            for pairing in rivals:
                try:
                    found.append((pairing, _values(pairing, state)))
                except _Misfit as misfit:
                    misfits.append(misfit)
            fits += found
            if found or rivals[0].how == "name":  # names that were given are right: a weaker way might fit by chance
                break
    return fits, misfits


_TRUST = ("name", "place", "order")


def _chosen(fits: list[tuple[Pairing, _Values]], origin: str) -> tuple[tuple[Pairing, _Values], tuple[str, ...]]:
    """The one that fits, with what the user should know. Raises `WeightsError` where several do and none is the better."""
    surest = min(_TRUST.index(pairing.how) for pairing, _ in fits)
    fits = [fit for fit in fits if fit[0].how == _TRUST[surest]]
    most = max(len(pairing.pairs) for pairing, _ in fits)
    first, *others = [fit for fit in fits if len(fit[0].pairs) == most]
    rivals = [first, *(fit for fit in others if not _equal(fit[1], first[1]))]
    if len(rivals) == 1:
        return first, ()
    named = ", ".join(repr(pairing.place or "no prefix") for pairing, _ in rivals)
    means = [fit for fit in rivals if averaged(fit[0].place)]
    if len(means) != 1:
        raise WeightsError(f"{origin} holds several networks that fit", received=named, hint="save only the one you want")
    return means[0], (f"{origin} holds the weights of several networks that fit ({named}): the moving average is used",)


def _equal(values: _Values, others: _Values) -> bool:
    return all(
        np.array_equal(array, other)
        for arrays, theirs in zip(values, others, strict=True)
        for array, other in zip(arrays, theirs, strict=True)
    )


def _refused(backbone: keras.Model, file: WeightFile, misfits: list[_Misfit]) -> WeightsError:
    if misfits:
        return WeightsError(misfits[0].rule, received=misfits[0].received, hint=misfits[0].hint)
    return WeightsError(
        f"{file.origin} has no layer of {backbone.name}",
        received=f"layers {_some([layer.name for layer in file.layers])}",
        hint=f"the network's layers are {_some([slot.name for slot in slots_of(backbone, nested=False)])}; {_MEND}",
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, islice(names, 4)))
    return shown + (", …" if len(names) > 4 else "") if names else "none"


def _values(pairing: Pairing, file: WeightFile) -> _Values:
    """What each pair's variables become. Raises `_Misfit` for the first that does not fit."""
    values = [_converted(pair, file) for pair in pairing.pairs]
    if pairing.skipped:
        raise _Misfit("the layers of the file must be those of the network", f"{_some(pairing.skipped)} in {file.origin} besides")
    return values


def _converted(pair: Pair, file: WeightFile) -> list[NDArray[Any]]:
    expected = [tuple(map(int, variable.shape)) for variable in pair.slot.variables]
    arrays = _of_torch(pair.weights, pair.slot) if file.layout == "torch" else list(pair.weights.arrays)
    arrays = [part_of(array, pair.part, pair.parts) for array in arrays]
    layer, source = f"layer {pair.slot.name!r}", f"of {pair.weights.name!r} in {file.origin}"
    shapes = [array.shape for array in arrays]
    if shapes != expected:
        have, want = _differing(shapes, expected)
        hint = _MEND if pair.slot.flattened is None else _FLAT
        raise _Misfit(f"{layer} takes {_shapes(want)}", f"{_shapes(have)} {source}", hint)
    values = [_plain(array) for array in arrays]
    if not all(np.isfinite(array).all() for array in values):
        raise _Misfit(f"{layer} takes finite numbers", f"NaN or infinity {source}")
    return values


_Shapes = list[tuple[int, ...]]


def _differing(have: _Shapes, want: _Shapes) -> tuple[_Shapes, _Shapes]:
    """The first two shapes that differ; all of them where there are more on one side."""
    if len(have) != len(want):
        return have, want
    return next(([one], [other]) for one, other in zip(have, want, strict=True) if one != other)


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    if len(shapes) == 1:
        return f"the shape {shapes[0]}"
    return f"{len(shapes)} arrays of shapes {', '.join(map(str, shapes))}" if shapes else "no arrays"


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """A type of numbers that every backend takes."""
    if array.dtype.name == "bfloat16":
        return from_bfloat16(array.view(np.uint16))
    return array if array.dtype.kind in "biu" else array.astype(np.float32, copy=False)


def part_of(array: NDArray[Any], part: int, parts: int) -> NDArray[Any]:
    """One group's share of a grouped convolution: the output axis of its kernel (h, w, in / groups, out), and of its bias."""
    size = array.shape[-1] // parts if array.ndim else 0
    return array if parts == 1 or not array.ndim or array.shape[-1] % parts else array[..., part * size : (part + 1) * size]


def _of_torch(weights: LayerWeights, slot: Slot) -> list[NDArray[Any]]:
    """PyTorch's arrays in the order and layout of Keras: kernel, bias; for BatchNorm scale, shift, mean, variance."""
    return [
        from_torch(array, slot) if role == "weight" else array for role, array in zip(weights.roles, weights.arrays, strict=True)
    ]


def from_torch(array: NDArray[Any], slot: Slot) -> NDArray[Any]:
    """PyTorch's ``weight`` in the layout of Keras.

    A convolution (out, in, height, width) becomes (height, width, in, out); a depthwise one (channels * multiplier, 1, height,
    width) becomes (height, width, channels, multiplier). A dense layer (out, in) becomes (in, out), and where its input is a
    flattened map, that input goes from (channels, height, width) to (height, width, channels).
    """
    if array.ndim == 4 and type(slot.layer).__name__ == "DepthwiseConv2D":
        multiplier = int(slot.variables[0].shape[-1])
        if array.shape[0] % multiplier or array.shape[1] != 1:
            return array
        return array[:, 0].reshape(-1, multiplier, *array.shape[2:]).transpose(2, 3, 0, 1)
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim != 2:
        return array
    if slot.flattened is not None and len(slot.flattened) == 3 and np.prod(slot.flattened) == array.shape[1]:
        height, width, channels = slot.flattened
        return array.reshape(-1, channels, height, width).transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
    return array.T


def _loaded_to(backbone: keras.Model, pairing: Pairing, file: WeightFile) -> str | None:
    """The last cut before which nothing is missing; what comes before a cut grows from one to the next, so halving finds it."""
    if not pairing.missing:
        return None
    absent = {id(layer) for slot in pairing.missing for layer in (slot.layer, *slot.owners)}
    places = cuts(backbone)
    low, high = 0, len(places)
    while low < high:
        middle = (low + high) // 2
        if any(id(layer) in absent for layer in until(backbone, places[middle]).layers):
            high = middle
        else:
            low = middle + 1
    if low == 0:
        raise WeightsError(
            f"{file.origin} must hold the first layers of {backbone.name}",
            received=f"none for {pairing.missing[0].name!r}",
            hint=_MEND,
        )
    return places[low - 1].name
