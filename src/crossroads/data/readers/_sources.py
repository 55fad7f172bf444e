"""Defines sources of images: files in a tree, files on disk, rows of an array, and items of a list."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import FileSource, ImageSource, MemorySource
from crossroads.data.images import Pixels
from crossroads.data.pictures import unreadable_file
from crossroads.errors import DataError, ImageRefused
from crossroads.files.archives import MEMBER
from crossroads.files.byte_ranges import read_plain, short_digest_of_plain
from crossroads.files.text import printable


class Files(Protocol):
    """Named files: a tree, or paths on disk. The methods raise `DataError` or `OSError`."""

    def size(self, name: str) -> int:
        """Returns the bytes of one file."""
        ...

    def read(self, name: str) -> bytes:
        """Returns one file."""
        ...

    def head(self, name: str, size: int) -> bytes:
        """Returns the first `size` bytes of one file, or all of them."""
        ...

    def short_digest(self, name: str) -> bytes:
        """Returns 16 bytes that are equal for equal files. Different files may share them."""
        ...


class FileImages:
    """A source of images that are files.

    Args:
        names: The names of the files. Messages use them, and `files` accepts them.
        files: Holds the files under these names.
    """

    def __init__(self, names: Sequence[str], files: Files) -> None:
        self._names, self._files = names, files

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index]

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        with _refusing():
            return self._files.read(self._names[index])

    def size(self, index: int) -> int | None:
        with _refusing():
            return self._files.size(self._names[index])

    def head(self, index: int, size: int) -> bytes:
        with _refusing():
            return self._files.head(self._names[index], size)

    def short_digest(self, index: int) -> bytes:
        with _refusing():
            return self._files.short_digest(self._names[index])


@contextmanager
def _refusing() -> Iterator[None]:
    """Refuses an image whose file cannot be read."""
    try:
        yield
    except DataError as error:
        raise ImageRefused(error.rule, code=error.code, received=error.received) from error
    except OSError as error:
        raise unreadable_file(error) from error


class _Paths:
    """Files on disk, at absolute paths or at paths relative to a folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)  # noqa: PTH118 - a third of pathlib's time

    def size(self, name: str) -> int:
        return os.stat(self._path(name)).st_size  # noqa: PTH116 - as above

    def read(self, name: str) -> bytes:
        return read_plain(self._path(name), MEMBER)

    def head(self, name: str, size: int) -> bytes:
        return read_plain(self._path(name), MEMBER, size)

    def short_digest(self, name: str) -> bytes:
        return short_digest_of_plain(self._path(name), MEMBER)


def path_images(folder: str, paths: Sequence[str]) -> FileImages:
    """Returns the source of images on disk. Paths are absolute or relative to the folder."""
    return FileImages(paths, _Paths(folder))


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

    def size(self, index: int) -> int | None:
        """Returns the bytes of a file that was given by its path; None for any other image."""
        image = self._images[index]
        if not isinstance(image, (str, os.PathLike)):
            return None
        with _refusing():
            return os.stat(image).st_size  # noqa: PTH116 - a third of pathlib's time

    def head(self, index: int, size: int) -> bytes:
        with _refusing():
            return read_plain(self._images[index], MEMBER, size)

    def short_digest(self, index: int) -> bytes:
        with _refusing():
            return short_digest_of_plain(self._images[index], MEMBER)


class Joined:
    """A source that consists of several sources, one after the other.

    Those that are files must be in trees of the same kind, since the short digests of zip archives are unlike those of others.
    """

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

    def size(self, index: int) -> int | None:
        """Returns the bytes of a file; None if its part does not know them."""
        source, inner = self._locate(index)
        return source.size(inner) if isinstance(source, FileSource) else None

    def head(self, index: int, size: int) -> bytes:
        source, inner = self._locate_file(index)
        return source.head(inner, size)

    def short_digest(self, index: int) -> bytes:
        source, inner = self._locate_file(index)
        return source.short_digest(inner)

    def _locate_file(self, index: int) -> tuple[FileSource, int]:
        source, inner = self._locate(index)
        if not isinstance(source, FileSource):
            raise TypeError(f"image {index} is not a file")
        return source, inner


def joined(parts: Sequence[ImageSource]) -> ImageSource:
    """Joins one or several sources into one."""
    return parts[0] if len(parts) == 1 else Joined(parts)
