"""Reads zip and tar archives as trees. They are read in place, their size is bounded, and no member may leave the archive."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import IO

from crossroads.errors import DataError
from crossroads.files.byte_ranges import SHORT_DIGEST_BYTES, ByteRange
from crossroads.files.text import natural_key, printable

GIB = 1 << 30
MEMBER = GIB
"""Maximum size in bytes of a file that is read into memory at once."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper limits of what an archive may contain, so that a small hostile file cannot fill memory or disk.

    Attributes:
        total: Bytes of all members, uncompressed.
        member: Bytes of one member that is read into memory at once, such as an image.
        members: Number of members.
        ratio: Uncompressed divided by compressed size, checked from `ratio_from` bytes on. Deflate cannot exceed 1032.
    """

    total: int = 64 * GIB
    member: int = MEMBER
    members: int = 20_000_000
    ratio: int = 1000
    ratio_from: int = 100_000_000


def safe_name(name: str, origin: str) -> str:
    """Returns a member's name as a relative POSIX path. Raises `DataError` if it is absolute or leaves the archive."""
    parts = name.split("/")
    if "\0" in name or "\\" in name or name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in parts:
        raise DataError(
            f"every member of {origin} must be a plain relative path inside the archive",
            code="archive-path",
            received=repr(name),
            hint="do not trust this archive; if you made it, pack it again with relative paths and forward slashes",
        )
    return printable("/".join(part for part in parts if part not in ("", ".")))


def is_junk(name: str) -> bool:
    """Returns whether a path component is hidden or belongs to an operating system, such as ``Thumbs.db``."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini", "@eaDir")


class _Archive:
    """The base of zip and tar trees. Names, offsets and sizes of members are stored as columns to save memory."""

    def __init__(self, span: ByteRange, origin: str, limits: Limits) -> None:
        self.origin = origin
        self._span, self._limits = span, limits
        self._places: dict[str, int] = {}
        self._folders: set[str] = set()
        self._starts, self._sizes = array("Q"), array("Q")
        self._total = 0

    def _add(self, name: str, start: int, size: int) -> bool:
        """Adds one file. Returns False if its name is empty, and otherwise True. A later member replaces one of the same name."""
        if not name:
            return False
        self._total += size
        if self._total > self._limits.total:
            received = f"more than {self._limits.total} bytes of members"
            raise _too_large(self.origin, received, "the total size limit", "archive-too-large")
        if len(self._starts) >= self._limits.members:
            received = f"more than {self._limits.members} members"
            raise _too_large(self.origin, received, "the limit on members", "archive-too-large")
        self._places[name] = len(self._starts)
        self._starts.append(start)
        self._sizes.append(size)
        return True

    def names(self) -> list[str]:
        return self._names

    @cached_property
    def _names(self) -> list[str]:
        return _sorted(self._places)

    def folders(self) -> list[str]:
        """Returns the folders that the archive lists as members, including empty ones."""
        return _sorted(self._folders)

    def exists(self, name: str) -> bool:
        return name in self._places

    def size(self, name: str) -> int:
        return self._sizes[self._place(name)]

    def _place(self, name: str) -> int:
        try:
            return self._places[name]
        except KeyError:
            raise DataError(
                f"{self.origin} must contain the file", code="no-such-member", received=repr(name), hint="check its name"
            ) from None

    def _check_member(self, name: str) -> None:
        size, limit = self.size(name), self._limits.member
        if size > limit:
            limits = f"the limit of {limit} bytes for one member"
            raise _too_large(f"{name} in {self.origin}", f"{size} bytes", limits, "member-too-large")


def _sorted(names: Iterable[str]) -> list[str]:
    """Returns names in natural order, without hidden ones and those of operating systems."""
    return sorted((name for name in names if not any(map(is_junk, name.split("/")))), key=natural_key)


class TarTree(_Archive):
    """An uncompressed tar, read by offset."""

    def __init__(self, span: ByteRange, origin: str, limits: Limits) -> None:
        super().__init__(span, origin, limits)
        try:
            with tarfile.open(fileobj=span.stream(), mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # keeps a million headers from piling up
                    self._add_member(member)
                end = tar.offset
        except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
            raise _damaged(origin, "tar archive", error) from error
        mark = span.read(end, 512)  # `tarfile` stops silently at a damaged header
        if not mark or mark.strip(b"\0"):
            raise _damaged(origin, "tar archive", f"no valid header at byte {end}" if mark else "no end mark")

    def _add_member(self, member: tarfile.TarInfo) -> None:
        name = safe_name(member.name, self.origin)
        if member.isdir():
            self._folders.add(name)
        elif member.isreg() and not member.issparse():
            self._add(name, member.offset_data, member.size)
        else:
            received = f"{member.name!r}, a link, device or sparse file"
            raise _not_plain(self.origin, received, "pack it again with links followed (tar --dereference --hard-dereference)")

    def byte_range(self, name: str) -> ByteRange:
        """Returns one file as a byte range of the archive."""
        place = self._place(name)
        return self._span.part(self._starts[place], self._sizes[place], f"{name} in {self.origin}")

    def read(self, name: str) -> bytes:
        """Returns the bytes of one file. Safe to call from many threads."""
        self._check_member(name)
        return self.byte_range(name).read()

    def head(self, name: str, size: int) -> bytes:
        """Returns the first `size` bytes of one file, or all of them if it is shorter."""
        self._check_member(name)
        return self.byte_range(name).read(0, size)

    def short_digest(self, name: str) -> bytes:
        """Returns bytes that are equal for equal files, from their ends. Different files may share them."""
        self._check_member(name)
        return self.byte_range(name).short_digest()


_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_DAMAGE = (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, struct.error, OverflowError, zlib.error, RuntimeError)
_DEFLATE_EXCESS = 512
"""Deflate adds at most 5 bytes to a block that it cannot compress, whose size zlib sets to 16 KiB or more."""

_IN_MEMORY = 64 << 20
_BLOCK = 1 << 20


class ZipTree(_Archive):
    """A zip archive. Threads read members by offset, without a lock; with `zipfile` they would take 1.1 to 1.6 times as long."""

    def __init__(self, span: ByteRange, origin: str, limits: Limits) -> None:
        super().__init__(span, origin, limits)
        self._members: list[zipfile.ZipInfo] = []
        try:
            self._archive = zipfile.ZipFile(span.stream())
        except _DAMAGE as error:
            raise _damaged(origin, "zip archive", error) from error
        for member in self._archive.infolist():
            self._add_member(member)

    def _add_member(self, member: zipfile.ZipInfo) -> None:
        name = safe_name(member.orig_filename, self.origin)
        if member.is_dir():
            self._folders.add(name)
            return
        if member.create_system == 3 and stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            raise _not_plain(self.origin, f"{name!r}, a link or device", "pack it again with the files that the links point to")
        if member.flag_bits & 0x1:
            raise DataError(
                f"{self.origin} is encrypted", code="archive-encrypted", received=f"member {name!r}", hint="decrypt it first"
            )
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"{self.origin} must be stored or deflated",
                code="zip-method",
                received=f"compression method {member.compress_type} of {name!r}",
                hint="pack it again with an ordinary zip tool",
            )
        _check_ratio(self._limits, member.file_size, member.compress_size, f"{name} in {self.origin}")
        if self._add(name, member.header_offset, member.file_size):
            self._members.append(member)

    def read(self, name: str) -> bytes:
        """Returns the bytes of one file, checked against its length and CRC. Safe to call from many threads."""
        self._check_member(name)
        member, label = self._members[self._place(name)], f"{name} in {self.origin}"
        raw = self._packed(member, label).read()
        if member.compress_type == zipfile.ZIP_DEFLATED:
            try:
                raw = zlib.decompressobj(-15).decompress(raw, member.file_size + 1)  # one byte more shows that it is too long
            except zlib.error as error:
                raise _damaged(label, "member", error) from error
        if len(raw) != member.file_size:
            amount = "more" if len(raw) > member.file_size else f"{len(raw)} bytes, fewer"
            raise _damaged(label, "member", f"{amount} than the {member.file_size} bytes that the archive declares")
        if zlib.crc32(raw) != member.CRC:
            raise _damaged(label, "member", "another checksum than the archive declares")
        return raw

    def head(self, name: str, size: int) -> bytes:
        """Returns the first `size` bytes of one file, or all of them if it is shorter; their CRC is not checked."""
        self._check_member(name)
        member, label = self._members[self._place(name)], f"{name} in {self.origin}"
        packed = self._packed(member, label).read(0, size + size // _DEFLATE_EXCESS + _DEFLATE_EXCESS)
        if member.compress_type != zipfile.ZIP_DEFLATED:
            return packed[:size]
        try:
            return zlib.decompressobj(-15).decompress(packed, size)
        except zlib.error as error:
            raise _damaged(label, "member", error) from error

    def short_digest(self, name: str) -> bytes:
        """Returns bytes that are equal for equal files: the CRC and size that zip archives declare, which `read` checks.

        They differ from the short digests of files that are not in a zip archive.
        """
        self._check_member(name)
        member = self._members[self._place(name)]
        return ((member.CRC << 64) + member.file_size).to_bytes(SHORT_DIGEST_BYTES, "little")

    def byte_range(self, name: str) -> ByteRange:
        """Returns one file. A stored one stays in place; a deflated one is inflated into memory or a temporary file."""
        member, label = self._members[self._place(name)], f"{name} in {self.origin}"
        if member.compress_type == zipfile.ZIP_STORED:
            if member.compress_size != member.file_size:
                raise _damaged(label, "member", f"{member.compress_size} stored bytes, declared as {member.file_size}")
            return self._packed(member, label)
        if member.file_size <= _IN_MEMORY:
            return ByteRange.from_bytes(self.read(name), label)
        return ByteRange.from_chunks(self._inflated(member, label), label)

    def _packed(self, member: zipfile.ZipInfo, label: str) -> ByteRange:
        """Returns the bytes of a member in the archive. They follow its local header, and only this header states its length."""
        raw = self._span.read(member.header_offset, _LOCAL_HEADER.size)
        if len(raw) < _LOCAL_HEADER.size or raw[:4] != b"PK\x03\x04":
            raise _damaged(label, "member", f"no member at byte {member.header_offset}")
        *_, name_length, extra_length = _LOCAL_HEADER.unpack(raw)
        start = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        return self._span.part(start, member.compress_size, label)

    def _inflated(self, member: zipfile.ZipInfo, label: str) -> Iterator[bytes]:
        """Inflates a large member block by block. `zipfile` stops at the declared length and checks the CRC."""
        missing = member.file_size
        try:
            with self._archive.open(member) as file:
                while block := file.read(_BLOCK):
                    missing -= len(block)
                    yield block
        except _DAMAGE as error:
            raise _damaged(label, "member", error) from error
        if missing:
            raise _damaged(label, "member", f"{missing} bytes fewer than the archive declares")


def decompressed(span: ByteRange, kind: str, origin: str, limits: Limits) -> ByteRange:
    """Decompresses a gzip, bzip2 or xz file (`kind` "gz", "bz2" or "xz") once into a nameless temporary file.

    Raises `DataError` if it is damaged, grows beyond the limits, or the temporary file cannot be written.
    """
    return ByteRange.from_chunks(_decompress(span, kind, origin, limits), origin)


def _decompress(span: ByteRange, kind: str, origin: str, limits: Limits) -> Iterator[bytes]:
    size, source = 0, span.stream()
    if kind == "xz":
        blocks = _unxz(source)
    else:
        file = gzip.GzipFile(fileobj=source) if kind == "gz" else bz2.BZ2File(source)
        blocks = iter(lambda: file.read(_BLOCK), b"")
    try:
        for block in blocks:
            size += len(block)
            if size > limits.total:
                raise _too_large(origin, f"more than {limits.total} bytes", "the total size limit", "archive-too-large")
            _check_ratio(limits, size, source.tell(), origin)
            yield block
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, MemoryError) as error:
        raise _damaged(origin, f"{kind} file", error) from error


def _unxz(source: IO[bytes]) -> Iterator[bytes]:
    """Decompresses like `lzma.LZMAFile`, but with a memory limit, since a header may demand a dictionary of 4 GiB."""
    raw = source.read(_BLOCK)
    while raw:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=GIB)
        while not decoder.eof:
            yield decoder.decompress(raw, _BLOCK)
            raw = source.read(_BLOCK) if decoder.needs_input and not decoder.eof else b""
            if decoder.needs_input and not decoder.eof and not raw:
                raise EOFError("the end of the stream is missing")
        raw = decoder.unused_data.lstrip(b"\0")
        while not raw and (more := source.read(_BLOCK)):  # zeros may follow a stream
            raw = more.lstrip(b"\0")


def _check_ratio(limits: Limits, size: int, packed: int, what: str) -> None:
    if size > limits.ratio_from and size > limits.ratio * max(1, packed):
        received = f"{size} bytes out of {packed} compressed ones"
        raise _too_large(what, received, f"a compression ratio of {limits.ratio}, as only a zip bomb does", "archive-bomb")


def _too_large(what: str, received: str, limit: str, code: str) -> DataError:
    hint = "if you trust it, unpack it and give the folder"
    return DataError(f"{what} exceeds {limit}", code=code, received=received, hint=hint)


def _damaged(what: str, kind: str, received: object) -> DataError:
    return DataError(
        f"{what} is a truncated or damaged {kind}", code="archive-damaged", received=received, hint="fetch or pack it again"
    )


def _not_plain(origin: str, received: str, hint: str) -> DataError:
    return DataError(f"{origin} must hold plain files and folders only", code="archive-special-file", received=received, hint=hint)
