"""Zip and tar archives as trees: read in place, bounded in size, and no member may leave the archive."""

from __future__ import annotations

import bz2
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from crossroads.errors import DataError
from crossroads.files.byte_ranges import ByteRange
from crossroads.files.text import natural_key, printable

GIB = 1 << 30
MEMBER = GIB
"""Bytes of one file that is read into memory at once."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may ask for, so that a small hostile file cannot fill memory or disk.

    Attributes:
        total: Bytes of all members, uncompressed.
        member: Bytes of one member that is read into memory at once, such as an image.
        members: Number of members.
        ratio: Uncompressed over compressed size, looked at from `ratio_from` bytes on: deflate cannot honestly exceed 1032.
    """

    total: int = 64 * GIB
    member: int = MEMBER
    members: int = 20_000_000
    ratio: int = 1000
    ratio_from: int = 100_000_000


def safe_name(name: str, origin: str) -> str:
    """A member's name as relative posix path. Raises DataError for one that is absolute, leaves the archive, or hides something."""
    parts = name.split("/")
    if "\0" in name or "\\" in name or name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in parts:
        raise DataError(
            f"every member of {origin} must be a plain relative path inside the archive",
            received=repr(name),
            hint="do not trust this archive; if you made it, pack it again with relative paths and forward slashes",
        )
    return printable("/".join(part for part in parts if part not in ("", ".")))


def is_junk(name: str) -> bool:
    """Whether one path component is hidden or litter of an operating system."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini", "@eaDir")


class _Index:
    """Names, places and sizes of members, as columns: a million members take about 150 MB."""

    def __init__(self, origin: str, limits: Limits) -> None:
        self.origin = origin
        self.limits = limits
        self.rows: dict[str, int] = {}
        self.folders: set[str] = set()
        self.starts = array("Q")
        self.sizes = array("Q")
        self.total = 0

    def add(self, name: str, start: int, size: int) -> bool:
        """Note one file; a later member of the same name wins, as in every archiver. False where the name is empty."""
        if not name:
            return False
        self.total += size
        if self.total > self.limits.total:
            raise _too_large(self.origin, f"more than {self.limits.total} bytes of members", "the total size limit")
        if len(self.starts) >= self.limits.members:
            raise _too_large(self.origin, f"more than {self.limits.members} members", "the limit on members")
        self.rows[name] = len(self.starts)
        self.starts.append(start)
        self.sizes.append(size)
        return True

    def sorted_names(self) -> list[str]:
        """All files but litter, in natural order."""
        kept = (name for name in self.rows if not any(map(is_junk, name.split("/"))))
        return sorted(kept, key=natural_key)


class _Archive:
    """What zip and tar trees share."""

    def __init__(self, index: _Index) -> None:
        self.origin = index.origin
        self._index = index
        self._names: list[str] | None = None

    def names(self) -> list[str]:
        """All files in natural order, without hidden ones and litter of operating systems."""
        if self._names is None:
            self._names = self._index.sorted_names()
        return self._names

    def folders(self) -> list[str]:
        """Folders that the archive names itself, so that an empty one is seen."""
        kept = (name for name in self._index.folders if not any(map(is_junk, name.split("/"))))
        return sorted(kept, key=natural_key)

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return name in self._index.rows

    def size(self, name: str) -> int:
        """Bytes of one file, uncompressed."""
        return self._index.sizes[self._row(name)]

    def _row(self, name: str) -> int:
        try:
            return self._index.rows[name]
        except KeyError:
            raise DataError(f"{self.origin} holds no file {name!r}") from None

    def _check_member(self, name: str) -> None:
        size, limit = self.size(name), self._index.limits.member
        if size > limit:
            raise _too_large(f"{name} in {self.origin}", f"{size} bytes", f"the limit of {limit} bytes for one member")


class TarTree(_Archive):
    """An uncompressed tar, read by offset."""

    def __init__(self, span: ByteRange, origin: str, limits: Limits) -> None:
        super().__init__(_index_tar(span, origin, limits))
        self._span = span

    def byte_range(self, name: str) -> ByteRange:
        """One file as a stretch of the archive."""
        row = self._row(name)
        return self._span.part(self._index.starts[row], self._index.sizes[row], f"{name} in {self.origin}")

    def read(self, name: str) -> bytes:
        """The bytes of one file. Safe to call from many threads."""
        self._check_member(name)
        return self.byte_range(name).read()


def _index_tar(span: ByteRange, origin: str, limits: Limits) -> _Index:
    """Walk the headers. The tar module stops silently at a damaged header, so what it stopped at is looked at."""
    index = _Index(origin, limits)
    try:
        with tarfile.open(fileobj=span.stream(), mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # keeps a million headers from piling up
                _add_tar_member(index, member)
            end = tar.offset
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise DataError(f"{origin} is a truncated or damaged tar archive", received=error) from error
    mark = span.read(end, 512)
    if not mark or mark.strip(b"\0"):
        what = "no end mark" if not mark else f"no valid header at byte {end}"
        raise DataError(f"{origin} is a truncated or damaged tar archive", received=what, hint="fetch or pack it again")
    return index


def _add_tar_member(index: _Index, member: tarfile.TarInfo) -> None:
    name = safe_name(member.name, index.origin)
    if member.isdir():
        index.folders.add(name)
    elif member.isreg() and not member.issparse():
        index.add(name, member.offset_data, member.size)
    else:
        raise DataError(
            f"{index.origin} must hold plain files and folders only",
            received=f"{member.name!r}, a link, device or sparse file",
            hint="pack it again with links followed (tar --dereference --hard-dereference)",
        )


_LOCAL_HEADER = struct.Struct("<4s5H3I2H")


class ZipTree(_Archive):
    """A zip archive: each member is found by offset and inflated by the thread that asks, with no lock."""

    def __init__(self, span: ByteRange, origin: str, limits: Limits) -> None:
        index = _Index(origin, limits)
        super().__init__(index)
        self._span = span
        self._packed = array("Q")
        self._checksums = array("L")
        self._methods = array("B")
        try:
            with zipfile.ZipFile(span.stream()) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, struct.error, OverflowError) as error:
            raise DataError(f"{origin} is a truncated or damaged zip archive", received=error) from error
        for info in infos:
            self._add(info)

    def _add(self, info: zipfile.ZipInfo) -> None:
        name = safe_name(info.orig_filename, self.origin)
        mode = info.external_attr >> 16
        if info.is_dir():
            self._index.folders.add(name)
            return
        if info.create_system == 3 and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise DataError(f"{self.origin} must hold plain files and folders only", received=f"{name!r}, a link or device")
        if info.flag_bits & 0x1:
            raise DataError(f"{self.origin} is encrypted", received=f"member {name!r}", hint="decrypt it first")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"{self.origin} must be stored or deflated",
                received=f"compression method {info.compress_type} of {name!r}",
                hint="pack it again with an ordinary zip tool",
            )
        _check_ratio(self._index.limits, info.file_size, info.compress_size, f"{name} in {self.origin}")
        if self._index.add(name, info.header_offset, info.file_size):
            self._packed.append(info.compress_size)
            self._checksums.append(info.CRC)
            self._methods.append(info.compress_type)

    def _packed_span(self, row: int, label: str) -> ByteRange:
        """The member as it lies in the file: behind a local header whose length only that header tells."""
        start = self._index.starts[row]
        raw = self._span.read(start, _LOCAL_HEADER.size)
        if len(raw) < _LOCAL_HEADER.size or raw[:4] != b"PK\x03\x04":
            raise DataError(f"{label} is damaged: there is no member at byte {start}")
        fields = _LOCAL_HEADER.unpack(raw)
        return self._span.part(start + _LOCAL_HEADER.size + fields[9] + fields[10], self._packed[row], label)

    def read(self, name: str) -> bytes:
        """The bytes of one file, checked against its length and CRC. Safe to call from many threads."""
        self._check_member(name)
        return b"".join(self._chunks(name))

    def byte_range(self, name: str) -> ByteRange:
        """One file as a span: in place where it is stored, else inflated into memory or a temporary file."""
        row, label = self._row(name), f"{name} in {self.origin}"
        if self._methods[row] == zipfile.ZIP_STORED:
            span = self._packed_span(row, label)
            if span.size != self._index.sizes[row]:
                raise DataError(f"{label} is damaged: its two lengths differ")
            return span
        if self._index.sizes[row] <= 64 << 20:
            return ByteRange.from_bytes(self.read(name), label)
        return ByteRange.from_chunks(self._chunks(name), label)

    def _chunks(self, name: str) -> Iterator[bytes]:
        """Inflate piece by piece, and never beyond the length that was declared, whatever the data say."""
        row, label = self._row(name), f"{name} in {self.origin}"
        packed, size, checksum, done = self._packed_span(row, label), self._index.sizes[row], 0, 0
        inflater = zlib.decompressobj(-15) if self._methods[row] == zipfile.ZIP_DEFLATED else None
        for offset in range(0, packed.size, 1 << 20):
            raw = packed.read(offset, 1 << 20)
            while raw:
                try:
                    chunk = raw if inflater is None else inflater.decompress(raw, 1 << 24)
                except zlib.error as error:
                    raise DataError(f"{label} is damaged", received=error) from error
                raw = b"" if inflater is None else inflater.unconsumed_tail
                done += len(chunk)
                if done > size:
                    raise DataError(f"{label} holds more than the {size} bytes that it declares")
                checksum = zlib.crc32(chunk, checksum)
                yield chunk
        if done != size or checksum != self._checksums[row]:
            raise DataError(f"{label} is damaged: its length or checksum is wrong")


def decompressed(span: ByteRange, kind: str, origin: str, limits: Limits) -> ByteRange:
    """A gzip, bzip2 or xz file (`kind` "gz", "bz2" or "xz"), decompressed once into a nameless temporary file.

    Raises DataError where it is damaged, grows beyond the limits, or the temporary file cannot be written.
    """
    return ByteRange.from_chunks(_decompress(span, kind, origin, limits), origin)


class _Gunzip:
    """zlib's decompressor with the interface that the ones of bz2 and lzma have."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(31)
        self._rest = b""

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._rest

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, raw: bytes, max_length: int) -> bytes:
        chunk = self._inner.decompress(self._rest + raw, max_length)
        self._rest = self._inner.unconsumed_tail
        return chunk


def _decompressor(kind: str) -> _Gunzip | bz2.BZ2Decompressor | lzma.LZMADecompressor:
    if kind == "gz":
        return _Gunzip()
    if kind == "bz2":
        return bz2.BZ2Decompressor()
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=GIB)  # a header may ask for 4 GiB of dictionary


def _decompress(span: ByteRange, kind: str, origin: str, limits: Limits) -> Iterator[bytes]:
    """All streams of the file in turn: several may be concatenated, and zero padding may follow."""
    machine, offset, done, rest = _decompressor(kind), 0, 0, b""
    while True:
        if machine.eof:
            rest = machine.unused_data or rest
            while offset < span.size and not rest.lstrip(b"\0"):
                rest = span.read(offset, 1 << 20)
                offset += len(rest)
            rest = rest.lstrip(b"\0")
            if not rest:
                return
            machine = _decompressor(kind)
        elif machine.needs_input and not rest:
            rest = span.read(offset, 1 << 20)
            offset += len(rest)
            if not rest:
                raise DataError(f"{origin} is truncated", received=f"{span.size} bytes", hint="fetch it again")
        try:
            chunk = machine.decompress(rest if machine.needs_input else b"", 1 << 20)
        except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, MemoryError) as error:
            raise DataError(f"{origin} is a truncated or damaged {kind} file", received=error, hint="fetch it again") from error
        rest = b""
        done += len(chunk)
        if done > limits.total:
            raise _too_large(origin, f"more than {limits.total} bytes", "the total size limit")
        _check_ratio(limits, done, offset, origin)
        yield chunk


def _check_ratio(limits: Limits, size: int, packed: int, what: str) -> None:
    if size > limits.ratio_from and size > limits.ratio * max(1, packed):
        raise _too_large(what, f"{size} bytes out of {packed} compressed ones", f"a ratio of {limits.ratio}, as only a bomb does")


def _too_large(what: str, received: str, limit: str) -> DataError:
    return DataError(f"{what} exceeds {limit}", received=received, hint="if you trust it, unpack it and give the folder")
