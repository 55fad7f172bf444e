"""Opens HEIC files with pillow-heif, which is an optional package."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageFile

from crossroads.errors import ImageRefused, install

if TYPE_CHECKING:
    from pillow_heif import HeifImage


def open_heic(file: io.BytesIO) -> ImageFile.ImageFile:
    """Opens a file and reads its header.

    Raises:
        ImageRefused: pillow-heif is not installed, or the file holds no picture that it can decode.
    """
    try:
        return HeicFile(file)
    except ImportError as error:  # pillow-heif itself is missing, or a library that it needs
        raise ImageRefused(
            "reading HEIC needs pillow-heif", code="missing-extra", received=str(error), hint=install("heic")
        ) from error
    except (SyntaxError, ValueError, RuntimeError) as error:
        text = str(error).lower()
        if "unsupported" in text or "no meta box" in text:  # the picture has another codec, or there is no picture
            raise _refusal(" ".join(str(error).split()).rstrip(".")) from error
        raise


def _refusal(received: str) -> ImageRefused:
    return ImageRefused(
        "a HEIC file must hold a still picture coded as HEVC",
        code="unsupported-format",
        received=received,
        hint="copy the file again, or convert it to JPEG or PNG",
    )


class HeicFile(ImageFile.ImageFile):
    """The primary picture of a HEIC file, upright.

    pillow-heif's own plugin is not used, for two reasons. It may decode an embedded thumbnail instead of the picture. If the
    program has told Pillow to accept truncated files, it also replaces pixels that cannot be decoded with black.

    Attributes:
        is_animated: Whether the file holds more than one picture.
    """

    format = "HEIC"
    format_description = "HEIC"

    def _open(self) -> None:
        from pillow_heif import open_heif  # takes 0.1 s

        pictures = open_heif(self.fp)  # reads the metadata; libheif refuses to decode more pixels than the header declares
        if not len(pictures):
            raise _refusal("other content")
        picture = pictures[pictures.primary_index]
        self._undecoded: HeifImage | None = picture
        self._size, self._mode = picture.size, picture.mode
        self.is_animated = len(pictures) > 1
        # `info` must stay empty. It would hold the EXIF orientation, which repeats the rotation that libheif has already applied.

    def load(self) -> Any:
        """Decodes the picture. Colour with 10 or 12 bits becomes 8-bit; grey with 10 or 12 bits becomes 16-bit."""
        if self._undecoded is not None:
            decoded = self._undecoded.to_pillow()
            self.im, self._size, self._mode, self._undecoded = decoded.im, decoded.size, decoded.mode, None
        return Image.Image.load(self)
