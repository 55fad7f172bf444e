"""What a program has in memory: pictures of any kind with labels, as one pair, one pair per split, or one record per image."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossroads.data.dataset import NO_SPLIT, TEST, TRAIN, VALIDATION, Dataset
from crossroads.data.pictures import not_an_array
from crossroads.data.readers._arrays import (
    IMAGE_KEYS,
    LABEL_KEYS,
    ArrayImages,
    ListImages,
    Pair,
    array_source,
    from_pairs,
    named_pairs,
    pairs_of,
)
from crossroads.data.readers._listing import split_of
from crossroads.errors import DataError
from crossroads.files.text import plural

PAIR = "give (images, labels), a mapping of both, or ((x_train, y_train), (x_test, y_test))"

_ENCODED = (str, os.PathLike, bytes, bytearray, Image.Image)
_ALONE = (("string", str), ("path", (str, os.PathLike)), ("image", (bytes, bytearray, Image.Image)))
_RECORD_IMAGES = ("image", "img", *IMAGE_KEYS)
_SPLITS = ("split", "splits")
_GROUPS = ("groups", "group")
_TEXTS = ("U", "T")
_RECORD_LABELS = (*LABEL_KEYS, "class", "category", "target")
_SHOWN = 3


def read_memory(source: object) -> Dataset:
    """Labelled images in memory.

    Args:
        source: ``(images, labels)``; a mapping of named arrays; two pairs for train and test, or three for train, validation and
            test, as `keras.datasets` gives them; a list of mappings such as ``{"image": …, "label": …}``.

    Raises:
        DataError: Something else; says what to give instead.
    """
    if isinstance(source, Mapping):
        return _from_mapping({str(key): value for key, value in source.items()})
    if not isinstance(source, (tuple, list)):
        raise DataError("a source is a path, or a pair (images, labels)", received=_kind(source), hint=_hint(source))
    if source and all(isinstance(item, Mapping) for item in source):
        return _from_records(source)
    if source and (what := next((unit for unit, kinds in _ALONE if all(isinstance(item, kinds) for item in source)), None)):
        raise DataError("labels are missing", received=f"a {type(source).__name__} of {plural(len(source), what)}", hint=PAIR)
    if len(source) in (2, 3) and all(_is_labelled(item) for item in source):
        splits = ((TRAIN, "train"), (VALIDATION, "val"), (TEST, "test"))
        chosen = splits if len(source) == 3 else (splits[0], splits[2])
        return _from_pairs([(split, f"x_{name}", *pair) for (split, name), pair in zip(chosen, source, strict=True)])
    if len(source) == 2 and not _is_example(source[1]):
        return _from_pairs([(NO_SPLIT, "images", *source)])
    if source and all(_is_example(item) for item in source):
        raise DataError(PAIR, received=f"{len(source)} pairs of one image and its label", hint="turn them: tuple(zip(*pairs))")
    raise DataError(PAIR, received=f"a {type(source).__name__} of {len(source)} items")


def _from_pairs(pairs: Sequence[Pair[object]], split: object = None, group: object = None, notes: Sequence[str] = ()) -> Dataset:
    """The data set of pairs; `split` and `group` have one value for each image of a single pair."""
    sides = None if split is None else [_side(value) for value in _values(split, "split")]
    groups = None if group is None else [_group(value) for value in _values(group, "groups")]
    return from_pairs(pairs, "arrays", notes, source=_pictures, sides=sides, groups=groups)


def _from_mapping(arrays: Mapping[str, object]) -> Dataset:
    """Named images and labels, with `groups` and `split` beside them."""
    pairs = pairs_of(arrays, "the mapping")
    split, group = (next((key for key in keys if key in arrays), None) for keys in (_SPLITS, _GROUPS))
    used = {key for _, *names in named_pairs(list(arrays), "the mapping") for key in names} | {split, group}
    unread = [key for key in arrays if key not in used]
    several = [key for key in (split, group) if key and len(pairs) > 1]
    if unread or several:
        raise DataError(
            "a mapping holds images and labels of one set or of each split; a single set may have 'split' and 'groups'",
            received=f"the {'key' if len(unread or several) == 1 else 'keys'} {', '.join(map(repr, unread or several))}",
            hint="remove what is not used",
        )
    return _from_pairs(pairs, arrays[split] if split else None, arrays[group] if group else None)


def _values(values: object, name: str) -> list[object]:
    """One value for each image, as Python objects."""
    if hasattr(values, "__array__"):
        return list(_as_array(values, name).tolist())
    if isinstance(values, Sequence) and not isinstance(values, (str, bytes)):
        return [value.item() if isinstance(value, np.generic) else value for value in values]
    raise DataError(f"{name} must have one value for each image", received=_kind(values))


def _side(value: object) -> int:
    """The split that a value names; none for None and an empty text."""
    if value is None or value == "":
        return NO_SPLIT
    split = split_of(value) if isinstance(value, str) else None
    if split is None:
        raise DataError("a split is one of train, validation, test", received=repr(value))
    return split


def _group(value: object) -> Hashable:
    """What names a group; None, as well as NaN, for an image that stands alone."""
    if value is None or value == "" or value != value:
        return None
    if not isinstance(value, Hashable):
        raise DataError("a group must be a number or a text", received=_kind(value))
    return value


def _from_records(records: Sequence[Mapping[object, object]]) -> Dataset:
    """One mapping per image, as a list of the rows of a Hugging Face data set is."""
    image, label = (next((key for key in keys if key in records[0]), None) for keys in (_RECORD_IMAGES, _RECORD_LABELS))
    if image is None or label is None or not all(image in record and label in record for record in records):
        raise DataError(
            "each record must hold an image and a label",
            received=f"the keys {', '.join(map(repr, records[0]))}",
            hint="use the keys 'image' and 'label'",
        )
    split, group = (next((key for key in keys if any(key in record for record in records)), None) for keys in (_SPLITS, _GROUPS))
    others = sorted({str(key) for record in records for key in record} - {str(key) for key in (image, label, split, group)})
    notes = [f"keys of the records ignored: {', '.join(map(repr, others[:5]))}{', …' if len(others) > 5 else ''}"] if others else []
    return _from_pairs(
        [(NO_SPLIT, "images", [record[image] for record in records], [record[label] for record in records])],
        [record.get(split) for record in records] if split else None,
        [record.get(group) for record in records] if group else None,
        notes,
    )


def _pictures(images: object, name: str) -> ArrayImages | ListImages:
    """Images of any kind. Only what a program gives comes here: in a file, text is no path to open."""
    if isinstance(images, (*_ENCODED, Mapping)):
        raise DataError(f"{name} must be an array or a list of images", received=f"one {type(images).__name__}")
    if hasattr(images, "__array__"):  # also a tensor, or a column of a table
        images = _as_array(images, name)
    if isinstance(images, np.ndarray):
        images = images.tolist() if images.dtype.kind in _TEXTS and images.ndim == 1 else images
    elif isinstance(images, Sequence):
        images = list(images)
    if isinstance(images, np.ndarray) and images.dtype.kind != "O":
        return array_source(images, name)
    if not isinstance(images, (list, np.ndarray)):
        raise DataError(f"{name} must be an array or a list of images", received=_kind(images), hint=_hint(images))
    items = list(images)
    if not any(isinstance(item, _ENCODED) for item in items):
        return array_source(images, name)
    _require_there([item for item in items if isinstance(item, (str, os.PathLike))])
    return ListImages(items, name)


def _as_array(item: object, name: str) -> NDArray[np.generic]:
    try:
        return np.asarray(item)
    except (ValueError, TypeError, RuntimeError, MemoryError) as error:
        raise not_an_array(item, name, error) from error


def _require_there(paths: Sequence[str | os.PathLike[str]]) -> None:
    missing = [path for path in paths if not os.path.isfile(path)]  # noqa: PTH113 - a third of pathlib's time
    if missing:
        named = ", ".join(map(str, missing[:_SHOWN])) + (", …" if len(missing) > _SHOWN else "")
        raise DataError(
            f"{len(missing)} of {plural(len(paths), 'path')} {'is not a file' if len(missing) == 1 else 'are not files'}",
            received=named,
            hint="paths are relative to the working directory",
        )


def _is_labelled(item: object) -> bool:
    """Whether an item is images with their labels, and not images or labels alone."""
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        return False
    images, labels = item
    return _are_images(images) and _are_labels(labels)


def _are_images(item: object) -> bool:
    if hasattr(item, "__array__") and not isinstance(item, Image.Image):
        array = _as_array(item, "images")
        return array.ndim >= 3 or (array.ndim == 1 and array.dtype.kind in ("O", *_TEXTS))
    return isinstance(item, Sequence) and not isinstance(item, (str, bytes)) and bool(item) and not _is_scalar(item[0])


def _are_labels(item: object) -> bool:
    if hasattr(item, "__array__") and not isinstance(item, Image.Image):
        return len(np.shape(item)) in (1, 2)
    if not isinstance(item, Sequence) or isinstance(item, (str, bytes)):
        return False
    return all(isinstance(label, str) or _is_scalar(label) or np.ndim(label) == 1 for label in list(item)[:_SHOWN])


def _is_scalar(item: object) -> bool:
    return isinstance(item, (bool, int, float, np.generic))


def _is_example(item: object) -> bool:
    """Whether an item is one image with its one label."""
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        return False
    image, label = item
    if isinstance(image, (str, os.PathLike)):
        return _is_scalar(label)  # two texts may be two paths, or two labels
    single = isinstance(image, (bytes, Image.Image)) or (hasattr(image, "__array__") and len(np.shape(image)) >= 2)
    return single and (_is_scalar(label) or isinstance(label, str))


def _kind(item: object) -> str:
    columns = getattr(item, "columns", None)
    if type(item).__name__ == "DataFrame" and columns is not None:
        return f"DataFrame with the columns {', '.join(map(str, list(columns)[:8]))}"
    return type(item).__name__


def _hint(item: object) -> str:
    if type(item).__name__ == "DataFrame":
        return "give two of its columns, of paths and of labels: (table['path'], table['label'])"
    if hasattr(item, "column_names"):  # of Hugging Face
        return "give two of its columns, of images and of labels: (data['image'], data['label'])"
    if hasattr(item, "__getitem__") and hasattr(item, "__len__"):
        return "give its images and labels: ([image for image, _ in data], [label for _, label in data])"
    if hasattr(item, "__iter__"):
        return "pass lists, not an iterator: tuple(zip(*data)) where it gives pairs of an image and a label"
    return PAIR
