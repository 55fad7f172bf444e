"""Reads the file of an inference graph. Nothing in it is executed, and no file outside its folder is read."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from crossroads.errors import BackboneError
from crossroads.inference import read_model

Format = Literal["onnx", "tflite", "openvino"]

SUFFIXES: dict[str, Format] = {".onnx": "onnx", ".tflite": "tflite", ".xml": "openvino"}
LARGEST = 2**31
"""Bytes of a graph with its data, at most. Neither an ONNX message nor a TFLite buffer can be larger."""


UNREADABLE = (RuntimeError, UnicodeDecodeError)
"""What OpenVINO raises about a file: an error of its own, or one about a name in the file that is not UTF-8."""


def format_of(path: Path) -> Format:
    """Returns the format of a file, which its suffix and its first bytes agree on.

    Raises:
        BackboneError: The file does not exist, is too large, or is in another or an unknown format.
    """
    named = SUFFIXES.get(path.suffix.lower())
    if named is None:
        raise BackboneError(
            "a graph must be an .onnx, .tflite or .xml file",
            code="unknown-graph-format",
            field="backbone",
            received=str(path),
            hint="export the network to one of them",
        )
    if not path.is_file():
        raise BackboneError("the file of the graph must exist", code="no-graph-file", field="backbone", received=str(path))
    _require_size(path, [path])
    found = _sniffed(path)
    if found != named:
        wanted = next((suffix for suffix, kind in SUFFIXES.items() if kind == found), None)
        raise BackboneError(
            f"the content of {path.name} is not what its suffix says",
            code="graph-format-mismatch",
            field="backbone",
            received=f"{'an unknown format' if found is None else found}",
            hint=f"name it {path.stem}{wanted}" if wanted else "export the network again",
        )
    return named


def data_files(path: Path, kind: Format) -> list[Path]:
    """Returns the files that hold the graph: the file itself, then those that its weights are in.

    Raises:
        BackboneError: Weights are outside the folder, are missing, or are too large.
    """
    if kind == "openvino":
        weights = path.with_suffix(".bin").name
        has_weights = (path.parent / weights).exists() or b'"Const"' in path.read_bytes()
        others = [_beside(path, weights)] if has_weights else []
    elif kind == "onnx":
        others = [_beside(path, location) for location in external_data(path)]
    else:
        others = []
    _require_size(path, [path, *others])
    return [path, *others]


def load(path: Path, kind: Format) -> Any:
    """Returns the OpenVINO model of a file that `format_of` has accepted.

    Raises:
        BackboneError: The file is damaged or has an operation that OpenVINO lacks.
    """
    data_files(path, kind)
    try:
        return read_model(path)
    except UNREADABLE as error:
        raise refusal(path, str(error)) from error


def digest_of(path: Path, kind: Format) -> str:
    """Returns the SHA-256 of the file, in hexadecimal, or of the SHA-256s of the files if there are several."""
    digests = []
    for file in data_files(path, kind):
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256"))
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b"".join(each.digest() for each in digests)).hexdigest()


_LACKING = ("No conversion rule", "not supported", "unsupported", "Not supported", "Cannot create", "OpenVINO does not support")


def refusal(path: Path, text: str) -> BackboneError:
    """Returns the error about a graph that OpenVINO does not read."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    about = next((line for word in _LACKING for line in lines if word in line), None)
    if about is None:
        return BackboneError(
            f"{path.name} is damaged or incomplete",
            code="damaged-graph",
            field="backbone",
            received=lines[-1][:300] if lines else "no explanation",
            hint="get the file again",
        )
    return BackboneError(
        f"{path.name} has an operation that OpenVINO lacks",
        code="operation-not-supported",
        field="backbone",
        received=about[:300],
        hint="export the network with standard operations",
    )


def _require_size(path: Path, files: list[Path]) -> None:
    require_small(path.name, sum(file.stat().st_size for file in files))


def require_small(name: str, size: int) -> None:
    """Raises `BackboneError` if a graph with its data has `LARGEST` bytes or more."""
    if size >= LARGEST:
        raise BackboneError(
            "a graph must be smaller than 2 GB",
            code="graph-too-large",
            field="backbone",
            received=f"{name} with {size / 1e9:.1f} GB",
            hint="use a smaller network, or export it in float16",
        )


def _sniffed(path: Path) -> Format | None:
    with path.open("rb") as stream:
        head = stream.read(512)
    if head[4:8] == b"TFL3":
        return "tflite"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith((b"<?xml", b"<net")):
        return "openvino"
    # Every field of ONNX' ModelProto that a file can begin with: ir_version, opset_import, producer names, graph.
    return "onnx" if head[:1] in (b"\x08", b"\x12", b"\x1a", b"\x22", b"\x3a", b"\x42") else None


def _beside(path: Path, location: str) -> Path:
    """Returns the file that holds weights of a graph. It is in the graph's folder, also after links are followed."""
    folder = path.parent.resolve()
    file = (folder / location.replace("\\", "/")).resolve()
    if not file.is_relative_to(folder):
        raise BackboneError(
            "the weights of a graph must be in its folder",
            code="weights-outside-folder",
            field="backbone",
            received=f"{location!r} in {path.name}",
            hint="export the network again",
        )
    if not file.is_file():
        raise BackboneError(
            "the weights of a graph must be beside it",
            code="no-graph-weights",
            field="backbone",
            received=f"{path.name} without {location!r}",
            hint="get this file too",
        )
    return file


# Protocol buffers: https://protobuf.dev/programming-guides/encoding. Field numbers: onnx/onnx.proto.

_NESTED = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""For each kind of message, the fields that hold messages, and the kinds of these messages."""


def external_data(path: Path) -> list[str]:
    """Returns the files, relative to the folder of an ONNX file, that hold its weights if it does not hold them itself."""
    return sorted(set(_external_locations(path)))


def _external_locations(path: Path) -> Iterator[str]:
    """Yields the location of each tensor that is stored outside an ONNX file."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            yield from _locations(content, 0, len(content), "model", 0)
        except (IndexError, UnicodeDecodeError) as error:
            raise refusal(path, "the file ends within a message") from error


def _locations(content: mmap.mmap, start: int, end: int, message: str, level: int) -> Iterator[str]:
    if level > 64:
        raise IndexError("nested too deeply")
    for number, begin, stop in _fields(content, start, end):
        inner = _NESTED[message].get(number)
        if inner == "entry":
            entry = {key: content[a:b].decode() for key, a, b in _fields(content, begin, stop)}
            if entry.get(1) == "location":
                yield entry.get(2, "")
        elif inner is not None:
            yield from _locations(content, begin, stop, inner, level + 1)


def _fields(content: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yields the number, the begin and the end of each length-delimited field."""
    while position < end:
        key, position = _varint(content, position)
        kind = key & 7
        if kind == 2:
            size, position = _varint(content, position)
            if position + size > end:
                raise IndexError("a field ends after its message")
            yield key >> 3, position, position + size
            position += size
        elif kind == 0:
            _, position = _varint(content, position)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise IndexError("an unknown type of field")


def _varint(content: mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
        if shift > 63:
            raise IndexError("a number is too long")
