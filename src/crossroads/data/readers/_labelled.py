"""Labelled images as columns, before they are a data set."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from crossroads.data.dataset import NO_SPLIT, Dataset, ImageSource
from crossroads.data.labels import labelled_dataset
from crossroads.progress import Note


@dataclass(slots=True)
class LabelledImages:
    """One row per image.

    Attributes:
        names: The images, by their names in a tree or by the paths that a table gives.
        labels: The label of each image.
        splits: The split of each image, an index into `SPLITS`.
        groups: The group of each image, or None for an image that stands alone.
        notes: What is ignored, and how ambiguous parts are read.
        used_tables: Tables that were read.
        labelled_by_table: Images of split folders that have no class folders; a table beside the folder gives the labels.
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
            origin: What the user gave.
            images: One image for each row.
            notes: Notes that follow the rows' own.
        """
        return labelled_dataset(origin, images, self.labels, self.splits, self.groups, (*self.notes, *notes))
