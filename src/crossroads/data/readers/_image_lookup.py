"""Finds the image that a table row names, by its path or by the end of its path."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

from crossroads.data.dataset import NO_SPLIT, TRAIN, ImageSource
from crossroads.data.readers._folder_names import is_holder, split_in
from crossroads.data.readers._listing import Listing, is_image_name, once_per_listing
from crossroads.data.readers._sources import FileImages, path_images
from crossroads.errors import DataError
from crossroads.files.archives import is_junk
from crossroads.files.text import printable
from crossroads.files.trees import Folder

_URL_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_ABSOLUTE = re.compile(r"/|[a-z]:[\\/]", re.IGNORECASE)
_MAX_NEARBY_DEPTH = 2
_MAX_PATH_LENGTH = 1000


class ImageLookup:
    """Looks up images of a listing by a path, a URL, or a name with or without its suffix.

    Attributes:
        folder: The folder of the listing on disk. Empty if the listing is in an archive.
        missing_from: Scheme of the first URL whose image was not found, such as ``s3://``. Empty if there is none.
    """

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self.folder = ""
        if isinstance(listing.tree, Folder):
            self.folder = os.path.join(listing.tree.path_of(listing.root.rstrip("/")), "")  # noqa: PTH118
        self.missing_from = ""
        self._exists: Callable[[str], bool] = _DirectoryCache(self.folder).exists if listing.on_disk else listing.tree.exists
        self._by_end: dict[tuple[int, bool], dict[str, list[str]]] = {}
        self._chosen: dict[tuple[str, int], str | None] = {}
        self._nearby: list[str] | None = None

    def find(self, table: str, line: int, path: str, split: int = NO_SPLIT) -> tuple[str, bool]:
        """Returns the image that a row names, and whether it exists.

        If several images have the same name, the one in the split of the row is chosen.
        """
        absolute = _ABSOLUTE.match(path)
        if absolute and self._listing.on_disk and self._exists(path.replace("\\", "/")):
            absolute = None
        if elsewhere := _URL_SCHEME.match(path) or absolute:
            path = "/" + path[elsewhere.end() :]
            name = self._by_name(path, split)
            if name:
                return name, True
            if "://" in elsewhere[0]:
                self.missing_from = self.missing_from or elsewhere[0]
                return path, False
        place = self._place(table, line, path)
        if self._exists(place):
            return place, True
        name = self._by_name(path, split)
        return (name, True) if name else (place, False)

    def has(self, table: str, path: str) -> bool:
        """Returns whether a path in a table names an existing image."""
        if not path or len(path) > _MAX_PATH_LENGTH or path.startswith("../"):
            return False
        try:
            place, exists = self.find(table, 0, path)
        except DataError:
            return False
        return exists and is_image_name(place)

    def images(self, places: list[str]) -> ImageSource:
        """Returns a source of the images at places that `find` returned."""
        return path_images(self.folder, places) if self._listing.on_disk else FileImages(places, self._listing.tree)

    def _place(self, table: str, line: int, path: str) -> str:
        """Returns the path of the image in a row. It is relative to the listing on disk, or to the tree in an archive.

        Raises:
            DataError: The path leads out of an archive.
        """
        path = path.replace("\\", "/")
        folder = posixpath.dirname(table)
        if self._listing.on_disk:
            path = posixpath.normpath(path) if "./" in path or "//" in path else path
            return f"{folder}/{path}" if folder and not path.startswith("/") else path
        whole = posixpath.normpath(posixpath.join(self._listing.root, folder, path))
        if path.startswith("/") or whole == ".." or whole.startswith("../"):
            rule, hint = f"{self._listing.label(table)} line {line}: a path must not lead out of the archive", "unpack the archive"
            raise DataError(rule, code="path-outside-folder", received=repr(path), hint=f"{hint} and give the table")
        return whole

    def _by_name(self, path: str, split: int) -> str | None:
        """Finds an image by its name, with or without the suffix. Folders in a relative path must match those of the image."""
        wanted = _folded(path.replace("\\", "/")).removeprefix("./")
        matches = self._by_longest_end(wanted) if wanted.startswith("/") else self._by_exact_end(wanted, wanted.count("/") + 1)
        if len(matches) < 2:
            return self._tree_name(matches[0]) if matches else None
        key = (path, split)
        if key not in self._chosen:
            self._chosen[key] = _one_of(matches, path, split)
        return None if (chosen := self._chosen[key]) is None else self._tree_name(chosen)

    def _by_exact_end(self, wanted: str, depth: int) -> list[str]:
        """Returns the images whose last `depth` components are `wanted`, the last one with or without its suffix."""
        return self._index(depth, stems=False).get(wanted) or self._index(depth, stems=True).get(wanted) or []

    def _by_longest_end(self, wanted: str) -> list[str]:
        """Returns the images that match the longest end of a path from another machine.

        Suppose that the path is ``/old/disk/b/x/1.png``. The search starts with all images named ``1.png``. It keeps those in
        ``x``, then those in ``b/x``, and so on. It ends when one image is left, or when the next step would leave none. An image
        of which only the name matches counts only if its folders say nothing about its class. For example, ``/old/ash/1.png`` is
        not ``oak/1.png``.
        """
        parts = wanted.strip("/").split("/")
        matches, depth = self._by_exact_end(parts[-1], 1), 1
        while len(matches) > 1 and depth < len(parts) and (longer := self._by_exact_end("/".join(parts[-depth - 1 :]), depth + 1)):
            matches, depth = longer, depth + 1
        complete = [name for name in matches if name.count("/") < depth] if len(matches) > 1 else []
        if depth > 1 or complete:
            return complete or matches
        if len(matches) == 1 and _common_end(wanted, matches[0]) > 1:
            return matches
        return [name for name in matches if all(is_holder(part) or split_in(part) is not None for part in name.split("/")[:-1])]

    def _tree_name(self, name: str) -> str:
        """Converts a name of the listing to the form that `images` accepts."""
        tree = self._listing.tree
        if not isinstance(tree, Folder):
            return self._listing.full(name)
        # A name on disk that is not UTF-8 is listed with backslash escapes, so its path must be looked up.
        return os.fspath(tree.path_of(self._listing.full(name))) if "\\" in name and not self._listing.single else name

    def _index(self, depth: int, *, stems: bool) -> dict[str, list[str]]:
        """Returns the images by the last `depth` components of their names, in lower case. `stems` leaves out the suffix."""
        known = self._by_end.get((depth, stems))
        if known is None:
            known = self._by_end[depth, stems] = {}
            for name in self._image_names():
                parts = _folded(name).rsplit("/", depth)
                if len(parts) < depth:
                    continue
                key = "/".join(parts[-depth:])
                known.setdefault(key.rpartition(".")[0] if stems else key, []).append(name)
        return known

    def _image_names(self) -> Sequence[str]:
        if not self._listing.single:
            return self._listing.images
        if self._nearby is None:
            self._nearby = list(_images_nearby(self.folder))
        return self._nearby


@once_per_listing
def image_lookup(listing: Listing) -> ImageLookup:
    """Returns the look-up of a listing. There is one per listing, so the images are indexed once."""
    return ImageLookup(listing)


def _folded(name: str) -> str:
    """Returns a name in the form that is used for comparison: Unicode NFC, in lower case."""
    return (name if name.isascii() else unicodedata.normalize("NFC", name)).lower()


def _one_of(names: Sequence[str], path: str, split: int) -> str | None:
    """Chooses one of several matching images, or None. Prefers the same spelling as in the row, and then the split of the row."""
    names = [name for name in names if name.endswith(path)] or names
    if len(names) > 1:
        names = [name for name in names if _split_of_folders(name) == (split or TRAIN)]
    return names[0] if len(names) == 1 else None


def _split_of_folders(name: str) -> int | None:
    """Returns the split that the folders of an image name, or None. Its own folder is checked first, then the outermost folder."""
    folders = name.split("/")[:-1]
    return next((split for folder in [*folders[-1:], *folders] if (split := split_in(folder)) is not None), None)


def _common_end(wanted: str, name: str) -> int:
    """Counts the components that two paths have in common at their ends. The count is large if one path is the end of the other."""
    pairs = zip(reversed(wanted.split("/")), reversed(_folded(name).split("/")), strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if a != b), 1 << 10)


def _images_nearby(folder: str) -> Iterator[str]:
    """Yields the images in a folder and two levels below it. Used for a single table that names files without their folders."""
    level = [""]
    for depth in range(_MAX_NEARBY_DEPTH + 1):
        deeper = []
        for inner in level:
            try:
                with os.scandir(os.path.join(folder, inner) or ".") as entries:  # noqa: PTH118
                    names = sorted((entry.name, entry.is_dir()) for entry in entries if not is_junk(entry.name))
            except OSError:
                continue
            deeper += [f"{inner}{name}/" for name, is_folder in names if is_folder and depth < _MAX_NEARBY_DEPTH]
            yield from (printable(f"{inner}{name}") for name, is_folder in names if not is_folder and is_image_name(name))
        level = deeper


class _DirectoryCache:
    """Checks whether files exist. Lists each folder only once, so that a million look-ups take only seconds on a network disk."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._known: dict[str, tuple[frozenset[str], frozenset[str]]] = {}

    def exists(self, path: str) -> bool:
        """Returns whether there is a file at a path relative to the folder."""
        folder, _, name = path.rpartition("/")
        if path.startswith("/") and not folder:
            folder = "/"
        known = self._known.get(folder)
        if known is None:
            try:
                names = os.listdir(os.path.join(self._folder, folder) or ".")  # noqa: PTH118, PTH208
            except (OSError, ValueError):
                names = []
            known = self._known[folder] = (frozenset(names), frozenset(map(_folded, names)))
        if name in known[0]:
            return True
        # Some file systems ignore case or Unicode form, so a file may exist although its folder lists it with another spelling.
        return _folded(name) in known[1] and os.path.isfile(os.path.join(self._folder, path))  # noqa: PTH113, PTH118
