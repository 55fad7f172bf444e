"""Reads split folders: ``train``, ``val``, ``test`` or similar, which hold class folders or tables."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping, Set

from crossroads.data.dataset import SPLITS, TRAIN, Dataset
from crossroads.data.labels import class_name
from crossroads.data.readers._folder_names import split_of
from crossroads.data.readers._folder_notes import (
    artwork_ignored,
    classes_listed,
    copy_ignored,
    empty_folders,
    files_ignored,
    images_outside,
    is_unlikely_class,
    unlikely_classes,
)
from crossroads.data.readers._folder_refusals import refuse_other_than_classes
from crossroads.data.readers._labelled import LabelledImages
from crossroads.data.readers._listing import Listing
from crossroads.data.readers._sources import FileImages
from crossroads.data.readers._table_reading import Reading, not_in_table, reading
from crossroads.data.readers._tables import label_tables
from crossroads.data.readers._top_folders import has_classes_in_splits, opened, top_splits
from crossroads.data.readers.class_folders import read_class_folders
from crossroads.errors import DataError
from crossroads.files.text import natural_key, plural, were
from crossroads.progress import Note


def recognises(listing: Listing) -> bool:
    """Returns whether folders named after splits hold class folders, or tables that label their images."""
    if listing.single:
        return False
    return has_classes_in_splits(listing) or any(label_tables(listing.inside(top)) for top in top_splits(listing))


def read(listing: Listing) -> Dataset:
    """Returns the data set. Classes of different splits are matched by name."""
    labelled = read_split_folders(listing)
    notes = files_ignored(listing, labelled.used_tables)
    return labelled.dataset(listing.origin, FileImages(labelled.names, listing.tree), notes)


def read_split_folders(listing: Listing) -> LabelledImages:
    """Returns the images of all split folders with their labels.

    Raises:
        DataError: Another split has no class in common with train, or the layout of a split folder is ambiguous.
    """
    splits, copies = _without_copies(listing)
    parts = {top: _read_part(listing, top) for top in splits}
    result = LabelledImages(notes=[copy_ignored(copy, original) for copy, original in copies.items()])
    if not parts:
        return result
    counts = {top: Counter(map(class_name, part.labels)) for top, part in parts.items()}
    result.notes += _unusual_names(splits, counts)
    training_classes = set().union(*(counts[top] for top, split in splits.items() if split == TRAIN))
    for top, part in parts.items():
        unlabelled = _unlabelled_folders(splits[top], counts[top], training_classes)
        for name, label, group in zip(part.names, part.labels, part.groups, strict=True):
            if class_name(label) not in unlabelled:
                result.add(name, label, splits[top], group)
        result.labelled_by_table |= part.labelled_by_table
        result.used_tables |= part.used_tables
        result.notes += part.notes
        for label in unlabelled:
            count, folder = counts[top].pop(label), f"{listing.full(top)}/{label}"
            text = f"{plural(count, 'image')} in {folder} {were(count)} ignored: {label!r} is not a training class"
            result.notes.append(Note(text, "not-a-training-class", count=count, folder=folder))
        if not part.names:
            count, folder = listing.branches[top].images, listing.full(top)
            text = f"{plural(count, 'image')} in {folder}/ {were(count)} ignored: there are no class folders and no table of labels"
            result.notes.append(Note(text, "folder-without-labels", count=count, folder=folder))
    result.notes += _images_outside(listing, {*splits, *copies}, set().union(*counts.values()))
    result.notes += unlikely_classes(dict.fromkeys(result.labels))
    result.notes += _missing_classes(listing, splits, counts)
    _refuse_unrelated_splits(listing, splits, counts)
    return result


def _without_copies(listing: Listing) -> tuple[dict[str, int], dict[str, str]]:
    """Returns the split of each split folder, and the folders that are only copies, each with its original.

    Some archives hold a folder `train` beside `Train` with the same files. The second one is a copy.
    """
    splits: dict[str, int] = {}
    copies: dict[str, str] = {}
    for folder, split in sorted(top_splits(listing).items(), key=lambda item: natural_key(item[0])):
        alike = (known for known in splits if known.lower() == folder.lower())
        original = next((known for known in alike if listing.inside(known).names == listing.inside(folder).names), None)
        if original is None:
            splits[folder] = split
        else:
            copies[folder] = original
    return splits, copies


def _read_part(listing: Listing, top: str) -> LabelledImages:
    """Returns the images of one split folder. Their labels come from class folders, or from a table in the folder or beside it.

    Class folders take precedence, unless a table in the folder labels all of its images. The result is empty if nothing labels the
    images.
    """
    inner, inside = listing.inside(top), opened(listing, top)
    if inside.branches and not _table_names_all(inner):
        refuse_other_than_classes(inside)
        part = read_class_folders(inside, whole=False)
        folder = listing.full(top)
        part.notes = [note.prefixed(f"in {folder}/: ", parent=folder) for note in (*artwork_ignored(inside), *part.notes)]
        return part
    if label_tables(inner):
        return _read_table_inside(inner, with_folders=bool(inside.branches))
    if label_tables(listing):
        return _read_table_beside(listing, f"{top}/")
    return LabelledImages()


def _table_names_all(listing: Listing) -> bool:
    """Returns whether the tables in a folder label each of its images."""
    try:
        if not label_tables(listing):
            return False
        images = reading(listing).images
        return len(set(images.rows.names)) == len(listing.images) and not images.missing
    except DataError:
        return False  # the class folders are then read, and a note lists the table as ignored


def _read_table_inside(listing: Listing, *, with_folders: bool) -> LabelledImages:
    """Returns the images of a split folder that the tables in it name."""
    table = reading(listing)
    part = _rows_below(table, listing, "")
    part.notes = [*table.notes, *table.images_left_out()]
    if with_folders:
        text = f"the folders in {listing.root} are not used as classes"
        part.notes.append(Note(text, "folders-not-classes", folder=listing.root))
    return part


def _read_table_beside(listing: Listing, folder: str) -> LabelledImages:
    """Returns the images of one split folder that the tables beside it name."""
    table = reading(listing)
    part = _rows_below(table, listing, folder)
    if not part.names:
        return part
    part.labelled_by_table = set(part.names)
    text = f"{folder} is labelled by {table.title}"
    part.notes = [*table.notes, Note(text, "folder-labelled-by-table", folder=folder, tables=table.title)]
    left_out = sum(name.startswith(folder) for name in listing.images) - len(part)
    if left_out:
        part.notes.append(not_in_table(left_out, listing.full(folder), table.title))
    return part


def _rows_below(table: Reading, listing: Listing, folder: str) -> LabelledImages:
    """Returns the rows whose images are in a folder. An empty name means the root."""
    part, rows = LabelledImages(), table.images.rows
    for path, label, group in zip(rows.names, rows.labels, rows.groups, strict=True):
        name = _name_in_tree(listing, path)
        if name.startswith(listing.full(folder)):
            part.add(name, label, group=group)
    if part.names:
        table.images.require_all()
        part.used_tables = {listing.full(each.name) for each in table.tables}
    return part


def _name_in_tree(listing: Listing, path: str) -> str:
    """Converts the path of an image in a table to its name in the tree."""
    name = posixpath.normpath(listing.full(path)) if listing.on_disk else path
    if path.startswith("/") or name.startswith("../"):
        raise DataError(
            f"a table in {listing.root} must name images of {listing.origin}",
            code="path-outside-folder",
            received=repr(path),
            hint="give the table itself, with a column split",
        )
    return name


def _unlabelled_folders(split: int, classes: Counter[str], training_classes: set[str]) -> list[str]:
    """Returns the folders of a split that hold images without labels rather than a class, such as ``test/unknown``."""
    if split == TRAIN or len(training_classes) < 2:
        return []
    unknown = [name for name in classes if name not in training_classes]
    return unknown if len(classes) == 1 else list(filter(is_unlikely_class, unknown))


def _unusual_names(splits: Mapping[str, int], counts: Mapping[str, Counter[str]]) -> list[Note]:
    """Returns a note on each split folder with an unusual name."""
    unusual = [(top, SPLITS[split]) for top, split in splits.items() if split_of(top) is None and counts[top]]
    return [Note(f"{top}/ is read as {split}", "folder-read-as-split", folder=top, split=split) for top, split in unusual]


def _images_outside(listing: Listing, read_or_copied: Set[str], classes: Set[str]) -> list[Note]:
    """Returns notes on images outside the split folders. Adds a hint if a folder holds the same class folders as a split."""
    notes = images_outside(listing.loose, "outside the split folders")
    for top, branch in listing.branches.items():
        if top in read_or_copied:
            continue
        like_split = len({class_name(name) for name in _folders_in(listing, top)} & classes) > 1
        count, folder = branch.images, listing.full(top)
        text = f"{plural(count, 'image')} in {folder}/ {were(count)} ignored: {folder} is not the name of a split"
        if like_split:
            text += "; if it is a split, rename it to train, val or test, or give it as the separate test set"
        notes.append(Note(text, "folder-not-a-split", count=count, folder=folder, like_split=like_split))
    return notes


def _missing_classes(listing: Listing, splits: Mapping[str, int], counts: Mapping[str, Counter[str]]) -> list[Note]:
    """Returns notes on classes without images in a split. Class indices are not affected, because classes are matched by name."""
    notes = []
    classes = sorted(set().union(*counts.values()), key=natural_key)
    per_split: dict[int, set[str]] = {}
    for folder, split in splits.items():
        per_split.setdefault(split, set()).update(counts[folder])
    for split in sorted(per_split):
        missing = [name for name in classes if name not in per_split[split]]
        if missing and per_split[split]:
            text = f"{SPLITS[split]} has no images of {classes_listed(missing)}"
            notes.append(Note(text, "class-missing-in-split", split=SPLITS[split], classes=missing))
    folders = sorted({label for top in splits for label in _folders_in(listing, top)}, key=natural_key)
    with_images = {name for top in splits for inside in [opened(listing, top)] for name in (*inside.branches, *inside.artwork)}
    return notes + empty_folders(folders, {*classes, *with_images})


def _folders_in(listing: Listing, top: str) -> list[str]:
    inside = opened(listing, top)
    return listing.folders(inside.root.removeprefix(listing.root))


def _refuse_unrelated_splits(listing: Listing, splits: Mapping[str, int], counts: Mapping[str, Counter[str]]) -> None:
    """Raises `DataError` if a split other than train has several classes and none of them is a training class."""
    training_classes = set().union(*(counts[top] for top, split in splits.items() if split == TRAIN))
    for top, split in splits.items():
        if training_classes and split != TRAIN and len(counts[top]) > 1 and not training_classes & set(counts[top]):
            raise DataError(
                f"train and {SPLITS[split]} of {listing.origin} must have classes in common",
                code="no-common-class",
                received=f"{classes_listed(sorted(training_classes))} in train and {classes_listed(sorted(counts[top]))} in {top}",
                hint="give both the same class folders, or give one of the folders alone",
            )
