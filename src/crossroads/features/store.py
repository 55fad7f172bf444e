"""One set of cached features: a file of rows that only grows, and an index that says whose each row is.

    data    rows of equal length, one after another
    index   32 bytes a row, in the same order: digest of the image (16), number of the view (4), a check of both and of the row (4),
            and 8 in reserve

Order of writing: the rows are brought to the disk, then their index records. A kill between the two leaves rows that nothing names,
which the next writer writes over; a torn index record fails its check and is cut off. Writers take turns by a lock on the folder;
readers need none, since no row that is named ever changes.
"""

from __future__ import annotations

import os
import zlib
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from crossroads.errors import FeatureError
from crossroads.features.arrays import StoredFeatures

RECORD = np.dtype([("digest", "u1", 16), ("view", "<u4"), ("check", "<u4"), ("reserve", "<u8")])


class _Index(NamedTuple):
    """Records in the order of the rows, and their keys in order with the row of each."""

    records: NDArray[Any]
    keys: NDArray[np.uint64]
    order: NDArray[np.int64]


class Store:
    """The features of one frozen part, in one folder. Made by `Cache.store`.

    Args:
        folder: Where the files are.
        shape: Of one row, without the axis of images.
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
        return prod(self.shape) * self.dtype.itemsize + RECORD.itemsize

    def find(self, digests: NDArray[np.uint8], views: int | NDArray[np.integer] = 0) -> NDArray[np.int64]:
        """The row of each image, int64 (n,); -1 where there is none.

        Args:
            digests: uint8 (n, 16).
            views: Number of the view, one for all or one each.
        """
        index = self._index  # of this moment, whatever another thread appends
        if not len(digests) or not len(index.records):
            return np.full(len(digests), -1, np.int64)
        place = np.searchsorted(index.keys, _keys(digests, views))
        found = index.order[np.minimum(place, len(index.keys) - 1)]
        same = (index.records["digest"][found] == digests).all(axis=1) & (index.records["view"][found] == views)
        return np.where(same, found, -1)

    def append(self, digests: NDArray[np.uint8], views: NDArray[np.integer], values: NDArray[np.floating[Any]]) -> None:
        """Keep rows; those that another process kept meanwhile are left out.

        Args:
            digests: uint8 (n, 16).
            views: Integers (n,).
            values: Float (n, *shape).

        Raises:
            FeatureError: Values that are not finite in the type they are kept as, or the folder cannot be written, such as on a
                full disk. Rows from before stay good.
        """
        with np.errstate(over="ignore"):
            kept = np.ascontiguousarray(values, self.dtype)
        if not np.isfinite(kept).all():
            raise _not_finite(values, self.dtype)
        try:
            with self._lock:
                self._refresh()
                new = np.flatnonzero(self.find(digests, views) < 0)
                if len(new):
                    self._write(digests[new], np.asarray(views)[new], kept[new])
                    self._refresh()
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def rows(self, numbers: NDArray[np.int64]) -> StoredFeatures:
        """Those rows, read when they are asked for.

        Raises:
            FeatureError: A row that is not there, such as the -1 of `find`.
        """
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(self):
            raise FeatureError(
                f"rows of {self.folder} must lie in 0..{len(self) - 1}",
                received=f"{numbers.min()}..{numbers.max()}",
                hint="run `crossroads cache clear`, and start again",
            )
        return StoredFeatures(self.folder / "data", self.shape, self.dtype, numbers)

    def _write(self, digests: NDArray[np.uint8], views: NDArray[np.integer], values: NDArray[Any]) -> None:
        first = len(self)
        records = np.zeros(len(digests), RECORD)
        records["digest"], records["view"] = digests, views
        records["check"] = _checks(records, first)
        _write_at(self.folder / "data", first * prod(self.shape) * self.dtype.itemsize, np.ascontiguousarray(values))
        _write_at(self.folder / "index", first * RECORD.itemsize, records)

    def _refresh(self) -> None:
        """Read what has been added to the index since the last time, by this process or another."""
        index, known = self.folder / "index", len(self)
        size = index.stat().st_size // RECORD.itemsize if index.exists() else 0
        if size <= known:
            return
        with index.open("rb") as file:
            file.seek(known * RECORD.itemsize)
            fresh = np.frombuffer(file.read((size - known) * RECORD.itemsize), RECORD)
        wrong = np.flatnonzero(fresh["check"] != _checks(fresh, known))
        fresh = fresh[: wrong[0]] if len(wrong) else fresh
        data = self.folder / "data"
        length = prod(self.shape) * self.dtype.itemsize
        whole = data.stat().st_size // length if data.exists() and length else 0
        records = np.concatenate([self._index.records, fresh])[:whole]
        keys = _keys(records["digest"], records["view"])
        order = np.argsort(keys, kind="stable").astype(np.int64)
        self._index = _Index(records, keys[order], order)


def _keys(digests: NDArray[np.uint8], views: Any) -> NDArray[np.uint64]:
    """uint64 (n,): half of the digest, another number for each view; equal ones are compared in full."""
    half = np.ascontiguousarray(digests[:, :8]).view(np.uint64)[:, 0]
    return np.asarray(half + np.asarray(views, np.uint64) * np.uint64(0x9E3779B97F4A7C15), np.uint64)


def _checks(records: NDArray[Any], first: int) -> NDArray[np.uint32]:
    """uint32 (n,): CRC-32 of digest, view and row number, so that a record only counts in its own place."""
    raw = np.zeros((len(records), 28), np.uint8)
    raw[:, :16] = records["digest"]
    raw[:, 16:20] = np.ascontiguousarray(records["view"]).view(np.uint8).reshape(-1, 4)
    raw[:, 20:] = np.arange(first, first + len(records), dtype="<u8").view(np.uint8).reshape(-1, 8)
    return np.fromiter((zlib.crc32(row.tobytes()) for row in raw), np.uint32, len(raw))


def unwritable(folder: Path, error: OSError) -> FeatureError:
    """What is said of a folder of the cache that cannot be read and written, such as on a full disk."""
    return FeatureError(
        "the cache of features must be writable",
        received=f"{folder} ({error.strerror or error})",
        hint="make room there, or set CROSSROADS_CACHE to another folder",
    )


def _not_finite(values: NDArray[np.floating[Any]], kept_as: np.dtype[Any]) -> FeatureError:
    if np.isfinite(values).all():
        return FeatureError(
            f"features must fit {kept_as.name}, whose largest number is {np.finfo(kept_as).max:g}",
            received=f"{np.abs(values).max():g}",
            hint="use --feature-type float32",
        )
    return FeatureError("features must be finite", received="NaN or infinity", hint="use other weights, or another cut")


def _write_at(path: Path, offset: int, values: NDArray[Any]) -> None:
    """Write at a place in a file and bring it to the disk; what stood behind is cut off."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.seek(offset)
        values.tofile(file)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
