"""CSV and TSV manifests: one image and its label a row."""

from __future__ import annotations

import csv
import io
import os
import posixpath
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from crossroads.data.dataset import NO_SPLIT, SPLITS, Dataset, ImageSource
from crossroads.data.labels import Rows
from crossroads.data.readers._view import SPLIT_WORDS, PathImages, TreeImages, View, split_of, suffix_of
from crossroads.data.readers.arrays import split_files
from crossroads.data.trees import Folder
from crossroads.errors import DataError, did_you_mean

IMAGE_HEADERS = (
    "path", "filename", "file_name", "file", "image", "image_path", "filepath", "file_path", "img", "img_path", "image_name",
)  # fmt: skip
LABEL_HEADERS = ("label", "class", "classid", "class_id", "category", "class_name", "classname", "target", "labels")
_DELIMITERS = ",;\t"


@dataclass(frozen=True, slots=True)
class Layout:
    """How one table is written: its delimiter, and the columns by number."""

    encoding: str
    delimiter: str
    headers: tuple[str, ...]
    image: int | None
    label: int | None
    split: int | None
    group: int | None

    @property
    def complete(self) -> bool:
        """Whether there is a column of images and one of labels."""
        return self.image is not None and self.label is not None


class TableRow(NamedTuple):
    """One row as it stands in the table."""

    line: int
    path: str
    label: str
    split: int
    group: str | None


def layout_of(view: View, name: str) -> Layout:
    """How the table is written, by its first line: the delimiter under which the wanted headers appear."""
    head = view.span(name).read(0, 1 << 16)
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    first = next((line for line in head.decode(encoding, "replace").splitlines() if line.strip()), "")
    best: Layout | None = None
    for delimiter in _DELIMITERS:
        try:
            fields = next(csv.reader([first], delimiter=delimiter), [])
        except csv.Error:
            continue
        headers = tuple(field.strip() for field in fields)
        plain = [header.lower() for header in headers]
        image, label = _column(plain, IMAGE_HEADERS), _column(plain, LABEL_HEADERS)
        layout = Layout(encoding, delimiter, headers, image, label, _column(plain, ("split",)), _column(plain, ("group",)))
        if layout.complete:
            return layout
        if best is None or len(headers) > len(best.headers):
            best = layout
    return best or Layout(encoding, ",", (), None, None, None, None)


def _column(headers: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((headers.index(word) for word in wanted if word in headers), None)


def tables(view: View) -> list[str]:
    """The tables of a view: of a folder those that list images, of a single file the file, whatever its headers."""
    if view.single:
        return [name for name in view.names if not view.kind and suffix_of(name) in (".csv", ".tsv", ".txt")]
    return [name for name in view.top_files if suffix_of(name) in (".csv", ".tsv") and layout_of(view, name).complete]


def read_tables(view: View) -> Dataset:
    """One table, or one for each split (``train.csv``, ``test.csv``). Paths are relative to the folder of the table."""
    rows, found, names = Rows(), Found(view), tables(view)
    for split, name in split_files(names, view.origin, "table"):
        before = len(found)
        for row in table_rows(view, name):
            found.add(name, row)
            rows.add(row.label, split=row.split or split, group=row.group)
        if len(found) == before:
            raise DataError(f"{view.label(name)} must list at least one image", received="a header and no rows")
    found.check()
    return rows.dataset(view.origin, found.images())


def table_rows(view: View, name: str) -> Iterator[TableRow]:
    """Stream the rows of one table.

    Raises:
        DataError: No such columns, or a bad row; names the file and the line.
    """
    label, layout = view.label(name), layout_of(view, name)
    image_at, label_at = layout.image, layout.label
    if image_at is None or label_at is None:
        what, words = ("images", IMAGE_HEADERS) if image_at is None else ("labels", LABEL_HEADERS)
        raise DataError(
            f"{label} must have a header line with a column of {what}",
            received=", ".join(map(repr, layout.headers[:8])) or "an empty file",
            mend=f"name the column one of {', '.join(words[:6])}",
        )
    width, splits, interned = len(layout.headers), dict[str, int](), dict[str, str]()
    for line, fields in _lines(view, name, layout):
        if any(field.strip() for field in fields[width:]) or (len(fields) < width and _cut_off(layout, fields)):
            raise DataError(
                f"{label} line {line}: {width} columns are wanted as in the header",
                received=len(fields),
                mend="quote fields that hold the delimiter",
            )
        path, text = fields[image_at].strip(), fields[label_at].strip()
        if not path or not text:
            raise DataError(f"{label} line {line}: the {'label' if path else 'path'} must not be empty")
        split, group = NO_SPLIT, None
        if layout.split is not None and layout.split < len(fields):
            split = _split(splits, fields[layout.split], label, line)
        if layout.group is not None and layout.group < len(fields):
            group = fields[layout.group].strip() or None
        yield TableRow(line, path, interned.setdefault(text, text), split, group)


def _cut_off(layout: Layout, fields: Sequence[str]) -> bool:
    """Whether a short row lacks more than empty columns at its end that nobody reads."""
    return len(fields) <= max(layout.image or 0, layout.label or 0, layout.split or 0, layout.group or 0)


def _split(known: dict[str, int], value: str, label: str, line: int) -> int:
    if value not in known:
        split = split_of(value) if value.strip() else NO_SPLIT
        if split is None:
            raise DataError(
                f"{label} line {line}: a split is one of {', '.join(SPLITS[1:])}",
                received=repr(value),
                mend=did_you_mean(value.lower(), SPLIT_WORDS),
            )
        known[value] = split
    return known[value]


def _lines(view: View, name: str, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Rows after the header with the number of the line that each begins on; blank lines are skipped."""
    label = view.label(name)
    text = io.TextIOWrapper(view.span(name).stream(), encoding=layout.encoding, newline="")
    reader = csv.reader(text, delimiter=layout.delimiter, strict=True)
    line, header = 1, True
    try:
        for fields in reader:
            if fields and any(fields):
                if not header:
                    yield line, fields
                header = False
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{label} line {line}: not a well-formed row", received=error, mend="check the quotes") from error
    except UnicodeError as error:
        raise DataError(f"{label} after line {line}: must be UTF-8 text", received=error, mend="save it as UTF-8") from error


class Found:
    """The image paths of table rows, checked against what is there with one listing a folder and not one look-up a file."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._paths: list[str] = []
        self._lines = array("I")
        self._tables: list[tuple[int, str]] = []
        self._folder = ""
        if isinstance(view.tree, Folder):
            self._folder = os.path.join(view.tree.path_of(view.root.rstrip("/")), "")  # noqa: PTH118

    def __len__(self) -> int:
        return len(self._paths)

    def add(self, table: str, row: TableRow, *, path: str | None = None) -> None:
        """One row's image; `path` where it is known to lie elsewhere than the table says."""
        if not self._tables or self._tables[-1][1] != table:
            self._tables.append((len(self._paths), table))
        self._paths.append(self._resolved(table, row, path or row.path))
        self._lines.append(row.line)

    def _resolved(self, table: str, row: TableRow, path: str) -> str:
        path = path.replace("\\", "/")
        folder = posixpath.dirname(table)
        if self._view.on_disk:
            return f"{folder}/{path}" if folder and not path.startswith("/") else path
        whole = posixpath.normpath(posixpath.join(self._view.root, folder, path))
        if path.startswith("/") or whole == ".." or whole.startswith("../"):
            raise DataError(
                f"{self._view.label(table)} line {row.line}: a path must stay inside the archive",
                received=repr(row.path),
                mend="unpack it and give the table",
            )
        return whole

    def check(self) -> None:
        """Raise DataError that counts the files that are not there and shows the first few with their lines."""
        there = _Listings(self._folder).exists if self._view.on_disk else self._view.tree.exists
        missing = [index for index, path in enumerate(self._paths) if not there(path)]
        if not missing:
            return
        shown = "; ".join(f"{self._table(index)} line {self._lines[index]}: {self._paths[index]}" for index in missing[:3])
        relative = "paths are relative to the folder of the table"
        raise DataError(
            f"every file that a table lists must be there, and {len(missing)} of {len(self._paths)} are missing",
            received=shown + ("; …" if len(missing) > 3 else ""),
            mend=f"{relative}, {self._folder or '.'}" if self._view.on_disk else relative,
        )

    def _table(self, index: int) -> str:
        return self._view.label(next(name for start, name in reversed(self._tables) if start <= index))

    def images(self) -> ImageSource:
        """The images of the rows, in their order."""
        return PathImages(self._folder, self._paths) if self._view.on_disk else TreeImages(self._view.tree, self._paths)


class _Listings:
    """Whether files exist, from one listing of each folder: a million look-ups take seconds, not minutes on a network disk."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._known: dict[str, frozenset[str]] = {}

    def exists(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if path.startswith("/") and not folder:
            folder = "/"
        known = self._known.get(folder)
        if known is None:
            try:
                known = frozenset(os.listdir(os.path.join(self._folder, folder) or "."))  # noqa: PTH118, PTH208
            except OSError:
                known = frozenset()
            self._known[folder] = known
        # What a listing spells otherwise may exist all the same, on a file system that folds case or composes accents.
        return name in known or os.path.isfile(os.path.join(self._folder, path))  # noqa: PTH113, PTH118
