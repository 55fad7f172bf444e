"""Reads lists of paths that give the splits of class folders, such as ``meta/train.txt``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from crossroads.data.dataset import NO_SPLIT, SPLITS, TRAIN, Dataset
from crossroads.data.readers._folder_names import split_in
from crossroads.data.readers._image_lookup import image_lookup
from crossroads.data.readers._listing import Listing
from crossroads.data.readers._table_reading import titled
from crossroads.data.readers._tables import Table, unlabelled_tables
from crossroads.progress import Note

_MAX_TITLE = 3


def is_split_list(table: Table) -> bool:
    """Returns whether a table contains only image paths and is named after a split."""
    return table.only_paths and split_in(table.name) is not None


def with_listed_splits(listing: Listing, dataset: Dataset) -> tuple[Dataset, frozenset[str]]:
    """Adds the splits from lists to a data set of class folders. Also returns the names of the lists that were used.

    The lists may be in the class folders, beside them or above them. They are used only if each image is in exactly one of them.
    """
    levels = [level for level in listing.outermost().levels() if not level.single]
    lists_by_level = ((level, list(filter(is_split_list, unlabelled_tables(level)))) for level in levels)
    level, lists = next(((level, lists) for level, lists in lists_by_level if lists), (listing, []))
    if not lists or dataset.splits is not None:
        return dataset, frozenset()
    title = titled(level, lists, _MAX_TITLE)
    listed = _listed_splits(level, lists)
    prefix = level.root if level.on_disk else ""
    splits = [listed.get(dataset.name(row).removeprefix(prefix), NO_SPLIT) for row in range(len(dataset))] if listed else []
    if NO_SPLIT in splits or TRAIN not in splits:
        text = f"the split lists {title} are ignored: they do not assign each image to exactly one split"
        return replace(dataset, notes=(*dataset.notes, Note(text, "split-lists-ignored", lists=title))), frozenset()
    counts = {SPLITS[split]: count for split, count in sorted(Counter(splits).items())}
    text = f"splits are those of {title}: {', '.join(f'{count} {split}' for split, count in counts.items())}"
    note = Note(text, "splits-from-lists", lists=title, counts=counts)
    used = frozenset(level.full(table.name) for table in lists)
    return replace(dataset, splits=np.array(splits, np.uint8), notes=(*dataset.notes, note)), used


def _listed_splits(listing: Listing, lists: Sequence[Table]) -> dict[str, int] | None:
    """Returns the split of each listed image, or None if an image is in the lists of two splits."""
    splits, lookup = dict[str, int](), image_lookup(listing)
    for table in lists:
        split = split_in(table.name) or NO_SPLIT
        for line, fields in table.sheet.rows():
            place, exists = lookup.find(table.name, line, fields[0].strip(), split)
            if exists and splits.setdefault(place, split) != split:
                return None
    return splits
