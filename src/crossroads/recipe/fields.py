"""Describes options, and derives their checks, texts and defaults from the description."""

from __future__ import annotations

import json
import numbers
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, cast

from crossroads.errors import RecipeError, did_you_mean, nearest, option

T = TypeVar("T")

RENAMED = {"test_share": "test_fraction"}  # prose: keep
"""Old names of options. They are refused with the new name."""

REMOVED = ("ema", "mixup", "precision", "towards_start", "unfreeze")
"""Options of earlier versions that did not raise the accuracy (docs/benchmarks.md)."""


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers from `low` to `high`; `low` itself is excluded if `above` is True."""

    low: float
    high: float
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (value > self.low if self.above else value >= self.low) and value <= self.high  # NaN is in no range

    def __str__(self) -> str:
        return f"above {self.low:,} and at most {self.high:,}" if self.above else f"between {self.low:,} and {self.high:,}"


@dataclass(frozen=True, slots=True)
class Option:
    """The description of one option. The annotation of a field gives the first attributes; `declare` adds `name` and the rest.

    Attributes:
        help: One sentence.
        group: The heading that it is listed under.
        range: The numbers that are accepted; None for a value that is not a number.
        unset: What None means for the run, such as ``chosen from the images``.
        metavar: The placeholder of the value in help texts; "" for the usual one of its kind.
        form: What a value must be, in words; "" for the usual words for its kind.
        convert: Converts other notations of a value to the declared type, and returns anything else unchanged.
        name: The name of the field.
        path: The name as messages write it: ``augmentation.shift``.
        kind: The type of a value: bool, int, float, str or a record.
        choices: The names that are accepted; empty for any.
        optional: Whether the value may be None.
        default: The default of the field.
    """

    help: str
    group: str
    range: Range | None = None
    unset: str = "none"
    metavar: str = ""
    form: str = ""
    convert: Callable[[object], object] | None = None
    name: str = ""
    path: str = ""
    kind: type = str
    choices: tuple[str, ...] = ()
    optional: bool = False
    default: object = None

    @property
    def default_text(self) -> str:
        """The default in words."""
        return self.unset if self.default is None else toml(self.default).strip('"')


_DECLARED: dict[type, dict[str, Option]] = {}


def options(record: type) -> dict[str, Option]:
    """Returns the options of a declared record class, by name."""
    return _DECLARED[record]


def declare(record: type[T]) -> type[T]:
    """Reads the options from the annotations of a record class, and lists them in its docstring."""
    hints = typing.get_type_hints(record, include_extras=True)
    table = getattr(record, "TABLE", "")
    _DECLARED[record] = {
        field.name: _completed(field, hints[field.name], table)
        for field in fields(record)  # type: ignore[arg-type]
    }
    lines = [f"        {option.name}: {option.help}{_limits(option)}" for option in options(record).values()]
    if record.__doc__ is not None:  # it is None with -OO
        record.__doc__ = record.__doc__.rstrip() + "\n\n    Attributes:\n" + "\n".join(lines) + "\n"
    record.__init__.__annotations__ = typing.get_type_hints(record)  # without the options
    return record


def _completed(field: Field[Any], hint: Any, table: str) -> Option:
    declared, stated = typing.get_args(hint)
    members = typing.get_args(declared) if typing.get_origin(declared) in (types.UnionType, typing.Union) else (declared,)
    kind = next(member for member in members if member is not type(None))
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    return replace(
        cast(Option, stated),
        name=field.name,
        path=f"{table}.{field.name}" if table else field.name,
        kind=str if choices else kind,
        choices=choices,
        optional=type(None) in members,
        default=field.default,
    )


def _limits(option: Option) -> str:
    return "" if option.range is None else f" {str(option.range).capitalize()}."


def build(record: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Returns a record from plain values. Raises `RecipeError` for an unknown or renamed key, or a value that is not accepted."""
    if not isinstance(values, Mapping):
        raise RecipeError(
            "a recipe must be a table of options",
            code="not-a-table",
            received=type(values).__name__,
            hint='write keys and values, such as {"epochs": 10}',
        )
    known = options(record)
    for key in values:
        if key in RENAMED:
            raise RecipeError(
                f"option {option(key)} has a new name", code="renamed-option", field=key, hint=f"use {option(RENAMED[key])}"
            )
        if key in REMOVED:
            raise RecipeError(f"option {option(key)} was removed", code="removed-option", field=key, hint="leave it out")
        if key not in known:
            raise RecipeError("no such option", code="unknown-option", received=repr(prefix + key), hint=did_you_mean(key, known))
    return record(**values)


def check(record: Any) -> None:
    """Converts the fields of a frozen record to their declared types. Raises `RecipeError` if a value is not accepted."""
    for field in options(type(record)).values():
        object.__setattr__(record, field.name, _checked(field, getattr(record, field.name)))


def _checked(field: Option, value: object) -> object:
    if value is None and field.optional:
        return None
    if field.choices:
        _require_choice(field, value)
        return value
    value = _typed(field, value if field.convert is None else field.convert(value))
    if field.range is not None and value not in field.range:  # type: ignore[operator]
        raise RecipeError(f"{option(field.path)} must be {field.range}", code="out-of-range", field=field.path, received=value)
    return value


def _require_choice(field: Option, value: object) -> None:
    if value not in field.choices:
        close = nearest(str(value), field.choices)
        raise RecipeError(
            f"{option(field.path)} must be one of {', '.join(field.choices)}",
            code="unknown-choice",
            field=field.path,
            received=repr(value),
            hint=None if close is None else f"did you mean {close!r}?",
        )


_FORMS = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}


def _typed(field: Option, value: object) -> object:
    """Returns the value as its declared type. NumPy numbers, as from a parameter grid, count as Python numbers."""
    number = type(value) is not bool
    if field.kind is float and number and isinstance(value, numbers.Real):
        return float(value)
    if field.kind is int and number and isinstance(value, numbers.Integral):
        return int(value)
    if is_dataclass(field.kind) and isinstance(value, Mapping):
        return build(field.kind, value, f"{field.name}.")
    if field.kind not in (float, int) and isinstance(value, field.kind):
        return value
    raise RecipeError(
        f"{option(field.path)} must be {field.form or _FORMS[field.kind]}",
        code="wrong-type",
        field=field.path,
        received=repr(value),
    )


def toml(value: object) -> str:
    """Returns a string, number or boolean as TOML, which writes them like JSON except for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", r"\u007f")
