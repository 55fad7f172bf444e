"""Reads pairs of .npy files, such as ``X.npy`` with ``y.npy``. Python objects in them are never unpickled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from crossroads.data._npy import load_npy
from crossroads.data.dataset import Dataset
from crossroads.data.readers._arrays import IMAGE_KEYS, LABEL_KEYS, Pair, dataset_of_pairs, find_pairs
from crossroads.data.readers._listing import Listing, suffix_of


def read(listing: Listing) -> Dataset:
    """Returns the data set of one or several pairs of files, memory-mapped. The file names may give splits."""
    spans = {PurePosixPath(name).stem: listing.byte_range(name) for name in files(listing)}
    pairs = find_pairs(spans, listing.origin)
    loaded: list[Pair[object]] = [(split, name, load_npy(images), load_npy(labels)) for split, name, images, labels in pairs]
    return dataset_of_pairs(loaded, listing.origin)


def files(listing: Listing) -> list[str]:
    """Returns the .npy files. If the user gave a single file, its partner in the same folder is returned as well."""
    if not listing.single:
        return [name for name in listing.top_files if suffix_of(name) == ".npy"]
    name = listing.names[0]
    if listing.kind != "npy":
        return []
    stem = PurePosixPath(name).stem
    partners = [stem.replace(old, new) for old, new in _replacements(stem)]
    return [name, *(f"{other}.npy" for other in dict.fromkeys(partners) if other != stem and listing.tree.exists(f"{other}.npy"))]


def _replacements(stem: str) -> list[tuple[str, str]]:
    """Returns (old, new) pairs. Replacing old with new turns the name of an images file into that of its labels, or vice versa."""
    cases: tuple[Callable[[str], str], ...] = (str.lower, str.capitalize, str.upper)
    keys = [key for key in (*IMAGE_KEYS, *LABEL_KEYS) if key in stem.lower()]
    pairs = [(key, other) for key in keys for other in (LABEL_KEYS if key in IMAGE_KEYS else IMAGE_KEYS)]
    return [(old(key), new(other)) for key, other in pairs for old in cases for new in cases]
