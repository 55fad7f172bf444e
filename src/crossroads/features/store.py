"""Stores cached features in a file of rows that only grows, and an index with the image and view of each row.

    data    rows of equal length, one after another
    index   32 bytes per row in the same order: digest of the image (16), number of the view (4), checksum of both and of the row
            number (4), reserved (8)

Rows are flushed to disk before their index records are written. If the process is killed in between, the rows have no records, and
the next writer overwrites them. An incomplete index record fails its checksum and is removed. Writers lock the folder. Readers need
no lock, because a row with a record never changes.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from crossroads.errors import FeatureError, option
from crossroads.features.arrays import StoredFeatures

RECORD = np.dtype([("digest", "u1", 16), ("view", "<u4"), ("check", "<u4"), ("reserve", "<u8")])


class _Index(NamedTuple):
    """Records in the order of the rows; and their keys, sorted, with the row of each."""

    records: NDArray[Any]
    keys: NDArray[np.uint64]
    order: NDArray[np.int64]


class Store:
    """The features of one frozen part in one folder. `Cache.store` creates it.

    Args:
        folder: The folder of the files.
        shape: The shape of one row, without the axis of images.
        dtype: ``float32`` or ``float16``.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: str) -> None:
        self.folder, self.shape, self.dtype = folder, shape, np.dtype(dtype)
        self._lock = FileLock(folder / "write.lock")
        self._index = _Index(np.empty(0, RECORD), np.empty(0, np.uint64), np.empty(0, np.int64))
        self._refresh()

    def __len__(self) -> int:
        return len(self._index.records)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row and its index record."""
        return self._data_bytes + RECORD.itemsize

    @property
    def _data_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def find(self, digests: NDArray[np.uint8], views: int | NDArray[np.integer] = 0) -> NDArray[np.int64]:
        """Returns the row of each image, int64 (n,); -1 if it is not in the store.

        Args:
            digests: uint8 (n, 16).
            views: Number of the view, one for all images or one each.
        """
        index = self._index  # a snapshot: another thread may append
        if not len(digests) or not len(index.records):
            return np.full(len(digests), -1, np.int64)
        place = np.searchsorted(index.keys, _keys(digests, views))
        rows = index.order[np.minimum(place, len(index.keys) - 1)]
        same = (index.records["digest"][rows] == digests).all(axis=1) & (index.records["view"][rows] == views)
        return np.where(same, rows, -1)

    def append(self, digests: NDArray[np.uint8], views: NDArray[np.integer], values: NDArray[np.floating[Any]]) -> None:
        """Adds rows, except those that another process has added in the meantime.

        Args:
            digests: uint8 (n, 16).
            views: Integers (n,).
            values: Float (n, *shape).

        Raises:
            FeatureError: Values are not finite in the type of the store, or the folder cannot be written, such as on a full disk.
                Earlier rows stay valid.
        """
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(values, self.dtype)
        if not np.isfinite(stored).all():
            raise _not_finite(values, self.dtype)
        try:
            with self._lock:
                self._refresh()
                new = np.flatnonzero(self.find(digests, views) < 0)
                if len(new):
                    self._write(digests[new], np.asarray(views)[new], stored[new])
                    self._refresh()
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def rows(self, numbers: NDArray[np.int64]) -> StoredFeatures:
        """Returns the rows with these numbers, to be read on demand.

        Raises:
            FeatureError: A row does not exist, such as the -1 of `find`.
        """
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(self):
            raise FeatureError(
                f"rows of {self.folder} must be between 0 and {len(self) - 1}",
                code="feature-row-missing",
                received=f"{numbers.min()} to {numbers.max()}",
                hint="run `crossroads cache clear`, and start again",
            )
        return StoredFeatures(self.folder / "data", self.shape, self.dtype, numbers)

    def _write(self, digests: NDArray[np.uint8], views: NDArray[np.integer], values: NDArray[Any]) -> None:
        first = len(self)
        records = np.zeros(len(digests), RECORD)
        records["digest"], records["view"] = digests, views
        records["check"] = _checksums(records, first)
        _write_at(self.folder / "data", first * self._data_bytes, np.ascontiguousarray(values))
        _write_at(self.folder / "index", first * RECORD.itemsize, records)

    def _refresh(self) -> None:
        """Reads the index records that this process or another has added since the last time."""
        index, known = self.folder / "index", len(self)
        size = index.stat().st_size // RECORD.itemsize if index.exists() else 0
        if size <= known:
            return
        with index.open("rb") as file:
            file.seek(known * RECORD.itemsize)
            fresh = np.frombuffer(file.read((size - known) * RECORD.itemsize), RECORD)
        torn = np.flatnonzero(fresh["check"] != _checksums(fresh, known))
        fresh = fresh[: torn[0]] if len(torn) else fresh
        data = self.folder / "data"
        complete = data.stat().st_size // self._data_bytes if data.exists() and self._data_bytes else 0
        records = np.concatenate([self._index.records, fresh])[:complete]
        keys = _keys(records["digest"], records["view"])
        order = np.argsort(keys, kind="stable").astype(np.int64)
        self._index = _Index(records, keys[order], order)


class Stores:
    """Several stores that are filled in one pass: their rows, side by side.

    Args:
        stores: At least one, of vectors.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        self._stores = tuple(stores)
        self._edges = np.cumsum([store.shape[0] for store in stores])[:-1]
        self.folder, self.shape = stores[0].folder, (sum(store.shape[0] for store in stores),)

    def __len__(self) -> int:
        return sum(map(len, self._stores))

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in every store."""
        return sum(store.row_bytes for store in self._stores)

    def find(self, digests: NDArray[np.uint8], views: int | NDArray[np.integer] = 0) -> NDArray[np.int64]:
        """Returns a number for each image, int64 (n,); -1 if a store does not hold it."""
        found: NDArray[np.int64] = np.min([store.find(digests, views) for store in self._stores], axis=0)
        return found

    def append(self, digests: NDArray[np.uint8], views: NDArray[np.integer], values: NDArray[np.floating[Any]]) -> None:
        """Adds to each store its columns of the values, except the rows that it holds. Raises as `Store.append` does."""
        for store, columns in zip(self._stores, np.split(values, self._edges, axis=1), strict=True):
            store.append(digests, views, columns)


def _keys(digests: NDArray[np.uint8], views: Any) -> NDArray[np.uint64]:
    """Returns uint64 (n,): half of the digest, changed by the view. Records with equal keys are compared in full."""
    half = np.ascontiguousarray(digests[:, :8]).view(np.uint64)[:, 0]
    return np.asarray(half + np.asarray(views, np.uint64) * np.uint64(0x9E3779B97F4A7C15), np.uint64)


def _checksums(records: NDArray[Any], first: int) -> NDArray[np.uint32]:
    """Returns uint32 (n,): the CRC-32 of digest, view and row number, so that a record is valid only in its own place."""
    raw = np.zeros((len(records), 28), np.uint8)
    raw[:, :16] = records["digest"]
    raw[:, 16:20] = np.ascontiguousarray(records["view"]).view(np.uint8).reshape(-1, 4)
    raw[:, 20:] = np.arange(first, first + len(records), dtype="<u8").view(np.uint8).reshape(-1, 8)
    return np.fromiter((zlib.crc32(row.tobytes()) for row in raw), np.uint32, len(raw))


def unwritable(folder: Path, error: OSError) -> FeatureError:
    """Returns the error for a folder of the cache that cannot be read and written, such as on a full disk."""
    return FeatureError(
        "the cache of features must be writable",
        code="cache-not-writable",
        received=f"{folder} ({error.strerror or error})",
        hint="free some space there, or set CROSSROADS_CACHE to another folder",
    )


def _not_finite(values: NDArray[np.floating[Any]], stored: np.dtype[Any]) -> FeatureError:
    if np.isfinite(values).all():
        return FeatureError(
            f"features must fit {stored.name}, whose largest number is {np.finfo(stored).max:g}",
            code="features-overflow",
            received=f"{np.abs(values).max():g}",
            hint=f"set {option('feature_type')} to float32",
        )
    return FeatureError(
        "features must be finite",
        code="features-not-finite",
        received="NaN or infinity",
        hint=f"use other {option('weights')} or another {option('cut')}",
    )


def _write_at(path: Path, offset: int, values: NDArray[Any]) -> None:
    """Writes values at an offset of a file, truncates the file after them, and flushes it to disk."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.seek(offset)
        values.tofile(file)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
