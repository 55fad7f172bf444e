"""Reads CIFAR-10 and CIFAR-100 as their authors pickled them: ``cifar-10-batches-py`` and ``cifar-100-python``."""

from __future__ import annotations

import re

import numpy as np

from crossroads.data.dataset import NO_SPLIT, TEST, TRAIN, Dataset
from crossroads.data.readers._arrays import Pair, dataset_of_pairs
from crossroads.data.readers._listing import Listing
from crossroads.data.readers.pickles import load_dict
from crossroads.errors import DataError
from crossroads.progress import Note

_BATCH = re.compile(r"(data_batch_\d+|train)|test(_batch)?")
_META = ("batches.meta", "meta")
_SIZE = 32
_PIXELS = 3 * _SIZE**2


def recognises(listing: Listing) -> bool:
    """Returns whether there are batches of images beside a file of class names."""
    return not listing.single and any(name in listing.top_files for name in _META) and bool(_batches(listing))


def _batches(listing: Listing) -> list[tuple[str, int]]:
    """Returns the names of the batches with their splits."""
    return [(name, TRAIN if match[1] else TEST) for name in listing.top_files if (match := _BATCH.fullmatch(name))]


def read(listing: Listing) -> Dataset:
    """Returns the data set of all batches. The classes of CIFAR-100 are its fine labels."""
    meta = load_dict(listing, next(name for name in _META if name in listing.top_files))
    fine = "fine_label_names" in meta
    names = meta.get("fine_label_names" if fine else "label_names")
    if not isinstance(names, list):
        received = ", ".join(map(str, meta)) or "nothing"
        raise DataError(f"{listing.origin} must hold the names of the classes", code="no-class-names", received=received)
    batches = _batches(listing)
    has_both = len({split for _, split in batches}) > 1
    pairs: list[Pair[object]] = []
    for name, split in batches:
        pixels, labels = _load_batch(listing, name, "fine_labels" if fine else "labels", len(names))
        images = pixels.reshape(-1, 3, _SIZE, _SIZE).transpose(0, 2, 3, 1)
        pairs.append((split if has_both else NO_SPLIT, listing.label(name), images, [_text(names[label]) for label in labels]))
    notes = [Note("the classes are the fine labels; the coarse labels are ignored", "fine-labels")] if fine else []
    return dataset_of_pairs(pairs, listing.origin, notes)


def _load_batch(listing: Listing, name: str, key: str, classes: int) -> tuple[np.ndarray, list[int]]:
    """Returns pixels (n, 3072) and n labels, each below `classes`."""
    batch = load_dict(listing, name)
    pixels, labels = batch.get("data"), batch.get(key)
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != _PIXELS or not isinstance(labels, list):
        rule = f"{listing.label(name)} must hold data (n, {_PIXELS}) and labels"
        raise DataError(rule, code="malformed-batch", received=", ".join(map(str, batch)))
    if not all(isinstance(label, int) and 0 <= label < classes for label in labels):
        raise DataError(f"a label of {listing.label(name)} must be a number from 0 to {classes - 1}", code="label-out-of-range")
    return pixels, labels


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
