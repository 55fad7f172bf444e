"""Shows that the program has started, before anything large is imported.

Importing Typer and Rich takes half a second on a busy machine. A terminal shows this line meanwhile.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

WORKING = ("audit", "advise", "fit", "evaluate", "predict", "embed", "export", "demo", "report")
"""Commands that show progress with `cli._app.watching`, which removes the line."""

_SILENT = ("-h", "--help", "-q", "--quiet")

_shown: list[TextIO] = []


def show_first_line(arguments: list[str]) -> None:
    """Writes ``starting`` to the terminal if a command with progress is to run. `clear_first_line` removes it."""
    if _shown or not arguments or arguments[0] not in WORKING or any(word in arguments for word in _SILENT):
        return
    stream = sys.stderr if "--json" in arguments or arguments[0] in ("predict", "report") else sys.stdout
    with suppress(OSError, ValueError, AttributeError):  # no stream, or a closed one
        if stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown"):
            stream.write("- starting")
            stream.flush()
            _shown.append(stream)


def clear_first_line() -> None:
    """Removes the line, if it is shown."""
    while _shown:
        stream = _shown.pop()
        with suppress(OSError, ValueError):
            stream.write("\r\x1b[2K")
            stream.flush()
