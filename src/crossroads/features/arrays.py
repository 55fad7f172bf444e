"""Defines arrays of features: the protocol that heads and training read from, and features on disk."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

RELEASE_BYTES = 1 << 28
"""After this many bytes read, the pages of a memory map are released, so that they do not count as memory of this process."""


class Indexable(Protocol):
    """Anything with a shape whose rows can be indexed: an array, a memory map, or `StoredFeatures`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows comes first."""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """Returns the rows of a slice or of an array of indices."""
        ...


class StoredFeatures(Sequence[Any]):
    """Features in a file, read on demand as float32.

    Args:
        path: The file.
        shape: The shape of one row.
        stored: The dtype in the file.
        rows: int64 (n,), the rows of the file, in order.

    Attributes:
        shape: (n, ...).
    """

    dtype = np.dtype(np.float32)

    def __init__(self, path: Path, shape: tuple[int, ...], stored: np.dtype[Any], rows: NDArray[np.int64]) -> None:
        self._rows = rows
        self.shape = (len(rows), *shape)
        count = int(rows.max()) + 1 if len(rows) else 0
        self._map = (
            np.memmap(path, stored, "r", shape=(count, *shape)) if count and prod(shape) else np.empty((count, *shape), stored)
        )
        self._read_bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        """Returns one row, float32 of shape ``shape[1:]``, for a number, or m rows (m, ...) for a slice or an array."""
        chosen = self._rows[index]
        if np.ndim(chosen) and len(chosen) and chosen[-1] - chosen[0] == len(chosen) - 1 and (np.diff(chosen) == 1).all():
            chosen = slice(int(chosen[0]), int(chosen[-1]) + 1)
        values = np.array(self._map[chosen], np.float32)
        self._read_bytes += values.nbytes
        if self._read_bytes > RELEASE_BYTES:
            self._release()
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def _release(self) -> None:
        self._read_bytes = 0
        mapped = getattr(self._map, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            with suppress(OSError, ValueError):
                mapped.madvise(mmap.MADV_DONTNEED)
