"""Collects the images that table rows name. Finds missing images and rows that contradict each other."""

from __future__ import annotations

from array import array
from typing import NamedTuple

from crossroads.data.dataset import NO_SPLIT, SPLITS, Dataset
from crossroads.data.readers._folder_names import split_in
from crossroads.data.readers._image_lookup import image_lookup
from crossroads.data.readers._labelled import LabelledImages
from crossroads.data.readers._listing import Listing
from crossroads.errors import DataError
from crossroads.files.text import plural, were
from crossroads.progress import Note


class TableRow(NamedTuple):
    """One row of a table."""

    line: int
    path: str
    label: str
    split: int = NO_SPLIT
    group: object = None


class TableImages:
    """Collects the images of table rows.

    Attributes:
        lookup: Finds the images.
        rows: The images that were added, each once. Their names are the places that `lookup` returned.
        repeated: Number of rows that only repeat an earlier row.
    """

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self.lookup = image_lookup(listing)
        self.rows = LabelledImages()
        self.repeated = 0
        self._lines = array("I")
        self._missing = array("q")
        self._table_starts: list[tuple[int, str]] = []
        self._seen: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def missing(self) -> int:
        """The number of images that do not exist."""
        return len(self._missing)

    def add(self, table: str, row: TableRow, *, path: str | None = None) -> None:
        """Adds the image of one row, unless an earlier row has already added it.

        Args:
            table: Name of the table.
            row: The row.
            path: The path of the image, if it differs from the path in the row.

        Raises:
            DataError: An earlier row gives the same image another label, split or group.
        """
        place, exists = self.lookup.find(table, row.line, path or row.path, row.split or split_in(table) or NO_SPLIT)
        index = self._seen.setdefault(place, len(self.rows))
        if index < len(self.rows):
            self._require_agreement(index, table, row)
            self.repeated += 1
            return
        if not self._table_starts or self._table_starts[-1][1] != table:
            self._table_starts.append((index, table))
        if not exists:
            self._missing.append(index)
        self._lines.append(row.line)
        self.rows.add(place, row.label, row.split, row.group)

    def _require_agreement(self, index: int, table: str, row: TableRow) -> None:
        """Raises `DataError` if two rows give an image different labels, splits or groups."""
        lines = f"{self._table(index)} line {self._lines[index]} and {self._listing.label(table)} line {row.line}"
        rows, objects = self.rows, "images with several labels or objects are not supported; keep one row per image"
        for what, known, new, hint in (
            ("label", repr(rows.labels[index]), repr(row.label), objects),
            ("split", SPLITS[rows.splits[index]] or "no split", SPLITS[row.split] or "no split", "keep one row"),
            (
                "group",
                *(repr(group or "none") for group in (rows.groups[index], row.group)),
                "keep one row, or give both groups one name",
            ),
        ):
            if known != new:
                rule = f"an image must have one {what}, but {rows.names[index]} has two"
                raise DataError(rule, code=f"several-{what}s", received=f"{known} and {new} in {lines}", hint=hint)

    def require_all(self) -> None:
        """Raises `DataError` if any images do not exist. The message gives their number and the first lines that name them."""
        count = self.missing
        if not count:
            return
        first = "; ".join(
            f"{self._table(index)} line {self._lines[index]}: {self.rows.names[index]}" for index in self._missing[:3]
        )
        hint = "paths are relative to the folder of the table"
        if self.lookup.missing_from:
            hint = f"download the images that the table names on {self.lookup.missing_from} to its folder"
        raise DataError(
            f"{count} of the {plural(len(self), 'file')} in the table {'does' if count == 1 else 'do'} not exist",
            code="missing-files",
            received=first + ("; …" if count > 3 else ""),
            hint=f"{hint}, {self.lookup.folder or '.'}" if self._listing.on_disk else hint,
        )

    def _table(self, index: int) -> str:
        return self._listing.label(next(name for start, name in reversed(self._table_starts) if start <= index))

    def dataset(self, notes: list[Note]) -> Dataset:
        """Returns the data set of the rows.

        Raises:
            DataError: An image does not exist.
        """
        self.require_all()
        return self.rows.dataset(self._listing.origin, self.lookup.images(self.rows.names), notes)

    def repeated_notes(self) -> list[Note]:
        """Returns a note on rows that only repeat an earlier row."""
        text = f"{plural(self.repeated, 'duplicate row')} {were(self.repeated)} ignored"
        return [Note(text, "duplicate-rows", count=self.repeated)] if self.repeated else []
