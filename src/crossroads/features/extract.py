"""The features of a data set: those that are cached are looked up, the others are computed while images are decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossroads.data._pool import map_chunks
from crossroads.data.dataset import DIGEST_BYTES, Dataset, digest_of
from crossroads.data.images import Resize, load
from crossroads.data.loading import Progress, Refusal, digests_of, no_readable_image, read
from crossroads.errors import DataError, ImageRefused
from crossroads.features.cache import Cache
from crossroads.features.engine import Engine
from crossroads.features.store import Rows, Store
from crossroads.features.views import view
from crossroads.recipe import Augmentation

CHUNK = 64
"""Images a task, unless they are large: `CHUNK_BYTES` of pixels at most."""

CHUNK_BYTES = 4 << 20
RAW_BYTES = 16 << 20
"""Bytes of files that a thread holds at a time: photographs of a large camera have 10 MB each."""

KEPT_BYTES = 16 << 20
"""Bytes of features that are written at a time; a kill loses no more than the work of one such write."""


@dataclass(frozen=True, slots=True, eq=False)
class Extracted:
    """The features of the rows that became images.

    Attributes:
        dataset: Those n rows, in their order.
        features: float32 (views * n, ...), read when asked for: row ``v * n + i`` is view v of image i.
        digests: uint8 (n, 16), of what was decoded; where features are cached, as the data set has them: such images are not read.
        refusals: The other rows.
        computed: How many features were computed; the others came from the cache.
    """

    dataset: Dataset
    features: Rows
    digests: NDArray[np.uint8]
    refusals: tuple[Refusal, ...]
    computed: int


class _Read(NamedTuple):
    """One row: its digest and the views that were not among the first `known` rows of the store, or why it was refused."""

    digest: bytes
    views: list[tuple[int, NDArray[np.uint8]]]
    refused: str
    known: int = 0


def extract(
    dataset: Dataset,
    *,
    resize: Resize,
    engine: Callable[[], Engine],
    cache: Cache,
    store: Store,
    views: int = 1,
    moves: Augmentation | None = None,
    strict: bool = False,
    progress: Progress | None = None,
    workers: int | None = None,
) -> Extracted:
    """Features of every image; an interrupted extraction goes on where it stopped.

    A bounded number of images and features is in memory at a time. What grows with the images is their digests and places in the
    store: some 140 bytes for each.

    Args:
        dataset: At least one row.
        resize: How an image becomes a square.
        engine: Makes what computes features; not called where nothing is missing.
        cache: Where `store` is, asked for room before anything is computed.
        store: Where they are kept.
        views: Versions of each image: the image itself and ``views - 1`` that are moved.
        moves: How far those are moved.
        strict: Whether the first row that does not become an image is an error.
        progress: Called with the images done and their number.
        workers: Threads that decode; None for one a CPU.

    Raises:
        DataError: No rows, or none that becomes an image; with `strict` any that does not.
        FeatureError: The cache has no room for them, or cannot be written.
    """
    n = len(dataset)
    if n == 0:
        raise DataError(f"{dataset.origin}: there must be at least one image", received="0 rows")
    reading = _Reading(dataset, resize, store, views, moves, strict, progress)
    if not cache.has_room(store, n * views):
        cache.require_room(store, reading.count_missing(workers))
    missing = reading.images(workers)
    first = next(missing, None)
    computed = 0
    if first is not None:
        for values in engine().stream(chain([first], missing)):
            computed += reading.keep(values)
        reading.write()
    kept = np.flatnonzero(reading.kept)
    if not len(kept):
        raise no_readable_image(dataset, reading.refusals)
    digests = reading.digests[kept]
    numbers = np.concatenate([store.find(digests, number) for number in range(views)])
    rows = dataset if len(kept) == n else dataset.select(kept)
    return Extracted(rows, store.rows(numbers), digests, tuple(reading.refusals), computed)


class _Reading:
    """One pass over a data set: what was read, what waits for its features, what waits to be written."""

    def __init__(
        self,
        dataset: Dataset,
        resize: Resize,
        store: Store,
        views: int,
        moves: Augmentation | None,
        strict: bool,
        progress: Progress | None,
    ) -> None:
        self._dataset, self._resize, self._store, self._views, self._moves = dataset, resize, store, views, moves
        self._strict, self._progress = strict, progress
        self.kept = np.zeros(len(dataset), bool)
        self.digests = np.zeros((len(dataset), DIGEST_BYTES), np.uint8)
        self.refusals: list[Refusal] = []
        self._pending: set[tuple[bytes, int]] = set()  # not in the store yet
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._ready: list[NDArray[np.float32]] = []
        self._ready_rows = 0

    def images(self, workers: int | None) -> Iterator[NDArray[np.uint8]]:
        """uint8 (c, size, size, 3), the views that are missing, each once."""
        pixels = self._resize.size**2 * 3 * self._views
        chunk = max(1, min(CHUNK, CHUNK_BYTES // pixels))
        row = 0
        for results in map_chunks(self._work, len(self._dataset), chunk=chunk, workers=workers):
            missing = []
            for result in results:
                if result.refused:
                    self._refuse(row, result.refused)
                else:
                    self.kept[row] = True
                    self.digests[row] = np.frombuffer(result.digest, np.uint8)
                    missing += [image for number, image in result.views if self._claims(result, number)]
                row += 1
            if missing:
                yield np.stack(missing)
            if self._progress is not None:
                self._progress(row, len(self._dataset))

    def _claims(self, read: _Read, number: int) -> bool:
        """Whether a view is still to be computed; an equal image may have come since it was looked up."""
        key = read.digest, number
        if key in self._pending:
            return False
        # Looked up again where the store has grown: keys no longer pending are in the store.
        if len(self._store) > read.known and self._store.find(np.frombuffer(read.digest, np.uint8)[None], number)[0] >= 0:
            return False
        self._pending.add(key)
        self._waiting.append(key)
        return True

    def count_missing(self, workers: int | None) -> int:
        """How many features are not in the store: a pass of its own over the files, for a cache that is nearly full."""
        digests = digests_of(self._dataset, workers=workers)
        different = np.unique(np.ascontiguousarray(digests[digests.any(axis=1)]).view("V16").ravel()).view(np.uint8)
        return sum(int((self._store.find(different.reshape(-1, DIGEST_BYTES), number) < 0).sum()) for number in range(self._views))

    def keep(self, values: NDArray[np.float32]) -> int:
        """Take the features of the images that wait longest; how many they are."""
        self._ready.append(values)
        self._ready_rows += len(values)
        if self._ready_rows * self._store.row_bytes >= KEPT_BYTES:
            self.write()
        return len(values)

    def write(self) -> None:
        """Bring what is ready into the store."""
        if not self._ready:
            return
        values = np.concatenate(self._ready)
        keys = [self._waiting.popleft() for _ in range(len(values))]
        digests = np.frombuffer(b"".join(digest for digest, _ in keys), np.uint8).reshape(-1, DIGEST_BYTES)
        self._store.append(digests, np.array([number for _, number in keys], np.uint32), values)
        self._pending.difference_update(keys)
        self._ready, self._ready_rows = [], 0

    def _work(self, rows: range) -> list[_Read]:
        """In a worker thread: read, look up, decode and move what is missing."""
        if self._dataset.digests is not None:
            known = [digest.tobytes() for digest in self._dataset.digests[rows.start : rows.stop]]
            if all(map(any, known)) and (self._found(known) >= 0).all():
                return [_Read(digest, [], "") for digest in known]
        results: list[_Read] = []
        raws: list[bytes | NDArray[np.uint8] | ImageRefused] = []
        held = 0
        for row in rows:
            raws.append(self._raw(row))
            held += len(raws[-1]) if isinstance(raws[-1], bytes) else 0
            if held >= RAW_BYTES:
                results += self._results(raws)
                raws, held = [], 0
        return results + self._results(raws)

    def _raw(self, row: int) -> bytes | NDArray[np.uint8] | ImageRefused:
        try:
            return read(self._dataset, row)
        except ImageRefused as error:
            return error

    def _results(self, raws: list[bytes | NDArray[np.uint8] | ImageRefused]) -> list[_Read]:
        if not raws:
            return []
        digests = [b"" if isinstance(raw, ImageRefused) else digest_of(raw) for raw in raws]
        known = len(self._store)
        found = self._found(digests)
        return [self._views_of(raw, digests[i], found[:, i])._replace(known=known) for i, raw in enumerate(raws)]

    def _found(self, digests: list[bytes]) -> NDArray[np.int64]:
        """int64 (views, n), rows of the store, -1 where there is none."""
        wanted = np.frombuffer(b"".join(digest or bytes(DIGEST_BYTES) for digest in digests), np.uint8).reshape(-1, DIGEST_BYTES)
        return np.stack([self._store.find(wanted, number) for number in range(self._views)])

    def _views_of(self, raw: bytes | NDArray[np.uint8] | ImageRefused, digest: bytes, found: NDArray[np.int64]) -> _Read:
        if isinstance(raw, ImageRefused):
            return _Read(b"", [], str(raw))
        missing = np.flatnonzero(found < 0).tolist()
        if not missing:
            return _Read(digest, [], "")
        try:
            image = load(raw, self._resize)
        except ImageRefused as error:
            return _Read(b"", [], str(error))
        return _Read(digest, [(number, view(image, digest, number, self._moves)) for number in missing], "")

    def _refuse(self, row: int, reason: str) -> None:
        self.refusals.append(Refusal(row, self._dataset.name(row), reason))
        if self._strict:
            raise self.refusals[-1].error()
