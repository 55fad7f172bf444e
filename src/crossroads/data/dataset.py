"""The immutable rows that every later stage works on: source, label, group, digest, split."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import DataError

SPLITS = ("", "train", "validation", "test")
"""Names of the splits. A row's split is an index into this tuple; 0 means that the data assigns none."""

NO_SPLIT, TRAIN, VALIDATION, TEST = range(4)


class ImageSource(Protocol):
    """Where images come from: files of a folder, members of an archive, rows of an array or a table."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Returns what to call image `index` in a message, such as its path or ``features[12]``."""
        ...

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """Returns the encoded file of image `index`, or its pixels, uint8 (height, width[, channels]). Must be thread-safe."""
        ...


@runtime_checkable
class FileSource(ImageSource, Protocol):
    """Images in files, of which some facts are known without reading them in full. The methods must be thread-safe."""

    def size(self, index: int) -> int | None:
        """Returns the bytes of image `index`, encoded; None if they are not a file, or only reading it would tell."""
        ...

    def head(self, index: int, size: int) -> bytes:
        """Returns the first `size` bytes of a file whose size is known."""
        ...

    def short_digest(self, index: int) -> bytes:
        """Returns 16 bytes that are equal for equal files, of a file whose size is known. Different files may share them."""
        ...


@runtime_checkable
class MemorySource(ImageSource, Protocol):
    """Images in memory. They may have more than 8 bits until `read` converts them."""

    def picture(self, index: int) -> object:
        """Returns image `index` as the user gave it."""
        ...


class Row(NamedTuple):
    """One labelled image. A data set keeps its rows as columns and makes this record on request."""

    source: str
    label: str
    group: int | None
    split: str


DIGEST_BYTES = 16
"""Length of an image's digest."""


def digest_of(raw: bytes | NDArray[np.uint8]) -> bytes:
    """Returns 16 bytes of BLAKE2b over an encoded file, or over an array's shape and pixels."""
    hasher = hashlib.blake2b(digest_size=DIGEST_BYTES)
    if isinstance(raw, bytes):
        hasher.update(raw)
    else:
        hasher.update(repr(raw.shape).encode())
        hasher.update(np.ascontiguousarray(raw).data)
    return hasher.digest()


class KnownDigests:
    """The digests of the images of one source that have been read in full, by whoever read them.

    A memory, like a cache: it spares reading a file again, and changes nothing that a data set is. All data sets over the same
    images share it, and threads may add to it.

    Args:
        images: The source.
    """

    def __init__(self, images: ImageSource | None = None) -> None:
        self.images = images
        self._length = 0 if images is None else len(images)
        self._digests: NDArray[np.uint8] | None = None

    def add(self, index: int, digest: bytes) -> None:
        """Remembers the digest of image `index`."""
        if self._digests is None:
            with _ALLOCATING:
                if self._digests is None:
                    self._digests = np.zeros((self._length, DIGEST_BYTES), np.uint8)
        self._digests[index] = np.frombuffer(digest, np.uint8)

    def of(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Returns the digests of some images, uint8 (n, 16), a new array; zeros for those that are not known."""
        return np.zeros((len(indices), DIGEST_BYTES), np.uint8) if self._digests is None else self._digests[indices]


_ALLOCATING = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Labelled images, not yet decoded. Rows are columns of equal length n, so a million of them stay small.

    Attributes:
        origin: What the user gave, for messages: a path, or ``arrays``.
        images: Where the images come from.
        indices: int64 (n,), the index into `images` of each row.
        labels: int32 (n,), indices into `classes`.
        classes: Class names in their fixed order: natural order (``2`` before ``10``).
        groups: int64 (n,) or None. Rows with equal numbers belong in one split.
        splits: uint8 (n,) or None, indices into `SPLITS`.
        digests: uint8 (n, 16) or None. Equal images have equal digests; zeros for an image that was not compared, or that is known
            to equal no other.
        notes: The reader's notes to the user, such as a class that is missing from one split.
        known: The digests of the images that have been read so far.

    Raises:
        DataError: A column has the wrong length, does not hold whole numbers, or holds one that is out of range.
    """

    origin: str
    images: ImageSource
    indices: NDArray[np.int64]
    labels: NDArray[np.int32]
    classes: tuple[str, ...]
    groups: NDArray[np.int64] | None = None
    splits: NDArray[np.uint8] | None = None
    digests: NDArray[np.uint8] | None = None
    notes: tuple[str, ...] = ()
    known: KnownDigests = field(default_factory=KnownDigests, repr=False)

    def __post_init__(self) -> None:
        n = len(self.indices)
        if self.known.images is not self.images:
            object.__setattr__(self, "known", KnownDigests(self.images))
        for name, dtype, width, high in (
            ("indices", np.int64, (), len(self.images)),
            ("labels", np.int32, (), len(self.classes)),
            ("groups", np.int64, (), None),
            ("splits", np.uint8, (), len(SPLITS)),
            ("digests", np.uint8, (DIGEST_BYTES,), 256),
        ):
            column = getattr(self, name)
            if column is not None or name in ("indices", "labels"):
                object.__setattr__(self, name, self._column(column, name, dtype, (n, *width), high))
        object.__setattr__(self, "classes", tuple(self.classes))

    def _column(
        self, values: object, name: str, dtype: type[np.integer[Any]], shape: tuple[int, ...], high: int | None
    ) -> NDArray[Any]:
        """Returns `values` in this type and shape, from 0 to below `high` unless that is None; copies only if it must."""
        column = np.asarray(values)
        if column.dtype.kind not in "iu" and column.size:
            hint = "number them with numpy.unique(…, return_inverse=True)[1]" if column.dtype.kind in "UO" else None
            raise self._error(name, "be integers", "not-integers", f"an array of dtype {column.dtype}", hint)
        if column.shape != shape:
            raise self._error(name, f"have the shape {shape}, one row per image", "wrong-shape", f"shape {column.shape}")
        if high is not None and column.size and (column.min() < 0 or column.max() >= high):
            received = int(column.min() if column.min() < 0 else column.max())
            raise self._error(name, f"be in 0..{high - 1}", "out-of-range", received)
        return column.astype(dtype, copy=False)

    def _error(self, name: str, rule: str, code: str, received: object, hint: str | None = None) -> DataError:
        return DataError(f"{self.origin}: {name} must {rule}", code=code, field=name, received=received, hint=hint)

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, row: int) -> str:
        """Returns what to call `row` in a message."""
        return self.images.name(int(self.indices[row]))

    def read(self, row: int) -> bytes | NDArray[np.uint8]:
        """Returns the encoded file of `row`, or its pixels, uint8 (height, width[, channels])."""
        return self.images.read(int(self.indices[row]))

    def remember(self, row: int, digest: bytes) -> None:
        """Remembers the digest of `row`, whose image has been read."""
        self.known.add(int(self.indices[row]), digest)

    def known_digests(self, rows: slice = slice(None)) -> NDArray[np.uint8]:
        """Returns the digests of rows that have been read, uint8 (n, 16), a new array; zeros for the others."""
        known = self.known.of(self.indices[rows])
        if self.digests is not None:
            compared = self.digests[rows]
            known = np.where(compared.any(axis=1, keepdims=True), compared, known)
        return known

    def row(self, row: int) -> Row:
        """Returns the record of one row without reading its image."""
        group = None if self.groups is None else int(self.groups[row])
        split = "" if self.splits is None else SPLITS[self.splits[row]]
        return Row(self.name(row), self.classes[self.labels[row]], group, split)

    def select(self, rows: Sequence[int] | NDArray[np.integer] | NDArray[np.bool_]) -> Dataset:
        """Returns the data set of some rows, in the order given, over the same classes and images."""
        chosen = np.asarray(rows) if len(rows) else np.empty(0, np.int64)
        columns = {name: getattr(self, name) for name in ("indices", "labels", "groups", "splits", "digests")}
        return replace(self, **{name: column[chosen] for name, column in columns.items() if column is not None})

    def effective_splits(self) -> NDArray[np.uint8]:
        """Returns the split of each row, uint8 (n,), a new array. If any row has a split, rows without one count as train."""
        if self.splits is None or not self.splits.any():
            return np.full(len(self), NO_SPLIT, np.uint8)
        return np.where(self.splits == NO_SPLIT, TRAIN, self.splits).astype(np.uint8)

    def groups_across_splits(self) -> NDArray[np.int64]:
        """Returns the first row of each group that has rows in several splits, int64."""
        if self.groups is None:
            return np.empty(0, np.int64)
        _, first_rows, numbers = np.unique(self.groups, return_index=True, return_inverse=True)
        in_split = np.zeros((len(first_rows), len(SPLITS)), bool)
        in_split[numbers, self.effective_splits()] = True
        return np.asarray(first_rows[in_split.sum(1) > 1], np.int64)

    def duplicate_ids(self) -> NDArray[np.int64] | None:
        """Returns int64 (n,), equal for rows of one class whose images are equal byte for byte; None if no two are known to be."""
        if self.digests is None:
            return None
        n = len(self)
        # An image without a digest equals no other: its row number keeps it apart.
        unread = np.where(self.digests.any(axis=1), -1, np.arange(n))
        keys = np.stack([self.labels.astype(np.int64), unread], axis=1).view(np.uint8).reshape(n, 16)
        _, ids = np.unique(np.concatenate([self.digests, keys], axis=1), axis=0, return_inverse=True)
        return None if n == 0 or ids.max() == n - 1 else ids.reshape(n).astype(np.int64)

    def conflicting_rows(self) -> NDArray[np.int64]:
        """Returns the rows whose image also occurs under another label, int64; compares only images with known digests."""
        if self.digests is None:
            return np.empty(0, np.int64)
        known = np.flatnonzero(self.digests.any(axis=1))
        _, images = np.unique(self.digests[known], axis=0, return_inverse=True)
        images, k = images.reshape(-1), len(self.classes)
        labelled = np.unique(images * k + self.labels[known])  # each pair of an image and a label once
        labels_of_image = np.bincount(labelled // max(k, 1))
        return np.asarray(known[labels_of_image[images] > 1], np.int64)

    def counts(self) -> NDArray[np.int64]:
        """Returns the number of rows of each class, int64 (k,)."""
        return np.bincount(self.labels, minlength=len(self.classes)).astype(np.int64)


def encode_groups(groups: object, n: int) -> NDArray[np.int64]:
    """Returns groups of any kind, such as names, as integers: int64 (n,).

    Raises:
        DataError: There is not one group for each of n images, or one is missing.
    """
    values = np.asarray(groups)
    if values.shape != (n,):
        rule = f"groups must have the shape ({n},), one per image"
        raise DataError(rule, code="wrong-shape", field="groups", received=f"shape {values.shape}")
    missing = [value is None or value != value for value in values.tolist()] if values.dtype.kind in "fcOmM" else []
    if any(missing):
        row = missing.index(True)
        raise DataError(
            "each image must have a group",
            code="missing-group",
            field="groups",
            received=f"{values[row]} in row {row}",
            hint="give an image that belongs to no other a group of its own",
        )
    try:
        return np.unique(values, return_inverse=True)[1].astype(np.int64)
    except TypeError as error:  # such as numbers beside text
        raise DataError("groups must be of one type", code="mixed-types", field="groups", received=error) from error
