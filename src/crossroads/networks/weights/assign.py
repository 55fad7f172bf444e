"""Assigns the arrays of a file to the variables of a backbone: all that fit, or none and one clear error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import WeightsError, option
from crossroads.networks.cuts import cuts, until
from crossroads.networks.weights._matching import Pair, Pairing, Slot, pairings, slots_of
from crossroads.networks.weights._state_dicts import averaged
from crossroads.networks.weights.record import LayerWeights, WeightFile, from_bfloat16
from crossroads.progress import Note

if TYPE_CHECKING:
    import keras

_HINT = "give the weights of this network, or choose the backbone that they belong to"
_FLAT = f"it follows a flattened map: set {option('image_size')} to the size that the weights were trained at"


@dataclass(frozen=True, slots=True)
class Assignment:
    """The result of assigning a file.

    Attributes:
        loaded_to: The last cut up to which everything is loaded; None if the whole backbone is. Weights after it are random.
        layers: Number of layers that were loaded.
        missing: Names of the layers that the file has no weights for, in order.
        notes: Notes for the user.
    """

    loaded_to: str | None
    layers: int
    missing: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()


class _Misfit(Exception):
    """A layer of the file does not fit the network."""

    def __init__(self, rule: str, received: str, hint: str = _HINT) -> None:
        super().__init__(rule)
        self.rule, self.received, self.hint = rule, received, hint


_Values = list[list[NDArray[Any]]]
"""The new value of each variable of each pair."""


def assign_weights(backbone: keras.Model, file: WeightFile) -> Assignment:
    """Assigns the weights of a file to a backbone, in place.

    Layers are matched by name if names were given, otherwise by their place in the saved model, otherwise by order. PyTorch's
    arrays are converted to the layout of Keras, also for a dense layer after a flattened map. A head in the file is ignored. A file
    may stop early: see `Assignment.loaded_to`. If it holds weights and their moving average, the average is used, with a note.

    Args:
        backbone: A built model.
        file: The result of `read_weights`.

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
    """Returns the matches that fit, for each dict of the file, by the most reliable way that gives any."""
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
            if found or rivals[0].how == "name":  # given names are right; a less reliable way might fit by chance
                break
    return fits, misfits


_TRUST = ("name", "place", "order")


def _chosen(fits: list[tuple[Pairing, _Values]], origin: str) -> tuple[tuple[Pairing, _Values], tuple[Note, ...]]:
    """Returns the match to use, with notes. Raises `WeightsError` if several fit equally well."""
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
        raise WeightsError(
            f"{origin} holds several networks that fit", code="weights-ambiguous", received=named, hint="save only the one you want"
        )
    text = f"{origin} holds the weights of several networks that fit ({named}): the moving average is used"
    return means[0], (Note(text, "moving-average", file=origin, place=means[0][0].place),)


def _equal(values: _Values, others: _Values) -> bool:
    return all(
        np.array_equal(array, other)
        for arrays, theirs in zip(values, others, strict=True)
        for array, other in zip(arrays, theirs, strict=True)
    )


def _refused(backbone: keras.Model, file: WeightFile, misfits: list[_Misfit]) -> WeightsError:
    if misfits:
        return WeightsError(misfits[0].rule, code="weights-misfit", received=misfits[0].received, hint=misfits[0].hint)
    return WeightsError(
        f"{file.origin} has no layer of {backbone.name}",
        code="weights-misfit",
        received=f"layers {_some([layer.name for layer in file.layers])}",
        hint=f"the network's layers are {_some([slot.name for slot in slots_of(backbone, nested=False)])}; {_HINT}",
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, islice(names, 4)))
    return shown + (", …" if len(names) > 4 else "") if names else "none"


def _values(pairing: Pairing, file: WeightFile) -> _Values:
    """Returns the values for each pair's variables. Raises `_Misfit` for the first that does not fit."""
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
        hint = _HINT if pair.slot.flattened is None else _FLAT
        raise _Misfit(f"{layer} takes {_shapes(want)}", f"{_shapes(have)} {source}", hint)
    values = [_plain(array) for array in arrays]
    if not all(np.isfinite(array).all() for array in values):
        raise _Misfit(f"{layer} takes finite numbers", f"NaN or infinity {source}")
    return values


_Shapes = list[tuple[int, ...]]


def _differing(have: _Shapes, want: _Shapes) -> tuple[_Shapes, _Shapes]:
    """Returns the first two shapes that differ, or all shapes if their counts differ."""
    if len(have) != len(want):
        return have, want
    return next(([one], [other]) for one, other in zip(have, want, strict=True) if one != other)


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    if len(shapes) == 1:
        return f"the shape {shapes[0]}"
    return f"{len(shapes)} arrays of shapes {', '.join(map(str, shapes))}" if shapes else "no arrays"


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """Converts to a number type that every backend supports."""
    if array.dtype.name == "bfloat16":
        return from_bfloat16(array.view(np.uint16))
    return array if array.dtype.kind in "biu" else array.astype(np.float32, copy=False)


def part_of(array: NDArray[Any], part: int, parts: int) -> NDArray[Any]:
    """Returns one group's part of a grouped convolution: the output axis of kernel and bias."""
    size = array.shape[-1] // parts if array.ndim else 0
    return array if parts == 1 or not array.ndim or array.shape[-1] % parts else array[..., part * size : (part + 1) * size]


def _of_torch(weights: LayerWeights, slot: Slot) -> list[NDArray[Any]]:
    """Returns PyTorch's arrays in the order and layout of Keras: kernel, bias; for BatchNorm scale, shift, mean, variance."""
    return [
        from_torch(array, slot) if role == "weight" else array for role, array in zip(weights.roles, weights.arrays, strict=True)
    ]


def from_torch(array: NDArray[Any], slot: Slot) -> NDArray[Any]:
    """Converts PyTorch's ``weight`` to the layout of Keras.

    A convolution (out, in, height, width) becomes (height, width, in, out); a depthwise one (channels * multiplier, 1, height,
    width) becomes (height, width, channels, multiplier). A dense layer (out, in) becomes (in, out); if its input is a
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
    """Returns the last cut before which nothing is missing. Each cut follows the one before, so a binary search finds it."""
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
            code="weights-misfit",
            received=f"none for {pairing.missing[0].name!r}",
            hint=_HINT,
        )
    return places[low - 1].name
