"""Shows images: the most confident mistakes, the least certain correct predictions, and those of the cells of the matrix."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

from crossroads.artifact import Predictions
from crossroads.files.text import printable
from crossroads.report.facts import cell_rows, confident_mistakes, percent, shown_classes, unsure_hits
from crossroads.report.html.markup import Html, element
from crossroads.report.subject import Subject
from crossroads.report.thumbnails import CELLS, MISTAKES, PER_CELL, UNSURE, Thumbnails

METHODS = {
    "cam": "class activation maps, which are exact for this network",
    "reciprocam": "ReciproCAM, which masks all but one position of the last feature map",
    "occlusion": "occlusion, which blurs parts of the image",
}


class Pictures:
    """The pictures of a subject, by the row of its predictions.

    Args:
        subject: The subject.
    """

    def __init__(self, subject: Subject) -> None:
        self._thumbnails: Thumbnails = subject.thumbnails
        self._confusion = subject.confusion
        self._predictions, self._classes = subject.predictions, subject.classes
        self._of_row = {} if self._predictions is None else self._thumbnails.rows_of(self._predictions)
        self._mistakes = [] if self._predictions is None else confident_mistakes(self._predictions, MISTAKES)
        self._unsure = [] if self._predictions is None else unsure_hits(self._predictions, UNSURE)
        self._shown = {*self._mistakes, *self._unsure}

    def __bool__(self) -> bool:
        return bool(self._of_row)

    @property
    def method(self) -> str:
        """How the heat maps were computed; "" if there are none."""
        return self._thumbnails.method

    def galleries(self) -> list[tuple[str, str, Html]]:
        """Returns each gallery as its heading, its explanation and its images. There are none without predictions."""
        if self._predictions is None:
            return []
        parts = (
            (
                "Most confident mistakes",
                "The classifier is wrong and sure of it. Look for wrong labels here first.",
                self._mistakes,
            ),
            (
                "Least certain correct predictions",
                "The classifier is right, but only just. More images like these make it safer.",
                self._unsure,
            ),
        )
        return [(heading, text, self._gallery(self._predictions, rows)) for heading, text, rows in parts if rows]

    def cells(self) -> Html:
        """Returns the images of the cells of the confusion matrix, as data for the script."""
        cells: dict[str, list[list[str | int]]] = {}
        if self._predictions is not None:
            for (true, predicted), rows in cell_rows(self._predictions, PER_CELL, CELLS).items():
                cells[f"{true},{predicted}"] = [self._entry(self._predictions, row) for row in rows]
        shown = shown_classes(self._confusion)
        data = {"labels": shown, "classes": [printable(self._classes[label]) for label in shown], "cells": cells}
        text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
        return Html(f'<script type="application/json" id="cells">{text.replace("<", chr(92) + "u003c")}</script>')

    def small(self, rows: Sequence[int]) -> Html | None:
        """Returns the pictures of some rows with their classes and names, without heat maps; None if there are none."""
        predictions, found = self._predictions, [row for row in rows if row in self._of_row]
        if predictions is None or not found:
            return None
        items = []
        for row in found:
            true = self._classes[predictions.labels[row]]
            plain = element("img", src=_source(self._thumbnails.pictures[self._of_row[row]]), alt=f"an image of {true}")
            caption = element("figcaption", element("p", element("b", true)), _named(str(predictions.names[row])))
            items.append(element("li", element("figure", element("div", plain, class_="picture"), caption)))
        return element("ul", items, class_="gallery")

    def _entry(self, predictions: Predictions, row: int) -> list[str | int]:
        """Returns the name, the confidence in percent, and the picture of an image or ``#`` and the identifier of its element."""
        index = self._of_row.get(row)
        if index is None:
            picture = ""
        elif row in self._shown:
            picture = f"#image-{row}"
        else:
            picture = _source(self._thumbnails.pictures[index])
        return [str(predictions.names[row]), round(100 * float(predictions.confidence[row])), picture]

    def _gallery(self, predictions: Predictions, rows: Sequence[int]) -> Html:
        return element("ul", [element("li", self._item(predictions, row)) for row in rows], class_="gallery")

    def _item(self, predictions: Predictions, row: int) -> Html:
        true, predicted = (self._classes[labels[row]] for labels in (predictions.labels, predictions.predicted))
        right = true == predicted
        said = element("span", predicted, class_="good" if right else "bad")
        lines = [
            element("p", said, " ", element("span", percent(float(predictions.confidence[row])), class_="quiet")),
            element("p", "true: ", element("b", true)) if not right else self._second(predictions, row),
            _named(str(predictions.names[row])),
        ]
        return element("figure", self._picture(row, f"{true}, predicted as {predicted}"), element("figcaption", lines))

    def _second(self, predictions: Predictions, row: int) -> Html | None:
        if predictions.top_labels.shape[1] < 2:
            return None
        second = self._classes[predictions.top_labels[row, 1]]
        return element("p", "or ", element("b", second), f" {percent(float(predictions.top_probabilities[row, 1]))}")

    def _picture(self, row: int, text: str) -> Html | None:
        index = self._of_row.get(row)
        if index is None:
            return element("div", class_="picture") if self else None
        plain = element("img", id=f"image-{row}", src=_source(self._thumbnails.pictures[index]), alt=text, class_="plain")
        if not self._thumbnails.maps[index]:
            return element("div", plain, class_="picture")
        heat = element("img", src=_source(self._thumbnails.maps[index]), alt=f"heat map of {text}", class_="heat")
        return element("div", plain, heat, class_="picture mapped")


def _named(name: str) -> Html:
    """Returns the last part of the name of an image; the whole name is shown under the pointer."""
    return element("p", name.rpartition("/")[2], class_="name", title=name)


def _source(picture: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
