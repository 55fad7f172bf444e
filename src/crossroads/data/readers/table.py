"""Reads tables and lists of images with their labels, alone or beside class folders.

If class folders label the same images, `recognises` compares both. The table is read in each of these cases:

- The folders cannot be classes.
- Both agree, and the table adds splits, groups or images.
- Its header names the label, its labels have no name in common with the folders, and it labels nearly all images of each folder
  of which it labels any.

The folders are read if both agree and the table adds nothing. They are also read if the names differ and the label column of the
table is only a guess. Any other disagreement is an error.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from crossroads.data.dataset import Dataset
from crossroads.data.labels import as_integer, class_name
from crossroads.data.readers import class_folders, split_folders
from crossroads.data.readers._folder_notes import files_ignored, listed
from crossroads.data.readers._labelled import LabelledImages
from crossroads.data.readers._listed_splits import is_split_list
from crossroads.data.readers._listing import Listing
from crossroads.data.readers._table_reading import Reading, nearly_unique, reading, titled
from crossroads.data.readers._tables import label_tables, table_rows, unlabelled_tables
from crossroads.data.readers._top_folders import AmbiguousLayout
from crossroads.errors import DataError
from crossroads.files.text import plural
from crossroads.progress import Note

_NEARLY_ALL = 0.95
_MAX_NAMED = 3


def recognises(listing: Listing) -> bool:
    """Returns whether tables give the labels of the images. Adds a note on tables that name images but are not used.

    Raises:
        DataError: Tables and folders disagree, and neither is clearly the better source.
    """
    tables = label_tables(listing)
    if listing.single:
        return bool(tables)
    if not tables:
        _note_unlabelled_tables(listing)
        return False
    folders, refusal = _read_folders(listing)
    try:
        table = reading(listing)
    except DataError as error:
        if folders is None:
            raise
        names = titled(listing, tables, _MAX_NAMED)
        text = f"labels are the class folders; {names} could not be read: {error}"
        listing.notes.append(Note(text, "table-unreadable", tables=names, reason=error.code))
        return False
    if folders is not None:
        return _prefers_table(_Comparison.of(listing, table, folders))
    if isinstance(refusal, AmbiguousLayout):
        table.notes.append(Note(f"the folders are not used as classes: {refusal.rule}", "folders-not-classes"))
    return True


def read(listing: Listing) -> Dataset:
    """Returns the data set of one table, or of one table for each split (``train.csv``, ``test.csv``)."""
    table = reading(listing)
    dataset = table.dataset()
    used = {listing.full(each.name) for each in table.tables}
    return replace(dataset, notes=(*dataset.notes, *files_ignored(listing, used)))


def _read_folders(listing: Listing) -> tuple[LabelledImages | None, DataError | None]:
    """Reads class folders or split folders. If they are refused, returns None and the error."""
    try:
        for level in listing.levels():
            if split_folders.recognises(level):
                return split_folders.read_split_folders(level), None
        for level in listing.levels():
            if class_folders.recognises(level):
                return class_folders.read_class_folders(level), None
    except DataError as error:
        return None, error
    return None, None


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A comparison of a table and class folders that label images of the same listing.

    Attributes:
        listing: The listing.
        reading: The rows of the table.
        by_table: The label of each image in the table.
        by_folder: The label of each image in a class folder.
        common: The images that both label.
        has_tabled_splits: Whether the table gives the labels of split folders that have no class folders.
    """

    listing: Listing
    reading: Reading
    by_table: dict[str, str]
    by_folder: dict[str, str]
    common: list[str]
    has_tabled_splits: bool

    @classmethod
    def of(cls, listing: Listing, table: Reading, folders: LabelledImages) -> _Comparison:
        """Compares a table with folders. All image names are converted to names in the tree."""
        prefix = listing.root if listing.on_disk else ""
        by_table = {prefix + path: class_name(label) for path, label in zip(table.images.rows.names, table.labels, strict=True)}
        labelled = zip(folders.names, map(class_name, folders.labels), strict=True)
        by_folder = {name: label for name, label in labelled if name not in folders.labelled_by_table}
        common = [name for name in folders.names if name in by_table and name in by_folder]
        return cls(listing, table, by_table, by_folder, common, bool(folders.labelled_by_table))

    @property
    def coverage(self) -> str:
        """A phrase that says how many images of the class folders the table names."""
        return f"{self.reading.title} names {len(self.common)} of the {len(self.by_folder)} images in class folders"

    def note(self, text: str, code: str) -> Note:
        return Note(text, code, tables=self.reading.title, common=len(self.common), in_folders=len(self.by_folder))


def _prefers_table(both: _Comparison) -> bool:
    """Returns whether the table is the better source of labels."""
    if both.has_tabled_splits and not both.common:
        return False  # the table labels only split folders without class folders; reading those folders uses the table
    numbers = _numbers_to_folders({(both.by_table[name], both.by_folder[name]) for name in both.common})
    differing = [] if numbers else [name for name in both.common if both.by_table[name] != both.by_folder[name]]
    if not differing:
        return _adds_facts(both, numbers)
    labels = [both.by_table[name] for name in both.common]
    if {label.casefold() for label in labels}.isdisjoint(label.casefold() for label in both.by_folder.values()):
        # They share no class names, so only one of them gives labels. It is the table if its header names the label and several
        # images share each label.
        if not both.reading.clear or nearly_unique(labels):
            text = f"{both.coverage}, but no column is clearly the label; it is ignored and the class folders give the labels"
            both.listing.notes.append(both.note(text, "table-ignored"))
            return False
        if len(both.common) == len(both.by_folder) or _covers_its_folders(both):
            folders = listed("folder", list(dict.fromkeys(both.by_folder.values())))
            text = f"the labels are those of {both.reading.title}; {folders} are not used as classes"
            both.reading.notes.append(both.note(text, "folders-not-classes"))
            return True
    name = differing[0]
    example = f"{name} is {both.by_table[name]!r} in the table and {both.by_folder[name]!r} by its folder"
    raise DataError(
        f"{both.listing.origin} has two conflicting sources of labels",
        code="conflicting-labels",
        received=f"{both.coverage}, and they disagree on {len(differing)} of them; {example}",
        hint=f"give {both.reading.tables[0].name} itself to read the table, or move it away to read the folders",
    )


def _adds_facts(both: _Comparison, numbers: dict[str, str]) -> bool:
    """Returns whether a table that agrees with the folders adds splits, groups or images, and can be read.

    Raises:
        DataError: Its labels are numbers of class folders, but one number has no folder.
    """
    rows, missing = both.reading.images.rows, both.reading.images.missing
    adds = any(rows.splits) or any(group is not None for group in rows.groups) or len(both.by_table) > len(both.by_folder)
    if not adds or missing or 2 * len(both.common) <= len(both.by_folder):
        lost = f" and {plural(missing, 'file')} that {'does' if missing == 1 else 'do'} not exist" if missing else ""
        text = f"{both.coverage}{lost}; it is ignored and the class folders give the labels"
        both.listing.notes.append(both.note(text, "table-ignored"))
        return False
    if not numbers:
        return True
    unknown = next((name for name, label in both.by_table.items() if label not in numbers), None)
    if unknown is not None:
        raise DataError(
            f"each number in {both.reading.title} must mean a class folder",
            code="number-without-folder",
            received=f"{both.by_table[unknown]!r} for {unknown}, which has no folder",
            hint="move the images with that number into a folder of their class, or remove their rows",
        )
    both.reading.rename(numbers)
    return True


def _numbers_to_folders(pairs: set[tuple[str, str]]) -> dict[str, str]:
    """Returns the folder that each number in a table stands for. Empty unless numbers and folders correspond one to one.

    ``{("0", "cat"), ("1", "dog")}`` gives ``{"0": "cat", "1": "dog"}``. If the numbers are the names of the folders, the result is
    empty as well.
    """
    numbers = dict(pairs)
    one_to_one = len(numbers) == len(pairs) == len(set(numbers.values()))
    are_integers = all(as_integer(label) is not None for label in numbers)
    return numbers if one_to_one and are_integers and any(label != name for label, name in pairs) else {}


def _covers_its_folders(both: _Comparison) -> bool:
    """Returns whether the table names nearly all images of each class folder of which it names any."""
    named, totals = Counter(both.by_folder[name] for name in both.common), Counter(both.by_folder.values())
    return all(count >= _NEARLY_ALL * totals[label] for label, count in named.items())


def _note_unlabelled_tables(listing: Listing) -> None:
    """Adds notes on tables that name images but have no column of labels.

    Raises:
        DataError: Such a table has further columns, and no folders label the images.
    """
    tables = [table for table in unlabelled_tables(listing) if not is_split_list(table)]
    with_columns = [table for table in tables if not table.only_paths]
    if with_columns and _read_folders(listing)[0] is None:
        next(table_rows(with_columns[0]))  # raises the error that names the missing column
    for table in tables[:_MAX_NAMED]:
        name = listing.label(table.name)
        text = f"{name} is ignored: it lists images but has no column of labels"
        listing.notes.append(Note(text, "table-without-labels", table=name))
