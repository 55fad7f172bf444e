"""Which column of a table is the image, which the label, which the split: by its header, and by what the first rows hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from crossroads.data.dataset import TEST, TRAIN, VALIDATION
from crossroads.data.labels import as_integer
from crossroads.data.readers._folder_names import split_in
from crossroads.data.readers._listing import is_image_name, split_of
from crossroads.data.readers._sheets import SAMPLE, Sheet, columns
from crossroads.errors import DataError

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

_MOST_CLASSES = 100_000

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
        one_hot: One column per class that holds 0 or 1; `label` is then None.
        boxes: Whether there are columns of boxes.
        unread: Notes on columns that look relevant and are not used.
        width: The number of columns, where no header tells it.
        clear: Whether a header says which column is the label; else it is only the one column left.
        others: Columns whose headers say label as well.
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
    clear: bool = False
    others: tuple[int, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether each image gets a label."""
        return self.label is not None or bool(self.one_hot)


def columns_of(sheet: Sheet, resolves: Resolves | None = None) -> Columns:
    """The columns of a table. `resolves` says whether a value names an image that is there."""
    sample = sheet.sample()
    if not sheet.headers:
        return _headless(sheet, columns(sample, max(map(len, sample), default=0)), resolves)
    names: list[str] = list(map(_plain, sheet.headers))
    values = columns(sample, len(names))
    image = _image(names, values, resolves)
    splits = _splits(sheet, names, values, image)
    label, others = _label(sheet, names, values, {image, *(at for at, _ in splits)})
    split, flag = next(((at, flag) for at, flag in splits if at != label), (None, 0))
    group = names.index("group") if "group" in names and names.index("group") not in (image, label) else None
    one_hot: tuple[int, ...] = ()
    clear = label is not None and not sheet.unnamed
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
        tuple(_unread(names, values, {*taken, *others}, sheet)),
        clear=clear or bool(one_hot),
        others=others,
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


def _label(
    sheet: Sheet, names: Sequence[str], values: Sequence[Sequence[str]], taken: set[int | None]
) -> tuple[int | None, tuple[int, ...]]:
    """The column of labels by its header, and the others whose headers say label.

    The order of the known headers decides. Where it finds numbers, a column of words that stand one to one for them comes first.
    """
    by_header = [names.index(word) for word in (*LABEL_HEADERS, *OTHER_LABEL_HEADERS) if word in names]
    found = list(dict.fromkeys(at for at in by_header if at not in taken))
    if not found:
        return None, ()
    label = found[0]
    if _are_numbers(values[label]):
        worded = (at for at in found[1:] if not _are_numbers(values[at]))
        label = next((at for at in worded if _one_to_one(sheet, label, at)), label)
    return label, tuple(at for at in found if at != label)


def _are_numbers(values: Sequence[str]) -> bool:
    return all(as_integer(value) is not None for value in values if value)


def _one_to_one(sheet: Sheet, one: int, other: int) -> bool:
    """Whether each value of one column goes with a single value of the other, in all rows."""
    pairs: set[tuple[str, str]] = set()
    with suppress(DataError):  # whoever reads on meets it again, and says the line
        for _, fields in sheet.rows():
            if max(one, other) < len(fields):
                pairs.add((fields[one].strip(), fields[other].strip()))
                if len(pairs) > _MOST_CLASSES:
                    return False
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def _splits(sheet: Sheet, names: Sequence[str], values: Sequence[Sequence[str]], image: int | None) -> list[tuple[int, int]]:
    """The columns that hold splits, best first, each with what a true value means where it holds 0 and 1.

    A column is decided on all of its rows, so that their order does not matter.
    """
    if "split" in names and (at := names.index("split")) != image:
        return [(at, 0)]
    found = [(at, _flag(name, values[at])) for at, name in enumerate(names) if at != image and any(values[at])]
    likely = [(at, flag) for at, flag in found if _says_splits(names[at], set(values[at]), flag)]
    whole = _distinct(sheet, values, [at for at, _ in likely])
    return [
        (at, flag)
        for at, flag in likely
        if _says_splits(names[at], whole[at], flag) and (flag or _is_split_header(names[at]) or len(whole[at] - {""}) > 1)
    ]


def _flag(name: str, values: Iterable[str]) -> int:
    """The split that a true value stands for under a header such as `is_test`; 0 for other headers and other values."""
    return FLAG_HEADERS.get(name, 0) if {value.lower() for value in values} <= TRUE | FALSE | {""} else 0


def _is_split_header(name: str) -> bool:
    return name in SPLIT_HEADERS and name not in LABEL_HEADERS


def _says_splits(name: str, found: set[str], flag: int) -> bool:
    """Whether all values of a column name splits, or are yes and no under a header such as `is_test`."""
    found = found - {""}
    if flag:
        return {value.lower() for value in found} <= TRUE | FALSE
    told = split_in if _is_split_header(name) else split_of
    return bool(found) and all(told(value) is not None for value in found)


def _distinct(sheet: Sheet, values: Sequence[Sequence[str]], wanted: Sequence[int]) -> dict[int, set[str]]:
    """The values of some columns in all rows."""
    found = {at: set(values[at]) for at in wanted}
    if wanted and len(values[wanted[0]]) >= SAMPLE:
        with suppress(DataError):
            for _, fields in sheet.rows():
                for at in wanted:
                    if at < len(fields) and len(found[at]) <= _MOST_CLASSES:
                        found[at].add(fields[at].strip())
    return found


def _headless(sheet: Sheet, values: list[list[str]], resolves: Resolves | None) -> Columns:
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
    whole = _distinct(sheet, values, [at for at in rest if _are_splits(values[at])])
    split = next((at for at in whole if _are_splits(whole[at])), None)
    rest = [at for at in rest if at != split]
    if image > 0 and _counts_up(values[0]):
        rest = [at for at in rest if at != 0]
    if len(rest) > 1:
        rest = [at for at in rest if any(as_integer(value) is None and not is_number(value) for value in values[at])] or rest
    label, unread = (rest[0], ()) if len(rest) == 1 else (None, ("several columns that may be the label",) if rest else ())
    return Columns(image, label, split, width=len(values), unread=unread)


def _are_splits(values: Iterable[str]) -> bool:
    return all(value.lower() == "unassigned" or split_of(value) for value in values if value)


def _counts_up(values: Sequence[str]) -> bool:
    """Whether a column is the number of the row."""
    numbers = [as_integer(value) for value in values]
    return bool(numbers) and numbers[0] is not None and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _lists_classes(numbers: Sequence[str], names: Sequence[str]) -> bool:
    """Whether two columns are the numbers of the classes and their names: such numbers may be the stems of images by chance."""
    return _counts_up(numbers) and len(set(names)) == len(names) > 1


def is_number(value: str) -> bool:
    """Whether a text spells a number of any kind."""
    try:
        float(value)
    except ValueError:
        return False
    return True


def _is_measure(values: Sequence[str]) -> bool:
    """Whether a column holds fractions, which are no class."""
    return any("." in value and is_number(value) and not float(value).is_integer() for value in values)


def _is_group(name: str) -> bool:
    return bool(_GROUPS.intersection(name.split("_")))


def _unread(names: Sequence[str], values: Sequence[Sequence[str]], taken: set[int | None], sheet: Sheet) -> list[str]:
    """Columns that look like a split or a group and are not used."""
    notes = []
    for at, name in enumerate(names):
        header = f"column {sheet.headers[at]!r} of {sheet.label}"
        if at in taken:
            continue
        if name in SPLIT_HEADERS or name in FLAG_HEADERS:
            held = ", ".join(sorted({value for value in values[at] if value})[:4]) or "nothing"
            notes.append(f"{header} with values such as {held} ignored: they do not name splits")
        elif _is_group(name):
            notes.append(f"{header} ignored; rename it 'group' to keep its images in one split")
    return notes
