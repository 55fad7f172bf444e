"""Formats text for messages and names: plurals, printable names, natural order."""

from __future__ import annotations

import re
from collections.abc import Sequence

_DIGITS = re.compile(r"\d+", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_SURROGATES = re.compile("[\ud800-\udfff]")


def plural(count: int, unit: str, units: str | None = None) -> str:
    """Returns a count with its unit: ``1 image``, ``2 images``."""
    return f"{count} {unit if count == 1 else units or unit + 's'}"


def first_few(items: Sequence[str], most: int = 5) -> str:
    """Returns the first items as ``a, b, c``, followed by the number of the others: ``a, b and 7 more``."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def were(count: int) -> str:
    """Returns ``was`` for 1 and ``were`` for any other count."""
    return "was" if count == 1 else "were"


def printable(text: str) -> str:
    r"""Returns a name as text that can be written as UTF-8, such as ``caf\xe9`` for the file name ``b"caf\xe9"``.

    Python represents bytes of a name that are not UTF-8 as lone surrogates, which cannot be written to a file. Other names are
    returned unchanged. To open the file, use its original name, not this one.
    """
    return text if text.isascii() else _SURROGATES.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _padded(match: re.Match[str]) -> str:
    digits = match[0].lstrip("0")
    return f"{len(digits):03d}{digits}"


def natural_key(text: str) -> tuple[int, int, str, str]:
    """Returns the sort key of natural order: first whole numbers by value, then texts, whose digits are compared by value.

    ``"2" < "10" < "img2.png" < "img10.png"``. Different texts always have different keys.
    """
    if _INTEGER.fullmatch(text):
        return (0, int(text), "", text)
    return (1, 0, _DIGITS.sub(_padded, text), text)
