"""Tables beside class folders: which of the two labels the images, decided on what both say of the same images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from crossroads.data._words import plural
from crossroads.data.dataset import NO_SPLIT, SPLITS, TRAIN, Dataset
from crossroads.data.labels import as_integer, class_name
from crossroads.data.readers import folders, split_folders, tables
from crossroads.data.readers._found import Found
from crossroads.data.readers._names import split_in
from crossroads.data.readers._view import View, views
from crossroads.data.readers.folders import Labelled
from crossroads.data.readers.tables import Reading
from crossroads.errors import DataError

_NEARLY_ALL = 0.95


def table_wins(view: View) -> bool:
    """Whether tables label the images of a view. Where they do not, and name some, the notes say so.

    Tables win where folders are no classes; where both agree and the tables bring splits, groups or more images; and where they say
    other labels for nearly every image of each folder that they touch. Folders win where both agree otherwise.

    Raises:
        DataError: The two disagree, and neither is clearly the better.
    """
    if view.single:
        return bool(tables.tables(view))
    if not tables.tables(view):
        _look_at_unlabelled(view)
        return False
    by_folder = _by_folders(view)
    try:
        reading = tables.reading(view)
    except DataError as error:
        if by_folder is None:
            raise
        view.notes.append(f"{_names(view)} not read, but the folders: {error.rule}; received {error.received}")
        return False
    if by_folder is None:
        return True
    return _better(view, reading, by_folder)


def _by_folders(view: View) -> Labelled | None:
    """What class folders or split folders say, or None where there are none that can be read."""
    try:
        for level in views(view):
            if split_folders.has_split_folders(level):
                return split_folders.split_folders(level)
        for level in views(view):
            if folders.has_several_class_folders(level):
                return folders.class_folders(level)
    except DataError:
        pass  # said when the folders are read, where they are
    return None


def _better(view: View, reading: Reading, by_folder: Labelled) -> bool:
    """Whether the table is the better of two readings of the same images."""
    prefix = view.root if view.on_disk else ""
    table = {prefix + path: class_name(label) for path, label in zip(reading.found.paths, reading.labels, strict=True)}
    labelled = zip(by_folder.names, map(class_name, by_folder.labels), strict=True)
    folder = {name: label for name, label in labelled if name not in by_folder.tabled}
    both = table.keys() & folder.keys()
    if by_folder.tabled and not both:
        return False  # the folders are read, and those of them without classes by the table
    named = f"{reading.title} names {len(both)} of the {len(folder)} images in class folders"
    numbers = _number_folders({(table[name], folder[name]) for name in both})
    if numbers or all(table[name] == folder[name] for name in both):
        brings = any(reading.splits) or any(group is not None for group in reading.groups) or len(table) > len(folder)
        if brings and not reading.found.missing and 2 * len(both) > len(folder):
            if numbers:
                reading.rename(numbers)
            return True
        missing = f" and {plural(reading.found.missing, 'file')} that are not found" if reading.found.missing else ""
        view.notes.append(f"{named}{missing}: not read; the labels are the folders")
        return False
    if len(both) == len(folder) or _fills_its_folders(both, folder):
        labels = folders.listed("folder", "folders", list(dict.fromkeys(folder.values())))
        reading.notes.append(f"the labels are those of {reading.title}; {labels} are not taken as classes")
        return True
    name = next(name for name in by_folder.names if name in both and table[name] != folder[name])
    raise DataError(
        f"the images of {view.origin} must have their labels from one place",
        received=f"two: {named}, such as {name} as {table[name]!r}; its folder says {folder[name]!r}",
        mend=f"give {reading.tables[0].name} itself to read the table, or move it away to read the folders",
    )


def _number_folders(pairs: set[tuple[str, str]]) -> dict[str, str]:
    """The folder that each label of a table stands for, where the labels are numbers and each is that of one folder; else none."""
    numbers = dict(pairs)
    one_to_one = len(numbers) == len(pairs) == len(set(numbers.values()))
    counted = all(as_integer(label) is not None for label in numbers)
    return numbers if one_to_one and counted and any(label != name for label, name in pairs) else {}


def _fills_its_folders(named: set[str], folder: dict[str, str]) -> bool:
    """Whether a table names nearly all images of every class folder of which it names any."""
    touched, every = Counter(folder[name] for name in named), Counter(folder.values())
    return all(count >= _NEARLY_ALL * every[label] for label, count in touched.items())


def _names(view: View) -> str:
    return ", ".join(view.label(table.name) for table in tables.tables(view)[:3])


def _look_at_unlabelled(view: View) -> None:
    """Tables that name images and have no column of labels are said where something else labels the images.

    Raises:
        DataError: Nothing else does.
    """
    found = [table for table in tables.unlabelled_tables(view) if not _is_split_list(table)]
    puzzling = [table for table in found if not table.only_paths]
    if puzzling and _by_folders(view) is None:
        next(tables.table_rows(puzzling[0]))
    view.notes.extend(f"{view.label(table.name)} names images and has no column of labels: not read" for table in found[:3])


def _is_split_list(table: tables.Table) -> bool:
    return table.only_paths and split_in(table.name) is not None


def with_listed_splits(levels: Sequence[View], dataset: Dataset) -> Dataset:
    """A data set of class folders with the splits that lists say (``meta/train.txt``), where these name each image once."""
    found = ((view, list(filter(_is_split_list, tables.unlabelled_tables(view)))) for view in levels if not view.single)
    view, lists = next((pair for pair in found if pair[1]), (levels[0], []))
    if not lists or dataset.splits is not None:
        return dataset
    title = ", ".join(view.label(table.name) for table in lists[:3]) + (", …" if len(lists) > 3 else "")
    side = _listed_sides(view, lists)
    prefix = view.root if view.on_disk else ""
    names = [dataset.name(row) for row in range(len(dataset))]
    sides = [] if side is None else [side.get(name.removeprefix(prefix), NO_SPLIT) for name in names]
    if not sides or NO_SPLIT in sides or TRAIN not in sides:
        return replace(dataset, notes=(*dataset.notes, f"{title} not read: the lists do not put each image into one split"))
    counts = ", ".join(f"{count} {SPLITS[split]}" for split, count in sorted(Counter(sides).items()))
    return replace(dataset, splits=np.array(sides, np.uint8), notes=(*dataset.notes, f"splits are those of {title}: {counts}"))


def _listed_sides(view: View, lists: list[tables.Table]) -> dict[str, int] | None:
    """The split of each image that lists name, or None where two lists disagree."""
    found, files = dict[str, int](), Found(view).files
    for table in lists:
        split = split_in(table.name) or NO_SPLIT
        for line, fields in table.sheet.rows():
            place, there = files.find(table.name, line, fields[0].strip(), split)
            if there and found.setdefault(place, split) != split:
                return None
    return found
