"""Class folders, and split folders of class folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from crossroads.data.dataset import NO_SPLIT, SPLITS, Dataset
from crossroads.data.labels import Rows, natural_key
from crossroads.data.readers._view import TreeImages, View, is_image_name, split_of
from crossroads.errors import DataError


def has_split_folders(view: View) -> bool:
    """Whether a folder named after a split holds class folders; a class may be called `train` too, but holds images itself."""
    if view.single:
        return False
    inside = {
        top for name in view.names if name.count("/") >= 2 and is_image_name(name) and split_of(top := name.partition("/")[0])
    }
    return bool(inside)


def has_several_class_folders(view: View) -> bool:
    """Whether several folders hold images."""
    return not view.single and len(view.top_folders) > 1


def has_class_folder(view: View) -> bool:
    """Whether one folder holds images directly; a weaker sign, since a folder of pictures may lie beside other data."""
    return not view.single and any(name.count("/") == 1 and is_image_name(name) for name in view.names)


def read_split_folders(view: View) -> Dataset:
    """``train/ants/1.jpg``: the classes of all splits united by name."""
    splits, twins, notes = _split_folders(view)
    rows, paths, seen = Rows(), [], {folder: Counter[str]() for folder in splits}
    loose: Counter[str] = Counter()
    other: list[str] = []
    for name in view.names:
        top, _, rest = name.partition("/")
        label, inside, _ = rest.partition("/")
        if not is_image_name(name):
            other.append(name)
        elif top in twins:
            continue
        elif top not in splits or not inside:
            loose[top if rest else "."] += 1
        else:
            rows.add(label, split=splits[top])
            paths.append(view.full(name))
            seen[top][label] += 1
    notes += [
        f"{count} image{'s' if count > 1 else ''} in {top} lie outside the class folders of the splits: left out"
        for top, count in loose.items()
    ]
    notes += _missing_classes(view, splits, seen)
    notes += _ignored(other)
    return rows.dataset(view.origin, TreeImages(view.tree, paths), notes)


def _split_folders(view: View) -> tuple[dict[str, int], set[str], list[str]]:
    """Split folders to splits, and their twins: `train` beside a `Train` with the same files in it counts once."""
    files: dict[str, list[str]] = {}
    for name in view.names:
        top, _, rest = name.partition("/")
        if rest and split_of(top) is not None:
            files.setdefault(top, []).append(rest)
    splits: dict[str, int] = {}
    twins, notes = set(), []
    for folder in sorted(files, key=natural_key):
        twin = next((known for known in splits if known.lower() == folder.lower() and files[known] == files[folder]), None)
        if twin is None:
            splits[folder] = split_of(folder) or NO_SPLIT
        else:
            twins.add(folder)
            notes.append(f"{folder}/ holds the same files as {twin}/: read once")
    return splits, twins, notes


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
            notes.append(f"no images in {SPLITS[split]} of {_listed('class', 'classes', missing)}")
    everywhere = {label for folder in splits for label in view.folders(folder + "/")}
    notes += _empty_classes(sorted(everywhere - set(classes), key=natural_key))
    return notes


def read_class_folders(view: View) -> Dataset:
    """``ants/1.jpg``: the folder is the class; images deeper inside belong to it as well."""
    rows, paths, other, loose, deep = Rows(), [], [], 0, 0
    for name in view.names:
        label, inside, rest = name.partition("/")
        if not is_image_name(name):
            other.append(name)
        elif not inside:
            loose += 1
        else:
            rows.add(label)
            paths.append(view.full(name))
            deep += "/" in rest
    notes = []
    if loose:
        notes.append(f"{loose} image{'s' if loose > 1 else ''} beside the class folders: left out")
    if deep:
        notes.append(f"{deep} image{'s' if deep > 1 else ''} in subfolders of a class folder: taken as images of that class")
    with_images = set(view.top_folders)
    notes += _empty_classes([folder for folder in view.folders() if folder not in with_images])
    notes += _ignored(other)
    return rows.dataset(view.origin, TreeImages(view.tree, paths), notes)


def _empty_classes(names: list[str]) -> list[str]:
    return [f"no images at all in {_listed('folder', 'folders', names)}: not taken as a class"] if names else []


def _listed(one: str, many: str, names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"{one if len(names) == 1 else many} {shown}"


def _ignored(other: list[str]) -> list[str]:
    if not other:
        return []
    return [f"{len(other)} file{'s' if len(other) > 1 else ''} without an image suffix left out, such as {other[0]}"]


def refuse_unlabelled(view: View) -> None:
    """Raise the clear error for a folder of images that nothing labels."""
    if view.names and all("/" not in name for name in view.names if is_image_name(name)) and any(map(is_image_name, view.names)):
        count = sum(map(is_image_name, view.names))
        raise DataError(
            f"the images of {view.origin} have no labels",
            received=f"{count} image{'s' if count > 1 else ''} side by side in one folder",
            mend="put each class into a folder of its own, or add a CSV with the columns path and label",
        )
