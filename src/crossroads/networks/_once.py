"""Keeps what is built from a custom network during one run, because several steps of the run need it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_BUILT: ContextVar[dict[Hashable, Any] | None] = ContextVar("crossroads_built", default=None)
"""What the run has built; None outside of a run."""


@contextmanager
def built_once() -> Iterator[None]:
    """Keeps what `once` makes until the context ends. It also decorates a function.

    Nothing is kept from one run to the next: a function that builds a network may read settings that change in between.
    """
    if _BUILT.get() is not None:
        yield
        return
    token = _BUILT.set({})
    try:
        yield
    finally:
        _BUILT.reset(token)


def once(key: Hashable, make: Callable[[], T]) -> T:
    """Returns what `make` made for an equal key before in this run, or calls it."""
    built = _BUILT.get()
    if built is None:
        return make()
    if key not in built:
        built[key] = make()
    made: T = built[key]
    return made


def kept(key: Hashable) -> Any:
    """Returns what `once` made for this key in this run; None if it made nothing."""
    return (_BUILT.get() or {}).get(key)


def key_of(source: object) -> Hashable:
    """Returns what identifies a custom network during one run: its name, or the object itself."""
    return str(source) if isinstance(source, str) else ("object", id(source))
