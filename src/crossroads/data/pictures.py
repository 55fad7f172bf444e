"""Brings one picture of any kind (a file, bytes, an array or a Pillow image) into a form that `images.decode` takes.

Training, evaluation and prediction all come through here, so that each of them sees the same pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossroads.data.images import Pixels, ValueRange, from_pillow, pillow_range
from crossroads.errors import DataError, ImageRefused
from crossroads.files.archives import MEMBER
from crossroads.files.byte_ranges import read_plain

Picture = str | os.PathLike[str] | bytes | NDArray[np.generic] | Image.Image
"""One picture. Any array-like also qualifies."""

Convert = Callable[[NDArray[np.generic]], Pixels]

SAMPLE = 32
"""Images whose range of values is sampled: enough that half of them are rarely dark unless about half of all are."""

_CHUNK = 1 << 24


def source_of(picture: object) -> bytes | Pixels:
    """One picture of any kind in a form that `images.decode` takes.

    Args:
        picture: The path of a file; an encoded file as bytes; a Pillow image of any mode; an array (height, width) or (height,
            width, 1, 3 or 4) of any type that `conversion` knows.

    Raises:
        ImageRefused: An unreadable file, a closed Pillow image, values that are not pixels, another kind of object.
    """
    if isinstance(picture, (str, os.PathLike)):
        return _file(picture)
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return bytes(picture)
    if isinstance(picture, Image.Image):
        return from_pillow(picture)
    array = _array(picture)
    if array is None:
        raise ImageRefused("an image must be a path, bytes, an array or a Pillow image", received=type(picture).__name__)
    if array.ndim not in (2, 3):
        raise ImageRefused("an array must have shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4)", received=f"shape {array.shape}")
    try:
        convert = conversion(array, "the array")
    except DataError as error:
        raise ImageRefused(error.rule, received=error.received, hint=error.hint) from error
    return np.asarray(array, np.uint8) if convert is None else convert(array)


def _file(path: str | os.PathLike[str]) -> bytes:
    try:
        return read_plain(path, MEMBER)
    except OSError as error:
        if os.path.isdir(path):  # noqa: PTH112 - the error for reading a folder differs between systems
            raise ImageRefused("is a folder", hint="give image files") from error
        raise ImageRefused("must be a readable file", received=error.strerror, hint="check the path") from error
    except ValueError as error:  # such as a null character in the path
        raise ImageRefused("must be a readable file", received=error, hint="check the path") from error


def _array(picture: object) -> NDArray[np.generic] | None:
    if not hasattr(picture, "__array__") and not isinstance(picture, (list, tuple)):
        return None
    try:
        return np.asarray(picture)
    except (ValueError, MemoryError) as error:
        raise ImageRefused("an image must be rows of numbers", received=type(picture).__name__) from error
    except (TypeError, RuntimeError) as error:  # of `__array__`, such as that of a tensor that records gradients
        refusal = not_an_array(picture, "an image", error)
        raise ImageRefused(refusal.rule, received=refusal.received, hint=refusal.hint) from error


def not_an_array(item: object, name: str, error: Exception) -> DataError:
    """The refusal of what NumPy cannot turn into an array, such as a PyTorch tensor that records gradients or lies on a GPU."""
    call = ".detach().cpu().numpy()" if isinstance(error, TypeError) else ".detach().numpy()"
    hint = f"call {call}" if hasattr(item, "detach") else "convert it with numpy.asarray"
    return DataError(f"{name} cannot be read as an array of numbers", received=f"{type(item).__name__}: {error}", hint=hint)


def conversion(pixels: NDArray[np.generic], name: str) -> Convert | None:
    """The conversion of each image of an array to uint8; None if the array is uint8.

    The type alone says what the values mean: an image is read the same way whatever it is read with. The values are only checked
    for validity, which is the same for train and test images.

    Args:
        pixels: One image or several; uint8, or other integers that mean 0..255, uint16 that means 0..65535 and is divided by 257,
            booleans, or floats that mean [0, 1] and are multiplied by 255; both are rounded.
        name: What to call the array in a message.

    Raises:
        DataError: Another type or range, or a NaN.
    """
    kind = pixels.dtype.kind
    if pixels.dtype == np.uint8:
        return None
    if kind == "b":
        return _from_bool
    if kind not in "iuf":
        hint = "stack images of one size, or pass a list of arrays" if kind == "O" else "convert it to uint8"
        raise DataError(f"{name} must be an array of numbers", received=f"dtype {pixels.dtype}", hint=hint)
    if kind == "u" and pixels.dtype.itemsize == 2:  # of either byte order
        return _from_uint16
    low, high = _range(pixels)
    if kind == "f":
        if not (low >= 0 and high <= 1):  # false for NaN as well
            raise DataError(
                f"images of floats in {name} must lie in [0, 1]", received=f"{low:g} to {high:g}", hint=_float_hint(low, high)
            )
        return _from_float
    if low >= 0 and high <= 255:
        return _from_int
    raise DataError(
        f"images of integers in {name} must lie in 0..255",
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
    """Smallest and largest value, or NaN if there is one. Reads in chunks, so that a memory-mapped array stays on disk."""
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
    return ((row.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257: full range to full range, rounded


def value_range(picture: object) -> ValueRange | None:
    """The range of values of one picture in memory; None for a path, for encoded bytes, and for an object that is not a picture."""
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


def misscaled(extents: Sequence[ValueRange]) -> list[bool]:
    """Which images show something, but use only the dark end of their value range.

    With more than 8 bits, every dark image counts: photographs are not stored so. With 8 bits, an image may be a night scene, so
    dark images count only if they are at least half of all.
    """
    dark = [extent.dark for extent in extents]
    most = 2 * sum(dark) >= len(dark)
    return [is_dark and (most or extent.full > 255) for is_dark, extent in zip(dark, extents, strict=True)]


def range_note(extents: Sequence[ValueRange]) -> str | None:
    """A sentence for the user if sampled images are `misscaled`; else None."""
    dark = [extent for extent, is_dark in zip(extents, misscaled(extents), strict=True) if is_dark]
    if not dark:
        return None
    what, hint = described(max(dark, key=lambda extent: extent.high / extent.full))
    return f"{len(dark)} of {len(extents)} sampled images {what}; {hint}"


def described(top: ValueRange) -> tuple[str, str]:
    """The fault of images whose largest value is that of `top`, and a hint."""
    look = "nearly black" if top.high <= top.full / 16 else "dark"
    if top.full == 1:
        return f"have no value above {top.high:.3g} of 1 and look {look}", f"divide by {top.high:.3g}"
    if top.high <= 1:
        return f"contain only 0 and 1 in a range of 0..{top.full:,.0f} and look {look}", f"multiply them by {top.full:.0f}"
    bits = int(top.high).bit_length()
    factor = (int(top.full) + 1) >> bits
    return (
        f"have no value above {top.high:,.0f} of {top.full:,.0f} and look {look}",
        f"multiply all images by one factor, such as {factor} where they have {bits} bits",
    )
