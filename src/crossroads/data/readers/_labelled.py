"""Collects labelled images as columns, from which a data set is then built."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from crossroads.data.dataset import NO_SPLIT, Dataset, ImageSource
from crossroads.data.labels import labelled_dataset
from crossroads.progress import Note


@dataclass(slots=True)
class LabelledImages:
    """Labelled images, with one entry per image in each column.

    Attributes:
        names: The name of each image in a tree, or the path that a table gives.
        labels: The label of each image.
        splits: The split of each image, as an index into `SPLITS`.
        groups: The group of each image. None for an image that is in no group with others.
        notes: Notes on what is ignored and on how ambiguous parts are read.
        used_tables: The names of the tables that were read.
        labelled_by_table: The images whose labels come from a table beside their split folder, which has no class folders.
    """

    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    splits: list[int] = field(default_factory=list)
    groups: list[Hashable] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    used_tables: set[str] = field(default_factory=set)
    labelled_by_table: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.names)

    def add(self, name: str, label: str, split: int = NO_SPLIT, group: Hashable = None) -> None:
        self.names.append(name)
        self.labels.append(label)
        self.splits.append(split)
        self.groups.append(group)

    def dataset(self, origin: str, images: ImageSource, notes: Iterable[Note] = ()) -> Dataset:
        """Returns the data set of these rows.

        Args:
            origin: Name of the data in messages.
            images: One image for each row.
            notes: Further notes, which come after those of the rows.
        """
        return labelled_dataset(origin, images, self.labels, self.splits, self.groups, (*self.notes, *notes))
