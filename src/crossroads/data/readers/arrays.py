"""Images and labels that are arrays in memory, and how to tell images from labels among named arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import NO_SPLIT, TEST, TRAIN, VALIDATION, Dataset, ImageSource
from crossroads.data.labels import Rows, encode
from crossroads.data.readers._view import split_of
from crossroads.errors import DataError, ImageRefused

IMAGE_KEYS = ("features", "images", "data", "x")
LABEL_KEYS = ("labels", "label", "targets", "y")
_SPLIT_PREFIXES = ((TRAIN, ("train",)), (VALIDATION, ("validation", "valid", "val")), (TEST, ("test",)))
_CHUNK = 1 << 24

T = TypeVar("T")
Pair = tuple[int, str, T, T]
"""Split, what to call the images, images, labels."""


class ArrayImages:
    """Images that are rows of one array, turned into uint8 one at a time, so that a large array is not copied."""

    def __init__(
        self, pixels: NDArray[np.generic], convert: Callable[[NDArray[np.generic]], NDArray[np.uint8]] | None, name: str
    ) -> None:
        self._pixels = pixels
        self._convert = convert
        self._name = name

    def __len__(self) -> int:
        return len(self._pixels)

    def name(self, index: int) -> str:
        """Such as ``features[12]``."""
        return f"{self._name}[{index}]"

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """The pixels, uint8 (height, width[, channels])."""
        row = self._pixels[index]
        return self._convert(row) if self._convert else row


class ListImages:
    """Images that are arrays of their own, of any sizes."""

    def __init__(self, images: Sequence[object], name: str) -> None:
        self._images = images
        self._name = name

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        """Such as ``images[12]``."""
        return f"{self._name}[{index}]"

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """The pixels, uint8 (height, width[, channels]). Raises ImageRefused where they are no image."""
        name = self.name(index)
        try:
            one = array_images(np.asarray(self._images[index])[np.newaxis], name)
        except (DataError, ValueError) as error:
            raise ImageRefused(f"not an image: {error}") from error
        return one.read(0)


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

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """As the part reads it."""
        source, inner = self._place(index)
        return source.read(inner)


def array_images(pixels: NDArray[np.generic], name: str) -> ArrayImages:
    """Images of one array, without copying it.

    Args:
        pixels: (n, height, width) or (n, height, width, 1, 3 or 4); uint8, or other integers that mean 0..255, uint16 that means
            0..65535 and is divided by 257, booleans, or floats that mean [0, 1] and are multiplied by 255; both are rounded.
        name: What to call the array in a message.

    The type alone says what the values mean: one image is read alike in any company. The values are looked at only to tell that
    they are valid, which is the same for train and test images.

    Raises:
        DataError: Another shape, type or range, a NaN, or images without pixels.
    """
    _check_shape(pixels.shape, name)
    kind = pixels.dtype.kind
    if pixels.dtype == np.uint8:
        return ArrayImages(pixels, None, name)
    if kind == "b":
        return ArrayImages(pixels, _from_bool, name)
    if kind not in "iuf":
        mend = "stack images of one size, or pass a list of arrays" if kind == "O" else "convert it to uint8"
        raise DataError(f"{name} must be an array of numbers", received=f"dtype {pixels.dtype}", mend=mend)
    if kind == "u" and pixels.dtype.itemsize == 2:  # of either byte order
        return ArrayImages(pixels, _from_uint16, name)
    low, high = _range(pixels)
    if kind == "f":
        if not (low >= 0 and high <= 1):  # false for NaN as well
            raise DataError(
                f"images of floats in {name} must lie in [0, 1]", received=f"{low:g} to {high:g}", mend=_float_mend(low, high)
            )
        return ArrayImages(pixels, _from_float, name)
    if low >= 0 and high <= 255:
        return ArrayImages(pixels, _from_int, name)
    raise DataError(
        f"images of integers in {name} must lie in 0..255",
        received=f"{low:g} to {high:g}",
        mend="scale them and convert to uint8, or convert 0..65535 to uint16",
    )


def _float_mend(low: float, high: float) -> str:
    if not (np.isfinite(low) and np.isfinite(high)):
        return "replace NaN and infinity"
    if low >= 0:
        return f"divide by {255 if high > 16 else high:g}, or convert 0..255 to uint8"
    return "undo the normalisation: preprocessing is part of the model"


def _check_shape(shape: tuple[int, ...], name: str) -> None:
    good = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3, 4))
    if not good:
        mend = None
        if len(shape) == 4 and shape[1] in (1, 3, 4):
            mend = "move the channels last: images.transpose(0, 2, 3, 1)"
        elif len(shape) == 2 and (side := round(shape[1] ** 0.5)) ** 2 == shape[1]:
            mend = f"give the images their shape: images.reshape(-1, {side}, {side})"
        raise DataError(
            f"{name} must have shape (n, height, width) or (n, height, width, 1, 3 or 4)", received=f"shape {shape}", mend=mend
        )
    if len(shape) == 3 and shape[2] in (1, 3, 4) and shape[1] > 8 and shape[0] > 8:
        mend = "give one image as images[np.newaxis]; really (n, height, width)? then add a channel: images[..., np.newaxis]"
        raise DataError(f"{name} looks like a single image", received=f"shape {shape}", mend=mend)
    if shape[0] and 0 in shape:
        raise DataError(f"images of {name} must have pixels", received=f"shape {shape}")


def _range(pixels: NDArray[np.generic]) -> tuple[float, float]:
    """Smallest and largest value, a stretch at a time so that a memory-mapped array stays on disk; NaN where there is one."""
    low, high = np.inf, -np.inf
    step = max(1, _CHUNK // max(1, pixels[:1].size))
    for start in range(0, len(pixels), step):
        part = pixels[start : start + step]
        low = np.minimum(low, np.min(part))
        high = np.maximum(high, np.max(part))
    return (float(low), float(high)) if len(pixels) else (0.0, 0.0)


def _from_bool(row: NDArray[np.generic]) -> NDArray[np.uint8]:
    return row.astype(np.uint8) * np.uint8(255)


def _from_float(row: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.rint(row.astype(np.float64) * 255).astype(np.uint8)


def _from_int(row: NDArray[np.generic]) -> NDArray[np.uint8]:
    return row.astype(np.uint8)


def _from_uint16(row: NDArray[np.generic]) -> NDArray[np.uint8]:
    return ((row.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257: full range to full range, rounded


def from_pairs(pairs: Sequence[Pair[object]], origin: str, notes: Sequence[str] = ()) -> Dataset:
    """The data set of several (split, name, images, labels), their classes united by name."""
    rows, sources = Rows(), list[ImageSource]()
    for split, name, images, values in pairs:
        source = _source(images, name)
        codes, classes = encode(values, what=f"the labels of {name}")
        if len(codes) != len(source):
            raise DataError(
                f"{name} must have one label for each image",
                received=f"{len(source)} images and {len(codes)} labels",
                mend="check how they were saved",
            )
        for code in codes.tolist():
            rows.add(classes[code], split=split)
        sources.append(source)
    if not len(rows):
        raise DataError(f"{origin} must hold at least one image", received="0 images")
    return rows.dataset(origin, sources[0] if len(sources) == 1 else Joined(sources), notes)


def _source(images: object, name: str) -> ImageSource:
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
                array_images(array[np.newaxis], name)
        return ListImages(items, name)
    try:
        return array_images(np.asarray(items), name)
    except (ValueError, MemoryError) as error:
        received = "lists of different lengths" if isinstance(error, ValueError) else "more numbers than fit in memory"
        raise DataError(f"{name} must be images of numbers", received=received, mend="pass an array or a list of arrays") from error


def read_arrays(images: object, labels: object) -> Dataset:
    """In-memory images and labels; see `array_images` and `labels.encode` for what they may be."""
    return from_pairs([(NO_SPLIT, "images", images, labels)], "arrays")


def pairs_of(arrays: Mapping[str, T], origin: str) -> list[Pair[T]]:
    """Find images and labels among named arrays: `features` and `labels`, `x` and `y`, or `x_train`, `y_train`, `x_test`, `y_test`.

    Raises:
        DataError: No such pair; says which names there are.
    """
    plain = {name.lower(): name for name in arrays}
    if (pair := _find(plain, "{}")) is not None:
        return [(NO_SPLIT, pair[0], arrays[pair[0]], arrays[pair[1]])]
    found = []
    for split, words in _SPLIT_PREFIXES:
        for pattern in (pattern for word in words for pattern in (f"{{}}_{word}", f"{word}_{{}}", f"{{}}{word}", f"{word}{{}}")):
            if (pair := _find(plain, pattern)) is not None:
                found.append((split, pair[0], arrays[pair[0]], arrays[pair[1]]))
                break
    if not found:
        raise DataError(
            f"{origin} must hold images and labels",
            received=f"arrays named {', '.join(map(repr, list(arrays)[:8])) or 'nothing'}",
            mend=f"name the images one of {', '.join(IMAGE_KEYS)} and the labels one of {', '.join(LABEL_KEYS)}",
        )
    return found


def _find(names: Mapping[str, str], pattern: str) -> tuple[str, str] | None:
    images = next((names[key] for word in IMAGE_KEYS if (key := pattern.format(word)) in names), None)
    labels = next((names[key] for word in LABEL_KEYS if (key := pattern.format(word)) in names), None)
    return None if images is None or labels is None else (images, labels)


def file_split(name: str) -> int | None:
    """The split that a file name speaks of, such as TEST for ``small_test_traffic.p``."""
    words = PurePosixPath(name).stem.lower().replace("-", "_").replace(".", "_").replace(" ", "_").split("_")
    return next((split for word in words if (split := split_of(word)) is not None), None)


def split_files(names: Sequence[str], origin: str, what: str) -> list[tuple[int, str]]:
    """Several files of one kind as (split, name): one file has no split; several must each name their own."""
    if len(names) == 1:
        return [(NO_SPLIT, names[0])]
    splits = [(file_split(name), name) for name in names]
    unclear = [name for split, name in splits if split is None]
    if unclear:
        raise DataError(
            f"{origin} holds {len(names)} {what} files, and it is not clear which to read",
            received=", ".join(names[:4]) + (", …" if len(names) > 4 else ""),
            mend="give the file itself, or name them after their splits: train, val, test",
        )
    return [(split, name) for split, name in splits if split is not None]
