"""Combines the tables of a listing: their images, labels and splits, with notes on what is not used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from crossroads.data.dataset import NO_SPLIT, TRAIN, Dataset
from crossroads.data.labels import class_name
from crossroads.data.readers._columns import LABEL_HEADERS, is_number
from crossroads.data.readers._folder_names import is_plain_split, split_files, split_in
from crossroads.data.readers._listing import Listing, once_per_listing
from crossroads.data.readers._table_images import TableImages
from crossroads.data.readers._tables import ONE_LABEL_HINT, Table, label_tables, labelled_tables, table_rows
from crossroads.errors import DataError
from crossroads.files.text import first_few, plural, were
from crossroads.progress import Note

_MAX_IGNORED_NOTES = 4
_MAX_TITLE = 4
_NEARLY_UNIQUE = 0.9
_UNIQUE_IF_GUESSED, _UNIQUE_IF_CLEAR = 5, 100
"""Smallest number of images for which labels are refused if nearly all of them differ.

A small test set with one image per class is sensible. The limit is therefore higher if a header clearly names the label.
"""
_MAX_NUMBERS, _MIN_IMAGES_PER_NUMBER = 20, 3
"""A guessed label column is a measurement if it has more than 20 different numbers with fewer than 3 images each on average."""
_PLURALS = ("labels", "tags", "classes", "categories")
_JOINED = re.compile(r"\s*[|;,]\s*")


class Reading:
    """The rows of one or several tables, from which a data set is built.

    Attributes:
        tables: The tables.
        images: The images that the rows name, with their labels.
        notes: Notes on how the tables are read and on what is ignored.
        unlabelled: The images of rows without a class.
    """

    def __init__(self, listing: Listing, tables: Sequence[Table]) -> None:
        self._listing = listing
        self.tables = tables
        self.images = TableImages(listing)
        self.notes: list[Note] = []
        self.unlabelled: set[str] = set()

    @property
    def labels(self) -> list[str]:
        """The label of each image."""
        return self.images.rows.labels

    @property
    def title(self) -> str:
        """The names of the tables, as messages list them."""
        return titled(self._listing, self.tables, _MAX_TITLE)

    @property
    def clear(self) -> bool:
        """Whether the headers of all tables name the label."""
        return all(table.columns.clear for table in self.tables)

    def rename(self, names: Mapping[str, str]) -> None:
        """Replaces labels that are numbers with the names of the class folders that they stand for."""
        rows = self.images.rows
        rows.labels = [names.get(class_name(label), label) for label in rows.labels]
        text = f"the numbers in {self.title} stand for class folders; the classes have the names of the folders"
        self.notes.append(Note(text, "numbers-mean-folders", tables=self.title))

    def split_by_folders(self) -> None:
        """Sets the splits from the folders of the images, if the tables give no splits and every image is in a split folder."""
        rows = self.images.rows
        if any(rows.splits) or self._listing.single:
            return
        splits = [_split_of_folders(path) for path in rows.names]
        if None not in splits and len(set(splits)) > 1 and TRAIN in splits:
            rows.splits = [split or NO_SPLIT for split in splits]
            text = f"splits are the folders of the images that {self.title} names"
            self.notes.append(Note(text, "splits-from-folders", tables=self.title))

    def dataset(self) -> Dataset:
        """Returns the data set.

        Raises:
            DataError: An image does not exist.
        """
        return self.images.dataset([*self.notes, *self.images_left_out()])

    def images_left_out(self) -> list[Note]:
        """Returns a note for each folder with images that the tables do not name."""
        listing = self._listing
        if listing.single:
            return []
        prefix = "" if listing.on_disk else listing.root
        named = {path.removeprefix(prefix) for path in (*self.images.rows.names, *self.unlabelled)}
        counts = Counter(name.partition("/")[0] + "/" if "/" in name else "" for name in listing.images if name not in named)
        return [not_in_table(count, listing.full(folder), self.title) for folder, count in counts.items()]


def titled(listing: Listing, tables: Sequence[Table], most: int) -> str:
    """Returns the names of the first `most` tables for messages."""
    return first_few([listing.label(table.name) for table in tables], most)


def not_in_table(count: int, folder: str, title: str) -> Note:
    """Returns the note on images of a folder that no table lists."""
    place = f" in {folder}" if folder else ""
    text = f"{plural(count, 'image')}{place} {were(count)} ignored: not listed in {title}"
    return Note(text, "images-not-in-table", count=count, folder=folder, tables=title)


@once_per_listing
def reading(listing: Listing) -> Reading:
    """Reads the tables of a listing.

    Raises:
        DataError: It is unclear which table to read, a row is malformed, rows contradict each other, or the labels are not classes.
    """
    result = Reading(listing, label_tables(listing))
    others = [table for table in labelled_tables(listing) if table not in result.tables]
    for table in others[:_MAX_IGNORED_NOTES]:
        name = listing.label(table.name)
        result.notes.append(Note(f"{name} is ignored: the labels are those of {result.title}", "table-ignored", table=name))
    unlabelled = 0
    by_name = {table.name: table for table in result.tables}
    for split, name in split_files(list(by_name), listing.origin, "table"):
        unlabelled += _read_table(result, by_name[name], split)
    if unlabelled:
        rows = f"{plural(unlabelled, 'row')} of {result.title} {'has' if unlabelled == 1 else 'have'} no class"
        text = f"{rows} and {were(unlabelled)} ignored"
        result.notes.append(Note(text, "rows-without-class", count=unlabelled, tables=result.title))
    _refuse_unique_labels(result)
    _refuse_measurements(result)
    result.split_by_folders()
    result.notes += result.images.repeated_notes()
    result.notes += _joined_labels(result)
    return result


def _read_table(result: Reading, table: Table, split: int) -> int:
    """Adds the rows of one table and returns the number of rows without a class."""
    images, before, unlabelled = result.images, len(result.images), 0
    for row in table_rows(table):
        row_split = row.split or split
        if row.label:
            images.add(table.name, row._replace(split=row_split))
        else:
            unlabelled += 1
            result.unlabelled.add(images.lookup.find(table.name, row.line, row.path, row_split)[0])
    if len(images) == before:
        raise table.sheet.fault("must list at least one image", "no-images", "a header and no rows", "add images")
    result.notes += _column_notes(table)
    return unlabelled


def nearly_unique(labels: Sequence[str], minimum: int = 10) -> bool:
    """Returns whether nearly every image has its own label, such as a checksum, a link or a caption.

    Returns False if there are fewer than `minimum` images.
    """
    return len(labels) >= minimum and len(set(labels)) > _NEARLY_UNIQUE * len(labels)


def _refuse_unique_labels(result: Reading) -> None:
    """Raises `DataError` if nearly every image has its own label. The check is less strict if a header names the label."""
    labels = result.labels
    if nearly_unique(labels, _UNIQUE_IF_CLEAR if result.clear else _UNIQUE_IF_GUESSED):
        received = f"{len(set(labels))} different values for {len(labels)} images, such as {labels[0]!r}"
        raise _not_shared(result, received, "add a column label that holds the class of each image")


def _refuse_measurements(result: Reading) -> None:
    """Raises `DataError` if a guessed label column holds many numbers with few images each, such as the age of a person."""
    guessed = [table for table in result.tables if table.sheet.headers and not table.sheet.unnamed and not table.columns.clear]
    values, images = set(result.labels), len(result.labels)
    if guessed and len(values) > _MAX_NUMBERS and images < _MIN_IMAGES_PER_NUMBER * len(values) and all(map(is_number, values)):
        header = guessed[0].label_header
        column = "" if header is None else f" in the column {header!r}, which looks like a measurement"
        received = f"{len(values)} different numbers for {images} images{column}"
        raise _not_shared(result, received, "name the column label if its numbers are classes, or add a column label")


def _not_shared(result: Reading, received: str, hint: str) -> DataError:
    rule = f"{result.title} must give a label that several images share"
    return DataError(rule, code="label-not-shared", received=received, hint=hint)


def _split_of_folders(path: str) -> int | None:
    """Returns the split that a folder in the path of an image names, or None."""
    return next((split_in(part) for part in path.split("/")[:-1] if is_plain_split(part)), None)


def _column_notes(table: Table) -> list[Note]:
    """Returns notes on how the columns of a table are read."""
    columns, headers, name, notes = table.columns, table.sheet.headers, table.sheet.label, []
    header = table.label_header
    if header is not None and (columns.other_labels or header.strip().lower() not in LABEL_HEADERS):
        others = [headers[at] for at in columns.other_labels]
        text = f"labels are the column {header!r} of {name}" + "".join(f", not {other!r}" for other in others)
        notes.append(Note(text, "label-column", column=header, table=name, others=others))
    notes += columns.unused
    if columns.split is not None and headers and headers[columns.split].strip().lower() != "split":
        text = f"splits are the column {headers[columns.split]!r} of {name}"
        notes.append(Note(text, "split-column", column=headers[columns.split], table=name))
    if columns.boxes:
        notes.append(Note(f"bounding boxes in {name} are ignored; whole images are used", "boxes-ignored", table=name))
    return notes


def _joined_labels(result: Reading) -> list[Note]:
    """Returns a note on the first label that combines other labels, such as ``cat dog`` beside `cat` and `dog`.

    Raises:
        DataError: A cell holds several labels. This is assumed if a label contains a bar, or if the header is a plural.
    """
    known = set(result.labels)
    header_is_plural = any((table.label_header or "").strip().lower().endswith(_PLURALS) for table in result.tables)
    for label in sorted(known):
        parts = set(_JOINED.split(label) if _JOINED.search(label) else label.split())
        together = len(parts) > 1 and parts <= known
        if "|" in label or (together and header_is_plural):
            rule = f"an image must have one label, but {result.title} gives some images several"
            raise DataError(rule, code="several-labels", received=repr(label), hint=ONE_LABEL_HINT)
        if together:
            text = f"label {label!r} is read as its own class, beside {', '.join(map(repr, sorted(parts)))}"
            return [Note(text, "joined-label", label=label, parts=sorted(parts))]
    return []
