"""Parquet as Hugging Face writes image data sets: encoded files in a column, read one row group at a time."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import NO_SPLIT, SPLITS, Dataset
from crossroads.data.labels import DatasetBuilder
from crossroads.data.readers._names import split_in
from crossroads.data.readers._view import View, suffix_of
from crossroads.errors import DataError, ImageRefused, MissingExtraError

IMAGE_COLUMNS = ("image", "img", "images", "picture", "photo")
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "fine_label", "classid", "class_id")
_CACHED_GROUPS = 2


def parquet_files(view: View) -> list[str]:
    """The Parquet files of a view, at any depth: Hugging Face puts them into `data/`."""
    return [name for name in view.names if view.kind == "parquet" or (not view.kind and suffix_of(name) == ".parquet")]


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("reading Parquet needs pyarrow", hint="pip install '.[parquet]' in the checkout") from error
    return pyarrow, pyarrow.parquet


def read_parquet(view: View) -> Dataset:
    """One file, or shards such as ``train-00000-of-00002.parquet`` with the split in their names or folders.

    Labels are strings, or integers, which get their names from the ClassLabel that Hugging Face notes in the schema.
    """
    rows, shards, notes = DatasetBuilder(), [], []
    for name, split in _splits(parquet_files(view), view):
        shard = _Shard(view, name)
        labels = shard.labels()
        if labels and all(label == -1 for label in labels):
            notes.append(f"{view.label(name)} has no labels (all are -1) and is ignored")
            continue
        for index, label in enumerate(labels):
            rows.add(shard.class_name(label, index), split=split)
        shards.append(shard)
    if not len(rows):
        raise DataError(f"{view.origin} must hold labelled images", received="0 rows with a label")
    return rows.build(view.origin, ParquetImages(shards), notes)


def _splits(names: Sequence[str], view: View) -> list[tuple[str, int]]:
    found = []
    for name in names:
        parts = reversed(name.removesuffix(".parquet").split("/"))
        found.append((name, next((split for part in parts if (split := split_in(part)) is not None), NO_SPLIT)))
    if view.single:
        return [(name, NO_SPLIT) for name, _ in found]
    kinds = {split for _, split in found}
    if NO_SPLIT in kinds and len(kinds) > 1:
        stray = next(name for name, split in found if split == NO_SPLIT)
        said = ", ".join(SPLITS[split] for split in sorted(kinds) if split)
        raise DataError(f"either all Parquet files of {view.origin} name their split or none", received=f"{said} and {stray!r}")
    return found if len(kinds) > 1 else [(name, NO_SPLIT) for name, _ in found]


class _Shard:
    """One Parquet file. Its methods are not for several threads at once."""

    def __init__(self, view: View, name: str) -> None:
        self.name = view.label(name)
        arrow, parquet = _pyarrow()
        self._errors = (arrow.ArrowException, OSError, ValueError)
        try:
            self._file = parquet.ParquetFile(view.span(name).stream(), pre_buffer=False)
            self._schema = self._file.schema_arrow
        except self._errors as error:
            raise DataError(f"{self.name} is not a readable Parquet file", received=error, hint="fetch it again") from error
        self._image = self._column(IMAGE_COLUMNS, "images")
        self._label = self._column(LABEL_COLUMNS, "labels")
        kind = self._schema.field(self._image).type
        self._struct = arrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        if not (self._struct or arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind)):
            raise DataError(f"column {self._image!r} of {self.name} must hold encoded image files", received=str(kind))
        self._class_names = _class_names(self._schema.metadata, self._label)
        sizes = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def _column(self, wanted: Sequence[str], what: str) -> str:
        names = {name.lower(): name for name in reversed(self._schema.names)}
        found = next((names[word] for word in wanted if word in names), None)
        if found is None:
            raise DataError(
                f"{self.name} must have a column of {what}", received=", ".join(self._schema.names), hint=f"name it {wanted[0]}"
            )
        return str(found)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def labels(self) -> list[object]:
        """The label column as it is stored."""
        try:
            labels: list[object] = self._file.read(columns=[self._label], use_threads=False).column(0).to_pylist()
        except self._errors as error:
            raise DataError(f"{self.name} is damaged", received=error, hint="fetch it again") from error
        return labels

    def class_name(self, label: object, row: int) -> str:
        """The class that a stored label means."""
        if isinstance(label, int) and not isinstance(label, bool) and self._class_names:
            if 0 <= label < len(self._class_names):
                return str(self._class_names[label])
            raise DataError(f"{self.name} row {row}: a label is a number from 0 to {len(self._class_names) - 1}", received=label)
        if isinstance(label, (int, str)) and str(label).strip():
            return str(label)
        raise DataError(f"{self.name} row {row}: a label must be an integer or a string", received=repr(label))

    def images(self, group: int) -> Any:
        """The image column of one row group."""
        table = self._file.read_row_group(group, columns=[self._image], use_threads=False)
        column = table.column(0).combine_chunks()
        return column.field("bytes") if self._struct else column

    def read_group(self, group: int) -> Any:
        """The same, or an ImageRefused where the file is damaged there."""
        try:
            return self.images(group)
        except self._errors as error:
            raise ImageRefused("the Parquet file is damaged", received=error) from error


def _class_names(metadata: Any, column: str) -> tuple[str, ...]:
    """The names that Hugging Face's `datasets` notes for a ClassLabel column, or none."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]
        return tuple(map(str, feature["names"])) if feature.get("_type", "ClassLabel") == "ClassLabel" else ()
    except (KeyError, TypeError, ValueError, AttributeError):
        return ()


class ParquetImages:
    """Images that are cells of Parquet files. The last row groups stay in memory, since neighbours are read together."""

    def __init__(self, shards: Sequence[_Shard]) -> None:
        self._shards = shards
        self._ends = np.cumsum([len(shard) for shard in shards])
        self._cache: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _place(self, index: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return shard, index - (int(self._ends[shard - 1]) if shard else 0)

    def name(self, index: int) -> str:
        """Such as ``train-00000-of-00002.parquet[12]``."""
        shard, row = self._place(index)
        return f"{self._shards[shard].name}[{row}]"

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """The encoded file. Raises ImageRefused where the cell is empty or the file is damaged."""
        shard, row = self._place(index)
        starts = self._shards[shard].starts
        group = int(np.searchsorted(starts, row, side="right")) - 1
        raw = self._group(shard, group)[row - int(starts[group])].as_py()
        if not isinstance(raw, bytes) or not raw:
            raise ImageRefused("the cell holds no image file", received=repr(raw))
        return raw

    def _group(self, shard: int, group: int) -> Any:
        with self._lock:  # one thread reads a row group, the others wait for it and share it
            key = (shard, group)
            if key not in self._cache:
                while len(self._cache) >= _CACHED_GROUPS:
                    self._cache.popitem(last=False)
                self._cache[key] = self._shards[shard].read_group(group)
            self._cache.move_to_end(key)
            return self._cache[key]
