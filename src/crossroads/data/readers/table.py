"""Tables beside class folders: which of them labels the images, decided by comparing both for the same images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from crossroads.data.dataset import NO_SPLIT, SPLITS, TRAIN, Dataset
from crossroads.data.labels import as_integer, class_name
from crossroads.data.readers import _tables as tables
from crossroads.data.readers import class_folders as folders
from crossroads.data.readers import split_folders
from crossroads.data.readers._folder_names import split_in
from crossroads.data.readers._listing import View, views
from crossroads.data.readers._table_images import files_of
from crossroads.data.readers._tables import Reading
from crossroads.data.readers._top_folders import AmbiguousLayout
from crossroads.data.readers.class_folders import Labelled
from crossroads.errors import DataError
from crossroads.files.text import plural

_NEARLY_ALL = 0.95


def table_wins(view: View) -> bool:
    """Whether tables label the images of a view. Where they do not, and name some, the notes say so.

    Tables win where the folders are not classes; where both agree and the tables add splits, groups or more images; and where a
    column with the header of labels has entirely other classes for nearly every image of each folder that it touches. Class folders
    win where both agree otherwise, and over a column that is only guessed to be the label.

    Raises:
        DataError: The two disagree, and neither is clearly the better one.
    """
    if view.single:
        return bool(tables.tables(view))
    if not tables.tables(view):
        _look_at_unlabelled(view)
        return False
    by_folder, refusal = _by_folders(view)
    try:
        reading = tables.reading(view)
    except DataError as error:
        if by_folder is None:
            raise
        view.notes.append(f"labels are the class folders; {_names(view)} could not be read: {error}")
        return False
    if by_folder is None:
        if isinstance(refusal, AmbiguousLayout):
            reading.notes.append(f"the folders are not used as classes: {refusal.rule}")
        return True
    return _better(view, reading, by_folder)


def _by_folders(view: View) -> tuple[Labelled | None, DataError | None]:
    """What class folders or split folders say; None where there are none, or they are refused, with the refusal."""
    try:
        for level in views(view):
            if split_folders.has_split_folders(level):
                return split_folders.split_folders(level), None
        for level in views(view):
            if folders.has_several_class_folders(level):
                return folders.class_folders(level), None
    except DataError as error:
        return None, error
    return None, None


def _better(view: View, reading: Reading, by_folder: Labelled) -> bool:
    """Whether the table is the better of two readings of the same images."""
    prefix = view.root if view.on_disk else ""
    table = {prefix + path: class_name(label) for path, label in zip(reading.found.paths, reading.labels, strict=True)}
    labelled = zip(by_folder.names, map(class_name, by_folder.labels), strict=True)
    folder = {name: label for name, label in labelled if name not in by_folder.tabled}
    both = [name for name in by_folder.names if name in table and name in folder]
    if by_folder.tabled and not both:
        return False  # the class folders are read, and split folders without classes by the table
    named = f"{reading.title} names {len(both)} of the {len(folder)} images in class folders"
    numbers = _number_folders({(table[name], folder[name]) for name in both})
    differing = [] if numbers else [name for name in both if table[name] != folder[name]]
    if not differing:
        return _brings_more(view, reading, table, folder, both, numbers, named)
    if not _same_vocabulary(table, folder, both):
        if not _is_label_table(reading, [table[name] for name in both]):
            view.notes.append(f"{named}, and no column of labels is certain: ignored; the class folders give the labels")
            return False
        if len(both) == len(folder) or _fills_its_folders(both, folder):
            labels = folders.listed("folder", "folders", list(dict.fromkeys(folder.values())))
            reading.notes.append(f"the labels are those of {reading.title}; {labels} are not used as classes")
            return True
    example = f"{differing[0]} is {table[differing[0]]!r} in the table and {folder[differing[0]]!r} by its folder"
    raise DataError(
        f"{view.origin} has two conflicting sources of labels",
        received=f"{named}, and they disagree on {len(differing)} of them; {example}",
        hint=f"give {reading.tables[0].name} itself to read the table, or move it away to read the folders",
    )


def _brings_more(
    view: View,
    reading: Reading,
    table: dict[str, str],
    folder: dict[str, str],
    both: Sequence[str],
    numbers: dict[str, str],
    named: str,
) -> bool:
    """Whether a table that agrees with the folders has splits, groups or more images, and may be read.

    Raises:
        DataError: Its labels are the numbers of the folders, and a number has no folder.
    """
    brings = any(reading.splits) or any(group is not None for group in reading.groups) or len(table) > len(folder)
    if brings and not reading.found.missing and 2 * len(both) > len(folder):
        if numbers and (strange := next((name for name in table if table[name] not in numbers), None)) is not None:
            raise DataError(
                f"each number in {reading.title} must stand for a class folder",
                received=f"{table[strange]!r} of {strange}, for which there is no folder",
                hint="move the images with that number into a folder of their class, or remove their rows",
            )
        if numbers:
            reading.rename(numbers)
        return True
    missing = f" and {plural(reading.found.missing, 'file')} that are not found" if reading.found.missing else ""
    view.notes.append(f"{named}{missing}: ignored; the class folders give the labels")
    return False


def _same_vocabulary(table: dict[str, str], folder: dict[str, str], both: Sequence[str]) -> bool:
    """Whether a table and the folders use some of the same class names, so that neither can be something else than labels."""
    return bool({table[name].casefold() for name in both} & {label.casefold() for label in folder.values()})


def _is_label_table(reading: Reading, labels: Sequence[str]) -> bool:
    """Whether a header says which column is the label, and the images share its values as images share classes."""
    return all(table.columns.clear for table in reading.tables) and not tables.nearly_unique(labels)


def _number_folders(pairs: set[tuple[str, str]]) -> dict[str, str]:
    """The folder that each label of a table stands for, where the labels are numbers and each is that of one folder; else none."""
    numbers = dict(pairs)
    one_to_one = len(numbers) == len(pairs) == len(set(numbers.values()))
    counted = all(as_integer(label) is not None for label in numbers)
    return numbers if one_to_one and counted and any(label != name for label, name in pairs) else {}


def _fills_its_folders(named: Sequence[str], folder: dict[str, str]) -> bool:
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
    if puzzling and _by_folders(view)[0] is None:
        next(tables.table_rows(puzzling[0]))
    view.notes.extend(f"{view.label(table.name)} names images and has no column of labels: ignored" for table in found[:3])


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
        return replace(
            dataset, notes=(*dataset.notes, f"{title} ignored: the lists do not assign every image to exactly one split")
        )
    counts = ", ".join(f"{count} {SPLITS[split]}" for split, count in sorted(Counter(sides).items()))
    return replace(dataset, splits=np.array(sides, np.uint8), notes=(*dataset.notes, f"splits are those of {title}: {counts}"))


def _listed_sides(view: View, lists: list[tables.Table]) -> dict[str, int] | None:
    """The split of each image that lists name, or None where two lists disagree."""
    found, files = dict[str, int](), files_of(view)
    for table in lists:
        split = split_in(table.name) or NO_SPLIT
        for line, fields in table.sheet.rows():
            place, there = files.find(table.name, line, fields[0].strip(), split)
            if there and found.setdefault(place, split) != split:
                return None
    return found
