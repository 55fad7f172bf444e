"""The folder of one run: new, unfinished or finished, held by one process at a time.

An unfinished run has ``checkpoint/run.json`` (what was asked), ``clock.json`` (how long it has worked) and, after the first epoch
of a phase, a checkpoint of that phase. A run that races several candidates has the race's plan and state there too, and a folder
of checkpoints for each trial. A finished run is an artifact and has no ``checkpoint`` folder. Nothing that is not named here is
ever removed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crossroads import artifact
from crossroads.errors import ArtifactError, RecipeError, TrainingError
from crossroads.recipe import Recipe
from crossroads.training.checkpoint import Checkpoints, write_atomically

_PHASES, _CANDIDATE_RUNS = "phase-*", "candidate-*"
_IN_PHASE = ("progress.json", ".progress.json.partial", "epoch-*.npz", ".epoch-*.npz.partial")
_OURS = (
    *(name for stem in ("run", "plan", "race", "clock") for name in (f"{stem}.json", f".{stem}.json.partial")),
    "*.pixels",
    *(f"{_PHASES}/{name}" for name in _IN_PHASE),
    *(f"{_CANDIDATE_RUNS}/{_PHASES}/{name}" for name in _IN_PHASE),
)
_FOLDERS = (f"{_CANDIDATE_RUNS}/{_PHASES}", _CANDIDATE_RUNS, _PHASES)


class CheckpointFolder:
    """Where one of several trainings in a run keeps its checkpoints."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def checkpoints(self, phase: int) -> Checkpoints:
        """The checkpoints of one phase, counted from 0."""
        return Checkpoints(self._folder / f"phase-{phase}")

    @property
    def spent(self) -> float:
        """Seconds of the epochs that are done. Raises `TrainingError` where a checkpoint is damaged."""
        found = (Checkpoints(folder).progress() for folder in sorted(self._folder.glob(_PHASES)))
        return sum(record.seconds for progress in found if progress is not None for record in progress.history)


class RunFolder:
    """One ``--out`` folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._state = self.path / "checkpoint"
        self._asked, self._clock = self._state / "run.json", self._state / "clock.json"
        self.spent = 0.0
        """Seconds that earlier processes worked on the run that is taken up, up to the last file they left."""

    def checkpoints(self, phase: int) -> Checkpoints:
        """The checkpoints of one phase of this run, counted from 0."""
        return Checkpoints(self._state / f"phase-{phase}")

    def candidate_run(self, name: str) -> CheckpointFolder:
        """The place of one training where a run tries several; `name` begins with ``candidate-``."""
        return CheckpointFolder(self._state / name)

    @property
    def plan(self) -> Path:
        """Where a race keeps its plan."""
        return self._state / "plan.json"

    @property
    def scratch(self) -> Path:
        """A folder for what only this run needs; it goes when the run is finished."""
        return self._state

    @property
    def finished(self) -> bool:
        """Whether the folder holds a finished artifact."""
        return artifact.is_finished(self.path)

    @property
    def unfinished(self) -> bool:
        """Whether the folder holds a run that was begun."""
        return self._asked.is_file()

    @contextmanager
    def claimed(self, recipe: Recipe, *, given: Collection[str], resume: bool) -> Iterator[Recipe]:
        """Claim the folder for `recipe`, or take up the unfinished run in it; no other process gets in meanwhile.

        At the end what only an unfinished run needs is removed; after an error it stays, if an epoch was finished.

        Args:
            recipe: What is asked for.
            given: The fields of `recipe` that the user named; when a run is taken up they must be those it was started with.
            resume: Whether an unfinished run may be taken up.

        Yields:
            The recipe to go by: the one given, or the stored one where the run is taken up.

        Raises:
            ArtifactError: The folder is finished, or holds something else.
            TrainingError: It holds an unfinished run and `resume` is not asked for, another process is at work in it, or it cannot
                be written.
            RecipeError: It holds an unfinished run of another recipe.
        """
        made = self._made()
        try:
            with _locked(self.path):
                chosen = self._begun(recipe, given, resume)
                try:
                    yield chosen
                except BaseException:
                    if not self._has_progress():
                        self.clear()
                    raise
                self.clear()
        except BaseException:
            for folder in made:
                with suppress(OSError):  # it holds something now
                    folder.rmdir()
            raise

    def clear(self) -> None:
        """Remove what only an unfinished run needs, by name. What cannot be removed stays: the run is no worse for it."""
        for pattern in _OURS:
            for path in self._state.glob(pattern):
                with suppress(OSError):
                    path.unlink()
        for folder in (*(found for pattern in _FOLDERS for found in self._state.glob(pattern)), self._state):
            with suppress(OSError):
                folder.rmdir()

    def require_same(self, recipe: Recipe, given: Collection[str], stored: Recipe) -> None:
        """Raises `RecipeError` where a field that the user named differs from `stored`."""
        for name in sorted(given):
            asked, before = getattr(recipe, name), getattr(stored, name)
            if name in ("data", "test"):
                # That the images of `data` are the same is checked by their digests, wherever they lie now.
                same = (
                    name == "data" or asked is None or (before is not None and os.path.realpath(asked) == os.path.realpath(before))
                )
            else:
                same = asked == before
            if not same:
                started = "the default" if before is None else repr(before)
                raise RecipeError(
                    f"a run is resumed with the {name} it was started with, {started}",
                    received=repr(asked),
                    hint="leave the option out, or choose another --out",
                )

    def _made(self) -> list[Path]:
        """Make the folder; those that were made, the innermost first."""
        missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        return missing

    def _begun(self, recipe: Recipe, given: Collection[str], resume: bool) -> Recipe:
        artifact.refuse_finished(self.path)
        if self.unfinished:
            if not resume:
                raise TrainingError(
                    "--out must not hold an unfinished run",
                    received=str(self.path),
                    hint="add --resume to go on with it, or choose another folder",
                )
            stored = self._stored()
            self.require_same(recipe, given, stored)
            try:
                self._keep_time()
            except OSError as error:
                raise self._unwritable(error) from error
            return stored.with_options(data=recipe.data, test=recipe.test)
        if any(not self._is_ours(path) for path in self.path.iterdir()):
            raise ArtifactError("--out must be a new or an empty folder", received=str(self.path), hint="choose another folder")
        try:
            self._state.mkdir(exist_ok=True)
            write_atomically(self._asked, json.dumps(recipe.to_mapping(), indent=1).encode())
            self._keep_time()
        except OSError as error:
            self.clear()
            raise self._unwritable(error) from error
        return recipe

    def _keep_time(self) -> None:
        """Count what the process before did, and start the clock again."""
        with suppress(OSError, ValueError, KeyError, TypeError):  # a clock that is damaged starts anew
            before = json.loads(self._clock.read_text())
            files = (path for path in self._state.rglob("*") if path.is_file() and path != self._clock)
            self.spent = before["spent"] + max(0.0, max(path.stat().st_mtime for path in files) - before["began"])
        write_atomically(self._clock, json.dumps({"spent": self.spent, "began": time.time()}).encode())

    def _is_ours(self, path: Path) -> bool:
        """Whether only a run that was killed at once can have left this in an otherwise empty folder."""
        if path == self._state:
            entries = (entry for entry in path.rglob("*") if not (entry.is_dir() and any(map(entry.match, _FOLDERS))))
            return path.is_dir() and all(any(entry.match(pattern) for pattern in _OURS) for entry in entries)
        return path.name == ".artifact-partial"

    def _stored(self) -> Recipe:
        try:
            return Recipe.from_mapping(json.loads(self._asked.read_text()), str(self._asked))
        except (ValueError, AttributeError) as error:
            raise TrainingError(
                "the unfinished run is damaged", received=str(self._asked), hint="start again in another folder"
            ) from error

    def _has_progress(self) -> bool:
        with suppress(TrainingError, ValueError, KeyError, TypeError):
            if self.plan.exists() and json.loads(self.plan.read_text())["candidates"]:
                return True  # the advice took time
            return any(Checkpoints(folder).progress() is not None for folder in self._state.glob(_PHASES))
        return True  # damaged, and not ours to throw away

    def _unwritable(self, error: OSError) -> TrainingError:
        return TrainingError(
            "--out must be writable", received=f"{self.path} ({error.strerror})", hint="make room there or choose another folder"
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold an advisory lock on the folder itself, so that no lock file is left over. Windows has none."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TrainingError(
                "one process at a time may work in a folder", received=str(folder), hint="wait for it to end"
            ) from error
        if not folder.exists() or not os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise TrainingError("--out was removed by another process", received=str(folder), hint="run the command again")
        yield
    finally:
        os.close(descriptor)
