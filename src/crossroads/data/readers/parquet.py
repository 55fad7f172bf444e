"""Reads image data sets in Hugging Face's Parquet format. A column holds encoded files and is read one row group at a time."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import NO_SPLIT, SPLITS, Dataset
from crossroads.data.labels import labelled_dataset
from crossroads.data.readers._folder_names import split_in
from crossroads.data.readers._listing import Listing, suffix_of
from crossroads.data.readers._sources import joined
from crossroads.errors import DataError, ImageRefused, missing_extra
from crossroads.progress import Note

_IMAGE_COLUMNS = ("image", "img", "images", "picture", "photo")
_LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "fine_label", "classid", "class_id")
_CACHED_GROUPS = 2
_NO_LABEL = -1


def files(listing: Listing) -> list[str]:
    """Returns the Parquet files at any depth, because Hugging Face puts them into `data/`."""
    return [name for name in listing.names if listing.kind == "parquet" or (not listing.kind and suffix_of(name) == ".parquet")]


def read(listing: Listing) -> Dataset:
    """Returns the data set of one file, or of shards whose names give the split, such as ``train-00000-of-00002.parquet``.

    Labels are strings or integers. The names of integer labels come from the ClassLabel that Hugging Face writes into the schema.
    """
    names, splits = list[str](), list[int]()
    shards, notes, cache = list[_Shard](), list[Note](), _GroupCache()
    for name, split in _splits(listing):
        shard = _Shard(listing, name, cache)
        labels = shard.labels()
        if labels and all(label == _NO_LABEL for label in labels):
            text = f"{listing.label(name)} has no labels (all are {_NO_LABEL}) and is ignored"
            notes.append(Note(text, "file-without-labels", file=listing.label(name)))
            continue
        names += [shard.class_name(label, row) for row, label in enumerate(labels)]
        splits += [split] * len(labels)
        shards.append(shard)
    if not names:
        raise DataError(
            f"{listing.origin} must hold labelled images", code="no-images", received="0 rows with a label", hint="add images"
        )
    return labelled_dataset(listing.origin, joined(shards), names, splits, notes=notes)


def _splits(listing: Listing) -> list[tuple[str, int]]:
    """Returns the files, each with the split that its name or folder gives."""
    names = files(listing)
    splits = [_split_of(name) for name in names]
    if listing.single or len(set(splits)) < 2:
        return [(name, NO_SPLIT) for name in names]
    if NO_SPLIT in splits:
        unnamed = names[splits.index(NO_SPLIT)]
        named = ", ".join(SPLITS[split] for split in sorted(set(splits)) if split)
        raise DataError(
            f"the name of every Parquet file of {listing.origin} must give its split, or none may",
            code="unnamed-split",
            received=f"{named} and {unnamed!r}",
        )
    return list(zip(names, splits, strict=True))


def _split_of(name: str) -> int:
    parts = reversed(name.removesuffix(".parquet").split("/"))
    return next((split for part in parts if (split := split_in(part)) is not None), NO_SPLIT)


class _GroupCache:
    """Keeps the last row groups that were read from any file, because neighbouring rows are read one after the other."""

    def __init__(self) -> None:
        self._groups: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, file: str, group: int, read: Callable[[int], Any]) -> Any:
        """Returns one row group. If several threads ask for it, one of them reads it and the others wait."""
        key = (file, group)
        with self._lock:
            if key not in self._groups:
                while len(self._groups) >= _CACHED_GROUPS:
                    self._groups.popitem(last=False)
                self._groups[key] = read(group)
            self._groups.move_to_end(key)
            return self._groups[key]


class _Shard:
    """The images of one Parquet file. Only `read` is thread-safe."""

    def __init__(self, listing: Listing, name: str, cache: _GroupCache) -> None:
        try:
            import pyarrow as arrow
            from pyarrow import parquet
        except ImportError as error:
            raise missing_extra("reading Parquet", "pyarrow", "parquet") from error
        self._label, self._cache = listing.label(name), cache
        self._errors = (arrow.ArrowException, OSError, ValueError)
        try:
            self._file = parquet.ParquetFile(listing.byte_range(name).stream(), pre_buffer=False)
            self._schema = self._file.schema_arrow
        except self._errors as error:
            raise self._damaged(error) from error
        self._image_column = self._column(_IMAGE_COLUMNS, "image")
        self._label_column = self._column(_LABEL_COLUMNS, "label")
        kind = self._schema.field(self._image_column).type
        self._is_struct = arrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        if not (self._is_struct or arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind)):
            rule = f"column {self._image_column!r} of {self._label} must hold encoded image files"
            raise DataError(rule, code="not-encoded-images", received=str(kind))
        self._class_names = _class_names(self._schema.metadata, self._label_column)
        sizes = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def _column(self, known: Sequence[str], what: str) -> str:
        names = {name.lower(): name for name in reversed(self._schema.names)}
        column = next((names[word] for word in known if word in names), None)
        if column is None:
            rule, hint = f"{self._label} must have a column of {what}s", f"name it {what}"
            raise DataError(rule, code=f"no-{what}-column", received=", ".join(self._schema.names), hint=hint)
        return str(column)

    def _damaged(self, error: Exception) -> DataError:
        rule = f"{self._label} is not a readable Parquet file"
        return DataError(rule, code="damaged-parquet", received=error, hint="fetch it again")

    def labels(self) -> list[object]:
        try:
            labels: list[object] = self._file.read(columns=[self._label_column], use_threads=False).column(0).to_pylist()
        except self._errors as error:
            raise self._damaged(error) from error
        return labels

    def class_name(self, label: object, row: int) -> str:
        """Returns the class name of a stored label."""
        if isinstance(label, int) and not isinstance(label, bool) and self._class_names:
            if 0 <= label < len(self._class_names):
                return str(self._class_names[label])
            rule = f"{self._label} row {row}: a label must be a number from 0 to {len(self._class_names) - 1}"
            raise DataError(rule, code="label-out-of-range", received=label)
        if isinstance(label, (int, str)) and str(label).strip():
            return str(label)
        rule = f"{self._label} row {row}: a label must be an integer or a string"
        raise DataError(rule, code="label-type", received=repr(label), hint="pass integers or strings")

    def __len__(self) -> int:
        return int(self._starts[-1])

    def name(self, index: int) -> str:
        """Returns a name such as ``train-00000-of-00002.parquet[12]``."""
        return f"{self._label}[{index}]"

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """Returns the encoded file of an image. Raises `ImageRefused` if its cell is empty or the Parquet file is damaged."""
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        raw = self._cache.get(self._label, group, self._read_group)[index - int(self._starts[group])].as_py()
        if not isinstance(raw, bytes) or not raw:
            raise ImageRefused("the cell holds no image file", code="empty-cell", received=repr(raw))
        return raw

    def _read_group(self, group: int) -> Any:
        try:
            column = self._file.read_row_group(group, columns=[self._image_column], use_threads=False).column(0).combine_chunks()
        except self._errors as error:
            hint = "write or download it again"
            raise ImageRefused("the Parquet file is damaged", code="damaged-parquet", received=error, hint=hint) from error
        return column.field("bytes") if self._is_struct else column


def _class_names(metadata: Any, column: str) -> tuple[str, ...]:
    """Returns the class names that Hugging Face's `datasets` writes for a ClassLabel column, or an empty tuple."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]
        return tuple(map(str, feature["names"])) if feature.get("_type", "ClassLabel") == "ClassLabel" else ()
    except (KeyError, TypeError, ValueError, AttributeError):
        return ()
