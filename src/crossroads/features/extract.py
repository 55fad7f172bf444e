"""Extracts the features of a data set: cached ones are looked up, missing ones are computed while images are decoded."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossroads.data._pool import map_chunks
from crossroads.data.dataset import DIGEST_BYTES, Dataset
from crossroads.data.images import Resize, load
from crossroads.data.loading import Progress, Refusal, digests_of, no_readable_image, read_with_digest
from crossroads.errors import DataError, ImageRefused
from crossroads.features.arrays import StoredFeatures
from crossroads.features.cache import Cache
from crossroads.features.engine import Engine
from crossroads.features.store import Store, Stores
from crossroads.features.views import view
from crossroads.recipe import Augmentation

CHUNK = 64
"""Images per task, at most `CHUNK_BYTES` of pixels."""

CHUNK_BYTES = 4 << 20
RAW_BYTES = 16 << 20
"""Bytes of encoded files that a thread holds at a time. One photograph from a camera may have 10 MB."""

WRITE_BYTES = 16 << 20
"""Bytes of features that are written at a time. A kill loses the work of at most one write."""

WRITE_ROWS = 8192
"""Most rows that are written at a time. Until a row is written, its digest and view take about 200 bytes."""


_Raw = bytes | NDArray[np.uint8] | ImageRefused
"""The contents of a source, or the reason why it could not be read."""


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """The readable images of a data set, whose features are in the cache now.

    Attributes:
        dataset: The n readable rows, in order.
        digests: uint8 (n, 16), of the sources; taken from the data set if the features are cached, so that images are not read.
        refusals: The rows that are not readable.
        computed: The number of features that were not in the cache.
    """

    dataset: Dataset
    digests: NDArray[np.uint8]
    refusals: tuple[Refusal, ...]
    computed: int


@dataclass(frozen=True, slots=True, eq=False)
class Extraction(Stored):
    """The readable images of a data set with their features.

    Attributes:
        features: float32 (views * n, ...), read on demand: row ``v * n + i`` is view v of image i.
    """

    features: StoredFeatures


class _Read(NamedTuple):
    """A row that was read: its digest, and the views missing among the first `known` rows of the store; or why it was refused.

    It is not `opened` if its digest was known and its features are stored.
    """

    digest: bytes
    views: list[tuple[int, NDArray[np.uint8]]]
    refused: str
    known: int = 0
    opened: bool = True


def extract(
    dataset: Dataset,
    *,
    resize: Resize,
    engine: Callable[[], Engine],
    cache: Cache,
    store: Store,
    views: int = 1,
    augmentation: Augmentation | None = None,
    strict: bool = False,
    progress: Progress | None = None,
    workers: int | None = None,
) -> Extraction:
    """Returns the features of every readable image; the arguments and errors are those of `fill`."""
    stored = fill(
        dataset,
        resize=resize,
        engine=engine,
        cache=cache,
        store=store,
        views=views,
        augmentation=augmentation,
        strict=strict,
        progress=progress,
        workers=workers,
    )
    numbers = np.concatenate([store.find(stored.digests, number) for number in range(views)])
    return Extraction(stored.dataset, stored.digests, stored.refusals, stored.computed, store.rows(numbers))


def fill(
    dataset: Dataset,
    *,
    resize: Resize,
    engine: Callable[[], Engine],
    cache: Cache,
    store: Store | Stores,
    views: int = 1,
    augmentation: Augmentation | None = None,
    strict: bool = False,
    progress: Progress | None = None,
    workers: int | None = None,
) -> Stored:
    """Computes the features that are missing in a store. An interrupted extraction resumes where it stopped.

    Memory holds a bounded number of images and features, and about 140 bytes per image for digests and places in the store; a
    refused image needs about 100 more, since every refusal is reported.

    Args:
        dataset: At least one row.
        resize: How an image becomes a square.
        engine: Returns the engine; called only if features are missing.
        cache: The cache of `store`, which makes room before anything is computed.
        store: Holds the features.
        views: Versions per image: the image itself and ``views - 1`` augmented ones.
        augmentation: The limits of their augmentation.
        strict: Whether the first unreadable image is an error.
        progress: Called with the number of finished images and of all images.
        workers: Threads that decode; None for one per CPU.

    Raises:
        DataError: There are no rows, or no image is readable; with `strict`, any image is unreadable.
        FeatureError: The cache has no room, or cannot be written.
    """
    n = len(dataset)
    if n == 0:
        raise DataError(f"{dataset.origin}: at least one image is needed", code="no-images", received="0 rows", hint="add images")
    reading = _Reading(dataset, resize, store, views, augmentation, strict, progress)
    if not cache.has_room(store, n * views):
        cache.require_room(store, reading.count_missing(workers))
    missing = reading.images(workers)
    first = next(missing, None)
    computed = 0
    if first is not None:
        if progress is not None:
            progress(0, n)  # the engine is compiled before the first images are done
        for values in engine().stream(chain([first], missing)):
            computed += reading.add(values)
        reading.write()
    if progress is not None and reading.opened:
        progress(n, n)
    readable = np.flatnonzero(reading.readable)
    if not len(readable):
        raise no_readable_image(dataset, reading.refusals)
    digests = reading.digests[readable]
    subset = dataset if len(readable) == n else dataset.select(readable)
    return Stored(subset, digests, tuple(reading.refusals), computed)


class _Reading:
    """One pass over a data set.

    Attributes:
        readable: bool (n,), the rows that were read.
        digests: uint8 (n, 16), their digests.
        refusals: The rows that were refused.
        opened: Whether any image was read. Features that are all in the cache need no progress.
    """

    def __init__(
        self,
        dataset: Dataset,
        resize: Resize,
        store: Store | Stores,
        views: int,
        augmentation: Augmentation | None,
        strict: bool,
        progress: Progress | None,
    ) -> None:
        self._dataset, self._resize, self._store, self._views, self._augmentation = dataset, resize, store, views, augmentation
        self._strict, self._progress = strict, progress
        self.readable = np.zeros(len(dataset), bool)
        self.digests = np.zeros((len(dataset), DIGEST_BYTES), np.uint8)
        self.refusals: list[Refusal] = []
        self.opened = False
        self._pending: set[tuple[bytes, int]] = set()  # digest and view of features that are not in the store yet
        self._waiting: deque[tuple[bytes, int]] = deque()  # the same, in the order of the images
        self._ready: list[NDArray[np.float32]] = []
        self._ready_rows = 0

    def images(self, workers: int | None) -> Iterator[NDArray[np.uint8]]:
        """Yields the missing views, each once, as uint8 (c, size, size, 3)."""
        pixels = self._resize.size**2 * 3 * self._views
        chunk = max(1, min(CHUNK, CHUNK_BYTES // pixels))
        row = 0
        for results in map_chunks(self._work, len(self._dataset), chunk=chunk, workers=workers):
            missing = []
            for result in results:
                if result.refused:
                    self._refuse(row, result.refused)
                else:
                    self.readable[row] = True
                    self.digests[row] = np.frombuffer(result.digest, np.uint8)
                    missing += [image for number, image in result.views if self._claims(result, number)]
                row += 1
            if missing:
                yield np.stack(missing)
            self.opened = self.opened or any(result.opened for result in results)
            if self._progress is not None and self.opened and row < len(self._dataset):
                self._progress(row, len(self._dataset))

    def _claims(self, read: _Read, number: int) -> bool:
        """Returns whether a view must still be computed. A copy of the image may have been computed since the lookup."""
        key = read.digest, number
        if key in self._pending:
            return False
        # A store that has grown is searched again, because it now holds the keys that are no longer pending.
        if len(self._store) > read.known and self._store.find(np.frombuffer(read.digest, np.uint8)[None], number)[0] >= 0:
            return False
        self._pending.add(key)
        self._waiting.append(key)
        return True

    def count_missing(self, workers: int | None) -> int:
        """Returns the number of features that are not in the store, by a separate pass over the files."""
        digests = digests_of(self._dataset, workers=workers)
        distinct = np.unique(np.ascontiguousarray(digests[digests.any(axis=1)]).view("V16").ravel()).view(np.uint8)
        return sum(int((self._store.find(distinct.reshape(-1, DIGEST_BYTES), number) < 0).sum()) for number in range(self._views))

    def add(self, values: NDArray[np.float32]) -> int:
        """Assigns features to the images that have waited longest. Returns the number of these images."""
        self._ready.append(values)
        self._ready_rows += len(values)
        if self._ready_rows >= min(WRITE_ROWS, WRITE_BYTES // self._store.row_bytes):
            self.write()
        return len(values)

    def write(self) -> None:
        """Writes the features that are ready to the store."""
        if not self._ready:
            return
        values = np.concatenate(self._ready)
        keys = [self._waiting.popleft() for _ in range(len(values))]
        digests = np.frombuffer(b"".join(digest for digest, _ in keys), np.uint8).reshape(-1, DIGEST_BYTES)
        self._store.append(digests, np.array([number for _, number in keys], np.uint32), values)
        self._pending.difference_update(keys)
        self._ready, self._ready_rows = [], 0

    def _work(self, rows: range) -> list[_Read]:
        """Reads, looks up, decodes and augments rows, in a worker thread."""
        known = self._dataset.known_digests(slice(rows.start, rows.stop))
        if known.any(axis=1).all() and (self._find(known) >= 0).all():
            return [_Read(digest.tobytes(), [], "", opened=False) for digest in known]
        results: list[_Read] = []
        raws: list[tuple[_Raw, bytes]] = []
        raw_bytes = 0
        for row in rows:
            raw, digest = self._raw(row)
            raws.append((raw, digest))
            raw_bytes += len(raw) if isinstance(raw, bytes) else 0
            if raw_bytes >= RAW_BYTES:
                results += self._results(raws)
                raws, raw_bytes = [], 0
        return results + self._results(raws)

    def _raw(self, row: int) -> tuple[_Raw, bytes]:
        """Returns a source and its digest, or the refusal and zeros."""
        try:
            return read_with_digest(self._dataset, row)
        except ImageRefused as error:
            return error, bytes(DIGEST_BYTES)

    def _results(self, raws: list[tuple[_Raw, bytes]]) -> list[_Read]:
        if not raws:
            return []
        known = len(self._store)
        stored = self._find(np.frombuffer(b"".join(digest for _, digest in raws), np.uint8).reshape(-1, DIGEST_BYTES))
        return [self._decode(raw, digest, stored[:, i])._replace(known=known) for i, (raw, digest) in enumerate(raws)]

    def _find(self, digests: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Returns the rows of the store, int64 (views, n), -1 if a view is not in the store."""
        return np.stack([self._store.find(digests, number) for number in range(self._views)])

    def _decode(self, raw: _Raw, digest: bytes, stored: NDArray[np.int64]) -> _Read:
        if isinstance(raw, ImageRefused):
            return _Read(b"", [], str(raw))
        missing = np.flatnonzero(stored < 0).tolist()
        if not missing:
            return _Read(digest, [], "")
        try:
            image = load(raw, self._resize)
        except ImageRefused as error:
            return _Read(b"", [], str(error))
        return _Read(digest, [(number, view(image, digest, number, self._augmentation)) for number in missing], "")

    def _refuse(self, row: int, reason: str) -> None:
        # Many images are refused for the same reason, such as a folder of empty files: its text is kept once.
        self.refusals.append(Refusal(row, self._dataset.name(row), sys.intern(reason)))
        if self._strict:
            raise self.refusals[-1].error()
