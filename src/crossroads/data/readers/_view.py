"""What a reader looks at: the files below one folder of a tree, and the images among them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import TEST, TRAIN, VALIDATION
from crossroads.data.formats import ARTWORK_SUFFIXES, IMAGE_SUFFIXES
from crossroads.errors import DataError, ImageRefused
from crossroads.files.archives import MEMBER
from crossroads.files.byte_ranges import Span, read_plain
from crossroads.files.trees import Folder, Tree

DATA_SUFFIXES = frozenset((".csv", ".tsv", ".p", ".pkl", ".pickle", ".npz", ".npy", ".parquet"))
SPLIT_WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
    "testing": TEST,
}


def suffix_of(name: str) -> str:
    """``.jpg`` of ``a/B.JPG``; empty where there is none."""
    dot = name.rfind(".")  # by hand, since it is called several times for every file
    return name[dot:].lower() if dot > name.rfind("/") + 1 else ""


def is_image_name(name: str) -> bool:
    """Whether the suffix of a file is that of an image format, supported or not."""
    return suffix_of(name) in IMAGE_SUFFIXES


def split_of(name: str) -> int | None:
    """The split that a folder or column value names, in any case, or None."""
    return SPLIT_WORDS.get(name.strip().lower())


_STRAY = 0.1
"""Images beside the only folder, as a fraction of those in it, up to which they count as strays."""


@dataclass(slots=True)
class Branch:
    """How many images a folder holds directly, and how many at any depth below each of its subfolders."""

    direct: int = 0
    inside: dict[str, int] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """All of them."""
        return self.direct + sum(self.inside.values())


@dataclass(frozen=True)
class View:
    """The files of a tree below `root`.

    Attributes:
        tree: Where the files are.
        root: Empty, or a folder of the tree with a slash at its end.
        names: The files below `root`, relative to it, in natural order; a single name where the user gave one file.
        single: Whether the user gave one file, so that its neighbours are none of our business unless it names them.
        origin: What the user gave.
        kind: What `kind_of` says of the single file; empty otherwise.
        notes: What was decided while looking, for the data set's notes; shared by all views of one source.
        memo: What readers found out about the view and want to know again.
    """

    tree: Tree
    root: str
    names: Sequence[str]
    origin: str
    single: bool = False
    kind: str = ""
    notes: list[str] = field(default_factory=list)
    memo: dict[str, Any] = field(default_factory=dict)

    def full(self, name: str) -> str:
        """The name in the tree of a file below the root."""
        return self.root + name

    def span(self, name: str) -> Span:
        """A file below the root."""
        return self.tree.span(self.full(name))

    def label(self, name: str) -> str:
        """What to call a file in a message."""
        return name if self.single else self.full(name)

    @property
    def on_disk(self) -> bool:
        """Whether the files are plain files, so that a path in a table may lead out of the folder."""
        return isinstance(self.tree, Folder)

    @cached_property
    def top_files(self) -> tuple[str, ...]:
        """The files that lie directly in the root."""
        return tuple(name for name in self.names if "/" not in name)

    @cached_property
    def branches(self) -> dict[str, Branch]:
        """The folders directly below the root that hold images, at any depth, in natural order, with what lies in them.

        Folders of nothing but icons and the like (`drawn`) do not count beside others.
        """
        return {top: branch for top, branch in self._all_branches.items() if top not in self.drawn}

    @cached_property
    def drawn(self) -> dict[str, int]:
        """The folders whose images are all of formats that are seldom photographs, beside others, with their numbers of images."""
        photos = {name.partition("/")[0] for name in self.names if is_image_name(name) and suffix_of(name) not in ARTWORK_SUFFIXES}
        return {top: branch.images for top, branch in self._all_branches.items() if top not in photos} if photos else {}

    @cached_property
    def _all_branches(self) -> dict[str, Branch]:
        found: dict[str, Branch] = {}
        for name in self.names:
            parts = name.split("/", 2)
            if len(parts) == 1 or not is_image_name(name):
                continue
            branch = found.get(parts[0])
            if branch is None:
                branch = found[parts[0]] = Branch()
            if len(parts) == 2:
                branch.direct += 1
            else:
                branch.inside[parts[1]] = branch.inside.get(parts[1], 0) + 1
        return found

    @cached_property
    def images(self) -> list[str]:
        """The files with an image suffix."""
        return [name for name in self.names if is_image_name(name) and name.partition("/")[0] not in self.drawn]

    @cached_property
    def loose(self) -> int:
        """The number of images directly in the root."""
        return sum(map(is_image_name, self.top_files))

    def inside(self, folder: str) -> View:
        """The view of one folder below the root."""
        prefix = folder + "/"
        if prefix not in self.memo:
            names = [name[len(prefix) :] for name in self.names if name.startswith(prefix)]
            self.memo[prefix] = View(self.tree, self.root + prefix, names, self.origin, notes=self.notes)
        found: View = self.memo[prefix]
        return found

    def folders(self, under: str = "") -> list[str]:
        """The folders directly below ``root + under`` that the tree knows of, empty ones included."""
        prefix = self.root + under
        return [name[len(prefix) :] for name in self.tree.folders() if name.startswith(prefix) and "/" not in name[len(prefix) :]]

    def below(self) -> View | None:
        """One level down, where everything that matters lies in one folder: all images, or else all tables and arrays.

        A few images beside that folder, such as a logo, do not matter; whoever goes down notes that they are ignored.
        """
        if len(self.branches) == 1:
            ((top, branch),) = self.branches.items()
            if 0 < self.loose <= _STRAY * branch.images:
                return self.inside(top)
        relevant = self.images or [name for name in self.names if suffix_of(name) in DATA_SUFFIXES] or self.names
        tops = {name.partition("/")[0] if "/" in name else "" for name in relevant}
        if len(tops) != 1 or tops == {""}:
            return None
        return self.inside(tops.pop())


def views(first: View) -> Iterator[View]:
    """The view itself and what is left after wrapping folders are taken off, one by one."""
    view: View | None = first
    while view is not None:
        yield view
        view = view.below()


def described(names: Sequence[str]) -> str:
    """How many files of which types, such as ``412 .txt, 3 .jpg``."""
    counts = Counter(suffix_of(name) or "without suffix" for name in names)
    shown = [f"{count} {suffix}" for suffix, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:6]]
    return (", ".join(shown) + (", …" if len(counts) > 6 else "")) or "no files"


class TreeImages:
    """Images that are files of a tree."""

    def __init__(self, tree: Tree, names: Sequence[str]) -> None:
        self._tree = tree
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """The file's path in the tree."""
        return self._names[index]

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """The encoded file. Raises ImageRefused where it is gone or damaged."""
        try:
            return self._tree.read(self._names[index])
        except DataError as error:
            raise ImageRefused(error.rule, received=error.received) from error


class PathImages:
    """Images that are files on disk, at paths relative to a folder or absolute."""

    def __init__(self, folder: str, paths: Sequence[str]) -> None:
        self._folder = folder
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, index: int) -> str:
        """The path as the table has it."""
        return self._paths[index]

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """The encoded file. Raises ImageRefused where it cannot be read."""
        try:
            return read_plain(os.path.join(self._folder, self._paths[index]), MEMBER)  # noqa: PTH118 - a third of pathlib's time
        except OSError as error:
            raise ImageRefused("the file cannot be read", received=error.strerror) from error
