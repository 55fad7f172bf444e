"""Makes small pictures of held-out images, as the network sees them, and keeps them in ``thumbnails.npz``.

With them the report can be made again from the artifact alone. The file can be removed: the report then has no pictures.
"""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossroads.artifact import THUMBNAILS, Predictions
from crossroads.data.dataset import DIGEST_BYTES, Dataset
from crossroads.data.images import Resize
from crossroads.data.loading import stream
from crossroads.files.text import printable
from crossroads.report.facts import cell_rows, confident_mistakes, unsure_hits

MISTAKES, UNSURE = 24, 12
"""Number of pictures of the most confident mistakes, and of the least certain correct predictions. They have heat maps."""

PER_CELL, CELLS = 6, 240
"""Largest number of pictures per cell of the confusion matrix, and of all cells together."""

LARGE_SIDE, SMALL_SIDE = 160, 96
"""Sides in pixels of the pictures with heat maps and of the others."""

JPEG_QUALITY = 80

MAPS_AT_ONCE = 4
"""Heat maps between two looks at the time."""

Pixels = NDArray[np.uint8]
HeatMaps = Callable[[Pixels, NDArray[np.int32]], list[Image.Image]]
"""Draws the heat maps of images, uint8 (n, size, size, 3), for one class of each, int32 (n,)."""


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnails:
    """Small pictures of n images.

    Attributes:
        digests: uint8 (n, 16), the digests of the images.
        pictures: A JPEG file of each.
        maps: A JPEG file of each with its heat map; empty if there is none.
        method: How the heat maps were computed; "" if there are none.
    """

    digests: NDArray[np.uint8]
    pictures: tuple[bytes, ...]
    maps: tuple[bytes, ...]
    method: str = ""

    def rows_of(self, predictions: Predictions) -> dict[int, int]:
        """Returns the number of the picture for each row of the predictions that has one."""
        known = {digest.tobytes(): index for index, digest in enumerate(self.digests)}
        found = ((row, known.get(digest.tobytes())) for row, digest in enumerate(predictions.digests))
        return {row: index for row, index in found if index is not None}


NO_THUMBNAILS = Thumbnails(np.zeros((0, DIGEST_BYTES), np.uint8), (), ())


class Wanted(NamedTuple):
    """The rows of predictions whose pictures a report shows: first those with heat maps, then the others."""

    with_maps: list[int]
    others: list[int]


def wanted(predictions: Predictions) -> Wanted:
    """Chooses the rows whose pictures a report shows, the most important first."""
    first = [*confident_mistakes(predictions, MISTAKES), *unsure_hits(predictions, UNSURE)]
    cells = (row for rows in cell_rows(predictions, PER_CELL, CELLS).values() for row in rows)
    return Wanted(first, [row for row in dict.fromkeys(cells) if row not in set(first)])


def make_thumbnails(
    predictions: Predictions,
    images: Sequence[Dataset],
    resize: Resize,
    heat_maps: Callable[[], tuple[str, HeatMaps]] | None,
    seconds: float,
    also: Sequence[int] = (),
) -> Thumbnails:
    """Makes the pictures that a report shows. An image that cannot be read, or that has changed, has none.

    Args:
        predictions: The predictions.
        images: The data sets that hold their images.
        resize: How the network sees an image.
        heat_maps: Returns how heat maps are computed, and what draws them; None for no heat maps.
        seconds: Time limit. The most important pictures are made first, and what is not made by then is left out.
        also: Further rows whose pictures are needed.
    """
    until = time.perf_counter() + seconds
    rows = wanted(predictions)
    made: dict[int, bytes] = {}
    first: dict[int, Pixels] = {}
    for row, pixels in _decoded(predictions, images, rows.with_maps, resize, until):
        first[row] = pixels
        made[row] = _jpeg(Image.fromarray(pixels), LARGE_SIDE)
    maps: dict[int, bytes] = {}
    method = ""
    if heat_maps is not None and first and time.perf_counter() < until:
        method, draw = heat_maps()
        maps = dict(_maps(first, predictions, draw, until))
    others = [row for row in dict.fromkeys([*also, *rows.others]) if row not in first]
    for row, pixels in _decoded(predictions, images, others, resize, until):
        made[row] = _jpeg(Image.fromarray(pixels), SMALL_SIDE)
    order = list(made)
    return Thumbnails(
        predictions.digests[np.array(order, np.int64)],
        tuple(made.values()),
        tuple(maps.get(row, b"") for row in order),
        method if maps else "",
    )


def write_thumbnails(path: Path, thumbnails: Thumbnails) -> None:
    """Writes the pictures to a file."""
    files = [*thumbnails.pictures, *thumbnails.maps]
    with path.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            digests=thumbnails.digests,
            bytes=np.frombuffer(b"".join(files), np.uint8),
            offsets=np.cumsum([0, *map(len, files)]).astype(np.int64),
            method=np.array(thumbnails.method, np.str_),
        )


def read_thumbnails(folder: str | PathLike[str]) -> Thumbnails:
    """Reads the pictures of an artifact. There are none if the file is missing or damaged."""
    try:
        with np.load(Path(folder) / THUMBNAILS, allow_pickle=False) as arrays:
            digests, data, offsets, method = (arrays[name] for name in ("digests", "bytes", "offsets", "method"))
        n = len(digests)
        if (digests.shape, digests.dtype, data.dtype, offsets.shape) != ((n, DIGEST_BYTES), np.uint8, np.uint8, (2 * n + 1,)):
            return NO_THUMBNAILS
        content = data.tobytes()
        files = tuple(content[int(start) : int(end)] for start, end in pairwise(offsets))
        return Thumbnails(digests, files[:n], files[n:], str(method))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return NO_THUMBNAILS


def _decoded(
    predictions: Predictions, images: Sequence[Dataset], rows: Sequence[int], resize: Resize, until: float
) -> Iterator[tuple[int, Pixels]]:
    """Yields rows of the predictions with their pixels, until the time is over."""
    position = {str(predictions.names[row]): row for row in rows}
    for dataset in images:
        found = {name: at for at in range(len(dataset)) if (name := printable(dataset.name(at))) in position}
        ordered = [name for name in position if name in found]
        part = dataset.select(np.array([found[name] for name in ordered], np.int64))
        streamed = stream(part, resize, chunk=2)
        for name, (_, pixels, digest) in zip(ordered, streamed, strict=True):
            row = position[name]
            if isinstance(pixels, np.ndarray) and digest == predictions.digests[row].tobytes():
                del position[name]
                yield row, pixels
            if time.perf_counter() > until:
                return


def _maps(first: dict[int, Pixels], predictions: Predictions, draw: HeatMaps, until: float) -> Iterator[tuple[int, bytes]]:
    """Yields rows with their heat maps for the predicted class, until the time is over."""
    rows = list(first)
    for start in range(0, len(rows), MAPS_AT_ONCE):
        if time.perf_counter() > until:
            return
        part = rows[start : start + MAPS_AT_ONCE]
        drawn = draw(np.stack([first[row] for row in part]), predictions.predicted[part])
        yield from ((row, _jpeg(picture, LARGE_SIDE)) for row, picture in zip(part, drawn, strict=True))


def _jpeg(picture: Image.Image, side: int) -> bytes:
    """Returns a picture as a JPEG file whose sides are at most `side` pixels."""
    if picture.width > side:
        picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
