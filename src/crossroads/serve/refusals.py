"""Defines the refusal of a request and its JSON form, which every error of the server has."""

from __future__ import annotations

import json
from typing import NotRequired, TypedDict

from crossroads.errors import CrossroadsError


class ErrorFacts(TypedDict):
    """An error as clients see it: a code that stays the same, a sentence, and what to do about it."""

    code: str
    message: str
    hint: NotRequired[str]


class Refused(Exception):
    """A request that is refused.

    Args:
        status: Status of the answer.
        code: Name of the reason in kebab-case.
        message: The reason, as a sentence without a full stop.
        hint: What to do about it.
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, code: str, message: str, hint: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status, self.hint = status, hint
        self.facts = error_facts(code, message, hint)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def error_facts(code: str, message: str, hint: str | None = None) -> ErrorFacts:
    """Returns the facts of an error."""
    facts: ErrorFacts = {"code": code, "message": message}
    if hint:
        facts["hint"] = hint
    return facts


def facts_of(error: CrossroadsError) -> ErrorFacts:
    """Returns the facts of an error of the library about one image. They name no file of this machine."""
    message = error.rule if error.received is None else f"{error.rule}; received {error.received}"
    return error_facts(error.code, message, error.hint)


def json_bytes(value: object) -> bytes:
    """Returns compact JSON. Text that UTF-8 cannot encode, such as half of a surrogate pair, is escaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
