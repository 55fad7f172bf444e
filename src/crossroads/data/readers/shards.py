"""WebDataset: tar archives in which ``000.cls`` holds the label of ``000.jpg``."""

from __future__ import annotations

from collections.abc import Sequence

from crossroads.data.dataset import NO_SPLIT, Dataset, ImageSource
from crossroads.data.labels import DatasetBuilder
from crossroads.data.readers._names import split_in, stem_of
from crossroads.data.readers._view import TreeImages, View, is_image_name, suffix_of
from crossroads.data.readers.arrays import Joined
from crossroads.errors import DataError
from crossroads.files._words import plural
from crossroads.files.byte_ranges import Span
from crossroads.files.trees import Folder, Tree, open_archive

_LABEL = ".cls"
_LONGEST_LABEL = 1000


def has_labels(view: View) -> bool:
    """Whether most images lie beside files of their labels, or archives hold such files."""
    if view.single:
        return False
    if view.images:
        return _is_labelled(view.names)
    return bool(_shards(view)) and any(name.endswith(_LABEL) for name in _opened(view, _shards(view)[0]).names())


def _is_labelled(names: Sequence[str]) -> bool:
    """Whether most images have a file with their label: one such file among others may be anything, such as a LaTeX class."""
    labels = {_key(name) for name in names if name.endswith(_LABEL)}
    if not labels:
        return False
    keys = {_key(name) for name in names if is_image_name(name)}
    return 2 * len(keys & labels) > len(keys)


def _shards(view: View) -> list[str]:
    return [name for name in view.names if suffix_of(name) == ".tar"]


def _opened(view: View, name: str) -> Tree:
    """One archive; on disk without keeping it open, because there may be thousands."""
    tree = view.tree
    span = Span.on_demand(tree.path_of(view.full(name))) if isinstance(tree, Folder) else view.span(name)
    return open_archive(span, "tar", view.label(name))


def read_shards(view: View) -> Dataset:
    """One archive, or a folder of them with the split in their names (``train-000.tar``)."""
    if view.images:
        parts: list[tuple[Tree, list[str], int]] = [(view.tree, [view.full(name) for name in view.names], NO_SPLIT)]
    else:
        splits = [split_in(stem_of(name)) for name in _shards(view)]
        several = None not in splits and len(set(splits)) > 1
        trees = [_opened(view, name) for name in _shards(view)]
        parts = [(tree, tree.names(), split if several and split else NO_SPLIT) for tree, split in zip(trees, splits, strict=True)]
    rows, sources, unlabelled, others = DatasetBuilder(), list[ImageSource](), 0, 0
    for tree, names, split in parts:
        labels = {_key(name): name for name in names if name.endswith(_LABEL)}
        images = [name for name in names if is_image_name(name)]
        labelled = _one_per_sample([name for name in images if _key(name) in labels])
        without = sum(_key(name) not in labels for name in images)
        unlabelled += without
        others += len(images) - without - len(labelled)
        for name in labelled:
            rows.add(_label(tree, labels[_key(name)]), split=split)
        if labelled:
            sources.append(TreeImages(tree, labelled))
    if not sources:
        raise DataError(
            f"no image of {view.origin} has a {_LABEL} file with its label",
            received=plural(unlabelled, "image"),
            hint="a sample is 000.jpg with 000.cls",
        )
    notes = [f"{plural(unlabelled, 'image')} without a {_LABEL} file ignored"] if unlabelled else []
    if others:
        notes.append(f"{plural(others, 'further image')} of samples ignored: the first of each sample is read")
    return rows.build(view.origin, sources[0] if len(sources) == 1 else Joined(sources), notes)


def _one_per_sample(names: Sequence[str]) -> list[str]:
    """One image per key, in the order of the keys: ``000.jpg`` before ``000.seg.png``."""
    chosen: dict[str, str] = {}
    for name in names:
        key = _key(name)
        if key not in chosen or (_is_plain(name) and not _is_plain(chosen[key])):
            chosen[key] = name
    return list(chosen.values())


def _is_plain(name: str) -> bool:
    return name.rpartition("/")[2].count(".") == 1


def _key(name: str) -> str:
    """What the files of one sample have in common: the name up to its first dot."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _label(tree: Tree, name: str) -> str:
    text = tree.span(name).read(0, _LONGEST_LABEL).decode("utf-8", "replace").strip()
    if not text:
        raise DataError(f"{name} in {tree.origin} must hold a label", received="nothing")
    return text
