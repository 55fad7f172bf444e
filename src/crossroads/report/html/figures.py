"""Puts a chart, its caption and its table together, and makes the tables of the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from crossroads.report.html.markup import Content, Html, element


def figure(heading: str, chart: Html, caption: Content = None, table: Html | None = None) -> Html:
    """Returns a chart with its heading, what can be read from it, and its figures as a table that opens on request."""
    details = None if table is None else element("details", element("summary", "Show the figures as a table"), table)
    text = element("figcaption", element("h3", heading), element("p", caption, class_="caption") if caption else None)
    return element("figure", text, chart, details, class_="card")


def data_table(header: Sequence[str], rows: Iterable[Sequence[Content]], *, caption: str = "") -> Html:
    """Returns a table whose first column names the rows. Columns of numbers are aligned to the right."""
    body = [list(row) for row in rows]
    numeric = [bool(body) and all(_is_number(row[column]) for row in body) for column in range(len(header))]
    style = ["number" if right else None for right in numeric]
    head = element("tr", [element("th", name, scope="col", class_=style[i]) for i, name in enumerate(header)])
    lines = [
        element(
            "tr",
            element("th", row[0], scope="row", class_=style[0]),
            [element("td", cell, class_=style[i]) for i, cell in enumerate(row) if i],
        )
        for row in body
    ]
    about = element("caption", caption) if caption else None
    return element("div", element("table", about, element("thead", head), element("tbody", lines)), class_="scroll", tabindex="0")


def definitions(pairs: Iterable[tuple[str, Content]]) -> Html:
    """Returns names with their values, side by side."""
    return element("dl", [element("div", element("dt", name), element("dd", value)) for name, value in pairs], class_="facts")


def _is_number(cell: Content) -> bool:
    if isinstance(cell, int | float):
        return True
    return isinstance(cell, str) and cell[:1] in "0123456789-+–" and any(letter.isdigit() for letter in cell)
