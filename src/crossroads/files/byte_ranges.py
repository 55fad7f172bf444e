"""Reads ranges of bytes of open files. Many threads can read by offset, because there is no shared position."""

from __future__ import annotations

import errno
import hashlib
import io
import mmap
import os
import stat
import tempfile
import threading
import weakref
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from crossroads.errors import DataError
from crossroads.files.text import printable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

END = 1 << 10
"""Number of bytes at the beginning and at the end of a file that a short digest covers. Compressed images differ within them."""

SHORT_DIGEST_BYTES = 16
"""Length of a short digest."""


def open_plain(path: str | os.PathLike[str]) -> int:
    """Opens a plain file and returns its descriptor. Raises `OSError`, also for pipes and devices, which may block or never end."""
    flags = os.O_RDONLY
    for name in ("O_BINARY", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC"):  # opening a pipe would wait for a writer
        flags |= getattr(os, name, 0)
    descriptor = os.open(path, flags)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        raise OSError(errno.EINVAL, f"{'a pipe' if stat.S_ISFIFO(mode) else 'a device'}, not a plain file")
    return descriptor


def read_plain(path: str | os.PathLike[str], limit: int, first: int | None = None) -> bytes:
    """Returns all bytes, or the `first` ones, of a plain file of at most `limit` bytes. Raises `OSError`."""
    with open(open_plain(path), "rb", buffering=-1 if first is None else END) as file:
        size = _size_of(file, limit)
        return file.read(size if first is None else min(first, size))


def short_digest_of_plain(path: str | os.PathLike[str], limit: int) -> bytes:
    """Returns the `short_digest` of a plain file of at most `limit` bytes. Raises `OSError`."""
    with open(open_plain(path), "rb", buffering=END) as file:
        size = _size_of(file, limit)
        head = file.read(min(END, size))
        if size > END:
            file.seek(max(END, size - END))
        return short_digest(size, head, file.read(END) if size > END else b"")


def short_digest(size: int, head: bytes, tail: bytes) -> bytes:
    """Returns 16 bytes of BLAKE2b over the size of a file, its first `END` bytes and its last ones.

    Equal files have equal short digests. Files with equal short digests may still differ in their middles.
    """
    hasher = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=SHORT_DIGEST_BYTES)
    hasher.update(head)
    hasher.update(tail)
    return hasher.digest()


def _size_of(file: IO[bytes], limit: int) -> int:
    size = os.fstat(file.fileno()).st_size
    if size > limit:
        raise OSError(errno.EFBIG, f"{size} bytes, more than the {limit} of one file that is read at once")
    return size


def unreadable(what: str, error: Exception, verb: str = "read") -> DataError:
    """Returns the error about a file or folder that cannot be read. `verb` may be another one, such as ``listed``."""
    received = error.strerror if isinstance(error, OSError) and error.strerror else error
    hint = "check the path and its permissions"
    return DataError(f"{what} cannot be {verb}", code="file-unreadable", received=received, hint=hint)


class _Descriptor:
    """An open file descriptor that is closed with the last reference to it."""

    def __init__(self, descriptor: int) -> None:
        self.number = descriptor
        self.size = os.fstat(descriptor).st_size
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(self, os.close, descriptor)

    def read(self, offset: int, size: int) -> bytes:
        """Returns `size` bytes from `offset`, or fewer at the end of the file."""
        parts = []
        while size > 0:
            part = self._read_some(offset, min(size, 1 << 30))  # Linux reads at most 2 GiB in one call
            if not part:
                break
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_some(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self.number, size, offset)
        with self._lock:  # Windows has no pread: seek and read as one step
            os.lseek(self.number, offset, os.SEEK_SET)
            return os.read(self.number, size)


class _OnDemand:
    """A file that is opened when it is read, so that thousands of files share a few descriptors."""

    def __init__(self, path: Path) -> None:
        facts = path.stat()
        self._key = (os.fspath(path), facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
        self.size = facts.st_size

    @property
    def number(self) -> int:
        """The descriptor. It stays open while the file is among the last 32 that were read."""
        return _recently_opened(*self._key).number

    def read(self, offset: int, size: int) -> bytes:
        """Returns `size` bytes from `offset`, or fewer at the end of the file. Raises `OSError` if it cannot be opened."""
        return _recently_opened(*self._key).read(offset, size)


@lru_cache(maxsize=32)
def _recently_opened(path: str, *_identity: int) -> _Descriptor:
    return _Descriptor(open_plain(path))


class ByteRange:
    """`size` bytes from `start` of an open file or of bytes in memory. Safe to read from many threads."""

    def __init__(self, store: _Descriptor | _OnDemand | bytes, start: int, size: int, origin: str) -> None:
        self._store = store
        self._start = start
        self.size = size
        self.origin = origin

    @classmethod
    def from_path(cls, path: Path, *, on_demand: bool = False) -> ByteRange:
        """Returns a range over the whole file at `path`. Raises `DataError` if it cannot be opened.

        Args:
            path: Path of the file.
            on_demand: Whether to open the file only when it is read.
        """
        origin = printable(str(path))
        try:
            store = _OnDemand(path) if on_demand else _Descriptor(open_plain(path))
        except OSError as error:
            raise unreadable(origin, error, "opened") from error
        return cls(store, 0, store.size, origin)

    @classmethod
    def from_bytes(cls, raw: bytes, origin: str) -> ByteRange:
        """Returns a range over bytes in memory."""
        return cls(raw, 0, len(raw), origin)

    @classmethod
    def from_chunks(cls, chunks: Iterable[bytes], origin: str) -> ByteRange:
        """Writes `chunks` to a temporary file without a name, which is removed with this object.

        Raises `DataError` if the temporary file cannot be written, such as on a full disk.
        """
        try:
            with tempfile.TemporaryFile(prefix="crossroads-") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                store = _Descriptor(os.dup(file.fileno()))
        except OSError as error:
            raise DataError(
                f"{origin} must be decompressed once into a temporary file, which could not be written",
                code="temporary-file",
                received=error.strerror,
                hint=f"free space in {tempfile.gettempdir()}, set TMPDIR to a larger disk, or unpack it and give the folder",
            ) from error
        return cls(store, 0, store.size, origin)

    def part(self, start: int, size: int, origin: str) -> ByteRange:
        """Returns a part of this range. Raises `DataError` if it reaches past the end."""
        if start < 0 or size < 0 or start + size > self.size:
            raise DataError(f"{origin} reaches past the end of {self.origin}", code="file-truncated", hint="fetch the file again")
        return ByteRange(self._store, self._start + start, size, origin)

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Returns `size` bytes from `offset`, by default to the end. Raises `DataError` if the file has become shorter."""
        wanted = max(0, self.size - offset if size is None else min(size, self.size - offset))
        begin = self._start + offset
        if isinstance(self._store, bytes):
            whole = begin == 0 and wanted == len(self._store)
            return self._store if whole else self._store[begin : begin + wanted]
        try:
            raw = self._store.read(begin, wanted)
        except OSError as error:
            raise unreadable(self.origin, error) from error
        if len(raw) < wanted:
            raise DataError(
                f"{self.origin} is truncated",
                code="file-truncated",
                received=f"{len(raw)} of {wanted} bytes",
                hint="copy or download the file again",
            )
        return raw

    def short_digest(self) -> bytes:
        """Returns the `short_digest` of these bytes."""
        return short_digest(self.size, self.read(0, END), self.read(max(END, self.size - END)) if self.size > END else b"")

    def buffer(self) -> memoryview:
        """Returns all bytes, read-only. A file is memory-mapped, so that only the pages in use are loaded."""
        if isinstance(self._store, bytes):
            return memoryview(self._store)[self._start : self._start + self.size]
        if self.size == 0:
            return memoryview(b"")
        try:
            mapped = mmap.mmap(self._store.number, 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise unreadable(self.origin, error, "mapped into memory") from error
        return memoryview(mapped)[self._start : self._start + self.size]

    def stream(self) -> IO[bytes]:
        """Returns a seekable binary file over this range, with its own position."""
        return io.BufferedReader(_SpanStream(self), 1 << 16)


class _SpanStream(io.RawIOBase):
    """A `ByteRange` as a file object."""

    def __init__(self, span: ByteRange) -> None:
        self._span = span
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        raw = self._span.read(self._position, len(view))
        view[: len(raw)] = raw
        self._position += len(raw)
        return len(raw)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._span.size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position
