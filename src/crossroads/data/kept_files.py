"""Keeps the image files of a data set in memory once they are read, for work that reads the same images several times."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import Dataset, FileSource, MemorySource

KEPT_BYTES = 256 * 2**20
"""Bytes of files that are kept: 2,000 photographs of 128 KB. Further files are read again each time."""


def keep_files(dataset: Dataset, most: int = KEPT_BYTES) -> Dataset:
    """Returns a data set that reads each file once, up to a number of bytes. One with images in memory is returned unchanged."""
    if not isinstance(dataset.images, FileSource) or isinstance(dataset.images, MemorySource):
        return dataset
    return replace(dataset, images=KeptFiles(dataset.images, most))


class KeptFiles:
    """A source of images that keeps the files that it has read, the first ones up to a number of bytes.

    The most recent files are not better ones to keep: each pass reads the same images in the same order.

    Args:
        files: The source.
        most: Largest number of bytes that are kept.
    """

    def __init__(self, files: FileSource, most: int) -> None:
        self._files, self._left = files, most
        self._kept: dict[int, bytes] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        """Returns the name of an image."""
        return self._files.name(index)

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """Returns the contents of a file, from memory if it was kept; or pixels, if the source has them beside files."""
        if (kept := self._kept.get(index)) is not None:
            return kept
        raw = self._files.read(index)
        if not isinstance(raw, bytes):
            return raw
        with self._lock:
            if index not in self._kept and len(raw) <= self._left:
                self._kept[index] = raw
                self._left -= len(raw)
        return raw

    def size(self, index: int) -> int | None:
        """Returns the size of a file in bytes, or None as the source does."""
        return self._files.size(index)

    def head(self, index: int, size: int) -> bytes:
        """Returns the first bytes of a file."""
        return self._files.head(index, size)

    def short_digest(self, index: int) -> bytes:
        """Returns the short digest of a file."""
        return self._files.short_digest(index)
