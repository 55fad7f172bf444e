"""Defines sources of images: files in a tree, files on disk, rows of an array, and items of a list."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import ImageSource, MemorySource
from crossroads.data.images import Pixels
from crossroads.data.pictures import unreadable_file
from crossroads.errors import DataError, ImageRefused
from crossroads.files.archives import MEMBER
from crossroads.files.byte_ranges import read_plain
from crossroads.files.text import printable


class FileImages:
    """A source of images that are files.

    Args:
        names: The names of the files. Messages use them, and `read_file` accepts them.
        read_file: Returns the bytes of one file, or raises `DataError` or `OSError`.
    """

    def __init__(self, names: Sequence[str], read_file: Callable[[str], bytes]) -> None:
        self._names, self._read_file = names, read_file

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index]

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        try:
            return self._read_file(self._names[index])
        except DataError as error:
            raise ImageRefused(error.rule, code=error.code, received=error.received) from error
        except OSError as error:
            raise unreadable_file(error) from error


def path_images(folder: str, paths: Sequence[str]) -> FileImages:
    """Returns the source of images on disk. Paths are absolute or relative to the folder."""
    return FileImages(paths, partial(_read_path, folder))


def _read_path(folder: str, path: str) -> bytes:
    return read_plain(os.path.join(folder, path), MEMBER)  # noqa: PTH118 - takes a third of the time of pathlib


class MemoryImages:
    """A source of images in memory: the rows of one array, or a list of images of any kinds and sizes.

    Each image is converted only when it is read, so a large array is not copied.

    Args:
        images: The images as the user gave them.
        convert: Converts one image to an encoded file or to uint8 pixels. None if all images are uint8 pixels.
        name: Name of the images in messages.
    """

    def __init__(self, images: Sequence[Any] | NDArray[Any], convert: Callable[[Any], bytes | Pixels] | None, name: str) -> None:
        self._images, self._convert, self._name = images, convert, name

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        """Returns the path of an image if it is a file, or otherwise a name such as ``features[12]``."""
        image = self._images[index]
        return printable(str(image)) if isinstance(image, (str, os.PathLike)) else f"{self._name}[{index}]"

    def picture(self, index: int) -> object:
        return self._images[index]

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        image: NDArray[np.uint8] = self._images[index]
        return self._convert(image) if self._convert else image


class Joined:
    """A source that consists of several sources, one after the other."""

    def __init__(self, parts: Sequence[ImageSource]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _locate(self, index: int) -> tuple[ImageSource, int]:
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[part], index - (int(self._ends[part - 1]) if part else 0)

    def name(self, index: int) -> str:
        source, inner = self._locate(index)
        return source.name(inner)

    def picture(self, index: int) -> object:
        """Returns one image as the user gave it. Returns None if it is in a source of files."""
        source, inner = self._locate(index)
        return source.picture(inner) if isinstance(source, MemorySource) else None

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        source, inner = self._locate(index)
        return source.read(inner)


def joined(parts: Sequence[ImageSource]) -> ImageSource:
    """Joins one or several sources into one."""
    return parts[0] if len(parts) == 1 else Joined(parts)
