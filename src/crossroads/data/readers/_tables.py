"""Finds the files of a listing that are tables or lists of images, and reads their rows."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from crossroads.data.dataset import NO_SPLIT, SPLITS, TEST, TRAIN
from crossroads.data.readers._columns import FALSE, IMAGE_HEADERS, LABEL_HEADERS, TRUE, Columns, columns_of
from crossroads.data.readers._folder_names import SPLIT_WORDS, split_in, split_of, words_of
from crossroads.data.readers._image_lookup import image_lookup
from crossroads.data.readers._listing import Listing, once_per_listing, suffix_of
from crossroads.data.readers._sheets import SHEETS, Sheet, sheet_of
from crossroads.data.readers._table_images import TableRow
from crossroads.errors import DataError, did_you_mean
from crossroads.files.text import first_few
from crossroads.progress import Note

_LIST_FOLDERS = frozenset(
    ["meta", "metadata", "annotation", "annotations", "label", "labels", "list", "lists", "split", "splits", "info"]
)
_MAX_ALIKE = 64
"""Largest number of files of one type in one folder that may be tables. If there are more, such as one per image, none is read."""
_ONE_HOT = frozenset(("", "0", "0.0", "1", "1.0"))
ONE_LABEL_HINT = "multi-label tables are not supported; keep the images with one label, or choose one label per image"


@dataclass(frozen=True, slots=True)
class Table:
    """A file of rows that name images.

    Attributes:
        name: The file.
        sheet: Its rows.
        columns: The meaning of its columns.
        has_images: Whether any of its first rows names an image that exists.
    """

    name: str
    sheet: Sheet
    columns: Columns
    has_images: bool = True

    @property
    def only_paths(self) -> bool:
        """Whether the table contains nothing but the paths of images."""
        columns = self.columns
        return columns.image is not None and len(self.sheet.headers) <= 1 and not columns.labelled and not columns.undecided

    @property
    def label_header(self) -> str | None:
        """The header of the label column. None if there is no such column or no header."""
        at = self.columns.label
        return self.sheet.headers[at] if at is not None and self.sheet.headers else None


def label_tables(listing: Listing) -> list[Table]:
    """Returns the tables that label images of a folder, or the single file itself.

    If the headers of some tables name the label, only these tables are returned. The others are probably lists of something else,
    such as the classes.
    """
    tables = labelled_tables(listing)
    clear = [table for table in tables if table.columns.clear]
    return clear or tables


def labelled_tables(listing: Listing) -> list[Table]:
    """Returns the tables in which a column may be the label."""
    return [table for table in _tables(listing) if listing.single or table.columns.labelled]


def unlabelled_tables(listing: Listing) -> list[Table]:
    """Returns the tables that name images of the listing and have no column of labels."""
    return [table for table in _tables(listing) if table.has_images and not table.columns.labelled]


@once_per_listing
def _tables(listing: Listing) -> list[Table]:
    """Returns the tables whose rows name images."""
    lookup, tables = image_lookup(listing), []
    for name in _candidates(listing):
        try:
            sheet = sheet_of(listing, name)
            columns = columns_of(sheet, partial(lookup.has, name))
        except DataError:
            if listing.single:
                raise
            continue
        if listing.single or columns.image is not None:
            at = columns.image or 0
            has_images = any(lookup.has(name, row[at].strip()) for row in sheet.sample() if at < len(row))
            tables.append(Table(name, sheet, columns, has_images))
    return tables


def _candidates(listing: Listing) -> list[str]:
    """Returns the names of files that may be tables. They are in the root or in folders such as `meta` and `splits`."""
    if listing.single:
        return [name for name in listing.names if not listing.kind and suffix_of(name) in SHEETS]
    names = [name for name in listing.names if suffix_of(name) in SHEETS and _may_be_table(name)]
    alike = Counter((posixpath.dirname(name), suffix_of(name)) for name in names)
    for (folder, suffix), count in alike.items():
        if count > _MAX_ALIKE:
            place = listing.full(folder) or listing.origin
            text = f"{count} {suffix} files in {place} are ignored: more than {_MAX_ALIKE} files of one type are not read as tables"
            listing.notes.append(Note(text, "many-files-ignored", count=count, suffix=suffix, folder=place))
    return [name for name in names if alike[posixpath.dirname(name), suffix_of(name)] <= _MAX_ALIKE]


def _may_be_table(name: str) -> bool:
    """Returns whether a file is in a folder where tables may be.

    A sample submission of a competition is not a table, because its labels are placeholders.
    """
    folder, base = posixpath.split(name)
    is_submission = "submission" in base.lower() or words_of(name)[:2] == ("sample", "sub")
    return not is_submission and (not folder or folder.lower() in _LIST_FOLDERS)


def table_of(listing: Listing, name: str) -> Table:
    """Returns one table by its name. Its columns are interpreted from the headers alone, without looking up images."""
    sheet = sheet_of(listing, name)
    return Table(name, sheet, columns_of(sheet))


def table_rows(table: Table) -> Iterator[TableRow]:
    """Yields the rows of one table. If the table has one column per class, a row without a class has an empty label.

    Raises:
        DataError: There is no column of images or labels, or a row is malformed. The message names the file and the line.
    """
    sheet, columns = table.sheet, table.columns
    if columns.image is None or not columns.labelled:
        raise _missing_column(table)
    width, splits, labels = len(sheet.headers) or columns.width, dict[str, int](), dict[str, str]()
    needed = max((at or 0 for at in (columns.image, columns.label, columns.split, columns.group)), default=0)
    for line, fields in sheet.rows():
        if any(field.strip() for field in fields[width:]) or (sheet.headers and len(fields) <= needed):
            rule = f"must have {width} columns, like the {'header' if sheet.headers else 'first rows'}"
            raise sheet.fault(rule, "column-count", len(fields), "quote fields that hold the delimiter", line)
        fields += [""] * (needed + 1 - len(fields))
        path, label = fields[columns.image].strip(), _label(table, line, fields)
        if not path or (not label and columns.label is not None):
            what = "label" if path else "path"
            raise sheet.fault(f"must not have an empty {what}", f"empty-{what}", None, None, line)
        split = NO_SPLIT if columns.split is None else _split(splits, fields[columns.split], table, line)
        group = None if columns.group is None else fields[columns.group].strip() or None
        yield TableRow(line, path, labels.setdefault(label, label), split, group)  # equal labels share one string


def _label(table: Table, line: int, fields: Sequence[str]) -> str:
    """Returns the label of one row. This is the cell in the label column, or the header of the only class column that holds 1."""
    columns = table.columns
    if columns.label is not None:
        return fields[columns.label].strip()
    cells = {at: fields[at].strip() for at in columns.one_hot if at < len(fields)}
    if soft := next((cell for cell in cells.values() if cell not in _ONE_HOT), ""):
        hint = "soft labels are not supported; choose one class per image"
        raise table.sheet.fault("must hold 0 or 1 in the column for each class", "soft-label", repr(soft), hint, line)
    marked = [table.sheet.headers[at].strip() for at, cell in cells.items() if cell in ("1", "1.0")]
    if len(marked) > 1:
        raise table.sheet.fault("must give one label", "several-labels", first_few(marked, 4), ONE_LABEL_HINT, line)
    return marked[0] if marked else ""


def _missing_column(table: Table) -> DataError:
    """Returns the error for a table without a column of images or without a column of labels."""
    headers = table.sheet.headers
    if table.columns.undecided:
        several = "several columns that may be the label"
        return table.sheet.fault("must have one column of labels", "undecided-label", several, "write a CSV with path,label")
    received = ", ".join(map(repr, headers[:8])) or ("lines without a header" if table.sheet.form == "list" else "an empty file")
    what, words = ("images", IMAGE_HEADERS) if table.columns.image is None else ("labels", LABEL_HEADERS)
    hint = f"name the column one of {', '.join(words[:6])}"
    return table.sheet.fault(f"must have a header line with a column of {what}", f"no-{what[:-1]}-column", received, hint)


def _split(known: dict[str, int], value: str, table: Table, line: int) -> int:
    """Returns the split that a cell names."""
    if value in known:
        return known[value]
    word, split, flag = value.strip().lower(), None, table.columns.flag
    if flag and word in TRUE:
        split = flag
    elif flag and word in FALSE:
        split = TEST if flag == TRAIN else TRAIN
    elif word and not flag:
        split = split_of(word) or split_in(value)
    if word and word != "unassigned" and split is None:
        rule = f"must name one of the splits {', '.join(SPLITS[1:])}"
        raise table.sheet.fault(rule, "unknown-split", repr(value), did_you_mean(word, SPLIT_WORDS), line)
    known[value] = split or NO_SPLIT
    return known[value]
