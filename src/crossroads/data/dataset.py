"""The immutable rows that every later stage works on: source, label, group, digest, split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import DataError

SPLITS = ("", "train", "validation", "test")
"""Names of the splits that data may bring; a row's split is an index into this tuple and 0 means that the data says none."""

NO_SPLIT, TRAIN, VALIDATION, TEST = range(4)


class ImageSource(Protocol):
    """Where images come from: files of a folder, members of an archive, rows of an array or a table."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What to call image `index` in a message, such as its path or ``features[12]``."""
        ...

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """The encoded file of image `index`, or its pixels, uint8 (height, width[, channels]). Safe to call from many threads."""
        ...


@runtime_checkable
class MemorySource(ImageSource, Protocol):
    """Images in memory, which may have more than 8 bits before they are read."""

    def picture(self, index: int) -> object:
        """Image `index` as it was given."""
        ...


class Row(NamedTuple):
    """One labelled image, for reading one at a time; the data set keeps its rows as columns."""

    source: str
    label: str
    group: int | None
    split: str


DIGEST_BYTES = 16
"""Of each image's digest."""


def digest_of(raw: bytes | NDArray[np.uint8]) -> bytes:
    """16 bytes of BLAKE2b over an encoded file, or over an array's shape and pixels."""
    hasher = hashlib.blake2b(digest_size=DIGEST_BYTES)
    if isinstance(raw, bytes):
        hasher.update(raw)
    else:
        hasher.update(repr(raw.shape).encode())
        hasher.update(np.ascontiguousarray(raw).data)
    return hasher.digest()


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Labelled images, not yet decoded. Rows are columns of equal length n, so a million of them stay small.

    Attributes:
        origin: What the user gave, for messages: a path, or ``arrays``.
        images: Where the images come from.
        indices: int64 (n,), the image of `images` that each row stands for.
        labels: int32 (n,), indices into `classes`.
        classes: Class names in their fixed order: natural order (``2`` before ``10``).
        groups: int64 (n,) or None. Rows with equal numbers belong in one split.
        splits: uint8 (n,) or None, indices into `SPLITS`.
        digests: uint8 (n, 16) or None: of the images as they were when they were read; zeros for one that was not, or cannot be.
        notes: What the reader wants the user to know, such as a class that is missing from one split.

    Raises:
        DataError: Columns of different lengths or of no whole numbers, or a number out of range.
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

    def __post_init__(self) -> None:
        n = len(self.indices)
        for name, dtype, low, high in (
            ("indices", np.int64, 0, len(self.images)),
            ("labels", np.int32, 0, len(self.classes)),
            ("groups", np.int64, None, None),
            ("splits", np.uint8, 0, len(SPLITS)),
            ("digests", np.uint8, 0, 256),
        ):
            column = getattr(self, name)
            if column is not None or name in ("indices", "labels"):
                shape = (n, DIGEST_BYTES) if name == "digests" else (n,)
                object.__setattr__(self, name, _column(column, f"{self.origin}: {name}", dtype, shape, low, high))
        object.__setattr__(self, "classes", tuple(self.classes))

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, row: int) -> str:
        """What to call `row` in a message."""
        return self.images.name(int(self.indices[row]))

    def read(self, row: int) -> bytes | NDArray[np.uint8]:
        """The encoded file of `row`, or its pixels, uint8 (height, width[, channels])."""
        return self.images.read(int(self.indices[row]))

    def row(self, row: int) -> Row:
        """The record of one row; does not read its image."""
        group = None if self.groups is None else int(self.groups[row])
        split = "" if self.splits is None else SPLITS[self.splits[row]]
        return Row(self.name(row), self.classes[self.labels[row]], group, split)

    def select(self, rows: Sequence[int] | NDArray[np.integer] | NDArray[np.bool_]) -> Dataset:
        """The data set of some rows, in the order given. Classes and images stay as they are."""
        chosen = np.asarray(rows) if len(rows) else np.empty(0, np.int64)
        return replace(
            self,
            indices=self.indices[chosen],
            labels=self.labels[chosen],
            groups=None if self.groups is None else self.groups[chosen],
            splits=None if self.splits is None else self.splits[chosen],
            digests=None if self.digests is None else self.digests[chosen],
        )

    def effective_splits(self) -> NDArray[np.uint8]:
        """uint8 (n,), a new array: the split of each row. A row without one counts as train where other rows have one."""
        if self.splits is None or not self.splits.any():
            return np.full(len(self), NO_SPLIT, np.uint8)
        return np.where(self.splits == NO_SPLIT, TRAIN, self.splits).astype(np.uint8)

    def groups_across_splits(self) -> NDArray[np.int64]:
        """int64, the first row of each group that has rows on several sides of the split that the data brings."""
        if self.groups is None:
            return np.empty(0, np.int64)
        _, firsts, numbers = np.unique(self.groups, return_index=True, return_inverse=True)
        on_side = np.zeros((len(firsts), len(SPLITS)), bool)
        on_side[numbers, self.effective_splits()] = True
        cut: NDArray[np.int64] = firsts[on_side.sum(1) > 1].astype(np.int64)
        return cut

    def duplicate_ids(self) -> NDArray[np.int64] | None:
        """int64 (n,), the same for rows of one class whose images are equal byte for byte; None where no two are known to be."""
        if self.digests is None:
            return None
        n = len(self)
        alone = np.where(self.digests.any(axis=1), -1, np.arange(n))
        marks = np.stack([self.labels.astype(np.int64), alone], axis=1).view(np.uint8).reshape(n, 16)
        _, found = np.unique(np.concatenate([self.digests, marks], axis=1), axis=0, return_inverse=True)
        return None if n == 0 or found.max() == n - 1 else found.reshape(n).astype(np.int64)

    def conflicting_rows(self) -> NDArray[np.int64]:
        """int64, the rows whose image also occurs under another label, byte for byte; of those images whose digests are known."""
        if self.digests is None:
            return np.empty(0, np.int64)
        known = np.flatnonzero(self.digests.any(axis=1))
        words, labels = np.ascontiguousarray(self.digests[known]).view(np.uint64), self.labels[known]
        order = np.lexsort((words[:, 1], words[:, 0]))
        words, labels = words[order], labels[order]
        starts = np.flatnonzero(np.r_[len(known) > 0, (words[1:] != words[:-1]).any(axis=1)])
        differ = np.maximum.reduceat(labels, starts) > np.minimum.reduceat(labels, starts) if len(starts) else np.empty(0, bool)
        return np.sort(known[order[np.repeat(differ, np.diff(np.r_[starts, len(known)]))]])

    def counts(self) -> NDArray[np.int64]:
        """int64 (k,), the number of rows of each class."""
        return np.bincount(self.labels, minlength=len(self.classes)).astype(np.int64)


def _column(
    values: object, what: str, dtype: type[np.integer[Any]], shape: tuple[int, ...], low: int | None, high: int | None
) -> NDArray[Any]:
    """`values` as an array of whole numbers of this type and shape, from `low` to below `high`; copied only where it must be."""
    column = np.asarray(values)
    if column.dtype.kind not in "iu" and column.size:
        hint = "number them with numpy.unique(…, return_inverse=True)[1]" if column.dtype.kind in "UO" else None
        raise DataError(f"{what} must be whole numbers", received=f"an array of dtype {column.dtype}", hint=hint)
    if column.shape != shape:
        raise DataError(f"{what} must have the shape {shape}, one row for each image", received=f"shape {column.shape}")
    if low is not None and high is not None and column.size:
        least, most = int(column.min()), int(column.max())
        if least < low or most >= high:
            raise DataError(f"{what} must lie in {low}..{high - 1}", received=least if least < low else most)
    return column.astype(dtype, copy=False)


def encode_groups(groups: object, n: int) -> NDArray[np.int64]:
    """Groups of any kind, such as names, as whole numbers: int64 (n,).

    Raises:
        DataError: They are not one for each of n images, or one is missing.
    """
    values = np.asarray(groups)
    if values.shape != (n,):
        raise DataError(f"groups must have the shape ({n},), one for each image", received=f"shape {values.shape}")
    missing = [value is None or value != value for value in values.tolist()] if values.dtype.kind in "fcOmM" else []
    if any(missing):
        row = missing.index(True)
        raise DataError(
            "each image must have a group",
            received=f"{values[row]} in row {row}",
            hint="give an image that belongs to no other a group of its own",
        )
    try:
        return np.unique(values, return_inverse=True)[1].astype(np.int64)
    except TypeError as error:  # such as numbers beside text
        raise DataError("groups must be of one type", received=str(error)) from error
