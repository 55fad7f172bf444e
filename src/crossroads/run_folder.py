"""The folder of one run: new, unfinished or finished, held by one process at a time.

An unfinished run has ``checkpoint/run.json`` (what was asked) and, after the first epoch, a checkpoint. A finished run is an
artifact and has no ``checkpoint`` folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from crossroads import artifact
from crossroads.errors import ArtifactError, RecipeError, TrainingError
from crossroads.recipe import Recipe
from crossroads.training.checkpoint import Checkpoints, write_atomically


class RunFolder:
    """One ``--out`` folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._state = self.path / "checkpoint"
        self._asked = self._state / "run.json"

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of this run."""
        return Checkpoints(self._state)

    @property
    def scratch(self) -> Path:
        """A folder for what only this run needs; it goes when the run is finished."""
        return self._state

    @property
    def finished(self) -> bool:
        """Whether the folder holds a finished artifact."""
        return artifact.is_finished(self.path)

    def begin(self, recipe: Recipe, *, resume: bool) -> Recipe:
        """Claim the folder for `recipe`, or take up the unfinished run in it.

        Returns:
            The recipe to go by: the one given, or the stored one where the run is taken up.

        Raises:
            ArtifactError: The folder is finished, or holds something else.
            TrainingError: It holds an unfinished run and `resume` is not asked for, or it cannot be written.
            RecipeError: It holds an unfinished run of another recipe.
        """
        if self._asked.is_file():
            if not resume:
                raise TrainingError(
                    "--out must not hold an unfinished run",
                    received=str(self.path),
                    mend="add --resume to go on with it, or choose another folder",
                )
            return self._take_up(recipe)
        if self.path.exists() and (
            not self.path.is_dir() or any(p.name not in ("checkpoint", ".artifact-partial") for p in self.path.iterdir())
        ):
            raise ArtifactError("--out must be a new or an empty folder", received=str(self.path), mend="choose another folder")
        try:
            self._state.mkdir(parents=True, exist_ok=True)
            write_atomically(self._asked, json.dumps(recipe.to_mapping(), indent=1).encode())
        except OSError as error:
            raise TrainingError(
                "--out must be writable",
                received=f"{self.path} ({error.strerror})",
                mend="make room there or choose another folder",
            ) from error
        return recipe

    def _take_up(self, recipe: Recipe) -> Recipe:
        try:
            stored = Recipe.from_mapping(json.loads(self._asked.read_text()), str(self._asked))
        except ValueError as error:
            raise TrainingError(
                "the unfinished run is damaged", received=str(self._asked), mend="start again in another folder"
            ) from error
        plain = Recipe()
        for name in (field.name for field in fields(Recipe)):
            asked, before = getattr(recipe, name), getattr(stored, name)
            # Paths may be written differently; that the images are the same is checked by their digests.
            if name not in ("data", "test") and asked not in (before, getattr(plain, name)):
                raise RecipeError(f"a run is resumed with the {name} it was started with, {before!r}", received=repr(asked))
        return stored.with_options(data=recipe.data, test=recipe.test)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other process out of this folder meanwhile. Raises `TrainingError` where one is at work in it."""
        self._state.mkdir(parents=True, exist_ok=True)
        with (self._state / "lock").open("w") as lock:
            _lock(lock, self.path)
            yield

    def clear(self) -> None:
        """Drop what only an unfinished run needs."""
        shutil.rmtree(self._state, ignore_errors=True)

    def abandon(self) -> None:
        """Undo `begin` of a run that failed before its first epoch, so that a mended command may use the same folder."""
        if self.checkpoints.progress() is None:
            self.clear()
            with suppress(OSError):
                self.path.rmdir()


def _lock(file: Any, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: no advisory locks
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise TrainingError("one process at a time may work in a folder", received=str(path), mend="wait for it to end") from error
