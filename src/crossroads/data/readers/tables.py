"""Tables and lists: one image and its label per row."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from crossroads.data.dataset import NO_SPLIT, SPLITS, TEST, TRAIN, Dataset
from crossroads.data.labels import DatasetBuilder, class_name
from crossroads.data.readers._columns import FALSE, IMAGE_HEADERS, LABEL_HEADERS, TRUE, Columns, columns_of, is_number
from crossroads.data.readers._found import Found, TableRow, files_of
from crossroads.data.readers._names import is_plain_split, split_files, split_in, words_of
from crossroads.data.readers._sheets import SHEETS, Sheet, sheet_of
from crossroads.data.readers._view import SPLIT_WORDS, View, split_of, suffix_of
from crossroads.errors import DataError, did_you_mean
from crossroads.files._words import plural, were

_LIST_FOLDERS = frozenset(
    ["meta", "metadata", "annotation", "annotations", "label", "labels", "list", "lists", "split", "splits", "info"]
)
_MOST_ALIKE = 64
_MOST_SAID = 4
_NEARLY_UNIQUE = 0.9
_SURE_OF_GUESS, _SURE_OF_CLEAR = 5, 100
"""Images from which on labels that are nearly all different are refused: one image per class is a sensible test set."""
_MOST_NUMBERS, _LEAST_OF_NUMBER = 20, 3
"""Numbers in a guessed column are measurements where there are more than 20 different ones, with fewer than 3 images each."""
_ONE_HOT = frozenset(("", "0", "0.0", "1", "1.0"))
_JOINED = re.compile(r"\s*[|;,]\s*")


@dataclass(frozen=True, slots=True)
class Table:
    """A file of rows that name images.

    Attributes:
        name: The file.
        sheet: Its rows.
        columns: What its columns are.
        there: Whether any of its first rows names an image that is there.
    """

    name: str
    sheet: Sheet
    columns: Columns
    there: bool = True

    @property
    def only_paths(self) -> bool:
        """Whether it lists images and says nothing of them."""
        return (
            self.columns.image is not None
            and len(self.sheet.headers) <= 1
            and not self.columns.labelled
            and not self.columns.unread
        )


def tables(view: View) -> list[Table]:
    """The tables of a view that label images: of a folder those that name images which are there, of a single file the file.

    Beside tables with a header that means labels, one with any other header is a list of something else, such as the classes.
    """
    found = _labelled(view)
    clear = [table for table in found if table.columns.clear]
    return clear or found


def _labelled(view: View) -> list[Table]:
    return [table for table in _listing(view) if view.single or table.columns.labelled]


def unlabelled_tables(view: View) -> list[Table]:
    """The files of a view that name its images, and of which no column tells the label."""
    return [table for table in _listing(view) if table.there and not table.columns.labelled]


def _listing(view: View) -> list[Table]:
    """The files of rows that name images, looked at once."""
    if "tables" not in view.memo:
        files = files_of(view)
        found = []
        for name in _candidates(view):
            try:
                sheet = sheet_of(view, name)
                columns = columns_of(sheet, lambda value, name=name: files.has(name, value))  # type: ignore[misc]
            except DataError:
                if view.single:
                    raise
                continue
            if view.single or columns.image is not None:
                at = columns.image or 0
                there = any(files.has(name, row[at].strip()) for row in sheet.sample() if at < len(row))
                found.append(Table(name, sheet, columns, there))
        view.memo["tables"] = found
    listing: list[Table] = view.memo["tables"]
    return listing


def _candidates(view: View) -> list[str]:
    """The files that may be tables: those in the root, and in folders of lists beside the images."""
    if view.single:
        return [name for name in view.names if not view.kind and suffix_of(name) in SHEETS]
    found = [name for name in view.names if suffix_of(name) in SHEETS and _place_of_tables(name) and not _is_submission(name)]
    alike = Counter((posixpath.dirname(name), suffix_of(name)) for name in found)  # a file for each image is no table
    for (folder, suffix), count in alike.items():
        if count > _MOST_ALIKE:
            where = view.full(folder) or view.origin
            view.notes.append(f"{count} {suffix} files in {where} ignored: more than {_MOST_ALIKE} are not tables of labels")
    return [name for name in found if alike[posixpath.dirname(name), suffix_of(name)] <= _MOST_ALIKE]


def _place_of_tables(name: str) -> bool:
    folder, _, _ = name.rpartition("/")
    return not folder or ("/" not in folder and folder.lower() in _LIST_FOLDERS)


def _is_submission(name: str) -> bool:
    """Whether a table is the empty form of a competition's answer, whose labels mean nothing."""
    return "submission" in posixpath.basename(name).lower() or words_of(name)[:2] == ("sample", "sub")


def layout_of(view: View, name: str) -> Table:
    """One table by name, with its columns told by their headers."""
    sheet = sheet_of(view, name)
    return Table(name, sheet, columns_of(sheet))


class Reading:
    """What the tables of a view say, before it is a data set."""

    def __init__(self, view: View, read: Sequence[Table]) -> None:
        self.view = view
        self.tables = read
        self.rows = DatasetBuilder()
        self.found = Found(view)
        self.labels: list[str] = []
        self.splits: list[int] = []
        self.groups: list[str | None] = []
        self.notes: list[str] = []
        self.unlabelled: set[str] = set()

    def add(self, table: Table, row: TableRow, split: int) -> None:
        """One row."""
        if self.found.add(table.name, row, split):
            self.rows.add(row.label, split=split, group=row.group)
            self.labels.append(row.label)
            self.splits.append(split)
            self.groups.append(row.group)

    def rename(self, names: Mapping[str, str]) -> None:
        """Give labels that are numbers the names of the folders that they stand for."""
        self.labels = [names.get(class_name(label), label) for label in self.labels]
        self._collect()
        self.notes.append(f"the numbers in {self.title} stand for the class folders, which give the names")

    def split_by_folders(self) -> None:
        """Take the splits from the folders of the images, where the tables say none and every image lies in a split folder."""
        if any(self.splits) or self.view.single:
            return
        splits = [_split_folder(path) for path in self.found.paths]
        if None not in splits and len(set(splits)) > 1 and TRAIN in splits:
            self.splits = [split or NO_SPLIT for split in splits]
            self._collect()
            self.notes.append(f"splits are the folders of the images that {self.title} names")

    def _collect(self) -> None:
        """The rows once more, after a change to their labels or splits."""
        self.rows = DatasetBuilder()
        for label, split, group in zip(self.labels, self.splits, self.groups, strict=True):
            self.rows.add(label, split=split, group=group)

    @property
    def title(self) -> str:
        """The names of the tables."""
        return ", ".join(self.view.label(table.name) for table in self.tables[:4]) + (", …" if len(self.tables) > 4 else "")

    def dataset(self) -> Dataset:
        """The data set."""
        self.found.check()
        return self.rows.build(self.view.origin, self.found.images(), [*self.notes, *self.left_out()])

    def left_out(self) -> list[str]:
        """How many images of the view the tables do not name, by the folder that they lie in."""
        if self.view.single:
            return []
        prefix = "" if self.view.on_disk else self.view.root
        named = {path.removeprefix(prefix) for path in self.found.paths}
        named |= {path.removeprefix(prefix) for path in self.unlabelled}
        counts = Counter(name.partition("/")[0] + "/" if "/" in name else "" for name in self.view.images if name not in named)
        places = ((f" in {self.view.full(folder)}" if self.view.full(folder) else "", count) for folder, count in counts.items())
        return [f"{plural(count, 'image')}{place} ignored: not in {self.title}" for place, count in places]


def read_tables(view: View) -> Dataset:
    """One table, or one for each split (``train.csv``, ``test.csv``). Paths are relative to the folder of the table."""
    return reading(view).dataset()


def reading(view: View) -> Reading:
    """What the tables of a view say.

    Raises:
        DataError: It is not clear which table to read, a row is bad, or two rows disagree on an image.
    """
    if "reading" not in view.memo:
        view.memo["reading"] = _reading(view)
    found: Reading = view.memo["reading"]
    return found


def _reading(view: View) -> Reading:
    result, unlabelled = Reading(view, tables(view)), 0
    beside = [table.name for table in _labelled(view) if table not in result.tables]
    result.notes += [f"{view.label(name)} ignored: {result.title} gives the labels" for name in beside[:_MOST_SAID]]
    for split, table in _with_splits(result.tables, view.origin):
        before = len(result.found)
        for row in table_rows(table):
            if row.label:
                result.add(table, row, row.split or split)
            else:
                unlabelled += 1
                result.unlabelled.add(result.found.files.find(table.name, row.line, row.path, row.split or split)[0])
        if len(result.found) == before:
            raise DataError(f"{view.label(table.name)} must list at least one image", received="a header and no rows")
        result.notes += _said(table)
    if unlabelled:
        has = "has" if unlabelled == 1 else "have"
        result.notes.append(f"{plural(unlabelled, 'row')} of {result.title} {has} no class and {were(unlabelled)} ignored")
    _refuse_unique_labels(result)
    _refuse_measurements(result)
    result.split_by_folders()
    result.notes += result.found.notes()
    result.notes += _look_for_several_labels(result)
    return result


def nearly_unique(labels: Sequence[str], least: int = 10) -> bool:
    """Whether nearly every image has a label of its own, as a checksum, a link or a caption is; told from `least` images on."""
    return len(labels) >= least and len(set(labels)) > _NEARLY_UNIQUE * len(labels)


def _refuse_unique_labels(result: Reading) -> None:
    """Raise DataError where the column of labels holds something else. A header that says label gets the benefit of the doubt."""
    if nearly_unique(result.labels, _SURE_OF_CLEAR if all(table.columns.clear for table in result.tables) else _SURE_OF_GUESS):
        raise DataError(
            f"{result.title} must give a label that several images share",
            received=f"{len(set(result.labels))} different values for {len(result.labels)} images, such as {result.labels[0]!r}",
            hint="add a column label that holds the class of each image",
        )


def _refuse_measurements(result: Reading) -> None:
    """Raise DataError where a guessed column holds many numbers with few images each, such as the age of a person."""
    guessed = [table for table in result.tables if table.sheet.headers and not table.sheet.unnamed and not table.columns.clear]
    values = set(result.labels)
    few = len(values) > _MOST_NUMBERS and len(result.labels) < _LEAST_OF_NUMBER * len(values)
    if guessed and few and all(map(is_number, values)):
        sheet, at = guessed[0].sheet, guessed[0].columns.label
        raise DataError(
            f"{result.title} must give a label that several images share",
            received=f"{len(values)} different numbers for {len(result.labels)} images"
            + (f" in the column {sheet.headers[at]!r}, which looks like a measurement" if at is not None else ""),
            hint="name the column label if its numbers are classes, or add a column label",
        )


def _split_folder(path: str) -> int | None:
    """The split that the folders of an image say, or None."""
    return next((split_in(part) for part in path.split("/")[:-1] if is_plain_split(part)), None)


def _with_splits(found: Sequence[Table], origin: str) -> list[tuple[int, Table]]:
    """Each table with the split that its name speaks of: one table has none; several must each name their own."""
    by_name = {table.name: table for table in found}
    return [(split, by_name[name]) for split, name in split_files(list(by_name), origin, "table")]


def _said(table: Table) -> list[str]:
    """What a reader of the notes should know of how a table was read."""
    columns, headers, notes = table.columns, table.sheet.headers, list(table.columns.unread)
    if columns.label is not None and headers and (columns.others or headers[columns.label].strip().lower() not in LABEL_HEADERS):
        others = "".join(f", not {headers[at]!r}" for at in columns.others)
        notes.insert(0, f"labels are the column {headers[columns.label]!r} of {table.sheet.label}{others}")
    if columns.split is not None and headers and headers[columns.split].strip().lower() != "split":
        notes.append(f"splits are the column {headers[columns.split]!r} of {table.sheet.label}")
    if columns.boxes:
        notes.append(f"bounding boxes in {table.sheet.label} are ignored; whole images are used")
    return notes


def _look_for_several_labels(result: Reading) -> list[str]:
    """A note on labels such as ``cat dog`` where `cat` and `dog` are labels too.

    Raises:
        DataError: They are several labels in one cell, by the bar between them or by the header of the column.
    """
    known = set(result.labels)
    plural_header = any(_plural(table) for table in result.tables)
    for label in sorted(known):
        parts = set(_JOINED.split(label) if _JOINED.search(label) else label.split())
        together = len(parts) > 1 and parts <= known
        if "|" in label or (together and plural_header):
            raise DataError(
                f"an image must have one label, and {result.title} gives some several",
                received=repr(label),
                hint="multi-label tables are not supported; keep the images with one label, or choose one label per image",
            )
        if together:
            return [f"label {label!r} is read as a class of its own, beside {', '.join(map(repr, sorted(parts)))}"]
    return []


def _plural(table: Table) -> bool:
    """Whether the header of the labels speaks of several in each row."""
    at, headers = table.columns.label, table.sheet.headers
    return at is not None and bool(headers) and headers[at].strip().lower().endswith(("labels", "tags", "classes", "categories"))


def table_rows(table: Table) -> Iterator[TableRow]:
    """Stream the rows of one table; a row without a class, in a table with a column for each class, has an empty label.

    Raises:
        DataError: No such columns, or a bad row; names the file and the line.
    """
    sheet, columns = table.sheet, table.columns
    if columns.image is None or not columns.labelled:
        raise _no_column(table)
    width, splits, interned = len(sheet.headers) or columns.width, dict[str, int](), dict[str, str]()
    needed = max((at or 0 for at in (columns.image, columns.label, columns.split, columns.group)), default=0)
    for line, fields in sheet.rows():
        if any(field.strip() for field in fields[width:]) or (sheet.headers and len(fields) <= needed):
            raise DataError(
                f"{sheet.label} line {line}: expected {width} columns, as in the {'header' if sheet.headers else 'first rows'}",
                received=len(fields),
                hint="quote fields that hold the delimiter",
            )
        fields += [""] * (needed + 1 - len(fields))
        path, text = fields[columns.image].strip(), _label(table, line, fields)
        if not path or (not text and columns.label is not None):
            raise DataError(f"{sheet.label} line {line}: the {'label' if path else 'path'} must not be empty")
        split = NO_SPLIT if columns.split is None else _split(splits, fields[columns.split], table, line)
        group = None if columns.group is None else fields[columns.group].strip() or None
        yield TableRow(line, path, interned.setdefault(text, text), split, group)


def _label(table: Table, line: int, fields: Sequence[str]) -> str:
    """The label of one row: the cell of the label's column, or the header of the one column that holds 1."""
    columns = table.columns
    if columns.label is not None:
        return fields[columns.label].strip()
    cells = {at: fields[at].strip() for at in columns.one_hot if at < len(fields)}
    if soft := next((cell for cell in cells.values() if cell not in _ONE_HOT), ""):
        raise DataError(
            f"{table.sheet.label} line {line}: a column for each class must hold 0 or 1",
            received=repr(soft),
            hint="soft labels are not supported; choose one class per image",
        )
    marked = [at for at, cell in cells.items() if cell in ("1", "1.0")]
    if len(marked) > 1:
        raise _several(table, line, ", ".join(table.sheet.headers[at].strip() for at in marked[:4]))
    return table.sheet.headers[marked[0]].strip() if marked else ""


def _several(table: Table, line: int, received: str) -> DataError:
    return DataError(
        f"{table.sheet.label} line {line}: an image must have one label",
        received=received,
        hint="multi-label tables are not supported; keep the images with one label, or choose one label per image",
    )


def _no_column(table: Table) -> DataError:
    """The refusal of a table without a column of images or of labels."""
    headers, label = table.sheet.headers, table.sheet.label
    received = ", ".join(map(repr, headers[:8])) or ("lines without a header" if table.sheet.form == "list" else "an empty file")
    if table.columns.unread and not headers:
        return DataError(
            f"{label} must have one column of labels", received=table.columns.unread[0], hint="write a CSV with path,label"
        )
    what, words = ("images", IMAGE_HEADERS) if table.columns.image is None else ("labels", LABEL_HEADERS)
    hint = f"name the column one of {', '.join(words[:6])}"
    return DataError(f"{label} must have a header line with a column of {what}", received=received, hint=hint)


def _split(known: dict[str, int], value: str, table: Table, line: int) -> int:
    """The split that a cell names."""
    if value in known:
        return known[value]
    word, split = value.strip().lower(), None
    if table.columns.flag:
        split = table.columns.flag if word in TRUE else (TEST if table.columns.flag == TRAIN else TRAIN) if word in FALSE else None
    elif word:
        split = split_of(word) or split_in(value)
    if word and word != "unassigned" and split is None:
        raise DataError(
            f"{table.sheet.label} line {line}: a split is one of {', '.join(SPLITS[1:])}",
            received=repr(value),
            hint=did_you_mean(word, SPLIT_WORDS),
        )
    known[value] = split or NO_SPLIT
    return known[value]
