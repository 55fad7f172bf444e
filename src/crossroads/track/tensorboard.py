"""Writes a run as event files of TensorBoard.

`tensorboard.summary.Writer` would load TensorFlow wherever it is installed, and would write in a thread, where an error is lost.
The modules used here build the same records without TensorFlow.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from crossroads.errors import missing_extra
from crossroads.track.tracker import Outcome, Result, Value

try:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb
    from tensorboard.plugins.text.summary_v2 import text_pb
    from tensorboard.summary.writer.record_writer import RecordWriter
except ImportError as error:
    raise missing_extra("logging to TensorBoard", "tensorboard", "tensorboard") from error

_NUMBERS = count()


class TensorBoard:
    """Writes event files to a folder, those of each candidate to a folder within it. A resumed run adds files to the same folders.

    Args:
        folder: The folder. It is made with the first file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._run = EventFile(folder)
        self._current = self._run

    def begin(self, parameters: Mapping[str, Value]) -> None:
        """Does nothing, so that a run that fails at once leaves no file. `finish` writes the parameters."""

    def begin_candidate(self, name: str, parameters: Mapping[str, Value]) -> None:
        """Begins a folder, which is called by the name and the strategy of the candidate."""
        label = re.sub(r"[^\w.-]+", "-", f"{name}-{parameters['strategy']}")
        self._current = EventFile(self._folder / label)
        self._current.add(hparams_pb(dict(parameters)))

    def epoch(self, figures: Mapping[str, float], step: int) -> None:
        """Writes a scalar for each figure."""
        self._current.add(*(scalar_pb(name, value) for name, value in figures.items()), step=step)

    def end_candidate(self, outcome: Outcome) -> None:
        """Closes the file of the candidate."""
        self._current.close()
        self._current = self._run

    def finish(self, result: Result) -> None:
        """Writes the parameters for the page HParams, the figures as scalars, and the tags as a table on the page Text."""
        scalars = (scalar_pb(f"result/{name}", value) for name, value in result.figures.items())
        rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in result.tags.items())
        self._run.add(hparams_pb(dict(result.parameters)), *scalars, text_pb("tags", f"| tag | value |\n|---|---|\n{rows}"))

    def close(self, outcome: Outcome) -> None:
        """Closes the files."""
        self._current.close()
        self._run.close()


def _cell(text: str) -> str:
    """Returns a text for a cell of a table in Markdown."""
    return text.replace("|", "\\|").replace("\n", " ")


class EventFile:
    """One event file, made when it receives its first record."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def add(self, *summaries: Any, step: int = 0) -> None:
        """Writes summaries, and hands them to the system at once, so that they can be watched while the run works."""
        writer = self._opened()
        for summary in summaries:
            writer.write(Event(wall_time=time.time(), step=step, summary=summary).SerializeToString())
        writer.flush()

    def close(self) -> None:
        """Closes the file, if there is one."""
        if self._writer is not None:
            self._writer.close()

    def _opened(self) -> Any:
        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            now = time.time()
            # TensorBoard reads the files of a folder in the order of their names.
            name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}.{next(_NUMBERS)}"
            self._writer = RecordWriter((self._folder / name).open("xb"))
            self._writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        return self._writer
