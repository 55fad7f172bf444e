"""Reads images and labels in memory. They are given as one pair, one pair per split, a mapping, or one record per image."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossroads.data.dataset import NO_SPLIT, SPLITS, TEST, TRAIN, VALIDATION, Dataset
from crossroads.data.pictures import not_an_array, source_of
from crossroads.data.readers._arrays import (
    IMAGE_KEYS,
    LABEL_KEYS,
    Pair,
    dataset_of_pairs,
    find_names,
    find_pairs,
    numeric_images,
)
from crossroads.data.readers._folder_names import split_of
from crossroads.data.readers._sources import MemoryImages
from crossroads.errors import DataError
from crossroads.files.text import first_few, plural
from crossroads.progress import Note

PAIR = "give (images, labels), a mapping of both, or ((x_train, y_train), (x_test, y_test))"

_ENCODED = (str, os.PathLike, bytes, bytearray, Image.Image)
_UNLABELLED_KINDS = (("string", str), ("path", (str, os.PathLike)), ("image", (bytes, bytearray, Image.Image)))
_TEXT_DTYPES = ("U", "T")
_RECORD_IMAGES = ("image", "img", *IMAGE_KEYS)
_RECORD_LABELS = (*LABEL_KEYS, "class", "category", "target")
_SPLITS = ("split", "splits")
_GROUPS = ("groups", "group")
_MAX_SHOWN = 3


def read_memory(source: object) -> Dataset:
    """Returns labelled images in memory as a data set.

    Args:
        source: One pair ``(images, labels)``; two pairs for train and test, as `keras.datasets` returns them; three pairs for
            train, validation and test; a mapping of named arrays; or a list of mappings such as ``{"image": …, "label": …}``.

    Raises:
        DataError: The source is anything else. The hint says what to give instead.
    """
    if isinstance(source, Mapping):
        return _from_mapping({str(key): value for key, value in source.items()})
    if not isinstance(source, (tuple, list)):
        rule = "a source must be a path, or a pair (images, labels)"
        raise DataError(rule, code="unknown-source", received=_kind(source), hint=_hint(source))
    if source and all(isinstance(item, Mapping) for item in source):
        return _from_records(source)
    if source:
        _require_labels(source)
    if len(source) in (2, 3) and all(_is_labelled(item) for item in source):
        splits = ((TRAIN, "x_train"), (VALIDATION, "x_val"), (TEST, "x_test"))
        chosen = splits if len(source) == 3 else (splits[0], splits[2])
        return _from_pairs([(split, name, *pair) for (split, name), pair in zip(chosen, source, strict=True)])
    if len(source) == 2 and not _is_example(source[1]):
        return _from_pairs([(NO_SPLIT, "images", *source)])
    if source and all(_is_example(item) for item in source):
        received = f"{len(source)} pairs of one image and its label"
        raise DataError(PAIR, code="unknown-source", received=received, hint="transpose them: tuple(zip(*pairs))")
    raise DataError(PAIR, code="unknown-source", received=f"a {type(source).__name__} of {len(source)} items")


def _require_labels(source: Sequence[object]) -> None:
    """Raises `DataError` if a list holds only images and no labels."""
    for unit, kinds in _UNLABELLED_KINDS:
        if all(isinstance(item, kinds) for item in source):
            received = f"a {type(source).__name__} of {plural(len(source), unit)}"
            raise DataError("labels are missing", code="no-labels", received=received, hint=PAIR)


def _from_pairs(pairs: Sequence[Pair[object]], split: object = None, group: object = None, notes: Sequence[Note] = ()) -> Dataset:
    """Returns the data set of pairs. `split` and `group` give one value for each image and require a single pair."""
    splits = None if split is None else [_split(value) for value in _values(split, "split")]
    groups = None if group is None else [_group(value) for value in _values(group, "groups")]
    return dataset_of_pairs(pairs, "arrays", notes, source=_images, splits=splits, groups=groups)


def _from_mapping(arrays: Mapping[str, object]) -> Dataset:
    """Returns the data set of a mapping with images and labels, and possibly `groups` and `split`."""
    pairs = find_pairs(arrays, "the mapping")
    split, group = (next((key for key in keys if key in arrays), None) for keys in (_SPLITS, _GROUPS))
    used = {key for _, *names in find_names(list(arrays), "the mapping") for key in names} | {split, group}
    unused = [key for key in arrays if key not in used]
    ambiguous = [key for key in (split, group) if key and len(pairs) > 1]
    if unused or ambiguous:
        keys = unused or ambiguous
        raise DataError(
            "a mapping must hold only images and labels, of one set or of each split; one set may also have 'split' and 'groups'",
            code="unused-key",
            received=f"the {'key' if len(keys) == 1 else 'keys'} {', '.join(map(repr, keys))}",
            hint="remove what is not used",
        )
    return _from_pairs(pairs, arrays[split] if split else None, arrays[group] if group else None)


def _values(values: object, name: str) -> list[object]:
    """Returns a list of Python objects, one for each image."""
    if hasattr(values, "__array__"):
        return list(_as_array(values, name).tolist())
    if isinstance(values, Sequence) and not isinstance(values, (str, bytes)):
        return [value.item() if isinstance(value, np.generic) else value for value in values]
    rule = f"{name} must have one value for each image"
    raise DataError(rule, code="length-mismatch", received=_kind(values), hint="pass one value per image")


def _split(value: object) -> int:
    """Returns the split that a value names. None and an empty string mean no split."""
    if value is None or value == "":
        return NO_SPLIT
    split = split_of(value) if isinstance(value, str) else None
    if split is None:
        raise DataError(f"a split must be one of {', '.join(SPLITS[1:])}", code="unknown-split", received=repr(value))
    return split


def _group(value: object) -> Hashable:
    """Checks and returns the group of one image. None, NaN and an empty string mean that it is in no group with others."""
    if value is None or value == "" or value != value:
        return None
    if not isinstance(value, Hashable):
        raise DataError("a group must be a number or a text", code="group-type", received=_kind(value))
    return value


def _from_records(records: Sequence[Mapping[object, object]]) -> Dataset:
    """Returns the data set of records with one image each, such as the rows of a Hugging Face data set."""
    image, label = (next((key for key in keys if key in records[0]), None) for keys in (_RECORD_IMAGES, _RECORD_LABELS))
    if image is None or label is None or not all(image in record and label in record for record in records):
        raise DataError(
            "each record must hold an image and a label",
            code="incomplete-record",
            received=f"the keys {', '.join(map(repr, records[0]))}",
            hint="use the keys 'image' and 'label'",
        )
    split, group = (next((key for key in keys if any(key in record for record in records)), None) for keys in (_SPLITS, _GROUPS))
    ignored = sorted({str(key) for record in records for key in record} - {str(key) for key in (image, label, split, group)})
    text = f"these keys of the records are ignored: {first_few(list(map(repr, ignored)))}"
    return _from_pairs(
        [(NO_SPLIT, "images", [record[image] for record in records], [record[label] for record in records])],
        [record.get(split) for record in records] if split else None,
        [record.get(group) for record in records] if group else None,
        [Note(text, "keys-ignored", keys=ignored)] if ignored else [],
    )


def _images(images: object, name: str) -> MemoryImages:
    """Creates a source from images of any kind. Strings are paths here, because the program itself gave them, not a file."""
    if isinstance(images, (*_ENCODED, Mapping)):
        raise _not_images(name, f"one {type(images).__name__}")
    if hasattr(images, "__array__"):  # such as an array, a tensor or a column of a table
        images = _as_array(images, name)
    if isinstance(images, np.ndarray):
        if images.dtype.kind != "O" and not (images.dtype.kind in _TEXT_DTYPES and images.ndim == 1):
            return numeric_images(images, name)
        items = list(images.tolist() if images.dtype.kind in _TEXT_DTYPES else images)
    elif isinstance(images, Sequence):
        items = list(images)
    else:
        raise _not_images(name, _kind(images), _hint(images))
    if not any(isinstance(item, _ENCODED) for item in items):
        return numeric_images(items, name)
    _require_files([item for item in items if isinstance(item, (str, os.PathLike))])
    return MemoryImages(items, source_of, name)


def _not_images(name: str, received: str, hint: str | None = None) -> DataError:
    return DataError(f"{name} must be an array or a list of images", code="not-images", received=received, hint=hint)


def _as_array(item: object, name: str) -> NDArray[np.generic]:
    try:
        return np.asarray(item)
    except (ValueError, TypeError, RuntimeError, MemoryError) as error:
        raise not_an_array(item, name, error) from error


def _require_files(paths: Sequence[str | os.PathLike[str]]) -> None:
    """Raises `DataError` if a path is not a file."""
    missing = [path for path in paths if not os.path.isfile(path)]  # noqa: PTH113 - takes a third of the time of pathlib
    if missing:
        raise DataError(
            f"{len(missing)} of {plural(len(paths), 'path')} {'is not a file' if len(missing) == 1 else 'are not files'}",
            code="missing-files",
            received=first_few([str(path) for path in missing], _MAX_SHOWN),
            hint="paths are relative to the working directory",
        )


def _is_labelled(item: object) -> bool:
    """Returns whether an item is a pair of images and their labels."""
    return isinstance(item, (tuple, list)) and len(item) == 2 and _are_images(item[0]) and _are_labels(item[1])


def _are_images(item: object) -> bool:
    if hasattr(item, "__array__") and not isinstance(item, Image.Image):
        array = _as_array(item, "images")
        return array.ndim >= 3 or (array.ndim == 1 and array.dtype.kind in ("O", *_TEXT_DTYPES))
    return isinstance(item, Sequence) and not isinstance(item, (str, bytes)) and bool(item) and not _is_scalar(item[0])


def _are_labels(item: object) -> bool:
    if hasattr(item, "__array__") and not isinstance(item, Image.Image):
        return len(np.shape(item)) in (1, 2)
    if not isinstance(item, Sequence) or isinstance(item, (str, bytes)):
        return False
    return all(isinstance(label, str) or _is_scalar(label) or np.ndim(label) == 1 for label in list(item)[:_MAX_SHOWN])


def _is_scalar(item: object) -> bool:
    return isinstance(item, (bool, int, float, np.generic))


def _is_example(item: object) -> bool:
    """Returns whether an item is a pair of one image and its label."""
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        return False
    image, label = item
    if isinstance(image, (str, os.PathLike)):
        return _is_scalar(label)  # two strings may be two paths or two labels
    is_image = isinstance(image, (bytes, Image.Image)) or (hasattr(image, "__array__") and len(np.shape(image)) >= 2)
    return is_image and (_is_scalar(label) or isinstance(label, str))


def _kind(item: object) -> str:
    columns = getattr(item, "columns", None)
    if type(item).__name__ == "DataFrame" and columns is not None:
        return f"DataFrame with the columns {', '.join(map(str, list(columns)[:8]))}"
    return type(item).__name__


def _hint(item: object) -> str:
    """Returns a hint on how to turn an object of another library into images and labels."""
    if type(item).__name__ == "DataFrame":
        return "give its columns of paths and labels: (table['path'], table['label'])"
    if hasattr(item, "column_names"):  # Hugging Face
        return "give its columns of images and labels: (data['image'], data['label'])"
    if hasattr(item, "__getitem__") and hasattr(item, "__len__"):
        return "give its images and labels: ([image for image, _ in data], [label for _, label in data])"
    if hasattr(item, "__iter__"):
        return "pass lists, not an iterator; for pairs of an image and a label: tuple(zip(*data))"
    return PAIR
