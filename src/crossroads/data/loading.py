"""Loads many images in a pool of threads. Keeps their order, reads each image once, and lists the images that are refused."""

from __future__ import annotations

import errno
import lzma
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from crossroads._runtime.process import release_pages
from crossroads.data._pool import map_chunks, map_ordered
from crossroads.data.dataset import DIGEST_BYTES, Dataset, FileSource, digest_of
from crossroads.data.images import Pixels, Resize, ValueRange, decode_with_range, dimensions, dimensions_from, has_frames, load
from crossroads.data.pictures import SAMPLE, range_note, source_of, unreadable_file
from crossroads.errors import DataError, ImageRefused, option
from crossroads.progress import Note

CHUNK = 64
"""Rows per task. Decoding 64 tiny images takes about 3 ms, which is much longer than passing a task to a thread."""

PICTURES_PER_TASK = 8
"""Pictures per task if their total number is unknown. With so few, a short list of photographs still keeps all threads busy."""

RANGE_SIDE = 64
"""Smallest side in pixels to which a JPEG is scaled down if only its range of values is needed."""

SIDES = 256
"""Number of images that are sampled to estimate the median side."""

HEADERS = (8 << 10, 128 << 10)
"""Bytes that are read of a file for its dimensions: the first of these that suffices. A JPEG may begin with 64 KiB of EXIF data."""

IN_MEMORY = 128 * 2**20
"""Bytes of pixels that are kept in memory. This is enough for 43,000 images of 32 px or 890 images of 224 px. More are in a file,
which the system keeps in its cache while it has memory to spare."""

RELEASE = 512
"""Images after which the pages of pixels in a file are released, so that they do not count as memory of this process."""

UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, DataError)
"""The exceptions that a source may raise for one image, such as a missing file or a damaged member of an archive."""

Progress = Callable[[int, int], None]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row whose image was refused.

    Attributes:
        row: The row of the data set.
        name: Name of the image.
        reason: Why the image was refused.
    """

    row: int
    name: str
    reason: str

    def to_json(self) -> dict[str, str]:
        """Returns the name and the reason as a dict."""
        return {"name": self.name, "reason": self.reason}

    def error(self) -> DataError:
        """Returns the error for a run in which no image may be refused."""
        return DataError(
            f"{self.name}: {self.reason}",
            code="image-refused",
            field="strict",
            hint=f"fix or remove the image, or leave out {option('strict')} to skip it",
        )


def no_readable_image(dataset: Dataset, refusals: Sequence[Refusal]) -> DataError:
    """Returns the error for a data set in which no image is readable."""
    received = "0 rows"
    if refusals:
        received = f"{len(refusals)} refused, the first {refusals[0].name}: {refusals[0].reason}"
    return DataError(
        f"{dataset.origin}: at least one image must be readable",
        code="no-readable-image",
        received=received,
        hint="run `crossroads audit` to see the reasons",
    )


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """The result of loading: the rows that were decoded and the rows that were refused.

    Attributes:
        dataset: The rows that were decoded, in order.
        pixels: uint8 (n, size, size, 3), RGB.
        digests: uint8 (n, 16), the digests of the encoded files or arrays.
        refusals: The rows that were refused, in order.
    """

    dataset: Dataset
    pixels: Pixels
    digests: NDArray[np.uint8]
    refusals: tuple[Refusal, ...]


class Streamed(NamedTuple):
    """One row of a stream.

    Attributes:
        row: The row of the data set, or the position among the pictures.
        image: The pixels, uint8 (size, size, 3), or the refusal.
        digest: The digest, 16 bytes. Empty for a refusal and for pictures that are not in a data set.
    """

    row: int
    image: Pixels | ImageRefused
    digest: bytes


def read(dataset: Dataset, row: int) -> bytes | Pixels:
    """Reads the image of one row. Unlike `Dataset.read`, raises `ImageRefused` if the file cannot be read.

    Raises:
        ImageRefused: The file is missing or not readable, or the member of the archive is damaged.
    """
    try:
        return dataset.read(row)
    except UNREADABLE as error:
        raise unreadable_file(error) from error


def read_with_digest(dataset: Dataset, row: int) -> tuple[bytes | Pixels, bytes]:
    """Reads one row as `read` does. Returns it with its digest, which the data set stores."""
    raw = read(dataset, row)
    digest = digest_of(raw)
    dataset.remember(row, digest)
    return raw, digest


def dimensions_of(dataset: Dataset, row: int) -> tuple[int, int]:
    """Returns height and width of one upright image in pixels. Reads only the first bytes of a file where they suffice.

    Small files are read in full. So are WebP, AVIF and HEIC files, and TIFF files that end with their directory.

    Raises:
        ImageRefused: As `read`; or the image is empty, not an image, or too large.
    """
    images, index = dataset.images, int(dataset.indices[row])
    try:
        size = images.size(index) if isinstance(images, FileSource) else None
        for length in HEADERS:
            if not isinstance(images, FileSource) or size is None or size <= length:
                break
            if (found := dimensions_from(images.head(index, length), size)) is not None:
                return found
    except UNREADABLE as error:
        raise unreadable_file(error) from error
    return dimensions(read_with_digest(dataset, row)[0])


def load_all(
    dataset: Dataset,
    to: Resize | int,
    *,
    strict: bool = False,
    progress: Progress | None = None,
    spill: Path | None = None,
    in_memory: int = IN_MEMORY,
) -> Loaded:
    """Loads all rows into one array of pixels.

    Args:
        dataset: A data set with at least one row.
        to: How to resize each image to a square. An integer is the side in pixels to which images are squashed.
        strict: Whether the first refusal, in row order, is an error.
        progress: Called with the number of rows done and the number of all rows, from the calling thread.
        spill: A file for pixels that need more than `in_memory` bytes. The array is then memory-mapped, and the caller must remove
            the file. None means that the pixels always stay in memory.
        in_memory: Largest number of bytes of pixels that are kept in memory if there is a `spill` file.

    Raises:
        DataError: There are no rows, no image is readable, or the pixels fit neither in memory nor on the disk. With `strict`,
            also if any image is refused.
    """
    n = len(dataset)
    if n == 0:
        raise no_readable_image(dataset, ())
    pixels = _allocate(dataset, to.size if isinstance(to, Resize) else to, spill, in_memory)
    digests = np.empty((n, DIGEST_BYTES), np.uint8)

    def work(rows: range) -> list[Refusal]:
        refused = []
        for row in rows:
            try:
                raw, digest = read_with_digest(dataset, row)
                pixels[row] = load(raw, to)
                digests[row] = np.frombuffer(digest, np.uint8)
            except ImageRefused as error:
                refused.append(Refusal(row, dataset.name(row), str(error)))
        return refused

    refusals: list[Refusal] = []
    done = 0
    if progress is not None:
        progress(0, n)
    for refused in map_chunks(work, n, chunk=CHUNK):
        if refused and strict:
            raise refused[0].error()
        refusals += refused
        done = min(done + CHUNK, n)
        if done // RELEASE > (done - CHUNK) // RELEASE:
            release_pages(pixels)
        if progress is not None:
            progress(done, n)
    release_pages(pixels)
    return _without_refused(dataset, pixels, digests, refusals)


def digests_of(dataset: Dataset, *, workers: int | None = None, progress: Progress | None = None) -> NDArray[np.uint8]:
    """Returns the digest of each row, uint8 (n, 16). It is zero for an image that cannot be read.

    Images are read but not decoded. An image whose digest the data set knows is not read again.

    Args:
        dataset: A data set with any number of rows.
        workers: Number of threads, as for `map_ordered`.
        progress: Called with the number of images done and the number of images to read.
    """
    digests = dataset.known_digests()
    missing = np.flatnonzero(~digests.any(axis=1))

    def work(rows: range) -> int:
        for row in missing[rows.start : rows.stop]:
            with suppress(ImageRefused):
                digests[row] = np.frombuffer(read_with_digest(dataset, int(row))[1], np.uint8)
        return rows.stop

    for done in map_chunks(work, len(missing), chunk=CHUNK, workers=workers):
        if progress is not None:
            progress(done, len(missing))
    return digests


def stream(dataset: Dataset, to: Resize | int, *, chunk: int = CHUNK) -> Iterator[Streamed]:
    """Yields the pixels of each row, uint8 (size, size, 3), or its refusal, in row order. Each image is read once.

    At most two chunks per thread are in memory at a time.

    Args:
        dataset: A data set with any number of rows.
        to: How to resize each image to a square. An integer is the side in pixels to which images are squashed.
        chunk: Rows per task. With fewer, the stream can be closed sooner.
    """

    def attempt(row: int) -> Streamed:
        try:
            raw, digest = read_with_digest(dataset, row)
            return Streamed(row, load(raw, to), digest)
        except ImageRefused as error:
            return Streamed(row, error, b"")

    for results in map_chunks(lambda rows: list(map(attempt, rows)), len(dataset), chunk=chunk):
        yield from results


def stream_pictures(
    pictures: Iterable[T],
    to: Resize | int,
    *,
    read: Callable[[T], bytes | Pixels] = source_of,
    per_task: int = PICTURES_PER_TASK,
) -> Iterator[Streamed]:
    """Does the same as `stream` for pictures of any kind, which may arrive one by one. Computes no digests.

    Args:
        pictures: Pictures of any kind that `read` accepts. They are iterated over once, in the calling thread, and only a few
            are requested ahead of time.
        to: The same as for `stream`.
        read: Returns the encoded file or the pixels of a picture, or raises `ImageRefused`. Called in several threads.
        per_task: Pictures per task of a thread.
    """

    def attempt(numbered: tuple[int, T]) -> Streamed:
        try:
            return Streamed(numbered[0], load(read(numbered[1]), to), b"")
        except ImageRefused as error:
            return Streamed(numbered[0], error, b"")

    numbered = enumerate(pictures)
    chunks = iter(lambda: list(islice(numbered, per_task)), [])
    for results in map_ordered(lambda chunk: list(map(attempt, chunk)), chunks):
        yield from results


def require_readable(dataset: Dataset) -> None:
    """Raises `DataError` if no image of a class has a readable header.

    Reads only one header per class, unless this header is not readable.
    """
    labels, firsts = np.unique(dataset.labels, return_index=True)
    for label, first in zip(labels.tolist(), firsts.tolist(), strict=True):
        reason = _header_refusal(dataset, first)
        if reason is None:
            continue
        rows = np.flatnonzero(dataset.labels == label).tolist()
        if all(_header_refusal(dataset, row) is not None for row in rows):
            raise DataError(
                f"{dataset.origin}: each class needs a readable training image",
                code="unreadable-class",
                received=f"none of the {len(rows):,} of {dataset.classes[label]!r}, the first {dataset.name(first)}: {reason}",
                hint="replace these files, or leave the class out",
            )


def _header_refusal(dataset: Dataset, row: int) -> ImageRefused | None:
    try:
        dimensions_of(dataset, row)
    except ImageRefused as error:
        return error
    return None


def sample_notes(dataset: Dataset) -> tuple[Note, ...]:
    """Decodes at most `SAMPLE` files, evenly spread, and returns notes on them.

    One note is on files whose values are too dark, such as 12 bits stored in 16. Another is on files with frames that are not read.
    Arrays are not checked here. Their reader checks them before they become 8-bit.
    """
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(SAMPLE, len(dataset))).round().astype(int))

    def work(run: range) -> list[tuple[ValueRange, bool]]:
        results = []
        for row in rows[run.start : run.stop].tolist():
            with suppress(ImageRefused):
                raw = read(dataset, row)
                if isinstance(raw, bytes):
                    results.append((decode_with_range(raw, draft=RANGE_SIDE)[1], has_frames(raw)))
        return results

    sampled = [result for part in map_chunks(work, len(rows), chunk=4) for result in part]
    notes = [] if (note := range_note([extent for extent, _ in sampled])) is None else [note]
    if framed := sum(has_more for _, has_more in sampled):
        text = f"{framed} of {len(sampled)} sampled files hold several frames, pages or pictures; one of each is read"
        notes.append(Note(text, "frames-ignored", files=framed, sampled=len(sampled)))
    return tuple(note.prefixed(f"{dataset.origin}: ") for note in notes)


def median_side(dataset: Dataset, seed: int) -> int:
    """Returns the median of the shorter sides of a random sample of images, in pixels, rounded down. Reads only their headers.

    Raises:
        DataError: No image of the sample has a readable header.
    """
    rows = np.sort(np.random.default_rng(seed).choice(len(dataset), min(SIDES, len(dataset)), replace=False))
    sides, refusals = [], []
    for row in rows.tolist():
        try:
            sides.append(min(dimensions_of(dataset, row)))
        except ImageRefused as error:
            refusals.append(Refusal(row, dataset.name(row), str(error)))
    if not sides:
        raise no_readable_image(dataset, refusals)
    return int(np.median(sides))


def _allocate(dataset: Dataset, size: int, spill: Path | None, in_memory: int) -> Pixels:
    shape = (len(dataset), size, size, 3)
    needed = len(dataset) * size * size * 3
    try:
        if spill is None or needed <= in_memory:
            return np.empty(shape, np.uint8)
        free = shutil.disk_usage(spill.parent).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"{free / 1e9:,.1f} GB are free in {spill.parent}")
        return np.memmap(spill, np.uint8, "w+", shape=shape)
    except (MemoryError, OSError) as error:
        reason = f"; {error.strerror}" if isinstance(error, OSError) else ""
        raise DataError(
            f"{dataset.origin}: the pixels of all images must fit in memory or on the disk",
            code="pixels-too-large",
            field="image_size",
            received=f"{needed / 1e9:,.1f} GB for {len(dataset):,} images of {size} px{reason}",
            hint="choose a smaller image size, or free some space",
        ) from error


def _without_refused(dataset: Dataset, pixels: Pixels, digests: NDArray[np.uint8], refusals: list[Refusal]) -> Loaded:
    """Removes the rows that were refused. Works in place, because a second array of pixels may not fit in memory."""
    if not refusals:
        return Loaded(dataset, pixels, digests, ())
    keep = np.ones(len(dataset), bool)
    keep[[refusal.row for refusal in refusals]] = False
    if not keep.any():
        raise no_readable_image(dataset, refusals)
    rows = np.flatnonzero(keep)
    for start in range(0, len(rows), CHUNK):
        block = rows[start : start + CHUNK]
        pixels[start : start + len(block)] = pixels[block]
        digests[start : start + len(block)] = digests[block]
    return Loaded(dataset.select(rows), pixels[: len(rows)], digests[: len(rows)], tuple(refusals))


def refusal_notes(images: str, refusals: tuple[Refusal, ...]) -> Iterator[Note]:
    """Yields a note if any images were refused. `images` names the set they belong to, such as ``the test``."""
    if refusals:
        first = f"{refusals[0].name}: {refusals[0].reason}"
        subject = f"{len(refusals)} images of {images} were" if len(refusals) > 1 else f"1 image of {images} was"
        yield Note(f"{subject} refused and left out, the first {first}", "images-refused", images=len(refusals), first=first)
