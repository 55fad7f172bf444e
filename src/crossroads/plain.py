"""Turns records into plain values for JSON and back. The JSON form of a record follows from its fields."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, cast

import numpy as np

T = TypeVar("T")


def to_plain(record: object, digits: int | None = None) -> dict[str, Any]:
    """Returns a record as a dict, with one key per field. Records inside it that have a `to_json` decide their own form.

    A key of a mapping becomes text, and an array becomes a list.

    Args:
        record: A dataclass, a named tuple or a mapping.
        digits: Significant digits of the floats; None for all.

    Raises:
        TypeError: A value inside has no JSON form.
    """
    return {name: _plain(value, digits) for name, value in _items(record)}


def from_plain(kind: type[T], values: object) -> T:
    """Returns the record that `to_plain` turned into these values.

    Args:
        kind: The class of the record. Its annotations say what each value must be.
        values: The values, as JSON returns them.

    Raises:
        ValueError: A field is missing or unknown, or a value has another type.
    """
    return cast(T, _record(kind, values))


def _items(record: object) -> list[tuple[str, object]]:
    if isinstance(record, Mapping):
        return [(str(name), value) for name, value in record.items()]
    return [(name, getattr(record, name)) for name in _fields(type(record))]


def _fields(kind: Any) -> tuple[str, ...]:
    """Returns the names of the fields of a dataclass or a named tuple; none for any other type."""
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else getattr(kind, "_fields", ())


def _plain(value: object, digits: int | None) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return str(value)  # a note becomes its text
    if isinstance(value, float):
        return float(value if digits is None else f"{value:.{digits}g}")
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, Mapping) or _fields(type(value)):
        return to_plain(value, digits)
    if isinstance(value, list | tuple):
        return [_plain(each, digits) for each in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist() if value.dtype.kind in "biu" else _plain(value.tolist(), digits)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _record(kind: Any, values: object) -> object:
    hints = typing.get_type_hints(kind)
    if not isinstance(values, Mapping) or not values.keys() <= hints.keys():
        raise ValueError(f"no {kind.__name__}: {values!r}")
    try:
        return kind(**{name: _typed(hints[name], value) for name, value in values.items()})
    except TypeError as error:  # a field is missing
        raise ValueError(str(error)) from error


def _typed(kind: Any, value: object) -> object:
    """Returns a value as the type of its annotation. Raises `ValueError` if it has another one."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _first_fitting(inner, value)
    if origin is tuple and isinstance(value, list):
        return tuple(_typed(inner[0], each) for each in value)
    if origin is dict and isinstance(value, dict):
        return {key: _typed(inner[1], each) for key, each in value.items()}
    if _fields(kind):
        return _record(kind, value)
    if kind is float and type(value) is int:
        return float(value)
    if kind in (object, type(value)) or (origin is Literal and value in inner):
        return value
    raise ValueError(f"{value!r} is not {kind}")


def _first_fitting(kinds: tuple[Any, ...], value: object) -> object:
    for kind in kinds:
        try:
            return _typed(kind, value)
        except ValueError:
            continue
    raise ValueError(f"{value!r} is none of {kinds}")
