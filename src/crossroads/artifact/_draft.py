"""Writes an artifact: builds it in a partial folder, checks it, flushes it to the disk, and moves it into place."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads._runtime.keras_setup import keras_backend
from crossroads.artifact import _export
from crossroads.artifact._export import Parity
from crossroads.artifact._files import DOCUMENTS, FILES, HELD_OUT, MANIFEST, METRICS, NEIGHBOURS, OPTIONAL, SEEN
from crossroads.artifact._held_out import HeldOut, write_held_out
from crossroads.artifact._manifest import (
    FORMAT,
    Manifest,
    file_record,
    json_text,
    manifest_text,
    open_verified,
)
from crossroads.artifact._neighbours import Neighbours, write_neighbours
from crossroads.artifact._replacement import commit, complete
from crossroads.data.images import Resize
from crossroads.errors import ArtifactError, option
from crossroads.networks.body import GraphModel
from crossroads.networks.export import weights_digest
from crossroads.recipe import Recipe

PARTIAL = ".artifact-partial"
_OTHER_FILES = 2**20
"""Number of bytes that all files except the weights need."""


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """The content of an artifact.

    Attributes:
        model: A Keras model, or a frozen part with a head. It maps uint8 images (n, size, size, 3) to float32 probabilities
            (n, k), and includes the preprocessing.
        classes: The k class names, in the order of the probabilities.
        resize: How images are resized to the square input of the model.
        recipe: The recipe that repeats the run and names the backbone.
        history: Text of ``history.csv``.
        parity: Images on which model and graph are compared.
        seen: Digests of the training and validation images, uint8 (n, 16), in any order.
        data: ``origin``, ``n``, ``digest`` of the data, and ``splits`` with ``n`` and ``digest`` of each.
        pretrained: The weights that the run started from, with their digest; of a graph also its licence and source. None for
            random weights.
    """

    model: Any
    classes: tuple[str, ...]
    resize: Resize
    recipe: Recipe
    history: str
    parity: Parity
    seen: NDArray[np.uint8]
    data: Mapping[str, Any]
    pretrained: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """An artifact that can be scored but is not finished. `Predictor.load` accepts its `path`."""

    path: Path
    _facts: Mapping[str, Any] = field(repr=False)

    def finish(self, metrics: Mapping[str, Any], held_out: HeldOut | None = None, neighbours: Neighbours | None = None) -> Manifest:
        """Writes ``metrics.json``, ``held_out.npz`` and ``neighbours.npz``, and moves everything into place.

        Args:
            metrics: Plain JSON values, such as ``{"test": evaluation.to_json()}``.
            held_out: The predictions that the metrics are computed from; None for an artifact without ``held_out.npz``.
            neighbours: Training images with their features; None for an artifact without ``neighbours.npz``.

        Raises:
            ArtifactError: A value is not JSON, the disk is full, or the folder cannot be written. No artifact is left behind.
        """
        run = self.path.parent
        with _explained(run):
            (self.path / METRICS).write_text(json_text(metrics), encoding="utf-8")
            if held_out is not None:
                write_held_out(self.path / HELD_OUT, held_out)
            if neighbours is not None:
                write_neighbours(self.path / NEIGHBOURS, neighbours)
            _write_manifest(self.path, self._facts)
            names = _present(self.path)
            for name in (*names, MANIFEST):
                _sync(self.path / name)
            _sync(self.path)
            if is_finished(run):
                commit(self.path, run)
            else:
                _move(self.path, run, names)
        return open_verified(run)


@contextmanager
def draft(folder: str | Path, contents: Contents, *, replaces: bool = False) -> Iterator[Draft]:
    """Builds an artifact for `folder`, to be scored and finished inside the ``with`` block. An unfinished draft is removed.

    A finished artifact in the folder is refused, or, with `replaces`, stays valid until it is replaced as a whole.

        with draft("run", contents) as unfinished:
            scores = evaluate(...)  # through Predictor.load(unfinished.path)
            unfinished.finish({"test": scores.to_json()})

    Raises:
        ArtifactError: The folder holds a finished artifact, the model contains code or has another signature, the graph disagrees
            with the model, or the disk is full. The folder is then unchanged.
    """
    run = Path(folder)
    if not replaces:
        refuse_finished(run)
    if contents.recipe.backbone is None:
        raise ArtifactError(
            "the recipe of an artifact must name the backbone",
            code="unresolved-recipe",
            received="a recipe that is not resolved",
            hint="resolve the recipe with strategies.resolve_recipe",
        )
    if not isinstance(contents.model, GraphModel):
        _export.check_model(contents.model, contents.resize.size, len(contents.classes))
    made = not run.exists()
    partial = run / PARTIAL
    try:
        with _explained(run):
            shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
            partial.mkdir(parents=True)
            _require_room(run, contents.model)
            facts = _build(partial, contents)
        yield Draft(partial, facts)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if made and run.is_dir() and not any(run.iterdir()):
            run.rmdir()


def write(folder: str | Path, contents: Contents, metrics: Mapping[str, Any]) -> Manifest:
    """Drafts and finishes an artifact whose metrics are already known. Raises the same errors as `draft` and `Draft.finish`."""
    with draft(folder, contents) as unfinished:
        return unfinished.finish(metrics)


def amend(folder: str | Path, metrics: Mapping[str, Any]) -> Manifest:
    """Replaces the metrics of a finished artifact. Raises `ArtifactError` as `Draft.finish` does."""
    run = Path(folder)
    manifest, partial = open_verified(run, only=()), run / PARTIAL
    with _explained(run):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            (partial / METRICS).write_text(json_text(metrics), encoding="utf-8")
            files = {**manifest.files, METRICS: file_record(partial / METRICS)}
            (partial / MANIFEST).write_text(manifest_text({**manifest.facts, "files": files}), encoding="utf-8")
            for name in (METRICS, MANIFEST):
                _sync(partial / name)
            _sync(partial)
            commit(partial, run)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return open_verified(run)


def copy(folder: str | Path, to: str | Path) -> Manifest:
    """Copies a finished artifact to a new or empty folder, and verifies it before and after.

    Raises:
        ArtifactError: `folder` is not an artifact or was changed, `to` is not empty, or the disk is full. `to` is then unchanged.
    """
    source, run = Path(folder), Path(to)
    names = open_verified(source).names
    refuse_finished(run)
    made = not run.exists()
    partial = run / PARTIAL
    with _explained(run):
        shutil.rmtree(partial, ignore_errors=True)  # left by a copy that was killed
        if not made and any(run.iterdir()):
            raise ArtifactError(
                "a copy needs a new or an empty folder", code="folder-not-empty", received=str(run), hint="choose another folder"
            )
        try:
            partial.mkdir(parents=True)
            for name in (*names, MANIFEST):
                shutil.copyfile(source / name, partial / name)
                _sync(partial / name)
            _sync(partial)
            open_verified(partial)
            _move(partial, run, names)
            for name in filter(lambda name: (source / name).is_file(), DOCUMENTS):
                shutil.copyfile(source / name, run / name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            if made and run.is_dir() and not any(run.iterdir()):
                run.rmdir()
    return open_verified(run)


def refuse_finished(folder: str | Path) -> None:
    """Raises `ArtifactError` if the folder holds a finished artifact."""
    if is_finished(folder):
        raise ArtifactError(
            "a finished artifact is never overwritten",
            code="artifact-exists",
            field="out",
            received=str(folder),
            hint="choose another folder or remove this one first",
        )


def is_finished(folder: str | Path) -> bool:
    """Returns whether the folder holds a finished artifact."""
    complete(Path(folder))
    return (Path(folder) / MANIFEST).exists()


def _build(partial: Path, contents: Contents) -> dict[str, Any]:
    """Writes all files but the metrics. Returns the content of ``crossroads.json`` without the digests of the files."""
    _export.save(contents.model, partial)
    parity = _export.check_parity(contents.model, partial / "model.xml", contents.parity)
    (partial / "history.csv").write_text(contents.history, encoding="utf-8")
    (partial / "recipe.toml").write_text(_toml_text(contents.recipe), encoding="utf-8")
    np.save(
        partial / SEEN, np.unique(contents.seen, axis=0), allow_pickle=False
    )  # sorted, so that the order of the data stays private
    resize = contents.resize
    facts = {
        "format": FORMAT,
        "crossroads": _version("crossroads"),
        "classes": list(contents.classes),
        "preprocessing": {
            "size": resize.size,
            "mode": resize.mode,
            "filter": resize.filter,
            "crop_fraction": resize.crop_fraction,
            "input": f"uint8 (n, {resize.size}, {resize.size}, 3) RGB",
        },
        "backbone": contents.recipe.backbone,
        "strategy": contents.recipe.strategy,
        "recipe": contents.recipe.to_mapping(),
        "seeds": dict.fromkeys(("split", "weights", "order", "augmentation"), contents.recipe.seed),
        "versions": _versions(isinstance(contents.model, GraphModel)),
        "data": dict(contents.data),
        "parity": parity,
        "pretrained": None if contents.pretrained is None else dict(contents.pretrained),
        "weights": contents.model.digest if isinstance(contents.model, GraphModel) else weights_digest(contents.model),
    }
    _write_manifest(partial, facts)
    return facts


def _toml_text(recipe: Recipe) -> str:
    # Python represents a byte of a file name that is not UTF-8 as a lone surrogate. TOML cannot hold it, so it becomes text.
    return re.sub("[\ud800-\udfff]", lambda half: f"\\\\u{ord(half[0]):04x}", recipe.to_toml())


def _write_manifest(partial: Path, facts: Mapping[str, Any]) -> None:
    files = {name: file_record(partial / name) for name in _present(partial)}
    (partial / MANIFEST).write_text(manifest_text({**facts, "files": files}), encoding="utf-8")


def _present(partial: Path) -> tuple[str, ...]:
    return tuple(name for name in (*FILES, *OPTIONAL) if (partial / name).exists())


def _move(partial: Path, run: Path, files: tuple[str, ...]) -> None:
    """Moves the files into `run`, ``crossroads.json`` last. After an error, removes those that replaced nothing."""
    moved = []
    try:
        for name in files:
            fresh = not (run / name).exists()
            os.replace(partial / name, run / name)  # noqa: PTH105 - one rename, atomic on every system
            if fresh:
                moved.append(name)
        _sync(run)  # the files reach the disk before the manifest that lists them
        os.replace(partial / MANIFEST, run / MANIFEST)  # noqa: PTH105
    except BaseException:
        for name in moved:
            (run / name).unlink(missing_ok=True)
        raise
    _sync(run)


def _sync(path: Path) -> None:
    """Flushes a file, or the names in a folder, to the disk. Windows cannot open folders and orders its metadata itself."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_room(run: Path, model: Any) -> None:
    """Raises `OSError` if the disk has no room for the weights, which go to ``model.keras`` and to ``model.bin``."""
    needed = (model.bytes if isinstance(model, GraphModel) else 2 * 4 * int(model.count_params())) + _OTHER_FILES
    if shutil.disk_usage(run).free < needed:
        raise OSError(errno.ENOSPC, f"about {needed / 1e6:,.1f} MB are needed")


@contextmanager
def _explained(run: Path) -> Iterator[None]:
    """Turns an error of the disk or of a library into an `ArtifactError`.

    Not every library reports a full disk as such (OpenVINO raises RuntimeError), so the free space is checked.
    """
    try:
        yield
    except ArtifactError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        nearest = next(parent for parent in (run, *run.absolute().parents) if parent.exists())
        free = shutil.disk_usage(nearest).free
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error) or free < 2**16:
            needed = f"; {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
            raise ArtifactError(
                f"no space left on the disk for the artifact in {run}",
                code="disk-full",
                received=f"{free / 1e6:,.1f} MB free{needed}",
                hint=f"make room, then run again with {option('resume')}",
            ) from error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "".join(str(error).splitlines()[-1:])
        raise ArtifactError(
            f"the artifact in {run} could not be written",
            code="artifact-not-writable",
            received=f"{type(error).__name__}: {reason[:300]}",
            hint="check the disk space and the permissions of the folder",
        ) from error


def _versions(frozen: bool) -> dict[str, str]:
    """Returns the versions of the packages that computed the model. Keras is not one of them if the backbone is frozen."""
    versions = {"python": platform.python_version()}
    if not frozen:
        versions["keras"] = _version("keras")
        versions["backend"] = keras_backend()
        versions["tensorflow"] = _version("tensorflow") or _version("tensorflow-cpu")
        versions["jax"] = _version("jax")
    versions |= {name: _version(name) for name in ("openvino", "numpy", "pillow")}
    return {name: version for name, version in versions.items() if version}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
