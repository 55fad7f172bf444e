"""Defines the look of the report, of the cards in notebooks and of the server's page: colours, stylesheet and script.

The rules and the script are files beside this module. The colours are custom properties, with one set for light and one for dark.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from crossroads.report.html.markup import Html

LIGHT = """\
--bg: #f8fafc; --card: #ffffff; --sunken: #f1f5f9; --text: #0f172a; --muted: #475569; --line: #e2e8f0; --strong-line: #94a3b8;
--accent: #2563eb; --accent-soft: #dbeafe; --accent-text: #1d4ed8; --control: #64748b;
--good: #15803d; --good-soft: #dcfce7; --bad: #b91c1c; --bad-soft: #fee2e2; --warn: #b45309; --warn-soft: #fef3c7;
--g1: #eff6ff; --g2: #dbeafe; --g3: #bfdbfe; --g4: #2563eb; --g5: #1e40af;
--b1: #fef2f2; --b2: #fee2e2; --b3: #fecaca; --b4: #dc2626; --b5: #991b1b; --on-strong: #ffffff;
--font: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
--mono: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
"""
DARK = """\
--bg: #020617; --card: #0f172a; --sunken: #1e293b; --text: #e2e8f0; --muted: #a3b1c6; --line: #27354b; --strong-line: #64748b;
--accent: #60a5fa; --accent-soft: #172f5c; --accent-text: #93c5fd; --control: #94a3b8;
--good: #4ade80; --good-soft: #14341f; --bad: #f87171; --bad-soft: #3f1a1d; --warn: #fbbf24; --warn-soft: #3a2a0a;
--g1: #13203d; --g2: #172f5c; --g3: #1e4085; --g4: #60a5fa; --g5: #93c5fd;
--b1: #2a1518; --b2: #4a1a1d; --b3: #7f1d1d; --b4: #f87171; --b5: #fca5a5; --on-strong: #0f172a;
"""

_IN_DARK_NOTEBOOKS = (
    'body[data-jp-theme-light="false"] .crossroads, body.vscode-dark .crossroads, html[theme="dark"] .crossroads, '
    'html[data-theme="dark"] .crossroads'
)
"""Notebooks in JupyterLab, in VS Code and on Colab, and documentation by Sphinx, whose theme may differ from that of the system."""

_NOT_IN_LIGHT_ONES = 'body:not([data-jp-theme-light="true"]):not(.vscode-light) .crossroads'


@cache
def stylesheet() -> Html:
    """Returns the stylesheet of the report: colours, type and every component."""
    return Html(colours() + _text("report.css"))


@cache
def colours() -> Html:
    """Returns the colours of a page, which follow the theme of the system."""
    light = f":root {{ color-scheme: light dark; {LIGHT}}}"
    return Html(f"{light}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {DARK}}} }}\n")


@cache
def card_stylesheet() -> Html:
    """Returns the stylesheet of a card. It affects nothing but elements inside the class ``crossroads``."""
    dark = f"@media (prefers-color-scheme: dark) {{ {_NOT_IN_LIGHT_ONES} {{ {DARK}}} }}\n{_IN_DARK_NOTEBOOKS} {{ {DARK}}}"
    charts = "\n".join(f".crossroads {rule}" for rule in _text("report.css").splitlines() if rule.startswith(".chart"))
    return Html(f".crossroads {{ {LIGHT}}}\n{dark}\n{_text('card.css')}\n{charts}")


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
