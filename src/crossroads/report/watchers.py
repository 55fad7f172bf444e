"""Shows the progress of a call on a stream: one line that changes on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO, TypeVar, TypeVarTuple

from crossroads.files.text import printable
from crossroads.progress import EpochRecord, Silent, Step, Uncounted, epoch_line, stage_line
from crossroads.report.activity import Activity, Racer
from crossroads.report.first_line import clear_first_line
from crossroads.report.live import Drawing
from crossroads.report.streams import LastingStream
from crossroads.report.terminal import is_rich, own_stream, rich_console
from crossroads.report.words import duration

if TYPE_CHECKING:
    from rich.live import Live

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PER_SECOND = 8
"""How often a terminal is drawn."""

EXPLANATIONS = (
    *("candidates-skipped", "run-ended-early", "run-out-of-time", "race-won", "epochs-limited"),
    *("not-cross-validated", "folds-started", "fold-started", "folds-compared"),
    *("short-training", "short-training-stopped", "short-training-too-slow", "no-short-training"),
)
"""Codes of notes that explain decisions. They are shown with ``--verbose``."""

IN_TABLE = ("race-started", "run-started", "artifact-saved")
"""Codes of notes that say what the table of a race shows. Plain lines have no such table."""


class ConsoleWatcher:
    """Shows a run on a stream.

    Args:
        stream: The stream to write to; None for no output. After a failure, nothing more is written to it.
        verbose: Whether notes that explain decisions, and every epoch of a race, are shown.
    """

    def __init__(self, stream: TextIO | None, *, verbose: bool = False) -> None:
        self._stream, self._verbose = stream, verbose
        self._lasting = LastingStream(stream)
        self._shown: set[str] = set()
        self._drawing = Drawing(Activity())
        self._live: Live | None = None

    def __enter__(self) -> Self:
        clear_first_line()
        if self._stream is not None and is_rich(self._stream):
            from rich.live import Live

            self._lasting = LastingStream(own_stream(self._stream))
            self._live = Live(
                self._drawing,
                console=rich_console(self._lasting),
                refresh_per_second=PER_SECOND,
                transient=True,
                vertical_overflow="crop",
            )
            self._live.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def note(self, text: str) -> None:
        """Prints a line, but each text only once: every run of a race repeats some notes."""
        self._change(Activity.note, text)
        code = getattr(text, "code", "")
        hidden = EXPLANATIONS if self._live is None else EXPLANATIONS + IN_TABLE
        if self._verbose or code not in hidden:
            self._once(text)

    def warning(self, text: str) -> None:
        """Prints a line like that of a note, in colour on a terminal."""
        self._once(text, "bold yellow")

    def progress(self, stage: str, done: int, total: int) -> None:
        """Shows the stage on a terminal. Prints one line at the end of a step, and elsewhere at the end of a counted stage."""
        if done != total:
            self._change(Activity.begin, stage, done, total)
            if self._live is not None and isinstance(stage, Uncounted):
                self._live.refresh()  # now, since an import may keep the thread that draws from running
            return
        racer = self._drawing.activity.raced
        ended = self._drawing.activity.step
        began = self._change(Activity.end, stage)
        if not isinstance(stage, Uncounted):
            if self._live is None or self._verbose:
                self._line(stage_line(stage, total))
        elif racer is not None and self._drawing.activity.raced is None:
            self._end_run(racer)
        elif isinstance(stage, Step) and ended == stage and began is not None and sys.exception() is None:
            self._line(f"step {stage.number} of {stage.total}: {stage}, {duration(time.monotonic() - began.began)}", "dim")

    def step(self, epoch: int, done: int, total: int) -> None:
        """Shows the number of batches on a terminal, and nothing elsewhere."""
        self._change(Activity.batch, epoch, done, total)

    def epoch(self, record: EpochRecord, total: int) -> None:
        """Prints one line. In a race, only the best result of each candidate is shown."""
        self._change(Activity.epoch, record, total)
        if self._verbose or not self._drawing.activity.in_race:
            text = epoch_line(record, total)
            self._line(text if self._live is None else text.replace("validation accuracy", "accuracy"))  # 79 characters or fewer

    def _end_run(self, racer: Racer) -> None:
        """Prints one line for all epochs of a candidate of a race. A terminal shows the same in a table."""
        if self._live is None and racer.best is not None and racer.usual and len(self._drawing.activity.racers) > 1:
            epochs = "epoch" if racer.epochs == 1 else "epochs"
            self._line(
                f"{racer.name}: {racer.epochs} {epochs}, best validation accuracy {racer.best:.4f}, {duration(racer.seconds)}"
            )

    def _change(self, method: Callable[[Activity, *Ts], T], *arguments: *Ts) -> T:
        with self._drawing.lock:
            return method(self._drawing.activity, *arguments)

    def _once(self, text: str, style: str | None = None) -> None:
        if text not in self._shown:
            self._shown.add(text)
            self._line(f"note: {text}", style)

    def _line(self, text: str, style: str | None = None) -> None:
        if self._live is None:
            print(printable(text), file=self._lasting, flush=True)
        else:
            self._live.console.print(printable(text), style=style, markup=False, highlight=False)


class NotesOnly(Silent):
    """Shows notes and warnings, but no progress."""

    def __init__(self, stream: TextIO | None, *, verbose: bool = False) -> None:
        self._console = ConsoleWatcher(stream, verbose=verbose)

    def note(self, text: str) -> None:
        """Prints a line, once."""
        self._console.note(text)

    def warning(self, text: str) -> None:
        """Prints a line, once."""
        self._console.warning(text)
