"""Recognises image formats by their first bytes. Opens supported files and gives a hint for the others."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    WebPImagePlugin,
)

from crossroads.data._heic import open_heic
from crossroads.data._tiff import CAMERA_RAW, open_tiff, unsupported_format
from crossroads.errors import ImageRefused

Opener = Callable[[io.BytesIO], ImageFile.ImageFile]


@dataclass(frozen=True, slots=True)
class Format:
    """One image format.

    Attributes:
        name: Its usual name.
        suffixes: Suffixes of its file names, in lower case.
        starts: The byte sequences that such a file may begin with.
        opener: Reads the header. None if the format is not supported.
        hint: What to do with a file in an unsupported format.
        artwork: Whether files in this format are usually logos, icons or working files rather than images of a data set.
    """

    name: str
    suffixes: tuple[str, ...]
    starts: tuple[bytes, ...] = ()
    opener: Opener | None = None
    hint: str = "convert it to JPEG or PNG"
    artwork: bool = False


# The plugins are called directly, not through `Image.open`. A file therefore never reaches a plugin that is not listed: the one for
# EPS would start a program. Nor does Pillow issue its own warning about large images, which depends on global state.
SUPPORTED = (
    Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), (b"\xff\xd8\xff",), JpegImagePlugin.JpegImageFile),
    Format("PNG", (".png", ".apng"), (b"\x89PNG\r\n\x1a\n",), PngImagePlugin.PngImageFile),
    Format("PPM", (".ppm", ".pgm", ".pbm", ".pnm"), tuple(b"P%d" % kind for kind in range(1, 7)), PpmImagePlugin.PpmImageFile),
    Format("BMP", (".bmp", ".dib"), (b"BM",), BmpImagePlugin.BmpImageFile),
    Format("GIF", (".gif",), (b"GIF87a", b"GIF89a"), GifImagePlugin.GifImageFile),
    Format("WebP", (".webp",), (), WebPImagePlugin.WebPImageFile),
    Format("TIFF", (".tif", ".tiff"), (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), open_tiff),
    Format("AVIF", (".avif", ".avifs"), (), AvifImagePlugin.AvifImageFile if AvifImagePlugin.SUPPORTED else None),
    Format("HEIC", (".heic", ".heif", ".hif", ".heics", ".heifs"), (), open_heic),
)
"""Formats that can be decoded."""

_RENDER = "render it as PNG"
_SLICES = "export its slices as PNG"

UNSUPPORTED = (
    Format("JPEG XL", (".jxl",), (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")),
    Format("JPEG 2000", (".jp2", ".j2k", ".jpx", ".jpf", ".j2c"), (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")),
    Format("PAM", (".pam",), (b"P7\n",)),
    Format("PFM", (".pfm",), (b"PF\n", b"Pf\n")),
    Format("Photoshop", (".psd", ".psb"), (b"8BPS",), artwork=True),
    Format("GIMP", (".xcf",), (b"gimp xcf",), artwork=True),
    Format("icon", (".ico", ".cur"), (b"\0\0\1\0",), artwork=True),
    Format("Targa", (".tga",)),
    Format("PCX", (".pcx",), (b"\x0a\x05\x01",)),
    Format("DDS", (".dds",), (b"DDS ",)),
    Format("QOI", (".qoi",), (b"qoif",)),
    Format("OpenEXR", (".exr",), (b"\x76\x2f\x31\x01",), artwork=True),
    Format("Radiance HDR", (".hdr",), (b"#?RADIANCE", b"#?RGBE"), artwork=True),
    Format("FITS", (".fits", ".fit"), (b"SIMPLE  =",), artwork=True),
    Format("SVG", (".svg", ".svgz"), hint=_RENDER, artwork=True),
    Format("DICOM", (".dcm", ".dicom"), hint=_SLICES),
    Format("NIfTI", (".nii",), hint=_SLICES),
    Format(
        CAMERA_RAW,
        (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".raw"),
        (b"IIRO", b"IIU\0", b"FUJIFILMCCD-RAW"),
        hint="develop it to JPEG or TIFF",
    ),
)
"""Image formats that cannot be decoded.

Files in these formats count as images of their class. Decoding refuses each of them by name. A folder that holds only `artwork`
formats is not a class.
"""

IMAGE_SUFFIXES = frozenset(suffix for kind in (*SUPPORTED, *UNSUPPORTED) for suffix in kind.suffixes)
"""Suffixes of image files."""

ARTWORK_SUFFIXES = frozenset(suffix for kind in UNSUPPORTED if kind.artwork for suffix in kind.suffixes) | {".raw"}
"""Suffixes of files that do not make a folder a class: logos, icons, working files, and `.raw`, which may hold any binary data."""

_NAMES = ", ".join(kind.name for kind in SUPPORTED)
_BY_NAME = {kind.name: kind for kind in (*SUPPORTED, *UNSUPPORTED)}
_SUPPORTED_STARTS = tuple((start, kind.opener) for kind in SUPPORTED for start in kind.starts)
_UNSUPPORTED_STARTS = tuple((start, kind.name) for kind in UNSUPPORTED for start in kind.starts)

# Files that are not images but often have the suffix of one: their first bytes, what they are, and a hint.
_OTHER_FILES = (
    (b"version https://git-lfs", "a Git LFS pointer in place of the file", "fetch the files with git lfs pull"),
    (b"%PDF-", "a PDF document", "render its pages as PNG"),
    (b"%!PS", "a PostScript document", "render it as PNG"),
    (b"PK\x03\x04", "a zip archive", "unpack it"),
    (b"\x1f\x8b", "a gzip file", "unpack it"),
    (b"BZh", "a bzip2 file", "unpack it"),
    (b"\xfd7zXZ\0", "an xz file", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"\0\5\x16\7", "an AppleDouble file with metadata of macOS", "leave it out"),
)
_NO_IMAGES = {
    "HTML": ("an HTML page", "the download failed: fetch the file again"),
    "video": ("a video", "save its frames as JPEG"),
}
_MARKUP = ((b"<svg", "SVG"), (b"<!doctype html", "HTML"), (b"<html", "HTML"))
_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_MAX_BOXES = 1000


def opener_of(raw: bytes) -> Opener:
    """Returns the function that reads the header of an image file. The first bytes of the file determine it.

    Raises:
        ImageRefused: The file is not an image, or its format is not supported. The message names the format.
    """
    for start, opener in _SUPPORTED_STARTS:
        if opener is not None and raw.startswith(start):
            return opener
    name = _container(raw)
    opener = _BY_NAME[name].opener if name in _BY_NAME else None
    if opener is None:
        raise _refusal(raw, name)
    return opener


def _container(raw: bytes) -> str | None:
    """Returns the format of a file in a RIFF or ISO media container, or None if it is in neither or its format is unknown."""
    if raw[:4] == b"RIFF":
        return "WebP" if raw[8:12] == b"WEBP" else None
    if raw[4:8] != b"ftyp":
        return None
    size = min(int.from_bytes(raw[:4], "big"), 256)
    brands = {raw[8:12], *(raw[at : at + 4] for at in range(16, size, 4))}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIC" if brands & _HEIC_BRANDS else CAMERA_RAW if b"crx " in brands else "video"


def is_cut(raw: bytes) -> bool:
    """Returns whether a WebP, AVIF or HEIC file ends before the end of a chunk or box of its container."""
    if raw[:4] == b"RIFF":
        return int.from_bytes(raw[4:8], "little") > len(raw) - 8
    at = 0
    for _ in range(_MAX_BOXES if raw[4:8] == b"ftyp" else 0):
        size = int.from_bytes(raw[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(raw[at + 8 : at + 16], "big")
        if size < 8:  # a size of 0 means that the box extends to the end of the file
            return False
        at += size
        if at >= len(raw):
            return at > len(raw)
    return False


def _refusal(raw: bytes, name: str | None) -> ImageRefused:
    if not raw:
        hint = "copy the file again or leave it out"
        return ImageRefused("the image file is empty", code="image-empty", received="0 bytes", hint=hint)
    for start, what, hint in _OTHER_FILES:
        if raw.startswith(start):
            return _not_an_image(what, hint)
    if raw[257:262] == b"ustar":
        return _not_an_image("a tar archive", "unpack it")
    name = name or _unsupported(raw)
    if name in _NO_IMAGES:
        return _not_an_image(*_NO_IMAGES[name])
    if name is not None:
        return unsupported_format(name, _BY_NAME[name].hint)
    if not raw[:4096].strip(b"\0"):
        return _not_an_image(f"{len(raw):,} bytes that begin with zeros", "copy the file again")
    return _not_an_image(f"a file that starts with {raw[:8]!r}", f"use one of {_NAMES}")


def _not_an_image(received: str, hint: str) -> ImageRefused:
    return ImageRefused("not an image", code="not-an-image", received=received, hint=hint)


def _unsupported(raw: bytes) -> str | None:
    """Returns the name of an unsupported format, or None if the bytes do not identify one."""
    for start, name in _UNSUPPORTED_STARTS:
        if raw.startswith(start):
            return name
    if raw[128:132] == b"DICM":
        return "DICOM"
    if raw[344:348] in (b"n+1\0", b"ni1\0"):
        return "NIfTI"
    if raw[-18:-2] == b"TRUEVISION-XFILE":
        return "Targa"
    head = raw[:1024].lower()
    return next((name for start, name in _MARKUP if start in head), None)
