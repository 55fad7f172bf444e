"""Reads the stylesheet and the script of the report, which are files beside this module. The server uses the same colours."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from crossroads.report.html.markup import Html


@cache
def stylesheet() -> Html:
    """Returns the stylesheet of the report: colours, type and every component."""
    return Html(colours() + _text("report.css"))


@cache
def colours() -> Html:
    """Returns the custom properties of the colours for light and dark, on ``:root`` and on ``.crossroads``."""
    return Html(_text("colours.css"))


@cache
def script() -> Html:
    """Returns the script of the report."""
    return Html(_text("report.js"))


def policy() -> str:
    """Returns the content security policy of the report. It forbids every request, and every script but that of the report."""
    digest = base64.b64encode(hashlib.sha256(script().encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def _text(name: str) -> str:
    return files("crossroads.report.html").joinpath(name).read_text(encoding="utf-8")
