"""A folder or an archive as one thing: a read-only set of named files."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Protocol

from crossroads.data.archives import Limits, TarTree, ZipTree, decompressed, is_junk
from crossroads.data.labels import natural_key
from crossroads.data.spans import Span
from crossroads.errors import DataError, nearest


class Tree(Protocol):
    """A read-only set of named files. Every method may be called from many threads.

    Attributes:
        origin: What the user gave, for messages.
    """

    origin: str

    def names(self) -> list[str]:
        """All files as relative posix paths in natural order, without hidden ones and litter of operating systems."""
        ...

    def folders(self) -> list[str]:
        """Folders that are known to be there, so that an empty one can be told about."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        ...

    def size(self, name: str) -> int:
        """Bytes of one file, uncompressed."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of one file. Raises DataError where it is not there, damaged or too large."""
        ...

    def span(self, name: str) -> Span:
        """One file for reading by offset, as a stream, or memory-mapped; for the large ones."""
        ...


class Folder:
    """A folder on disk. It is listed only when somebody asks for its names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.origin = str(path)
        self._listed: tuple[list[str], list[str]] | None = None

    def names(self) -> list[str]:
        """All files in natural order, without hidden ones and litter of operating systems."""
        return self._listing()[0]

    def folders(self) -> list[str]:
        """All folders below this one."""
        return self._listing()[1]

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return self._inside(name).is_file()

    def size(self, name: str) -> int:
        """Bytes of one file."""
        try:
            return self._inside(name).stat().st_size
        except OSError as error:
            raise DataError(f"{self.path / name} cannot be read", received=error.strerror) from error

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        try:
            return self._inside(name).read_bytes()
        except OSError as error:
            raise DataError(f"{self.path / name} cannot be read", received=error.strerror) from error

    def span(self, name: str) -> Span:
        """One open file."""
        return Span.of_path(self._inside(name))

    def _inside(self, name: str) -> Path:
        if name.startswith("/") or ".." in name.split("/"):
            raise DataError(f"a file of {self.origin} must lie inside it", received=repr(name))
        return self.path / name

    def _listing(self) -> tuple[list[str], list[str]]:
        if self._listed is None:
            names: list[str] = []
            folders: list[str] = []
            _scan(self.path, "", (), names, folders)
            self._listed = sorted(names, key=natural_key), sorted(folders, key=natural_key)
        return self._listed


def _scan(path: Path, prefix: str, above: tuple[tuple[int, int], ...], names: list[str], folders: list[str]) -> None:
    """List `path` into `names` and `folders`. Links are followed, but never back into a folder that is being listed."""
    try:
        status = path.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        with os.scandir(path) as found:
            entries = [entry for entry in found if not is_junk(entry.name)]
    except OSError as error:
        raise DataError(f"{path} cannot be listed", received=error.strerror) from error
    for entry in entries:
        name = prefix + entry.name
        if entry.is_dir():
            folders.append(name)
            _scan(Path(entry.path), name + "/", (*above, here), names, folders)
        elif entry.is_file() or entry.is_symlink():  # a link to nothing stays visible: it is refused when it is read
            names.append(name)


_MAGIC = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gz"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bz2"),
    (b"\x93NUMPY", "npy"),
    (b"PAR1", "parquet"),
)


def kind_of(span: Span) -> str:
    """What a file is by its first bytes: zip, tar, gz, xz, bz2, npy, parquet, or "" where they do not tell."""
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


def open_tree(path: str | os.PathLike[str], *, limits: Limits | None = None) -> Tree:
    """A folder, or a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz archive, told apart by content and not by suffix.

    Plain tar and zip archives are read in place; a compressed tar is decompressed once into a nameless temporary file.

    Args:
        path: The folder or archive.
        limits: What an archive may ask for; generous defaults that stop bombs.

    Raises:
        DataError: There is nothing there, it is no folder or archive, it is damaged or encrypted, a member would leave it, it
            holds links or devices, or it is larger than the limits allow.
    """
    place = existing(path)
    if place.is_dir():
        return Folder(place)
    span = Span.of_path(place)
    return open_archive(span, kind_of(span), str(place), limits)


def open_archive(span: Span, kind: str, origin: str, limits: Limits | None = None) -> Tree:
    """The archive that a span holds; `kind` as `kind_of` tells it."""
    bounds = limits or Limits()
    if kind == "zip":
        return ZipTree(span, origin, bounds)
    if kind == "tar":
        return TarTree(span, origin, bounds)
    if kind in ("gz", "bz2", "xz"):
        plain = decompressed(span, kind, origin, bounds)
        inner = kind_of(plain)
        if inner == "tar":
            return TarTree(plain, origin, bounds)
        raise DataError(
            f"{origin} must hold a tar archive",
            received=f"a {kind} file of {f'a {inner} file' if inner else 'something else'}",
            mend="decompress it and give the file inside",
        )
    raise DataError(
        f"{origin} must be a folder or a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz archive", received="another kind of file"
    )


def existing(path: str | os.PathLike[str]) -> Path:
    """`path`, which must be there. Raises DataError that names the most similar neighbour."""
    place = Path(path)
    try:
        if place.exists():
            return place
        siblings = [sibling.name for sibling in place.parent.iterdir()] if place.parent.is_dir() else []
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)!r} cannot be read", received=error) from error
    close = nearest(place.name, siblings)
    raise DataError(f"{path} does not exist", mend=f"did you mean {str(place.parent / close)!r}?" if close else "check the path")
