"""Finds images and labels among named arrays and builds a data set from them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import NO_SPLIT, TEST, TRAIN, VALIDATION, Dataset, ImageSource
from crossroads.data.labels import encode, labelled_dataset
from crossroads.data.pictures import SAMPLE, conversion, not_an_array, range_note, source_of, value_range
from crossroads.data.readers._folder_names import split_files
from crossroads.data.readers._listing import Listing
from crossroads.data.readers._sources import MemoryImages, joined
from crossroads.errors import DataError
from crossroads.progress import Note

IMAGE_KEYS = ("features", "images", "data", "x")
LABEL_KEYS = ("labels", "label", "targets", "y")
_SPLIT_WORDS = ((TRAIN, ("train",)), (VALIDATION, ("validation", "valid", "val")), (TEST, ("test",)))

T = TypeVar("T")
Pair = tuple[int, str, T, T]
"""A split, the name of the images, the images, and their labels."""


def array_images(pixels: NDArray[np.generic], name: str) -> MemoryImages:
    """Returns the images of one array as a source. Does not copy the array.

    Args:
        pixels: (n, height, width) or (n, height, width, 1, 3 or 4), of a dtype that `pictures.conversion` accepts.
        name: Name of the array in messages.

    Raises:
        DataError: The array has another shape, dtype or range of values, contains NaN, or holds images without pixels.
    """
    _check_shape(pixels.shape, name)
    return MemoryImages(pixels, conversion(pixels, name), name)


def _check_shape(shape: tuple[int, ...], name: str) -> None:
    """Raises `DataError` if an array of this shape cannot hold several images."""
    received = f"shape {shape}"
    if not (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3, 4))):
        hint = None
        if len(shape) == 4 and shape[1] in (1, 3, 4):
            hint = "move the channels last: images.transpose(0, 2, 3, 1)"
        elif len(shape) == 2 and (size := round(shape[1] ** 0.5)) ** 2 == shape[1]:
            hint = f"give the images their shape: images.reshape(-1, {size}, {size})"
        rule = f"{name} must have shape (n, height, width) or (n, height, width, 1, 3 or 4)"
        raise DataError(rule, code="wrong-shape", received=received, hint=hint)
    if len(shape) == 3 and shape[2] in (1, 3, 4) and shape[1] > 8 and shape[0] > 8:
        hint = (
            "give a single image as images[np.newaxis]; if the shape is really (n, height, width), "
            "add a channel: images[..., np.newaxis]"
        )
        raise DataError(f"{name} looks like a single image", code="single-image", received=received, hint=hint)
    if shape[0] and 0 in shape:
        raise DataError(f"images of {name} must have pixels", code="no-pixels", received=received)


def dataset_of_pairs(
    pairs: Sequence[Pair[object]],
    origin: str,
    notes: Sequence[Note] = (),
    *,
    source: Callable[[object, str], MemoryImages] | None = None,
    splits: Sequence[int] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> Dataset:
    """Builds a data set from one or several pairs. Classes of different pairs are matched by name.

    Args:
        pairs: At least one (split, name, images, labels).
        origin: Name of the data in messages.
        notes: The reader's notes.
        source: Creates an image source from images and their name. The default is `numeric_images`, which accepts only numbers.
        splits: The split of each image. Given only with a single pair.
        groups: The group of each image. Given only with a single pair. An image with the group None is in no group with others.
    """
    labels, row_splits = list[str](), list[int]()
    sources, range_notes = list[ImageSource](), list[Note]()
    for split, name, images, values in pairs:
        part = (source or numeric_images)(images, name)
        codes, classes = encode(values, what=f"the labels of {name}")
        for what, column in (("label", codes), ("split", splits), ("group", groups)):
            if column is not None and len(column) != len(part):
                raise DataError(
                    f"{name} must have one {what} for each image",
                    code="length-mismatch",
                    received=f"{len(part)} images and {len(column)} {what}s",
                    hint="pass one value per image",
                )
        labels += [classes[code] for code in codes.tolist()]
        row_splits += [split] * len(part) if splits is None else splits
        sources.append(part)
        range_notes += _range_notes(part, name)
    if not labels:
        raise DataError(f"{origin} must hold at least one image", code="no-images", received="0 images", hint="add images")
    return labelled_dataset(origin, joined(sources), labels, row_splits, groups, (*notes, *range_notes))


def _range_notes(images: MemoryImages, name: str) -> list[Note]:
    """Returns a note if too many images of a sample are dark. Encoded files are not checked until they are decoded."""
    sample = np.unique(np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).round().astype(int)).tolist()
    ranges = [extent for index in sample if (extent := value_range(images.picture(index))) is not None]
    note = range_note(ranges)
    return [] if note is None else [note.prefixed(f"{name}: ", array=name)]


def numeric_images(images: object, name: str) -> MemoryImages:
    """Creates an image source from one array, a list of arrays, or nested lists of numbers. Strings are never read as paths."""
    if isinstance(images, np.ndarray) and images.dtype.kind != "O":
        return array_images(images, name)
    if not isinstance(images, (list, tuple, np.ndarray)):
        raise DataError(f"{name} must be an array of images", code="not-images", received=f"a {type(images).__name__}")
    items = list(images)
    arrays = [image for image in items if isinstance(image, np.ndarray)]
    if arrays and len(arrays) == len(items):
        # The arrays are not stacked. A list may hold one array many times, and the stack would then be far larger than the list.
        if len({array.shape for array in arrays}) == 1:
            _check_shape((len(arrays), *arrays[0].shape), name)
            for array in {id(array): array for array in arrays}.values():
                conversion(array, name)
        return MemoryImages(items, source_of, name)
    try:
        return array_images(np.asarray(items), name)
    except (ValueError, MemoryError) as error:
        received = "lists of different lengths" if isinstance(error, ValueError) else "more numbers than fit in memory"
        hint = "pass an array or a list of arrays"
        raise DataError(f"{name} must be images of numbers", code="not-images", received=received, hint=hint) from error
    except (TypeError, RuntimeError) as error:
        raise not_an_array(items[0], name, error) from error


def pairs_of_files(
    listing: Listing, files: Sequence[str], what: str, arrays_of: Callable[[str], Mapping[str, T]]
) -> Iterator[Pair[T]]:
    """Yields the pairs in one file, or in one file for each split. Names of arrays such as ``x_train`` may also give the split."""
    for file_split, name in split_files(files, listing.origin, what):
        label = listing.label(name)
        for split, key, images, labels in find_pairs(arrays_of(name), label):
            yield split or file_split, f"{label}:{key}" if file_split and not split else key, images, labels


def find_pairs(arrays: Mapping[str, T], origin: str) -> list[Pair[T]]:
    """Finds pairs of images and labels among named arrays.

    Names are `features` and `labels`, `x` and `y`, or, for each split, `x_train` and `y_train`, `x_test` and `y_test`.

    Raises:
        DataError: There is no such pair, or there are two pairs for the training images.
    """
    return [(split, images, arrays[images], arrays[labels]) for split, images, labels in find_names(list(arrays), origin)]


def find_names(keys: Sequence[str], origin: str) -> list[tuple[int, str, str]]:
    """Returns (split, images, labels) for each pair, with the names of the arrays. `x` beside `x_test` is the training set."""
    by_lower = {name.lower(): name for name in keys}
    pairs = []
    for split, words in _SPLIT_WORDS:
        patterns = (form.format(word) for word in words for form in ("{{}}_{0}", "{0}_{{}}", "{{}}{0}", "{0}{{}}"))
        if (pair := next(filter(None, (_pair(by_lower, pattern) for pattern in patterns)), None)) is not None:
            pairs.append((split, *pair))
    if (pair := _pair(by_lower, "{}")) is not None:
        if pairs and pairs[0][0] == TRAIN:
            raise DataError(
                f"{origin} must hold each split once",
                code="repeated-split",
                received=f"{pair[0]!r} beside {pairs[0][1]!r}",
                hint="remove the images and labels without a split",
            )
        pairs.insert(0, (TRAIN if pairs else NO_SPLIT, *pair))
    if not pairs:
        raise DataError(
            f"{origin} must hold images and labels",
            code="no-pair",
            received=f"arrays named {', '.join(map(repr, list(keys)[:8])) or 'nothing'}",
            hint=f"name the images one of {', '.join(IMAGE_KEYS)} and the labels one of {', '.join(LABEL_KEYS)}",
        )
    return pairs


def _pair(names: Mapping[str, str], pattern: str) -> tuple[str, str] | None:
    """Returns the names of images and labels that follow a pattern such as ``{}_train``, or None."""
    images = next((names[key] for word in IMAGE_KEYS if (key := pattern.format(word)) in names), None)
    labels = next((names[key] for word in LABEL_KEYS if (key := pattern.format(word)) in names), None)
    return None if images is None or labels is None else (images, labels)
