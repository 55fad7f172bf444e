"""Finds identical images before the split. Compares the sizes and ends of files, and reads in full only those that agree."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from crossroads.data._pool import map_chunks
from crossroads.data.dataset import DIGEST_BYTES, Dataset, FileSource
from crossroads.data.loading import CHUNK, UNREADABLE, Progress, digests_of
from crossroads.errors import ImageRefused
from crossroads.files.byte_ranges import SHORT_DIGEST_BYTES

Rows = NDArray[np.int64]


def digests_of_duplicates(dataset: Dataset, *, workers: int | None = None, progress: Progress | None = None) -> NDArray[np.uint8]:
    """Returns the digests of the images that may be identical to another, uint8 (n, 16); zeros for the others.

    Files can be identical only if their sizes and short digests are equal. Images that are not files, and files of unknown size,
    are compared with all others.

    Args:
        dataset: Any number of rows.
        workers: Threads; None for one per CPU.
        progress: Called with the number of files that are done and the number of all files, first for those whose ends are
            compared, and then for those that are read in full.
    """
    alike = np.arange(len(dataset))
    if isinstance(dataset.images, FileSource):
        alike = _files_alike(dataset.images, dataset.indices, workers, progress)
    digests = np.zeros((len(dataset), DIGEST_BYTES), np.uint8)
    digests[alike] = digests_of(dataset.select(alike), workers=workers, progress=progress)
    return digests


def _files_alike(files: FileSource, indices: Rows, workers: int | None, progress: Progress | None) -> Rows:
    """Returns the rows whose file has the same size and short digest as another file, and the rows of unknown size."""
    sizes = np.full(len(indices), -1, np.int64)

    def measure(row: int) -> None:
        size = files.size(int(indices[row]))
        sizes[row] = -1 if size is None else size

    _for_each(measure, np.arange(len(indices)), workers, None)
    unknown = sizes < 0
    rows = np.flatnonzero(_repeated(sizes) & ~unknown)
    keys = np.zeros((len(indices), SHORT_DIGEST_BYTES), np.uint8)

    def compare(row: int) -> None:
        keys[row] = np.frombuffer(files.short_digest(int(indices[row])), np.uint8)

    _for_each(compare, rows, workers, progress)
    agreeing = rows[_repeated(keys[rows].view(f"V{SHORT_DIGEST_BYTES}").reshape(-1))]
    return np.union1d(agreeing, np.flatnonzero(unknown))


def _repeated(keys: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Returns which keys, (n,), occur more than once."""
    _, numbers, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.asarray(counts[numbers] > 1)


def _for_each(work: Callable[[int], None], rows: Rows, workers: int | None, progress: Progress | None) -> None:
    """Calls `work` on each row, in threads. Skips files that cannot be read; they are refused when they are decoded."""

    def part(run: range) -> int:
        for row in rows[run.start : run.stop].tolist():
            with suppress(ImageRefused, *UNREADABLE):
                work(row)
        return run.stop

    for done in map_chunks(part, len(rows), chunk=CHUNK, workers=workers):
        if progress is not None:
            progress(done, len(rows))
