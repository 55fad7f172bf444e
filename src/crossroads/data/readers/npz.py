"""Reads .npz files such as ``numpy.savez(file, features=…, labels=…)`` writes. Python objects in them are never unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping

from crossroads.data._npy import load_npy
from crossroads.data.dataset import Dataset
from crossroads.data.readers._arrays import Pair, dataset_of_pairs, pairs_of_files
from crossroads.data.readers._listing import Listing, suffix_of
from crossroads.errors import DataError
from crossroads.files.archives import Limits
from crossroads.files.byte_ranges import ByteRange
from crossroads.files.trees import open_archive


def files(listing: Listing) -> list[str]:
    """Returns the .npz files."""
    return [name for name in listing.top_files if suffix_of(name) == ".npz" and listing.kind in ("", "zip")]


def read(listing: Listing) -> Dataset:
    """Returns the data set of one file, or of one file for each split."""
    pairs = pairs_of_files(listing, files(listing), ".npz", lambda name: _Members(listing.byte_range(name), listing.label(name)))
    loaded: list[Pair[object]] = [(split, name, load_npy(images), load_npy(labels)) for split, name, images, labels in pairs]
    return dataset_of_pairs(loaded, listing.origin)


class _Members(Mapping[str, ByteRange]):
    """The arrays of an .npz file, by name. An array is decompressed only on access, because others may be large or hold objects."""

    def __init__(self, file: ByteRange, label: str) -> None:
        if not zipfile.is_zipfile(file.stream()):
            received = f"{file.size} bytes"
            hint = "fetch or save it again"
            raise DataError(f"{label} is not a complete .npz file", code="file-truncated", received=received, hint=hint)
        self._tree = open_archive(file, "zip", label, Limits(ratio=10**9))  # blank images exceed any usual compression limit
        self._names = {name.removesuffix(".npy"): name for name in self._tree.names() if name.endswith(".npy")}

    def __getitem__(self, key: str) -> ByteRange:
        return self._tree.byte_range(self._names[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
