"""The German Traffic Sign Recognition Benchmark: the official layout and the one of Kaggle's copy.

About 30 frames in a row show one physical sign, a track; they are near-identical, so a track is a group.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Hashable, Iterator

from crossroads.data.dataset import NO_SPLIT, TEST, TRAIN, Dataset
from crossroads.data.labels import DatasetBuilder, as_integer
from crossroads.data.readers._found import Found, TableRow
from crossroads.data.readers._view import TreeImages, View, is_image_name
from crossroads.data.readers.tables import layout_of, table_rows
from crossroads.errors import DataError
from crossroads.files._words import plural, were

_TRAIN_TABLE = re.compile(r"(?:.*/)?GT-\d{5}\.csv")
_TEST_TABLE = re.compile(r"(?:.*/)?GT-final_test(?:\.test)?\.csv")
_FRAME = re.compile(r"(?:.*/)?(\d{5})_\d{5}\.\w+")
_KAGGLE_FRAME = re.compile(r"(?:.*/)?(\d{5})_(\d{5})_\d{5}\.\w+")


def _matching(view: View, pattern: re.Pattern[str]) -> list[str]:
    return [name for name in view.names if name.endswith(".csv") and pattern.fullmatch(name)]


def _is_labelled(view: View, name: str) -> bool:
    columns = layout_of(view, name).columns
    return columns.image is not None and columns.label is not None


def is_official(view: View) -> bool:
    """Whether there are tables named as the benchmark names them."""
    return bool(_matching(view, _TRAIN_TABLE) or _matching(view, _TEST_TABLE))


def read_official(view: View) -> Dataset:
    """``Final_Training/Images/000NN/GT-000NN.csv`` beside its frames, and ``GT-final_test.csv`` where it is there.

    The class is the ClassId as a plain number, the group a track. Where both parts are there each row has its split.
    """
    train, test = _matching(view, _TRAIN_TABLE), _test_table(view)
    notes: list[str] = []
    if train and test and not _is_labelled(view, test):
        notes.append(f"{test} has no ClassId: the test images are ignored; add GT-final_test.csv, which has")
        test = None
    rows, found = DatasetBuilder(), Found(view)
    for name in train:
        for row in table_rows(layout_of(view, name)):
            frame = _FRAME.fullmatch(row.path)
            label = _class_of(view, name, row)
            if found.add(name, row):
                rows.add(label, split=TRAIN if test else NO_SPLIT, group=(label, frame[1]) if frame else None)
    listed = len(found)
    if test:
        for row in _test_rows(view, test):
            if found.add(test, row, path=_test_image(view, test, row.path)):
                rows.add(_class_of(view, test, row), split=TEST if train else NO_SPLIT)
    found.check()
    notes += [*_unlisted(view, train, listed), *found.notes()]
    return rows.build(view.origin, found.images(), notes)


def _test_table(view: View) -> str | None:
    """The test table, the one with ClassId where there are two."""
    found = sorted(_matching(view, _TEST_TABLE), key=lambda name: not _is_labelled(view, name))
    return found[0] if found else None


def _test_rows(view: View, name: str) -> Iterator[TableRow]:
    if not _is_labelled(view, name):
        raise DataError(
            f"{view.label(name)} must have the column ClassId",
            received=", ".join(layout_of(view, name).sheet.headers),
            hint="this is the table without labels; take GT-final_test.csv from GTSRB_Final_Test_GT.zip",
        )
    yield from table_rows(layout_of(view, name))


def _test_image(view: View, table: str, path: str) -> str:
    """Where a test image lies, relative to its table: beside it, in `Images`, or where the benchmark unpacks to."""
    folder = posixpath.dirname(table)
    for where in ("", "Images", "Final_Test/Images", "GTSRB/Final_Test/Images"):
        if view.tree.exists(view.full(posixpath.join(folder, where, path))):
            return posixpath.join(where, path)
    return path


def _class_of(view: View, table: str, row: TableRow) -> str:
    number = as_integer(row.label)
    if number is None or number < 0:
        raise DataError(f"{view.label(table)} line {row.line}: ClassId must be a number", received=repr(row.label))
    return str(number)


def _unlisted(view: View, tables: list[str], listed: int) -> list[str]:
    if view.single:
        return []
    folders = {posixpath.dirname(name) for name in tables}
    extra = sum(is_image_name(name) and posixpath.dirname(name) in folders for name in view.names) - listed
    if extra <= 0:
        return []
    return [f"{plural(extra, 'image')} beside the training tables, in none of them, {were(extra)} ignored"]


def is_kaggle(view: View) -> bool:
    """Whether there is `Train/<class>/<class>_<track>_<frame>.png`, or a table with `Path`, `ClassId` and `Roi.X1`."""
    return bool(_train_folders(view) or _kaggle_tables(view))


def _train_folders(view: View) -> list[str]:
    if view.single:
        return []
    found = {
        name.partition("/")[0]
        for name in view.names
        if name[:6].lower() == "train/"
        and name.count("/") == 2
        and name.split("/")[1].isdecimal()
        and _KAGGLE_FRAME.fullmatch(name)
    }
    return sorted(found)


def _kaggle_tables(view: View) -> list[str]:
    """`Train.csv` and `Test.csv`; not `Meta.csv`, which lists one pictogram a class."""
    candidates = [name for name in view.names if name.lower() in ("train.csv", "test.csv") and not view.kind]
    return [
        name
        for name in candidates
        if {"path", "classid", "roi.x1"} <= {header.lower() for header in layout_of(view, name).sheet.headers}
    ]


def read_kaggle(view: View) -> Dataset:
    """Kaggle's copy: tracks from the file names, the test labels from `Test.csv`; lower-case twins of the folders count once."""
    by_name = {name.lower(): name for name in reversed(_kaggle_tables(view))}
    folders = _train_folders(view)
    train, test = by_name.get("train.csv"), by_name.get("test.csv")
    both = bool(test and (folders or train))
    rows, paths = DatasetBuilder(), list[str]()
    found = Found(view)
    if folders:
        for name in view.names:
            if name.startswith(folders[0] + "/") and is_image_name(name) and name.count("/") == 2:
                label = name.split("/")[1]
                _add_frame(rows, name, str(as_integer(label)) if label.isdecimal() else label, TRAIN if both else NO_SPLIT)
                paths.append(view.full(name))
    for table, split in ((None if folders else train, TRAIN), (test, TEST)):
        for row in table_rows(layout_of(view, table)) if table else ():
            if found.add(table or "", row, path=_respelt(view, row.path)):
                _add_frame(rows, row.path, _class_of(view, table or "", row), split if both else NO_SPLIT)
    found.check()
    notes = [*(f"{twin}/ ignored: it is a copy of {folders[0]}/" for twin in folders[1:]), *found.notes()]
    if not test and any(name[:5].lower() == "test/" for name in view.names):
        notes.append("the images in Test/ have no Test.csv beside the folder and were ignored")
    files = [found.images().name(index) for index in range(len(found))]
    if view.on_disk and not folders:
        return rows.build(view.origin, found.images(), notes)
    inside = [view.full(name) for name in files] if view.on_disk else files
    return rows.build(view.origin, TreeImages(view.tree, paths + inside), notes)


def _add_frame(rows: DatasetBuilder, name: str, label: str, split: int) -> None:
    frame = _KAGGLE_FRAME.fullmatch(name)
    group: Hashable = (label, frame[2]) if frame else None
    rows.add(label, split=split, group=group)


def _respelt(view: View, path: str) -> str:
    """`Test/1.png` as it is there: some copies hold the folder in lower case only."""
    if not view.tree.exists(view.full(path)):
        other = path[:1].swapcase() + path[1:]
        if view.tree.exists(view.full(other)):
            return other
    return path
