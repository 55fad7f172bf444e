"""Reads Kaggle's copy of GTSRB: ``Train/<class>/<class>_<track>_<frame>.png`` and ``Test.csv``. Tracks become groups."""

from __future__ import annotations

import re
from collections.abc import Iterator

from crossroads.data.dataset import NO_SPLIT, TEST, TRAIN, Dataset
from crossroads.data.labels import as_integer
from crossroads.data.readers._folder_notes import copy_ignored, files_ignored
from crossroads.data.readers._listing import Listing, is_image_name
from crossroads.data.readers._table_images import TableImages, TableRow
from crossroads.data.readers._tables import table_of, table_rows
from crossroads.data.readers.gtsrb import class_of
from crossroads.progress import Note

_FRAME = re.compile(r"(?:.*/)?(\d{5})_(\d{5})_\d{5}\.\w+")
_TABLES = ("train.csv", "test.csv", "meta.csv")
_HEADERS = {"path", "classid", "roi.x1"}


def recognises(listing: Listing) -> bool:
    """Returns whether there are images ``Train/<class>/<class>_<track>_<frame>.png`` or a table with Kaggle's columns."""
    return bool(_train_folders(listing) or _tables(listing))


def _train_folders(listing: Listing) -> list[str]:
    """Returns the folders of training images. This is `Train`, and in some archives also a copy called `train`."""
    if listing.single:
        return []
    paths = (name.split("/") for name in listing.names if name[:6].lower() == "train/" and _FRAME.fullmatch(name))
    return sorted({path[0] for path in paths if len(path) == 3 and path[1].isdecimal()})


def _tables(listing: Listing) -> dict[str, str]:
    """Returns `Train.csv` and `Test.csv`, if they exist, by their names in lower case.

    `Meta.csv` is left out, because it lists one pictogram per class.
    """
    names = [name for name in reversed(listing.names) if name.lower() in ("train.csv", "test.csv") and not listing.kind]
    return {name.lower(): name for name in names if set(map(str.lower, table_of(listing, name).sheet.headers)) >= _HEADERS}


def read(listing: Listing) -> Dataset:
    """Returns the data set. The file names give the tracks, and `Test.csv` gives the labels of the test images."""
    tables, folders = _tables(listing), _train_folders(listing)
    train, test = tables.get("train.csv"), tables.get("test.csv")
    has_both = bool(test and (folders or train))
    images = TableImages(listing)
    for row in _frames(listing, folders[0], TRAIN if has_both else NO_SPLIT) if folders else ():
        images.add("", row)
    for table, split in ((None if folders else train, TRAIN), (test, TEST)):
        for row in table_rows(table_of(listing, table)) if table else ():
            label = class_of(listing, table or "", row)
            labelled = row._replace(label=label, split=split if has_both else NO_SPLIT, group=_track(row.path, label))
            images.add(table or "", labelled, path=_existing(listing, row.path))
    notes = [*(copy_ignored(copy, folders[0]) for copy in folders[1:]), *images.repeated_notes()]
    if not test and any(name[:5].lower() == "test/" for name in listing.names):
        text = "the images in Test/ were ignored: there is no Test.csv beside the folder"
        notes.append(Note(text, "table-missing", table="Test.csv"))
    used = {listing.full(name) for name in listing.top_files if name.lower() in _TABLES}
    return images.dataset([*notes, *files_ignored(listing, used)])


def _frames(listing: Listing, folder: str, split: int) -> Iterator[TableRow]:
    """Yields the training images of a folder as rows of a table."""
    for name in listing.names:
        if name.startswith(folder + "/") and is_image_name(name) and name.count("/") == 2:
            class_folder = name.split("/")[1]
            label = str(as_integer(class_folder)) if class_folder.isdecimal() else class_folder
            yield TableRow(0, name, label, split, _track(name, label))


def _track(name: str, label: str) -> tuple[str, str] | None:
    frame = _FRAME.fullmatch(name)
    return (label, frame[2]) if frame else None


def _existing(listing: Listing, path: str) -> str:
    """Returns a path such as `Test/1.png` as it is spelled on disk. Some copies have the folder only in lower case."""
    if not listing.tree.exists(listing.full(path)):
        other = path[:1].swapcase() + path[1:]
        if listing.tree.exists(listing.full(other)):
            return other
    return path
