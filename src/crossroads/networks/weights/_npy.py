"""Reads NumPy files: .npz, and .npy with a pickled dict of layers, ``{"conv1": [W, b], …}``, such as converted Caffe models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from crossroads.data._npy import BAD_HEADER, load_npy, read_header
from crossroads.errors import DataError
from crossroads.files.byte_ranges import ByteRange
from crossroads.files.unpickle import NUMPY, Allowed, load_pickle
from crossroads.networks.weights._safetensors import grouped
from crossroads.networks.weights._state_dicts import decoded, state_dicts, together
from crossroads.networks.weights.record import LayerWeights, WeightFile, numbers, unreadable

_SPELLINGS = (("weights", "biases"), ("W", "b"), ("kernel", "bias"), ("weight", "bias"))
_FORM = "NumPy dict of layers"
_HINT = "it must hold a dict of layer name to [W, b], written by numpy.save"


class _Objects:
    """NumPy's dtype of Python objects while it is unpickled."""


@dataclass(slots=True)
class _Box:
    """An array while it is unpickled. An array of objects is never built; its only object is the value."""

    value: object = None


def _dtype(code: object = None, *rest: object) -> object:
    if code in ("O", "O8", "|O", b"O8", b"O"):
        return _Objects()
    return NUMPY.globals["numpy", "dtype"](code, *rest)


def _reconstruct(subtype: object = None, *rest: object) -> _Box:
    NUMPY.globals["numpy.core.multiarray", "_reconstruct"](subtype, *rest)  # refuses anything but a plain ndarray
    return _Box()


def _build(box: _Box, state: object) -> None:
    """Sets the state ``(version, shape, dtype, is_fortran, contents)``. The contents of an array of objects are a list."""
    if isinstance(state, tuple) and len(state) in (4, 5) and isinstance(state[-3], _Objects):
        if state[-4] not in ((), (1,)) or not isinstance(state[-1], list) or len(state[-1]) != 1:
            raise DataError(
                "an array of objects must hold one dict",
                code="weights-unreadable",
                received=f"shape {state[-4]!r:.60}",
                hint=_HINT,
            )
        box.value = state[-1][0]
        return
    array: NDArray[Any] = np.empty(0, np.int8)
    NUMPY.builders[np.ndarray](array, state)
    box.value = array


_ALLOWED = NUMPY | Allowed(
    globals={
        ("numpy", "dtype"): _dtype,
        **{(module, "_reconstruct"): _reconstruct for module in ("numpy.core.multiarray", "numpy._core.multiarray")},
    },
    builders={_Objects: lambda _target, _state: None, _Box: _build},
)


def read_npy(span: ByteRange, origin: str) -> WeightFile:
    """Reads a dict of layers in a .npy file: ``[W, b]`` each, or a dict of the two. Kernels are (height, width, in, out).

    It also reads a state dict: arrays called ``layer.weight`` and so on, in PyTorch's layout. Both go through the restricted
    unpickler. The order of the layers counts as unknown, because Python 2 wrote its dicts in no order.

    Raises:
        WeightsError, DataError: It holds something else, or is damaged.
    """
    stream = span.stream()
    try:
        shape, _, dtype = read_header(stream)
    except BAD_HEADER as error:
        raise unreadable(origin, error) from error
    if not dtype.hasobject:
        raise unreadable(origin, f"one array of {dtype} and shape {shape}, without names of layers", _HINT)
    content = load_pickle(stream, allowed=_ALLOWED)
    by_place = state_dicts(content, _is_layer, _opened)
    if not by_place:
        raise unreadable(origin, f"a {type(_opened(content)).__name__} without arrays", _HINT)
    return together([replace(_file(layers, origin), place=place) for place, layers in by_place.items()])


def read_npz(arrays: Mapping[str, ByteRange], origin: str) -> WeightFile:
    """Reads arrays by the names of a state dict, as ``numpy.savez(file, **state_dict)`` writes them. Nothing is unpickled.

    Raises:
        WeightsError, DataError: A member is not an array of numbers, or a file is damaged.
    """
    read = {name: numbers(load_npy(span), repr(name), origin) for name, span in arrays.items()}
    return grouped(read, origin, "NumPy arrays by name", ordered=False)  # the archive lists them by name


def _file(layers: Mapping[str, object], origin: str) -> WeightFile:
    """Returns the layers of a dict of layers, or of a state dict with arrays called ``layer.weight`` or the like."""
    plain = {name: value for name, value in layers.items() if isinstance(value, np.ndarray)}
    if len(plain) == len(layers) and any(re.search(r"[./]", name) for name in plain):
        return grouped({name: numbers(array, repr(name), origin) for name, array in plain.items()}, origin, _FORM, ordered=True)
    return WeightFile(origin, _FORM, "keras", tuple(_layer(name, value, origin) for name, value in layers.items()))


def _is_layer(value: object) -> bool:
    """Returns whether a value is meant as the arrays of a layer. Faults inside it are reported when it is read."""
    return isinstance(value, (np.ndarray, list, tuple)) or (
        isinstance(value, Mapping) and any(decoded(key) in roles for key in value for roles in _SPELLINGS)
    )


def _opened(value: object) -> object:
    """Returns the content of a box, which may hold another box."""
    for _ in range(4):
        if not isinstance(value, _Box):
            break
        value = value.value
    return value


def _layer(name: str, value: object, origin: str) -> LayerWeights:
    value = _opened(value)
    if isinstance(value, Mapping):
        named = {decoded(key): entry for key, entry in value.items()}
        value = next(([named[role] for role in pair if role in named] for pair in _SPELLINGS if pair[0] in named), value)
    if not isinstance(value, (list, tuple)):
        value = [value]
    arrays = [_opened(entry) for entry in cast("list[object]", value)]
    if not arrays or not all(isinstance(array, np.ndarray) for array in arrays):
        raise unreadable(origin, f"layer {name!r:.60}, which is not a list of arrays", _HINT)
    checked = tuple(numbers(cast("NDArray[Any]", array), f"layer {name!r:.60}", origin) for array in arrays)
    return LayerWeights(name, tuple(map(str, range(len(checked)))), checked, track=name or "/")
