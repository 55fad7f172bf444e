"""How a run is watched: what is told while it goes on, without a word on how it is shown."""

from __future__ import annotations

from typing import Protocol

from crossroads.training.checkpoint import EpochRecord


class Watcher(Protocol):
    """What is told of a run while it goes on. The command line draws it; a program may take it as it likes."""

    def note(self, text: str) -> None:
        """One sentence that the user should read, such as how many images were refused."""
        ...

    def progress(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` images of a stage, such as ``decoding``, are done."""
        ...

    def step(self, epoch: int, done: int, total: int) -> None:
        """`done` of `total` batches of `epoch` (counted from 1) are done."""
        ...

    def epoch(self, record: EpochRecord, total: int) -> None:
        """An epoch is done, of `total`."""
        ...


class Silent:
    """A watcher that says nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Nothing."""

    def step(self, epoch: int, done: int, total: int) -> None:
        """Nothing."""

    def epoch(self, record: EpochRecord, total: int) -> None:
        """Nothing."""


class Noting:
    """A watcher that keeps the notes it hands on.

    Args:
        watcher: Is told all the same.
    """

    def __init__(self, watcher: Watcher) -> None:
        self.notes: list[str] = []
        self._watcher = watcher

    def note(self, text: str) -> None:
        """Keep it, and hand it on."""
        self.notes.append(text)
        self._watcher.note(text)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Hand it on."""
        self._watcher.progress(stage, done, total)

    def step(self, epoch: int, done: int, total: int) -> None:
        """Hand it on."""
        self._watcher.step(epoch, done, total)

    def epoch(self, record: EpochRecord, total: int) -> None:
        """Hand it on."""
        self._watcher.epoch(record, total)
