"""Puts the report together as one HTML file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from crossroads.report.facts import class_rows, confused_pairs, next_step, percent, reliability, verdict
from crossroads.report.html import evidence
from crossroads.report.html.confusion import confusion_matrix
from crossroads.report.html.figures import definitions
from crossroads.report.html.gallery import METHODS, Pictures
from crossroads.report.html.markup import Content, Html, element, escaped
from crossroads.report.html.provenance import data_facts, what_was_run
from crossroads.report.html.results import class_table, interval_bar, pairs_table, reliability_diagram
from crossroads.report.html.style import policy, script, stylesheet
from crossroads.report.html.training import training
from crossroads.report.subject import Subject

GENERATOR = "crossroads report"
"""Marks a file as a report, which may be replaced by another one."""


class Section(NamedTuple):
    """One section of the page: its identifier, its heading and its content."""

    name: str
    heading: str
    content: Html


def report_page(subject: Subject) -> str:
    """Returns the report as an HTML document."""
    sections = [section for section in _sections(subject) if section.content]
    links = [element("a", section.heading, href=f"#{section.name}") for section in sections]
    title = f"{subject.name}: {percent(subject.scores['accuracy'], 1)} accuracy"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy()),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content=GENERATOR),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", stylesheet()),
    )
    body = element(
        "body",
        element("a", "Skip to the verdict", href="#verdict", class_="skip"),
        _header(subject),
        element("nav", links, aria_label="Sections"),
        element(
            "main",
            _hero(subject),
            [element("section", element("h2", section.heading), section.content, id=section.name) for section in sections],
        ),
        element("footer", element("p", f"Made by Crossroads {subject.manifest.facts['crossroads']}. This file loads nothing.")),
        Html(f"<script>{script()}</script>"),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _header(subject: Subject) -> Html:
    about = f"on {subject.origin}" if subject.origin else f"{len(subject.classes)} classes"
    return element(
        "header",
        element("p", "Crossroads report", class_="eyebrow"),
        element("h1", subject.name),
        element("p", f"{about} · {subject.manifest.strategy} · {subject.manifest.backbone}", class_="quiet"),
    )


def _hero(subject: Subject) -> Html:
    """Returns the verdict: the accuracy in large type, one sentence, and what to do next."""
    scores, found = subject.scores, evidence.measured(subject.metrics)
    named = "asked" not in subject.metrics or subject.metrics["asked"].get("strategy") not in (None, "auto")
    step = next_step(scores, subject.classes, None if found.curve is None else found.curve.gain, named=named)
    sentence = verdict(scores, subject.images, subject.manifest.strategy, subject.manifest.backbone)
    figure = element(
        "div",
        element("p", percent(scores["accuracy"], 1), class_="big"),
        interval_bar(scores["accuracy"], tuple(scores["accuracy_interval"])),
        class_="headline",
    )
    text = element(
        "div",
        element("p", sentence, class_="lead"),
        element("p", element("b", "Next: "), code_marked(step.text), ".", class_="next"),
    )
    return element("section", figure, text, id="verdict", class_="hero", aria_label="Verdict", tabindex="-1")


def code_marked(text: str) -> list[Content]:
    """Returns text in which parts between backticks are code."""
    return [element("code", part) if index % 2 else part for index, part in enumerate(text.split("`"))]


def _sections(subject: Subject) -> Iterator[Section]:
    matrix, pictures = subject.confusion, Pictures(subject)
    yield Section("scores", "Scores", _scores(subject))
    found = evidence.measured(subject.metrics)
    chosen = element("p", found.choice, class_="note") if found.choice else None
    figures = _grid(evidence.charts(found))
    yield Section("evidence", "Which strategy fits", escaped([chosen, figures]) if figures else Html())
    yield Section("training", "Training", _grid(training(subject.history, subject.metrics)))
    pairs = confused_pairs(matrix)
    confused = (
        element("div", element("h3", "Most confused pairs"), pairs_table(pairs, subject.classes), class_="card pairs")
        if pairs
        else None
    )
    cell = element("div", id="cell", class_="card", aria_live="polite", hidden=True)
    together = element("div", confusion_matrix(matrix, subject.classes), confused, cell, class_="pairing")
    yield Section("confusion", "Confusion", escaped([together, pictures.cells()]))
    yield Section(
        "classes", "Classes", element("div", class_table(class_rows(matrix, subject.classes, subject.predictions)), class_="card")
    )
    if subject.predictions is not None and len(subject.predictions):
        bins = reliability(subject.predictions)
        diagram = reliability_diagram(bins, subject.scores["expected_calibration_error"])
        yield Section("reliability", "Can the confidence be trusted", _grid([diagram]))
    yield Section("images", "Images", escaped(_images(pictures)))
    yield Section("data", "Data", element("div", data_facts(subject, pictures), class_="card"))
    yield Section("run", "What was run", element("div", what_was_run(subject), class_="card"))


def _scores(subject: Subject) -> Html:
    scores = subject.scores
    low, high = scores["balanced_accuracy_interval"]
    pairs: list[tuple[str, Content]] = [
        (subject.images, f"{scores['n']:,}"),
        ("balanced accuracy", f"{percent(scores['balanced_accuracy'], 1)} ({100 * low:.1f} to {percent(high, 1)})"),
        *((f"top {k} accuracy", percent(value, 1)) for k, value in scores["top_k"].items() if int(k) > 1),
        ("loss", f"{scores['loss']:.4f} nats"),
        ("calibration error", percent(scores["expected_calibration_error"], 1)),
    ]
    if scores.get("groups"):
        pairs.insert(1, ("groups", f"{scores['groups']:,}"))
    other = subject.metrics["validation"] if subject.source == "test" else None
    if other is not None:
        kind = "cross-validated" if other.get("cross_validated") else "validation"
        pairs.append((f"{kind} accuracy", f"{percent(other['accuracy'], 1)} on {other['n']:,} images"))
    elif subject.metrics.get("test"):
        test = subject.metrics["test"]
        pairs.append(("test accuracy", f"{percent(test['accuracy'], 1)} on {test['n']:,} images"))
    pairs.append(("interval", f"95 %, {scores['interval_method']}"))
    return element("div", definitions(pairs), class_="card")


def _images(pictures: Pictures) -> Iterator[Content]:
    parts = pictures.galleries()
    if pictures.method and parts:
        box = element("input", type="checkbox", id="heat")
        yield element("p", element("label", box, " Show heat maps"), class_="controls")
        text = (
            f"Bright parts speak for the predicted class. The maps are computed by {METHODS.get(pictures.method, pictures.method)}."
        )
        yield element("p", text, class_="quiet")
    for heading, text, gallery in parts:
        yield [element("h3", heading), element("p", text, class_="caption"), gallery]


def _grid(content: Iterable[Html]) -> Html:
    figures = list(content)
    return element("div", figures, class_="grid") if figures else Html()
