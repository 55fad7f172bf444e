"""Draws the training curves of a run, with the epoch whose weights were kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from crossroads.report.facts import percent
from crossroads.report.html.charts import HEIGHT, Chart, around, horizontal, number, spread, vertical
from crossroads.report.html.figures import data_table, figure
from crossroads.report.html.markup import Html, element
from crossroads.report.subject import Epoch


def training(history: Sequence[Epoch], metrics: Mapping[str, Any]) -> Iterator[Html]:
    """Yields the curves of loss and accuracy, or one sentence if there was only one step."""
    if len(history) < 2:
        text = solved_head(metrics)
        if text:
            yield element("p", text, class_="note")
        return
    best = best_position(history, metrics)
    yield _losses(history, best)
    yield _accuracies(history, best)


def solved_head(metrics: Mapping[str, Any]) -> str:
    """Returns how a head was solved, in one sentence; "" if none was."""
    head = next((phase["head"] for phase in metrics.get("phases", ()) if phase.get("head")), None)
    if not head:
        return ""
    kind = {"ridge": "ridge regression", "logistic": "logistic regression"}.get(str(head.get("kind")), str(head.get("kind")))
    tried = len(head.get("tried", ()))
    chosen = f", which was the best of {tried} heads" if tried > 1 else ""
    return f"The head was solved directly, by {kind}{chosen}. There are no epochs, and so no training curves."


def best_position(history: Sequence[Epoch], metrics: Mapping[str, Any]) -> int | None:
    """Returns the position, from 0, of the epoch whose weights were kept; None if it is unknown."""
    phases = metrics.get("phases") or []
    kept = [phase for phase in phases if phase.get("best_epoch") == metrics.get("best_epoch")]
    kept = [phase for phase in kept if phase.get("epochs") == metrics.get("epochs")]
    if not kept:
        return None
    wanted = kept[-1]["name"], kept[-1]["best_epoch"]
    return next((index for index, each in enumerate(history) if (each.phase, each.epoch) == wanted), None)


def _losses(history: Sequence[Epoch], best: int | None) -> Html:
    series = {"training": [each.loss for each in history], "validation": [each.validation_loss for each in history]}
    known = [value for values in series.values() for value in values if math.isfinite(value)]
    limits = around(known, high=math.inf, least=0.05)
    chart = _chart(history, limits, "loss (nats)", number)
    _draw(chart, series, {"training": "control", "validation": "accent"}, best)
    text = "The validation loss is the mean cross-entropy on images that were not trained on."
    return figure("Loss by epoch", chart.svg("Loss by epoch", f"{text} {_best_text(history, best)}"), text, _table(history, best))


def _accuracies(history: Sequence[Epoch], best: int | None) -> Html:
    series = {"validation": [each.validation_accuracy for each in history]}
    chart = _chart(history, around(series["validation"]), "validation accuracy", percent)
    _draw(chart, series, {"validation": "accent"}, best)
    text = _best_text(history, best)
    return figure("Accuracy by epoch", chart.svg("Validation accuracy by epoch", text), text, _table(history, best))


def _chart(history: Sequence[Epoch], limits: tuple[float, float], title: str, written: Callable[[float], str]) -> Chart:
    return Chart(horizontal(1, max(2, len(history)), right=84), vertical(*limits, written=written), "epoch", title)


def _draw(chart: Chart, series: Mapping[str, list[float]], styles: Mapping[str, str], best: int | None) -> None:
    if best is not None:
        chart.segment((best + 1, chart.y.low), (best + 1, chart.y.high), "dashed-rule")
        right = chart.x(best + 1) > 0.6 * chart.x.end
        chart.text(chart.x(best + 1) + (-6 if right else 6), 26, "kept", "quiet", "end" if right else "start")
    for name, values in series.items():
        chart.line([(index + 1, value) for index, value in enumerate(values) if math.isfinite(value)], styles[name])
        if best is not None:
            chart.dot((best + 1, values[best]), styles[name], title=f"{name}, epoch {best + 1}: {chart.y.written(values[best])}")
    ends = spread([chart.y(values[-1]) for values in series.values()], 34, HEIGHT - 52)
    for name, at in zip(series, ends, strict=True):
        chart.text(chart.x(chart.x.high) + 8, at + 4, name, f"label {styles[name]}")


def _best_text(history: Sequence[Epoch], best: int | None) -> str:
    if best is None:
        return f"{len(history)} epochs were trained."
    reached = percent(history[best].validation_accuracy, 1)
    return f"The weights of epoch {best + 1} of {len(history)} were kept, with a validation accuracy of {reached}."


def _table(history: Sequence[Epoch], best: int | None) -> Html:
    rows = [
        (
            index + 1,
            each.phase,
            f"{each.loss:.4f}",
            f"{each.validation_loss:.4f}",
            percent(each.validation_accuracy, 1),
            "yes" if index == best else "",
        )
        for index, each in enumerate(history)
    ]
    return data_table(("epoch", "phase", "loss", "validation loss", "validation accuracy", "kept"), rows)
