"""Holds the served artifacts, and replaces one when its folder gets a new artifact."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crossroads.artifact import GRAPH, MANIFEST, read_metrics
from crossroads.errors import ArtifactError, CrossroadsError, RecipeError
from crossroads.predictor import Predictor
from crossroads.serve.metrics import Metrics
from crossroads.serve.refusals import Refused

REPORT = "report.html"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_log = logging.getLogger("crossroads.serve")


class Loaded(NamedTuple):
    """One loaded artifact.

    Attributes:
        predictor: Its classifier.
        facts: What `GET /v1/models` tells of it.
        stamp: Sizes and times of the files that it was loaded from.
    """

    predictor: Predictor
    facts: Mapping[str, Any]
    stamp: tuple[object, ...]


class Model:
    """One served artifact. Its folder may get a new artifact at any time.

    Args:
        name: Name of the model in requests.
        folder: A finished artifact.

    Raises:
        ArtifactError: The folder holds no artifact, or a damaged one.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder.absolute()
        self._last_stamp: tuple[object, ...] | None = None
        self._refused_stamp: tuple[object, ...] | None = None
        self._checking = threading.Lock()
        self.loaded = _loaded(self.folder)

    def facts(self) -> dict[str, Any]:
        """Returns what clients may know of the model."""
        return {
            "name": self.name,
            **self.loaded.facts,
            "report": self.report is not None,
            "new_artifact_refused": self._refused_stamp is not None,
        }

    @property
    def report(self) -> Path | None:
        """The report of the artifact; None if there is none."""
        path = self.folder / REPORT
        return path if path.is_file() else None

    def check(self, metrics: Metrics) -> None:
        """Loads a new artifact if there is one, and then replaces the old one. If the new one is damaged, the old one stays.

        A new artifact is loaded once its files are the same in two calls, since they may be copied one by one.
        """
        with self._checking:
            stamp = _stamp(self.folder)
            if stamp == self.loaded.stamp:
                self._refused_stamp = None  # the old files are back
                return
            if stamp == self._refused_stamp:
                return
            if stamp != self._last_stamp:
                self._last_stamp = stamp
                return
            try:
                fresh = _loaded(self.folder)
            except CrossroadsError as error:
                self._refused_stamp = stamp
                metrics.reload(self.name, "refused")
                _log.warning("%s: the new artifact is refused, and the old one stays: %s", self.name, error)
                return
            self._refused_stamp = None
            if fresh.predictor.manifest.facts == self.loaded.predictor.manifest.facts:
                self.loaded = Loaded(self.loaded.predictor, self.loaded.facts, fresh.stamp)
                return
            self.loaded = fresh
            metrics.reload(self.name, "loaded")
            _log.info("%s: a new artifact is served", self.name)


class Models:
    """The models of a server, by name. The first is the default."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._models = {model.name: model for model in models}

    def __iter__(self) -> Any:
        return iter(self._models.values())

    @property
    def default(self) -> Model:
        """The model of a request that names none."""
        return next(iter(self._models.values()))

    def named(self, name: str | None) -> Model:
        """Returns a model; the default for None. Raises `Refused` with status 404 for an unknown name."""
        if name is None:
            return self.default
        if name not in self._models:
            raise Refused(404, "unknown-model", "there is no model of this name", f"use one of {', '.join(self._models)}")
        return self._models[name]


def parse_models(arguments: Iterable[str]) -> dict[str, Path]:
    """Returns the folder of each model by its name, from arguments ``RUN`` or ``NAME=RUN``.

    Raises:
        RecipeError: A name is invalid, or two models have the same name.
    """
    folders: dict[str, Path] = {}
    for argument in arguments:
        name, separator, place = argument.partition("=")
        if not separator or Path(argument).exists():
            folder = Path(argument)
            name = folder.absolute().name
            name = name if _NAME.fullmatch(name) else "model"
        else:
            folder = Path(place)
        if not _NAME.fullmatch(name):
            raise RecipeError(
                "the name of a model must consist of at most 64 letters, digits, dots, hyphens and underscores",
                code="invalid-name",
                field="runs",
                received=repr(name),
            )
        if name in folders:
            raise RecipeError(
                "the names of models must differ",
                code="repeated-name",
                field="runs",
                received=name,
                hint=f"write OTHER={place or argument}",
            )
        folders[name] = folder
    return folders


def _loaded(folder: Path) -> Loaded:
    """Loads an artifact and computes one image, which compiles the graph.

    Raises:
        ArtifactError: The folder holds no artifact, or a damaged one, or it changes while it is read.
    """
    stamp = _stamp(folder)
    predictor = Predictor.load(folder)
    blank = np.zeros((1, predictor.size, predictor.size, 3), np.uint8)
    for compute in (predictor.graph, predictor.graph.beside_others):
        if not np.isfinite(compute(blank)).all():
            raise ArtifactError(f"{folder} must compute finite probabilities", code="not-finite", hint="train the artifact again")
    facts = _facts(predictor)
    if _stamp(folder) != stamp:
        raise ArtifactError(f"{folder} must not change while it is read", code="changed-file", hint="try again")
    return Loaded(predictor, facts, stamp)


def _facts(predictor: Predictor) -> dict[str, Any]:
    manifest = predictor.manifest
    resize = manifest.resize
    headline = read_metrics(manifest.folder).get("headline")
    return {
        "classes": list(predictor.classes),
        "image_size": predictor.size,
        "resize": {"mode": resize.mode, "filter": resize.filter, "crop_fraction": resize.crop_fraction},
        "backbone": manifest.backbone,
        "strategy": manifest.strategy,
        "artifact": str(manifest.files[GRAPH[1]]["blake2b"])[:16],
        "accuracy": headline if isinstance(headline, dict) else None,
    }


def _stamp(folder: Path) -> tuple[object, ...]:
    """Returns what changes when a file of the artifact is written again."""
    return tuple(_file_stamp(folder / name) for name in (MANIFEST, *GRAPH))


def _file_stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
