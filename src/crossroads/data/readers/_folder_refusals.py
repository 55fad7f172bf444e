"""Refuses folders that cannot be classes, or whose layout can also be read in another way."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from crossroads.data.dataset import TEST
from crossroads.data.labels import class_name
from crossroads.data.readers._folder_names import are_parts, is_holder, is_overlay, is_plain_split, split_in, words_of
from crossroads.data.readers._folder_notes import listed
from crossroads.data.readers._listing import Branch, Listing, suffix_of
from crossroads.data.readers._sheets import SHEETS
from crossroads.data.readers._table_reading import reading
from crossroads.data.readers._tables import label_tables
from crossroads.data.readers._top_folders import has_classes_in_splits, opened, top_splits, two_readings
from crossroads.data.readers.unsupported import unsupported_hint
from crossroads.errors import DataError, option
from crossroads.files.text import plural

_LABEL_IN_NAME = re.compile(r"([^\W\d][\w .-]*?)[._ -]*\d+\.\w+$")
_CAMERA_NAMES = ("img", "image", "dsc", "dscn", "frame", "photo", "pic", "test", "train", "val")
_MAX_FOLDERS_SEARCHED = 3
_SIMILAR_SIZES = 3


def refuse_other_than_classes(listing: Listing) -> None:
    """Checks that the top folders can only be classes.

    Raises:
        DataError: The folders cannot be classes, or the layout can also be read in another way.
    """
    tops, splits = list(listing.branches), top_splits(listing)
    flat_splits = [top for top in splits if not opened(listing, top).branches]
    all_flat = all(map(_is_flat, listing.branches.values()))
    if flat_splits and (len(flat_splits) == len(tops) or len({splits[top] for top in flat_splits}) > 1):
        raise _no_labels(listing, f"{_counts(listing, tops)} with no class folders in {'it' if len(tops) == 1 else 'them'}")
    if all_flat and all(is_holder(top) or is_overlay(top) for top in tops):
        raise _no_labels(listing, _counts(listing, tops))
    if all_flat and are_parts(tops):
        raise _no_labels(listing, f"{_counts(listing, tops)}, which look like numbered parts of one set")
    _refuse_splits_inside(listing)
    _refuse_test_folder(listing)
    _refuse_equal_subfolders(listing)
    _refuse_tables_inside(listing)


def refuse_flat_images(listing: Listing) -> None:
    """Raises `DataError` if all images are in one folder without labels."""
    if listing.loose and not listing.branches:
        raise _no_labels(listing, f"{plural(listing.loose, 'image')} side by side in one folder")


def splits_below_classes(listing: Listing) -> dict[str, int]:
    """Returns the splits of ``<class>/train/`` and ``<class>/test/``, if the class folders hold only such folders."""
    names = {name for branch in listing.branches.values() for name in branch.inside}
    splits = {name: split for name in names if is_plain_split(name) and (split := split_in(name)) is not None}
    if len(splits) < len(names) or any(branch.direct for branch in listing.branches.values()):
        return {}
    return splits if len(set(splits.values())) > 1 else {}


def _refuse_splits_inside(listing: Listing) -> None:
    """Refuses several top folders if one of them holds the splits of the data set."""
    tops = list(listing.branches)
    for top in tops if len(tops) > 1 else ():
        if not _may_hold_splits(listing, top):
            continue
        for level in listing.inside(top).levels():
            if len(set(top_splits(level).values())) > 1 and has_classes_in_splits(level):
                raise two_readings(
                    listing,
                    f"{listed('folder', tops)} are the classes",
                    f"{level.root} holds the splits {', '.join(top_splits(level))}",
                    f"give {level.root} itself",
                )


def _may_hold_splits(listing: Listing, top: str) -> bool:
    """Returns whether a folder holds folders of several splits, or only one folder with its own name. Does not look deeper."""
    branch = listing.branches[top]
    if len({split_in(name) for name in branch.inside} - {None}) > 1:
        return True
    return len(branch.inside) == 1 and not branch.direct and words_of(*branch.inside) == words_of(top)


def _refuse_test_folder(listing: Listing) -> None:
    """Refuses a folder `test` beside class folders, because it may be a class or hold images to predict."""
    splits = top_splits(listing)
    tests = [top for top, split in splits.items() if split == TEST and is_plain_split(top)]
    if tests and len(tests) < len(listing.branches) and len(set(splits.values())) == 1 and not _are_test_and_control(listing):
        folder = listing.full(tests[0])
        raise two_readings(
            listing,
            f"{folder}/ is the class {tests[0]!r}",
            "it holds images to predict",
            f"move {folder}/ away, or rename it if it is a class",
        )


def _are_test_and_control(listing: Listing) -> bool:
    """Returns whether there are two flat folders of similar size, such as ``test/`` and ``control/`` of an experiment.

    The folder `test` must then be a class. The other folder alone would be a data set with a single class.
    """
    sizes = [branch.images for branch in listing.branches.values()]
    return len(sizes) == 2 and all(map(_is_flat, listing.branches.values())) and max(sizes) <= _SIMILAR_SIZES * min(sizes)


def _is_flat(branch: Branch) -> bool:
    return all(is_holder(name) or is_overlay(name) for name in branch.inside)


def _refuse_equal_subfolders(listing: Listing) -> None:
    """Refuses folders such as ``a/cat, a/dog, b/cat, b/dog``. The classes could be a and b, or cat and dog."""
    branches = list(listing.branches.values())
    if len(branches) < 2 or any(branch.direct for branch in branches) or splits_below_classes(listing):
        return
    inner = [{class_name(name) for name in branch.inside if not (is_holder(name) or is_overlay(name))} for branch in branches]
    counts = Counter(name for names in inner for name in names)
    common = {name for name, count in counts.items() if count > 1}
    if len(common) > 1 and 2 * len(common) > len(counts):
        raise two_readings(
            listing,
            f"{listed('folder', list(listing.branches))} are the classes",
            f"{listed('folder', sorted(common))} in each of them are the classes",
            f"if they are splits, rename them to train/ and test/, or give one as {option('data')} and the other as "
            f"{option('test')}; otherwise give one of them, or list the images in a CSV with the columns path and label",
        )


def _refuse_tables_inside(listing: Listing) -> None:
    """Refuses folders that hold both images and a table of other labels, such as ``a/1.jpg`` and ``a/labels.csv``."""
    with_tables = {name.partition("/")[0] for name in listing.names if name.count("/") == 1 and suffix_of(name) in SHEETS}
    for top in [top for top in listing.branches if top in with_tables][:_MAX_FOLDERS_SEARCHED]:
        try:
            tables = label_tables(listing.inside(top))
            labels = set(reading(listing.inside(top)).labels) if tables else set()
        except DataError:
            continue  # not a table of labels
        if labels - {top}:
            table = f"{listing.full(top)}/{tables[0].name}"
            raise two_readings(
                listing,
                f"{listed('folder', list(listing.branches))} are the classes",
                f"{table} gives the labels",
                f"give {table} itself, or move the tables away",
            )


def _counts(listing: Listing, tops: Sequence[str]) -> str:
    return ", ".join(f"{plural(listing.branches[top].images, 'image')} in {listing.full(top)}/" for top in tops[:4])


def _no_labels(listing: Listing, received: str) -> DataError:
    specific = unsupported_hint(listing) or _labels_in_names(listing)
    hint = "put each class into a folder of its own, or add a CSV with the columns path and label"
    hint = f"{specific}, or {hint}" if specific else hint
    return DataError(f"the images of {listing.origin} have no labels", code="no-labels", received=received, hint=hint)


def _labels_in_names(listing: Listing) -> str:
    """Returns a hint if file names such as ``cat.0.jpg`` seem to contain labels. Otherwise returns an empty string."""
    every = max(1, len(listing.images) // 1000)
    matches = (_LABEL_IN_NAME.match(name.rpartition("/")[2]) for name in islice(listing.images, 0, None, every))
    words = Counter(match[1].strip("._- ") for match in matches if match)
    labels = [word for word, count in words.items() if word and count > 1 and word.lower() not in _CAMERA_NAMES]
    if not 2 <= len(labels) <= len(listing.images) // 3:
        return ""
    shown = ", ".join(sorted(labels)[:4])
    return f"the names of the files may hold the labels ({shown}): move the files into folders of these names"
