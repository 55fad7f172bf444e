"""WebDataset: tar archives in which ``000.cls`` holds the label of ``000.jpg``."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from crossroads.data._words import plural
from crossroads.data.dataset import NO_SPLIT, Dataset, ImageSource
from crossroads.data.labels import Rows
from crossroads.data.readers._names import split_in
from crossroads.data.readers._view import TreeImages, View, is_image_name, suffix_of
from crossroads.data.readers.arrays import Joined
from crossroads.data.trees import Tree, open_archive
from crossroads.errors import DataError

_LONGEST_LABEL = 1000


def has_labels(view: View) -> bool:
    """Whether images lie beside files of their labels, or in archives in which they do."""
    if view.single:
        return False
    return _is_shard(view.names) if view.images else bool(_shards(view)) and _is_shard(_opened(view, _shards(view)[0]).names())


def _is_shard(names: Sequence[str]) -> bool:
    return any(name.endswith(".cls") for name in names)


def _shards(view: View) -> list[str]:
    return [name for name in view.names if suffix_of(name) == ".tar"]


def _opened(view: View, name: str) -> Tree:
    return open_archive(view.span(name), "tar", view.label(name))


def read_shards(view: View) -> Dataset:
    """One archive, or a folder of them with the split in their names (``train-000.tar``)."""
    if view.images:
        parts: list[tuple[Tree, list[str], int]] = [(view.tree, [view.full(name) for name in view.names], NO_SPLIT)]
    else:
        splits = [split_in(posixpath.splitext(posixpath.basename(name))[0]) for name in _shards(view)]
        several = None not in splits and len(set(splits)) > 1
        trees = [_opened(view, name) for name in _shards(view)]
        parts = [(tree, tree.names(), split if several and split else NO_SPLIT) for tree, split in zip(trees, splits, strict=True)]
    rows, sources, left_out = Rows(), list[ImageSource](), 0
    for tree, names, split in parts:
        labels = {_key(name): name for name in names if name.endswith(".cls")}
        images = [name for name in names if is_image_name(name)]
        labelled = [name for name in images if _key(name) in labels]
        left_out += len(images) - len(labelled)
        for name in labelled:
            rows.add(_label(tree, labels[_key(name)]), split=split)
        if labelled:
            sources.append(TreeImages(tree, labelled))
    notes = [f"{plural(left_out, 'image')} without a .cls file left out"] if left_out else []
    return rows.dataset(view.origin, sources[0] if len(sources) == 1 else Joined(sources), notes)


def _key(name: str) -> str:
    """What the files of one sample have in common: the name up to its first dot."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _label(tree: Tree, name: str) -> str:
    text = tree.span(name).read(0, _LONGEST_LABEL).decode("utf-8", "replace").strip()
    if not text:
        raise DataError(f"{name} in {tree.origin} must hold a label", received="nothing")
    return text
