"""Reads class folders such as ``ants/1.jpg``, where the folder is the class. Images in its subfolders belong to the class, too."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from crossroads.data.dataset import NO_SPLIT, Dataset
from crossroads.data.readers._folder_names import is_holder, is_overlay
from crossroads.data.readers._folder_notes import (
    classes_named_like_splits,
    empty_folders,
    files_ignored,
    images_outside,
    listed,
    unlikely_classes,
)
from crossroads.data.readers._folder_refusals import refuse_other_than_classes, splits_below_classes
from crossroads.data.readers._labelled import LabelledImages
from crossroads.data.readers._listed_splits import with_listed_splits
from crossroads.data.readers._listing import Listing
from crossroads.data.readers._sources import FileImages
from crossroads.files.text import plural, were
from crossroads.progress import Note


def recognises(listing: Listing) -> bool:
    """Returns whether several folders hold images and can be classes.

    Raises:
        DataError: The folders cannot be classes, or the layout can also be read in another way.
    """
    if listing.single or len(listing.branches) < 2:
        return False
    refuse_other_than_classes(listing)
    return True


def recognises_one(listing: Listing) -> bool:
    """Returns whether there is a single class folder. All other layouts are tried first, because it may be part of one of them.

    Raises:
        DataError: The folder cannot be a class, or the layout can also be read in another way.
    """
    if listing.single or not any(branch.direct for branch in listing.branches.values()):
        return False
    refuse_other_than_classes(listing)
    return True


def read(listing: Listing) -> Dataset:
    """Returns the data set. Lists such as ``meta/train.txt`` may give splits."""
    labelled = read_class_folders(listing)
    dataset = labelled.dataset(listing.origin, FileImages(labelled.names, listing.tree))
    dataset, lists = with_listed_splits(listing, dataset)
    return replace(dataset, notes=(*dataset.notes, *files_ignored(listing, lists)))


def read_class_folders(listing: Listing, *, whole: bool = True) -> LabelledImages:
    """Returns the images of class folders. If each class folder holds ``train/`` and ``test/``, these give the splits.

    Args:
        listing: The listing whose top folders are the classes.
        whole: Whether the folders are the whole data set, not one split of it. The result then also has notes on the names of the
            folders and on empty folders.
    """
    labelled = LabelledImages()
    splits = splits_below_classes(listing)
    with_holders = {top: any(map(is_holder, branch.inside)) for top, branch in listing.branches.items()}
    overlays, subfolders = 0, Counter[str]()
    for name in listing.images:
        label, slash, rest = name.partition("/")
        if not slash:
            continue
        subfolder = rest.partition("/")[0] if "/" in rest else ""
        if subfolder and with_holders[label] and is_overlay(subfolder):
            overlays += 1
            continue
        labelled.add(listing.full(name), label, splits.get(subfolder, NO_SPLIT))
        if subfolder and subfolder not in splits and not is_holder(subfolder):
            subfolders[subfolder] += 1
    labelled.notes += [*images_outside(listing.loose, "outside the class folders"), *_notes_inside(overlays, subfolders)]
    if whole:
        labelled.notes += classes_named_like_splits(listing)
        labelled.notes += unlikely_classes(listing.branches)
        labelled.notes += empty_folders(listing.folders(), [*listing.branches, *listing.artwork])
    return labelled


def _notes_inside(overlays: int, subfolders: Counter[str]) -> list[Note]:
    """Returns notes on masks that are ignored, and on subfolders that count as part of their class."""
    notes = []
    if overlays:
        text = f"{plural(overlays, 'image')} in folders of masks or annotations {were(overlays)} ignored"
        notes.append(Note(text, "masks-ignored", count=overlays))
    if subfolders:
        count, names = subfolders.total(), list(subfolders)
        place = f"{listed('subfolder', names)} of class folders"
        text = f"{plural(count, 'image')} in {place} {were(count)} counted as images of the class"
        notes.append(Note(text, "images-in-subfolders", count=count, folders=names))
    return notes
