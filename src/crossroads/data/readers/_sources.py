"""Where images come from: files of a tree, files on disk, rows of an array, items of a list."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import ImageSource, MemorySource
from crossroads.data.pictures import Convert, source_of
from crossroads.errors import DataError, ImageRefused
from crossroads.files.archives import MEMBER
from crossroads.files.byte_ranges import read_plain
from crossroads.files.text import printable
from crossroads.files.trees import Tree


class TreeImages:
    """Images that are files of a tree."""

    def __init__(self, tree: Tree, names: Sequence[str]) -> None:
        self._tree = tree
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """Returns the file's path in the tree."""
        return self._names[index]

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """Returns the encoded file. Raises `ImageRefused` if it is gone or damaged."""
        try:
            return self._tree.read(self._names[index])
        except DataError as error:
            raise ImageRefused(error.rule, code=error.code, received=error.received) from error


class PathImages:
    """Images that are files on disk, at absolute paths or at paths relative to a folder."""

    def __init__(self, folder: str, paths: Sequence[str]) -> None:
        self._folder = folder
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, index: int) -> str:
        """Returns the path as the table spells it."""
        return self._paths[index]

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """Returns the encoded file. Raises `ImageRefused` if it cannot be read."""
        try:
            return read_plain(os.path.join(self._folder, self._paths[index]), MEMBER)  # noqa: PTH118 - a third of pathlib's time
        except OSError as error:
            raise ImageRefused(
                "the file cannot be read",
                code="file-unreadable",
                received=error.strerror,
                hint="check the path and its permissions",
            ) from error


class ArrayImages:
    """Images that are rows of one array. Each is converted to uint8 when it is read, so that a large array is not copied."""

    def __init__(self, pixels: NDArray[np.generic], convert: Convert | None, name: str) -> None:
        self._pixels = pixels
        self._convert = convert
        self._name = name

    def __len__(self) -> int:
        return len(self._pixels)

    def name(self, index: int) -> str:
        """Returns a name such as ``features[12]``."""
        return f"{self._name}[{index}]"

    def picture(self, index: int) -> object:
        """Returns one image as it was given."""
        return self._pixels[index]

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """Returns the pixels, uint8 (height, width[, channels])."""
        row = self._pixels[index]
        return self._convert(row) if self._convert else row


class ListImages:
    """Images of any kinds and sizes."""

    def __init__(self, images: Sequence[object], name: str) -> None:
        self._images = images
        self._name = name

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        """Returns the path of a file, or a name such as ``images[12]``."""
        image = self._images[index]
        return printable(str(image)) if isinstance(image, (str, os.PathLike)) else f"{self._name}[{index}]"

    def picture(self, index: int) -> object:
        """Returns one image as it was given."""
        return self._images[index]

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """Returns the encoded file, or the pixels, uint8 (height, width[, channels]). Raises `ImageRefused` if it is no image."""
        return source_of(self._images[index])


class Joined:
    """Several sources, one after the other."""

    def __init__(self, parts: Sequence[ImageSource]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _locate(self, index: int) -> tuple[ImageSource, int]:
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[part], index - (int(self._ends[part - 1]) if part else 0)

    def name(self, index: int) -> str:
        """Returns the name that the part uses."""
        source, inner = self._locate(index)
        return source.name(inner)

    def picture(self, index: int) -> object:
        """Returns one image as it was given, or None if its part is files."""
        source, inner = self._locate(index)
        return source.picture(inner) if isinstance(source, MemorySource) else None

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """Returns what the part returns."""
        source, inner = self._locate(index)
        return source.read(inner)


def joined(parts: Sequence[ImageSource]) -> ImageSource:
    """Returns one or several sources as one."""
    return parts[0] if len(parts) == 1 else Joined(parts)
