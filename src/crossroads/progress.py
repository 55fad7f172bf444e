"""Defines how a run reports its progress: stages, steps, epochs and notes. `crossroads.report` shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from crossroads.errors import RecipeError, option


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch of the history.

    Attributes:
        phase: Name of the phase.
        epoch: Counted from 1 in each phase. A solved head has one.
        seconds: Time of training and validation in this epoch.
        learning_rate: The rate at the end of the epoch; 0 for a solved head.
        loss: Mean training loss, including augmentation, label smoothing and class weights.
        validation_loss: Mean cross-entropy on the validation images, in nats.
        validation_accuracy: Fraction of the validation images that are classified correctly.
    """

    phase: str
    epoch: int
    seconds: float
    learning_rate: float
    loss: float
    validation_loss: float
    validation_accuracy: float


class Note(str):
    """A sentence for the user, with its facts as data. It is also a string, to be shown and stored.

    Args:
        text: The sentence.
        code: Name of the note in kebab-case, such as ``classes-unbalanced``. It stays the same when the wording changes.
        **figures: The facts in it, as plain JSON values.
    """

    code: str
    figures: dict[str, Any]

    def __new__(cls, text: str, code: str, **figures: Any) -> Note:  # noqa: D102
        note = super().__new__(cls, text)
        note.code, note.figures = code, figures
        return note

    def prefixed(self, prefix: str, **figures: Any) -> Note:
        """Returns the note with text before it and further facts."""
        return Note(prefix + self, self.code, **{**self.figures, **figures})

    def __getnewargs_ex__(self) -> tuple[tuple[str, str], dict[str, Any]]:
        return (str(self), self.code), self.figures


class Uncounted(str):
    """The name of a stage whose parts cannot be counted, such as loading TensorFlow.

    A watcher receives its begin as 0 of 1 and its end as 1 of 1.
    """


class Step(Uncounted):
    """One of the few large stages of a call, in their order, such as the second of four. The stages of the work are inside it.

    Args:
        name: Name of the stage.
        number: Its number, counted from 1.
        total: Number of steps of the call.
    """

    number: int
    total: int

    def __new__(cls, name: str, number: int, total: int) -> Step:  # noqa: D102
        step = super().__new__(cls, name)
        step.number, step.total = number, total
        return step

    def __getnewargs__(self) -> tuple[str, int, int]:  # type: ignore[override]
        return str(self), self.number, self.total


@contextmanager
def stage(progress: Callable[[str, int, int], object] | None, name: str) -> Iterator[None]:
    """Reports the begin and the end of a stage that cannot be counted. The end is reported after an error, too.

    Args:
        progress: The method `progress` of a watcher, or None for no report.
        name: Name of the stage; a `Step` for one of the steps of a call.
    """
    if progress is None:
        yield
        return
    uncounted = name if isinstance(name, Uncounted) else Uncounted(name)
    progress(uncounted, 0, 1)
    try:
        yield
    except BaseException:
        with suppress(Exception):  # the watcher may raise, but the first error matters more
            progress(uncounted, 1, 1)
        raise
    progress(uncounted, 1, 1)


class StopTraining(Exception):
    """The exception that a watcher's `step` or `epoch` raises to end the phase. Finished epochs are kept.

    The unfinished epoch is lost. If no epoch is finished, or if `progress` raises the exception, it ends the whole training.
    """


class StopWithinEpoch(StopTraining):
    """Ends the phase like `StopTraining`. If `step` raises it in the first epoch, the batches so far count as that epoch."""


class Watcher(Protocol):
    """Receives progress and warnings of a call while it runs. Any object with these methods works.

    The methods are called in the thread that made the call. An exception that one of them raises ends the call and reaches the
    caller unchanged. An unfinished run can then be resumed.
    """

    def note(self, text: str) -> None:
        """Receives a sentence on the progress of the run, such as which strategy is trained next."""
        ...

    def warning(self, text: str) -> None:
        """Receives a sentence that the user should read, such as how many images were refused."""
        ...

    def progress(self, stage: str, done: int, total: int) -> None:
        """Receives the number of processed images in a stage such as ``decoding``.

        A stage begins with 0 and ends when both numbers are equal. It may be inside another one. A stage that is interrupted has
        no end; the next stage or epoch then replaces it. In the stages ``weights`` and ``downloading …``, the numbers are bytes. If
        the stage is an `Uncounted`, they only tell its begin, 0 of 1, from its end. A `Step` is one of the few steps of `fit` and
        `advise`.
        """
        ...

    def step(self, epoch: int, done: int, total: int) -> None:
        """Receives the number of processed batches of an epoch. Epochs are counted from 1.

        During the validation at the end of the epoch, it receives the last number again.
        """
        ...

    def epoch(self, record: EpochRecord, total: int) -> None:
        """Receives the figures of an epoch when it ends, such as `record.loss`, and the total number of epochs."""
        ...


class Silent:
    """A watcher that ignores everything. Derive a class from it to override only some of the methods."""

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
    """Raises `RecipeError` if an object cannot serve as a watcher, before any work is done."""
    missing = [name for name in METHODS if not callable(getattr(watcher, name, None))]
    if missing or isinstance(watcher, type):
        kind = f"the class {watcher.__name__}" if isinstance(watcher, type) else f"a {type(watcher).__name__}"
        raise RecipeError(
            f"{option('watcher')} must be an object with the methods {', '.join(METHODS)}",
            code="not-a-watcher",
            field="watcher",
            received=f"{kind} without {', '.join(missing)}" if missing else kind,
            hint="derive its class from crossroads.Silent" if missing else "pass an instance of it",
        )


class Relay:
    """A watcher that forwards everything to another watcher, and keeps the warnings.

    If the other watcher raises an exception other than `StopTraining`, every later call raises it again, in case a library caught
    it.

    Args:
        watcher: The other watcher.
        after_note: Called with each note and each warning, after the watcher.
        after_progress: Called after each part of a stage.
        after_step: Called after each batch with the arguments of `step`.
        after_epoch: Called with each epoch and the number of epochs.

    Attributes:
        warnings: The warnings so far, each once.
        raised: The last exception that `watcher` raised, which is not a failure of the work; None if it raised none.
    """

    def __init__(
        self,
        watcher: Watcher,
        *,
        after_note: Callable[[str], object] = lambda _: None,
        after_progress: Callable[[], object] = lambda: None,
        after_step: Callable[[int, int, int], object] = lambda _epoch, _done, _total: None,
        after_epoch: Callable[[EpochRecord, int], object] = lambda _record, _total: None,
    ) -> None:
        self.warnings: tuple[str, ...] = ()
        self.raised: Exception | None = None
        self._watcher, self._after_note, self._after_progress = watcher, after_note, after_progress
        self._after_step, self._after_epoch = after_step, after_epoch

    def note(self, text: str) -> None:
        """Forwards the note."""
        self._call(self._watcher.note, text)
        self._after_note(text)

    def warning(self, text: str) -> None:
        """Keeps and forwards the warning, unless the same text was forwarded before."""
        if text in self.warnings:
            return
        self.warnings = (*self.warnings, text)
        self._call(self._watcher.warning, text)
        self._after_note(text)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Forwards the progress."""
        self._call(self._watcher.progress, stage, done, total)
        self._after_progress()

    def step(self, epoch: int, done: int, total: int) -> None:
        """Forwards the step."""
        self._call(self._watcher.step, epoch, done, total)
        self._after_step(epoch, done, total)

    def epoch(self, record: EpochRecord, total: int) -> None:
        """Forwards the epoch."""
        self._call(self._watcher.epoch, record, total)
        self._after_epoch(record, total)

    def raise_again(self) -> None:
        """Raises the exception of the other watcher again, unless it is `StopTraining`."""
        if self.raised is not None and not isinstance(self.raised, StopTraining):
            raise self.raised

    def _call(self, method: Callable[..., object], *arguments: object) -> None:
        self.raise_again()
        try:
            method(*arguments)
        except Exception as error:  # of any kind; it reaches the caller
            self.raised = error
            raise


def stage_line(stage: str, total: int) -> str:
    """Returns one line for the end of a stage: its name, and how many images or MB it had."""
    in_bytes = stage == "weights" or stage.startswith("downloading")
    return f"{stage}: {total / 1e6:,.1f} MB" if in_bytes else f"{stage}: {total:,} images"


def epoch_line(record: EpochRecord, total: int) -> str:
    """Returns one line for an epoch: phase, number, seconds, loss, validation loss and validation accuracy."""
    phase = "" if record.phase == "train" else f"{record.phase} "
    # A solved head has no epochs and no learning rate. The rate of some schedules is 0 at the end, too.
    solved = record.phase == "head" and total == 1 and record.learning_rate == 0
    name = "head solved" if solved else f"{phase}epoch {record.epoch}/{total}"
    return (
        f"{name}  {record.seconds:.1f} s  loss {record.loss:.4f}  "
        f"validation loss {record.validation_loss:.4f}  validation accuracy {record.validation_accuracy:.4f}"
    )
