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
from crossroads.networks.weights._matching import LayerMatch, Match, ModelLayer, layers_with_weights, matches
from crossroads.networks.weights._state_dicts import averaged
from crossroads.networks.weights.record import LayerWeights, WeightFile, from_bfloat16
from crossroads.progress import Note

if TYPE_CHECKING:
    import keras

_HINT = f"give the weights of this network, or choose the {option('backbone')} that they belong to"
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
"""The new values of the variables, for each matched layer."""
_Fit = tuple[Match, _Values]


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
    (match, values), notes = _chosen(fits, file.origin)
    loaded_to = _loaded_to(backbone, match, file)
    for matched, arrays in zip(match.layers, values, strict=True):
        for variable, array in zip(matched.target.variables, arrays, strict=True):
            variable.assign(array)
        if hasattr(matched.target.layer, "finalize_state"):  # Normalization computes with copies of its weights
            matched.target.layer.finalize_state()
    return Assignment(loaded_to, len(match.layers), tuple(target.name for target in match.missing), notes)


def _fits(backbone: keras.Model, file: WeightFile) -> tuple[list[_Fit], list[_Misfit]]:
    """Returns the matches that fit, for each dict of the file, by the most reliable method that finds any."""
    fits: list[_Fit] = []
    misfits: list[_Misfit] = []
    for state in (file, *file.others):
        for rivals in matches(backbone, state):
            fits_before = len(fits)
            for match in rivals:
                try:
                    fits.append((match, _values(match, state)))
                except _Misfit as misfit:
                    misfits.append(misfit)
            if len(fits) > fits_before or rivals[0].method == "name":  # another method might fit a wrong file by chance
                break
    return fits, misfits


_RELIABILITY = ("name", "place", "order")


def _chosen(fits: list[_Fit], origin: str) -> tuple[_Fit, tuple[Note, ...]]:
    """Returns the match to use, with notes. Raises `WeightsError` if several fit equally well."""
    rank = min(_RELIABILITY.index(match.method) for match, _ in fits)
    fits = [fit for fit in fits if fit[0].method == _RELIABILITY[rank]]
    most = max(len(match.layers) for match, _ in fits)
    first, *others = [fit for fit in fits if len(fit[0].layers) == most]
    rivals = [first, *(fit for fit in others if not _equal(fit[1], first[1]))]
    if len(rivals) == 1:
        return first, ()
    named = ", ".join(repr(match.place or "no prefix") for match, _ in rivals)
    averages = [fit for fit in rivals if averaged(fit[0].place)]
    if len(averages) != 1:
        raise WeightsError(
            f"{origin} holds several networks that fit", code="weights-ambiguous", received=named, hint="save only the one you want"
        )
    text = f"{origin} contains the weights of several networks that fit ({named}); the moving average is used"
    return averages[0], (Note(text, "moving-average", file=origin, place=averages[0][0].place),)


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
        hint=f"the network's layers are {_some([target.name for target in layers_with_weights(backbone, nested=False)])}; {_HINT}",
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, islice(names, 4)))
    return shown + (", …" if len(names) > 4 else "") if names else "none"


def _values(match: Match, file: WeightFile) -> _Values:
    """Returns the values of the variables, for each matched layer. Raises `_Misfit` for the first layer that does not fit."""
    values = [_converted(matched, file) for matched in match.layers]
    if match.skipped:
        raise _Misfit("the layers of the file must be those of the network", f"also {_some(match.skipped)} in {file.origin}")
    return values


def _converted(matched: LayerMatch, file: WeightFile) -> list[NDArray[Any]]:
    target, weights = matched.target, matched.weights
    expected = [tuple(map(int, variable.shape)) for variable in target.variables]
    arrays = _in_keras_layout(weights, target) if file.layout == "torch" else list(weights.arrays)
    arrays = [output_slice(array, matched.part, matched.parts) for array in arrays]
    layer, source = f"layer {target.name!r}", f"of {weights.name!r} in {file.origin}"
    shapes = [array.shape for array in arrays]
    if shapes != expected:
        have, want = _differing(shapes, expected)
        hint = _HINT if target.flattened is None else _FLAT
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
    return next(([shape], [wanted]) for shape, wanted in zip(have, want, strict=True) if shape != wanted)


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    if len(shapes) == 1:
        return f"the shape {shapes[0]}"
    return f"{len(shapes)} arrays of shapes {', '.join(map(str, shapes))}" if shapes else "no arrays"


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """Converts to a number type that every backend supports."""
    if array.dtype.name == "bfloat16":
        return from_bfloat16(array.view(np.uint16))
    return array if array.dtype.kind in "biu" else array.astype(np.float32, copy=False)


def output_slice(array: NDArray[Any], part: int, parts: int) -> NDArray[Any]:
    """Returns the part of a kernel or bias that belongs to one group of a grouped convolution: a slice of its output axis."""
    size = array.shape[-1] // parts if array.ndim else 0
    return array if parts == 1 or not array.ndim or array.shape[-1] % parts else array[..., part * size : (part + 1) * size]


def _in_keras_layout(weights: LayerWeights, target: ModelLayer) -> list[NDArray[Any]]:
    """Returns PyTorch's arrays in the order and layout of Keras: kernel, bias; for BatchNorm scale, shift, mean, variance."""
    named = zip(weights.roles, weights.arrays, strict=True)
    return [from_torch(array, target) if role == "weight" else array for role, array in named]


def from_torch(array: NDArray[Any], target: ModelLayer) -> NDArray[Any]:
    """Converts PyTorch's ``weight`` to the layout of Keras.

    A convolution (out, in, height, width) becomes (height, width, in, out); a depthwise one (channels * multiplier, 1, height,
    width) becomes (height, width, channels, multiplier). A dense layer (out, in) becomes (in, out); if its input is a
    flattened map, that input goes from (channels, height, width) to (height, width, channels).
    """
    if array.ndim == 4 and type(target.layer).__name__ == "DepthwiseConv2D":
        multiplier = int(target.variables[0].shape[-1])
        if array.shape[0] % multiplier or array.shape[1] != 1:
            return array
        return array[:, 0].reshape(-1, multiplier, *array.shape[2:]).transpose(2, 3, 0, 1)
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim != 2:
        return array
    if target.flattened is not None and len(target.flattened) == 3 and np.prod(target.flattened) == array.shape[1]:
        height, width, channels = target.flattened
        return array.reshape(-1, channels, height, width).transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
    return array.T


def _loaded_to(backbone: keras.Model, match: Match, file: WeightFile) -> str | None:
    """Returns the last cut before which nothing is missing. Each cut follows the one before, so a binary search finds it."""
    if not match.missing:
        return None
    absent = {id(layer) for target in match.missing for layer in (target.layer, *target.owners)}
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
            received=f"none for {match.missing[0].name!r}",
            hint=_HINT,
        )
    return places[low - 1].name
