"""Reads pickled dicts of images and labels."""

from __future__ import annotations

import numpy as np

from crossroads.data.dataset import Dataset
from crossroads.data.readers._arrays import dataset_of_pairs, pairs_of_files
from crossroads.data.readers._listing import Listing, suffix_of
from crossroads.errors import DataError
from crossroads.files.unpickle import load_pickle


def files(listing: Listing) -> list[str]:
    """Returns the pickle files. A single file is also recognised by its first bytes."""
    if listing.single and listing.kind:
        return []
    files = [name for name in listing.top_files if suffix_of(name) in (".p", ".pkl", ".pickle")]
    if listing.single and not files and _starts_like_pickle(listing):
        return list(listing.names)
    return files


def _starts_like_pickle(listing: Listing) -> bool:
    head = listing.byte_range(listing.names[0]).read(0, 2)
    return len(head) == 2 and head[0] == 0x80 and head[1] <= 5


def read(listing: Listing) -> Dataset:
    """Returns the data set of one pickle, or of one pickle for each split. The restricted unpickler executes no code in it."""
    pairs = list(pairs_of_files(listing, files(listing), "pickle", lambda name: load_dict(listing, name)))
    for _, name, images, labels in pairs:
        _require_flat(images, labels, f"{name} in {listing.origin}")
    return dataset_of_pairs(pairs, listing.origin)


def load_dict(listing: Listing, name: str) -> dict[str, object]:
    """Returns the dict in a pickle, with its keys as strings. Raises `DataError` if the pickle does not hold a dict."""
    label = listing.label(name)
    try:
        content = load_pickle(listing.byte_range(name).stream())
    except DataError as error:
        raise DataError(f"{label}: {error.rule}", code=error.code, received=error.received, hint=error.hint) from error
    if not isinstance(content, dict):
        raise DataError(
            f"{label} must hold a dict", code="not-a-dict", received=f"a {type(content).__name__}", hint="save a dict of arrays"
        )
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}


def _require_flat(images: object, labels: object, label: str) -> None:
    """Raises `DataError` for nested lists. A pickle stores a repeated list only once, so a tiny file could become huge arrays."""
    hint = "save them as one array, numpy.asarray(…), preferably with numpy.savez"
    received = "a list of other things"
    if isinstance(images, (list, tuple)) and not all(isinstance(image, np.ndarray) for image in images):
        rule = f"the images of {label} must be an array or a list of arrays"
        raise DataError(rule, code="nested-images", received=received, hint=hint)
    if isinstance(labels, (list, tuple)) and not all(map(_is_scalar, labels)):
        raise DataError(
            f"the labels of {label} must be an array or a flat list", code="nested-labels", received=received, hint=hint
        )


def _is_scalar(label: object) -> bool:
    return label.ndim == 0 if isinstance(label, np.ndarray) else isinstance(label, (str, bytes, bool, int, float, np.generic))
