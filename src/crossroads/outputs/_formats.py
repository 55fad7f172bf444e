"""Writes rows to a file of one format. Rows are appended, so that those of an interrupted process are kept.

A row is a tuple with one value per column: a string, a float, None, or a vector float32 (d,).
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import DataError, missing_extra, option

Kind = Literal["text", "float32", "vector"]
"""What a column holds."""

DECIMALS = 6
"""Decimals of the floats in a text file. Parquet holds them exactly."""

ROWS_PER_BATCH = 4096
"""Rows of a Parquet file that are written to the disk together. A vector of 1,280 floats takes 5 KB."""

ROW_GROUP = 32_768
"""Most rows of a row group in a Parquet file."""

_ROWS, _FEATURES = "rows", "features"


class Rows(Protocol):
    """Appends rows to files in a folder."""

    def write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Adds rows."""
        ...

    def sync(self) -> dict[str, int]:
        """Writes all rows to the disk. Returns the size of each file in bytes, by its name."""
        ...

    def finish(self, target: Path) -> None:
        """Moves the whole table to `target`. Nothing can be written after that."""
        ...

    def close(self) -> None:
        """Closes the files."""
        ...


class _File:
    """A file to which bytes are appended. What comes after `size` bytes is dropped: an interrupted process may have written it."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.stream = path.open("r+b" if path.exists() else "w+b", buffering=1 << 18)
        self.stream.truncate(size)
        self.stream.seek(size)

    def sync(self) -> int:
        """Writes everything to the disk. Returns the size in bytes."""
        self.stream.flush()
        os.fsync(self.stream.fileno())
        return self.stream.tell()


class _Lines:
    """A text file with one row per line, in UTF-8."""

    def __init__(self, folder: Path, columns: Mapping[str, Kind], sizes: Mapping[str, int]) -> None:
        if "vector" in columns.values():
            raise TypeError("text files hold no vectors")
        self._columns, self._file = tuple(columns), _File(folder / _ROWS, sizes.get(_ROWS, 0))

    def sync(self) -> dict[str, int]:
        return {_ROWS: self._file.sync()}

    def finish(self, target: Path) -> None:
        self.close()
        self._file.path.replace(target)

    def close(self) -> None:
        self._file.stream.close()


class CsvRows(_Lines):
    """CSV with a header, commas, and quotes where they are needed."""

    def __init__(self, folder: Path, columns: Mapping[str, Kind], sizes: Mapping[str, int]) -> None:
        super().__init__(folder, columns, sizes)
        if not sizes.get(_ROWS):
            self.write([self._columns])

    def write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        text = _csv_text(rows, csv.QUOTE_MINIMAL)
        if "\r" in text:  # which Python would not quote
            text = _csv_text(rows, csv.QUOTE_ALL)
        self._file.stream.write(text.encode())


def _csv_text(rows: Sequence[tuple[Any, ...]], quoting: Literal[0, 1]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", quoting=quoting).writerows(rows)
    return text.getvalue()


class JsonRows(_Lines):
    """One JSON object per line. Columns without a value are left out."""

    def write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        records = ({name: value for name, value in zip(self._columns, row, strict=True) if value is not None} for row in rows)
        self._file.stream.write("".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records).encode())


class ParquetRows:
    """A Parquet file. Until it is finished, its rows are in an Arrow stream, to which batches can be appended."""

    def __init__(self, folder: Path, columns: Mapping[str, Kind], sizes: Mapping[str, int], width: int = 0) -> None:
        arrow = _arrow()
        types = {"text": arrow.string(), "float32": arrow.float32(), "vector": arrow.list_(arrow.float32(), width or -1)}
        self._schema = arrow.schema([(name, types[kind]) for name, kind in columns.items()])
        self._vectors = [kind == "vector" for kind in columns.values()]
        self._width = width
        self._file, self._waiting = _File(folder / _ROWS, sizes.get(_ROWS, 0)), list[tuple[Any, ...]]()
        if not sizes.get(_ROWS):
            self._file.stream.write(self._schema.serialize())

    def write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        self._waiting += rows
        if len(self._waiting) >= ROWS_PER_BATCH:
            self._write_batch()

    def _write_batch(self) -> None:
        if self._waiting:
            arrow = _arrow()
            columns = zip(zip(*self._waiting, strict=True), self._schema.types, self._vectors, strict=True)
            arrays = [self._vector_array(values) if vector else arrow.array(values, kind) for values, kind, vector in columns]
            self._file.stream.write(arrow.record_batch(arrays, schema=self._schema).serialize())
            self._waiting = []

    def _vector_array(self, values: Sequence[NDArray[np.float32] | None]) -> Any:
        arrow, empty = _arrow(), np.zeros(self._width, np.float32)
        flat = np.concatenate([empty if value is None else value for value in values])
        missing = np.array([value is None for value in values])
        return arrow.FixedSizeListArray.from_arrays(arrow.array(flat), self._width, mask=arrow.array(missing))

    def sync(self) -> dict[str, int]:
        self._write_batch()
        return {_ROWS: self._file.sync()}

    def finish(self, target: Path) -> None:
        from pyarrow import parquet

        self.sync()
        self.close()
        whole = self._file.path.with_name("finished")
        with parquet.ParquetWriter(whole, self._schema) as writer:
            for table in self._groups():
                writer.write_table(table, row_group_size=ROW_GROUP)
        self._file.path.unlink()
        whole.replace(target)

    def _groups(self) -> Iterator[Any]:
        """Yields tables of about one row group."""
        arrow, most = _arrow(), max(1, ROW_GROUP // max(1, self._width // 64))
        with arrow.OSFile(str(self._file.path)) as source, arrow.ipc.open_stream(source) as batches:
            ready, rows = list[Any](), 0
            for batch in batches:
                ready.append(batch)
                rows += len(batch)
                if rows >= most:
                    yield arrow.Table.from_batches(ready, self._schema)
                    ready, rows = [], 0
            if ready:
                yield arrow.Table.from_batches(ready, self._schema)

    def close(self) -> None:
        self._file.stream.close()


class NpzRows:
    """An .npz file with one array per column. Rows without a vector have zeros."""

    def __init__(self, folder: Path, columns: Mapping[str, Kind], sizes: Mapping[str, int], width: int) -> None:
        self._columns, self._width = tuple(columns), width
        self._vector = list(columns.values()).index("vector")
        self._texts, self._features = (_File(folder / name, sizes.get(name, 0)) for name in (_ROWS, _FEATURES))

    def write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        at, empty = self._vector, np.zeros(self._width, np.float32)
        self._texts.stream.write("".join(f"{json.dumps(row[:at] + row[at + 1 :])}\n" for row in rows).encode())
        self._features.stream.write(np.stack([empty if row[at] is None else row[at] for row in rows]).tobytes())

    def sync(self) -> dict[str, int]:
        return {_ROWS: self._texts.sync(), _FEATURES: self._features.sync()}

    def finish(self, target: Path) -> None:
        self.sync()
        self.close()
        with self._texts.path.open(encoding="utf-8") as file:
            texts = list(zip(*map(json.loads, file), strict=True))
        named = zip((*self._columns[: self._vector], *self._columns[self._vector + 1 :]), texts, strict=True)
        arrays: dict[str, Any] = {name: np.array([each or "" for each in column]) for name, column in named}
        arrays[self._columns[self._vector]] = np.memmap(self._features.path, np.float32, "r", shape=(len(texts[0]), self._width))
        whole = self._texts.path.with_name("finished.npz")
        np.savez(whole, **arrays)
        whole.replace(target)

    def close(self) -> None:
        self._texts.stream.close()
        self._features.stream.close()


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise missing_extra("writing Parquet", "pyarrow", "parquet") from error
    return pyarrow


def required_suffix(out: Path, known: Sequence[str]) -> str:
    """Returns the suffix of a file to write. Raises `DataError` unless it is one of the known ones."""
    suffix = out.suffix.lower()
    if suffix not in known:
        raise DataError(
            f"{option('out')} must end in {', '.join(known[:-1])} or {known[-1]}",
            code="unknown-output-format",
            field="out",
            received=str(out),
            hint="the suffix chooses the format",
        )
    return suffix
