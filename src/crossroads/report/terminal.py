"""Tells what a stream can show, and opens it for a display that changes."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO, cast

from crossroads.report.streams import LastingStream

if TYPE_CHECKING:
    from rich.console import Console

WIDEST = 120
"""Characters of a line of running text. Tables may be as wide as the terminal."""


def is_rich(stream: TextIO | LastingStream | None) -> bool:
    """Returns whether a stream is a terminal that understands control codes. Other streams receive plain lines."""
    with suppress(AttributeError, ValueError):  # no stream, or a closed one
        return stream is not None and stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")
    return False


def rich_console(stream: TextIO | LastingStream) -> Console:
    """Returns a console on a terminal. It follows ``NO_COLOR`` and ``COLUMNS``."""
    from rich.console import Console

    return Console(file=cast(TextIO, stream), highlight=False, markup=False, emoji=False, force_terminal=True)


def own_stream(stream: TextIO) -> TextIO:
    """Returns a second stream to the same terminal, or the stream itself if it is not a file.

    The file descriptor of the standard error stream points elsewhere while TensorFlow is loaded (`without_chatter`).
    """
    try:
        descriptor = os.dup(stream.fileno())
    except (OSError, ValueError, AttributeError):  # a stream in memory
        return stream
    return io.TextIOWrapper(
        io.FileIO(descriptor, "w"), encoding=stream.encoding or "utf-8", errors="backslashreplace", write_through=True
    )
