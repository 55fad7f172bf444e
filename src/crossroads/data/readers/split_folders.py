"""Split folders: class folders or tables below ``train``, ``val`` and ``test``, however these are called."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping, Set

from crossroads.data.dataset import SPLITS, TRAIN, Dataset
from crossroads.data.labels import class_name
from crossroads.data.readers import _top_folders as _tops
from crossroads.data.readers._folder_names import is_usual_split
from crossroads.data.readers._listing import View, is_image_name
from crossroads.data.readers._tables import Reading, reading, tables
from crossroads.data.readers._top_folders import opened, split_tops
from crossroads.data.readers.class_folders import (
    Labelled,
    class_folders,
    drawings,
    empty_classes,
    ignored,
    is_odd,
    listed,
    odd_classes,
    refuse_other_than_classes,
)  # fmt: skip
from crossroads.errors import DataError
from crossroads.files.text import natural_key, plural, were


def has_split_folders(view: View) -> bool:
    """Whether folders named after splits hold class folders, or a table each that labels their images."""
    if view.single:
        return False
    return _tops.has_classes_in_splits(view) or any(map(_tables_in, (view.inside(top) for top in split_tops(view))))


def _tables_in(view: View) -> bool:
    return bool(tables(view))


def read_split_folders(view: View) -> Dataset:
    """``train/ants/1.jpg``, or ``train/1.jpg`` with ``train/labels.csv``: the classes of all splits united by name."""
    return split_folders(view).dataset(view)


def split_folders(view: View) -> Labelled:
    """The images of all split folders with their labels.

    Raises:
        DataError: Two splits have no class in common, or one of them is ambiguous.
    """
    splits, twins, notes = _without_twins(view)
    parts = {top: _part(view, top) for top in splits}
    if not parts:
        return Labelled()
    seen = {top: Counter(map(class_name, part.labels)) for top, part in parts.items()}
    found = Labelled(notes=notes)
    found.notes += [f"{top}/ is read as {SPLITS[split]}" for top, split in splits.items() if not is_usual_split(top) and seen[top]]
    trained = set().union(*(seen[top] for top, split in splits.items() if split == TRAIN))
    for top, part in parts.items():
        found.notes += part.notes
        stray = _unlabelled(splits[top], seen[top], trained)
        for name, label, group in zip(part.names, part.labels, part.groups, strict=True):
            if class_name(label) not in stray:
                found.add(name, label, splits[top], group)
        found.tabled.update(part.tabled)
        for label in stray:
            count = plural(seen[top].pop(label), "image")
            found.notes.append(f"{count} in {view.full(top)}/{label} ignored: {label!r} is not a training class")
        if not part.names:
            count = plural(view.branches[top].images, "image")
            found.notes.append(f"{count} in {view.full(top)}/ ignored: no class folders in it, and no table of labels")
    found.notes += _outside(view, splits, twins, set().union(*seen.values()))
    found.notes += odd_classes(dict.fromkeys(found.labels))
    found.notes += _missing_classes(view, splits, seen)
    read = set().union(*(part.tables for part in parts.values()))
    found.notes += ignored([name for name in view.names if not is_image_name(name) and view.full(name) not in read])
    _refuse_strangers(view, splits, seen)
    return found


def _part(view: View, top: str) -> Labelled:
    """What one split folder holds: class folders, or images that a table labels; nothing where its images have no labels.

    The table lies in the folder or beside it. Class folders win over one that does not name all images of the folder.
    """
    inner, inside = view.inside(top), opened(view, top)
    if inside.branches and not _names_all(inner):
        refuse_other_than_classes(inside)
        found = class_folders(inside, whole=False)
        found.notes = [f"in {view.full(top)}/: {note}" for note in (*drawings(inside), *found.notes)]
        return found
    if tables(inner):
        found = _by_table(reading(inner), inner, "")
        if inside.branches:
            found.notes.append(f"the folders in {view.full(top)}/ are not used as classes")
        return found
    if tables(view):
        return _by_table(reading(view), view, f"{top}/")
    return Labelled()


def _names_all(view: View) -> bool:
    """Whether the tables in a folder label each of its images."""
    try:
        return bool(tables(view)) and len(set(reading(view).found.paths)) == len(view.images) and not reading(view).found.missing
    except DataError:
        return False  # the class folders are read, and the table is noted among the ignored files


def _by_table(table: Reading, view: View, folder: str) -> Labelled:
    """The images of one folder of a view that its tables name; all of them where the tables lie in the folder itself."""
    found = Labelled()
    for row, path in enumerate(table.found.paths):
        name = _in_tree(view, path)
        if name.startswith(view.full(folder)):
            found.add(name, table.labels[row], group=table.groups[row])
    if found.names:
        table.found.check()
    if not folder:
        found.notes = [*table.notes, *table.left_out()]
    elif found.names:
        found.tabled = set(found.names)
        left_out = sum(name.startswith(folder) for name in view.images) - len(found.names)
        found.notes = [*table.notes, f"{folder} is labelled by {table.title}"]
        if left_out:
            count = plural(left_out, "image")
            found.notes.append(f"{count} in {view.full(folder)} ignored: not in {table.title}")
    if found.names:
        found.tables = {view.full(each.name) for each in table.tables}
    return found


def _in_tree(view: View, path: str) -> str:
    """The name in the tree of an image that a table of a split folder names."""
    whole = posixpath.normpath(view.full(path)) if view.on_disk else path
    if path.startswith("/") or whole.startswith("../"):
        raise DataError(
            f"a table in {view.root} must name images of {view.origin}",
            received=repr(path),
            hint="give the table itself, with a column split",
        )
    return whole


def _outside(view: View, splits: Mapping[str, int], twins: set[str], classes: Set[str]) -> list[str]:
    """Notes on images that lie in no split folder, with a hint where a folder holds class folders as the splits do."""
    notes = [f"{plural(view.loose, 'image')} outside the split folders {were(view.loose)} ignored"] if view.loose else []
    for top, branch in view.branches.items():
        if top not in splits and top not in twins:
            note = f"{plural(branch.images, 'image')} in {view.full(top)}/ ignored: its name is not a split"
            inside = {class_name(name) for name in _folders_of_classes(view, top)}
            alike = len(inside & classes) > 1
            notes.append(f"{note}; if it is one, rename it to train, val or test, or give it as --test" if alike else note)
    return notes


def _without_twins(view: View) -> tuple[dict[str, int], set[str], list[str]]:
    """Split folders to splits, and their twins: `train` beside a `Train` with the same files in it counts once."""
    splits: dict[str, int] = {}
    twins, notes = set(), []
    for folder, split in sorted(split_tops(view).items(), key=lambda item: natural_key(item[0])):
        alike = (known for known in splits if known.lower() == folder.lower())
        twin = next((known for known in alike if view.inside(known).names == view.inside(folder).names), None)
        if twin is None:
            splits[folder] = split
        else:
            twins.add(folder)
            notes.append(f"{folder}/ ignored: it holds the same files as {twin}/")
    return splits, twins, notes


def _unlabelled(split: int, classes: Counter[str], trained: set[str]) -> list[str]:
    """The folders of a split that are no classes but hold images without labels, such as ``test/unknown``."""
    strange = [name for name in classes if name not in trained]
    if split == TRAIN or len(trained) < 2:
        return []
    return strange if len(classes) == 1 else list(filter(is_odd, strange))


def _missing_classes(view: View, splits: Mapping[str, int], seen: Mapping[str, Counter[str]]) -> list[str]:
    """A class without images in a split is said; it never shifts an index, because classes go by name."""
    notes = []
    classes = sorted(set().union(*seen.values()), key=natural_key)
    per_split: dict[int, set[str]] = {}
    for folder, split in splits.items():
        per_split.setdefault(split, set()).update(seen[folder])
    for split in sorted(per_split):
        missing = [name for name in classes if name not in per_split[split]]
        if missing and per_split[split]:
            notes.append(f"no images in {SPLITS[split]} of {listed('class', 'classes', missing)}")
    everywhere = {label for top in splits for label in _folders_of_classes(view, top)}
    notes += empty_classes(sorted(everywhere, key=natural_key), {*classes, *_with_images(view, splits)})
    return notes


def _folders_of_classes(view: View, top: str) -> list[str]:
    inside = opened(view, top)
    return view.folders(inside.root.removeprefix(view.root))


def _with_images(view: View, splits: Mapping[str, int]) -> set[str]:
    return {name for top in splits for inside in [opened(view, top)] for name in (*inside.branches, *inside.drawn)}


def _refuse_strangers(view: View, splits: Mapping[str, int], seen: Mapping[str, Counter[str]]) -> None:
    """Raise DataError where another split has several classes and none of those of the training images."""
    trained = set().union(*(seen[top] for top, split in splits.items() if split == TRAIN))
    for top, split in splits.items():
        if trained and split != TRAIN and len(seen[top]) > 1 and not trained & set(seen[top]):
            raise DataError(
                f"train and {SPLITS[split]} of {view.origin} must have classes in common",
                received=" and ".join(
                    f"{listed('class', 'classes', sorted(names))} in {where}"
                    for names, where in ((trained, "train"), (seen[top], top))
                ),
                hint="give both the same class folders, or give one of the folders alone",
            )
