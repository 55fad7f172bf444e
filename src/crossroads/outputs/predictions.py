"""Predicts any number of images, one row each, to a file or into folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crossroads.artifact import GRAPH
from crossroads.data.readers.unlabelled import ImageList
from crossroads.errors import ImageRefused
from crossroads.files.text import printable
from crossroads.outputs._formats import DECIMALS, CsvRows, JsonRows, Kind, ParquetRows, Rows, required_suffix
from crossroads.outputs._rows import Answered, Target, Written, write_rows
from crossroads.outputs._sorting import Sorter
from crossroads.predictor import Predictor
from crossroads.progress import Watcher

FORMATS: Mapping[str, Callable[[Path, Mapping[str, Kind], Mapping[str, int]], Rows]] = {
    ".csv": CsvRows,
    ".jsonl": JsonRows,
    ".parquet": ParquetRows,
}
"""The format of each suffix."""

STAGE = "predicting"


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
    target, decimals = None, None
    if out is not None:
        kind = FORMATS[required_suffix(out, tuple(FORMATS))]
        decimals = None if kind is ParquetRows else DECIMALS
    table = Table(predictor.classes, top, decimals)
    if out is not None:
        columns, files = columns_of(table.top), predictor.manifest.files
        request = {
            "artifact": "-".join(files[name]["blake2b"] for name in GRAPH),
            "columns": table.top,
            "sorted": None if sort_into is None else [str(sort_into), link],
        }
        target = Target(out, request, lambda folder, sizes: kind(folder, columns, sizes))
    rows_of = table.rows
    if sort_into is not None:
        rows_of = partial(_sorted_rows, table, Sorter(sort_into, predictor.classes, images.folders, link=link))
    resize = predictor.manifest.resize
    return write_rows(predictor.graph, resize, images, rows_of, stage=STAGE, target=target, watcher=watcher, show=show)


def _sorted_rows(table: Table, sorter: Sorter, answers: Answered) -> list[tuple[Any, ...]]:
    """Returns the rows of images, and sorts their files. A file that cannot be copied any more gets the reason as its error."""
    rows = table.rows(answers)
    for number, (image, refusal) in enumerate(answers.images):
        if refusal is None:
            try:
                sorter.add(image, rows[number][1])
            except ImageRefused as error:
                rows[number] = (*rows[number][:-1], printable(str(error)))
    return rows
