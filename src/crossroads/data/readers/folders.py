"""Class folders."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from crossroads.data.dataset import NO_SPLIT, TEST, Dataset
from crossroads.data.labels import DatasetBuilder, class_name
from crossroads.data.readers._names import are_parts, is_holder, is_overlay, is_plain_split, is_unlabelled, split_in, words_of
from crossroads.data.readers._sheets import SHEETS
from crossroads.data.readers._tops import has_classes_in_splits, opened, split_tops, two_readings
from crossroads.data.readers._view import Branch, TreeImages, View, is_image_name, suffix_of, views
from crossroads.data.readers.others import hint_for
from crossroads.data.readers.tables import reading, tables
from crossroads.errors import DataError
from crossroads.files._words import plural, were

_STEM = re.compile(r"([^\W\d][\w .-]*?)[._ -]*\d+\.\w+$")
_MOST_LOOKED_INTO = 3
_SIMILAR = 3
_CAMERA = ("img", "image", "dsc", "dscn", "frame", "photo", "pic", "test", "train", "val")


@dataclass(slots=True)
class Labelled:
    """Images with their labels, as folders or tables say them, before they are a data set.

    Attributes:
        names: The images, relative to the root of the tree.
        labels: The label of each.
        splits: The split of each.
        groups: What each must share a split with, or None.
        notes: What is ignored, and how ambiguous parts were read.
        tables: The tables that were read.
        tabled: Images of split folders whose labels are those of a table beside the folder.
    """

    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    splits: list[int] = field(default_factory=list)
    groups: list[object] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tables: set[str] = field(default_factory=set)
    tabled: set[str] = field(default_factory=set)

    def add(self, name: str, label: str, split: int = NO_SPLIT, group: object = None) -> None:
        """One image."""
        self.names.append(name)
        self.labels.append(label)
        self.splits.append(split)
        self.groups.append(group)

    def dataset(self, view: View) -> Dataset:
        """The data set of these rows."""
        rows = DatasetBuilder()
        for label, split, group in zip(self.labels, self.splits, self.groups, strict=True):
            rows.add(label, split=split, group=group)
        return rows.build(view.origin, TreeImages(view.tree, self.names), self.notes)


def has_several_class_folders(view: View) -> bool:
    """Whether several folders hold images, and may be classes.

    Raises:
        DataError: They hold images and cannot be classes, or there is another way to read them.
    """
    if view.single or len(view.branches) < 2:
        return False
    refuse_other_than_classes(view)
    return True


def has_class_folder(view: View) -> bool:
    """Whether one folder holds images directly; a weaker sign, since a folder of pictures may lie beside other data."""
    if view.single or not any(branch.direct for branch in view.branches.values()):
        return False
    refuse_other_than_classes(view)
    return True


def read_class_folders(view: View) -> Dataset:
    """``ants/1.jpg``: the folder is the class; images deeper inside belong to it as well."""
    return class_folders(view).dataset(view)


def class_folders(view: View, *, whole: bool = True) -> Labelled:
    """The images of class folders; where each of them holds ``train/`` and ``test/``, with those splits.

    `whole` says whether the folders are all there is, so that notes on files of other kinds and on empty folders belong here.
    """
    found, other, overlays, deep = Labelled(), list[str](), 0, dict[str, int]()
    splits = _splits_below(view)
    with_images = {top: any(map(is_holder, branch.inside)) for top, branch in view.branches.items()}
    for name in view.names:
        label, inside, rest = name.partition("/")
        if not is_image_name(name):
            other.append(name)
        elif inside and label not in view.drawn:
            inner = rest.partition("/")[0] if "/" in rest else ""
            if inner and with_images[label] and is_overlay(inner):
                overlays += 1
                continue
            found.add(view.full(name), label, splits.get(inner, NO_SPLIT))
            if inner and inner not in splits and not is_holder(inner):
                deep[inner] = deep.get(inner, 0) + 1
    if view.loose:
        found.notes.append(f"{plural(view.loose, 'image')} outside the class folders {were(view.loose)} ignored")
    if overlays:
        found.notes.append(f"{plural(overlays, 'image')} in folders of masks or annotations {were(overlays)} ignored")
    if deep:
        inside = listed("subfolder", "subfolders", list(deep))
        found.notes.append(f"{plural(sum(deep.values()), 'image')} in {inside} of class folders: counted as images of the class")
    if whole:
        found.notes += _split_as_class(view)
        found.notes += odd_classes(view.branches)
        found.notes += empty_classes(view.folders(), [*view.branches, *view.drawn])
        found.notes += ignored(other)
    return found


def _splits_below(view: View) -> dict[str, int]:
    """The splits of ``<class>/train/`` and ``<class>/test/``, where every class folder holds nothing else; empty otherwise."""
    names = {name for branch in view.branches.values() for name in branch.inside}
    splits = {name: split for name in names if is_plain_split(name) and (split := split_in(name)) is not None}
    if len(splits) < len(names) or any(branch.direct for branch in view.branches.values()):
        return {}
    return splits if len(set(splits.values())) > 1 else {}


def refuse_other_than_classes(view: View) -> None:
    """Raise the DataError for top folders that are no classes, or that may be something else as well."""
    tops, splits = list(view.branches), split_tops(view)
    flat = [top for top in splits if not opened(view, top).branches]
    if flat and (len(flat) == len(tops) or len({splits[top] for top in flat}) > 1):
        raise _unlabelled(view, f"{_counted(view, tops)} with no class folders in {'it' if len(tops) == 1 else 'them'}")
    if all(is_holder(top) or is_overlay(top) for top in tops) and all(map(_is_flat, view.branches.values())):
        raise _unlabelled(view, _counted(view, tops))
    if are_parts(tops) and all(map(_is_flat, view.branches.values())):
        raise _unlabelled(view, f"{_counted(view, tops)}, which look like numbered parts of one set")
    _refuse_hidden_splits(view)
    _refuse_siblings(view)
    _refuse_tables_inside(view)


def _refuse_hidden_splits(view: View) -> None:
    """Folders beside each other of which one holds the splits, or is the flat test folder beside class folders."""
    tops, splits = list(view.branches), split_tops(view)
    for top in tops if len(tops) > 1 else ():
        if not _may_hold_splits(view, top):
            continue
        for level in views(view.inside(top)):
            if len(set(split_tops(level).values())) > 1 and has_classes_in_splits(level):
                raise two_readings(
                    view,
                    f"{listed('folder', 'folders', tops)} are the classes",
                    f"{level.root} holds the splits {', '.join(split_tops(level))}",
                    f"give {level.root} itself",
                )
    tests = [top for top, split in splits.items() if split == TEST and is_plain_split(top)]
    if tests and len(tests) < len(tops) and len(set(splits.values())) == 1 and not _are_two_arms(view):
        raise two_readings(
            view,
            f"{view.full(tests[0])}/ is the class {tests[0]!r}",
            "it holds images to predict",
            f"move {view.full(tests[0])}/ away, or rename it if it is a class",
        )


def _are_two_arms(view: View) -> bool:
    """Whether two flat folders of similar size may be classes of an experiment, such as ``test/`` and ``control/``.

    One class with images to predict would be no data set, so the folder `test` can only be the other class.
    """
    sizes = [branch.images for branch in view.branches.values()]
    return len(sizes) == 2 and all(map(_is_flat, view.branches.values())) and max(sizes) <= _SIMILAR * min(sizes)


def _split_as_class(view: View) -> list[str]:
    """A note on a class whose name is otherwise that of a split."""
    named = [top for top in view.branches if is_plain_split(top)] if len(view.branches) > 1 else []
    return [f"{top}/ is read as the class {top!r}, not as a split" for top in named]


def _may_hold_splits(view: View, top: str) -> bool:
    """Whether a folder holds folders of several splits, or one of its own name that may: told without looking into each folder."""
    inside = view.branches[top].inside
    return len({split_in(name) for name in inside} - {None}) > 1 or (
        len(inside) == 1 and not view.branches[top].direct and words_of(*inside) == words_of(top)
    )


def _is_flat(branch: Branch) -> bool:
    return all(is_holder(name) or is_overlay(name) for name in branch.inside)


def _refuse_siblings(view: View) -> None:
    """``a/cat, a/dog, b/cat, b/dog``: the classes may be a and b as well as cat and dog."""
    branches = list(view.branches.values())
    if len(branches) < 2 or any(branch.direct for branch in branches) or _splits_below(view):
        return
    inner = [{class_name(name) for name in branch.inside if not (is_holder(name) or is_overlay(name))} for branch in branches]
    every = set().union(*inner)
    common = {name for name, count in Counter(name for names in inner for name in names).items() if count > 1}
    if len(common) > 1 and 2 * len(common) > len(every):
        raise two_readings(
            view,
            f"{listed('folder', 'folders', list(view.branches))} are the classes",
            f"{listed('folder', 'folders', sorted(common))} in each of them are",
            "give one of the folders, or list the images in a CSV with the columns path and label; if they are splits, "
            "rename them to train/ and test/, or give one as DATA and the other as --test",
        )


def _refuse_tables_inside(view: View) -> None:
    """``a/1.jpg`` with ``a/labels.csv``: the labels may be those of the tables in the folders."""
    holding = {name.partition("/")[0] for name in view.names if name.count("/") == 1 and suffix_of(name) in SHEETS}
    for top in [top for top in view.branches if top in holding][:_MOST_LOOKED_INTO]:
        try:
            inside = tables(view.inside(top))
            labels = set(reading(view.inside(top)).labels) if inside else set()
        except DataError:
            continue  # no table of labels, whatever it is
        if labels - {top}:
            raise two_readings(
                view,
                f"{listed('folder', 'folders', list(view.branches))} are the classes",
                f"{view.full(top)}/{inside[0].name} gives the labels",
                f"give {view.full(top)}/{inside[0].name} itself, or move the tables away",
            )


def refuse_unlabelled(view: View) -> None:
    """Raise the clear error for a folder of images that nothing labels."""
    if view.loose and not view.branches:
        raise _unlabelled(view, f"{plural(view.loose, 'image')} side by side in one folder")


def _counted(view: View, tops: Sequence[str]) -> str:
    return ", ".join(f"{plural(view.branches[top].images, 'image')} in {view.full(top)}/" for top in tops[:4])


def _unlabelled(view: View, received: str) -> DataError:
    other = hint_for(view) or _in_names(view)
    hint = "put each class into a folder of its own, or add a CSV with the columns path and label"
    return DataError(
        f"the images of {view.origin} have no labels", received=received, hint=f"{other}, or {hint}" if other else hint
    )


def _in_names(view: View) -> str:
    """A word on labels that stand in the names of the files, as in ``cat.0.jpg``."""
    stems = (_STEM.match(name.rpartition("/")[2]) for name in islice(view.images, 0, None, max(1, len(view.images) // 1000)))
    words = Counter(match[1].strip("._- ") for match in stems if match)
    found = [word for word, count in words.items() if word and count > 1 and word.lower() not in _CAMERA]
    if not 2 <= len(found) <= len(view.images) // 3:
        return ""
    return (
        f"the names of the files may hold the labels ({', '.join(sorted(found)[:4])}): move the files into folders of these names"
    )


def drawings(view: View) -> list[str]:
    """A note on each folder of nothing but icons, drawings and the like, which is not a class."""
    return [
        f"{plural(count, 'image')} in {view.full(top)}/ ignored: only formats such as icons and drawings, so it is not a class"
        for top, count in view.drawn.items()
    ]


def is_odd(name: str) -> bool:
    """Whether a folder's name says that its images have no class: ``images``, ``masks``, ``unlabeled``."""
    return is_holder(name) or is_overlay(name) or is_unlabelled(name)


def odd_classes(names: Iterable[str]) -> list[str]:
    """A note on classes whose names say that they are none."""
    odd = list(filter(is_odd, names))
    return [f"{listed('folder', 'folders', odd)} read as a class; move it if its images have no label"] if odd else []


def empty_classes(folders: Sequence[str], with_images: Iterable[str]) -> list[str]:
    """A note on folders without images."""
    taken = set(map(class_name, with_images))
    names = [folder for folder in folders if class_name(folder) not in taken]
    if not names:
        return []
    what = "has no images and is not a class" if len(names) == 1 else "have no images and are not classes"
    return [f"{listed('folder', 'folders', names)} {what}"]


def listed(one: str, many: str, names: Sequence[str]) -> str:
    """``class 'a'``, ``classes 'a', 'b' and 3 more``."""
    shown = ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"{one if len(names) == 1 else many} {shown}"


def ignored(other: Sequence[str]) -> list[str]:
    """A note on files that are no images."""
    return [f"{plural(len(other), 'file')} without an image suffix ignored, such as {other[0]}"] if other else []
