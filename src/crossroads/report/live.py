"""Draws what goes on: one line that changes on a terminal, and above it the table of a race."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from crossroads.report.activity import Activity, Going, Racer
from crossroads.report.words import clock, in_bytes, in_words

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table
    from rich.text import Text

FRAMES, PLAIN_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "-\\|/"
"""The marks that show that the program works, in turn. The others are for a terminal without Unicode."""

BAR = 10
"""Fewest characters of the bar. It is left out if there is no room for it."""

STYLES = {
    "best so far": "bold green",
    "running": "cyan",
    "cross-validating": "cyan",
    "failed": "red",
    "out of time": "yellow",
    "waiting": "dim",
    "not tried": "dim",
}
"""Colours of the states of a candidate."""

COLUMNS = ("candidate", "best result", "expected", "time", "state")
"""Columns of the table of a race."""


class Drawing:
    """A renderable for Rich that shows an activity as it is at the moment of drawing.

    Args:
        activity: The activity. Whoever changes it holds `lock`.
    """

    def __init__(self, activity: Activity) -> None:
        self.activity, self.lock = activity, threading.RLock()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the table of the race, if there is one, and the line."""
        now = time.monotonic()
        with self.lock:
            if len(self.activity.racers) > 1:
                yield race_table(self.activity, now, options.max_width, rows=options.size.height - 4)
            yield line(self.activity, now, options.max_width, ascii_only=options.ascii_only)


def line(activity: Activity, now: float, width: int, *, ascii_only: bool = False) -> Text:
    """Returns the line: time of the call, step, stage, bar, and times of the stage.

    It leaves room for the ``^C`` that a terminal echoes, which would otherwise begin another line.
    """
    from rich.text import Text

    width -= len("^C")
    frames = PLAIN_FRAMES if ascii_only else FRAMES
    left = Text(f"{frames[int(now * 10) % len(frames)]} ", style="cyan", no_wrap=True)
    fraction, began = _progress(activity)
    if began - activity.began > 1:
        limit = f" of {clock(activity.budget)}" if activity.budget and width >= 100 else ""
        left.append(f"{clock(now - activity.began)}{limit}  ", "dim")
    if activity.step is not None:
        left.append(f"step {activity.step.number} of {activity.step.total}  ", "dim")
    left.append(_what(activity), "default")
    times = f"  {clock(now - began)}"
    if fraction and now - began > 2:
        times += f", {clock((now - began) * (1 - fraction) / fraction)} left"
    room = width - 1 - len(times) - left.cell_len
    right = Text(no_wrap=True)
    if fraction is not None and room >= BAR + 2:
        right.append_text(_bar(fraction, min(2 * BAR, room - 2), ascii_only=ascii_only))
    right.append(times, "cyan")
    left.truncate(max(0, width - 1 - right.cell_len), overflow="ellipsis", pad=True)
    return left.append_text(right)


def _what(activity: Activity) -> str:
    """Returns the innermost stage in words, with the epoch if something is trained."""
    stage = _current(activity)
    if activity.epochs is not None and not (stage is not None and stage.counted):
        epochs = activity.epochs
        name = next((each.name for each in reversed(activity.going) if "training" in each.name), "training")
        of = f" of {epochs.total}" if epochs.total else ""
        reached = "" if epochs.best is None else f", validation accuracy {epochs.best:.3f}"
        return f"{name}, epoch {epochs.number}{of}{reached}"
    if stage is None:
        return "working"
    return _with_count(stage) if stage.counted else in_words(stage.name, 0)


def _current(activity: Activity) -> Going | None:
    """Returns the innermost stage, or the counted one around it, whose parts are still reported."""
    stage = activity.going[-1] if activity.going else None
    around = activity.going[-2] if len(activity.going) > 1 else None
    if stage is not None and not stage.counted and around is not None and around.counted and around.done:
        return around
    return stage


def _with_count(stage: Going) -> str:
    text = in_words(stage.name, stage.total)
    if in_bytes(stage.name):
        return f"{text}, {stage.done / 1e6:,.1f}" + (f" of {stage.total / 1e6:,.1f} MB" if stage.total else " MB")
    return text


def _progress(activity: Activity) -> tuple[float | None, float]:
    """Returns the finished part of what goes on, None if it is unknown, and when it began."""
    stage = _current(activity)
    if activity.epochs is not None and not (stage is not None and stage.counted):
        return activity.epochs.fraction if activity.epochs.total else None, activity.epochs.began
    if stage is None:
        return None, activity.began
    return (stage.done / stage.total if stage.counted and stage.total else None), stage.began


def _bar(fraction: float, length: int, *, ascii_only: bool) -> Text:
    from rich.text import Text

    full = round(length * min(1.0, fraction))
    mark, rest = ("#", "-") if ascii_only else ("━", "━")
    return Text("  ").append(mark * full, "green").append(rest * (length - full), "bright_black")


def race_table(activity: Activity, now: float, width: int, *, rows: int = 100) -> Table:
    """Returns the table of a race: a row for each candidate with its best result so far, its time and its state.

    If there are more candidates than rows, those that do not run and have no result are left out first.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", title=None, padding=(0, 2, 0, 0))
    columns = list(COLUMNS)
    if width < 72:
        columns.remove("expected")
    for name in columns:
        right = name in ("best result", "expected", "time")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "candidate", overflow="ellipsis")
    best = max((racer.best or 0.0 for racer in activity.racers.values()), default=0.0)
    racers = list(activity.racers.values())
    if len(racers) > rows:
        shown = sorted(racers, key=lambda racer: racer.best is None and racer.began is None)[: max(1, rows)]
        racers = [racer for racer in racers if racer in shown]
    for racer in racers:
        cells = dict(zip(COLUMNS, _cells(racer, now), strict=True))
        style = STYLES.get(racer.state, "default")
        strong = "bold green" if racer.best is not None and racer.best == best else "default"
        table.add_row(*(Text(cells[name], strong if name == "best result" else style) for name in columns))
    return table


def _cells(racer: Racer, now: float) -> Iterator[str]:
    yield racer.name
    yield "-" if racer.best is None else f"{racer.best:.4f}"
    yield "-" if racer.expected is None else f"{racer.expected:.3f}"
    yield clock(racer.taken(now)) if racer.taken(now) else "-"
    of_epochs = f", epoch {racer.epochs + 1} of {racer.usual}" if racer.usual and racer.epochs < racer.usual else ""
    yield f"{racer.state}{of_epochs if racer.state == 'running' else ''}"


def summary(activity: Activity, now: float, *, ended: bool = False) -> Iterator[str]:
    """Yields an activity as plain lines: the candidates of a race, and what goes on unless it has ended."""
    if len(activity.racers) > 1:
        rows = [COLUMNS, *(tuple(_cells(racer, now)) for racer in activity.racers.values())]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    if ended:
        return
    step = "" if activity.step is None else f"step {activity.step.number} of {activity.step.total}  "
    fraction, began = _progress(activity)
    left = f", {clock((now - began) * (1 - fraction) / fraction)} left" if fraction and now - began > 2 else ""
    yield f"{step}{_what(activity)}  {clock(now - began)}{left}"
