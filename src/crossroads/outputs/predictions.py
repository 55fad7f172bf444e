"""Predicts any number of images, one row each, to a file or into folders."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossroads.data.loading import stream_pictures
from crossroads.data.readers.unlabelled import ImageFile, ImageList, read_image
from crossroads.errors import DataError, ImageRefused
from crossroads.files.text import printable
from crossroads.inference import Graph
from crossroads.outputs._formats import DECIMALS, CsvRows, JsonRows, Kind, ParquetRows, Rows, require_suffix
from crossroads.outputs._journal import Journal, images_digest, journal
from crossroads.outputs._sorting import Sorter
from crossroads.predictor import Predictor
from crossroads.progress import Note, Uncounted, Watcher
from crossroads.streaming import blocks

FORMATS: Mapping[str, Callable[[Path, Mapping[str, Kind], Mapping[str, int]], Rows]] = {
    ".csv": CsvRows,
    ".jsonl": JsonRows,
    ".parquet": ParquetRows,
}
"""The format of each suffix."""

STAGE = "predicting"

PIXELS_PER_TASK = 64 * 64 * 64
"""Pixels that one task of a thread makes. Tasks of 64 tiny images cost little time to hand out, and tasks of 8 photographs keep all
threads busy."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        out: The file; None if there is none.
        images: The number of images, of which each has a row.
        refused: The number of images that could not be read.
        continued: The number of rows that an earlier process had written.
        sorted_into: The folder of the sorted images; None if they were not sorted.
    """

    out: Path | None
    images: int
    refused: int
    continued: int = 0
    sorted_into: Path | None = None


class Answered(NamedTuple):
    """Some images in a row with their results.

    Attributes:
        images: Each image, with its refusal or None.
        values: float32 (m, ...), the results of those that were not refused, in order.
    """

    images: list[tuple[ImageFile, ImageRefused | None]]
    values: NDArray[np.float32]


def answered(graph: Graph, images: Iterable[ImageFile], resize: Any, *, resumable: bool = False) -> Iterator[Answered]:
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


def columns_of(top: int) -> dict[str, Kind]:
    """Returns the columns of a table of predictions with this number of labels."""
    columns: dict[str, Kind] = {"path": "text", "label": "text", "probability": "float32"}
    for number in range(2, top + 1):
        columns |= {f"label_{number}": "text", f"probability_{number}": "float32"}
    return columns | {"error": "text"}


class Table:
    """Makes rows of predictions.

    Args:
        classes: The class names.
        top: Number of labels per image.
        decimals: Decimals of the probabilities; None for exact ones.
    """

    def __init__(self, classes: tuple[str, ...], top: int, decimals: int | None) -> None:
        self._classes, self.top, self._decimals = classes, min(top, len(classes)), decimals
        self._empty = (None,) * (2 * self.top)

    def rows(self, answers: Answered) -> list[tuple[Any, ...]]:
        """Returns one row per image."""
        # A stable sort gives a tie to the class that comes first, as in the evaluation.
        best = np.argsort(-answers.values, axis=1, kind="stable")[:, : self.top]
        ranked = np.take_along_axis(answers.values, best, axis=1).astype(np.float64)
        shown = (ranked if self._decimals is None else ranked.round(self._decimals)).tolist()
        order, classes = iter(zip(best.tolist(), shown, strict=True)), self._classes
        rows: list[tuple[Any, ...]] = []
        for image, refusal in answers.images:
            if refusal is not None:
                rows.append((image.name, *self._empty, printable(str(refusal))))
                continue
            row: list[Any] = [image.name]
            for label, probability in zip(*next(order), strict=True):
                row += (classes[label], probability)
            rows.append((*row, None))
        return rows


def predict_files(
    predictor: Predictor,
    images: ImageList,
    *,
    out: Path | None = None,
    top: int = 5,
    sort_into: Path | None = None,
    link: bool = False,
    watcher: Watcher,
    show: Callable[[tuple[Any, ...]], None] | None = None,
) -> Written:
    """Predicts images, writes one row per image, and sorts the files.

    Args:
        predictor: The classifier.
        images: The images.
        out: A new file whose suffix is in `FORMATS`. An unfinished one is continued. None for no file.
        top: Number of labels per image, at least 1.
        sort_into: A folder in which each readable image is copied into the folder of its label; None for no copies.
        link: Whether to make symbolic links instead of copies.
        watcher: Receives progress and notes.
        show: Receives each row.

    Raises:
        DataError: There are no images, `out` exists or cannot be continued, or `sort_into` is inside the folder of the images.
    """
    if out is not None:
        require_suffix(out, tuple(FORMATS))
    sorter = None if sort_into is None else Sorter(sort_into, predictor.classes, images.folders, link=link)
    for note in images.notes:
        watcher.note(note)
    kind = None if out is None else FORMATS[out.suffix.lower()]
    table = Table(predictor.classes, top, DECIMALS if kind in (CsvRows, JsonRows) else None)
    columns = columns_of(table.top)
    if out is None or kind is None:
        opened = nullcontext(None)
    else:
        request = {
            "artifact": predictor.manifest.files["model.xml"]["blake2b"] + predictor.manifest.files["model.bin"]["blake2b"],
            "images": images_digest(images),
            "columns": table.top,
            "sorted": None if sort_into is None else [str(sort_into), link],
        }
        opened = journal(out, request, lambda folder, sizes: kind(folder, columns, sizes))  # type: ignore[assignment]
    with opened as written:
        run = _Run(predictor, images, table, sorter, written, watcher, show)
        run.all()
    return Written(out, run.done, run.refused, run.continued, sort_into)


class _Run:
    """One pass over the images."""

    def __init__(
        self,
        predictor: Predictor,
        images: ImageList,
        table: Table,
        sorter: Sorter | None,
        written: Journal | None,
        watcher: Watcher,
        show: Callable[[tuple[Any, ...]], None] | None,
    ) -> None:
        self._predictor, self._images, self._table, self._sorter = predictor, images, table, sorter
        self._journal, self._watcher, self._show = written, watcher, show
        self.continued = self.done = 0 if written is None else written.done
        self.refused = 0 if written is None else written.refused

    def all(self) -> None:
        """Predicts all images that have no row yet."""
        if self.continued:
            of = "" if self._images.total is None else f" of {self._images.total:,}"
            self._watcher.note(Note(f"{self.continued:,}{of} images have a row already", "output-continued", images=self.continued))
        rest: Iterable[ImageFile] = self._images if self._journal is None else self._journal.remaining(self._images)
        self._report()
        answers = answered(self._predictor.graph, rest, self._predictor.manifest.resize, resumable=self._journal is not None)
        for answer in answers:
            self._add(answer)
        if not self.done:
            raise DataError(
                "at least one image is needed",
                code="no-images",
                received="an empty list",
                hint="name image files, or a folder of them",
            )
        self._report(ended=True)

    def _add(self, answers: Answered) -> None:
        rows = self._table.rows(answers)
        if self._sorter is not None:
            rows = [self._sorted(image, row) for (image, _), row in zip(answers.images, rows, strict=True)]
        refused = sum(row[-1] is not None for row in rows)
        if self._journal is not None:
            self._journal.add([image.name for image, _ in answers.images], rows, refused)
        self.done += len(rows)
        self.refused += refused
        if self._show is not None:
            for row in rows:
                self._show(row)
        self._report()

    def _sorted(self, image: ImageFile, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """Sorts one image by its row. Returns a row with the reason if it cannot be copied."""
        if row[-1] is None and self._sorter is not None:
            try:
                self._sorter.add(image, row[1])
            except ImageRefused as error:
                return (*row[:-1], printable(str(error)))
        return row

    def _report(self, *, ended: bool = False) -> None:
        total = self._images.total
        if total and not ended:
            self._watcher.progress(STAGE, self.done, total)
        elif total is None and (ended or self.done == self.continued):
            self._watcher.progress(Uncounted(STAGE), int(ended), 1)
