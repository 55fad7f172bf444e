"""Defines arrays of features: the protocol that heads and training read from, and features on disk."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crossroads._runtime.process import release_pages

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


class Stacked(Sequence[Any]):
    """The rows of one array after those of another, read on demand.

    Args:
        first: The array whose rows come first.
        second: The other array. Its rows have the same shape.
    """

    def __init__(self, first: Indexable, second: Indexable) -> None:
        self._parts, self._split = (first, second), first.shape[0]
        self.shape = (first.shape[0] + second.shape[0], *first.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        """Returns the rows of a slice without a step, or of an array of indices."""
        if isinstance(index, slice):
            start, stop, _ = index.indices(len(self))
            first = self._parts[0][start : min(stop, self._split)]
            second = self._parts[1][max(start - self._split, 0) : max(stop - self._split, 0)]
            return second if start >= self._split else first if stop <= self._split else np.concatenate([first, second])
        rows = np.arange(len(self))[index]
        in_first = rows < self._split
        found = np.empty((len(rows), *self.shape[1:]), np.float32)
        found[in_first] = self._parts[0][rows[in_first]]
        found[~in_first] = self._parts[1][rows[~in_first] - self._split]
        return found


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
        release_pages(self._map)
