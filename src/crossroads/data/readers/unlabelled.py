"""Lists images without labels: files, folders, glob patterns, archives, lists of paths, and paths on the standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from crossroads.data.dataset import Dataset
from crossroads.data.images import Pixels
from crossroads.data.loading import UNREADABLE
from crossroads.data.pictures import source_of, unreadable_file
from crossroads.data.readers._folder_notes import not_images
from crossroads.data.readers._listing import described, is_image_name, suffix_of
from crossroads.data.readers._sources import FileImages
from crossroads.errors import DataError
from crossroads.files.byte_ranges import ByteRange, open_plain, unreadable
from crossroads.files.text import natural_key, printable
from crossroads.files.trees import Folder, Tree, detect_kind, open_archive
from crossroads.progress import Note

STANDARD_INPUT = "-"
"""The name of the standard input, from which paths are read, one per line."""

LIST_SUFFIXES = (".txt", ".lst")
"""Suffixes of a file with one path per line."""

_ARCHIVES = ("zip", "tar", "gz", "bz2", "xz")
_READ_ONCE = 1 << 20


class ImageFile(NamedTuple):
    """One image that is not read yet.

    Attributes:
        name: Its path, as text that UTF-8 can encode. A member of an archive is named after it: ``photos.zip/cats/1.jpg``.
        read: Returns the encoded file, or the pixels. May be called in any thread.
        path: Its path on the disk; None for a member of an archive and for an image from a table.
        label: Its label if it is known; otherwise empty.
    """

    name: str
    read: Callable[[], bytes | Pixels]
    path: str | None = None
    label: str = ""


def read_image(image: ImageFile) -> bytes | Pixels:
    """Returns an encoded file or pixels. Raises `ImageRefused` if it cannot be read."""
    try:
        return image.read()
    except UNREADABLE as error:
        raise unreadable_file(error) from error


class _Part(NamedTuple):
    """Images from one place. `total` is None if their number is not known in advance."""

    total: int | None
    images: Callable[[], Iterator[ImageFile]]


@dataclass(frozen=True, slots=True, eq=False)
class ImageList:
    """Images in order, which are listed again for each iteration, except those from the standard input.

    Attributes:
        parts: Where they are.
        notes: What was left out.
        folders: The folders that were listed.
    """

    parts: tuple[_Part, ...]
    notes: tuple[Note, ...] = ()
    folders: tuple[Path, ...] = ()

    def __iter__(self) -> Iterator[ImageFile]:
        for part in self.parts:
            yield from part.images()

    @property
    def total(self) -> int | None:
        """The number of images; None if it is not known in advance."""
        totals = [part.total for part in self.parts if part.total is not None]
        return sum(totals) if len(totals) == len(self.parts) else None


def list_images(places: Sequence[str | os.PathLike[str]]) -> ImageList:
    """Lists images without reading them. Folders and archives are listed as `fit` lists them, in natural order.

    Args:
        places: Image files, folders, glob patterns such as ``photos/**/*.jpg``, .zip and .tar archives, ``.txt`` files with one
            path per line, and ``-`` for paths on the standard input. A relative path in a list starts at the folder of the list,
            or at the current folder if the first one does not exist there.

    Raises:
        DataError: A folder, an archive or a pattern holds no images, or a list or an archive cannot be read.
    """
    listing = _Collecting()
    for place in places:
        listing.add(os.fspath(place))
    return ImageList(tuple(listing.parts), tuple(listing.notes), tuple(listing.folders))


def images_of(data: str, dataset: Dataset) -> ImageList:
    """Returns the images of a data set with their labels.

    Args:
        data: The path of the data set. Names of files in a folder or an archive come after it.
        dataset: The data set.
    """
    place = Path(data)
    inside = place.is_dir() or (isinstance(dataset.images, FileImages) and bool(_archive_kind(data)))
    prefix = str(place / "x")[:-1] if inside else ""

    def images() -> Iterator[ImageFile]:
        for row in range(len(dataset)):
            name = printable(prefix + dataset.name(row))
            yield ImageFile(name, partial(dataset.read, row), None, dataset.classes[dataset.labels[row]])

    return ImageList((_Part(len(dataset), images),), tuple(note for note in dataset.notes if isinstance(note, Note)))


def is_data_set(place: str) -> bool:
    """Returns whether a place may hold labelled images: a folder, or a file that is neither an image nor a list of paths."""
    if place == STANDARD_INPUT or suffix_of(place) in LIST_SUFFIXES or is_image_name(place):
        return False
    return os.path.exists(place)  # noqa: PTH110 - a name with a null character raises no error here


class _Collecting:
    """Collects the parts of a list. Single files that follow each other are one part."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.notes: list[Note] = []
        self.folders: list[Path] = []

    def add(self, place: str) -> None:
        """Adds one place."""
        if place == STANDARD_INPUT:
            self.parts.append(_Part(None, lambda: _files(_lines(sys.stdin.buffer), "")))
        elif os.path.isdir(place):  # noqa: PTH112 - a name with a null character raises no error here
            self._add_folder(Path(place))
        elif glob.has_magic(place) and not os.path.lexists(place):
            self._add_pattern(place)
        elif suffix_of(place) in LIST_SUFFIXES:
            self._add_list(place)
        elif not is_image_name(place) and (kind := _archive_kind(place)):
            self._add_archive(place, kind)
        else:
            self.parts.append(_Part(1, partial(_files, [place], "")))

    def _add_folder(self, path: Path, *, named: bool = True) -> None:
        folder = Folder(path)
        names = folder.names()
        self._split(names, f"in {folder.origin}/: ", folder.origin)
        images = [name for name in names if is_image_name(name)]
        if not images and named:
            raise _no_images(folder.origin, described(names))
        self.notes += folder.repeat_notes()
        self.folders.append(path)
        self.parts.append(_Part(len(images), partial(_in_folder, folder, str(path / "x")[:-1], images)))

    def _add_pattern(self, pattern: str) -> None:
        found = sorted(glob.glob(pattern, recursive=True), key=natural_key)  # noqa: PTH207 - patterns may be absolute
        files = [path for path in found if not os.path.isdir(path)]  # noqa: PTH112
        before = len(self.parts)
        images = [path for path in files if is_image_name(path)]
        if images:
            self.parts.append(_Part(len(images), partial(_files, images, "")))
        if "**" not in pattern:  # which matches the files inside the folders already
            for path in found:
                if os.path.isdir(path):  # noqa: PTH112
                    self._add_folder(Path(path), named=False)
        self._split(files, "", pattern)
        if sum(part.total or 0 for part in self.parts[before:]) == 0:
            raise _no_images(printable(pattern), described(files))

    def _add_archive(self, place: str, kind: str) -> None:
        origin = printable(place)
        tree = open_archive(ByteRange.from_path(Path(place)), kind, origin)
        names = tree.names()
        images = [name for name in names if is_image_name(name)]
        if not images:
            raise _no_images(origin, described(names))
        self._split(names, f"in {origin}: ", origin)
        self.parts.append(_Part(len(images), partial(_in_archive, tree, images)))

    def _add_list(self, place: str) -> None:
        total, first = 0, ""
        for line in _list_lines(place):
            total += 1
            first = first or (line if not os.path.isabs(line) else "")  # noqa: PTH117
        beside = os.path.dirname(place)  # noqa: PTH120
        base = beside if first and os.path.lexists(os.path.join(beside, first)) else ""  # noqa: PTH118
        self.parts.append(_Part(total, lambda: _files(_list_lines(place), base)))

    def _split(self, names: Sequence[str], prefix: str, parent: str) -> None:
        """Notes the files that are not images."""
        others = [printable(name) for name in names if not is_image_name(name)]
        self.notes += [note.prefixed(prefix, parent=parent) for note in not_images(others)]


def _no_images(origin: str, received: str) -> DataError:
    return DataError(
        f"{origin} must hold images", code="no-images", received=received, hint="name a folder of images, or image files"
    )


def _archive_kind(place: str) -> str:
    """Returns the kind of an archive; empty for any other file, and for one that cannot be read, which is refused later."""
    try:
        os.close(open_plain(place))
        kind = detect_kind(ByteRange.from_path(Path(place)))
    except (OSError, ValueError, DataError):
        return ""
    return kind if kind in _ARCHIVES and suffix_of(place) != ".npz" else ""


def _in_folder(folder: Folder, prefix: str, names: Sequence[str]) -> Iterator[ImageFile]:
    for name in names:
        # A name on the disk that is not UTF-8 is listed with backslash escapes, so its path must be looked up.
        path = os.fspath(folder.path_of(name)) if "\\" in name else prefix + name
        yield ImageFile(printable(prefix + name), partial(source_of, path), path)


def _in_archive(tree: Tree, names: Sequence[str]) -> Iterator[ImageFile]:
    for name in names:
        yield ImageFile(f"{tree.origin}/{name}", partial(tree.read, name))


def _files(paths: Iterable[str], base: str) -> Iterator[ImageFile]:
    for given in paths:
        path = os.path.join(base, given) if base else given  # noqa: PTH118 - pathlib takes four times as long
        yield ImageFile(printable(path), partial(source_of, path), path)


def _list_lines(place: str) -> Iterator[str]:
    try:
        with os.fdopen(open_plain(place), "rb", buffering=_READ_ONCE) as file:
            yield from _lines(file)
    except (OSError, ValueError) as error:
        raise unreadable(printable(place), error) from error


def _lines(file: IO[bytes]) -> Iterator[str]:
    """Yields the paths in a file with one per line. Empty lines are ignored."""
    for line in file:
        path = os.fsdecode(line.rstrip(b"\r\n"))
        if path:
            yield path
