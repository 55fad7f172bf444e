"""Writes the documents of an artifact for people: the report, the model card and the small pictures.

A run is finished before its documents are written. If writing them fails, a warning says why, and the run is not affected.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossroads import artifact
from crossroads.artifact import CARD, REPORT, THUMBNAILS
from crossroads.data.audit import audit
from crossroads.data.dataset import Dataset
from crossroads.errors import ArtifactError, option
from crossroads.evaluation import Evaluation
from crossroads.explain import Explainer, overlay
from crossroads.predictor import Scored
from crossroads.progress import Note, Watcher, stage
from crossroads.report.facts import example_rows
from crossroads.report.html.page import GENERATOR, report_page
from crossroads.report.model_card import model_card
from crossroads.report.subject import subject_of, subject_on
from crossroads.report.thumbnails import HeatMaps, Pixels, make_thumbnails, write_thumbnails

LOGGER = logging.getLogger(__name__)

SECONDS = 5.0
"""Time limit for the pictures of the report of a run without a budget. Those that are not made by then are left out."""

MOST_SECONDS, LEAST_SECONDS = 2.0, 0.5
"""The same with a budget, and if the budget is spent. There are no heat maps then, because they need the graph compiled again."""

REPORT_SECONDS = 30.0
"""The same if the user asked for a report of other images."""

AUDITED = 10_000
"""Most images of such a report that are audited too. The audit decodes every image once more."""


def document_run(
    folder: str | PathLike[str], images: Sequence[Dataset], watcher: Watcher, *, thumbnails: bool, seconds: float
) -> None:
    """Writes the documents of a finished run. If that fails, sends a warning.

    Args:
        folder: The artifact.
        images: The data sets that hold the images of its predictions.
        watcher: Receives the warning.
        thumbnails: Whether the report may contain pictures.
        seconds: The time that is left of the budget; infinite without a budget.
    """
    try:
        with stage(watcher.progress, "writing the report"):
            if thumbnails:
                limit = SECONDS if seconds == float("inf") else max(LEAST_SECONDS, min(MOST_SECONDS, seconds))
                _write_pictures(Path(folder), images, limit)
            write_documents(folder)
    except KeyboardInterrupt:
        watcher.warning(Note("the report was not written, because Ctrl-C ended it; `crossroads report` makes it", "report-stopped"))
    except Exception as error:  # of any kind: the run is finished and must not be lost
        LOGGER.error("the report was not written", exc_info=error)
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        watcher.warning(
            Note(f"the report was not written: {reason}; `crossroads report` makes it", "report-not-written", reason=reason)
        )


def write_documents(folder: str | PathLike[str]) -> Path:
    """Writes the report and the model card of a run from its artifact alone. Returns the path of the report."""
    subject, path = subject_of(folder), Path(folder)
    write_text(path / CARD, model_card(subject))
    return write_text(path / REPORT, report_page(subject))


def write_report_of(folder: str | PathLike[str], out: str | PathLike[str]) -> Path:
    """Writes the report of a run to another file. Raises `ArtifactError` if a file that is not a report is in the way."""
    return write_text(require_report(out), report_page(subject_of(folder)))


def write_report_on(
    folder: str | PathLike[str], scored: Scored, evaluation: Evaluation, out: str | PathLike[str], *, thumbnails: bool
) -> Path:
    """Writes a report on other images.

    Args:
        folder: The artifact.
        scored: The images and their probabilities.
        evaluation: Their scores.
        out: Path of the file.
        thumbnails: Whether the report may contain pictures.
    """
    path, dataset = require_report(out), scored.dataset
    predictions = artifact.predictions_of(dataset, scored.digests, scored.probabilities)
    findings = audit(dataset).findings if len(dataset) <= AUDITED else None
    subject = replace(subject_on(folder, evaluation, predictions, dataset.origin), findings=findings)
    if thumbnails:
        also = [row for finding in findings or () for row in example_rows(finding, predictions)]
        resize = subject.manifest.resize
        pictures = make_thumbnails(predictions, [dataset], resize, partial(_heat_maps, folder), REPORT_SECONDS, also)
        subject = replace(subject, thumbnails=pictures)
    return write_text(path, report_page(subject))


def require_report(out: str | PathLike[str]) -> Path:
    """Returns the path of a report to write. Raises `ArtifactError` if a file that is not a report is there."""
    path = Path(out)
    if path.exists() and (not path.is_file() or f'content="{GENERATOR}"'.encode() not in path.read_bytes()[:4096]):
        raise ArtifactError(
            f"{option('out')} must be a new file or an earlier report",
            code="not-a-report",
            field="out",
            received=str(path),
            hint="choose another name",
        )
    return path


def write_text(path: Path, text: str) -> Path:
    """Writes a file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", delete=False, encoding="utf-8") as file:
        try:
            file.write(text)
            file.close()
            Path(file.name).chmod(0o666 & ~_umask())
            os.replace(file.name, path)  # noqa: PTH105 - one rename, atomic on every system
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    return path


def _write_pictures(folder: Path, images: Sequence[Dataset], seconds: float) -> None:
    began = time.perf_counter()
    held_out, manifest = artifact.read_held_out(folder), artifact.open_verified(folder, only=())
    source = subject_of(folder).source
    predictions = None if held_out is None else held_out.test if source == "test" else held_out.validation
    if predictions is None:
        return
    heat_maps = partial(_heat_maps, folder) if seconds > LEAST_SECONDS else None
    left = seconds - (time.perf_counter() - began)
    write_thumbnails(folder / THUMBNAILS, make_thumbnails(predictions, images, manifest.resize, heat_maps, left))


def _heat_maps(folder: str | PathLike[str]) -> tuple[str, HeatMaps]:
    """Returns how heat maps are computed, and what draws them."""
    explainer = Explainer(folder)

    def draw(pixels: Pixels, classes: NDArray[np.int32]) -> list[Image.Image]:
        return [overlay(image, heat) for image, heat in zip(pixels, explainer.maps(pixels, classes), strict=True)]

    return explainer.method, draw


def _umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before
