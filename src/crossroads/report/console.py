"""Writes the output of the command line: progress during a run, and results as lines and tables."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO, cast

from crossroads.files.text import printable
from crossroads.plain import from_plain
from crossroads.progress import EpochRecord, Silent, Uncounted, epoch_line, stage_line
from crossroads.report.streams import LastingStream, json_text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from crossroads.data.audit import Audit
    from crossroads.evaluation import Evaluation
    from crossroads.predictor import Prediction
    from crossroads.race.records import RunRow
    from crossroads.run.finish import Run


class ConsoleWatcher:
    """Shows a run on a stream: progress bars on a terminal, plain lines elsewhere.

    Args:
        stream: The stream to write to; None for no output. After a failure, nothing more is written to it.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = cast(TextIO, LastingStream(stream))
        self._shown: set[str] = set()
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._counted: set[str] = set()

    def __enter__(self) -> Self:
        if self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TimeElapsedColumn())
            self._bars = Progress(*columns, console=Console(file=self._stream, highlight=False), transient=True)
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()

    def note(self, text: str) -> None:
        """Prints a line, but each text only once: every run of a race repeats some notes."""
        self._once(f"note: {text}")

    def warning(self, text: str) -> None:
        """Prints a line like that of a note, in colour on a terminal."""
        self._once(f"note: {text}", "bold yellow")

    def progress(self, stage: str, done: int, total: int) -> None:
        """Shows a bar on a terminal. Elsewhere, prints one line at the end of a stage that is counted."""
        counted = not isinstance(stage, Uncounted)
        if self._bars is None:
            if done == total and counted:
                self._line(stage_line(stage, total))
        elif done == total:
            self._end_bar(stage)
        else:
            self._bar(stage, done, total, counted=counted)

    def step(self, epoch: int, done: int, total: int) -> None:
        """Shows a bar on a terminal, and nothing elsewhere."""
        self._bar(f"epoch {epoch}", done, total)  # it stays until the epoch is validated

    def epoch(self, record: EpochRecord, total: int) -> None:
        """Prints one line."""
        self._end_bar(f"epoch {record.epoch}")
        self._line(epoch_line(record, total))

    def _bar(self, name: str, done: int, total: int, *, counted: bool = True) -> None:
        if self._bars is None:
            return
        count = f"{done:,}/{total:,}" if counted else ""
        if name not in self._tasks:
            if counted:
                for interrupted in self._counted & self._tasks.keys():
                    self._end_bar(interrupted)
            self._tasks[name] = self._bars.add_task(name, total=total if counted else None, count=count)
            if counted:
                self._counted.add(name)
        self._bars.update(self._tasks[name], completed=done, count=count)

    def _end_bar(self, name: str) -> None:
        """Removes the bar of a stage. What began inside an uncounted stage has ended with it, perhaps by an error."""
        if self._bars is None or name not in self._tasks:
            return
        names = list(self._tasks)
        for ended in [name] if name in self._counted else names[names.index(name) :]:
            self._bars.remove_task(self._tasks.pop(ended))

    def _once(self, text: str, style: str | None = None) -> None:
        if text not in self._shown:
            self._shown.add(text)
            self._line(text, style)

    def _line(self, text: str, style: str | None = None) -> None:
        if self._bars is None:
            print(printable(text), file=self._stream, flush=True)
        else:
            self._bars.console.print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)


class NotesOnly(Silent):
    """Shows notes and warnings, but no progress."""

    def __init__(self, stream: TextIO | None) -> None:
        self._console = ConsoleWatcher(stream)

    def note(self, text: str) -> None:
        """Prints a line, once."""
        self._console.note(text)

    def warning(self, text: str) -> None:
        """Prints a line, once."""
        self._console.warning(text)


def print_lines(lines: Iterable[tuple[str, object]]) -> None:
    """Prints ``name: value`` lines."""
    for name, value in lines:
        # Rounding first shows -0.00001 as 0.0000, not as -0.0000.
        print(f"{name}: {round(value, 4) + 0.0:.4f}" if isinstance(value, float) else f"{name}: {value}")


def print_table(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    """Prints a table whose columns are as wide as their widest cell, with numbers aligned to the right."""
    cells = [tuple(map(str, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    right = [bool(cells) and all(_is_number(row[i]) for row in cells) for i in range(len(header))]
    for row in (header, tuple("-" * width for width in widths), *cells):
        padded = (cell.rjust(width) if flush else cell.ljust(width) for cell, width, flush in zip(row, widths, right, strict=True))
        print("  ".join(padded).rstrip())


def print_run(run: Run) -> None:
    """Prints the runs of the race if there was one, the scores, and the folder of the artifact."""
    from crossroads.race.records import RaceReport
    from crossroads.run.metrics import headline_text

    metrics = run.metrics
    if len(metrics.get("race", {}).get("runs", ())) > 1:
        header = ("run", "backbone", "epochs", "expected", "validation", "images", "seconds", "")
        print_table(header, map(_run_row, from_plain(RaceReport, metrics["race"]).runs))
        print()
    print_lines([("accuracy", headline_text(metrics["headline"]))])
    if (metrics.get("choice") or {}).get("recommended"):  # if nothing else was tried, a note has said why
        print_lines([("choice", metrics["choice"]["text"])])
    print_lines(line for split in ("validation", "test") for line in _score_lines(split, metrics[split]))
    memory = metrics["peak_memory_mb"]
    print_lines(
        [
            ("backbone", metrics["backbone"]),
            ("strategy", metrics["strategy"]),
            ("best_epoch", _best_epoch(metrics)),
            ("seconds", f"{metrics['seconds']:.1f}"),
            ("peak_memory_mb", "unknown" if memory is None else f"{memory:.0f}"),
            ("artifact", run.artifact),
        ]
    )


def _run_row(run: RunRow) -> tuple[object, ...]:
    """Returns the row of one run of a race: its epochs of the usual number, the expected accuracy and the accuracy reached."""
    epochs = "-" if run.epochs is None else str(run.epochs)
    return (
        run.strategy,
        run.backbone,
        epochs if run.epochs == run.usual_epochs else f"{epochs} of {run.usual_epochs}",
        "-" if run.failed or run.expected is None else f"{run.expected.value:.3f}",
        "-" if run.validation_accuracy is None else f"{run.validation_accuracy:.4f}",
        "-" if run.validation_accuracy is None else f"{run.images:.0f}",
        f"{run.seconds:.0f}",
        ", ".join(filter(None, ["won" if run.won else run.failed or "", "" if run.improved else "kept its first head"])),
    )


def _best_epoch(metrics: dict[str, Any]) -> str:
    """Returns the best epoch of all epochs as text. If the solved head was better than finetuning, says that instead."""
    last = metrics["phases"][-1]
    if last["name"] == "tune" and (last["epochs"], last["best_epoch"]) != (metrics["epochs"], metrics["best_epoch"]):
        return f"the solved head ({last['epochs']} epochs of finetuning were not better)"
    return f"{metrics['best_epoch']} of {metrics['epochs']}"


def _score_lines(split: str, scores: dict[str, Any] | None) -> Iterable[tuple[str, object]]:
    if scores is None:
        yield split, "none held out"
        return
    if scores.get("cross_validated"):
        split = "cross_validated"
    for name in ("n", "seen_in_training", "groups", "loss", "accuracy", "balanced_accuracy"):
        if scores.get(name) is None or (name, scores[name]) == ("seen_in_training", 0):
            continue
        yield f"{split}_{name}", scores[name]
        if f"{name}_interval" in scores:
            low, high = scores[f"{name}_interval"]
            yield f"{split}_{name}_interval", f"{low:.4f} to {high:.4f} (95 %, {scores['interval_method']})"
    if scores.get("untested_classes"):
        yield (
            f"{split}_untested_classes",
            f"{len(scores['untested_classes'])} of {len(scores['classes'])}, excluded from balanced_accuracy",
        )


def print_evaluation(scored: Evaluation) -> None:
    """Prints the scores, a table of classes, and the most confident mistakes."""
    print_lines(scored.lines())
    print(f"\n{scored.table()}")
    if scored.mistakes:
        print("\nmost confident mistakes")
        rows = ((m.name, m.true, m.predicted, f"{m.confidence:.4f}") for m in scored.mistakes)
        print_table(("image", "true", "predicted", "confidence"), rows)


def print_audit(audit: Audit) -> None:
    """Prints a summary of the data, then each finding with its hint."""
    lines: list[tuple[str, object]] = [
        ("data", audit.origin),
        ("images", f"{audit.n:,}"),
        ("readable", f"{audit.readable:,}"),
        ("classes", len(audit.counts)),
    ]
    if audit.groups is not None:
        lines.append(("groups", f"{audit.groups:,}"))
    if audit.splits:
        lines.append(("splits", ", ".join(f"{name} {count:,}" for name, count in audit.splits.items())))
    if audit.sides is not None:
        smallest, median, largest = audit.sides
        lines.append(("shorter_side_px", f"{smallest} to {largest}, median {median}"))
    counts = sorted(audit.counts.values())
    lines.append(("images_per_class", f"{counts[0]:,} to {counts[-1]:,}"))
    print_lines(lines)
    if not audit.findings:
        print("\nno problems found")
        return
    for finding in audit.findings:
        print(f"\n{finding.severity}: {finding.code}: {finding.summary}")
        if finding.examples:
            print("  such as:")
            for example in finding.examples:
                print(f"    {example}")
        print(f"  hint: {finding.hint}")


def print_predictions(predictions: Iterable[Prediction]) -> None:
    """Prints one line per image, with labels in order of probability."""
    for prediction in predictions:
        print(
            f"{printable(prediction.name)}: "
            + ", ".join(f"{ranked.label} {ranked.probability:.4f}" for ranked in prediction.labels)
        )


def print_json(value: Any) -> None:
    """Prints one JSON object on the standard output."""
    print(json_text(value, sys.stdout))


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").rstrip("%"))
    except ValueError:
        return False
    return True
