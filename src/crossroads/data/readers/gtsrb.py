"""Reads the German Traffic Sign Recognition Benchmark (GTSRB) in its official layout.

A track consists of about 30 consecutive frames of one physical sign. These are nearly identical, so each track is a group.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from crossroads.data.dataset import NO_SPLIT, TEST, TRAIN, Dataset
from crossroads.data.labels import as_integer
from crossroads.data.readers._folder_notes import files_ignored
from crossroads.data.readers._listing import Listing, is_image_name
from crossroads.data.readers._table_images import TableImages, TableRow
from crossroads.data.readers._tables import table_of, table_rows
from crossroads.errors import DataError
from crossroads.files.text import plural, were
from crossroads.progress import Note

_TRAIN_TABLE = re.compile(r"(?:.*/)?GT-\d{5}\.csv")
_TEST_TABLE = re.compile(r"(?:.*/)?GT-final_test(?:\.test)?\.csv")
_FRAME = re.compile(r"(?:.*/)?(\d{5})_\d{5}\.\w+")


def recognises(listing: Listing) -> bool:
    """Returns whether there are tables with the file names of the benchmark."""
    return bool(_matching(listing, _TRAIN_TABLE) or _matching(listing, _TEST_TABLE))


def _matching(listing: Listing, pattern: re.Pattern[str]) -> list[str]:
    return [name for name in listing.names if name.endswith(".csv") and pattern.fullmatch(name)]


def read(listing: Listing) -> Dataset:
    """Returns the data set of ``Final_Training/Images/000NN/GT-000NN.csv`` and, if it exists, ``GT-final_test.csv``.

    The class of a row is its ClassId as a plain number, and its group is the track. If both parts exist, each row has a split.
    """
    train = _matching(listing, _TRAIN_TABLE)
    # A table with labels comes first.
    tests = sorted(_matching(listing, _TEST_TABLE), key=lambda name: not _is_labelled(listing, name))
    test = tests[0] if tests else None
    notes: list[Note] = []
    if train and test and not _is_labelled(listing, test):
        text = f"the test images are ignored: {test} has no column ClassId; add the GT-final_test.csv that has this column"
        notes.append(Note(text, "table-without-labels", table=test))
        test = None
    images = TableImages(listing)
    for name in train:
        for row in table_rows(table_of(listing, name)):
            label, frame = class_of(listing, name, row), _FRAME.fullmatch(row.path)
            group = (label, frame[1]) if frame else None
            images.add(name, row._replace(label=label, split=TRAIN if test else NO_SPLIT, group=group))
    notes += _not_in_tables(listing, train, len(images))
    for row in _test_rows(listing, test) if test else ():
        labelled = row._replace(label=class_of(listing, test or "", row), split=TEST if train else NO_SPLIT)
        images.add(test or "", labelled, path=_test_image(listing, test or "", row.path))
    tables = {listing.full(name) for name in (*train, *_matching(listing, _TEST_TABLE))}
    return images.dataset([*notes, *images.repeated_notes(), *files_ignored(listing, tables)])


def _is_labelled(listing: Listing, name: str) -> bool:
    columns = table_of(listing, name).columns
    return columns.image is not None and columns.label is not None


def _test_rows(listing: Listing, name: str) -> Iterator[TableRow]:
    table = table_of(listing, name)
    if not _is_labelled(listing, name):
        raise DataError(
            f"{listing.label(name)} must have the column ClassId",
            code="no-label-column",
            received=", ".join(table.sheet.headers),
            hint="this is the table without labels; take GT-final_test.csv from GTSRB_Final_Test_GT.zip",
        )
    return table_rows(table)


def _test_image(listing: Listing, table: str, path: str) -> str:
    """Returns the path of a test image relative to its table.

    The image may be beside the table, in `Images`, or in the folder of the benchmark's own archive.
    """
    folder = posixpath.dirname(table)
    for place in ("", "Images", "Final_Test/Images", "GTSRB/Final_Test/Images"):
        if listing.tree.exists(listing.full(posixpath.join(folder, place, path))):
            return posixpath.join(place, path)
    return path


def class_of(listing: Listing, table: str, row: TableRow) -> str:
    """Returns the ClassId of a row as a plain number."""
    number = as_integer(row.label)
    if number is None or number < 0:
        rule = f"{listing.label(table)} line {row.line}: ClassId must be a number"
        raise DataError(rule, code="class-id", received=repr(row.label))
    return str(number)


def _not_in_tables(listing: Listing, tables: list[str], listed: int) -> list[Note]:
    """Returns a note on images beside the training tables that no table lists."""
    if listing.single:
        return []
    folders = {posixpath.dirname(name) for name in tables}
    extra = sum(is_image_name(name) and posixpath.dirname(name) in folders for name in listing.names) - listed
    if extra <= 0:
        return []
    text = f"{plural(extra, 'image')} beside the training tables {were(extra)} ignored: not listed in any of them"
    return [Note(text, "images-not-in-table", count=extra)]
