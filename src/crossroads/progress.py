"""What watches a run: stages, steps, epochs and notes, without a word on how they are shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from crossroads.errors import RecipeError


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One line of the history.

    Attributes:
        phase: Name of the phase.
        epoch: Counted from 1 in each phase; a head that is solved takes one.
        seconds: Training and validation of this epoch.
        learning_rate: At the end of the epoch; 0 for a head that is solved.
        loss: Mean training loss, with augmentation, smoothing and weights as trained.
        validation_loss: Mean cross-entropy on the validation images, in nats.
        validation_accuracy: Share of validation images that are right.
    """

    phase: str
    epoch: int
    seconds: float
    learning_rate: float
    loss: float
    validation_loss: float
    validation_accuracy: float


class Note(str):
    """One sentence for the user, with its facts as data. It is a string, so that it can be shown and stored as one.

    Args:
        text: The sentence.
        code: Its name in kebab-case, such as ``classes-unbalanced``. It stays the same when the wording changes.
        **figures: The facts in it, as plain JSON values.

    Attributes:
        code: As above.
        figures: As above.
    """

    code: str
    figures: dict[str, Any]

    def __new__(cls, text: str, code: str, **figures: Any) -> Note:  # noqa: D102
        note = super().__new__(cls, text)
        note.code, note.figures = code, figures
        return note

    def __getnewargs_ex__(self) -> tuple[tuple[str, str], dict[str, Any]]:
        return (str(self), self.code), self.figures


class StopTraining(Exception):
    """Raised by a watcher's `step` or `epoch`: the phase ends here, for good, and its epochs so far are what there is.

    An epoch that is not done is lost. Where none is done yet, or where `progress` raises it, whoever asked for the training gets
    the exception.
    """


class Watcher(Protocol):
    """Receives the progress of a call, and its warnings, while it runs. Any object with these methods will do.

    The methods are called in the thread that made the call. What one of them raises ends the call, and the caller receives it
    unchanged; an unfinished run can then be resumed.
    """

    def note(self, text: str) -> None:
        """Called with a sentence on the progress of the run, such as which strategy is tried next."""
        ...

    def warning(self, text: str) -> None:
        """Called with a sentence that the user should read, such as how many images were refused."""
        ...

    def progress(self, stage: str, done: int, total: int) -> None:
        """Called when `done` of `total` images are processed in a stage, such as ``decoding``."""
        ...

    def step(self, epoch: int, done: int, total: int) -> None:
        """Called when `done` of `total` batches of `epoch` (counted from 1) are processed."""
        ...

    def epoch(self, record: EpochRecord, total: int) -> None:
        """Called when an epoch of `total` ends, with its figures: `record.loss`, `record.validation_accuracy` and others."""
        ...


class Silent:
    """A watcher that shows nothing. Derive from it to receive only some of what a watcher receives."""

    def note(self, text: str) -> None:
        """Does nothing."""

    def warning(self, text: str) -> None:
        """Passes the warning to `note`."""
        self.note(text)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Does nothing."""

    def step(self, epoch: int, done: int, total: int) -> None:
        """Does nothing."""

    def epoch(self, record: EpochRecord, total: int) -> None:
        """Does nothing."""


METHODS = ("note", "warning", "progress", "step", "epoch")


def require_watcher(watcher: Any) -> None:
    """Raises `RecipeError` where an object cannot serve as a watcher: told at once, and not when the first epoch is done."""
    missing = [name for name in METHODS if not callable(getattr(watcher, name, None))]
    if missing or isinstance(watcher, type):
        kind = f"the class {watcher.__name__}" if isinstance(watcher, type) else f"a {type(watcher).__name__}"
        raise RecipeError(
            f"a watcher is an object with the methods {', '.join(METHODS)}",
            received=f"{kind} without {', '.join(missing)}" if missing else kind,
            hint="derive its class from crossroads.Silent" if missing else "pass an instance of it",
        )


class Relay:
    """A watcher that passes on what it receives, and keeps the warnings.

    An exception of the other watcher, other than `StopTraining`, is raised again at every later call, in case it was swallowed.

    Args:
        watcher: Receives everything first.
        after_note: Is then called with each note and each warning.
        after_progress: Is then called after each part of a stage.
        after_step: Is then called after each batch.
        after_epoch: Is then called with each epoch and their total.

    Attributes:
        warnings: Every warning so far, each once.
        raised: What `watcher` raised last: that is whoever watches, and no failing of the work. None where nothing was raised.
    """

    def __init__(
        self,
        watcher: Watcher,
        *,
        after_note: Callable[[str], object] = lambda _: None,
        after_progress: Callable[[], object] = lambda: None,
        after_step: Callable[[], object] = lambda: None,
        after_epoch: Callable[[EpochRecord, int], object] = lambda _record, _total: None,
    ) -> None:
        self.warnings: tuple[str, ...] = ()
        self.raised: Exception | None = None
        self._watcher, self._after_note, self._after_progress = watcher, after_note, after_progress
        self._after_step, self._after_epoch = after_step, after_epoch

    def note(self, text: str) -> None:
        """Pass it on."""
        self._tell(self._watcher.note, text)
        self._after_note(text)

    def warning(self, text: str) -> None:
        """Keep it and pass it on, once."""
        if text in self.warnings:
            return
        self.warnings = (*self.warnings, text)
        self._tell(self._watcher.warning, text)
        self._after_note(text)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Pass it on."""
        self._tell(self._watcher.progress, stage, done, total)
        self._after_progress()

    def step(self, epoch: int, done: int, total: int) -> None:
        """Pass it on."""
        self._tell(self._watcher.step, epoch, done, total)
        self._after_step()

    def epoch(self, record: EpochRecord, total: int) -> None:
        """Pass it on."""
        self._tell(self._watcher.epoch, record, total)
        self._after_epoch(record, total)

    def raise_again(self) -> None:
        """Raise what the watcher raised, whatever was made of it on the way; nothing where that is nothing, or `StopTraining`."""
        if self.raised is not None and not isinstance(self.raised, StopTraining):
            raise self.raised

    def _tell(self, call: Callable[..., object], *told: object) -> None:
        self.raise_again()
        try:
            call(*told)
        except Exception as error:  # whatever it is, it goes on to the caller
            self.raised = error
            raise


def epoch_line(record: EpochRecord, total: int) -> str:
    """One line per epoch: phase, number, seconds, loss, validation loss, validation accuracy."""
    phase = "" if record.phase == "train" else f"{record.phase} "
    return (
        f"{phase}epoch {record.epoch}/{total}  {record.seconds:.1f} s  loss {record.loss:.4f}  "
        f"validation loss {record.validation_loss:.4f}  validation accuracy {record.validation_accuracy:.4f}"
    )
