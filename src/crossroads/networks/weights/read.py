"""One reader a format; the format is told by the contents, not by the name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from crossroads.errors import DataError, WeightsError
from crossroads.files.archives import Limits
from crossroads.files.byte_ranges import ByteRange
from crossroads.files.text import printable
from crossroads.files.trees import Tree, existing, open_archive
from crossroads.networks.weights._hdf5 import read_hdf5
from crossroads.networks.weights._hdf5_check import rehearse
from crossroads.networks.weights._npy import read_npy, read_npz
from crossroads.networks.weights._safetensors import read_safetensors
from crossroads.networks.weights._torch import LEGACY_MAGIC, read_torch_legacy, read_torch_zip
from crossroads.networks.weights.record import WeightFile, unreadable

_KERAS_MEMBER = "model.weights.h5"
_LIMITS = Limits(member=64 << 30)
_FORMATS = "Keras .weights.h5, .keras and .h5, .npy of a dict of layers, .npz, .safetensors, and PyTorch .pth are read"


def read_weights(path: Path) -> WeightFile:
    """All weights of a file, as named arrays.

    Formats: Keras 3 ``.weights.h5`` and ``.keras`` (whose configuration is never looked at), the HDF5 of older Keras versions with
    weights or with a whole model, ``.npy`` with a pickled dict of layers, ``.npz`` of a state dict, ``.safetensors``, and what
    ``torch.save`` writes of a state dict or of a checkpoint with one inside, in its zip and in its older form. Nothing in the file
    is executed, and a size is believed only as far as there are bytes.

    Args:
        path: The file. Arrays may be views of it, so it must not change while they are in use.

    Raises:
        WeightsError: There is no such file, it is damaged, of another format, or it holds something else than arrays of numbers.
    """
    try:
        file = _read(existing(path), rehearse)
    except WeightsError:
        raise
    except DataError as error:  # the readers of data below say it in the words of data
        raise _of_data(path.name, error) from error
    if not file.layers:
        raise unreadable(file.origin, f"{file.format} with no layers", _FORMATS)
    return file


def read_unrehearsed(path: Path) -> WeightFile:
    """The same in one go: what the rehearsal of an HDF5 file does. Raises `WeightsError` or `DataError`."""
    return _read(path, lambda _path, _origin: None)


def _read(path: Path, rehearsal: Callable[[Path, str], None]) -> WeightFile:
    if (path / "model.keras").is_file():
        raise unreadable(str(path), "the folder of an artifact", f"give {path / 'model.keras'}")
    span = ByteRange.from_path(path)
    head, origin = span.read(0, 64), printable(path.name)
    if head.startswith(b"PK\x03\x04"):
        return _read_zip(path, span, origin, rehearsal)
    if head.startswith(b"\x93NUMPY"):
        return read_npy(span, origin)
    if head.startswith(LEGACY_MAGIC):
        return read_torch_legacy(span, origin)
    if b"\x89HDF\r\n\x1a\n" in (head[:8], span.read(512, 8)):  # behind a user block of 512 bytes, where it has one
        rehearsal(path, origin)
        return read_hdf5(span, origin)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= span.size - 8:
        return read_safetensors(path, origin)
    raise unreadable(origin, f"a file that begins with {head[:16]!r}" if head else "an empty file", _FORMATS)


def _read_zip(path: Path, span: ByteRange, origin: str, rehearsal: Callable[[Path, str], None]) -> WeightFile:
    try:
        tree: Tree = open_archive(span, "zip", origin, _LIMITS)
    except OverflowError as error:
        raise unreadable(origin, error) from error
    if tree.exists(_KERAS_MEMBER):
        rehearsal(path, origin)
        return read_hdf5(tree.byte_range(_KERAS_MEMBER), origin)
    if (members := tree.names()) and all(name.endswith(".npy") for name in members):
        return read_npz({name.removesuffix(".npy"): tree.byte_range(name) for name in members}, origin)
    pickles = [name for name in tree.names() if name == "data.pkl" or (name.endswith("/data.pkl") and name.count("/") == 1)]
    if len(pickles) == 1:
        return read_torch_zip(tree, pickles[0].removesuffix("data.pkl"), origin)
    raise unreadable(origin, "a zip archive that neither Keras nor PyTorch writes", _FORMATS)


def _of_data(name: str, error: DataError) -> WeightsError:
    rule = error.rule if name in error.rule else f"{name}: {error.rule}"
    if "runs code" in error.rule:
        hint = "save the weights alone, such as torch.save(model.state_dict(), …), and trust this file only if you know who made it"
        return WeightsError(rule, received=error.received, hint=hint)
    return WeightsError(rule, received=error.received, hint=error.hint or "fetch or save the file again")
