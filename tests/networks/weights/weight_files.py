"""Writes files of weights as other programs do, without those programs."""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from contextlib import contextmanager
from unittest import mock

import h5py
import numpy as np
from safetensors.numpy import save_file

STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage", "uint16": "BFloat16Storage"}
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001


def layers(seed=0):
    """Returns a convolution without bias, BatchNorm and a dense layer, in PyTorch's names and layout."""
    draw = np.random.default_rng(seed)

    def numbers(*shape):
        return draw.standard_normal(shape, dtype=np.float32)

    return {
        "features.0.weight": numbers(4, 3, 3, 2),
        "features.1.weight": numbers(4),
        "features.1.bias": numbers(4),
        "features.1.running_mean": numbers(4),
        "features.1.running_var": np.abs(numbers(4)),
        "features.1.num_batches_tracked": np.array(7),
        "classifier.weight": numbers(5, 4),
        "classifier.bias": numbers(5),
    }


class Storage:
    def __init__(self, key, values):
        self.key, self.values = key, values


class Tensor:
    """An array that is pickled like a PyTorch tensor: as a call of its rebuilding function on a storage."""

    def __init__(self, storage, shape, strides, offset=0):
        self.state = storage, offset, shape, strides, False, OrderedDict()

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.state


class Pickler(pickle.Pickler):
    def __init__(self, file, legacy):
        super().__init__(file, protocol=2)
        self.legacy = legacy

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        kind = getattr(sys.modules["torch"], STORAGES[value.values.dtype.name])
        return ("storage", kind, value.key, "cpu", value.values.size, *([None] if self.legacy else []))


@contextmanager
def torch_names():
    """Provides the names of PyTorch that the pickles refer to."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2():
        raise NotImplementedError

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    with mock.patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}):
        yield


def dumped(content, legacy=False):
    file = io.BytesIO()
    with torch_names():
        Pickler(file, legacy).dump(content)
    return file.getvalue()


def tensors(arrays):
    """Returns the state dict as PyTorch keeps it, and its storages by key."""
    storages = {str(n): Storage(str(n), np.ascontiguousarray(array).reshape(-1)) for n, array in enumerate(arrays.values())}
    state = OrderedDict()
    for (name, array), storage in zip(arrays.items(), storages.values(), strict=True):
        array = np.ascontiguousarray(array).reshape(array.shape)
        state[name] = Tensor(storage, array.shape, tuple(step // array.itemsize for step in array.strides))
    state._metadata = OrderedDict({"": {"version": 1}})  # pickled as the state of the OrderedDict
    return state, storages


def save_torch(path, arrays=None, *, content=None, storages=(), members=(), compression=zipfile.ZIP_STORED):
    """Writes what ``torch.save(state_dict, path)`` writes."""
    if content is None:
        content, storages = tensors(arrays)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content if isinstance(content, bytes) else dumped(content))
        archive.writestr("archive/byteorder", "little")
        for key, storage in dict(storages).items():
            archive.writestr(f"archive/data/{key}", storage.values.tobytes())
        archive.writestr("archive/version", "3\n")
        for name, raw in members:
            archive.writestr(name, raw)
    return path


def save_torch_legacy(path, arrays=None, *, content=None):
    """Writes what ``torch.save(…, _use_new_zipfile_serialization=False)`` writes."""
    state, storages = tensors(arrays) if content is None else (content, {})
    machine = {"protocol_version": VERSION, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    with path.open("wb") as file:
        for part in (MAGIC, VERSION, machine):
            pickle.dump(part, file, protocol=2)
        file.write(state if isinstance(state, bytes) else dumped(state, legacy=True))
        pickle.dump(sorted(storages), file, protocol=2)
        for key in sorted(storages):
            file.write(storages[key].values.size.to_bytes(8, "little") + storages[key].values.tobytes())
    return path


def save_npy(path, content):
    """Writes what ``numpy.save(path, a_dict)`` writes: an array of one object."""
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    return path


def save_safetensors(path, arrays):
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    return path


def save_older_keras(path, content, group=None):
    """Writes the HDF5 of older Keras versions. ``content`` is a list of (layer, {name of the array: values})."""
    with h5py.File(path, "w") as file:
        root = file.create_group(group) if group else file
        root.attrs["layer_names"] = np.array([name.encode() for name, _ in content])
        root.attrs["keras_version"] = b"2.0.0"
        for name, arrays in content:
            layer = root.create_group(name)
            layer.attrs["weight_names"] = np.array([role.encode() for role in arrays])
            for role, values in arrays.items():
                layer[role] = values
    return path


def save_keras(path, content):
    """Writes the HDF5 of Keras 3. ``content`` is a dict of path below ``layers`` to (name of the layer, arrays)."""
    with h5py.File(path, "w") as file:
        for place, (name, arrays) in content.items():
            group = file.create_group(f"layers/{place}/vars")
            group.attrs["name"] = name
            for number, values in enumerate(arrays):
                group[str(number)] = values
        file.create_group("optimizer/vars")["0"] = np.array(3)
    return path


def flat(file):
    """Returns all arrays of a `WeightFile` by ``layer.role``."""
    return {f"{layer.name}.{role}": array for layer in file.layers for role, array in zip(layer.roles, layer.arrays, strict=True)}
