"""Reads state dicts that ``torch.save`` wrote, without PyTorch: its zip format and the one before version 1.6.

Both contain one pickle in which a tensor is a call, ``_rebuild_tensor_v2(storage, offset, size, stride, …)``, and a storage is a
persistent id that names raw numbers elsewhere in the file. Here that call only records its arguments, and the numbers are read
afterwards. The pickle goes through the restricted unpickler. Format: torch/serialization.py, `_save` and `_legacy_save`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import DataError
from crossroads.files.byte_ranges import ByteRange
from crossroads.files.trees import Tree
from crossroads.files.unpickle import NUMPY, Allowed, believable, load_pickle
from crossroads.networks.weights._safetensors import grouped
from crossroads.networks.weights._state_dicts import state_dicts, together
from crossroads.networks.weights.record import WeightFile, from_bfloat16, unreadable

LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""A pickle of protocol 2 with the number 0x1950a86a20f9469cfc6c."""
_HINT = "save the state dict alone: torch.save(model.state_dict(), …)"
_BFLOAT16 = np.dtype([("bfloat16", "<u2")])
_DTYPES: dict[str, np.dtype[Any]] = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": _BFLOAT16,
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


@dataclass(frozen=True, slots=True)
class _Storage:
    """Raw numbers elsewhere in the file: `count` of them, from number `start` of the storage `key`."""

    key: str
    dtype: np.dtype[Any]
    count: int
    start: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor whose numbers are not read yet: element (i, j, …) is number ``offset + i * strides[0] + …`` of its storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _wrong(received: object) -> DataError:
    return DataError(
        "a PyTorch file of weights must hold only tensors of plain numbers",
        code="weights-unreadable",
        received=str(received)[:200],
        hint=_HINT,
    )


def _counts(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple) or len(value) > 32 or not all(type(n) is int and n >= 0 for n in value):
        raise _wrong(f"a tensor of shape {value!r}")
    return value


def _rebuild_tensor(storage: object, offset: object, size: object, stride: object, *_gradient_and_hooks: object) -> _Tensor:
    shape, strides = _counts(size), _counts(stride)
    if not isinstance(storage, _Storage) or type(offset) is not int or offset < 0 or len(shape) != len(strides):
        raise _wrong("a tensor without numbers")
    items = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) if items else offset - 1
    if last >= storage.count or items > storage.count or not believable(shape):
        raise _wrong(f"a tensor of shape {shape} over {storage.count} numbers")
    return _Tensor(storage, offset, shape, strides)


def _first(value: object = None, *_ignored: object) -> object:
    """Returns the data of a parameter, or the sizes of a `torch.Size`."""
    return value


class _Inert:
    """Replaces an object beside the weights in a checkpoint, such as the arguments of the program. It is never used."""

    def __init__(self, *_arguments: object) -> None:
        pass


_BESIDE = (
    ("argparse", "Namespace"),
    ("collections", "Counter"),
    ("torch", "device"),
    *((module, name) for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath", "PurePosixPath")),
)


def _refuse_call(*_arguments: object) -> object:
    raise _wrong("a call of a storage type")


def _storage(pid: object) -> _Storage:
    """Reads a persistent id ``("storage", type, key, device, count)``. The older format appends ``(view key, offset, size)``."""
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
        whole_model = pid and "module" in repr(pid)[:12]
        raise _wrong(f"a whole model instead of its weights, with the persistent id {pid!r:.80}" if whole_model else pid)
    kind = getattr(pid[1], "name", ("", ""))
    if kind[1] not in _DTYPES or not isinstance(pid[2], str) or type(pid[4]) is not int or pid[4] < 0:
        raise _wrong(f"a storage of {'.'.join(map(str, kind))}")
    count, start = pid[4], 0
    if len(pid) == 6 and pid[5] is not None:
        view = pid[5]
        if not isinstance(view, tuple) or len(view) != 3 or not all(type(n) is int and n >= 0 for n in view[1:]):
            raise _wrong("a storage view of a form that PyTorch does not write")
        start, count = view[1], view[2]
    return _Storage(pid[2], _DTYPES[kind[1]], count, start)


_ALLOWED = NUMPY | Allowed(
    globals={
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): _first,
        ("torch._utils", "_rebuild_parameter_with_state"): _first,
        ("torch", "Size"): _first,
        **{("torch", name): _refuse_call for name in _DTYPES},
        **dict.fromkeys(_BESIDE, _Inert),
    },
    builders={OrderedDict: lambda _target, _metadata: None, _Inert: lambda _target, _state: None},
    persistent=_storage,
)

_Numbers = Callable[[_Storage], NDArray[Any]]


def read_torch_zip(tree: Tree, folder: str, origin: str) -> WeightFile:
    """Reads the zip format: ``data.pkl``, and in ``data/`` one file of raw numbers per storage, all in one folder.

    Raises:
        WeightsError, DataError: It holds something other than tensors and plain values, is damaged, or declares a false size.
    """
    byteorder = f"{folder}byteorder"
    if tree.exists(byteorder) and tree.size(byteorder) < 16 and tree.read(byteorder).strip() == b"big":
        raise unreadable(origin, "numbers in big-endian byte order", "save it again on a little-endian computer")

    def stored(storage: _Storage) -> NDArray[Any]:
        name = f"{folder}data/{storage.key}"
        if not tree.exists(name):
            raise unreadable(origin, f"no file {name}, which the pickle names")
        return _numbers(tree.byte_range(name).buffer(), storage, origin)

    content = load_pickle(tree.byte_range(f"{folder}data.pkl").stream(), allowed=_ALLOWED)
    return _weights(content, stored, origin, "PyTorch")


def read_torch_legacy(span: ByteRange, origin: str) -> WeightFile:
    """Reads the older format: pickles of a magic number, version, machine, object and storage keys, then each storage.

    Raises:
        WeightsError, DataError: As `read_torch_zip`.
    """
    stream = span.stream()
    load_pickle(stream)
    version, machine = load_pickle(stream), load_pickle(stream)
    if version != 1001 or (isinstance(machine, dict) and machine.get("little_endian") is False):
        raise unreadable(origin, f"version {version!r:.20} of PyTorch's older format", "save it again with a newer PyTorch")
    dtypes: dict[str, np.dtype[Any]] = {}

    def recorded(pid: object) -> _Storage:
        storage = _storage(pid)
        dtypes[storage.key] = storage.dtype
        return storage

    content = load_pickle(stream, allowed=_ALLOWED | Allowed(persistent=recorded))
    keys = load_pickle(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in dtypes for key in keys):
        raise unreadable(origin, "storages that no tensor uses")
    places = _places(stream, span, {key: dtypes[key] for key in keys}, origin)

    def stored(storage: _Storage) -> NDArray[Any]:
        if storage.key not in places:
            raise unreadable(origin, f"no numbers of storage {storage.key!r:.40}, which the pickle names")
        return _numbers(places[storage.key].buffer(), storage, origin)

    return _weights(content, stored, origin, "PyTorch, older format")


def _places(stream: IO[bytes], span: ByteRange, keys: Mapping[str, np.dtype[Any]], origin: str) -> dict[str, ByteRange]:
    """Locates the numbers of each storage. The storages follow each other: eight bytes of count, then the numbers."""
    places, position = {}, stream.tell()
    for key, dtype in keys.items():
        count = int.from_bytes(span.part(position, 8, origin).read(), "little", signed=True)
        places[key] = span.part(position + 8, max(count, 0) * dtype.itemsize, origin)
        position += 8 + places[key].size
    return places


def _numbers(buffer: memoryview, storage: _Storage, origin: str) -> NDArray[Any]:
    size = (storage.start + storage.count) * storage.dtype.itemsize
    if len(buffer) < size:
        raise unreadable(origin, f"{len(buffer)} of {size} bytes of storage {storage.key!r:.40}")
    if not storage.count:  # np.frombuffer refuses an empty buffer
        return np.empty(0, storage.dtype)
    return np.frombuffer(buffer, storage.dtype, storage.count, storage.start * storage.dtype.itemsize)


def _weights(content: object, numbers: _Numbers, origin: str, form: str) -> WeightFile:
    by_place = state_dicts(content, lambda value: isinstance(value, (_Tensor, np.ndarray)))
    if not by_place:
        raise unreadable(origin, f"a {type(content).__name__} without tensors", _HINT)
    files = []
    for place, tensors in by_place.items():
        arrays = {name: _array(tensor, numbers) for name, tensor in tensors.items()}
        files.append(replace(grouped(arrays, origin, form, ordered=True), place=place))
    return together(files)


def _array(tensor: _Tensor | NDArray[Any], numbers: _Numbers) -> NDArray[Any]:
    if isinstance(tensor, np.ndarray):
        return tensor
    flat = numbers(tensor.storage)
    if flat.dtype == _BFLOAT16:
        flat = from_bfloat16(flat["bfloat16"])
    strides = tuple(step * flat.itemsize for step in tensor.strides)
    # Safe, because _rebuild_tensor has checked that the last element is within the storage.
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)
