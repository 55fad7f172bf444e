"""Writes the results of the commands: scores, tables, findings and predictions, for people or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from crossroads.plain import from_plain
from crossroads.report.page import Column, Page, Styled
from crossroads.report.streams import json_text
from crossroads.report.words import duration, interval

if TYPE_CHECKING:
    from crossroads.data.audit import Audit
    from crossroads.evaluation import Evaluation
    from crossroads.predictor import Prediction, Ranked
    from crossroads.race.records import RunRow
    from crossroads.run.finish import Run

Commands = Iterable[tuple[str, str]]
"""Commands to run next, each with what it does."""

BAR = 30
"""Length in characters of the bar for a probability of 1."""

HEADLINES = {"test": "test accuracy", "cross-validation": "cross-validated accuracy", "validation": "validation accuracy"}
"""The names of the accuracy that is reported first, by its source."""


def print_lines(lines: Iterable[tuple[str, object]]) -> None:
    """Writes ``label: value`` lines. A number is rounded to four digits."""
    Page().facts((_label(name), _value(value)) for name, value in lines)


def print_table(header: Sequence[Column | str], rows: Iterable[tuple[object, ...]]) -> None:
    """Writes a table with numbers aligned to the right."""
    Page().table(header, rows)


def print_json(value: Any) -> None:
    """Prints one JSON object on the standard output."""
    print(json_text(value, sys.stdout))


def print_run(run: Run, next_commands: Commands = ()) -> None:
    """Writes the candidates of the race if there was one, the scores, what was trained, and where the artifact is."""
    from crossroads.race.records import RaceReport

    page, metrics = Page(), run.metrics
    if len(metrics.get("race", {}).get("runs", ())) > 1:
        columns = (
            *(Column("run"), Column("backbone", 2), Column("epochs", 3), Column("expected", 1), Column("validation")),
            *(Column("images", 4), Column("time", right=True), Column("")),
        )
        page.table(columns, map(_run_row, from_plain(RaceReport, metrics["race"]).runs))
        if not page.rich:  # the panel has its own space
            page.space()
    with page.panel("result"):
        _headline(page, metrics["headline"])
        page.space()
        _print_scores(page, metrics)
        page.facts(_run_facts(run))
    if (metrics.get("choice") or {}).get("recommended"):  # if nothing else was tried, a note has said why
        page.space()
        page.text(f"choice: {metrics['choice']['text']}")
    page.commands(next_commands)


def _headline(page: Page, figure: Mapping[str, Any]) -> None:
    rest = f"({interval(figure['interval'], 3)}), {figure['images']:,} images"
    page.headline(HEADLINES[figure["source"]], f"{figure['accuracy']:.4f}", rest)


def _print_scores(page: Page, metrics: Mapping[str, Any]) -> None:
    """Writes a table with one row for validation and one for the test."""
    scores = {
        "cross-validated" if name == "validation" and metrics[name].get("cross_validated") else name: metrics[name]
        for name in ("validation", "test")
        if metrics[name] is not None
    }
    if not scores:
        return
    columns = (
        *("scores", Column("images"), Column("groups", 5), Column("accuracy"), Column("95 %", 1)),
        *(Column("balanced", 2), Column("95 % of balanced", 4), Column("loss", 3)),
    )
    grouped = any(each.get("groups") is not None for each in scores.values())
    rows = [_score_row(name, each) for name, each in scores.items()]
    kept = [i for i in range(len(columns)) if i != 2 or grouped]
    page.table([columns[i] for i in kept], [[row[i] for i in kept] for row in rows])
    page.space()


def _score_row(name: str, scores: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        name,
        f"{scores['n']:,}",
        "-" if scores.get("groups") is None else f"{scores['groups']:,}",
        f"{scores['accuracy']:.4f}",
        interval(scores["accuracy_interval"]),
        f"{scores['balanced_accuracy']:.4f}",
        interval(scores["balanced_accuracy_interval"]),
        f"{scores['loss']:.4f}",
    )


def _run_facts(run: Run) -> Iterator[tuple[str, object]]:
    metrics = run.metrics
    for split in ("validation", "test"):
        scores = metrics[split]
        if scores is None:
            yield split, "none held out"
            continue
        if scores.get("seen_in_training"):
            yield f"{split} images seen in training", Styled(f"{scores['seen_in_training']:,}", "yellow")
        if scores.get("untested_classes"):
            untested = f"{len(scores['untested_classes'])} of {len(scores['classes'])}"
            yield f"classes without {split} images", f"{untested}, left out of the balanced accuracy"
    scores = metrics["test"] or metrics["validation"]
    if scores is not None and scores.get("groups") is not None:
        yield "intervals", f"95 %, {scores['interval_method']}"
    memory = metrics["peak_memory_mb"]
    yield "strategy", metrics["strategy"]
    yield "backbone", metrics["backbone"]
    if metrics["epochs"] > 1 or len(metrics["phases"]) > 1:  # a solved head has no epochs
        yield "best epoch", _best_epoch(metrics)
    yield "time", duration(metrics["seconds"])
    yield "peak memory", "unknown" if memory is None else f"{memory:,.0f} MB"
    yield "artifact", Styled(run.artifact, "bold")
    report = run.artifact / "report.html"
    if report.exists():
        yield "report", report


def _run_row(run: RunRow) -> tuple[object, ...]:
    """Returns the row of one run of a race: its epochs of the usual number, the expected accuracy and the accuracy reached."""
    epochs = "-" if run.epochs is None else str(run.epochs)
    reached = "-" if run.validation_accuracy is None else f"{run.validation_accuracy:.4f}"
    return (
        run.strategy,
        run.backbone,
        epochs if run.epochs == run.usual_epochs else f"{epochs} of {run.usual_epochs}",
        "-" if run.failed or run.expected is None else f"{run.expected.value:.3f}",
        Styled(reached, "bold green") if run.won else reached,
        "-" if run.validation_accuracy is None else f"{run.images:,.0f}",
        duration(run.seconds),
        _outcome(run),
    )


def _outcome(run: RunRow) -> str:
    """Returns what became of a run of a race; "" if nothing needs to be said."""
    text = ", ".join(filter(None, ["won" if run.won else run.failed or "", "" if run.improved else "kept its first head"]))
    return Styled(text, "bold green" if run.won else "red" if run.failed else "dim")


def _best_epoch(metrics: Mapping[str, Any]) -> str:
    """Returns the best epoch of all epochs as text. If the solved head was better than finetuning, says that instead."""
    last = metrics["phases"][-1]
    if last["name"] == "tune" and (last["epochs"], last["best_epoch"]) != (metrics["epochs"], metrics["best_epoch"]):
        return f"the solved head ({last['epochs']} epochs of finetuning were not better)"
    return f"{metrics['best_epoch']} of {metrics['epochs']}"


def print_evaluation(scored: Evaluation, next_commands: Commands = ()) -> None:
    """Writes the scores, a table of classes, and the most confident mistakes."""
    page = Page()
    with page.panel("evaluation"):
        rest = f"({interval(scored.accuracy_interval, 3)}), {scored.n:,} images"
        page.headline("accuracy", f"{scored.accuracy:.4f}", rest)
        page.space()
        page.facts(_evaluation_facts(scored))
    page.space()
    columns = ("class", Column("precision", 1), "recall", Column("f1", 2), "images", "")
    page.table(columns, ((s.name, *map(_score, s[1:4]), s.support, "" if s.support else "not tested") for s in scored.per_class))
    if scored.mistakes:
        page.heading("Most confident mistakes")
        rows = ((m.name, m.true, Styled(m.predicted, "red"), f"{m.confidence:.4f}") for m in scored.mistakes)
        page.table(("image", "true", "predicted", "confidence"), rows)
    page.commands(next_commands)


def _evaluation_facts(scored: Evaluation) -> Iterator[tuple[str, object]]:
    yield "balanced accuracy", f"{scored.balanced_accuracy:.4f} ({interval(scored.balanced_accuracy_interval)})"
    yield from ((f"top-{k} accuracy", f"{accuracy:.4f}") for k, accuracy in scored.top_k.items() if k > 1)
    yield "loss", f"{scored.loss:.4f}"
    yield "calibration error", f"{scored.expected_calibration_error:.4f}"
    yield "intervals", f"95 %, {scored.interval_method}"
    if scored.groups is not None:
        yield "groups", f"{scored.groups:,}"
    if scored.refused:
        yield "refused images", Styled(f"{len(scored.refused):,}", "yellow")
    if scored.seen_in_training:
        yield "images seen in training", Styled(f"{scored.seen_in_training:,}", "yellow")
    if scored.untested_classes:
        untested = f"{len(scored.untested_classes)} of {len(scored.classes)}"
        yield "classes without images", f"{untested}, left out of the balanced accuracy"


def _score(value: float | None) -> str:
    if value is None:
        return "-"
    return Styled(f"{value:.4f}", "green" if value >= 0.9 else "yellow" if value >= 0.6 else "red")


SEVERITY_STYLES = {"error": "bold red", "warning": "bold yellow", "info": "bold cyan"}


def print_audit(audit: Audit, next_commands: Commands = ()) -> None:
    """Writes a summary of the data, then each finding with its hint."""
    page = Page()
    with page.panel("data"):
        page.facts(_audit_facts(audit))
    if not audit.findings:
        page.space()
        page.text("no problems found", "bold green")
    for finding in audit.findings:
        page.space()
        page.text(f"{finding.severity}: {finding.code}: {finding.summary}", SEVERITY_STYLES[finding.severity])
        if finding.examples:
            page.text("  such as:")
            for example in finding.examples:
                page.text(f"    {example}", "dim")
        page.text(f"  hint: {finding.hint}")
    page.commands(next_commands)


def _audit_facts(audit: Audit) -> Iterator[tuple[str, object]]:
    yield "data", audit.origin
    yield "images", f"{audit.n:,}"
    yield "readable", f"{audit.readable:,}"
    yield "classes", f"{len(audit.counts):,}"
    if audit.groups is not None:
        yield "groups", f"{audit.groups:,}"
    if audit.splits:
        yield "splits", ", ".join(f"{name} {count:,}" for name, count in audit.splits.items())
    if audit.sides is not None:
        smallest, median, largest = audit.sides
        yield "shorter side", f"{smallest} px" if smallest == largest else f"{smallest} to {largest} px, median {median}"
    fewest, most = min(audit.counts.values()), max(audit.counts.values())
    yield "images per class", f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    for severity, word in (("error", "errors"), ("warning", "warnings")):
        count = sum(finding.severity == severity for finding in audit.findings)
        if count:
            yield word, Styled(count, SEVERITY_STYLES[severity])


def print_predictions(predictions: Iterable[Prediction]) -> None:
    """Writes one line per image, with labels in order of probability. On a terminal, the first label is the one that stands out."""
    page = Page()
    if not page.rich:
        for prediction in predictions:
            ranked = ", ".join(f"{one.label} {one.probability:.4f}" for one in prediction.labels)
            page.text(f"{prediction.name}: {ranked}")
        return
    listed = list(predictions)
    if len(listed) == 1:
        page.text(listed[0].name, "bold")
        page.table(("label", "probability", Column("", 1)), map(_ranked_row, listed[0].labels))
    elif listed:
        page.table(("image", "label", "probability", Column("next best", 1)), map(_prediction_row, listed))


def _ranked_row(ranked: Ranked) -> tuple[object, ...]:
    bar = "━" * round(BAR * ranked.probability)
    return ranked.label, f"{ranked.probability:.4f}", Styled(bar, _style_of(ranked.probability))


def _prediction_row(prediction: Prediction) -> tuple[object, ...]:
    first, rest = prediction.labels[0], prediction.labels[1:]
    probability = Styled(f"{first.probability:.4f}", _style_of(first.probability))
    others = ", ".join(f"{one.label} {one.probability:.2f}" for one in rest[:3] if one.probability >= 0.005)
    return prediction.name, Styled(first.label, "bold"), probability, Styled(others, "dim")


def _style_of(probability: float) -> str:
    return "green" if probability >= 0.9 else "yellow" if probability >= 0.5 else "red"


def _label(name: str) -> str:
    return name.replace("_", " ")


def _value(value: object) -> object:
    # Rounding first shows -0.00001 as 0.0000, not as -0.0000.
    return f"{round(value, 4) + 0.0:.4f}" if isinstance(value, float) else value
