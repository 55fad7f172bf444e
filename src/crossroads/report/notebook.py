"""Shows progress in a notebook: one line that IPython replaces as the call goes on."""

from __future__ import annotations

import html
import importlib
import sys
import time
from types import TracebackType
from typing import Any, Self

from crossroads.progress import EpochRecord, Silent, Uncounted, epoch_line
from crossroads.report.activity import Activity
from crossroads.report.live import summary
from crossroads.report.watchers import EXPLANATIONS, IN_TABLE

PAUSE = 0.3
"""Fewest seconds between two updates. A notebook draws each one anew."""


def in_notebook() -> bool:
    """Returns whether the program runs in a notebook, and not in IPython on a terminal. Nothing is imported for the answer."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


class NotebookWatcher(Silent):
    """Shows the stage, the race and the epochs in the output of a cell."""

    def __init__(self) -> None:
        self._activity, self._drawn = Activity(), 0.0
        self._lines: list[str] = []
        self._handle: Any = None

    def __enter__(self) -> Self:
        display = importlib.import_module("IPython.display").display  # untyped, and not always installed
        self._handle = display(self._content(), raw=True, display_id=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._activity.going.clear()
        self._draw(ended=True)

    def note(self, text: str) -> None:
        """Updates the race, or adds a line, once."""
        self._activity.note(text)
        line = f"note: {text}"
        if getattr(text, "code", "") not in EXPLANATIONS + IN_TABLE and line not in self._lines:
            self._lines.append(line)
        self._draw()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Shows the stage."""
        if done != total:
            self._activity.begin(stage, done, total)
        else:
            self._activity.end(stage)
        if isinstance(stage, Uncounted) or time.monotonic() - self._drawn > PAUSE:
            self._draw()

    def step(self, epoch: int, done: int, total: int) -> None:
        """Shows the number of batches."""
        self._activity.batch(epoch, done, total)
        if time.monotonic() - self._drawn > PAUSE:
            self._draw()

    def epoch(self, record: EpochRecord, total: int) -> None:
        """Adds a line. In a race, only the best result of each candidate is shown."""
        self._activity.epoch(record, total)
        if not self._activity.in_race:
            self._lines.append(epoch_line(record, total))
        self._draw()

    def _draw(self, *, ended: bool = False) -> None:
        self._drawn = time.monotonic()
        if self._handle is not None:
            self._handle.update(self._content(ended=ended), raw=True)

    def _content(self, *, ended: bool = False) -> dict[str, str]:
        lines = [*self._lines, *summary(self._activity, time.monotonic(), ended=ended)]
        text = "\n".join(lines)
        return {"text/plain": text, "text/html": f'<pre style="line-height: 1.3">{html.escape(text)}</pre>'}
