"""Manages the folder of one run, which is new, unfinished or finished and used by one process at a time.

An unfinished run has ``checkpoint/run.json`` (its recipe), ``clock.json`` (how long it has worked) and, after the first epoch of a
phase, a checkpoint of that phase. A race also keeps its plan and state there, and a folder of checkpoints per candidate. A finished
run is an artifact and has no ``checkpoint`` folder. Files with other names are never removed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from crossroads import artifact
from crossroads.errors import ArtifactError, RecipeError, TrainingError, not_writable, option
from crossroads.networks._named import HUB
from crossroads.networks.graphs.hub import same_network
from crossroads.recipe import Recipe
from crossroads.training.checkpoint import Checkpoints, write_atomically

_PHASES, _CANDIDATE_RUNS = "phase-*", "candidate-*"
_IN_PHASE = ("progress.json", ".progress.json.partial", "epoch-*.npz", ".epoch-*.npz.partial")
_OURS = (
    *(name for stem in ("run", "plan", "race", "clock", "tracking") for name in (f"{stem}.json", f".{stem}.json.partial")),
    "*.pixels",
    *(f"{_PHASES}/{name}" for name in _IN_PHASE),
    *(f"{_CANDIDATE_RUNS}/{_PHASES}/{name}" for name in _IN_PHASE),
)
_FOLDERS = (f"{_CANDIDATE_RUNS}/{_PHASES}", _CANDIDATE_RUNS, _PHASES)
_LOCK = ".crossroads.lock"
_EVENTS = "events.out.tfevents.*"


class TrainingFolder:
    """The folder in which one training of a run keeps its checkpoints."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def checkpoints(self, phase: int) -> Checkpoints:
        """Returns the checkpoints of one phase. Phases are counted from 0."""
        return Checkpoints(self._folder / f"phase-{phase}")

    @property
    def spent(self) -> float:
        """Seconds of the finished epochs. Raises `TrainingError` if a checkpoint is damaged."""
        found = (Checkpoints(folder).load() for folder in sorted(self._folder.glob(_PHASES)))
        return sum(record.seconds for progress in found if progress is not None for record in progress.history)


class RunFolder:
    """The output folder of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._state = self.path / "checkpoint"
        self._recipe, self._clock = self._state / "run.json", self._state / "clock.json"
        self.spent = 0.0
        """Seconds that earlier processes worked on a resumed run, up to the last file that they wrote."""

    def checkpoints(self, phase: int) -> Checkpoints:
        """Returns the checkpoints of one phase of this run, counted from 0."""
        return Checkpoints(self._state / f"phase-{phase}")

    def candidate_run(self, name: str) -> TrainingFolder:
        """Returns the folder of one training in a race; `name` begins with ``candidate-``."""
        return TrainingFolder(self._state / name)

    @property
    def plan(self) -> Path:
        """The file that holds the plan of a race."""
        return self._state / "plan.json"

    @property
    def scratch(self) -> Path:
        """A folder for files that only this run needs. It is removed when the run is finished."""
        return self._state

    @property
    def event_files(self) -> Path:
        """The folder for event files of TensorBoard. It stays, unless a run fails before its first epoch is kept."""
        return self.path / "tensorboard"

    @property
    def finished(self) -> bool:
        """Whether the folder holds a finished artifact that no unfinished run is improving."""
        return artifact.is_finished(self.path) and not self.kept

    @property
    def kept(self) -> str:
        """The training whose model an unfinished run has saved so far; "" if there is none."""
        if not self.unfinished or not artifact.is_finished(self.path):
            return ""
        metrics = artifact.read_metrics(self.path)
        return str(metrics["candidate"]) if metrics.get("interim") else ""

    @property
    def unfinished(self) -> bool:
        """Whether the folder holds an unfinished run."""
        return self._recipe.is_file()

    @contextmanager
    def claim(self, recipe: Recipe, *, given: Collection[str], resume: bool) -> Iterator[Recipe]:
        """Claims the folder for `recipe`, or resumes the unfinished run in it. No other process can use the folder meanwhile.

        At the end the files that only an unfinished run needs are removed. After an error they stay if an epoch was finished.

        Args:
            recipe: The requested recipe.
            given: The fields of `recipe` that the user named. A resumed run must have been started with the same values.
            resume: Whether an unfinished run may be resumed.

        Yields:
            The recipe to use: `recipe`, or the stored one of a resumed run.

        Raises:
            ArtifactError: The folder holds a finished artifact or other files.
            TrainingError: It holds an unfinished run and `resume` is False, another process uses it, or it cannot be written.
            RecipeError: It holds an unfinished run of another recipe.
        """
        created = self._create()
        try:
            with self._locked():
                stored = self._start(recipe, given, resume)
                try:
                    yield stored
                except BaseException:
                    if not self._has_progress():
                        self.remove_working_files()
                        self._remove_event_files()
                    raise
                self.remove_working_files()
        except BaseException:
            for folder in created:
                with suppress(OSError):  # the folder is not empty
                    folder.rmdir()
            raise

    def remove_working_files(self) -> None:
        """Removes the files that only an unfinished run needs. A file that cannot be removed is harmless and stays."""
        for pattern in _OURS:
            for path in self._state.glob(pattern):
                with suppress(OSError):
                    path.unlink()
        for folder in (*(match for pattern in _FOLDERS for match in self._state.glob(pattern)), self._state):
            with suppress(OSError):
                folder.rmdir()

    def _remove_event_files(self) -> None:
        """Removes the event files of a run that left nothing else. They would keep the folder from being used again."""
        inner = (path for path in self.event_files.glob("*") if path.is_dir())
        for folder in (*inner, self.event_files):
            with suppress(OSError):
                for path in folder.glob(_EVENTS):
                    path.unlink()
                folder.rmdir()

    def require_same(self, recipe: Recipe, given: Collection[str], stored: Recipe) -> None:
        """Raises `RecipeError` if a field that the user named differs from `stored`."""
        for name in sorted(given):
            requested, before = getattr(recipe, name), getattr(stored, name)
            if not _same_value(name, requested, before):
                started = "the default" if before is None else repr(before)
                raise RecipeError(
                    f"a run must be resumed with the {option(name)} that it was started with, {started}",
                    code="resumed-with-other-option",
                    field=name,
                    received=repr(requested),
                    hint=f"leave the option out, or choose another {option('out')}",
                )

    def _create(self) -> list[Path]:
        """Creates the folder and its parents. Returns those that did not exist, the innermost first."""
        missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._not_writable(error) from error
        return missing

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Locks the folder against other processes; leaves no lock file behind."""
        lock = FileLock(self.path / _LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise TrainingError(
                "only one process at a time may use the folder of a run",
                code="run-in-use",
                field="out",
                received=str(self.path),
                hint="wait for the other one to end",
            ) from error
        except OSError as error:
            raise self._not_writable(error) from error
        try:
            yield
        finally:
            if os.name != "nt":  # Windows removes no open file; filelock removes it there when it is released
                with suppress(OSError):  # a leftover lock file is harmless
                    (self.path / _LOCK).unlink()
            lock.release()

    def _start(self, recipe: Recipe, given: Collection[str], resume: bool) -> Recipe:
        """Starts a new run, or resumes the one in the folder. Returns the recipe to use."""
        if self.finished:
            artifact.refuse_finished(self.path)
        if self.unfinished:
            return self._resumed(recipe, given, resume)
        if any(not self._is_ours(path) for path in self.path.iterdir()):
            raise ArtifactError(
                f"{option('out')} must be a new or an empty folder",
                code="out-not-empty",
                field="out",
                received=str(self.path),
                hint="choose another folder",
            )
        try:
            self._state.mkdir(exist_ok=True)
            write_atomically(self._recipe, json.dumps(recipe.to_mapping(), indent=1).encode())
            self._restart_clock()
        except OSError as error:
            self.remove_working_files()
            raise self._not_writable(error) from error
        return recipe

    def _resumed(self, recipe: Recipe, given: Collection[str], resume: bool) -> Recipe:
        """Returns the recipe of the unfinished run, with the paths of the requested one."""
        if not resume:
            raise TrainingError(
                f"{option('out')} holds an unfinished run",
                code="unfinished-run",
                field="out",
                received=str(self.path),
                hint=f"use {option('resume')} to continue it, or choose another folder",
            )
        stored = self._stored()
        self.require_same(recipe, given, stored)
        try:
            self._restart_clock()
        except OSError as error:
            raise self._not_writable(error) from error
        return stored.with_options(data=recipe.data, test=recipe.test)

    def _restart_clock(self) -> None:
        """Adds the time of the previous process to `spent`, and starts the clock again."""
        with suppress(OSError, ValueError, KeyError, TypeError):  # a damaged clock starts at 0
            before = json.loads(self._clock.read_text())
            files = (path for path in self._state.rglob("*") if path.is_file() and path != self._clock)
            self.spent = before["spent"] + max(0.0, max(path.stat().st_mtime for path in files) - before["began"])
        write_atomically(self._clock, json.dumps({"spent": self.spent, "began": time.time()}).encode())

    def _is_ours(self, path: Path) -> bool:
        """Returns whether `path`, in a folder without ``run.json``, is a leftover of a run that was killed at its start."""
        if path == self._state:
            entries = (entry for entry in path.rglob("*") if not (entry.is_dir() and any(map(entry.match, _FOLDERS))))
            return path.is_dir() and all(any(entry.match(pattern) for pattern in _OURS) for entry in entries)
        return path.name in (artifact.PARTIAL, _LOCK)

    def _stored(self) -> Recipe:
        try:
            return Recipe.from_mapping(json.loads(self._recipe.read_text()), str(self._recipe))
        except (ValueError, AttributeError) as error:
            raise TrainingError(
                "the unfinished run is damaged",
                code="damaged-run",
                received=str(self._recipe),
                hint="start again in another folder",
            ) from error

    def _has_progress(self) -> bool:
        with suppress(TrainingError, ValueError, KeyError, TypeError):
            if self.plan.exists() and json.loads(self.plan.read_text())["plan"]["candidates"]:
                return True  # the advice took time
            folders = (folder for pattern in (_PHASES, f"{_CANDIDATE_RUNS}/{_PHASES}") for folder in self._state.glob(pattern))
            return any(Checkpoints(folder).load() is not None for folder in folders)
        return True  # damaged: the user decides whether to remove it

    def _not_writable(self, error: OSError) -> TrainingError:
        return not_writable(self.path, error, hint="free some space, or choose another folder")


def _same_value(field: str, requested: Any, before: Any) -> bool:
    """Returns whether a resumed run may have `requested` for a field that was `before`."""
    if field == "data":
        return True  # the digests of the images are compared, wherever the files are now
    if field == "backbone" and str(requested).startswith(HUB) and str(before).startswith(HUB):
        return same_network(requested, before)
    if field == "test":
        return requested is None or (before is not None and os.path.realpath(requested) == os.path.realpath(before))
    return bool(requested == before)
