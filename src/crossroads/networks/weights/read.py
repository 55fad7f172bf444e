"""Reads a file of weights. One reader per format; the contents decide the format, not the name."""

from __future__ import annotations

from pathlib import Path

from crossroads._runtime.keras_setup import training_needed
from crossroads.errors import DataError, WeightsError
from crossroads.files.byte_ranges import ByteRange
from crossroads.files.text import printable
from crossroads.files.trees import existing, open_archive
from crossroads.networks.weights._hdf5_check import check_hdf5
from crossroads.networks.weights._npy import read_npy, read_npz
from crossroads.networks.weights._safetensors import read_safetensors
from crossroads.networks.weights._torch import LEGACY_MAGIC, read_torch_legacy, read_torch_zip
from crossroads.networks.weights.record import WeightFile, unreadable

_KERAS_MEMBER = "model.weights.h5"
_FORMATS = "use Keras .weights.h5, .keras or .h5, .npy of a dict of layers, .npz, .safetensors, or PyTorch .pth"


def read_weights(path: Path) -> WeightFile:
    """Reads all weights of a file as named arrays.

    Formats: Keras 3 ``.weights.h5`` and ``.keras`` (whose configuration is not read), the HDF5 of older Keras versions with
    weights or with a whole model, ``.npy`` with a pickled dict of layers, ``.npz`` of a state dict, ``.safetensors``, and the
    state dicts and checkpoints that ``torch.save`` writes, in its zip and in its older form. Nothing in the file is executed, and
    a declared size is not trusted beyond the bytes that exist.

    Args:
        path: The file. Arrays may be views of it, so it must not change while they are in use.

    Raises:
        WeightsError: The file does not exist, is damaged, has another format, or holds something other than arrays of numbers.
    """
    try:
        file = _read(existing(path))
    except WeightsError:
        raise
    except DataError as error:
        raise _as_weights_error(path.name, error) from error
    if not file.layers:
        raise unreadable(file.origin, f"{file.format} with no layers", _FORMATS, code="weights-empty")
    return file


def _read(path: Path) -> WeightFile:
    if (path / "model.keras").is_file():
        raise unreadable(str(path), "the folder of an artifact", f"give {path / 'model.keras'}", code="weights-folder")
    span = ByteRange.from_path(path)
    head, origin = span.read(0, 64), printable(path.name)
    if head.startswith(b"PK\x03\x04"):
        return _read_zip(path, span, origin)
    if head.startswith(b"\x93NUMPY"):
        return read_npy(span, origin)
    if head.startswith(LEGACY_MAGIC):
        return read_torch_legacy(span, origin)
    if b"\x89HDF\r\n\x1a\n" in (head[:8], span.read(512, 8)):  # some files begin with a user block of 512 bytes
        return _read_hdf5(path, span, origin)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= span.size - 8:
        return read_safetensors(path, origin)
    received = f"a file that begins with {head[:16]!r}" if head else "an empty file"
    raise unreadable(origin, received, _FORMATS, code="weights-format")


def _read_zip(path: Path, span: ByteRange, origin: str) -> WeightFile:
    try:
        tree = open_archive(span, "zip", origin)
    except OverflowError as error:
        raise unreadable(origin, error) from error
    if tree.exists(_KERAS_MEMBER):
        return _read_hdf5(path, tree.byte_range(_KERAS_MEMBER), origin, _KERAS_MEMBER)
    if (members := tree.names()) and all(name.endswith(".npy") for name in members):
        return read_npz({name.removesuffix(".npy"): tree.byte_range(name) for name in members}, origin)
    pickles = [name for name in members if name == "data.pkl" or (name.endswith("/data.pkl") and name.count("/") == 1)]
    if len(pickles) == 1:
        return read_torch_zip(tree, pickles[0].removesuffix("data.pkl"), origin)
    raise unreadable(origin, "a zip archive that neither Keras nor PyTorch writes", _FORMATS, code="weights-format")


def _as_weights_error(name: str, error: DataError) -> WeightsError:
    rule, hint = error.rule if name in error.rule else f"{name}: {error.rule}", error.hint or "fetch or save the file again"
    if error.code == "unsafe-pickle":
        hint = "save only the weights, such as torch.save(model.state_dict(), …), and trust this file only if you know its author"
    return WeightsError(rule, code=error.code, received=error.received, hint=hint)


def _read_hdf5(path: Path, span: ByteRange, origin: str, member: str = "") -> WeightFile:
    """Reads HDF5, in a file or in a member of an archive. Its library h5py is installed with Keras."""
    try:
        from crossroads.networks.weights._hdf5 import read_hdf5
    except ImportError as error:
        raise training_needed("reading HDF5 weights") from error
    check_hdf5(path, origin, *([member] if member else []))
    return read_hdf5(span, origin)
