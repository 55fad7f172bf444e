"""Reads what a report is about: the artifact of a run, and the scores of the images that it is judged by."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossroads import artifact
from crossroads.artifact import Manifest, Predictions
from crossroads.data.findings import Finding
from crossroads.evaluation import Evaluation
from crossroads.report.thumbnails import NO_THUMBNAILS, Thumbnails, read_thumbnails

SOURCES = {
    "test": "test images",
    "cross-validation": "cross-validated images",
    "validation": "validation images",
    "data": "images",
}
"""How images are called, by where the scores come from."""


class Epoch(NamedTuple):
    """One epoch of ``history.csv``."""

    phase: str
    epoch: int
    loss: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What a report is about.

    Attributes:
        manifest: The manifest of the artifact.
        metrics: The content of ``metrics.json``.
        history: The epochs of the training.
        source: Where the scores come from: ``test``, ``cross-validation``, ``validation``, or ``data`` for other images.
        scores: The scores, as `Evaluation.to_json` returns them.
        predictions: The prediction for each image; None in artifacts of earlier versions.
        thumbnails: Small pictures of some of the images.
        origin: The name of the images, if they are not those of the run; otherwise "".
        findings: The findings of an audit of the images; None if they were not audited.
    """

    manifest: Manifest
    metrics: Mapping[str, Any]
    history: tuple[Epoch, ...]
    source: str
    scores: Mapping[str, Any]
    predictions: Predictions | None
    thumbnails: Thumbnails = NO_THUMBNAILS
    origin: str = ""
    findings: tuple[Finding, ...] | None = None

    @property
    def name(self) -> str:
        """The name of the run: that of its folder."""
        return self.manifest.folder.absolute().name or "run"

    @property
    def images(self) -> str:
        """What the scored images are called, such as ``test images``."""
        return SOURCES[self.source]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.manifest.classes

    @property
    def confusion(self) -> NDArray[np.int64]:
        """The confusion matrix, int64 (k, k); row i counts the images of class i by their predicted class."""
        return np.asarray(self.scores["confusion_matrix"], np.int64)


def subject_of(folder: str | PathLike[str]) -> Subject:
    """Reads the subject of the report of a run. Its scores are those of the headline.

    Raises:
        ArtifactError: The folder is not an artifact, or a file was changed.
    """
    manifest, metrics, source = _read(folder)
    split = "test" if source == "test" else "validation"
    held_out = artifact.read_held_out(folder)
    predictions = None if held_out is None else getattr(held_out, split)
    return Subject(manifest, metrics, _history(manifest), source, metrics[split], predictions, read_thumbnails(folder))


def subject_on(
    folder: str | PathLike[str],
    evaluation: Evaluation,
    predictions: Predictions,
    origin: str,
    thumbnails: Thumbnails = NO_THUMBNAILS,
) -> Subject:
    """Returns the subject of the report on other images. Raises the same errors as `subject_of`."""
    manifest, metrics, _ = _read(folder)
    return Subject(manifest, metrics, _history(manifest), "data", evaluation.to_json(), predictions, thumbnails, origin)


def _read(folder: str | PathLike[str]) -> tuple[Manifest, dict[str, Any], str]:
    """Returns the manifest, the metrics and the source of the headline."""
    manifest = artifact.open_verified(folder, only=("history.csv", "recipe.toml", "metrics.json"))
    metrics = artifact.read_metrics(folder)
    usual = "validation" if metrics.get("test") is None else "test"
    return manifest, metrics, str(metrics.get("headline", {}).get("source", usual))


def _history(manifest: Manifest) -> tuple[Epoch, ...]:
    """Returns the epochs of ``history.csv``; none if it has another form."""
    text = (manifest.folder / "history.csv").read_text(encoding="utf-8")
    try:
        return tuple(
            Epoch(row["phase"], int(row["epoch"]), *(float(row[name]) for name in Epoch._fields[2:]))
            for row in csv.DictReader(io.StringIO(text))
        )
    except (KeyError, TypeError, ValueError):
        return ()
