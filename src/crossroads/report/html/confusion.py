"""Makes the confusion matrix: a table of all classes that the script sorts, filters and connects with the images of its cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crossroads.report.facts import shown_classes
from crossroads.report.html.markup import Html, element

MIDDLE, SMALL, MANY = 12, 30, 60
"""Classes above which cells are smaller, above which they are smallest, and above which only some classes are shown at first."""

FIRST = 40
"""Number of these: the ones with most mistakes."""

LEVELS = (0.05, 0.15, 0.35, 0.7)
"""Fractions of a row at which the colour of a cell changes."""


def confusion_matrix(matrix: NDArray[np.int64], classes: Sequence[str]) -> Html:
    """Returns the confusion matrix with its controls. Of very many classes it has only those with most mistakes."""
    shown = shown_classes(matrix)
    k = len(shown)
    size = "large" if k <= MIDDLE else "middle" if k <= SMALL else "small"
    caption = element("caption", "Rows are true classes, columns are predicted classes.", class_="hidden")
    head = [element("th", _name(classes[label]), scope="col") for label in shown]
    corner = element("td", element("span", "true ↓ \N{NO-BREAK SPACE} predicted →"), class_="corner")
    rows = [_row(matrix, classes, shown, label) for label in shown]
    body = element("tbody", rows)
    table = element("table", caption, element("thead", element("tr", corner, head)), body, class_=f"confusion {size}", id="matrix")
    area = element(
        "div",
        table,
        class_="scroll matrix long" if k > MANY else "scroll matrix",
        role="region",
        aria_label="Confusion matrix",
        tabindex="0",
    )
    readout = element(
        "p", "Point at a cell to read it. Click it, or press Enter, to see its images.", id="readout", class_="readout"
    )
    fewer = f"The matrix shows the {k} classes with most mistakes of {len(classes):,}." if k < len(classes) else None
    return element(
        "div", element("p", fewer, class_="quiet") if fewer else None, _controls(k), area, readout, class_="card confusion-card"
    )


def _controls(classes: int) -> Html:
    options = (("name", "as in the data"), ("errors", "most mistakes first"), ("images", "most images first"))
    sort = element("select", [element("option", text, value=value) for value, text in options], id="order")
    parts = [element("label", "Order ", sort)]
    if classes > 2:
        shown = [("all", "all"), ("errors", "with mistakes")]
        if classes > MANY:
            shown.insert(0, (str(FIRST), f"the {FIRST} with most mistakes"))
        choices = [element("option", text, value=value) for value, text in shown]
        parts.append(element("label", "Classes ", element("select", choices, id="shown")))
    return element("div", parts, class_="controls scripted")


def _name(name: str) -> Html:
    return element("span", name, title=name)


def _errors(matrix: NDArray[np.int64], label: int) -> int:
    """Returns the mistakes that a class is part of: its images taken for others, and those of others taken for it."""
    return int(matrix[label].sum() + matrix[:, label].sum() - 2 * matrix[label, label])


def _row(matrix: NDArray[np.int64], classes: Sequence[str], shown: Sequence[int], label: int) -> Html:
    """Returns the row of a class. Empty cells are as short as possible, because 200 classes have 40,000 of them."""
    row = matrix[label]
    head = element("th", _name(classes[label]), scope="row")
    total = max(1, int(row.sum()))
    counts = row[shown].tolist()
    found = np.digitize(row[shown] / total, LEVELS).tolist()
    cells = "".join(
        f'<td class="{"g" if column == label else "b"}{level + 1}">{count}' if count else "<td>"
        for column, count, level in zip(shown, counts, found, strict=True)
    )
    return Html(f'<tr data-images="{row.sum()}" data-errors="{_errors(matrix, label)}">{head}{cells}')
