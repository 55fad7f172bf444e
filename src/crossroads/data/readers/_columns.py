"""Decides which columns of a table are the image, label, split and group, from the headers and the first rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from crossroads.data.dataset import TEST, TRAIN, VALIDATION
from crossroads.data.labels import as_integer
from crossroads.data.readers._folder_names import split_in, split_of
from crossroads.data.readers._listing import is_image_name
from crossroads.data.readers._sheets import SAMPLE, Sheet, columns
from crossroads.errors import DataError
from crossroads.progress import Note

IMAGE_HEADERS = (
    "path", "filename", "file_name", "file", "image", "image_path", "filepath", "file_path", "img", "img_path", "image_name",
    "filepaths", "filenames", "image_file", "image_filename", "image_url", "image_uri", "imagegcsuri", "source_ref", "fname",
)  # fmt: skip
ID_HEADERS = ("image_id", "id", "img_id", "imageid", "image_names", "images", "name", "photo", "picture", "photo_id", "uuid")
LABEL_HEADERS = (
    "label", "class", "classid", "class_id", "category", "class_name", "classname", "target", "labels", "choice",
    "displayname",
)  # fmt: skip
OTHER_LABEL_HEADERS = (
    "label_name", "class_label", "category_name", "category_id", "label_id", "labelname", "breed", "species", "diagnosis",
    "dx", "tag", "tags", "y", "variety", "cultivar", "emotion", "expression", "disease", "finding_labels", "level", "grade",
    "style", "type", "sign",
)  # fmt: skip
SPLIT_HEADERS = (
    "split", "set", "subset", "fold", "partition", "dataset", "data_set", "phase", "mode", "usage", "ml_use", "data_split",
    "category", "train_test", "part", "purpose", "set_type", "data_type", "split_name", "train_val_test",
)  # fmt: skip
FLAG_HEADERS = {
    **dict.fromkeys(("is_test", "istest"), TEST),
    **dict.fromkeys(("is_valid", "is_val"), VALIDATION),
    **dict.fromkeys(("is_train", "is_training"), TRAIN),
}
_GROUPS = frozenset((
    "group", "groups", "patient", "patients", "subject", "subjects", "person", "lesion", "case", "user", "track", "sequence",
    "video", "scene", "specimen", "plant", "animal", "individual", "location", "site", "family", "session",
))  # fmt: skip
_PROSE = frozenset(("text", "caption", "captions", "prompt", "description", "sentence", "comment", "comments", "title", "question"))
_BOXES = frozenset(("xmin", "x_min", "ymin", "y_min", "bbox", "bbox_x", "xmax", "x_max", "roi_x1", "x1"))
_SIZES = frozenset(("width", "height", "w", "h", "size", "confidence", "score", "url", "index", "unnamed_0", ""))
_MAX_HEADERS_TO_GUESS = 3
TRUE, FALSE = frozenset(("1", "1.0", "true", "t", "yes", "y")), frozenset(("0", "0.0", "false", "f", "no", "n"))

_MAX_CLASSES = 100_000

IsImage = Callable[[str], bool]
"""A function that returns whether a value names an image that exists."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The meaning of the columns of a table. Columns are given by number.

    Attributes:
        image: The column with the path or id of the image.
        label: The column with the class of the image.
        split: The column with the split of the image. It holds words, or 0 and 1 if `flag` is set.
        group: The column with the group of the image. Images of one group stay in one split.
        flag: The split that a true value in the split column means.
        one_hot: The columns of a table with one column of 0 and 1 per class. `label` is then None.
        boxes: Whether there are columns of bounding boxes.
        unused: Notes on columns that look relevant but are not used.
        width: Number of columns, if there is no header.
        clear: Whether a header names the label. Otherwise, the label is a guess.
        other_labels: Further columns whose headers mean a label.
        undecided: Whether there is no header and several columns could be the label.
    """

    image: int | None = None
    label: int | None = None
    split: int | None = None
    group: int | None = None
    flag: int = 0
    one_hot: tuple[int, ...] = ()
    boxes: bool = False
    unused: tuple[Note, ...] = ()
    width: int = 0
    clear: bool = False
    other_labels: tuple[int, ...] = ()
    undecided: bool = False

    @property
    def labelled(self) -> bool:
        """Whether each image gets a label."""
        return self.label is not None or bool(self.one_hot)


def columns_of(sheet: Sheet, is_image: IsImage | None = None) -> Columns:
    """Determines the meaning of the columns of a table.

    Args:
        sheet: The table.
        is_image: Returns whether a value names an image that exists. None if images cannot be looked up.
    """
    sample = sheet.sample()
    if not sheet.headers:
        return _without_headers(sheet, columns(sample, max(map(len, sample), default=0)), is_image)
    names: list[str] = list(map(_normalised, sheet.headers))
    values = columns(sample, len(names))
    image = _image_column(names, values, is_image)
    splits = _split_columns(sheet, names, values, image)
    label, other_labels = _label_columns(sheet, names, values, {image, *(at for at, _ in splits)})
    split, flag = next(((at, flag) for at, flag in splits if at != label), (None, 0))
    group = names.index("group") if "group" in names and names.index("group") not in (image, label) else None
    clear = label is not None and not sheet.unnamed
    one_hot: tuple[int, ...] = ()
    if label is None and image is not None:
        label, one_hot = _guessed_label(names, values, image, {image, split, group})
    return Columns(
        image,
        label,
        split,
        group,
        flag,
        one_hot,
        boxes=bool(_BOXES & set(names)),
        unused=tuple(_unused(names, values, {image, label, split, group, *one_hot, *other_labels}, sheet)),
        clear=clear or bool(one_hot),
        other_labels=other_labels,
    )


def _normalised(header: str) -> str:
    """Returns a header in lower case, with one underscore between words. ``Outer.Inner Name`` becomes ``inner_name``."""
    inner = re.split(r"[./](?=[^./\d])", header.strip())[-1]
    return re.sub(r"[\W_]+", "_", inner.lower()).strip("_")


def _image_column(names: Sequence[str], values: Sequence[Sequence[str]], is_image: IsImage | None) -> int | None:
    """Returns the column that names images. If images can be looked up, at least half of its values must exist.

    A column without a known header must also hold file names with suffixes. Numbers would often match the stem of an image by
    chance.
    """
    by_header = [names.index(word) for word in IMAGE_HEADERS if word in names]
    if is_image is None:
        return by_header[0] if by_header else None
    ids = [names.index(word) for word in ID_HEADERS if word in names]
    files = [at for at in range(len(names)) if any(map(is_image_name, values[at]))]
    for at in dict.fromkeys((*by_header, *ids, *files)):
        if _mostly(is_image, values[at]):
            return at
    return by_header[0] if by_header else None


def _mostly(holds: Callable[[str], bool], values: Sequence[str]) -> bool:
    """Returns whether at least half of the values that are not empty meet a condition."""
    filled = [value for value in values if value]
    return bool(filled) and 2 * sum(map(holds, filled)) >= len(filled)


def _label_columns(
    sheet: Sheet, names: Sequence[str], values: Sequence[Sequence[str]], taken: set[int | None]
) -> tuple[int | None, tuple[int, ...]]:
    """Returns the label column and the other columns whose headers mean a label.

    The column with the first of the known headers is the label. If it holds numbers, a column of words that correspond one to one
    to these numbers is preferred.
    """
    by_header = [names.index(word) for word in (*LABEL_HEADERS, *OTHER_LABEL_HEADERS) if word in names]
    candidates = list(dict.fromkeys(at for at in by_header if at not in taken))
    if not candidates:
        return None, ()
    label = candidates[0]
    if _are_integers(values[label]):
        words = (at for at in candidates[1:] if not _are_integers(values[at]))
        label = next((at for at in words if _one_to_one(sheet, label, at)), label)
    return label, tuple(at for at in candidates if at != label)


def _guessed_label(
    names: Sequence[str], values: Sequence[Sequence[str]], image: int, taken: set[int | None]
) -> tuple[int | None, tuple[int, ...]]:
    """Guesses the label of a table in which no header means a label. It is one column, or there is one column per class."""
    rest = [at for at, name in enumerate(names) if at not in taken and name not in _SIZES]
    if len(rest) > 1 and values[image] and all(set(values[at]) <= {"0", "1", "0.0", "1.0"} for at in rest):
        return None, tuple(rest)
    rest = [at for at in rest if not _is_group(names[at]) and not _holds_fractions(values[at])]
    has_prose = not _PROSE.isdisjoint(names)  # a number beside captions is not a label
    if len(rest) != 1 or len(names) > _MAX_HEADERS_TO_GUESS or has_prose or _lists_classes(values[image], values[rest[0]]):
        return None, ()
    return rest[0], ()


def _are_integers(values: Sequence[str]) -> bool:
    return all(as_integer(value) is not None for value in values if value)


def _one_to_one(sheet: Sheet, first: int, second: int) -> bool:
    """Returns whether the values of two columns correspond one to one in all rows."""
    pairs: set[tuple[str, str]] = set()
    with suppress(DataError):  # the error is raised again, with its line, when all rows are read
        for _, fields in sheet.rows():
            if max(first, second) < len(fields):
                pairs.add((fields[first].strip(), fields[second].strip()))
                if len(pairs) > _MAX_CLASSES:
                    return False
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def _split_columns(sheet: Sheet, names: Sequence[str], values: Sequence[Sequence[str]], image: int | None) -> list[tuple[int, int]]:
    """Returns the columns that hold splits, in the order of the table. Each comes with the split that 1 means, or 0.

    All rows of a column are checked, so the order of the rows does not matter.
    """
    if "split" in names and (at := names.index("split")) != image:
        return [(at, 0)]
    # A column of 0 and 1 with a header such as `is_test` has a flag: the split that 1 means. Other columns have the flag 0.
    flags = [
        (at, FLAG_HEADERS.get(name, 0) if _are_flags(values[at]) else 0)
        for at, name in enumerate(names)
        if at != image and any(values[at])
    ]
    likely = [(at, flag) for at, flag in flags if _are_splits_under(names[at], set(values[at]), flag)]
    distinct = _distinct(sheet, values, [at for at, _ in likely])
    return [
        (at, flag)
        for at, flag in likely
        if _are_splits_under(names[at], distinct[at], flag)
        and (flag or _is_split_header(names[at]) or len(distinct[at] - {""}) > 1)
    ]


def _are_flags(values: Iterable[str]) -> bool:
    return {value.lower() for value in values} <= TRUE | FALSE | {""}


def _is_split_header(name: str) -> bool:
    return name in SPLIT_HEADERS and name not in LABEL_HEADERS


def _are_splits_under(name: str, values: set[str], flag: int) -> bool:
    """Returns whether all values of a column name splits, or are true and false under a header such as `is_test`."""
    values = values - {""}
    if flag:
        return _are_flags(values)
    parse = split_in if _is_split_header(name) else split_of
    return bool(values) and all(parse(value) is not None for value in values)


def _distinct(sheet: Sheet, values: Sequence[Sequence[str]], wanted: Sequence[int]) -> dict[int, set[str]]:
    """Returns the distinct values of the wanted columns in all rows."""
    distinct = {at: set(values[at]) for at in wanted}
    if wanted and len(values[wanted[0]]) >= SAMPLE:
        with suppress(DataError):
            for _, fields in sheet.rows():
                for at in wanted:
                    if at < len(fields) and len(distinct[at]) <= _MAX_CLASSES:
                        distinct[at].add(fields[at].strip())
    return distinct


def _without_headers(sheet: Sheet, values: list[list[str]], is_image: IsImage | None) -> Columns:
    """Determines the columns of a list without a header. It has a path or id and a label, and may have a split and a row number."""
    files = [at for at in range(len(values)) if any(map(is_image_name, values[at]))]
    candidates = files or range(len(values))
    image = next((at for at in candidates if _mostly(is_image or is_image_name, values[at])), files[0] if files else None)
    if image is None:
        return Columns()
    rest = [at for at in range(len(values)) if at != image and any(values[at])]
    distinct = _distinct(sheet, values, [at for at in rest if _are_splits(values[at])])
    split = next((at for at in distinct if _are_splits(distinct[at])), None)
    rest = [at for at in rest if at != split]
    if image > 0 and _counts_up(values[0]):
        rest = [at for at in rest if at != 0]
    if len(rest) > 1:
        rest = [at for at in rest if not all(map(is_number, values[at]))] or rest
    label = rest[0] if len(rest) == 1 else None
    return Columns(image, label, split, width=len(values), undecided=len(rest) > 1)


def _are_splits(values: Iterable[str]) -> bool:
    return all(value.lower() == "unassigned" or split_of(value) for value in values if value)


def _counts_up(values: Sequence[str]) -> bool:
    """Returns whether the values of a column count up by 1, like row numbers."""
    numbers = [as_integer(value) for value in values]
    return bool(numbers) and numbers[0] is not None and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _lists_classes(numbers: Sequence[str], names: Sequence[str]) -> bool:
    """Returns whether a table only numbers the classes. Such numbers may match the stems of images by chance."""
    return _counts_up(numbers) and len(set(names)) == len(names) > 1


def is_number(value: str) -> bool:
    """Returns whether a string is a number."""
    try:
        float(value)
    except ValueError:
        return False
    return True


def _holds_fractions(values: Sequence[str]) -> bool:
    """Returns whether a column holds numbers that are not whole. Such numbers are not classes."""
    return any("." in value and is_number(value) and not float(value).is_integer() for value in values)


def _is_group(name: str) -> bool:
    return bool(_GROUPS.intersection(name.split("_")))


def _unused(names: Sequence[str], values: Sequence[Sequence[str]], taken: set[int | None], sheet: Sheet) -> list[Note]:
    """Returns notes on columns that look like a split or a group but are not used."""
    notes = []
    for at, name in enumerate(names):
        header = sheet.headers[at]
        if at in taken:
            continue
        if name in SPLIT_HEADERS or name in FLAG_HEADERS:
            examples = ", ".join(sorted({value for value in values[at] if value})[:4]) or "nothing"
            text = f"the column {header!r} of {sheet.label} is ignored: its values do not name splits, for example {examples}"
            notes.append(Note(text, "split-column-ignored", column=header, table=sheet.label))
        elif _is_group(name):
            text = f"the column {header!r} of {sheet.label} is ignored; if it holds groups, rename it 'group' to keep them whole"
            notes.append(Note(text, "group-column-ignored", column=header, table=sheet.label))
    return notes
