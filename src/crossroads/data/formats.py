"""Kinds of image files: their suffixes, how each is told by its first bytes, which are read, and what to do about the others."""

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

from crossroads.data._tiff import CAMERA_RAW, open_tiff
from crossroads.errors import ImageRefused

Opener = Callable[[io.BytesIO], ImageFile.ImageFile]


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of image file.

    Attributes:
        name: As the field calls it.
        suffixes: Endings of file names, in lower case.
        starts: First bytes of such a file, any of them.
        opener: Reads the header; None where the format is not read.
        hint: What to do with a format that is not read.
        artwork: Whether such files lie beside data sets as logos, icons or working files, rather than as photographs.
    """

    name: str
    suffixes: tuple[str, ...]
    starts: tuple[bytes, ...] = ()
    opener: Opener | None = None
    hint: str = "convert it to JPEG or PNG"
    artwork: bool = False


# The plugins are called directly rather than through `Image.open`: a file can then never reach a plugin that is not listed (EPS
# starts a program), and Pillow's own pixel warning, which is global state, is never raised.
SUPPORTED = (
    Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), (b"\xff\xd8\xff",), JpegImagePlugin.JpegImageFile),
    Format("PNG", (".png", ".apng"), (b"\x89PNG\r\n\x1a\n",), PngImagePlugin.PngImageFile),
    Format("PPM", (".ppm", ".pgm", ".pbm", ".pnm"), tuple(b"P%d" % kind for kind in range(1, 7)), PpmImagePlugin.PpmImageFile),
    Format("BMP", (".bmp", ".dib"), (b"BM",), BmpImagePlugin.BmpImageFile),
    Format("GIF", (".gif",), (b"GIF87a", b"GIF89a"), GifImagePlugin.GifImageFile),
    Format("WebP", (".webp",), (), WebPImagePlugin.WebPImageFile),
    Format("TIFF", (".tif", ".tiff"), (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), open_tiff),
    Format("AVIF", (".avif", ".avifs"), (), AvifImagePlugin.AvifImageFile if AvifImagePlugin.SUPPORTED else None),
)
"""Formats that are read."""

_RENDER = "render it as PNG"
_SLICES = "export its slices as PNG"

UNSUPPORTED = (
    Format("HEIC", (".heic", ".heif", ".hif")),
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
"""Image formats that are not read. Such files count as images of their class and are refused by name on decoding. A folder that
holds only `drawn` formats is not a class."""

IMAGE_SUFFIXES = frozenset(suffix for one in (*SUPPORTED, *UNSUPPORTED) for suffix in one.suffixes)
"""Endings by which a file says that it is an image."""

ARTWORK_SUFFIXES = frozenset(suffix for one in UNSUPPORTED if one.artwork for suffix in one.suffixes) | {".raw"}
"""Endings of files of which a whole folder is no class: logos and icons, working files, and `.raw`, which is any binary data."""

_NAMES = ", ".join(one.name for one in SUPPORTED)
_NAMED = {one.name: one for one in (*SUPPORTED, *UNSUPPORTED)}
_SUPPORTED_STARTS = tuple((start, one.opener) for one in SUPPORTED for start in one.starts)
_UNSUPPORTED_STARTS = tuple((start, one.name) for one in UNSUPPORTED for start in one.starts)

# What is often saved under an image's name: how it starts, what it is, and what to do.
_NO_IMAGES = (
    (b"version https://git-lfs", "a Git LFS pointer in place of the file", "fetch the files with git lfs pull"),
    (b"%PDF-", "a PDF document", "render its pages as PNG"),
    (b"%!PS", "a PostScript document", "render it as PNG"),
    (b"PK\x03\x04", "a zip archive", "unpack it"),
    (b"\x1f\x8b", "a gzip file", "unpack it"),
    (b"BZh", "a bzip2 file", "unpack it"),
    (b"\xfd7zXZ\0", "an xz file", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"\0\5\x16\7", "the AppleDouble companion of a file", "leave it out"),
)
_MARKUP = ((b"<svg", "SVG"), (b"<!doctype html", "HTML"), (b"<html", "HTML"))
_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))


def opener_of(raw: bytes) -> Opener:
    """What reads the header of an image file, told by its first bytes.

    Raises:
        ImageRefused: It is no image, or of a format that is not read; says which.
    """
    for start, opener in _SUPPORTED_STARTS:
        if opener is not None and raw.startswith(start):
            return opener
    name = _container(raw)
    opener = _NAMED[name].opener if name in _NAMED else None
    if opener is None:
        raise _refusal(raw, name)
    return opener


def _container(raw: bytes) -> str | None:
    """The format of a file that begins with the frame of another kind of file, such as RIFF."""
    if raw[:4] == b"RIFF":
        return "WebP" if raw[8:12] == b"WEBP" else None
    if raw[4:8] != b"ftyp":
        return None
    size = min(int.from_bytes(raw[:4], "big"), 256)
    brands = {raw[8:12], *(raw[at : at + 4] for at in range(16, size, 4))}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIC" if brands & _HEIC_BRANDS else CAMERA_RAW if b"crx " in brands else "video"


def _refusal(raw: bytes, name: str | None) -> ImageRefused:
    if not raw:
        return ImageRefused("an image file must not be empty", received="0 bytes", hint="copy the file again or leave it out")
    for start, what, hint in _NO_IMAGES:
        if raw.startswith(start):
            return ImageRefused("not an image", received=what, hint=hint)
    if raw[257:262] == b"ustar":
        return ImageRefused("not an image", received="a tar archive", hint="unpack it")
    name = name or _unread(raw)
    if name == "HTML":
        return ImageRefused("not an image", received="an HTML page", hint="the download failed: fetch the file again")
    if name == "video":
        return ImageRefused("not an image", received="a video", hint="save its frames as JPEG")
    if name is not None:
        return ImageRefused(f"the format {name} is not read", hint=_NAMED[name].hint)
    if not raw[:4096].strip(b"\0"):
        return ImageRefused("not an image", received=f"{len(raw):,} bytes that begin with zeros", hint="copy the file again")
    return ImageRefused(f"not an image: the file must be one of {_NAMES}", received=f"a file that starts with {raw[:8]!r}")


def _unread(raw: bytes) -> str | None:
    """The name of a format that is not read, or None where the bytes do not tell."""
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
