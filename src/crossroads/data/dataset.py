"""Defines `Dataset`, the immutable record of labelled images that every later stage works on."""

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
"""Names of the splits. The split of a row is an index into this tuple; 0 means that the data assigns no split."""

NO_SPLIT, TRAIN, VALIDATION, TEST = range(4)


class ImageSource(Protocol):
    """A source of images: files in a folder, members of an archive, or rows of an array or a table."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Returns the name of image `index` for messages, such as its path or ``features[12]``."""
        ...

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """Returns the encoded file of image `index`, or its pixels, uint8 (height, width[, channels]).

        Implementations must be thread-safe.
        """
        ...


@runtime_checkable
class FileSource(ImageSource, Protocol):
    """A source of images in files. Sizes and short digests are known without reading the files in full.

    Implementations must be thread-safe.
    """

    def size(self, index: int) -> int | None:
        """Returns the size of the file of image `index`, in bytes; None if it is unknown or the image is not a file."""
        ...

    def head(self, index: int, size: int) -> bytes:
        """Returns the first `size` bytes of a file whose size is known, or all of them if it is shorter."""
        ...

    def short_digest(self, index: int) -> bytes:
        """Returns 16 bytes that are equal for identical files. Different files may have equal ones. The size must be known."""
        ...


@runtime_checkable
class MemorySource(ImageSource, Protocol):
    """A source of images in memory. The images may have more than 8 bits until `read` converts them."""

    def picture(self, index: int) -> object:
        """Returns image `index` as the user gave it."""
        ...


class Row(NamedTuple):
    """One labelled image. A data set stores columns and creates this record on request."""

    source: str
    label: str
    group: int | None
    split: str


DIGEST_BYTES = 16
"""Length of the digest of an image, in bytes."""


def digest_of(raw: bytes | NDArray[np.uint8]) -> bytes:
    """Returns the BLAKE2b digest, 16 bytes, of an encoded file or of the shape and pixels of an array."""
    hasher = hashlib.blake2b(digest_size=DIGEST_BYTES)
    if isinstance(raw, bytes):
        hasher.update(raw)
    else:
        hasher.update(repr(raw.shape).encode())
        hasher.update(np.ascontiguousarray(raw).data)
    return hasher.digest()


class KnownDigests:
    """A cache of the digests of images that have been read in full, so that no file is read again for its digest alone.

    All data sets over the same source share it. It is thread-safe.

    Args:
        images: The source.
    """

    def __init__(self, images: ImageSource | None = None) -> None:
        self.images = images
        self._length = 0 if images is None else len(images)
        self._digests: NDArray[np.uint8] | None = None

    def add(self, index: int, digest: bytes) -> None:
        """Stores the digest of image `index`."""
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
    """Labelled images that are not decoded yet. They are stored as columns of length n, so a million rows need little memory.

    Attributes:
        origin: Name of the data in messages: the path that the user gave, or ``arrays``.
        images: The source of the images.
        indices: int64 (n,), the index into `images` of each row.
        labels: int32 (n,), indices into `classes`.
        classes: Class names. Readers give them in natural order (``2`` before ``10``).
        groups: int64 (n,) or None. Rows with the same number must stay in the same split.
        splits: uint8 (n,) or None, indices into `SPLITS`.
        digests: uint8 (n, 16) or None. Images with equal digests are identical. The digest is zero for an image that was not
            compared with others, and for one that differs from all others.
        notes: The reader's notes to the user, for example on a class that is missing from one split.
        known: The digests of the images that have been read so far.

    Raises:
        DataError: A column has the wrong shape, holds values that are not integers, or holds an integer that is out of range.
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
        """Returns `values` as an array of this dtype. Checks the shape and, unless `high` is None, that values are in [0, high).

        The array is copied only if its dtype changes.
        """
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
        """Returns the name of the image of `row` for messages."""
        return self.images.name(int(self.indices[row]))

    def read(self, row: int) -> bytes | NDArray[np.uint8]:
        """Returns the encoded image file of `row`, or its pixels, uint8 (height, width[, channels])."""
        return self.images.read(int(self.indices[row]))

    def remember(self, row: int, digest: bytes) -> None:
        """Stores the digest of the image of `row`, which has been read."""
        self.known.add(int(self.indices[row]), digest)

    def known_digests(self, rows: slice = slice(None)) -> NDArray[np.uint8]:
        """Returns the digests of rows that have been read, uint8 (n, 16), a new array; zeros for the others."""
        known = self.known.of(self.indices[rows])
        if self.digests is not None:
            compared = self.digests[rows]
            known = np.where(compared.any(axis=1, keepdims=True), compared, known)
        return known

    def row(self, row: int) -> Row:
        """Returns one row as a record. Does not read its image."""
        group = None if self.groups is None else int(self.groups[row])
        split = "" if self.splits is None else SPLITS[self.splits[row]]
        return Row(self.name(row), self.classes[self.labels[row]], group, split)

    def select(self, rows: Sequence[int] | NDArray[np.integer] | NDArray[np.bool_]) -> Dataset:
        """Returns a data set of the chosen rows, in the given order. Its classes and image source stay the same."""
        chosen = np.asarray(rows) if len(rows) else np.empty(0, np.int64)
        columns = {name: getattr(self, name) for name in ("indices", "labels", "groups", "splits", "digests")}
        return replace(self, **{name: column[chosen] for name, column in columns.items() if column is not None})

    def effective_splits(self) -> NDArray[np.uint8]:
        """Returns the split of each row as a new array, uint8 (n,). If any row has a split, rows without one count as train."""
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
        """Returns an id for each row, int64 (n,). Rows of the same class with identical images have the same id.

        Images are compared by digest. Returns None if no duplicates are known.
        """
        if self.digests is None:
            return None
        n = len(self)
        # An image without a digest must not equal any other, so its row number becomes part of its key.
        unread = np.where(self.digests.any(axis=1), -1, np.arange(n))
        keys = np.stack([self.labels.astype(np.int64), unread], axis=1).view(np.uint8).reshape(n, 16)
        _, ids = np.unique(np.concatenate([self.digests, keys], axis=1), axis=0, return_inverse=True)
        return None if n == 0 or ids.max() == n - 1 else ids.reshape(n).astype(np.int64)

    def conflicting_rows(self) -> NDArray[np.int64]:
        """Returns the rows whose image also occurs with another label, int64. Compares only images with known digests."""
        if self.digests is None:
            return np.empty(0, np.int64)
        known = np.flatnonzero(self.digests.any(axis=1))
        _, images = np.unique(self.digests[known], axis=0, return_inverse=True)
        images, k = images.reshape(-1), len(self.classes)
        labelled = np.unique(images * k + self.labels[known])  # each pair of an image and a label occurs once
        labels_of_image = np.bincount(labelled // max(k, 1))
        return np.asarray(known[labels_of_image[images] > 1], np.int64)

    def counts(self) -> NDArray[np.int64]:
        """Returns the number of rows of each class, int64 (k,)."""
        return np.bincount(self.labels, minlength=len(self.classes)).astype(np.int64)


def encode_groups(groups: object, n: int) -> NDArray[np.int64]:
    """Encodes group names or numbers of any type as int64 (n,).

    Raises:
        DataError: The number of groups is not n, a group is missing, or the groups are of several types.
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
