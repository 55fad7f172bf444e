"""Opens TIFF files. Checks their tags first and refuses anything but pictures with 8 or 16 bits per channel."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from PIL import TiffImagePlugin

from crossroads.errors import ImageRefused
from crossroads.files.text import plural

CAMERA_RAW = "camera raw"

_SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES = 254, 258, 259, 262, 277
_PLANAR, _SUBFILES, _SAMPLE_FORMAT, _DNG_VERSION = 284, 330, 339, 50706
_CHANNELS = {2: 3, 5: 4, 6: 3, 8: 3}  # colour channels by photometric interpretation; the others have 1
_SAMPLE_FORMATS = {2: " (signed)", 3: " (floating-point)", 5: " (complex)", 6: " (complex)"}
_WHITE_IS_ZERO = 0

# Phrases in Pillow's messages about intact files with samples that it cannot unpack.
_UNKNOWN = ("unknown pixel mode", "unknown data organization", "samples per pixel")


def open_tiff(file: io.BytesIO) -> TiffImagePlugin.TiffImageFile:
    """Opens a file and reads its header.

    Raises:
        ImageRefused: The file is camera raw, or its bands, samples or compression are not supported. The message describes them.
    """
    tags = _tags(file)
    is_thumbnail = _number(tags, _SUBFILE, 0) & 1 and _SUBFILES in tags
    file.seek(8)
    if file.read(2) == b"CR" or _DNG_VERSION in tags or is_thumbnail:  # Pillow would open a thumbnail
        raise unsupported_format(CAMERA_RAW, "develop it to JPEG or TIFF")
    if _number(tags, _SAMPLES, 1) > _CHANNELS.get(_number(tags, _PHOTOMETRIC, 1), 1) + 1:
        raise _refusal(tags)
    if (method := _number(tags, _COMPRESSION, 1)) not in TiffImagePlugin.COMPRESSION_INFO:
        raise ImageRefused(
            "this TIFF compression is not supported",
            code="unsupported-compression",
            received=f"method {method}",
            hint="save the image without compression, or as PNG",
        )
    file.seek(0)
    try:
        return TiffImagePlugin.TiffImageFile(file)
    except SyntaxError as error:
        if any(phrase in str(error) for phrase in _UNKNOWN):
            raise _refusal(tags) from error
        raise


def full_scale(image: TiffImagePlugin.TiffImageFile) -> int:
    """Returns the value of white for grey samples of more than 8 bits: 4,095 if the file declares 12 bits, otherwise 65,535.

    The tag MaxSampleValue is ignored. TIFF 6.0 reserves it for statistics, and many programs write the image's own maximum.
    """
    return 4095 if image.tag_v2.get(_BITS) == (12,) else 65535


def white_is_zero(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Returns whether 0 means white in a grey image."""
    return bool(image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO)


def _tags(file: io.BytesIO) -> Mapping[int, Any]:
    """Returns the tags of the first image. If they cannot be read, returns none and lets Pillow report the error."""
    raw = file.read(16)
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(raw[:16] if raw[2:3] == b"+" or raw[3:4] == b"+" else raw[:8])
        file.seek(directory.next)
        directory.load(file)
        return directory  # values are decoded on access
    except Exception:  # Pillow raises many kinds of error for a malformed directory
        return {}


def _number(tags: Mapping[int, Any], tag: int, default: int) -> int:
    try:
        value = tags.get(tag)
    except Exception:  # as in `_tags`
        return default
    if isinstance(value, tuple) and value:
        value = value[0]
    return value if isinstance(value, int) else default


def unsupported_format(name: str, hint: str) -> ImageRefused:
    """Returns the error for a format that cannot be decoded."""
    return ImageRefused(f"the format {name} is not supported", code="unsupported-format", hint=hint)


def _refusal(tags: Mapping[int, Any]) -> ImageRefused:
    kind = _SAMPLE_FORMATS.get(_number(tags, _SAMPLE_FORMAT, 1), "")
    planes = " in separate planes" if _number(tags, _PLANAR, 1) == 2 else ""
    what = f"{plural(_number(tags, _SAMPLES, 1), 'band')} of {_number(tags, _BITS, 1)} bits{kind}{planes}"
    return ImageRefused(
        "a picture must have 1 (grey), 3 (RGB) or 4 channels of 8 or 16 bits",
        code="unsupported-samples",
        received=f"a TIFF of {what}",
        hint="choose the bands to show, scale them to 8 bits, and save them as PNG",
    )
