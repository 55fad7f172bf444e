"""Reads a limit of memory: a size such as 4g, or a fraction of the machine's memory such as 50%."""

from __future__ import annotations

import re

from crossroads._runtime.machine import available_memory_mb, resident_memory_mb, total_memory_mb
from crossroads.errors import RecipeError, option

LEAST_MB = 800
"""Smallest limit: a head on frozen features of the default network needs this much."""

FORM = "a size such as 4g or 1500m, or a fraction of the machine's memory such as 50%"

_UNITS_MB = {"m": 1.0, "g": 1024.0, "t": 1024.0**2}
_LIMIT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(?:([mgt])(?:i?b)?|(%))", re.IGNORECASE)


def require_memory(text: str) -> None:
    """Raises `RecipeError` if a text is not a limit of memory, or if the limit is too small."""
    number, unit = _read(text)
    if unit == "%":
        if not 0 < number <= 100:
            raise _out_of_range(text, "above 0% and at most 100%")
    elif number * _UNITS_MB[unit] < LEAST_MB:
        raise _too_small(text)


def memory_limit_mb(text: str | None) -> float | None:
    """Returns the most memory that this process may use, in MiB; None if it is unknown and the user set no limit.

    It is the smaller of the limit that the user set and of what the process has and the machine has available.

    Args:
        text: The limit that the user set; None for no limit.

    Raises:
        RecipeError: The limit is not one, or too small.
    """
    available = available_memory_mb()
    limits = [] if available is None else [available + resident_memory_mb()]
    if text is not None:
        limits.append(set_limit_mb(text))
    return min(limits, default=None)


def set_limit_mb(text: str) -> float:
    """Returns the limit that the user set, in MiB. Raises `RecipeError` if it is not one, or too small on this machine."""
    number, unit = _read(text)
    if unit != "%":
        return number * _UNITS_MB[unit]
    total = total_memory_mb()
    if total is None:
        raise RecipeError(
            "the memory of this machine is unknown, so a fraction of it is too",
            code="unknown-memory",
            field="memory",
            received=repr(text),
            hint=f"set {option('memory')} to a size such as 4g",
        )
    if total * number / 100 < LEAST_MB:
        raise _too_small(f"{text} of {total:,.0f} MB")
    return total * number / 100


def _read(text: str) -> tuple[float, str]:
    match = _LIMIT.fullmatch(text.strip())
    if match is None:
        raise RecipeError(f"{option('memory')} must be {FORM}", code="wrong-type", field="memory", received=repr(text))
    return float(match[1]), (match[2] or match[3]).lower()


def _too_small(received: str) -> RecipeError:
    return _out_of_range(received, f"at least {LEAST_MB}m")


def _out_of_range(received: str, allowed: str) -> RecipeError:
    return RecipeError(f"{option('memory')} must be {allowed}", code="out-of-range", field="memory", received=received)
