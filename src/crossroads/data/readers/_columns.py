"""Which column of a table is the image, which the label, which the split: by its header, and by what the first rows hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crossroads.data.dataset import TEST, TRAIN, VALIDATION
from crossroads.data.labels import as_integer
from crossroads.data.readers._names import split_in
from crossroads.data.readers._sheets import Sheet, columns
from crossroads.data.readers._view import is_image_name, split_of

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
TRUE, FALSE = frozenset(("1", "1.0", "true", "t", "yes", "y")), frozenset(("0", "0.0", "false", "f", "no", "n"))

Resolves = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns of a table are, by number.

    Attributes:
        image: The path or id of an image.
        label: Its class.
        split: The split, in words, or 0 and 1 where `flag` is set.
        group: What must stay in one split.
        flag: The split that a true value of the split column stands for.
        one_hot: Columns that are a class each and hold 0 or 1; then `label` is None.
        boxes: Whether there are columns of boxes.
        unread: What to say of columns that look as if they mattered and are not read.
        width: The number of columns, where no header tells it.
        clear: Whether the label was not merely taken because it is the only column left.
    """

    image: int | None = None
    label: int | None = None
    split: int | None = None
    group: int | None = None
    flag: int = 0
    one_hot: tuple[int, ...] = ()
    boxes: bool = False
    unread: tuple[str, ...] = ()
    width: int = 0
    clear: bool = True

    @property
    def labelled(self) -> bool:
        """Whether each image gets a label."""
        return self.label is not None or bool(self.one_hot)


def columns_of(sheet: Sheet, resolves: Resolves | None = None) -> Columns:
    """The columns of a table. `resolves` says whether a value names an image that is there."""
    sample = sheet.sample()
    if not sheet.headers:
        return _headless(columns(sample, max(map(len, sample), default=0)), resolves)
    names: list[str] = list(map(_plain, sheet.headers))
    values = columns(sample, len(names))
    image = _image(names, values, resolves)
    label = _label(names, values, image)
    split, flag = _split(names, values, {image, label})
    group = names.index("group") if "group" in names and names.index("group") not in (image, label) else None
    one_hot: tuple[int, ...] = ()
    clear = label is not None
    if label is None and image is not None:
        rest = [at for at, name in enumerate(names) if at not in (image, split, group) and name not in _SIZES]
        if len(rest) > 1 and sample and all(set(values[at]) <= {"0", "1", "0.0", "1.0"} for at in rest):
            one_hot = tuple(rest)
        else:
            rest = [at for at in rest if not _is_group(names[at]) and not _is_measure(values[at])]
            described = not _PROSE.isdisjoint(names)  # captions, beside which a number is no label
            label = (
                rest[0]
                if len(rest) == 1 and len(names) <= 3 and not described and not _lists_classes(values[image], values[rest[0]])
                else None
            )
    taken = {image, label, split, group, *one_hot}
    return Columns(
        image,
        label,
        split,
        group,
        flag,
        one_hot,
        bool(_BOXES & set(names)),
        tuple(_unread(names, values, taken, sheet)),
        clear=clear or bool(one_hot),
    )


def _plain(header: str) -> str:
    """A header in lower case, with one underscore between words; of ``outer.inner`` the inner one."""
    inner = re.split(r"[./](?=[^./\d])", header.strip())[-1]
    return re.sub(r"[\W_]+", "_", inner.lower()).strip("_")


def _image(names: Sequence[str], values: Sequence[Sequence[str]], resolves: Resolves | None) -> int | None:
    """The column that names images: by header, and where images can be looked up only one that names images which are there.

    A column of any other header must hold names of files: numbers are often the stem of some image by chance.
    """
    by_header = [names.index(word) for word in IMAGE_HEADERS if word in names]
    if resolves is None:
        return by_header[0] if by_header else None
    ids = [names.index(word) for word in ID_HEADERS if word in names]
    files = [at for at in range(len(names)) if any(map(is_image_name, values[at]))]
    for at in dict.fromkeys((*by_header, *ids, *files)):
        there = [value for value in values[at] if value]
        if there and 2 * sum(map(resolves, there)) >= len(there):
            return at
    return by_header[0] if by_header else None


def _label(names: Sequence[str], values: Sequence[Sequence[str]], image: int | None) -> int | None:
    """The column of labels by its header; of several one that holds words, since a number beside it only stands for the word."""
    for headers in (LABEL_HEADERS, OTHER_LABEL_HEADERS):
        found = [names.index(word) for word in headers if word in names and names.index(word) != image]
        if found:
            worded: list[int] = [at for at in found if any(as_integer(value) is None for value in values[at] if value)]
            return (worded or found)[0]
    return None


def _split(names: Sequence[str], values: Sequence[Sequence[str]], taken: set[int | None]) -> tuple[int | None, int]:
    """The column of splits, and what a true value in it means where it holds 0 and 1."""
    if "split" in names and (at := names.index("split")) not in taken:
        return at, 0
    for at, name in enumerate(names):
        found = {value for value in values[at] if value}
        if at in taken or not found:
            continue
        if name in FLAG_HEADERS and {value.lower() for value in found} <= TRUE | FALSE:
            return at, FLAG_HEADERS[name]
        worded = all(split_of(value) is not None for value in found)
        if (name in SPLIT_HEADERS and all(split_in(value) is not None for value in found)) or (worded and len(found) > 1):
            return at, 0
    return None, 0


def _headless(values: list[list[str]], resolves: Resolves | None) -> Columns:
    """The columns of a list without a header: a path or id, perhaps a split and a running number, and one label."""

    def names_images(at: int) -> bool:
        there = [value for value in values[at] if value]
        known = resolves or is_image_name
        return bool(there) and 2 * sum(map(known, there)) >= len(there)

    files = [at for at in range(len(values)) if any(map(is_image_name, values[at]))]
    image = next((at for at in files or range(len(values)) if names_images(at)), files[0] if files else None)
    if image is None:
        return Columns()
    rest = [at for at in range(len(values)) if at != image and any(values[at])]
    split = next(
        (at for at in rest if all(value.lower() == "unassigned" or split_of(value) for value in values[at] if value)), None
    )
    rest = [at for at in rest if at != split]
    if image > 0 and _counts_up(values[0]):
        rest = [at for at in rest if at != 0]
    if len(rest) > 1:
        rest = [at for at in rest if any(as_integer(value) is None and not _is_number(value) for value in values[at])] or rest
    label, unread = (rest[0], ()) if len(rest) == 1 else (None, ("several columns that may be the label",) if rest else ())
    return Columns(image, label, split, width=len(values), unread=unread)


def _counts_up(values: Sequence[str]) -> bool:
    """Whether a column is the number of the row."""
    numbers = [as_integer(value) for value in values]
    return bool(numbers) and numbers[0] is not None and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _lists_classes(numbers: Sequence[str], names: Sequence[str]) -> bool:
    """Whether two columns are the numbers of the classes and their names: such numbers may be the stems of images by chance."""
    return _counts_up(numbers) and len(set(names)) == len(names) > 1


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _is_measure(values: Sequence[str]) -> bool:
    """Whether a column holds fractions, which are no class."""
    return any("." in value and _is_number(value) and not float(value).is_integer() for value in values)


def _is_group(name: str) -> bool:
    return bool(_GROUPS.intersection(name.split("_")))


def _unread(names: Sequence[str], values: Sequence[Sequence[str]], taken: set[int | None], sheet: Sheet) -> list[str]:
    """Columns that look like a split or a group, or like another label, and are not read."""
    notes = []
    for at, name in enumerate(names):
        header = f"column {sheet.headers[at]!r} of {sheet.label}"
        if at in taken:
            continue
        if name in LABEL_HEADERS or name in OTHER_LABEL_HEADERS:
            notes.append(f"{header} not read as the label")
        elif name in SPLIT_HEADERS or name in FLAG_HEADERS:
            held = ", ".join(sorted({value for value in values[at] if value})[:4]) or "nothing"
            notes.append(f"{header} with values such as {held} not read as the split")
        elif _is_group(name):
            notes.append(f"{header} not read: name it 'group' to keep images with equal values in one split")
    return notes
