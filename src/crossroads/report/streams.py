"""Prepares the standard streams of the command line. Escapes characters that they cannot encode, and tolerates closed streams."""

from __future__ import annotations

import codecs
import json
import sys
from typing import Any, TextIO

from crossroads.files.text import printable


def escape_standard_streams() -> None:
    r"""Makes both streams write ``\xe9`` or ``\u4e2d`` instead of failing at a character that their encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # the stream of a test or a notebook may lack it
            stream.reconfigure(errors="backslashreplace")


class LastingStream:
    """Writes to a stream until a write fails, for instance because the terminal was closed. Then it drops all further text.

    It is used for progress: a training must not stop because its progress cannot be shown.

    Args:
        stream: The stream, or None if the process has none.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:
        """The encoding of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Returns whether the stream is a terminal."""
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:  # it is closed
            return False

    def write(self, text: str) -> int:
        """Writes the text, or drops it if the stream is gone."""
        if self._stream is not None:
            try:
                self._stream.write(text)
            except (OSError, ValueError):  # ValueError: it is closed
                self._stream = None
        return len(text)

    def flush(self) -> None:
        """Flushes the stream, or does nothing if it is gone."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._stream = None


def json_text(value: Any, stream: TextIO | None) -> str:
    """Returns a value as JSON that a stream can encode. Escapes lone surrogates, which JSON must not hold, as in other output."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    plain = codecs.lookup(encoding).name == "utf-8"
    return json.dumps(_escaped(value), indent=2, ensure_ascii=not plain, allow_nan=False)


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {_escaped(key): _escaped(entry) for key, entry in value.items()}
    return [_escaped(entry) for entry in value] if isinstance(value, list | tuple) else value
