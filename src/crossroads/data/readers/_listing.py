"""Lists the files below one folder, and the images among them, for the readers."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar, cast

from crossroads.data.formats import ARTWORK_SUFFIXES, IMAGE_SUFFIXES
from crossroads.files.byte_ranges import ByteRange
from crossroads.files.trees import Folder, Tree
from crossroads.progress import Note

DATA_SUFFIXES = frozenset((".csv", ".tsv", ".p", ".pkl", ".pickle", ".npz", ".npy", ".parquet"))

_MAX_STRAY_FRACTION = 0.1
"""Images beside a single folder are ignored if their number is at most this fraction of the number of images in it."""

T = TypeVar("T")


def suffix_of(name: str) -> str:
    """Returns the suffix of a name in lower case, such as ``.jpg`` for ``a/B.JPG``. It is empty if the name has no suffix."""
    dot = name.rfind(".")  # pathlib would be slower, and this runs several times for each file
    return name[dot:].lower() if dot > name.rfind("/") + 1 else ""


def is_image_name(name: str) -> bool:
    """Returns whether a file has the suffix of an image format, supported or not."""
    return suffix_of(name) in IMAGE_SUFFIXES


@dataclass(slots=True)
class Branch:
    """The number of images in one folder.

    Attributes:
        direct: Number of images directly in the folder.
        inside: Number of images in each subfolder, at any depth.
    """

    direct: int = 0
    inside: dict[str, int] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """Number of images in the folder, at any depth."""
        return self.direct + sum(self.inside.values())


@dataclass(frozen=True, eq=False)
class Listing:
    """The files of a tree below `root`.

    Attributes:
        tree: The tree that holds the files.
        root: A folder of the tree, with a slash at its end. Empty for the whole tree.
        names: Names of the files below `root`, relative to it, in natural order. A single name if the user gave one file.
        origin: Name of the data in messages.
        single: Whether the user gave one file. Other files in its folder are read only if it names them or is paired with them.
        kind: The result of `detect_kind` for a single file; otherwise empty.
        notes: Notes on decisions made while recognising the layout. All listings of one source share them.
        outer: The listing that this one is part of. None for the listing of the whole source.
        results: Results of functions decorated with `once_per_listing`.
    """

    tree: Tree
    root: str
    names: Sequence[str]
    origin: str
    single: bool = False
    kind: str = ""
    notes: list[Note] = field(default_factory=list)
    outer: Listing | None = None
    results: dict[object, object] = field(default_factory=dict)

    def full(self, name: str) -> str:
        """Converts a name relative to the root to a name in the tree."""
        return self.root + name

    def byte_range(self, name: str) -> ByteRange:
        return self.tree.byte_range(self.full(name))

    def label(self, name: str) -> str:
        """Returns the name of a file for messages."""
        return name if self.single else self.full(name)

    @property
    def on_disk(self) -> bool:
        """Whether the files are on disk rather than in an archive. Paths in a table may then lead out of the folder."""
        return isinstance(self.tree, Folder)

    @cached_property
    def top_files(self) -> tuple[str, ...]:
        """Names of the files directly below the root."""
        return tuple(name for name in self.names if "/" not in name)

    @cached_property
    def branches(self) -> dict[str, Branch]:
        """The top folders that hold images at any depth, in natural order. Folders in `artwork` are left out."""
        return {top: branch for top, branch in self._all_branches.items() if top not in self.artwork}

    @cached_property
    def artwork(self) -> dict[str, int]:
        """The top folders that hold only icons, drawings and similar files, with their image counts. Empty if all folders do."""
        photos = {name.partition("/")[0] for name in self.names if is_image_name(name) and suffix_of(name) not in ARTWORK_SUFFIXES}
        return {top: branch.images for top, branch in self._all_branches.items() if top not in photos} if photos else {}

    @cached_property
    def _all_branches(self) -> dict[str, Branch]:
        branches: dict[str, Branch] = {}
        for name in self.names:
            parts = name.split("/", 2)
            if len(parts) == 1 or not is_image_name(name):
                continue
            branch = branches.get(parts[0])
            if branch is None:
                branch = branches[parts[0]] = Branch()
            if len(parts) == 2:
                branch.direct += 1
            else:
                branch.inside[parts[1]] = branch.inside.get(parts[1], 0) + 1
        return branches

    @cached_property
    def images(self) -> list[str]:
        """Names of the files with an image suffix. Files in `artwork` folders are left out."""
        return [name for name in self.names if is_image_name(name) and name.partition("/")[0] not in self.artwork]

    @cached_property
    def loose(self) -> int:
        """Number of images directly below the root."""
        return sum(map(is_image_name, self.top_files))

    def inside(self, folder: str) -> Listing:
        """Returns the listing of one folder below the root."""
        if folder not in self.results:
            prefix = folder + "/"
            names = [name[len(prefix) :] for name in self.names if name.startswith(prefix)]
            self.results[folder] = Listing(self.tree, self.root + prefix, names, self.origin, notes=self.notes, outer=self)
        return cast(Listing, self.results[folder])

    def folders(self, under: str = "") -> list[str]:
        """Returns the folders directly below ``root + under``, including empty ones."""
        prefix = self.root + under
        return [name[len(prefix) :] for name in self.tree.folders() if name.startswith(prefix) and "/" not in name[len(prefix) :]]

    def unwrapped(self) -> Listing | None:
        """Returns the listing of the top folder that holds all relevant files, or None if there is no such folder.

        Relevant files are the images. If there are none, they are the tables and arrays. A few images beside the folder, such as a
        logo, are not relevant. The caller notes that they are ignored.
        """
        if len(self.branches) == 1:
            ((top, branch),) = self.branches.items()
            if 0 < self.loose <= _MAX_STRAY_FRACTION * branch.images:
                return self.inside(top)
        relevant = self.images or [name for name in self.names if suffix_of(name) in DATA_SUFFIXES] or self.names
        tops = {name.partition("/")[0] if "/" in name else "" for name in relevant}
        if len(tops) != 1 or tops == {""}:
            return None
        return self.inside(tops.pop())

    def levels(self) -> Iterator[Listing]:
        """Yields this listing, and then the listing inside each folder that wraps all relevant files, from the outermost inward."""
        level: Listing | None = self
        while level is not None:
            yield level
            level = level.unwrapped()

    def outermost(self) -> Listing:
        """Returns the listing of the whole source."""
        return self if self.outer is None else self.outer.outermost()


def once_per_listing(function: Callable[[Listing], T]) -> Callable[[Listing], T]:
    """Caches the result of a function for each listing, so that it runs once per listing."""

    @functools.wraps(function)
    def cached(listing: Listing) -> T:
        if function not in listing.results:
            listing.results[function] = function(listing)
        return cast(T, listing.results[function])

    return cached


def suffix_counts(names: Sequence[str]) -> dict[str, int]:
    """Returns the number of files with each suffix, most frequent first, such as ``{".txt": 412, ".jpg": 3}``."""
    counts = Counter(suffix_of(name) or "without suffix" for name in names)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def described(names: Sequence[str]) -> str:
    """Describes files by the number of each type, such as ``412 .txt, 3 .jpg``."""
    counts = [f"{count:,} {suffix}" for suffix, count in suffix_counts(names).items()]
    return ", ".join(counts[:6]) + (", …" if len(counts) > 6 else "") or "no files"
