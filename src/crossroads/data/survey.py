"""Decodes every image of a data set once and collects what an audit needs. Pixels are not kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossroads.data._pool import map_chunks
from crossroads.data.dataset import DIGEST_BYTES, Dataset, MemorySource, digest_of
from crossroads.data.images import decode_with_range, dimensions, resize
from crossroads.data.loading import CHUNK, Refusal, read
from crossroads.data.perceptual_hash import SIDE, Fingerprints, fingerprint
from crossroads.data.pictures import value_range
from crossroads.errors import ImageRefused

BLANK_STD = 1.0
"""An image is of one colour if the standard deviation within its channels is below this (values 0..255, at 32 px)."""

BLACK_MEAN, BLACK_STD = 16.0, 3.0
"""An image is nearly black if the mean and standard deviation of all its values are at most these.

GTSRB's training set has 46 such images.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """The result of one pass over a data set, of which n images are readable.

    Attributes:
        rows: int64 (n,), the rows that are readable.
        sides: int64 (n,), shorter sides in pixels.
        ranges: float64 (n, 3), the low, high and full value of each image's `ValueRange`.
        digests: uint8 (n, 16), the digests of the files or arrays.
        fingerprints: The fingerprints of the n images.
        refusals: The rows that are not readable, with the reasons.
    """

    rows: NDArray[np.int64]
    sides: NDArray[np.int64]
    ranges: NDArray[np.float64]
    digests: NDArray[np.uint8]
    fingerprints: Fingerprints
    refusals: list[Refusal]

    def blank(self) -> NDArray[np.bool_]:
        """Returns which images are of one colour or nearly black, bool (n,)."""
        prints = self.fingerprints
        black = (prints.means <= BLACK_MEAN) & (prints.stds <= BLACK_STD)
        return np.asarray((prints.channel_stds < BLANK_STD) | black)


def survey(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> Survey:
    """Reads and decodes each image once.

    Args:
        dataset: The labelled images.
        progress: Called with the number of rows done and the number of all rows.
    """
    n = len(dataset)
    parts = [_survey_rows(dataset, range(0))]
    for part in map_chunks(lambda rows: _survey_rows(dataset, rows), n, chunk=CHUNK):
        parts.append(part)
        if progress is not None:
            progress(min((len(parts) - 1) * CHUNK, n), n)
    return Survey(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.sides for part in parts]),
        np.concatenate([part.ranges for part in parts]),
        np.concatenate([part.digests for part in parts]),
        Fingerprints.concatenate([part.fingerprints for part in parts]),
        [refusal for part in parts for refusal in part.refusals],
    )


def _survey_rows(dataset: Dataset, rows: range) -> Survey:
    readable: list[int] = []
    sides, ranges, digests, refusals = [], [], [], []
    squares = np.empty((len(rows), SIDE, SIDE, 3), np.uint8)
    for row in rows:
        try:
            raw = read(dataset, row)
            side = min(dimensions(raw))
            pixels, extent = decode_with_range(raw, draft=SIDE)
            squares[len(readable)] = resize(pixels, SIDE)
        except ImageRefused as error:
            refusals.append(Refusal(row, dataset.name(row), str(error)))
            continue
        readable.append(row)
        sides.append(side)
        if isinstance(dataset.images, MemorySource):  # use the range that the image had before it became 8-bit
            extent = value_range(dataset.images.picture(int(dataset.indices[row]))) or extent
        ranges.append(extent)
        digests.append(digest_of(raw))
    return Survey(
        np.array(readable, np.int64),
        np.array(sides, np.int64),
        np.array(ranges, np.float64).reshape(-1, 3),
        np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES),
        fingerprint(squares[: len(readable)]),
        refusals,
    )
