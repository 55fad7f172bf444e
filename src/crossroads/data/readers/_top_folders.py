"""Decides which top folders are splits, from their names, the names beside them, and their contents."""

from __future__ import annotations

from crossroads.data.dataset import SPLITS
from crossroads.data.labels import class_name
from crossroads.data.readers._folder_names import is_holder, is_plain_split, specific_words, split_in, split_of, words_of
from crossroads.data.readers._listing import Listing, once_per_listing
from crossroads.errors import DataError


@once_per_listing
def top_splits(listing: Listing) -> dict[str, int]:
    """Returns the top folders that are named after splits, with their splits.

    Names such as ``train``, ``Train Data`` and ``imgs_train`` can only mean a split. ``seg_train`` contains another word. It is a
    split if a folder of another split has the same word (``seg_test``) or holds folders with the same names. A class may therefore
    be called `train station`.
    """
    candidates = {top: split for top in listing.branches if (split := split_in(top)) is not None}
    return {top: split for top, split in candidates.items() if is_plain_split(top) or _has_counterpart(listing, top, candidates)}


def _has_counterpart(listing: Listing, top: str, candidates: dict[str, int]) -> bool:
    """Returns whether a folder of another split has the same other words in its name, or class folders with the same names."""
    classes = _classes(listing, top)
    for other, split in candidates.items():
        if split == candidates[top]:
            continue
        if specific_words(other) == specific_words(top):
            return True
        other_classes = _classes(listing, other)
        common = classes & other_classes
        if len(common) > 1 and 2 * len(common) > min(len(classes), len(other_classes)):
            return True
    return False


def _classes(listing: Listing, top: str) -> set[str]:
    return set(map(class_name, opened(listing, top).branches))


def opened(listing: Listing, top: str) -> Listing:
    """Returns the contents of a split folder, inside folders that only wrap them (``seg_train/seg_train/``, ``val/images/``)."""
    inner, around = listing.inside(top), top
    while len(inner.branches) == 1 and not inner.loose:
        (name,) = inner.branches
        same_split = is_plain_split(name) and split_in(name) == split_in(top)
        if not (words_of(name) == words_of(around) or is_holder(name) or same_split):
            break
        inner, around = inner.inside(name), name
    return inner


def has_classes_in_splits(listing: Listing) -> bool:
    """Returns whether top folders named after splits hold class folders.

    A folder `train` that holds images rather than folders may be a class.

    Raises:
        DataError: A folder is named after a split but may also be a class, because the folders beside it hold folders too.
    """
    if listing.single:
        return False
    splits = top_splits(listing)
    with_folders = [top for top in splits if opened(listing, top).branches]
    if len(listing.branches) == 1 and split_of(*listing.branches) is None:
        return False  # the folder only wraps the classes or the splits, such as `training_data`
    others = {top: branch for top, branch in listing.branches.items() if top not in splits}
    if not with_folders or not others or len(set(splits.values())) > 1:
        return bool(with_folders)
    top = with_folders[0]
    inner = _classes(listing, top)
    if any(len(inner & set(map(class_name, branch.inside))) > 1 for branch in others.values()):
        return True
    if all(branch.direct for branch in others.values()):
        return len(others) == 1 and len(inner) > 1
    raise two_readings(
        listing,
        f"{top}/ is the split {SPLITS[splits[top]]} and the folders in it are the classes",
        f"{', '.join(list(listing.branches)[:4])} are the classes",
        f"give {listing.full(top)} alone, or rename it if it is a class",
    )


class AmbiguousLayout(DataError):
    """The error for a layout that can be read in two ways."""


def two_readings(listing: Listing, first: str, second: str, hint: str) -> AmbiguousLayout:
    """Returns the error for a layout that can be read in two ways."""
    return AmbiguousLayout(f"the layout of {listing.origin} is ambiguous: {first}; or {second}", code="ambiguous-layout", hint=hint)
