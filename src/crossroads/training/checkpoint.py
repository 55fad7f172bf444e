"""Saves checkpoints, from which an interrupted training resumes.

There is one file of arrays per epoch, and a pointer to the newest and the best. The arrays of the epoch are written first, then the
pointer. Older arrays are removed last. Each step is atomic. If the process is killed between two steps, the pointer still refers to
files that exist and belong together.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import TrainingError, option
from crossroads.progress import EpochRecord


@dataclass(frozen=True, slots=True)
class TrainingState:
    """The progress of a training.

    Attributes:
        identity: Digest of everything that must not change when a run is resumed: data, splits, recipe, network.
        history: One record per finished epoch.
        best: The epoch with the best weights, counted from 1.
        facts: Further facts, as plain JSON values.
    """

    identity: str
    history: tuple[EpochRecord, ...]
    best: int
    facts: dict[str, Any] = field(default_factory=dict)


def history_csv(history: Iterable[EpochRecord]) -> str:
    """Returns the history as CSV text with a header line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(EpochRecord.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(record) for record in history)
    return text.getvalue()


class Checkpoints:
    """The checkpoints of one phase in one folder, which is created by the first save."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pointer = folder / "progress.json"

    def save(self, state: TrainingState, arrays: Iterable[NDArray[np.generic]]) -> None:
        """Saves `arrays` for the last epoch of `state`, and removes those of epochs that are neither the newest nor the best.

        Arrays are written one by one, so an iterator needs memory for one at a time.

        Raises:
            TrainingError: The folder cannot be written, such as on a full disk. The previous checkpoint stays valid.
        """
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self._path(state.history[-1].epoch)
            with replacing(path) as file:
                _write_arrays(file, arrays)
            self._write_pointer(state)
            for old in self.folder.glob("epoch-*.npz"):
                if old not in (path, self._path(state.best)):
                    old.unlink()

    def save_facts(self, state: TrainingState) -> None:
        """Saves the facts of `state` with the arrays that were saved last. Raises the same errors as `save`."""
        with self._writing():
            self._write_pointer(state)

    def require_room(self, size: int) -> None:
        """Raises `TrainingError` if the disk has no room for a checkpoint of `size` bytes. Called before an epoch, not after it."""
        nearest = next(folder for folder in (self.folder, *self.folder.absolute().parents) if folder.exists())
        free = shutil.disk_usage(nearest).free
        if free < size:
            raise TrainingError(
                f"a checkpoint needs {size / 1e6:,.0f} MB of disk space",
                code="no-disk-space",
                received=f"{free / 1e6:,.0f} MB free in {nearest}",
                hint=f"free some space, or choose another {option('out')}",
            )

    def load(self) -> TrainingState | None:
        """Returns the saved state, or None if no epoch was finished. Raises `TrainingError` if a checkpoint is damaged."""
        try:
            pointer = json.loads(self._pointer.read_text())
            digests = dict(pointer["digests"])
            history = tuple(EpochRecord(**record) for record in pointer["history"])
            state = TrainingState(pointer["identity"], history, pointer["best"], dict(pointer["facts"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(self._pointer) from error
        for name, digest in digests.items():
            path = self.folder / name
            if not path.is_file() or _digest(path) != digest:
                raise _damaged(path)
        return state

    def load_for(self, identity: str) -> TrainingState | None:
        """Returns the saved state of the run with this identity, or None if no epoch was finished.

        Raises:
            TrainingError: The checkpoint is damaged, or belongs to another run.
        """
        state = self.load()
        if state is not None and state.identity != identity:
            raise TrainingError(
                f"the checkpoint belongs to another run: {differing_parts(state.identity, identity)} differ",
                code="checkpoint-of-another-run",
                received=str(self.folder),
                hint=f"use the options and data that the run was started with, or another {option('out')}",
            )
        return state

    def arrays(self, epoch: int) -> Iterator[NDArray[np.generic]]:
        """Yields the arrays that were saved after `epoch`, counted from 1, reading them one by one.

        Raises:
            TrainingError: One is damaged.
        """
        try:
            with np.load(self._path(epoch), allow_pickle=False) as saved:
                for i in range(len(saved.files)):
                    yield saved[f"arr_{i}"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise _damaged(self._path(epoch)) from error

    def _write_pointer(self, state: TrainingState) -> None:
        paths = [self._path(epoch) for epoch in sorted({state.history[-1].epoch, state.best})]
        pointer = asdict(state) | {"digests": {path.name: _digest(path) for path in paths}}
        write_atomically(self._pointer, json.dumps(pointer, indent=1).encode())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns a disk error into a `TrainingError`."""
        try:
            yield
        except OSError as error:
            raise TrainingError(
                "the checkpoint must be writable",
                code="checkpoint-not-writable",
                received=f"{self.folder} ({error.strerror})",
                hint=f"free some space, then continue with {option('resume')}",
            ) from error

    def _path(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:05d}.npz"


def combined_identity(parts: Mapping[str, str]) -> str:
    """Combines the digests of named parts into one identity, so that an error can name the part that differs."""
    return "; ".join(f"{name}: {digest}" for name, digest in parts.items())


def differing_parts(stored: str, current: str) -> str:
    """Returns the names of the parts in which two identities differ, such as ``recipe and versions``."""
    before, now = (dict(part.partition(": ")[::2] for part in identity.split("; ")) for identity in (stored, current))
    names = [name for name in now if before.get(name) != now[name]] if before.keys() == now.keys() else []
    return " and ".join(names) or "data, recipe or version"


def _damaged(path: Path) -> TrainingError:
    return TrainingError("the checkpoint is damaged", code="checkpoint-damaged", received=str(path), hint="start in another folder")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _write_arrays(file: BinaryIO, arrays: Iterable[NDArray[np.generic]]) -> None:
    """Writes what ``numpy.savez`` writes, with one array in memory at a time."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number, array in enumerate(arrays):
            with archive.open(f"arr_{number}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file. If the process is killed at any point, the file has either the old or the new content."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yields a file that replaces `path` at the end, once it is on the disk; after an error `path` is unchanged."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
