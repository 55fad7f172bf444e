"""What a killed run is taken up from: one file of arrays an epoch and a pointer to the newest and the best, all atomic.

Order of writing: the epoch's arrays, then the pointer, then older arrays are removed. A kill between any two of these leaves a
pointer whose files exist and belong together.
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

from crossroads.errors import TrainingError
from crossroads.progress import EpochRecord


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Where a run stands.

    Attributes:
        identity: Digest of everything that must not change between the parts of one run: data, splits, recipe, network.
        history: One record an epoch that is done.
        best: The epoch that is kept, counted from 1.
        facts: What else is to be known of it, as plain JSON values.
    """

    identity: str
    history: tuple[EpochRecord, ...]
    best: int
    facts: dict[str, Any] = field(default_factory=dict)


def history_csv(history: Iterable[EpochRecord]) -> str:
    """The history as CSV text with a header line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(EpochRecord.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(record) for record in history)
    return text.getvalue()


class Checkpoints:
    """The checkpoints of one run in one folder, which is made at the first save."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pointer = folder / "progress.json"

    def save(self, progress: TrainingState, arrays: Iterable[NDArray[np.generic]]) -> None:
        """Keep `arrays` as the state after the last epoch of `progress`; drop those that are neither the newest nor the best.

        They are written one by one: an iterator that makes them needs memory for one at a time.

        Raises:
            TrainingError: The folder cannot be written, such as on a full disk. The checkpoint before stays good.
        """
        with self._written():
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self._path(progress.history[-1].epoch)
            with replacing(path) as file:
                _write_arrays(file, arrays)
            self._point(progress)
            for old in self.folder.glob("epoch-*.npz"):
                if old not in (path, self._path(progress.best)):
                    old.unlink()

    def require_room(self, size: int) -> None:
        """Raises `TrainingError` where the disk has no room for a checkpoint of `size` bytes: before the epoch, not after it."""
        nearest = next(folder for folder in (self.folder, *self.folder.absolute().parents) if folder.exists())
        free = shutil.disk_usage(nearest).free
        if free < size:
            raise TrainingError(
                "the disk must have room for a checkpoint",
                received=f"{free / 1e6:,.0f} MB free in {nearest}, and {size / 1e6:,.0f} are needed",
                hint="make room there, or choose another --out",
            )

    def save_facts(self, progress: TrainingState) -> None:
        """Keep other facts with the state that was saved last. Raises as `save` does."""
        with self._written():
            self._point(progress)

    def _point(self, progress: TrainingState) -> None:
        state = asdict(progress) | {"digests": self._digests({progress.history[-1].epoch, progress.best})}
        write_atomically(self._pointer, json.dumps(state, indent=1).encode())

    @contextmanager
    def _written(self) -> Iterator[None]:
        """Inside, what the disk refuses is a `TrainingError`."""
        try:
            yield
        except OSError as error:
            raise TrainingError(
                "the checkpoint must be writable",
                received=f"{self.folder} ({error.strerror})",
                hint="make room there and add --resume",
            ) from error

    def load(self) -> TrainingState | None:
        """Where the run stands, or None where no epoch was finished. Raises `TrainingError` where a checkpoint is damaged."""
        try:
            state = json.loads(self._pointer.read_text())
            digests = dict(state["digests"])
            history = tuple(EpochRecord(**record) for record in state["history"])
            progress = TrainingState(state["identity"], history, state["best"], dict(state["facts"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(self._pointer) from error
        for name, digest in digests.items():
            path = self.folder / name
            if not path.is_file() or _digest(path) != digest:
                raise _damaged(path)
        return progress

    def load_for(self, identity: str) -> TrainingState | None:
        """Where the run called `identity` stands, or None where no epoch was finished.

        Raises:
            TrainingError: The checkpoint is damaged, or another run's.
        """
        progress = self.load()
        if progress is not None and progress.identity != identity:
            raise TrainingError(
                f"the checkpoint belongs to another run: {differing_parts(progress.identity, identity)} differ",
                received=str(self.folder),
                hint="give the options and data it was started with, or another --out",
            )
        return progress

    def arrays(self, epoch: int) -> Iterator[NDArray[np.generic]]:
        """The arrays that were saved after `epoch`, counted from 1, read one by one.

        Raises:
            TrainingError: One is damaged.
        """
        try:
            with np.load(self._path(epoch), allow_pickle=False) as saved:
                for i in range(len(saved.files)):
                    yield saved[f"arr_{i}"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise _damaged(self._path(epoch)) from error

    def _path(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:05d}.npz"

    def _digests(self, epochs: Iterable[int]) -> dict[str, str]:
        return {self._path(epoch).name: _digest(self._path(epoch)) for epoch in sorted(epochs)}


def combined_identity(parts: Mapping[str, str]) -> str:
    """One identity from digests of named parts, so that an error can name the part that differs."""
    return "; ".join(f"{name}: {digest}" for name, digest in parts.items())


def differing_parts(stored: str, asked: str) -> str:
    """The names of the parts in which two identities differ; all that can differ where one of them names no parts."""
    before, now = (dict(part.partition(": ")[::2] for part in identity.split("; ")) for identity in (stored, asked))
    names = [name for name in now if before.get(name) != now[name]] if before.keys() == now.keys() else []
    return " and ".join(names) or "data, recipe or version"


def _damaged(path: Path) -> TrainingError:
    return TrainingError("the checkpoint is damaged", received=str(path), hint="start again in another folder")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _write_arrays(file: BinaryIO, arrays: Iterable[NDArray[np.generic]]) -> None:
    """What ``numpy.savez`` writes, without holding all arrays at a time."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number, array in enumerate(arrays):
            with archive.open(f"arr_{number}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a kill at any point leaves the old content or the new one, never a part."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that takes the place of `path` at the end, on the disk by then; after an error `path` is as it was."""
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
