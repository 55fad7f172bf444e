"""Encodes labels as class numbers, reads files of class names, and aligns the labels of one data set to given classes."""

from __future__ import annotations

import csv
import difflib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import Dataset, ImageSource
from crossroads.errors import DataError
from crossroads.files.text import first_few, natural_key, plural, printable
from crossroads.progress import Note

_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)

_SHOWN, _SHOWN_CLASSES = 5, 12
_TYPO = 0.75
"""Smallest similarity (`difflib`) of a misspelt label to its class. One wrong letter of four gives 0.75."""


def as_integer(text: str) -> int | None:
    """Returns the integer that a class name spells, such as 20 for ``00020``, or None."""
    return int(text) if _INTEGER.fullmatch(text) else None


def name_classes(classes: Sequence[str], labels: Iterable[int]) -> str:
    """Returns the quoted names of the first five classes among `labels`, such as ``'cat', 'dog' and 3 more``."""
    return first_few([repr(classes[label]) for label in labels], _SHOWN)


def class_name(text: str) -> str:
    """Returns the canonical spelling of a class name: Unicode NFC, without leading and trailing white space.

    A Mac writes ``é`` as two code points; Linux and Windows write it as one. Both look the same, so they must be the same class.
    All class names are converted by this function. Files are still opened by their original names.
    """
    if text.isascii():
        return text.strip() or text
    return unicodedata.normalize("NFC", printable(text)).strip() or text


def labelled_dataset(
    origin: str,
    images: ImageSource,
    labels: Sequence[str],
    splits: Sequence[int] | None = None,
    groups: Sequence[object] | None = None,
    notes: Iterable[str] = (),
) -> Dataset:
    """Returns the data set of labelled images. Its classes are the labels in natural order.

    Args:
        origin: Name of the data in messages.
        images: One image for each row.
        labels: The label of each row.
        splits: The split of each row. None if no row has a split.
        groups: The group of each row, as any hashable object. A row with the group None is in no group with others.
        notes: The reader's notes.

    Raises:
        DataError: Two class names differ only in upper and lower case.
    """
    spellings = {label: class_name(label) for label in dict.fromkeys(labels)}
    codes = {name: code for code, name in enumerate(dict.fromkeys(spellings.values()))}
    by_spelling = {label: codes[name] for label, name in spellings.items()}
    column, classes = _in_order(np.fromiter(map(by_spelling.__getitem__, labels), np.int32, len(labels)), list(codes))
    return Dataset(
        origin=origin,
        images=images,
        indices=np.arange(len(labels), dtype=np.int64),
        labels=column,
        classes=classes,
        groups=None if groups is None else _group_numbers(groups),
        splits=np.array(splits, np.uint8) if splits is not None and any(splits) else None,
        notes=(*notes, *_spelling_notes(spellings), *_case_notes(list(codes), origin), *_number_notes(list(codes))),
    )


def _group_numbers(groups: Sequence[object]) -> NDArray[np.int64] | None:
    """Numbers the groups. Each row without a group gets a number of its own. Returns None if no row has a group."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups)) if group is not None}
    if not numbers:
        return None
    column = np.fromiter((numbers.get(group, -1) for group in groups), np.int64, len(groups))
    alone = np.flatnonzero(column < 0)
    column[alone] = len(groups) + np.arange(len(alone))
    return column


def _spelling_notes(spellings: Mapping[str, str]) -> list[str]:
    """Returns a note if several spellings are read as one class."""
    several = [repr(name) for name, count in Counter(spellings.values()).items() if count > 1]
    if not several:
        return []
    text = "names that differ only in Unicode form (NFC, NFD) or outer spaces are one class"
    return [Note(f"{text}: {first_few(several)}", "class-spellings-united", classes=len(several))]


def _case_notes(names: Sequence[str], origin: str) -> list[str]:
    """Refuses names that differ only in case, unless they are single letters. Those are different classes and get a note."""
    by_fold: dict[str, list[str]] = {}
    for name in names:
        by_fold.setdefault(name.casefold(), []).append(name)
    if len(by_fold) == len(names):
        return []
    pairs = [spelled for spelled in by_fold.values() if len(spelled) > 1]
    words = [spelled for spelled in pairs if max(map(len, spelled)) > 1]
    if words:
        raise DataError(
            f"class names of {origin} must differ in more than case",
            code="classes-differ-in-case",
            received=" and ".join(map(repr, words[0])),
            hint="give both the same spelling if they are one class, or different names if they are two",
        )
    example = " and ".join(map(repr, pairs[0]))
    text = f"{plural(len(pairs), 'pair')} of classes differ only in case, such as {example}; they are read as two classes"
    return [Note(text, "classes-differ-in-case", pairs=len(pairs))]


def _number_notes(names: Sequence[str]) -> list[str]:
    """Returns a note if the names of several classes spell the same integer, such as ``1`` and ``01``."""
    by_number: dict[int, list[str]] = {}
    for name in names:
        if (number := as_integer(name)) is not None:
            by_number.setdefault(number, []).append(name)
    same = [" and ".join(map(repr, sorted(spelled))) for _, spelled in sorted(by_number.items()) if len(spelled) > 1]
    if not same:
        return []
    more = f"; so do {plural(len(same) - 1, 'other pair')}" if len(same) > 1 else ""
    text = f"classes {same[0]} spell the same number and are read as different classes{more}"
    return [Note(text, "classes-spell-one-number", pairs=len(same))]


def _in_order(codes: NDArray[np.int32], names: Sequence[str]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Sorts the names in natural order and renumbers `codes` accordingly."""
    order = sorted(range(len(names)), key=lambda code: natural_key(names[code]))
    rank = np.empty(len(names), np.int32)
    rank[order] = np.arange(len(names), dtype=np.int32)
    return (rank[codes] if len(names) else codes), tuple(names[code] for code in order)


def encode(values: object, *, what: str = "labels") -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Encodes labels as int32 (n,) into class names in natural order.

    Args:
        values: n integers, strings, bytes, booleans or floats with whole values; or one-hot rows (n, k) with exactly one 1 each.
        what: Name of the labels in messages.

    Returns:
        The class index of each row, int32 (n,), and the class names. A name is ``str(label)``. For one-hot rows, it is the number
        of the column.

    Raises:
        DataError: The labels have another shape or type, or contain NaN, a fraction, an empty string, or a row that is not one-hot.
    """
    if (texts := _texts(values, what)) is not None:
        known = {text: code for code, text in enumerate(dict.fromkeys(texts))}
        return _encoded(np.fromiter(map(known.__getitem__, texts), np.int32, len(texts)), list(known), what)
    labels = _label_array(values, what)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim not in (1, 2) or 0 in labels.shape[1:]:
        raise _wrong_shape(what, f"shape {labels.shape}")
    if labels.ndim == 2:
        labels = _from_one_hot(labels, what)
    unique, inverse = np.unique(labels, return_inverse=True)
    return _encoded(inverse.reshape(-1).astype(np.int32), [str(value) for value in unique.tolist()], what)


def _encoded(codes: NDArray[np.int32], names: list[str], what: str) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    for code, name in enumerate(names):
        if not name.strip():
            received, hint = f"{name!r} in row {int(np.argmax(codes == code))}", "label the image or leave it out"
            raise DataError(f"{what} must not be empty", code="empty-label", received=received, hint=hint)
    return _in_order(codes, names)


def _texts(values: object, what: str) -> list[str] | None:
    """Returns labels as a list of strings if they are strings or UTF-8 bytes; otherwise None.

    They do not become an array, because each string in an array takes as much memory as the longest one.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind in "OS" and (values.ndim == 1 or values.shape[1:] == (1,)):
        values = values.reshape(-1).tolist()
    if not isinstance(values, (list, tuple)) or not values:
        return None
    if all(isinstance(item, str) for item in values):
        return list(map(str, values))
    if not all(isinstance(item, bytes) for item in values):
        return None
    try:
        return [item.decode("utf-8") for item in values]
    except UnicodeDecodeError as error:
        hint = "save the labels as UTF-8"
        raise DataError(f"{what} must be UTF-8 text", code="label-encoding", received=error, hint=hint) from error


def _label_array(values: object, what: str) -> NDArray[np.generic]:
    """Returns labels as an array of integers, booleans or strings. Floats with whole values become integers."""
    if not isinstance(values, np.ndarray):
        items = list(values) if isinstance(values, Iterable) and not isinstance(values, (str, bytes)) else [values]
        kinds = {type(item) for item in items}
        if kinds & {str, bytes} and len(kinds) > 1:  # NumPy would silently turn numbers into text
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise DataError(f"{what} must be of one type", code="label-types", received=names, hint="convert all labels to text")
        values = _as_array(items, what)
    labels: NDArray[np.generic] = values
    if labels.dtype.kind == "O" and all(isinstance(label, int) for label in labels.flat):
        labels = _as_array(labels.tolist(), what)
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            hint = "drop these rows or label them"
            raise DataError(f"{what} must be finite", code="label-not-finite", received="NaN or infinity", hint=hint)
        whole = labels.astype(np.int64)
        if not np.array_equal(whole, labels):
            raise _wrong_type(what, "fractions")
        return whole
    if labels.dtype.kind not in "iubUS":
        raise _wrong_type(what, f"an array of dtype {labels.dtype}")
    return labels


def _as_array(items: list[object], what: str) -> NDArray[np.generic]:
    try:
        return np.asarray(items)
    except (ValueError, MemoryError) as error:
        received = "rows of different lengths" if isinstance(error, ValueError) else "more than fits in memory"
        raise _wrong_shape(what, received) from error
    except (TypeError, RuntimeError) as error:  # `__array__` raises these, for example for a tensor that records gradients
        hint = "call .detach().numpy()" if hasattr(items[0], "detach") else "pass integers or strings"
        raise _wrong_type(what, error, hint) from error


def _wrong_shape(what: str, received: str) -> DataError:
    rule = f"{what} must be one label per row (n,), or one-hot (n, k)"
    return DataError(rule, code="label-shape", received=received, hint="pass one label per image")


def _wrong_type(what: str, received: object, hint: str = "pass integers or strings") -> DataError:
    rule = f"{what} must be integers, strings, booleans or one-hot rows"
    return DataError(rule, code="label-type", received=received, hint=hint)


def _from_one_hot(rows: NDArray[np.generic], what: str) -> NDArray[np.generic]:
    ones = rows == 1
    good = (ones.sum(axis=1) == 1) & ((rows == 0).sum(axis=1) == rows.shape[1] - 1)
    if not good.all():
        row = int(np.argmin(good))
        raise DataError(
            f"each row of one-hot {what} must have one 1 and otherwise 0",
            code="label-not-one-hot",
            received=f"{rows[row].tolist()} in row {row}",
            hint="pass one column per class, or class numbers",
        )
    return np.asarray(ones.argmax(axis=1))


def _names_error(rule: str, code: str, received: object = None, hint: str = "write lines such as `14,Stop`") -> DataError:
    return DataError(rule, code=f"class-{code}", field="class_names", received=received, hint=hint)


def load_class_names(path: str | os.PathLike[str]) -> dict[int, str]:
    """Reads the names of integer labels from a file.

    The file is a CSV with the columns number and name, with or without a header such as ``ClassId,SignName``. It may also be a text
    file with one name per line; the labels are then numbered from 0.

    Raises:
        DataError: The file cannot be read or is empty, a number or a name occurs twice, or a line is not a number and a name.
    """
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _names_error(f"the class names {path} cannot be read", "names-unreadable", error) from error
    rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise _names_error(f"the class names {path} must not be empty", "names-empty")
    pairs = [(number, _number_and_name(line)) for number, line in rows]
    if pairs[0][1] is None and len(pairs) > 1:
        del pairs[0]  # the first line is a header
    if all(pair is None for _, pair in pairs):
        pairs = [(number, (index, line.strip())) for index, (number, line) in enumerate(rows)]
    names: dict[int, str] = {}
    for number, pair in pairs:
        if pair is None:
            raise _names_error(f"{path} line {number} must be a class number and a name", "names-line", repr(lines[number - 1]))
        name = class_name(pair[1])
        if pair[0] in names or name in names.values():
            rule = f"{path} line {number}: each class number and name must occur once"
            raise _names_error(rule, "names-repeated", repr(lines[number - 1]), _ONCE)
        names[pair[0]] = name
    return names


_ONCE = "give each class one number and one name"


def _number_and_name(line: str) -> tuple[int, str] | None:
    """Parses ``14,Stop``, ``14;Stop`` or ``14<tab>Stop`` as (14, "Stop"); returns None for anything else."""
    for delimiter in ",;\t":
        fields = next(csv.reader([line], delimiter=delimiter), [])
        if len(fields) >= 2 and (value := as_integer(fields[0].strip())) is not None and fields[1].strip():
            return value, fields[1].strip()
    return None


def rename(dataset: Dataset, names: Mapping[int, str] | Sequence[str]) -> Dataset:
    """Replaces class names that are integers with given names. The order of the classes does not change.

    Args:
        dataset: A data set whose class names spell integers.
        names: The name of each number, or the names of 0, 1, 2 and so on.

    Raises:
        DataError: A class name is not an integer, a number has no name, or two classes would have the same name.
    """
    table = dict(names) if isinstance(names, Mapping) else dict(enumerate(names))
    renamed = []
    for label in dataset.classes:
        number = as_integer(label)
        if number is None or number not in table:
            numbers = f"{min(table)} to {max(table)}" if table else "none"
            rule = f"every label of {dataset.origin} must have a class name"
            raise _names_error(rule, "without-name", f"label {label!r}; the names are for {numbers}")
        renamed.append(class_name(str(table[number])))
    if len(set(renamed)) < len(renamed):
        twice = next(name for name, count in Counter(renamed).items() if count > 1)
        raise _names_error("class names must differ", "names-repeated", f"{twice!r} for two classes", _ONCE)
    return replace(dataset, classes=tuple(renamed))


def align(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """Changes the labels of a data set to indices into another list of classes. Classes are matched by name.

    ``00020`` also matches ``20`` if no other class spells this integer. A note then says so.

    Args:
        dataset: The data set to align.
        classes: The class names that labels will index.

    Returns:
        The same rows with labels that are indices into `classes`.

    Raises:
        DataError: A label is not among `classes`. The message lists such labels, their numbers of rows, and the first such row.
    """
    known = tuple(classes)
    place = {class_name(name): index for index, name in enumerate(known)} | {name: index for index, name in enumerate(known)}
    integers = [as_integer(name) for name in known]
    times = Counter(integers)
    by_integer = {number: index for index, number in enumerate(integers) if number is not None and times[number] == 1}
    mapping = np.full(len(dataset.classes), -1, np.int32)
    respelled = []
    for code, name in enumerate(dataset.classes):
        if (index := place.get(name, place.get(class_name(name)))) is not None:
            mapping[code] = index
        elif (number := as_integer(name)) is not None and number in by_integer:
            mapping[code] = by_integer[number]
            respelled.append(f"{name!r} as {known[by_integer[number]]!r}")
    labels = mapping[dataset.labels] if len(mapping) else dataset.labels
    if (labels < 0).any():
        raise _unknown(dataset, labels < 0, known)
    notes = dataset.notes
    if respelled:
        text = f"some labels were matched as numbers: {first_few(respelled, 3)}"
        notes = (*notes, Note(text, "labels-matched-as-numbers", classes=len(respelled)))
    return replace(dataset, labels=labels.astype(np.int32), classes=known, notes=notes)


def _unknown(dataset: Dataset, unknown: NDArray[np.bool_], known: Sequence[str]) -> DataError:
    """Returns the error for rows whose labels are not among the known classes."""
    counts = np.bincount(dataset.labels[unknown], minlength=len(dataset.classes))
    names = [(dataset.classes[code], int(counts[code])) for code in np.flatnonzero(counts)]
    listed = first_few([f"{name!r} ({plural(count, 'image')})" for name, count in names], _SHOWN)
    near = [(name, match) for name, _ in names[:_SHOWN] if (match := _typo_of(name, known)) is not None]
    if near:
        hint = f"did you mean {', '.join(f'{match!r} for {name!r}' if len(names) > 1 else repr(match) for name, match in near)}?"
    else:
        hint = f"the classes are {first_few(known, _SHOWN_CLASSES)}"
    return DataError(
        f"{dataset.origin}: every label must be one of the {len(known)} classes",
        code="unknown-label",
        received=f"{listed}, the first {dataset.name(int(np.argmax(unknown)))}",
        hint=hint,
    )


def _typo_of(name: str, known: Sequence[str]) -> str | None:
    """Returns the class that a label probably misspells, or None.

    Numbers are never matched, because they resemble others by chance.
    """
    if as_integer(name) is not None:
        return None
    folded = {other.casefold(): other for other in known}
    matches = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=_TYPO)
    return folded[matches[0]] if matches else None
