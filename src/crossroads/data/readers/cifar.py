"""CIFAR-10 and CIFAR-100 in the pickled form of their authors, ``cifar-10-batches-py`` and ``cifar-100-python``."""

from __future__ import annotations

import re

import numpy as np

from crossroads.data.dataset import NO_SPLIT, TEST, TRAIN, Dataset
from crossroads.data.readers._arrays import Pair, from_pairs
from crossroads.data.readers._listing import View
from crossroads.data.readers.pickles import pickled_dict
from crossroads.errors import DataError

_BATCH = re.compile(r"(data_batch_\d+|train)|test(_batch)?")
_META = ("batches.meta", "meta")
_SIDE = 32


def is_cifar(view: View) -> bool:
    """Whether the batches lie there with the file of their class names."""
    return not view.single and any(name in view.top_files for name in _META) and bool(_batches(view))


def _batches(view: View) -> list[tuple[str, bool]]:
    """The files of images, and whether each is of the training set."""
    return [(name, bool(match[1])) for name in view.top_files if (match := _BATCH.fullmatch(name))]


def read_cifar(view: View) -> Dataset:
    """All batches, with the names of the classes; of CIFAR-100 the fine ones."""
    meta = pickled_dict(view, next(name for name in _META if name in view.top_files))
    fine = "fine_label_names" in meta
    names = meta.get("fine_label_names" if fine else "label_names")
    if not isinstance(names, list):
        raise DataError(f"{view.origin} must hold the names of the classes", received=", ".join(map(str, meta)) or "nothing")
    batches = _batches(view)
    both = len({train for _, train in batches}) > 1
    pairs: list[Pair[object]] = []
    for name, train in batches:
        batch = pickled_dict(view, name)
        pixels, labels = batch.get("data"), batch.get("fine_labels" if fine else "labels")
        if (
            not isinstance(pixels, np.ndarray)
            or pixels.ndim != 2
            or pixels.shape[1] != 3 * _SIDE**2
            or not isinstance(labels, list)
        ):
            raise DataError(
                f"{view.label(name)} must hold data (n, {3 * _SIDE**2}) and labels", received=", ".join(map(str, batch))
            )
        if not all(isinstance(label, int) and 0 <= label < len(names) for label in labels):
            raise DataError(f"a label of {view.label(name)} must be a number from 0 to {len(names) - 1}")
        split = (TRAIN if train else TEST) if both else NO_SPLIT
        images = pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
        pairs.append((split, view.label(name), images, [_text(names[label]) for label in labels]))
    return from_pairs(pairs, view.origin, ["the classes are the fine labels; the coarse labels are ignored"] if fine else [])


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
