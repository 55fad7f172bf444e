"""The files that the rows of tables name: looked up where the table says, and by name where it says only a name."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from crossroads.data.dataset import NO_SPLIT, SPLITS, TRAIN, ImageSource
from crossroads.data.readers._folder_names import is_holder, split_in
from crossroads.data.readers._listing import PathImages, TreeImages, View, is_image_name
from crossroads.errors import DataError
from crossroads.files.archives import is_junk
from crossroads.files.text import plural, printable
from crossroads.files.trees import Folder


class TableRow(NamedTuple):
    """One row as it stands in the table."""

    line: int
    path: str
    label: str
    split: int
    group: str | None


_REMOTE = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_ROOTED = re.compile(r"/|[a-z]:[\\/]", re.IGNORECASE)
_NEARBY_DEPTH = 2


class Files:
    """Looks up the images of a view by what tables call them: a path, a URL, a name without its suffix."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.folder = ""
        if isinstance(view.tree, Folder):
            self.folder = os.path.join(view.tree.path_of(view.root.rstrip("/")), "")  # noqa: PTH118
        self._there: Callable[[str], bool] = _Listings(self.folder).exists if view.on_disk else view.tree.exists
        self._by_end: dict[tuple[int, bool], dict[str, list[str]]] = {}
        self._chosen: dict[tuple[str, int], str | None] = {}
        self._beside: list[str] | None = None
        self.remote = ""

    def where(self, table: str, line: int, path: str) -> str:
        """Where a row says that its image lies: relative to the view on disk, to the tree in an archive.

        Raises:
            DataError: The path leads out of an archive.
        """
        path = path.replace("\\", "/")
        folder = posixpath.dirname(table)
        if self._view.on_disk:
            path = posixpath.normpath(path) if "./" in path or "//" in path else path
            return f"{folder}/{path}" if folder and not path.startswith("/") else path
        whole = posixpath.normpath(posixpath.join(self._view.root, folder, path))
        if path.startswith("/") or whole == ".." or whole.startswith("../"):
            raise DataError(
                f"{self._view.label(table)} line {line}: a path must stay inside the archive",
                received=repr(path),
                hint="unpack it and give the table",
            )
        return whole

    def find(self, table: str, line: int, path: str, split: int = NO_SPLIT) -> tuple[str, bool]:
        """The image that a row names, and whether it exists. Among several of one name, the one in the row's split is chosen."""
        if elsewhere := _REMOTE.match(path) or (None if self._on_this_machine(path) else _ROOTED.match(path)):
            path = "/" + path[elsewhere.end() :]
            found = self._named(path, split)
            if found or "://" in elsewhere[0]:
                self.remote = self.remote or ("" if found else elsewhere[0])
                return (found, True) if found else (path, False)
        place = self.where(table, line, path)
        if self._there(place):
            return place, True
        found = self._named(path, split)
        return (found, True) if found else (place, False)

    def _on_this_machine(self, path: str) -> bool:
        return self._view.on_disk and _ROOTED.match(path) is not None and self._there(path.replace("\\", "/"))

    def has(self, table: str, path: str) -> bool:
        """Whether a value names an image that is there."""
        if not path or len(path) > 1000 or path.startswith("../"):
            return False
        try:
            place, there = self.find(table, 0, path)
        except DataError:
            return False
        return there and is_image_name(place)

    def _named(self, path: str, split: int) -> str | None:
        """An image by its name, with or without the suffix. A folder in a relative path must be that of the image."""
        wanted = _folded(path.replace("\\", "/")).removeprefix("./")
        found = self._elsewhere(wanted) if wanted.startswith("/") else self._alike(wanted, wanted.count("/") + 1)
        if len(found) < 2:
            return self._tree_name(found[0]) if found else None
        key = (path, split)
        if key not in self._chosen:
            self._chosen[key] = _the_one(found, path, split)
        return None if (chosen := self._chosen[key]) is None else self._tree_name(chosen)

    def _alike(self, wanted: str, depth: int) -> list[str]:
        """The images whose last `depth` components are `wanted`, the last one with or without its suffix."""
        return self._index(depth, stems=False).get(wanted) or self._index(depth, stems=True).get(wanted) or []

    def _elsewhere(self, wanted: str) -> list[str]:
        """The images that have the most components in common with the end of a path on another machine."""
        parts = wanted.strip("/").split("/")
        found, depth = self._alike(parts[-1], 1), 1
        while len(found) > 1 and depth < len(parts) and (longer := self._alike("/".join(parts[-depth - 1 :]), depth + 1)):
            found, depth = longer, depth + 1
        whole = [name for name in found if name.count("/") < depth] if len(found) > 1 else []
        found = whole or found
        common = 2 if depth > 1 or whole else _common_end(wanted, found[0]) if len(found) == 1 else 1
        return found if common > 1 else [name for name in found if _says_nothing(name)]

    def _tree_name(self, name: str) -> str:
        """A name of the listing as `images` reads it."""
        if not self._view.on_disk:
            return self._view.full(name)
        # A name that is no UTF-8 is shown with escapes and lies elsewhere on disk.
        return os.fspath(self._view.tree.path_of(self._view.full(name))) if "\\" in name and not self._view.single else name  # type: ignore[attr-defined]

    def _index(self, depth: int, *, stems: bool) -> dict[str, list[str]]:
        """The images by the last `depth` components of their names, in lower case, with or without suffix."""
        known = self._by_end.get((depth, stems))
        if known is None:
            known = self._by_end[depth, stems] = {}
            for name in self._listed():
                parts = _folded(name).rsplit("/", depth)
                if len(parts) < depth:
                    continue
                key = "/".join(parts[-depth:])
                known.setdefault(key.rpartition(".")[0] if stems else key, []).append(name)
        return known

    def _listed(self) -> Sequence[str]:
        if not self._view.single:
            return self._view.images
        if self._beside is None:
            self._beside = list(_nearby(self.folder))
        return self._beside

    def images(self, paths: list[str]) -> ImageSource:
        """The images at places that `find` gave."""
        return PathImages(self.folder, paths) if self._view.on_disk else TreeImages(self._view.tree, paths)


def _folded(name: str) -> str:
    """A name as it is compared: NFC, in lower case."""
    return (name if name.isascii() else unicodedata.normalize("NFC", name)).lower()


def _the_one(found: Sequence[str], path: str, split: int) -> str | None:
    """Among several images of one name: the one spelled as in the row, else the only one in the row's split, else None."""
    found = [name for name in found if name.endswith(path)] or found
    if len(found) > 1:
        sides = [split_in(name.rpartition("/")[0].rpartition("/")[2]) or _first_split(name) for name in found]
        found = [name for name, side in zip(found, sides, strict=True) if side == (split or TRAIN)]
    return found[0] if len(found) == 1 else None


def _says_nothing(name: str) -> bool:
    """Whether the folders of an image say nothing of what it shows."""
    return all(is_holder(part) or split_in(part) is not None for part in name.split("/")[:-1])


def _first_split(name: str) -> int | None:
    return next((split for part in name.split("/")[:-1] if (split := split_in(part)) is not None), None)


def _common_end(one: str, other: str) -> int:
    """How many components two paths have in common at their ends."""
    pairs = zip(reversed(one.split("/")), reversed(_folded(other).split("/")), strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), 1 << 10)


def _nearby(folder: str) -> Iterable[str]:
    """The images in a folder and two levels below, for a table that was given alone and names files without saying where."""
    level = [""]
    for depth in range(_NEARBY_DEPTH + 1):
        deeper = []
        for inner in level:
            try:
                with os.scandir(os.path.join(folder, inner) or ".") as entries:  # noqa: PTH118
                    found = sorted((entry.name, entry.is_dir()) for entry in entries if not is_junk(entry.name))
            except OSError:
                continue
            deeper += [f"{inner}{name}/" for name, is_folder in found if is_folder and depth < _NEARBY_DEPTH]
            yield from (printable(f"{inner}{name}") for name, is_folder in found if not is_folder and is_image_name(name))
        level = deeper


def files_of(view: View) -> Files:
    """The one look-up of a view, which lists its images once."""
    if "files" not in view.memo:
        view.memo["files"] = Files(view)
    found: Files = view.memo["files"]
    return found


class Found:
    """The images of table rows: their places, the missing ones, and the duplicates."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.files = files_of(view)
        self.paths: list[str] = []
        self.repeated = 0
        self._labels: list[str] = []
        self._groups: list[str | None] = []
        self._splits = array("B")
        self._lines = array("I")
        self._missing = array("q")
        self._tables: list[tuple[int, str]] = []
        self._seen: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def missing(self) -> int:
        """How many of the files are not there."""
        return len(self._missing)

    def add(self, table: str, row: TableRow, split: int = NO_SPLIT, *, path: str | None = None) -> bool:
        """Add the image of one row; returns False for a duplicate of an earlier row.

        Args:
            table: The table.
            row: The row.
            split: The split that the row or its table says.
            path: Where the image is known to lie elsewhere than the row says.

        Raises:
            DataError: A row before gives the same image another label, split or group.
        """
        place, there = self.files.find(table, row.line, path or row.path, split or split_in(table) or NO_SPLIT)
        known = self._seen.setdefault(place, len(self.paths))
        if known < len(self.paths):
            self._agree(known, table, row, split)
            self.repeated += 1
            return False
        if not self._tables or self._tables[-1][1] != table:
            self._tables.append((len(self.paths), table))
        if not there:
            self._missing.append(len(self.paths))
        self.paths.append(place)
        self._labels.append(row.label)
        self._groups.append(row.group)
        self._splits.append(split)
        self._lines.append(row.line)
        return True

    def _agree(self, known: int, table: str, row: TableRow, split: int) -> None:
        """Raise DataError where two rows say different things of one image."""
        lines = f"{self._table(known)} line {self._lines[known]} and {self._view.label(table)} line {row.line}"
        if row.label != self._labels[known]:
            raise DataError(
                f"an image must have one label, and {self.paths[known]} has two",
                received=f"{self._labels[known]!r} and {row.label!r} in {lines}",
                hint="images with several labels or objects are not supported; keep one row per image",
            )
        if split != self._splits[known]:
            sides = " and ".join(SPLITS[side] or "no split" for side in (self._splits[known], split))
            raise DataError(
                f"an image must be in one split, and {self.paths[known]} is in two",
                received=f"{sides} in {lines}",
                hint="keep one row",
            )
        if row.group != self._groups[known]:
            groups = " and ".join("no group" if group is None else repr(group) for group in (self._groups[known], row.group))
            raise DataError(
                f"an image must be in one group, and {self.paths[known]} is in two",
                received=f"{groups} in {lines}",
                hint="keep one row, or give both groups one name",
            )

    def check(self) -> None:
        """Raise DataError that counts the files that are not there and shows the first few with their lines."""
        if not self._missing:
            return
        count = len(self._missing)
        first = "; ".join(f"{self._table(index)} line {self._lines[index]}: {self.paths[index]}" for index in self._missing[:3])
        relative = "paths are relative to the folder of the table"
        if self.files.remote:
            relative = f"download the images that the table names on {self.files.remote} to its folder"
        raise DataError(
            f"{count} of the {plural(len(self.paths), 'file')} in the table {'does' if count == 1 else 'do'} not exist",
            received=first + ("; …" if count > 3 else ""),
            hint=f"{relative}, {self.files.folder or '.'}" if self._view.on_disk else relative,
        )

    def _table(self, index: int) -> str:
        return self._view.label(next(name for start, name in reversed(self._tables) if start <= index))

    def images(self) -> ImageSource:
        """The images of the rows, in their order."""
        return self.files.images(self.paths)

    def notes(self) -> list[str]:
        """A note on duplicate rows."""
        return [f"{plural(self.repeated, 'duplicate row')} ignored"] if self.repeated else []


class _Listings:
    """Whether files exist, from one listing of each folder: a million look-ups take seconds, not minutes on a network disk."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._known: dict[str, tuple[frozenset[str], frozenset[str]]] = {}

    def exists(self, path: str) -> bool:
        """Whether there is a file at a path relative to the folder."""
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
        # A file system that folds case or composes accents finds what its listing spells otherwise.
        return _folded(name) in known[1] and os.path.isfile(os.path.join(self._folder, path))  # noqa: PTH113, PTH118
