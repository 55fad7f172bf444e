"""Makes the compact cards by which notebooks show an audit, advice, an evaluation or a run."""

from __future__ import annotations

from functools import singledispatch

import numpy as np

from crossroads.advice.evidence import Advice
from crossroads.artifact import REPORT
from crossroads.data.audit import Audit
from crossroads.evaluation import Evaluation, Interval
from crossroads.report.facts import class_rows, percent, verdict
from crossroads.report.html import evidence
from crossroads.report.html.figures import data_table, definitions
from crossroads.report.html.markup import Content, Html, element
from crossroads.report.html.style import card_stylesheet
from crossroads.report.subject import SOURCES
from crossroads.run.finish import Run

SHOWN = 5
"""Number of classes, candidates and findings that a card shows."""


def card(result: object) -> Html:
    """Returns the card of a result: an `Audit`, `Advice`, an `Evaluation` or a `Run`."""
    return element("div", element("style", card_stylesheet()), _content(result), class_="crossroads")


@singledispatch
def _content(result: object) -> Content:
    raise TypeError(f"no card shows a {type(result).__name__}")


@_content.register
def _run(run: Run) -> Content:
    metrics = run.metrics
    figure = metrics["headline"]
    report = run.artifact / REPORT
    text = verdict(
        {"accuracy": figure["accuracy"], "accuracy_interval": figure["interval"], "n": figure["images"]},
        SOURCES[figure["source"]],
        metrics["strategy"],
        metrics["backbone"],
    )
    facts: list[tuple[str, Content]] = [
        ("time", f"{metrics['seconds']:,.0f} s"),
        ("artifact", element("code", str(run.artifact))),
        ("report", element("code", str(report)) if report.is_file() else "none"),
    ]
    return [_eyebrow("Run"), _big(figure["accuracy"]), element("p", text), definitions(facts)]


@_content.register
def _evaluation(scored: Evaluation) -> Content:
    facts: list[tuple[str, Content]] = [
        ("balanced accuracy", percent(scored.balanced_accuracy, 1)),
        ("loss", f"{scored.loss:.4f} nats"),
        ("calibration error", percent(scored.expected_calibration_error, 1)),
    ]
    rows = class_rows(np.asarray(scored.confusion_matrix), scored.classes)
    tested = [row for row in rows if row.recall is not None]
    worst = [
        (row.name, _bar(row.recall or 0.0), f"{row.images:,}", f"{row.mistaken_for} ({row.mistakes})" if row.mistakes else "–")
        for row in tested[:SHOWN]
    ]
    title = "class" if len(tested) <= SHOWN else f"worst of {len(tested)} classes"
    table = data_table((title, "found", "images", "most often taken for"), worst)
    return [
        _eyebrow("Evaluation"),
        _big(scored.accuracy),
        _interval(scored.accuracy_interval, scored.n),
        definitions(facts),
        table,
        _notes(scored.warnings),
    ]


@_content.register
def _audit(audit: Audit) -> Content:
    counts = sorted(audit.counts.values())
    facts: list[tuple[str, Content]] = [
        ("images", f"{audit.n:,}"),
        ("readable", f"{audit.readable:,}"),
        ("classes", len(counts)),
        ("images per class", f"{counts[0]:,} to {counts[-1]:,}" if counts else "–"),
    ]
    if audit.groups is not None:
        facts.append(("groups", f"{audit.groups:,}"))
    findings = [
        element(
            "li",
            element("span", finding.severity, class_=f"tag {finding.severity}"),
            finding.summary,
            element("div", f"Hint: {finding.hint}", class_="quiet"),
        )
        for finding in audit.findings
    ]
    found = element("ul", findings) if findings else element("ul", element("li", "No problems were found."))
    return [_eyebrow("Audit"), element("p", audit.origin, class_="lead"), definitions(facts), found]


@_content.register
def _advice(advice: Advice) -> Content:
    case = [] if advice.case is None else [element("p", f"Case {advice.case.number}: {advice.case.title}.")]
    rows = [
        (
            element("b", candidate.recipe.strategy) if position == 0 else candidate.recipe.strategy,
            candidate.recipe.backbone,
            f"{percent(candidate.accuracy.low)} to {percent(candidate.accuracy.high)}",
            f"{candidate.seconds:,.0f}",
            str(candidate.obstacle or candidate.shortened or ""),
        )
        for position, candidate in enumerate(advice.ranked[:SHOWN])
    ]
    table = data_table(("strategy", "backbone", "expected accuracy", "seconds", "note"), rows)
    profile = advice.evidence.leading_profile
    drawn = [] if advice.case is None else [evidence.plane(evidence.position_of(advice.case))]
    drawn += [] if profile is None else [evidence.depth_profile(profile)]
    figures = [element("figure", element("figcaption", each.heading, class_="quiet"), each.chart) for each in drawn]
    charts = element("div", figures, class_="charts")
    return [_eyebrow("Advice"), element("p", advice.best.name, class_="lead"), case, table, charts, _notes(advice.warnings)]


def _eyebrow(text: str) -> Html:
    return element("p", text, class_="eyebrow")


def _big(accuracy: float) -> Html:
    return element("p", percent(accuracy, 1), class_="big")


def _interval(interval: Interval, images: int) -> Html:
    text = f"accuracy on {images:,} images, between {percent(interval[0], 1)} and {percent(interval[1], 1)} (95 % interval)"
    return element("p", text, class_="quiet")


def _bar(value: float) -> Html:
    drawn = element("span", element("span", style=f"width:{100 * value:.1f}%"), class_="bar", aria_hidden="true")
    return element("span", drawn, percent(value, 1))


def _notes(notes: tuple[str, ...]) -> Html | None:
    if not notes:
        return None
    return element("ul", [element("li", element("span", "note", class_="tag warning"), note) for note in notes[:SHOWN]])
