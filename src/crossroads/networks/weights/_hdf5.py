"""Reads HDF5 files of Keras 3, which names arrays by path, and of older versions, which list them by layer. Follows no links."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from crossroads.errors import CrossroadsError
from crossroads.files.byte_ranges import ByteRange
from crossroads.files.text import natural_key
from crossroads.networks.weights.record import LayerWeights, WeightFile, from_bfloat16, numbers, unreadable

MAX_DEPTH = 64
"""Maximum depth of nested groups. No real model is nested deeper."""
_BOMB = 1 << 30
_EXPANSION = 1000
_FAULTS = (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError, MemoryError, OverflowError, RecursionError)


def read_hdf5(span: ByteRange, origin: str) -> WeightFile:
    """Reads weights of Keras 3 or an older version, alone or as part of a whole model. The model's configuration is not read.

    Raises:
        WeightsError: The file is damaged, refers to other files, declares far more than it holds, or was not written by Keras.
    """
    try:
        with h5py.File(span.stream(), "r") as file:
            reader = _Reader(origin, span.size)
            root = reader.group(file, "model_weights") if "model_weights" in file else file
            if "layer_names" in root.attrs or "layer_names0" in root.attrs:
                return WeightFile(origin, "HDF5 of an older Keras", "keras", tuple(_older_layers(root, reader)), folded=True)
            return WeightFile(origin, "HDF5 of Keras 3", "keras", tuple(_layers(root, reader)))
    except CrossroadsError:
        raise
    except _FAULTS as error:  # h5py raises all of these for damaged files
        raise unreadable(origin, error) from error


class _Reader:
    """Reads groups and arrays of one file and checks each before it is opened."""

    def __init__(self, origin: str, size: int) -> None:
        self.origin = origin
        self._size = size
        self._declared = 0

    def member(self, parent: Any, name: str) -> Any:
        """Returns the member of `parent` at a path. Only hard links inside the file are followed."""
        current = parent
        for part in name.split("/"):
            if not isinstance(current, h5py.Group) or not part or (part != "." and part not in current):
                raise unreadable(self.origin, f"no {name!r}, which another part of the file names")
            if not isinstance(current.get(part, getlink=True), h5py.HardLink):
                raise unreadable(self.origin, f"{name!r}, which is a link", "copy the data into one file without links")
            current = current[part]
        return current

    def group(self, parent: Any, name: str) -> Any:
        """Returns the group of this name."""
        member = self.member(parent, name)
        if not isinstance(member, h5py.Group):
            raise unreadable(self.origin, f"{name!r}, which is not a group")
        return member

    def array(self, parent: Any, name: str) -> NDArray[Any]:
        """Returns the array of this name, in memory."""
        member = self.member(parent, name)
        if not isinstance(member, h5py.Dataset):
            raise unreadable(self.origin, f"{name!r}, which is not an array")
        if member.external or member.is_virtual:
            raise unreadable(self.origin, f"{name!r}, whose values are in other files", "copy the data into one file")
        if member.shape is None or member.dtype.kind not in "biufV":
            raise unreadable(self.origin, f"{name!r} of dtype {member.dtype}", "weights are arrays of numbers")
        self._declared += math.prod(member.shape) * member.dtype.itemsize
        if self._declared > _BOMB and self._declared > _EXPANSION * self._size:
            raise unreadable(self.origin, f"{self._declared} bytes of arrays in {self._size} bytes", "do not trust this file")
        values = np.asarray(member[()])
        if values.dtype.kind == "V" and values.dtype.itemsize == 2 and member.attrs.get("dtype") == "bfloat16":
            return from_bfloat16(values.view(np.uint16))
        return numbers(values, repr(name), self.origin)


def _texts(group: Any, name: str) -> list[str]:
    """Returns an attribute that lists names. Older versions of Keras split a list too long for HDF5 into ``name0``, ``name1``."""
    parts = [group.attrs[name]] if name in group.attrs else []
    while (numbered := f"{name}{len(parts)}") in group.attrs:
        parts.append(group.attrs[numbered])
    return [text.decode("utf-8") if isinstance(text, bytes) else str(text) for part in parts for text in np.ravel(part)]


def _older_layers(root: Any, reader: _Reader) -> Iterator[LayerWeights]:
    """Yields the layers in ``layer_names``, which are in the order of the model, with the arrays in their ``weight_names``."""
    for name in _texts(root, "layer_names"):
        group = reader.group(root, name)
        roles = _texts(group, "weight_names")
        if roles:
            yield LayerWeights(name, tuple(roles), tuple(reader.array(group, role) for role in roles))


def _layers(root: Any, reader: _Reader) -> list[LayerWeights]:
    """Returns the groups called ``vars`` in natural order of their paths, joined by layer."""
    by_layer: dict[str, tuple[list[str], list[str], list[NDArray[Any]]]] = {}
    for path, group in sorted(_variable_groups(root, "", reader, set()), key=lambda item: natural_key(item[0])):
        layer = _layer_path(path)
        names, roles, arrays = by_layer.setdefault(layer, ([], [], []))
        inner = path[len(layer) :].strip("/")
        if not inner:
            names.append(_text(group.attrs.get("name", "")))
        for role in sorted(group, key=natural_key):
            roles.append(f"{inner}/{role}" if inner else role)
            arrays.append(reader.array(group, role))
    return [
        LayerWeights(
            "".join(names) or path.rpartition("/")[2], tuple(roles), tuple(arrays), path, re.sub(r"_\d+$", "", path) or "/"
        )
        for path, (names, roles, arrays) in by_layer.items()
        if arrays
    ]


def _variable_groups(group: Any, path: str, reader: _Reader, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yields path and group of each group called ``vars``, except those of optimizers, metrics and random generators."""
    address = int(h5py.h5o.get_info(group.id).addr)
    if address in seen or path.count("/") > MAX_DEPTH:
        raise unreadable(reader.origin, f"the group {path!r:.100} inside itself", "do not trust this file")
    seen.add(address)
    for name in group:
        if name == "vars":
            yield path, reader.group(group, name)
        elif name not in ("seed_generator", "optimizer", "metrics", "_metrics", "_compile_metrics", "_loss_tracker"):
            inner = "layers" if name == "_layer_checkpoint_dependencies" else name  # its name in Keras 2.13
            if isinstance(child := reader.member(group, name), h5py.Group):
                yield from _variable_groups(child, f"{path}/{inner}".strip("/"), reader, seen)


def _layer_path(path: str) -> str:
    """Returns the path of the layer: ``layers/functional/layers/attention`` for ``layers/functional/layers/attention/query``."""
    head, separator, tail = f"/{path}".rpartition("/layers/")
    return f"{head}{separator}{tail.partition('/')[0]}".strip("/") if separator else path


def _text(value: object) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
