"""Writes errors on the standard error stream: one line, which a terminal wraps at words and marks in red."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap

from crossroads.files.text import printable
from crossroads.report.first_line import clear_first_line
from crossroads.report.terminal import is_rich


def print_error(message: str) -> None:
    """Writes ``error:`` and the message."""
    clear_first_line()
    text = printable(message)
    if not is_rich(sys.stderr):
        print(f"error: {text}", file=sys.stderr)
        return
    width = shutil.get_terminal_size().columns
    wrapped = textwrap.fill(f"error: {text}", width, break_long_words=False, break_on_hyphens=False, subsequent_indent="  ")
    word = "error:" if os.environ.get("NO_COLOR") else "\x1b[1;31merror:\x1b[0m"
    print(wrapped.replace("error:", word, 1), file=sys.stderr)
