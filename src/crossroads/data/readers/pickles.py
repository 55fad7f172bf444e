"""Pickled dicts of images and labels."""

from __future__ import annotations

import numpy as np

from crossroads.data.dataset import Dataset
from crossroads.data.readers._arrays import Pair, from_pairs, pairs_of
from crossroads.data.readers._folder_names import split_files
from crossroads.data.readers._listing import View, suffix_of
from crossroads.errors import DataError
from crossroads.files.unpickle import load_pickle


def pickles(view: View) -> list[str]:
    """The pickle files of a view."""
    if view.single and view.kind:
        return []
    found = [name for name in view.top_files if suffix_of(name) in (".p", ".pkl", ".pickle")]
    if view.single and not found and _starts_like_pickle(view):
        return list(view.names)
    return found


def _starts_like_pickle(view: View) -> bool:
    head = view.byte_range(view.names[0]).read(0, 2)
    return len(head) == 2 and head[0] == 0x80 and head[1] <= 5


def read_pickles(view: View) -> Dataset:
    """Pickled dicts of images and labels, read by the restricted unpickler."""
    pairs: list[Pair[object]] = []
    for split, name in split_files(pickles(view), view.origin, "pickle"):
        label = view.label(name)
        for inner, key, images, labels in pairs_of(pickled_dict(view, name), label):
            _require_flat(images, labels, label)
            pairs.append((inner or split, f"{label}:{key}" if split and not inner else key, images, labels))
    return from_pairs(pairs, view.origin)


def pickled_dict(view: View, name: str) -> dict[str, object]:
    """The dict in a pickle, its keys as text. Raises DataError for anything else."""
    try:
        content = load_pickle(view.byte_range(name).stream())
    except DataError as error:
        raise DataError(f"{view.label(name)}: {error.rule}", received=error.received, hint=error.hint) from error
    if not isinstance(content, dict):
        raise DataError(f"{view.label(name)} must hold a dict", received=f"a {type(content).__name__}")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}


def _require_flat(images: object, labels: object, label: str) -> None:
    """A pickle spells a list that is held many times once: a nest of such lists is tiny in the file and endless when unfolded."""
    hint = "save them as one array, numpy.asarray(…), best with numpy.savez"
    if isinstance(images, (list, tuple)) and not all(isinstance(image, np.ndarray) for image in images):
        raise DataError(f"the images of {label} must be an array or a list of arrays", received="a list of other things", hint=hint)
    if isinstance(labels, (list, tuple)) and any(
        np.ndim(item) > 0 if isinstance(item, np.ndarray) else not isinstance(item, (str, bytes, bool, int, float, np.generic))
        for item in labels
    ):
        raise DataError(f"the labels of {label} must be an array or a flat list", received="a list of other things", hint=hint)
