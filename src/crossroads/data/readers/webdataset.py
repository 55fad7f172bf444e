"""Reads WebDataset: tar archives in which ``000.cls`` holds the label of ``000.jpg``."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from crossroads.data.dataset import NO_SPLIT, Dataset, ImageSource
from crossroads.data.labels import labelled_dataset
from crossroads.data.readers._folder_names import split_in, stem_of
from crossroads.data.readers._folder_notes import not_images
from crossroads.data.readers._listing import Listing, is_image_name, suffix_of
from crossroads.data.readers._sources import FileImages, joined
from crossroads.errors import DataError
from crossroads.files.byte_ranges import ByteRange
from crossroads.files.text import plural, were
from crossroads.files.trees import Folder, Tree, open_archive
from crossroads.progress import Note

_LABEL = ".cls"
_MAX_LABEL_BYTES = 1000


def recognises(listing: Listing) -> bool:
    """Returns whether most images have a label file beside them, or the first tar archive holds label files."""
    if listing.single:
        return False
    if listing.images:
        return _mostly_labelled(listing.names)
    shards = _shards(listing)
    return bool(shards) and any(name.endswith(_LABEL) for name in _open_shard(listing, shards[0]).names())


def _mostly_labelled(names: Sequence[str]) -> bool:
    """Returns whether most images have a label file. A lone .cls file may be something else, such as a LaTeX class."""
    labels = {_key(name) for name in names if name.endswith(_LABEL)}
    keys = {_key(name) for name in names if is_image_name(name)}
    return bool(labels) and 2 * len(keys & labels) > len(keys)


def _shards(listing: Listing) -> list[str]:
    return [name for name in listing.names if suffix_of(name) == ".tar"]


def _open_shard(listing: Listing, name: str) -> Tree:
    """Opens one tar archive. A file on disk is not kept open, because there may be thousands of them."""
    tree = listing.tree
    file = (
        ByteRange.from_path(tree.path_of(listing.full(name)), on_demand=True)
        if isinstance(tree, Folder)
        else listing.byte_range(name)
    )
    return open_archive(file, "tar", listing.label(name))


def read(listing: Listing) -> Dataset:
    """Returns the data set of one archive, or of a folder of archives whose names may give the split (``train-000.tar``)."""
    labels_read, splits, sources, others = list[str](), list[int](), list[ImageSource](), list[str]()
    unlabelled = further = 0
    for tree, names, split in _parts(listing):
        labels = {_key(name): name for name in names if name.endswith(_LABEL)}
        images = [name for name in names if is_image_name(name)]
        others += [name for name in names if not is_image_name(name) and not name.endswith(_LABEL)]
        with_label = [name for name in images if _key(name) in labels]
        chosen = _one_per_sample(with_label)
        unlabelled += len(images) - len(with_label)
        further += len(with_label) - len(chosen)
        labels_read += [_read_label(tree, labels[_key(name)]) for name in chosen]
        splits += [split] * len(chosen)
        if chosen:
            sources.append(FileImages(chosen, tree))
    if not sources:
        raise DataError(
            f"no image of {listing.origin} has a {_LABEL} file with its label",
            code="no-labels",
            received=plural(unlabelled, "image"),
            hint="a sample is 000.jpg with 000.cls",
        )
    notes = []
    if unlabelled:
        text = f"{plural(unlabelled, 'image')} without a {_LABEL} file {were(unlabelled)} ignored"
        notes.append(Note(text, "images-without-label", count=unlabelled))
    if further:
        text = f"{plural(further, 'further image')} of samples {were(further)} ignored: one image of each sample is read"
        notes.append(Note(text, "further-images-ignored", count=further))
    return labelled_dataset(listing.origin, joined(sources), labels_read, splits, notes=[*notes, *not_images(others)])


def _parts(listing: Listing) -> list[tuple[Tree, Sequence[str], int]]:
    """Returns each archive with the names of its files and its split."""
    if listing.images:
        return [(listing.tree, [listing.full(name) for name in listing.names], NO_SPLIT)]
    shards = _shards(listing)
    splits = [split_in(stem_of(name)) or NO_SPLIT for name in shards]
    if NO_SPLIT in splits or len(set(splits)) < 2:
        splits = [NO_SPLIT] * len(shards)
    trees = [_open_shard(listing, name) for name in shards]
    return [(tree, tree.names(), split) for tree, split in zip(trees, splits, strict=True)]


def _one_per_sample(names: Sequence[str]) -> list[str]:
    """Returns one image for each sample, in order. Prefers ``000.jpg`` to ``000.seg.png``, which has a second suffix."""
    chosen: dict[str, str] = {}
    for name in names:
        key = _key(name)
        is_plain, chosen_is_plain = (posixpath.basename(each).count(".") == 1 for each in (name, chosen.get(key, "")))
        if key not in chosen or (is_plain and not chosen_is_plain):
            chosen[key] = name
    return list(chosen.values())


def _key(name: str) -> str:
    """Returns the key of a sample: the name of any of its files up to the first dot."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _read_label(tree: Tree, name: str) -> str:
    label = tree.byte_range(name).read(0, _MAX_LABEL_BYTES).decode("utf-8", "replace").strip()
    if not label:
        rule, hint = f"{name} in {tree.origin} must hold a label", "label the image or leave it out"
        raise DataError(rule, code="empty-label", received="nothing", hint=hint)
    return label
