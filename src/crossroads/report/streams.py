"""The standard streams of the command line: text that they cannot encode is escaped, and a stream that is gone ends no run."""

from __future__ import annotations

import codecs
import json
import sys
from typing import Any, TextIO

from crossroads.data._words import shown


def escape_standard_streams() -> None:
    r"""From now on both write ``\xe9`` or ``\u4e2d`` in place of a character that their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # which a stream that a test or a notebook put there may lack
            stream.reconfigure(errors="backslashreplace")


class LastingStream:
    """Writes to a stream until that fails, as where a terminal or the reader of a pipe is gone; from then on it drops the text.

    What is written through it is progress: a training must not stop because its progress cannot be shown.

    Args:
        stream: The stream, or None where the process was started without it.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:
        """That of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:  # it is closed
            return False

    def write(self, text: str) -> int:
        """Write, or drop the text."""
        if self._stream is not None:
            try:
                self._stream.write(text)
            except (OSError, ValueError):  # the latter of a stream that is closed
                self._stream = None
        return len(text)

    def flush(self) -> None:
        """Flush, where there still is something to flush."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._stream = None


def json_text(value: Any, stream: TextIO | None) -> str:
    """A value as JSON that a stream can encode; half a surrogate pair, which JSON must not hold, is spelt as in other output."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    plain = codecs.lookup(encoding).name == "utf-8"
    return json.dumps(_spelt(value), indent=2, ensure_ascii=not plain, allow_nan=False)


def _spelt(value: Any) -> Any:
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, dict):
        return {_spelt(key): _spelt(entry) for key, entry in value.items()}
    return [_spelt(entry) for entry in value] if isinstance(value, list | tuple) else value
