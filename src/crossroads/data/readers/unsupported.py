"""Recognises formats that are known but not read, and gives a hint for each."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crossroads.data.readers._listing import Listing, is_image_name, suffix_of
from crossroads.errors import DataError

_HEAD = 1 << 16
_MAX_OPENED = 3
_MIN_PIXEL_COLUMNS = 500


@dataclass(frozen=True, slots=True)
class Unsupported:
    """One format that is known but not read.

    Attributes:
        name: Name of the format.
        matches: Returns the files of this format, given the listing and the names to search.
        advice: What to do with such a file.
    """

    name: str
    matches: Callable[[Listing, Sequence[str]], list[str]]
    advice: str


def _ending(*suffixes: str) -> Callable[[Listing, Sequence[str]], list[str]]:
    return lambda _listing, names: [name for name in names if suffix_of(name) in suffixes]


def _named(*parts: str) -> Callable[[Listing, Sequence[str]], list[str]]:
    return lambda _listing, names: [name for name in names if any(part in posixpath.basename(name).lower() for part in parts)]


def _json_with(*keys: bytes) -> Callable[[Listing, Sequence[str]], list[str]]:
    def matches(listing: Listing, names: Sequence[str]) -> list[str]:
        files = [name for name in names if suffix_of(name) == ".json"][:_MAX_OPENED]
        heads = [(name, _head(listing, name)) for name in files]
        return [name for name, head in heads if any(key in head for key in keys)]

    return matches


def _pixels(listing: Listing, names: Sequence[str]) -> list[str]:
    files = [name for name in names if suffix_of(name) == ".csv"][:_MAX_OPENED]
    heads = [(name, _head(listing, name).partition(b"\n")[0].lower()) for name in files]
    return [name for name, head in heads if b"pixels" in head or head.count(b",") > _MIN_PIXEL_COLUMNS]


def _head(listing: Listing, name: str) -> bytes:
    try:
        return listing.tree.byte_range(name).read(0, _HEAD)
    except DataError:
        return b""


def _yolo(_listing: Listing, names: Sequence[str]) -> list[str]:
    boxes = [name for name in names if suffix_of(name) == ".txt" and "labels" in name.split("/")[:-1]]
    return boxes or [name for name in names if posixpath.basename(name) in ("data.yaml", "classes.names", "darknet.labels")]


UNSUPPORTED = (
    Unsupported(
        "a table of pixels", _pixels, "give the pixels their shape with numpy, and save images and labels with numpy.savez"
    ),
    Unsupported(
        "COCO",
        _json_with(b'"licenses"', b'"categories"', b'"bbox"'),
        "it holds objects in images: export the set for classification",
    ),
    Unsupported("YOLO", _yolo, "it holds boxes: export the set for classification, or crop the boxes into class folders"),
    Unsupported("LabelMe", _json_with(b'"shapes"'), "it holds objects in images: crop them into class folders"),
    Unsupported("Label Studio JSON", _json_with(b'"annotations"'), "export it as CSV or JSON-MIN"),
    Unsupported(
        "Pascal VOC or CVAT XML",
        _ending(".xml"),
        "it holds objects in images: export the set for classification (CVAT: ImageNet 1.0)",
    ),
    Unsupported(
        "TFRecord", _named(".tfrecord", ".tfrec"), "write the images into class folders, with tensorflow_datasets or tf.data"
    ),
    Unsupported("LMDB", _named("data.mdb"), "write the images into class folders with the lmdb package"),
    Unsupported(
        "MATLAB", _ending(".mat"), "load it with scipy.io.loadmat, and save images and labels with numpy.savez or the labels as CSV"
    ),
    Unsupported("HDF5", _ending(".h5", ".hdf5"), "load it with h5py, and save images and labels with numpy.savez"),
    Unsupported("Arrow", _ending(".arrow"), "load it with datasets.load_from_disk, and save it with to_parquet"),
    Unsupported("RecordIO", _ending(".rec"), "unpack it with im2rec's tools into class folders"),
    Unsupported("FFCV", _ending(".beton"), "write the images into class folders"),
    Unsupported(
        "raw binary", _ending(".bin"), "take the Python version of the data set, or save images and labels with numpy.savez"
    ),
    Unsupported("PyTorch tensors", _ending(".pt", ".pth"), "save images and labels with numpy.savez"),
    Unsupported("7z or RAR archive", _ending(".7z", ".rar"), "unpack it first"),
)
"""All formats that are recognised but not read."""


def unsupported_hint(listing: Listing) -> str:
    """Returns a hint on a file that may hold the labels in an unsupported format. Returns an empty string if there is none."""
    names = listing.names if listing.single else [name for name in listing.tree.names() if not is_image_name(name)]
    for form in UNSUPPORTED:
        if matches := form.matches(listing, names):
            return f"{matches[0]} is {form.name}, which is not read: {form.advice}"
    return ""
