"""One source to one array of RGB pixels, or one refusal with its reason. Training and prediction both come through here."""

from __future__ import annotations

import io
import math
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, JpegImagePlugin, TiffImagePlugin

from crossroads.data._tiff import full_scale, white_is_zero
from crossroads.data.formats import opener_of
from crossroads.errors import DataError, ImageRefused

MAX_PIXELS = 100_000_000
"""Largest image that is decoded, in pixels; more is refused from the header, before anything is unpacked."""

Pixels = NDArray[np.uint8]

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Words in Pillow's messages that mean that the file ends too early.
_CUT_SHORT = ("truncated", "eof", "not enough", "unexpected end", "broken png", "incomplete")

# A Pillow image is loaded by one thread at a time: one that stands in a list twice is else read by two from one open file.
_LOADING = tuple(threading.Lock() for _ in range(64))


MODES = ("squash", "crop")

FILTER = "bilinear"
"""The one filter that images are resized with. Its support widens with the scale when an image shrinks (antialiasing)."""

CROP = 0.875
"""Fraction of the shorter side that ``crop`` keeps: 224 of 256 pixels, as ImageNet's networks have been tested since AlexNet."""


@dataclass(frozen=True, slots=True)
class Resize:
    """How an image becomes the square that a network takes; it travels with the artifact.

    Attributes:
        size: Side of the square, in pixels.
        mode: ``squash``: both sides are scaled to `size`, whatever the aspect ratio, so that nothing of the image is cut off.
            ``crop``: the square in the middle whose side is `CROP` of the shorter side, as networks are tested on ImageNet.

    Raises:
        DataError: A size below 1, or an unknown mode.
    """

    size: int
    mode: str = "squash"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise DataError("the image size must be at least 1 pixel", received=self.size)
        if self.mode not in MODES:
            raise DataError("images are resized with mode 'squash' or 'crop'", received=repr(self.mode))

    @property
    def minimum_side(self) -> int:
        """Shorter side in pixels from which on an image is not enlarged."""
        return self.size if self.mode == "squash" else math.ceil(self.size / CROP)


def decode(raw: bytes | Pixels, *, max_pixels: int = MAX_PIXELS, draft: int | None = None) -> Pixels:
    """The pixels of one image file or array, upright, as RGB.

    Grey is repeated over the channels; palettes are looked up; transparent parts are laid over white; CMYK is converted without a
    colour profile; 16 bits become 8 by value / 257 (colour: Pillow's high byte, at most 1 lower). The first frame of an animation
    counts. EXIF orientation is applied; an unreadable EXIF block counts as none, since the pixels are intact.

    Args:
        raw: An encoded file, or uint8 (height, width), (height, width, 1), (height, width, 3) or (height, width, 4).
            `crossroads.data.pictures.source_of` makes one of these of any other kind of image.
        max_pixels: Larger images are refused from their header.
        draft: Where a JPEG is at least twice this size on both sides, it is decoded at a half, quarter or eighth of its size that
            is still at least this size: the inverse DCT is then computed for the pixels that are needed only.

    Returns:
        uint8 (height, width, 3).

    Raises:
        ImageRefused: Empty, not an image, too many pixels, truncated, corrupt, or pixels that do not fit 8 bits; and nothing else.
    """
    if isinstance(raw, np.ndarray):
        pixels = _checked(raw, max_pixels)
        if pixels.shape[2] == 3:
            return pixels
        return np.asarray(_rgb(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)))
    return np.asarray(_decoded(raw, max_pixels, draft))


class ValueRange(NamedTuple):
    """The range of an image's values as they are stored.

    Attributes:
        low: Smallest value.
        high: Largest value; of colour with 16 bits an upper bound.
        full: Largest value that the type or file can hold.
    """

    low: float
    high: float
    full: float

    @property
    def dark(self) -> bool:
        """Whether the values differ but none is above a quarter of what it could be, as with 14 bits or fewer stored in 16."""
        return self.low < self.high <= self.full / 4


def decode_with_range(raw: bytes | Pixels, *, max_pixels: int = MAX_PIXELS, draft: int | None = None) -> tuple[Pixels, ValueRange]:
    """What `decode` gives, and the range of the values that it was made of. Takes and raises what `decode` does."""
    if isinstance(raw, np.ndarray):
        pixels = decode(raw, max_pixels=max_pixels)
        return pixels, ValueRange(int(pixels.min()), int(pixels.max()), 255)
    with _refusing(raw):
        image = _opened(raw, max_pixels)
        high_bytes = any(";16" in str(tile.args) for tile in image.tile)  # of 16 bits a channel Pillow keeps the upper 8
        _load(image, draft)
        pixels = np.asarray(_upright(image))
        found = _extent(image, pixels)
        return pixels, ValueRange(found.low * 256, found.high * 256 + 255, 65535) if high_bytes and found.full == 255 else found


def from_pillow(image: Image.Image, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """A Pillow image as its file would be decoded; of an animation, the frame that it stands at.

    Returns:
        uint8 (height, width, 3).

    Raises:
        ImageRefused: Closed, broken, too many pixels, or pixels that do not fit 8 bits.
    """
    _require_pixels(image.height, image.width, max_pixels)
    try:
        with _LOADING[(id(image) >> 4) % len(_LOADING)]:
            image.load()
            return np.asarray(_upright(image))
    except ImageRefused:
        raise
    except Exception as error:  # as in `_refusing`
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise ImageRefused("a Pillow image must be open and whole", received=said, hint="open the file again") from error


def pillow_range(image: Image.Image) -> ValueRange:
    """The range of values of a Pillow image. Raises as `from_pillow`."""
    return _extent(image, from_pillow(image))


def _extent(image: Image.Image, pixels: Pixels) -> ValueRange:
    """The range of values of a decoded image and of the pixels that it became."""
    if _is_deep(image):
        values, full = _deep_values(image)
        return ValueRange(int(values.min()), int(values.max()), full)
    return ValueRange(int(pixels.min()), int(pixels.max()), 255)


def resize(image: Pixels, to: Resize | int) -> Pixels:
    """The image as a square, as `Resize` says; the same array where it already is that.

    Args:
        image: uint8 (height, width, 3).
        to: How; a number is the side of the square, in pixels, that the image is squashed to.

    Returns:
        uint8 (size, size, 3).
    """
    how = to if isinstance(to, Resize) else Resize(to)
    if image.shape == (how.size, how.size, 3) and how.mode == "squash":
        return image
    return np.asarray(_scaled(Image.fromarray(image), how))


def load(raw: bytes | Pixels, to: Resize | int, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """One source as the square a network takes: `decode` (drafted for its size), then `resize`.

    Returns:
        uint8 (size, size, 3).

    Raises:
        ImageRefused: As for `decode`.
    """
    if isinstance(raw, np.ndarray):
        return resize(decode(raw, max_pixels=max_pixels), to)
    how = to if isinstance(to, Resize) else Resize(to)
    return np.asarray(_scaled(_decoded(raw, max_pixels, how.minimum_side), how))


def dimensions(raw: bytes | Pixels, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width of the upright image in pixels, from its header alone.

    Raises:
        ImageRefused: Empty, not an image, or too many pixels.
    """
    if isinstance(raw, np.ndarray):
        height, width = _checked(raw, max_pixels).shape[:2]
        return height, width
    with _refusing(raw):
        image = _opened(raw, max_pixels)
        # Pillow gives a TIFF's size upright already, and decodes a PNG in search of EXIF data that its header does not have.
        stored = isinstance(image, JpegImagePlugin.JpegImageFile) or "exif" in image.info
        turned = stored and _orientation(image) >= 5
        return (image.width, image.height) if turned else (image.height, image.width)


def has_frames(raw: bytes, *, max_pixels: int = MAX_PIXELS) -> bool:
    """Whether a file holds more frames or pages than the one that is decoded. Raises as `dimensions`."""
    with _refusing(raw):
        return bool(getattr(_opened(raw, max_pixels), "is_animated", False))


class _refusing:  # noqa: N801 - used as a statement
    """Turns whatever a decoder raises on a hostile file into the one refusal that the caller expects."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, IndexError, KeyError, TypeError, OverflowError,
        # MemoryError, DecompressionBombError and more; the list has grown with each release, so the boundary is every Exception.
        if error is None or isinstance(error, ImageRefused) or not isinstance(error, Exception):
            return
        raise _refusal(error, self.raw) from error


def _refusal(error: Exception, raw: bytes) -> ImageRefused:
    said = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, MemoryError):
        return ImageRefused("the image must fit in memory", received=f"a file of {len(raw):,} bytes", hint="make the image smaller")
    size = f"{len(raw):,} bytes"
    cut_webp = raw[:4] == b"RIFF" and int.from_bytes(raw[4:8], "little") > len(raw) - 8
    if cut_webp or isinstance(error, EOFError) or any(word in said.lower() for word in _CUT_SHORT):
        return ImageRefused("truncated: the file ends before its last pixel", received=size, hint="copy the file again")
    return ImageRefused(f"corrupt: {said}", received=size, hint="copy the file again or leave it out")


class _Watched(io.BytesIO):
    """Remembers that a reader came to the end and asked for more."""

    exhausted = False

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data and size:
            self.exhausted = True
        return data


def _opened(raw: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """The file with its header read and checked, nothing decoded."""
    # Where the program has told Pillow to accept truncated files, Pillow would fill the rest with grey: so watch the reads.
    image = opener_of(raw)(_Watched(raw) if ImageFile.LOAD_TRUNCATED_IMAGES else io.BytesIO(raw))
    _require_pixels(image.height, image.width, max_pixels)
    return image


def _require_pixels(height: int, width: int, max_pixels: int) -> None:
    if height < 1 or width < 1:
        raise ImageRefused("an image must have at least one pixel", received=f"{width} x {height} px")
    if height * width > max_pixels:
        raise ImageRefused(
            f"an image may have at most {max_pixels:,} pixels", received=f"{width} x {height} px", hint="make the image smaller"
        )


def _decoded(raw: bytes, max_pixels: int, draft: int | None) -> Image.Image:
    with _refusing(raw):
        image = _opened(raw, max_pixels)
        _load(image, draft)
        return _upright(image)


def _load(image: ImageFile.ImageFile, draft: int | None) -> None:
    """Decode the pixels of an opened file."""
    if draft is not None and min(image.size) >= 2 * draft:
        image.draft(None, (draft, draft))  # does nothing where the format is not JPEG
    watched = image.fp if isinstance(image.fp, _Watched) else None
    if watched is not None:
        watched.exhausted = False
    image.load()
    if watched is not None and watched.exhausted:
        raise EOFError("truncated")


def _upright(image: Image.Image) -> Image.Image:
    """A decoded image in mode RGB, turned as its EXIF data say."""
    turn = _UPRIGHT.get(_orientation(image))
    rgb = _rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block: any of a dozen kinds, and the pixels are still good
        return 1
    return value if isinstance(value, int) else 1


def _rgb(image: Image.Image) -> Image.Image:
    """The image in mode RGB, over white where it is transparent."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ImageRefused(
            "pixels must be whole numbers", received="floating-point pixels", hint="save the image with 8 or 16 bits a channel"
        )
    if _is_deep(image):
        return Image.fromarray(_in_8_bits(image)).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")  # the one mode that Pillow converts to no other
    if not image.has_transparency_data:
        return image.convert("RGB")
    clear = image.convert("RGBA")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(clear, mask=clear.getchannel("A"))
    return white


def _is_deep(image: Image.Image) -> bool:
    """Whether the pixels are grey values of more than 8 bits."""
    return image.mode == "I" or image.mode.startswith("I;16")


def _deep_values(image: Image.Image) -> tuple[NDArray[np.integer[Any]], int]:
    """Grey values of more than 8 bits, integers (height, width), 0 for black, and the value of white."""
    values, full = np.asarray(image), 65535
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        full = full_scale(image)
    if values.min() < 0 or values.max() > full:
        raise ImageRefused(
            f"grey values must lie in 0..{full}",
            received=f"{values.min()}..{values.max()}",
            hint="save the image with 8 or 16 bits a channel",
        )
    if isinstance(image, TiffImagePlugin.TiffImageFile) and white_is_zero(image):
        return full - values, full  # Pillow inverts such files at 8 bits but not at 16
    if isinstance(image.info.get("transparency"), int):
        return np.where(values == image.info["transparency"], values.dtype.type(full), values), full
    return values, full


def _in_8_bits(image: Image.Image) -> Pixels:
    """Grey values of more than 8 bits, scaled to uint8 (height, width)."""
    values, full = _deep_values(image)
    scaled = values.astype(np.int32)  # in place from here on: an image may have 100 megapixels
    scaled *= 255
    scaled += full // 2
    scaled //= full
    return scaled.astype(np.uint8)


def _checked(array: Pixels, max_pixels: int) -> Pixels:
    """An array as (height, width, channels) with 1, 3 or 4 channels."""
    if array.dtype != np.uint8:
        fractions = array.dtype.kind == "f" and array.size and array.min() >= 0 and array.max() <= 1
        convert = "(array * 255).round().astype('uint8')" if fractions else "array.astype('uint8')"
        raise ImageRefused("pixels must be uint8 in 0..255", received=f"dtype {array.dtype}", hint=f"convert the array: {convert}")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = "move the channels last: array.transpose(1, 2, 0)" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else None
        raise ImageRefused(
            "an array must have shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4)", received=f"shape {array.shape}", hint=hint
        )
    _require_pixels(array.shape[0], array.shape[1], max_pixels)
    return array[:, :, np.newaxis] if array.ndim == 2 else array


def _scaled(image: Image.Image, to: Resize) -> Image.Image:
    size = to.size
    if to.mode == "crop":
        side = CROP * min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        return image.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    if image.size == (size, size):
        return image
    # A gap of 2: a large image is first reduced by whole factors to no less than twice the size. Measured at 12 megapixels to
    # 224 px: 8 ms in place of 30; ants/bees to 64 px: 0.56 ms in place of 0.78, the pixels 0.4 of 255 apart on average.
    return image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
