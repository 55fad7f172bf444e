"""Converts one picture of any kind (a path, bytes, an array or a Pillow image) to a form that `images.decode` accepts.

This module handles what users pass in, `formats` recognises file formats, and `images` decodes and resizes. Training, evaluation
and prediction all use these three modules, so they all see the same pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossroads.data.images import ARRAY_SHAPES, Pixels, ValueRange, from_pillow, pillow_range
from crossroads.errors import DataError, ImageRefused
from crossroads.files.archives import MEMBER
from crossroads.files.byte_ranges import read_plain
from crossroads.progress import Note

Picture = str | os.PathLike[str] | bytes | NDArray[np.generic] | Image.Image
"""The types of a picture. Other array-like objects are accepted as well."""

Convert = Callable[[NDArray[np.generic]], Pixels]

SAMPLE = 32
"""Number of images that are sampled to check the range of values. Half of a sample is rarely dark unless half of all images are."""

_CHUNK = 1 << 24


def source_of(picture: object) -> bytes | Pixels:
    """Converts one picture of any kind to a form that `images.decode` accepts.

    Args:
        picture: The path of a file, an encoded file as bytes, a Pillow image of any mode, or an array (height, width) or (height,
            width, 1, 3 or 4) of a type that `conversion` accepts.

    Raises:
        ImageRefused: The file is unreadable, the Pillow image is closed, or the object is not an image, or its values are out of
            range.
    """
    if isinstance(picture, (str, os.PathLike)):
        return _file(picture)
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return bytes(picture)
    if isinstance(picture, Image.Image):
        return from_pillow(picture)
    array = _array(picture)
    if array is None:
        raise ImageRefused(
            "an image must be a path, bytes, an array or a Pillow image", code="not-an-image", received=type(picture).__name__
        )
    if array.ndim not in (2, 3):
        raise ImageRefused(ARRAY_SHAPES, code="wrong-shape", received=f"shape {array.shape}")
    try:
        convert = conversion(array, "the array")
    except DataError as error:
        raise _as_refusal(error) from error
    return np.asarray(array, np.uint8) if convert is None else convert(array)


def _file(path: str | os.PathLike[str]) -> bytes:
    try:
        return read_plain(path, MEMBER)
    except OSError as error:
        if os.path.isdir(path):  # noqa: PTH112 - the error for reading a folder differs between systems
            raise ImageRefused("is a folder", code="is-a-folder", hint="give image files") from error
        raise unreadable_file(error) from error
    except ValueError as error:  # such as a null character in the path
        raise unreadable_file(error) from error


def unreadable_file(error: Exception) -> ImageRefused:
    """Returns the error for an image file that cannot be read."""
    received = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    hint = "check the path and its permissions"
    return ImageRefused("the file cannot be read", code="file-unreadable", received=received, hint=hint)


def _array(picture: object) -> NDArray[np.generic] | None:
    if not hasattr(picture, "__array__") and not isinstance(picture, (list, tuple)):
        return None
    try:
        return np.asarray(picture)
    except (ValueError, MemoryError) as error:
        raise ImageRefused("an image must be rows of numbers", code="not-an-image", received=type(picture).__name__) from error
    except (TypeError, RuntimeError) as error:  # `__array__` raises these, for example for a tensor that records gradients
        raise _as_refusal(not_an_array(picture, "an image", error)) from error


def _as_refusal(error: DataError) -> ImageRefused:
    return ImageRefused(error.rule, code=error.code, received=error.received, hint=error.hint)


def not_an_array(item: object, name: str, error: Exception) -> DataError:
    """Returns the error for an object that NumPy cannot convert, such as a PyTorch tensor with gradients or on a GPU."""
    call = ".detach().cpu().numpy()" if isinstance(error, TypeError) else ".detach().numpy()"
    hint = f"call {call}" if hasattr(item, "detach") else "convert it with numpy.asarray"
    return DataError(
        f"{name} cannot be read as an array of numbers", code="not-an-array", received=f"{type(item).__name__}: {error}", hint=hint
    )


def conversion(pixels: NDArray[np.generic], name: str) -> Convert | None:
    """Returns a function that converts one image of an array to uint8. Returns None if the array is uint8 already.

    The dtype alone determines the scale, and the values are only checked. An image is therefore converted in the same way,
    whichever other images are in the array. Results are rounded.

    Args:
        pixels: One or several images: uint8, other integers in 0..255, uint16 (divided by 257), booleans, or floats in [0, 1]
            (multiplied by 255).
        name: Name of the array in messages.

    Raises:
        DataError: The array has another dtype, contains values out of range, or contains NaN.
    """
    kind = pixels.dtype.kind
    if pixels.dtype == np.uint8:
        return None
    if kind == "b":
        return _from_bool
    if kind not in "iuf":
        hint = "stack images of one size, or pass a list of arrays" if kind == "O" else "convert it to uint8"
        raise DataError(f"{name} must be an array of numbers", code="not-an-array", received=f"dtype {pixels.dtype}", hint=hint)
    if kind == "u" and pixels.dtype.itemsize == 2:  # a comparison with np.uint16 would miss the other byte order
        return _from_uint16
    low, high = _range(pixels)
    if kind == "f":
        if not (low >= 0 and high <= 1):  # written so that NaN fails as well
            raise DataError(
                f"images of floats in {name} must be in [0, 1]",
                code="out-of-range",
                received=f"{low:g} to {high:g}",
                hint=_float_hint(low, high),
            )
        return _from_float
    if low >= 0 and high <= 255:
        return _from_int
    raise DataError(
        f"images of integers in {name} must be in 0..255",
        code="out-of-range",
        received=f"{low:g} to {high:g}",
        hint="scale them and convert to uint8, or convert 0..65535 to uint16",
    )


def _float_hint(low: float, high: float) -> str:
    if not (np.isfinite(low) and np.isfinite(high)):
        return "replace NaN and infinity"
    if low >= 0:
        return f"divide by {255 if high > 16 else high:g}, or convert 0..255 to uint8"
    return "undo the normalisation: preprocessing is part of the model"


def _range(pixels: NDArray[np.generic]) -> tuple[float, float]:
    """Returns the smallest and the largest value. Both are NaN if the array contains NaN.

    The array is read in chunks, so a memory-mapped array is never in memory as a whole.
    """
    if not pixels.size:
        return 0.0, 0.0
    low, high = np.inf, -np.inf
    step = max(1, _CHUNK // max(1, pixels[:1].size))
    for start in range(0, len(pixels), step):
        part = pixels[start : start + step]
        low = np.minimum(low, np.min(part))
        high = np.maximum(high, np.max(part))
    return float(low), float(high)


def _from_bool(row: NDArray[np.generic]) -> Pixels:
    return row.astype(np.uint8) * np.uint8(255)


def _from_float(row: NDArray[np.generic]) -> Pixels:
    return np.rint(row.astype(np.float64) * 255).astype(np.uint8)


def _from_int(row: NDArray[np.generic]) -> Pixels:
    return row.astype(np.uint8)


def _from_uint16(row: NDArray[np.generic]) -> Pixels:
    return ((row.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257, and 128 rounds to the nearest


def value_range(picture: object) -> ValueRange | None:
    """Returns the range of values of a picture in memory, or None for a path, encoded bytes or anything that is not a picture."""
    if isinstance(picture, (str, os.PathLike, bytes, bytearray, memoryview)):
        return None
    try:
        if isinstance(picture, Image.Image):
            return pillow_range(picture)
        array = _array(picture)
    except ImageRefused:
        return None
    if array is None or array.dtype.kind not in "buif" or not array.size:
        return None
    full = 1 if array.dtype.kind in "bf" else 65535 if array.dtype.kind == "u" and array.dtype.itemsize == 2 else 255
    return ValueRange(array.min().item(), array.max().item(), full)


def misscaled(ranges: Sequence[ValueRange]) -> list[bool]:
    """Returns which images are not blank but use only the dark end of their value range, as if they were scaled wrongly.

    A dark image with more than 8 bits always counts, because photographs are not stored like that. A dark 8-bit image may be a
    night scene, so it counts only if at least half of the images are dark.
    """
    dark = [extent.dark for extent in ranges]
    mostly_dark = 2 * sum(dark) >= len(dark)
    return [is_dark and (mostly_dark or extent.full > 255) for is_dark, extent in zip(dark, ranges, strict=True)]


def range_note(ranges: Sequence[ValueRange]) -> Note | None:
    """Returns a note if any of the sampled images are `misscaled`."""
    dark = [extent for extent, is_dark in zip(ranges, misscaled(ranges), strict=True) if is_dark]
    if not dark:
        return None
    brightest = max(dark, key=lambda extent: extent.high / extent.full)
    fault, hint = range_fault(brightest)
    text, (_, high, full) = f"{len(dark)} of {len(ranges)} sampled images {fault}; {hint}", brightest
    return Note(text, "value-range", images=len(dark), sampled=len(ranges), high=high, full=full)


def range_fault(brightest: ValueRange) -> tuple[str, str]:
    """Returns a description of what is wrong with misscaled images, and a hint.

    Args:
        brightest: The range of the image that is brightest relative to its scale.
    """
    high, full = brightest.high, brightest.full
    look = "nearly black" if high <= full / 16 else "dark"
    if full == 1:
        return f"have no value above {high:.3g} of 1 and look {look}", f"divide by {high:.3g}"
    if high <= 1:
        return f"contain only 0 and 1 in a range of 0..{full:,.0f} and look {look}", f"multiply them by {full:.0f}"
    bits = int(high).bit_length()
    return (
        f"have no value above {high:,.0f} of {full:,.0f} and look {look}",
        f"multiply all images by one factor, such as {(int(full) + 1) >> bits} if they have {bits} bits",
    )
