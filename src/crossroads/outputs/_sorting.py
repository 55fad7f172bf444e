"""Sorts image files into one folder per predicted class. No file is overwritten, moved or lost."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from crossroads.data.readers.unlabelled import ImageFile, read_image
from crossroads.errors import DataError, ImageRefused, option
from crossroads.files.text import printable

_UNSAFE = re.compile(r'[\x00-\x1f<>:"/\\|?*]')
_PARTIAL = ".crossroads-partial"


class Sorter:
    """Copies images into folders that are named after classes.

    A file that is in its folder already, with the same content, is not copied again. A different file of the same name gets a
    number: ``cat.jpg``, ``cat-2.jpg``.

    Args:
        folder: The folder for the folders of the classes.
        classes: The class names.
        sources: The folders that the images come from. Copies in one of them would be read as new images.
        link: Whether to make symbolic links instead of copies.

    Raises:
        DataError: The folder is inside one of the sources.
    """

    def __init__(self, folder: Path, classes: Sequence[str], sources: Sequence[Path] = (), *, link: bool = False) -> None:
        resolved = folder.resolve()
        for source in sources:
            if resolved.is_relative_to(source.resolve()):
                raise DataError(
                    f"{option('sort_into')} must be outside the folder of the images",
                    code="sorted-inside-source",
                    field="sort_into",
                    received=printable(str(folder)),
                    hint="choose a folder beside it",
                )
        self._folder, self._link = folder, link
        self._folders = {name: folder / each for name, each in zip(classes, folder_names(classes), strict=True)}
        self._made: set[str] = set()

    def add(self, image: ImageFile, label: str) -> None:
        """Copies or links one image.

        Raises:
            ImageRefused: It cannot be read any more.
            DataError: It is a member of an archive and cannot be linked.
        """
        home = self._folders[label]
        if label not in self._made:
            home.mkdir(parents=True, exist_ok=True)
            self._made.add(label)
        stem, suffix = os.path.splitext(_base(image))  # noqa: PTH122 - as in `_base`
        number = 1
        while not self._placed(image, home / (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}")):
            number += 1

    def _placed(self, image: ImageFile, target: Path) -> bool:
        """Returns whether the image is at `target` now. It is not if another file is there."""
        if self._link:
            return self._linked(image, target)
        if image.path is not None:
            return _copied(image.path, target)
        raw = read_image(image)
        if not isinstance(raw, bytes):
            raise DataError("only image files can be sorted", code="not-a-file", received=image.name)
        if os.path.lexists(target):
            return target.is_file() and target.read_bytes() == raw
        partial = target.with_name(_PARTIAL)
        partial.write_bytes(raw)
        partial.replace(target)
        return True

    def _linked(self, image: ImageFile, target: Path) -> bool:
        if image.path is None:
            raise DataError(
                f"{option('link')} needs image files on the disk",
                code="link-into-archive",
                field="link",
                received=image.name,
                hint="leave it out to copy them, or unpack the archive",
            )
        source = os.path.abspath(image.path)  # noqa: PTH100 - links in the path stay
        if os.path.lexists(target):
            return target.is_symlink() and os.readlink(target) == source  # noqa: PTH115
        target.symlink_to(source)
        return True


def _copied(source: str, target: Path) -> bool:
    try:
        if os.path.lexists(target):
            return target.is_file() and filecmp.cmp(source, target, shallow=False)
        partial = target.with_name(_PARTIAL)
        shutil.copy2(source, partial)
    except OSError as error:
        if error.filename is not None and os.fspath(error.filename) == source:
            raise ImageRefused("the file cannot be copied any more", code="file-unreadable", received=error.strerror) from error
        raise
    partial.replace(target)
    return True


def _base(image: ImageFile) -> str:
    """Returns the name of the copy of an image."""
    return os.path.basename(image.path if image.path is not None else image.name)  # noqa: PTH119 - it need not be UTF-8


def folder_names(classes: Sequence[str]) -> list[str]:
    """Returns a different folder name for each class. What no folder name may hold becomes ``_``; clashes get a number.

    Names that differ only in case are different classes, but on some systems the same folder.
    """
    names: list[str] = []
    taken: set[str] = set()
    for label in classes:
        plain = _UNSAFE.sub("_", printable(label)).rstrip(" .") or "_"
        name, number = plain, 1
        while name.casefold() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names
