"""Defines the default watcher. It reports warnings through `warnings`, and progress to the log, a terminal or a notebook."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from types import FrameType

from crossroads._runtime.faults import PACKAGE
from crossroads.errors import CrossroadsWarning
from crossroads.progress import EpochRecord, Relay, Uncounted, Watcher, epoch_line, require_watcher, stage_line
from crossroads.report.notebook import NotebookWatcher, in_notebook
from crossroads.report.terminal import is_rich
from crossroads.report.watchers import ConsoleWatcher

LOGGER = logging.getLogger("crossroads")

_displays: ContextVar[ExitStack | None] = ContextVar("crossroads_displays", default=None)
"""Ends the displays of the call that goes on; None outside `progress_ends`."""

_one_display = threading.Lock()
"""Held by the display on the terminal or in the notebook. Other threads show no progress meanwhile."""


@contextmanager
def progress_ends() -> Iterator[None]:
    """Ends the display of progress that `watched` begins inside the context, whatever ends the call."""
    with ExitStack() as displays:
        token = _displays.set(displays)
        try:
            yield
        finally:
            _displays.reset(token)


def watched(watcher: Watcher | None, *, trains: bool = False) -> Relay:
    """Returns a relay that keeps the warnings and passes everything to the watcher of a call, or to the default watcher.

    Args:
        watcher: The argument of the call; None for the default watcher.
        trains: Whether the call trains. A warning then never ends it.

    Raises:
        RecipeError: The object cannot serve as a watcher.
    """
    if watcher is None:
        return Relay(DefaultWatcher(raises=not trains))
    require_watcher(watcher)
    return Relay(watcher)


class DefaultWatcher:
    """Warns through `warnings`. Reports progress to the logger ``crossroads``, or shows it in a terminal or a notebook.

    Args:
        raises: Whether a warning filter of the program may turn a warning into an exception. If not, the warning is shown instead,
            because an exception could lose hours of training.
    """

    def __init__(self, *, raises: bool = True) -> None:
        self._raises = raises
        self._display = _display()

    def note(self, text: str) -> None:
        """Logs at level INFO, or shows it."""
        if self._display is None:
            _report(text)
        else:
            self._display.note(text)

    def warning(self, text: str) -> None:
        """Issues a `CrossroadsWarning` that names the line of the program that called this package."""
        caller = _caller()
        file, line, names = caller.f_code.co_filename, caller.f_lineno, caller.f_globals
        registry, module = names.setdefault("__warningregistry__", {}), names.get("__name__")
        try:
            warnings.warn_explicit(text, CrossroadsWarning, file, line, module=module, registry=registry)
        except CrossroadsWarning as error:
            if self._raises:
                raise
            warnings.showwarning(error, CrossroadsWarning, file, line)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Shows the stage. Without a display, reports the end of a stage that is counted."""
        if self._display is not None:
            self._display.progress(stage, done, total)
        elif done == total and not isinstance(stage, Uncounted):
            _report(stage_line(stage, total))

    def step(self, epoch: int, done: int, total: int) -> None:
        """Shows the number of batches. Without a display, does nothing."""
        if self._display is not None:
            self._display.step(epoch, done, total)

    def epoch(self, record: EpochRecord, total: int) -> None:
        """Reports the epoch."""
        if self._display is None:
            _report(epoch_line(record, total))
        else:
            self._display.epoch(record, total)


def _display() -> ConsoleWatcher | NotebookWatcher | None:
    """Begins the display of the call that goes on; None if its progress goes to the log, or nowhere."""
    displays = _displays.get()
    if displays is None or LOGGER.isEnabledFor(logging.INFO):
        return None
    display: ConsoleWatcher | NotebookWatcher | None = None
    if in_notebook():
        display = NotebookWatcher()
    elif is_rich(sys.stderr):
        display = ConsoleWatcher(sys.stderr)
    if display is None or not _one_display.acquire(blocking=False):
        return None
    displays.callback(_one_display.release)
    displays.enter_context(display)
    return display


def _report(text: str) -> None:
    """Logs the text if the program enabled logging; otherwise prints it in a terminal or a notebook."""
    if LOGGER.isEnabledFor(logging.INFO):
        LOGGER.info("%s", text)
    elif _is_interactive():
        with suppress(OSError, ValueError):  # a closed terminal ends no run
            print(text.encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)


def _is_interactive() -> bool:
    with suppress(AttributeError, ValueError):  # no stream, or a closed one
        if sys.stderr.isatty():
            return True
    return in_notebook()


def _caller() -> FrameType:
    """Returns the frame of the program that called this package.

    Frames of Keras or scikit-learn between two frames of this package are skipped. So are those of `contextlib`, whose context
    managers decorate the public functions.
    """
    frame: FrameType | None = sys._getframe()
    caller = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            caller = frame.f_back or frame
        frame = frame.f_back
    while caller.f_globals.get("__name__") == "contextlib" and caller.f_back is not None:
        caller = caller.f_back
    return caller
