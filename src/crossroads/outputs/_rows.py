"""Runs a graph over any number of images and writes one row per image."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossroads.data.images import Resize
from crossroads.data.loading import stream_pictures
from crossroads.data.readers.unlabelled import ImageFile, ImageList, read_image
from crossroads.errors import DataError, ImageRefused
from crossroads.inference import Graph
from crossroads.outputs._formats import Rows
from crossroads.outputs._journal import Journal, images_digest, journal
from crossroads.progress import Note, Watcher
from crossroads.progress import stage as uncounted
from crossroads.streaming import blocks

PIXELS_PER_TASK = 64 * 64 * 64
"""Pixels that one task of a thread makes. Tasks of 64 tiny images cost little time to hand out, and tasks of 8 photographs keep all
threads busy."""


class Answered(NamedTuple):
    """Some images in a row with their results.

    Attributes:
        images: Each image, with its refusal or None.
        values: float32 (m, ...), the results of those that were not refused, in order.
    """

    images: list[tuple[ImageFile, ImageRefused | None]]
    values: NDArray[np.float32]


def answered(graph: Graph, images: Iterable[ImageFile], resize: Resize, *, resumable: bool = False) -> Iterator[Answered]:
    """Yields the results of images in order. A few batches of images are in memory at a time.

    Args:
        graph: From images to results.
        images: Any number. They are taken a few batches ahead.
        resize: How an image becomes a square.
        resumable: As for `crossroads.streaming.blocks`.
    """
    waiting: deque[ImageFile] = deque()

    def taken() -> Iterator[ImageFile]:
        for image in images:
            waiting.append(image)
            yield image

    per_task = max(8, min(64, PIXELS_PER_TASK // resize.size**2))
    pixels = stream_pictures(taken(), resize, read=read_image, per_task=per_task)
    for rows, values in blocks(graph, pixels, resumable=resumable):
        yield Answered([(waiting.popleft(), row.refusal) for row in rows], values)


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        out: The file; None if there is none.
        images: The number of images, of which each has a row.
        refused: The number of images that could not be read.
        continued: The number of rows that an earlier process had written.
    """

    out: Path | None
    images: int
    refused: int
    continued: int


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A file to write.

    Attributes:
        out: Its path.
        request: What decides the rows besides the images, as JSON values.
        open_rows: Opens the rows in a folder, given the sizes of the files there that count.
    """

    out: Path
    request: Mapping[str, Any]
    open_rows: Callable[[Path, Mapping[str, int]], Rows]


def write_rows(
    graph: Graph,
    resize: Resize,
    images: ImageList,
    rows_of: Callable[[Answered], list[tuple[Any, ...]]],
    *,
    stage: str,
    target: Target | None,
    watcher: Watcher,
    show: Callable[[tuple[Any, ...]], None] | None = None,
) -> Written:
    """Computes the results of all images that have no row yet, and writes their rows.

    Args:
        graph: From images to results.
        resize: How an image becomes a square.
        images: The images.
        rows_of: Makes one row per image. Its last column is the reason of a refusal, or None.
        stage: Name of the stage for the watcher.
        target: The file; None for no file.
        watcher: Receives progress and notes.
        show: Receives each row.

    Raises:
        DataError: There are no images, or the file exists or cannot be continued.
    """
    for note in images.notes:
        watcher.note(note)
    rows_pass = _Pass(graph, resize, images, rows_of, stage, watcher, show)
    if target is None:
        return rows_pass.run(None, None)
    with journal(target.out, {**target.request, "images": images_digest(images)}, target.open_rows) as written:
        return rows_pass.run(target.out, written)


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    """One pass over the images. The attributes are the arguments of `write_rows`."""

    graph: Graph
    resize: Resize
    images: ImageList
    rows_of: Callable[[Answered], list[tuple[Any, ...]]]
    stage: str
    watcher: Watcher
    show: Callable[[tuple[Any, ...]], None] | None

    def run(self, out: Path | None, written: Journal | None) -> Written:
        """Computes the rows that are missing."""
        done, refused, total = (0, 0, self.images.total) if written is None else (written.done, written.refused, self.images.total)
        continued, rest = done, iter(self.images) if written is None else written.remaining(self.images)
        if continued:
            of = "" if total is None else f" of {total:,}"
            self.watcher.note(Note(f"{continued:,}{of} images have a row already", "output-continued", images=continued))
        with _progress(self.watcher, self.stage, total) as report:
            report(done)
            for answers in answered(self.graph, rest, self.resize, resumable=written is not None):
                rows = self.rows_of(answers)
                bad = sum(row[-1] is not None for row in rows)
                if written is not None:
                    written.add([image.name for image, _ in answers.images], rows, bad)
                done, refused = done + len(rows), refused + bad
                self._show(rows)
                report(done)
        if not done:
            raise DataError(
                "at least one image is needed",
                code="no-images",
                received="an empty list",
                hint="name image files, or a folder of them",
            )
        return Written(out, done, refused, continued)

    def _show(self, rows: list[tuple[Any, ...]]) -> None:
        if self.show is not None:
            for row in rows:
                self.show(row)


@contextmanager
def _progress(watcher: Watcher, stage: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yields a function that reports the number of finished images. If their total is unknown, only begin and end are reported."""
    if total is None:
        with uncounted(watcher.progress, stage):
            yield lambda _: None
    else:
        yield lambda done: watcher.progress(stage, done, total) if total else None
