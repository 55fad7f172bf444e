"""Images and labels that are arrays, and how to tell images from labels among named arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import NO_SPLIT, TEST, TRAIN, VALIDATION, Dataset, ImageSource, MemorySource
from crossroads.data.labels import DatasetBuilder, encode
from crossroads.data.pictures import SAMPLE, Convert, conversion, not_an_array, range_note, source_of, value_range
from crossroads.errors import DataError
from crossroads.files._words import shown

IMAGE_KEYS = ("features", "images", "data", "x")
LABEL_KEYS = ("labels", "label", "targets", "y")
_SPLIT_PREFIXES = ((TRAIN, ("train",)), (VALIDATION, ("validation", "valid", "val")), (TEST, ("test",)))

T = TypeVar("T")
Pair = tuple[int, str, T, T]
"""Split, what to call the images, images, labels."""


class ArrayImages:
    """Images that are rows of one array, turned into uint8 one at a time, so that a large array is not copied."""

    def __init__(self, pixels: NDArray[np.generic], convert: Convert | None, name: str) -> None:
        self._pixels = pixels
        self._convert = convert
        self._name = name

    def __len__(self) -> int:
        return len(self._pixels)

    def name(self, index: int) -> str:
        """Such as ``features[12]``."""
        return f"{self._name}[{index}]"

    def picture(self, index: int) -> object:
        """One image as it was given."""
        return self._pixels[index]

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """The pixels, uint8 (height, width[, channels])."""
        row = self._pixels[index]
        return self._convert(row) if self._convert else row


class ListImages:
    """Images of their own kinds and sizes."""

    def __init__(self, images: Sequence[object], name: str) -> None:
        self._images = images
        self._name = name

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        """The path of a file; else such as ``images[12]``."""
        image = self._images[index]
        return shown(str(image)) if isinstance(image, (str, os.PathLike)) else f"{self._name}[{index}]"

    def picture(self, index: int) -> object:
        """One image as it was given."""
        return self._images[index]

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """The encoded file, or the pixels, uint8 (height, width[, channels]). Raises ImageRefused where it is no image."""
        return source_of(self._images[index])


class Joined:
    """Several sources one after the other."""

    def __init__(self, parts: Sequence[ImageSource]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _place(self, index: int) -> tuple[ImageSource, int]:
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[part], index - (int(self._ends[part - 1]) if part else 0)

    def name(self, index: int) -> str:
        """As the part calls it."""
        source, inner = self._place(index)
        return source.name(inner)

    def picture(self, index: int) -> object:
        """One image as it was given; None where its part is files."""
        source, inner = self._place(index)
        return source.picture(inner) if isinstance(source, MemorySource) else None

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """As the part reads it."""
        source, inner = self._place(index)
        return source.read(inner)


def array_images(pixels: NDArray[np.generic], name: str) -> ArrayImages:
    """Images of one array, without copying it.

    Args:
        pixels: (n, height, width) or (n, height, width, 1, 3 or 4), of a type that `pictures.conversion` knows.
        name: What to call the array in a message.

    Raises:
        DataError: Another shape, type or range, a NaN, or images without pixels.
    """
    _check_shape(pixels.shape, name)
    return ArrayImages(pixels, conversion(pixels, name), name)


def _check_shape(shape: tuple[int, ...], name: str) -> None:
    good = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3, 4))
    if not good:
        hint = None
        if len(shape) == 4 and shape[1] in (1, 3, 4):
            hint = "move the channels last: images.transpose(0, 2, 3, 1)"
        elif len(shape) == 2 and (side := round(shape[1] ** 0.5)) ** 2 == shape[1]:
            hint = f"give the images their shape: images.reshape(-1, {side}, {side})"
        raise DataError(
            f"{name} must have shape (n, height, width) or (n, height, width, 1, 3 or 4)", received=f"shape {shape}", hint=hint
        )
    if len(shape) == 3 and shape[2] in (1, 3, 4) and shape[1] > 8 and shape[0] > 8:
        hint = "give one image as images[np.newaxis]; really (n, height, width)? then add a channel: images[..., np.newaxis]"
        raise DataError(f"{name} looks like a single image", received=f"shape {shape}", hint=hint)
    if shape[0] and 0 in shape:
        raise DataError(f"images of {name} must have pixels", received=f"shape {shape}")


def from_pairs(
    pairs: Sequence[Pair[object]],
    origin: str,
    notes: Sequence[str] = (),
    *,
    source: Callable[[object, str], ArrayImages | ListImages] | None = None,
    sides: Sequence[int] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> Dataset:
    """The data set of several (split, name, images, labels), their classes united by name.

    Args:
        pairs: At least one.
        origin: What to call them all.
        notes: What the reader has to say of them.
        source: Makes the images of what stands for them and its name; `array_source` by default, which reads nothing but numbers.
        sides: The split of each image of a single pair.
        groups: The group of each image of a single pair, or None for those that stand alone.
    """
    rows, sources, odd = DatasetBuilder(), list[ImageSource](), []
    for split, name, images, values in pairs:
        found = (source or array_source)(images, name)
        codes, classes = encode(values, what=f"the labels of {name}")
        if len(codes) != len(found):
            raise DataError(
                f"{name} must have one label for each image",
                received=f"{len(found)} images and {len(codes)} labels",
                hint="check how they were saved",
            )
        for what, beside in (("split", sides), ("group", groups)):
            if beside is not None and len(beside) != len(found):
                raise DataError(
                    f"{name} must have one {what} for each image", received=f"{len(found)} images and {len(beside)} {what}s"
                )
        for row, code in enumerate(codes.tolist()):
            side, group = sides[row] if sides is not None else split, groups[row] if groups is not None else None
            rows.add(classes[code], split=side, group=group)
        sources.append(found)
        odd += _odd_range(found, name)
    if not len(rows):
        raise DataError(f"{origin} must hold at least one image", received="0 images")
    return rows.build(origin, sources[0] if len(sources) == 1 else Joined(sources), (*notes, *odd))


def _odd_range(images: ArrayImages | ListImages, name: str) -> list[str]:
    """A note where the values of a sample of the images are dark; files are looked at where they are decoded."""
    sample = np.unique(np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).round().astype(int)).tolist()
    extents = [extent for index in sample if (extent := value_range(images.picture(index))) is not None]
    note = range_note(extents)
    return [] if note is None else [f"{name}: {note}"]


def array_source(images: object, name: str) -> ArrayImages | ListImages:
    """Images that are numbers: one array, or a list of arrays or of nested lists; text is never taken for paths."""
    if isinstance(images, np.ndarray) and images.dtype.kind != "O":
        return array_images(images, name)
    if not isinstance(images, (list, tuple, np.ndarray)):
        raise DataError(f"{name} must be an array of images", received=f"a {type(images).__name__}")
    items = list(images)
    arrays = [image for image in items if isinstance(image, np.ndarray)]
    if arrays and len(arrays) == len(items):
        # They are never stacked: a list may name one array many times, and then the stack is far larger than the list.
        if len({array.shape for array in arrays}) == 1:
            _check_shape((len(arrays), *arrays[0].shape), name)
            for array in {id(array): array for array in arrays}.values():
                conversion(array, name)
        return ListImages(items, name)
    try:
        return array_images(np.asarray(items), name)
    except (ValueError, MemoryError) as error:
        received = "lists of different lengths" if isinstance(error, ValueError) else "more numbers than fit in memory"
        raise DataError(f"{name} must be images of numbers", received=received, hint="pass an array or a list of arrays") from error
    except (TypeError, RuntimeError) as error:
        raise not_an_array(items[0], name, error) from error


def pairs_of(arrays: Mapping[str, T], origin: str) -> list[Pair[T]]:
    """Find images and labels among named arrays: `features` and `labels`, `x` and `y`, or `x_train`, `y_train`, `x_test`, `y_test`.

    Raises:
        DataError: No such pair, or two for the training images; says which names there are.
    """
    return [(split, images, arrays[images], arrays[labels]) for split, images, labels in named_pairs(list(arrays), origin)]


def named_pairs(keys: Sequence[str], origin: str) -> list[tuple[int, str, str]]:
    """The names of images and labels that `pairs_of` finds, with their splits; `x` beside `x_test` is the training set."""
    plain = {name.lower(): name for name in keys}
    found = []
    for split, words in _SPLIT_PREFIXES:
        for pattern in (pattern for word in words for pattern in (f"{{}}_{word}", f"{word}_{{}}", f"{{}}{word}", f"{word}{{}}")):
            if (pair := _find(plain, pattern)) is not None:
                found.append((split, *pair))
                break
    if (pair := _find(plain, "{}")) is not None:
        if found and found[0][0] == TRAIN:
            raise DataError(
                f"{origin} must hold each split once",
                received=f"{pair[0]!r} beside {found[0][1]!r}",
                hint="remove the images and labels without a split",
            )
        found.insert(0, (TRAIN if found else NO_SPLIT, *pair))
    if not found:
        raise DataError(
            f"{origin} must hold images and labels",
            received=f"arrays named {', '.join(map(repr, list(keys)[:8])) or 'nothing'}",
            hint=f"name the images one of {', '.join(IMAGE_KEYS)} and the labels one of {', '.join(LABEL_KEYS)}",
        )
    return found


def _find(names: Mapping[str, str], pattern: str) -> tuple[str, str] | None:
    images = next((names[key] for word in IMAGE_KEYS if (key := pattern.format(word)) in names), None)
    labels = next((names[key] for word in LABEL_KEYS if (key := pattern.format(word)) in names), None)
    return None if images is None or labels is None else (images, labels)
