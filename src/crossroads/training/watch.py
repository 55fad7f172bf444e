"""How a run is watched: what is told while it goes on, without a word on how it is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from crossroads.training.checkpoint import EpochRecord


class Enough(Exception):
    """Raised by a watcher's `step` or `epoch`: the phase ends here, for good, and its epochs so far are what there is.

    An epoch that is not done is lost. Where none is done yet, or where `progress` raises it, whoever asked for the training gets
    the exception.
    """


class Watcher(Protocol):
    """What is told of a run while it goes on. The command line draws it; a program may take it as it likes.

    What it raises ends the run, to be taken up later; `Enough` ends a phase, for good.
    """

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


class Relay:
    """A watcher that hands on what it is told.

    Args:
        watcher: Is told first.
        noted: Is called with each note then.
        after_progress: Is called after each part of a stage then.
        after_step: Is called after each batch then.
        after_epoch: Is called with each epoch and their total then.

    Attributes:
        raised: What `watcher` raised last: that is whoever watches, and no failing of the work. None where nothing was raised.
    """

    def __init__(
        self,
        watcher: Watcher,
        *,
        noted: Callable[[str], object] = lambda _: None,
        after_progress: Callable[[], object] = lambda: None,
        after_step: Callable[[], object] = lambda: None,
        after_epoch: Callable[[EpochRecord, int], object] = lambda _record, _total: None,
    ) -> None:
        self.raised: Exception | None = None
        self._watcher, self._noted, self._after_progress = watcher, noted, after_progress
        self._after_step, self._after_epoch = after_step, after_epoch

    def note(self, text: str) -> None:
        """Hand it on."""
        self._tell(self._watcher.note, text)
        self._noted(text)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Hand it on."""
        self._tell(self._watcher.progress, stage, done, total)
        self._after_progress()

    def step(self, epoch: int, done: int, total: int) -> None:
        """Hand it on."""
        self._tell(self._watcher.step, epoch, done, total)
        self._after_step()

    def epoch(self, record: EpochRecord, total: int) -> None:
        """Hand it on."""
        self._tell(self._watcher.epoch, record, total)
        self._after_epoch(record, total)

    def _tell(self, call: Callable[..., object], *told: object) -> None:
        try:
            call(*told)
        except Exception as error:
            self.raised = error
            raise
