"""Builds HTML. Text is escaped unless it is `Html`, so that no class name or file name can become markup."""

from __future__ import annotations

import html
from collections.abc import Iterable

from crossroads.files.text import printable


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = str | int | float | None | Iterable["Content"]
"""What an element can contain: text, `Html`, numbers, or any nesting of them. None is left out."""

_VOID = frozenset({"br", "col", "hr", "img", "input", "link", "meta", "line", "path", "rect", "wbr"})
"""Elements without an end tag; those of SVG close themselves."""


def escaped(content: Content) -> Html:
    """Returns content as HTML. Everything but `Html` is escaped."""
    if content is None:
        return Html()
    if isinstance(content, Html):
        return content
    if isinstance(content, str):
        return Html(html.escape(printable(content)))
    if isinstance(content, int | float):
        return Html(content)
    return Html("".join(map(escaped, content)))


def element(name: str, /, *content: Content, **attributes: str | int | float | bool | None) -> Html:
    """Returns an element.

    Args:
        name: Its name, such as ``div``.
        *content: Its content.
        **attributes: Its attributes. An underscore is a hyphen, and one at the end is dropped (``class_``). An attribute that is
            None or False is left out; one that is True has no value.
    """
    start = f"<{name}{''.join(map(_attribute, attributes.items()))}"
    if name in _VOID:
        return Html(f"{start}/>")
    return Html(f"{start}>{escaped(content)}</{name}>")


def _attribute(named: tuple[str, str | int | float | bool | None]) -> str:
    name, value = named[0].rstrip("_").replace("_", "-"), named[1]
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{html.escape(printable(str(value)))}"'
