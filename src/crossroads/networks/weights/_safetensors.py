"""Reads safetensors: a header and plain numbers. The names of the arrays show whether PyTorch or Keras wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from crossroads.files.text import natural_key
from crossroads.networks.weights.record import LayerWeights, Layout, WeightFile, from_bfloat16, numbers, unreadable

_KERAS_ROLES = (
    *("kernel", "depthwise_kernel", "pointwise_kernel", "gamma", "bias", "beta"),
    *("moving_mean", "moving_variance", "mean", "variance", "count"),
)
"""Roles of a layer's arrays in the order in which Keras keeps them."""


def read_safetensors(path: Path, origin: str) -> WeightFile:
    """Reads arrays called ``layer.weight``, ``layer.running_mean`` (PyTorch) or ``layer/kernel``, ``layer/moving_mean`` (Keras).

    The format sorts its arrays by name, so the order of the layers is unknown.

    Raises:
        WeightsError: The header is wrong, an array reaches outside the file, or a number type is unknown.
    """
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with safe_open(path, framework="np") as file:
            for name in sorted(file.keys(), key=natural_key):
                arrays[name] = numbers(_array(file, name, path), repr(name), origin)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise unreadable(origin, error) from error
    return grouped(arrays, origin, "safetensors", ordered=False)


def _array(file: Any, name: str, path: Path) -> NDArray[Any]:
    """Returns one array. The library refuses bfloat16, which NumPy lacks, so such an array is read from the bytes of the file."""
    if file.get_slice(name).get_dtype() != "BF16":
        return np.asarray(file.get_tensor(name))
    with path.open("rb") as raw:
        size = int.from_bytes(raw.read(8), "little")  # the library has checked the sizes and offsets in the header
        entry = json.loads(raw.read(size))[name]
        begin, end = entry["data_offsets"]
        raw.seek(8 + size + begin)
        return from_bfloat16(np.frombuffer(raw.read(end - begin), "<u2")).reshape(entry["shape"])


def grouped(arrays: dict[str, NDArray[Any]], origin: str, form: str, *, ordered: bool) -> WeightFile:
    """Groups arrays by layer, in the order in which the layers first appear. The last part of an array's name is its role."""
    layers: dict[str, dict[str, NDArray[Any]]] = {}
    for name, values in arrays.items():
        plain = name.removesuffix(":0")
        cut = max(plain.rfind("/"), plain.rfind("."))
        layers.setdefault(plain[: max(cut, 0)], {})[plain[cut + 1 :]] = values
    layout: Layout = "keras" if any(role in _KERAS_ROLES[:4] for roles in layers.values() for role in roles) else "torch"
    return WeightFile(origin, form, layout, tuple(_layer(name, roles, layout, ordered=ordered) for name, roles in layers.items()))


def _layer(name: str, by_role: dict[str, NDArray[Any]], layout: Layout, *, ordered: bool) -> LayerWeights:
    known = _KERAS_ROLES if layout == "keras" else ("weight", "bias", "running_mean", "running_var")
    roles = sorted(
        (role for role in by_role if role != "num_batches_tracked"),
        key=lambda role: known.index(role) if role in known else len(known),
    )
    return LayerWeights(name, tuple(roles), tuple(by_role[role] for role in roles), track="" if ordered else name or "/")
