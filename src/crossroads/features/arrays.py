"""Arrays of features: the protocol that heads and training read from, and rows of the cache on disk."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

RELEASE = 1 << 28
"""Bytes read from the memory map after which its pages are given back, so that they do not count as this process's memory."""


class Indexable(Protocol):
    """An array, a memory map, or rows of the feature cache: what can be asked for its shape and for some of its rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""
        ...

    def __getitem__(self, rows: Any, /) -> Any:
        """The rows of a slice or of an array of indices."""
        ...


class StoredFeatures(Sequence[Any]):
    """Rows of a file of features, float32, read when they are asked for.

    Attributes:
        shape: (n, ...), of all rows.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, path: Path, shape: tuple[int, ...], stored: np.dtype[Any], numbers: NDArray[np.int64]) -> None:
        self._numbers, self._stored, self._row = numbers, stored, shape
        self.shape = (len(numbers), *shape)
        most = int(numbers.max()) + 1 if len(numbers) else 0
        self._map = np.memmap(path, stored, "r", shape=(most, *shape)) if most and prod(shape) else np.empty((most, *shape), stored)
        self._read = 0

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, rows: Any) -> Any:
        """float32: one row of shape ``shape[1:]`` for a number, else (m, ...) for a slice or an array of numbers."""
        chosen = self._numbers[rows]
        if np.ndim(chosen) and len(chosen) and chosen[-1] - chosen[0] == len(chosen) - 1 and (np.diff(chosen) == 1).all():
            chosen = slice(int(chosen[0]), int(chosen[-1]) + 1)
        values = np.array(self._map[chosen], np.float32)
        self._read += values.nbytes
        if self._read > RELEASE:
            self._release()
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def _release(self) -> None:
        self._read = 0
        mapped = getattr(self._map, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            with suppress(OSError, ValueError):
                mapped.madvise(mmap.MADV_DONTNEED)
