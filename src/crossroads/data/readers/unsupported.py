"""Formats that are known and not read: how to tell them, and what to do with them."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crossroads.data.readers._listing import View, is_image_name, suffix_of
from crossroads.errors import DataError

_HEAD = 1 << 16
_MOST_LOOKED_AT = 3
_MANY_COLUMNS = 500


@dataclass(frozen=True, slots=True)
class Other:
    """One format that is not read.

    Attributes:
        name: What it is called.
        matches: The files of it among all files.
        advice: What to do with it.
    """

    name: str
    matches: Callable[[View, Sequence[str]], list[str]]
    advice: str


def _ending(*suffixes: str) -> Callable[[View, Sequence[str]], list[str]]:
    return lambda _view, names: [name for name in names if suffix_of(name) in suffixes]


def _named(*parts: str) -> Callable[[View, Sequence[str]], list[str]]:
    return lambda _view, names: [name for name in names if any(part in posixpath.basename(name).lower() for part in parts)]


def _json_with(*keys: bytes) -> Callable[[View, Sequence[str]], list[str]]:
    def matches(view: View, names: Sequence[str]) -> list[str]:
        files = [name for name in names if suffix_of(name) == ".json"][:_MOST_LOOKED_AT]
        heads = [(name, _head(view, name)) for name in files]
        return [name for name, head in heads if any(key in head for key in keys)]

    return matches


def _pixels(view: View, names: Sequence[str]) -> list[str]:
    files = [name for name in names if suffix_of(name) == ".csv"][:_MOST_LOOKED_AT]
    heads = [(name, _head(view, name).partition(b"\n")[0].lower()) for name in files]
    return [name for name, head in heads if b"pixels" in head or head.count(b",") > _MANY_COLUMNS]


def _head(view: View, name: str) -> bytes:
    try:
        return view.tree.byte_range(name).read(0, _HEAD)
    except DataError:
        return b""


def _yolo(_view: View, names: Sequence[str]) -> list[str]:
    boxes = [name for name in names if suffix_of(name) == ".txt" and "labels" in name.split("/")[:-1]]
    return boxes or [name for name in names if posixpath.basename(name) in ("data.yaml", "classes.names", "darknet.labels")]


OTHERS = (
    Other("a table of pixels", _pixels, "give the pixels their shape with numpy, and save images and labels with numpy.savez"),
    Other(
        "COCO",
        _json_with(b'"licenses"', b'"categories"', b'"bbox"'),
        "it holds objects in images: export the set for classification",
    ),
    Other("YOLO", _yolo, "it holds boxes: export the set for classification, or crop the boxes into class folders"),
    Other("LabelMe", _json_with(b'"shapes"'), "it holds objects in images: crop them into class folders"),
    Other("Label Studio JSON", _json_with(b'"annotations"'), "export it as CSV or JSON-MIN"),
    Other(
        "Pascal VOC or CVAT XML",
        _ending(".xml"),
        "it holds objects in images: export the set for classification (CVAT: ImageNet 1.0)",
    ),
    Other("TFRecord", _named(".tfrecord", ".tfrec"), "write the images into class folders, with tensorflow_datasets or tf.data"),
    Other("LMDB", _named("data.mdb"), "write the images into class folders with the lmdb package"),
    Other(
        "MATLAB", _ending(".mat"), "load it with scipy.io.loadmat, and save images and labels with numpy.savez or the labels as CSV"
    ),
    Other("HDF5", _ending(".h5", ".hdf5"), "load it with h5py, and save images and labels with numpy.savez"),
    Other("Arrow", _ending(".arrow"), "load it with datasets.load_from_disk, and save it with to_parquet"),
    Other("RecordIO", _ending(".rec"), "unpack it with im2rec's tools into class folders"),
    Other("FFCV", _ending(".beton"), "write the images into class folders"),
    Other("raw binary", _ending(".bin"), "take the Python version of the data set, or save images and labels with numpy.savez"),
    Other("PyTorch tensors", _ending(".pt", ".pth"), "save images and labels with numpy.savez"),
    Other("7z or RAR archive", _ending(".7z", ".rar"), "unpack it first"),
)
"""Every format that is recognised in order to be refused with a reason."""


def hint_for(view: View) -> str:
    """What lies there that may hold the labels in a form that is not read; empty where nothing does."""
    names = view.names if view.single else [name for name in view.tree.names() if not is_image_name(name)]
    for other in OTHERS:
        if found := other.matches(view, names):
            return f"{found[0]} is {other.name}, which is not read: {other.advice}"
    return ""
