"""Provides folders and archives as one type: a read-only set of named files."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path

from crossroads.errors import DataError, nearest
from crossroads.files.archives import MEMBER, Limits, TarTree, ZipTree, decompressed, is_junk
from crossroads.files.byte_ranges import ByteRange, read_plain, short_digest_of_plain, unreadable
from crossroads.files.text import natural_key, plural, printable
from crossroads.progress import Note


class Folder:
    """A folder on disk. It is listed when its names are first needed. Its methods may be called from many threads.

    Attributes:
        origin: Its name in messages, as the user gave it.

    Args:
        path: The folder.
        only: The name on disk of the single file that will be read; the folder is then not listed.
    """

    def __init__(self, path: Path, only: str | None = None) -> None:
        self.path = path
        self.origin = printable(str(path))
        self._listed: _Listing | None = None
        self._only = {} if only is None or printable(only) == only else {printable(only): str(path / only)}

    def names(self) -> list[str]:
        """Returns all files as relative POSIX paths in natural order, without hidden ones and those of operating systems."""
        return self._listing().names

    def folders(self) -> list[str]:
        """Returns all folders below this one, including empty ones."""
        return self._listing().folders

    def repeat_notes(self) -> list[Note]:
        """Returns a note on links to folders that are listed under another name. Their files are not listed twice."""
        repeats = self._listed.repeats if self._listed else []
        if not repeats:
            return []
        text = f"skipped {plural(len(repeats), 'link')} to folders that are read under another name, such as {repeats[0]}"
        return [Note(text, "repeated-links", links=len(repeats), example=repeats[0])]

    def exists(self, name: str) -> bool:
        """Returns whether there is a file of this name."""
        return self.path_of(name).is_file()

    def size(self, name: str) -> int:
        """Returns the size of one file in bytes."""
        try:
            return self.path_of(name).stat().st_size
        except OSError as error:
            raise unreadable(f"{self.origin}/{name}", error) from error

    def read(self, name: str) -> bytes:
        """Returns the bytes of one file. Raises `DataError`, also for pipes, devices and files of more than `MEMBER` bytes."""
        try:
            return read_plain(self.path_of(name), MEMBER)
        except OSError as error:
            raise unreadable(f"{self.origin}/{name}", error) from error

    def head(self, name: str, size: int) -> bytes:
        """Returns the first `size` bytes of one file, or all of them if it is shorter. Raises as `read`."""
        try:
            return read_plain(self.path_of(name), MEMBER, size)
        except OSError as error:
            raise unreadable(f"{self.origin}/{name}", error) from error

    def short_digest(self, name: str) -> bytes:
        """Returns bytes that are equal for equal files, from their ends. Different files may share them. Raises as `read`."""
        try:
            return short_digest_of_plain(self.path_of(name), MEMBER)
        except OSError as error:
            raise unreadable(f"{self.origin}/{name}", error) from error

    def byte_range(self, name: str) -> ByteRange:
        """Returns one file to read by offset, as a stream, or memory-mapped. Meant for large files."""
        return ByteRange.from_path(self.path_of(name))

    def path_of(self, name: str) -> Path:
        """Returns the path of a file or folder on disk. Its name there need not be UTF-8."""
        if name.startswith("/") or ".." in name.split("/"):
            raise DataError(
                f"every file of {self.origin} must be inside that folder",
                code="path-outside-folder",
                received=repr(name),
                hint="use a relative path without ..",
            )
        known = self._listed.paths if self._listed else self._only
        return Path(known[name]) if name in known else self.path / name

    def _listing(self) -> _Listing:
        if self._listed is None:
            self._listed = _listed(self.path)
        return self._listed


Tree = Folder | TarTree | ZipTree
"""A read-only set of named files. All three have the methods of `Folder`, except those about links and paths on disk."""


@dataclass(slots=True)
class _Listing:
    """The contents of a folder, with UTF-8 names. `paths` holds the path of each file whose name on disk is not UTF-8."""

    names: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    repeats: list[str] = field(default_factory=list)
    paths: dict[str, str] = field(default_factory=dict)


def _listed(root: Path) -> _Listing:
    """Lists a folder and follows its links. Each real folder is listed only once.

    Folders that link to each other would otherwise never end, and one folder could be read both as train and as test. Folders come
    before links to folders, so that a folder keeps its own name. Links are followed in the order of their names.
    """
    listing, seen = _Listing(), set[tuple[int, int]]()
    folders, links = [("", str(root))], list[tuple[str, str]]()
    while folders or links:
        name, path = folders.pop() if folders else heappop(links)
        try:
            status = os.stat(path)  # noqa: PTH116
            here = (status.st_dev, status.st_ino)
            if here in seen:
                listing.repeats.append(name)
                continue
            seen.add(here)
            with os.scandir(path) as scan:
                entries = [entry for entry in scan if not is_junk(entry.name)]
        except OSError as error:
            raise unreadable(printable(path), error, "listed") from error
        if name:
            listing.folders.append(name)
        for entry, inner in _named(entries, name + "/" if name else ""):
            if printable(entry.path) != entry.path:
                listing.paths[inner] = entry.path
            if entry.is_dir() and entry.is_symlink():
                heappush(links, (inner, entry.path))
            elif entry.is_dir():
                folders.append((inner, entry.path))
            elif entry.is_file() or entry.is_symlink():  # a broken link stays visible and is refused when it is read
                listing.names.append(inner)
    listing.names.sort(key=natural_key)
    listing.folders.sort(key=natural_key)
    return listing


def _named(entries: Sequence[os.DirEntry[str]], prefix: str) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Yields each entry with a unique UTF-8 name."""
    taken = {entry.name for entry in entries}
    for entry in entries:
        name = printable(entry.name)
        while name != entry.name and name in taken:
            name += "~"
        taken.add(name)
        yield entry, prefix + name


_MAGIC = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gz"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bz2"),
    (b"\x93NUMPY", "npy"),
    (b"PAR1", "parquet"),
)


def detect_kind(span: ByteRange) -> str:
    """Detects the kind of a file by its first bytes: zip, tar, gz, xz, bz2, npy, parquet, or "" if unknown."""
    head = span.read(0, 512)
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if len(head) == 512 and head.strip(b"\0"):
        try:
            tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        except (tarfile.TarError, ValueError):
            return ""
        return "tar"
    return "tar" if head and not head.strip(b"\0") and span.size % 512 == 0 and span.size >= 1024 else ""


def open_archive(span: ByteRange, kind: str, origin: str, limits: Limits | None = None) -> Tree:
    """Opens a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz archive.

    Plain tar and zip archives are read in place; a compressed tar is decompressed once into a nameless temporary file.

    Args:
        span: The file.
        kind: The kind that `detect_kind` returned.
        origin: Its name in messages.
        limits: Size limits; the defaults admit large archives and stop zip bombs.

    Raises:
        DataError: It is not an archive, it is damaged or encrypted, a member would leave it, it holds links or devices, or it is
            larger than the limits allow.
    """
    bounds = limits or Limits()
    if kind == "zip":
        return ZipTree(span, origin, bounds)
    if kind == "tar":
        return TarTree(span, origin, bounds)
    received, hint = "another kind of file", "unpack it and give the folder"
    if kind in ("gz", "bz2", "xz"):
        plain = decompressed(span, kind, origin, bounds)
        inner = detect_kind(plain)
        if inner == "tar":
            return TarTree(plain, origin, bounds)
        received = f"a {kind} file of {f'a {inner} file' if inner else 'something else'}"
        hint = "decompress it and give the file inside"
    rule = f"{origin} must be a folder or a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz archive"
    raise DataError(rule, code="archive-kind", received=received, hint=hint)


def existing(path: str | os.PathLike[str]) -> Path:
    """Returns a path that exists. Otherwise raises a `DataError` that names the most similar file beside it."""
    place = Path(path)
    try:
        if place.exists():
            return place
        siblings = [sibling.name for sibling in place.parent.iterdir()] if place.parent.is_dir() else []
    except (OSError, ValueError) as error:
        raise unreadable(repr(str(path)), error) from error
    close = nearest(place.name, siblings)
    hint = f"did you mean {str(place.parent / close)!r}?" if close else "check the path"
    raise DataError(f"{path} does not exist", code="no-such-file", hint=hint)
