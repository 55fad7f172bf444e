"""Draws what the advice measured: the plane of the four cases, the depth profile, the learning curve and the race."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from crossroads.advice.cases import DECADES, LARGE, SIMILAR, Case
from crossroads.advice.profile import Profile
from crossroads.advice.size import Curve
from crossroads.plain import from_plain
from crossroads.race.records import RaceReport, RunRow
from crossroads.report.facts import percent
from crossroads.report.html.charts import HEIGHT, WIDTH, Chart, Scale, around, horizontal, number, spread, vertical
from crossroads.report.html.figures import data_table, figure
from crossroads.report.html.markup import Html

T = TypeVar("T")

QUADRANTS = {
    1: ("Small, similar", "feature extraction"),
    2: ("Small, different", "early features"),
    3: ("Large, similar", "finetuning"),
    4: ("Large, different", "from scratch, warm start"),
}


@dataclass(frozen=True, slots=True)
class Position:
    """The position of the images in the plane of the four cases.

    Attributes:
        number: The case, 1 to 4.
        images_per_class: Effective images per class.
        similarity: The similarity to the images of the pretraining.
        low: The lower limit of its 95 % interval.
        high: The upper limit.
        doubt: Why it is uncertain; "" if it is not.
    """

    number: int
    images_per_class: float
    similarity: float
    low: float
    high: float
    doubt: str


@dataclass(frozen=True, slots=True)
class Measured:
    """What ``metrics.json`` holds of the advice and the race. A part that is missing or has another form is None.

    Attributes:
        position: The position in the plane.
        profile: The depth profile of the best pretrained backbone.
        curve: The learning curve.
        reasons: The reasons of the advice.
        race: The race, if more than one candidate ran.
        choice: Why the winner differs from the case or the recommendation; "" if it does not.
    """

    position: Position | None
    profile: Profile | None
    curve: Curve | None
    reasons: tuple[str, ...]
    race: RaceReport | None
    choice: str = ""


def measured(metrics: Mapping[str, Any]) -> Measured:
    """Reads the evidence from the metrics of a run."""
    advice = metrics.get("advice") or {}
    evidence = advice.get("evidence") or {}
    race = _read(RaceReport, metrics.get("race"))
    profiles = (_read(Profile, each) for each in evidence.get("profiles", ()))
    return Measured(
        _position(advice.get("case")),
        next((profile for profile in profiles if profile is not None and profile.similarity is not None), None),
        _read(Curve, evidence.get("curve")),
        tuple(map(str, advice.get("reasons", ()))),
        race if race is not None and len(race.runs) > 1 else None,
        _sentence(str((metrics.get("choice") or {}).get("text", ""))),
    )


class Drawn(NamedTuple):
    """One chart: its heading, the chart, what can be read from it, and its figures as a table."""

    heading: str
    chart: Html
    text: str
    table: Html


def position_of(case: Case) -> Position:
    """Returns the position of a case in the plane."""
    estimate = case.similarity
    return Position(case.number, 10 ** (DECADES * case.size), estimate.value, estimate.low, estimate.high, case.doubt or "")


def charts(found: Measured) -> Iterator[Html]:
    """Yields a figure for each part of the evidence that exists."""
    if found.position is not None:
        yield figure(*plane(found.position))
    if found.profile is not None:
        yield figure(*depth_profile(found.profile))
    if found.curve is not None:
        yield figure(*learning_curve(found.curve))
    if found.race is not None:
        yield figure(*race_chart(found.race))


def plane(position: Position) -> Drawn:
    """Returns the plane of images per class and similarity, with the four cases and the point of a data set."""
    chart = Chart(
        horizontal(1, 10.0**DECADES, log=True), vertical(0, 1, written=number), "images per class", "similarity to the pretraining"
    )
    corners = {1: (1, SIMILAR), 2: (1, 0), 3: (LARGE, SIMILAR), 4: (LARGE, 0)}
    x, y = corners[position.number]
    top, right = (1 if y else SIMILAR), (10.0**DECADES if x > 1 else LARGE)
    chart.area((x, y), (right, top), "here")
    chart.segment((LARGE, 0), (LARGE, 1), "soft")
    chart.segment((1, SIMILAR), (10.0**DECADES, SIMILAR), "soft")
    for case, (name, strategy) in QUADRANTS.items():
        left, base = corners[case]
        at = chart.x(left) + 10, (chart.y(1) + 20 if base else chart.y(0) - 26)
        chart.text(*at, f"{case}  {name}", "strong" if case == position.number else "quiet")
        chart.text(at[0], at[1] + 15, strategy, "quiet")
    images = min(max(position.images_per_class, 1.0), 10.0**DECADES)
    chart.segment((images, position.low), (images, position.high), "accent thick")
    chart.dot((images, position.similarity), "accent", radius=6, title="your images")
    side, anchor = (-12, "end") if chart.x(images) > 0.7 * WIDTH else (12, "start")
    chart.text(chart.x(images) + side, chart.y(position.similarity) + 4, "your images", "label accent", anchor)
    name, strategy = QUADRANTS[position.number]
    text = f"Case {position.number}: {name.lower()}. The classic strategy is {strategy}."
    if position.doubt:
        text += f" This is uncertain: {position.doubt}."
    figures = f"{number(round(position.images_per_class))} images per class, similarity {position.similarity:.2f}"
    table = data_table(
        ("quantity", "value", "95 % from", "to"),
        [
            ("images per class (effective)", number(round(position.images_per_class)), "", ""),
            ("similarity", f"{position.similarity:.2f}", f"{position.low:.2f}", f"{position.high:.2f}"),
        ],
    )
    drawn = chart.svg("The plane of the four cases", f"{text} {figures}.", grid=False)
    return Drawn("Which of the four cases", drawn, text, table)


def depth_profile(profile: Profile) -> Drawn:
    """Returns the accuracy of a probe by depth, for the pretrained network and for its random control."""
    depths = profile.depths
    series = {"pretrained": [(each.depth, each.accuracy) for each in depths]}
    control = [(each.depth, each.random) for each in depths if each.random is not None]
    if control:
        series["random"] = control
    limits = around([end for points in series.values() for _, estimate in points for end in (estimate.low, estimate.high)])
    chart = Chart(
        horizontal(0, 1, written=percent, right=104), vertical(*limits), "depth in the network", "accuracy of a linear probe"
    )
    styles = {"pretrained": "accent", "random": "control"}
    for name, points in series.items():
        chart.band([(depth, estimate.low, estimate.high) for depth, estimate in points], styles[name])
        chart.line([(depth, estimate.value) for depth, estimate in points], styles[name])
        for depth, estimate in points:
            chart.dot((depth, estimate.value), styles[name], title=f"{name}, depth {percent(depth)}: {percent(estimate.value, 1)}")
    ends = spread([chart.y(points[-1][1].value) for points in series.values()], 34, HEIGHT - 52)
    for name, at in zip(series, ends, strict=True):
        chart.text(chart.x(1) + 8, at + 4, name, f"label {styles[name]}")
    best = profile.best
    text = (
        f"{profile.backbone} reaches {percent(best.accuracy.value, 1)} at {percent(best.depth)} of its depth. "
        + ("The accuracy rises to the end, as for images like those of the pretraining." if best is profile.end else "")
        + ("The later layers are too specialised for these images." if best is not profile.end else "")
    )
    rows = [
        (
            each.cut,
            percent(each.depth),
            percent(each.accuracy.value, 1),
            "–" if each.random is None else percent(each.random.value, 1),
        )
        for each in depths
    ]
    table = data_table(("layer", "depth", "pretrained", "random weights"), rows)
    return Drawn("Depth profile", chart.svg("Accuracy of a probe by depth", text), text, table)


def learning_curve(curve: Curve) -> Drawn:
    """Returns the measured and the predicted accuracy by number of images."""
    last = curve.points[-1].images
    here = _images_for(curve, curve.here.value) or last
    ahead = [(here, curve.here), (2 * here, curve.twice)] if here >= last else [(last, curve.here), (2 * last, curve.twice)]
    known = [(point.images, point.accuracy) for point in curve.points]
    limits = around([end for _, estimate in (*known, *ahead) for end in (estimate.low, estimate.high)])
    chart = Chart(
        horizontal(known[0][0] * 0.9, ahead[-1][0] * 1.1, log=True, right=40), vertical(*limits), "training images", "accuracy"
    )
    chart.band([(images, estimate.low, estimate.high) for images, estimate in known], "accent")
    chart.line([(images, estimate.value) for images, estimate in known], "accent")
    chart.line([(images, estimate.value) for images, estimate in (known[-1], *ahead)], "accent dashed")
    for images, estimate in known:
        chart.dot((images, estimate.value), "accent", title=f"{images:,} images: {percent(estimate.value, 1)}")
    for (images, estimate), label in zip(ahead, ("now", "twice the images"), strict=True):
        chart.dot((images, estimate.value), "hollow accent", title=f"expected with {images:,} images: {percent(estimate.value, 1)}")
        below = label == "now"
        chart.text(
            chart.x(images), chart.y(estimate.value) + (20 if below else -12), label, "label accent", "middle" if below else "end"
        )
    gain = 100 * curve.gain
    text = (
        f"Twice the images would add about {gain:.1f} points."
        if gain >= 0.5
        else "More images of the same kind would add less than half a point."
    )
    rows = [(f"{images:,}", "measured", *_cells(estimate)) for images, estimate in known]
    rows += [(f"{round(images):,}", "expected", *_cells(estimate)) for images, estimate in ahead]
    table = data_table(("images", "measured or expected", "accuracy", "95 % from", "to"), rows)
    return Drawn("Learning curve", chart.svg("Accuracy by number of images", text), text, table)


def race_chart(race: RaceReport) -> Drawn:
    """Returns the accuracy of each run of a race against the time at which it ended."""
    began = max(0.0, race.seconds - sum(run.seconds for run in race.runs))
    ends: list[tuple[float, RunRow]] = []
    for run in race.runs:
        began += run.seconds
        ends.append((began, run))
    finished = [(end, run.validation_accuracy, run) for end, run in ends if run.validation_accuracy is not None]
    limits = around([accuracy for _, accuracy, _ in finished])
    chart = Chart(Scale(0, race.seconds * 1.02, 48, WIDTH - 16), vertical(*limits), "seconds", "validation accuracy")
    best = 0.0
    steps: list[tuple[float, float]] = []
    for end, accuracy, _ in finished:
        if accuracy > best:
            steps += [(end, best), (end, accuracy)] if steps else [(end, accuracy)]
            best = accuracy
    if steps:
        chart.line([*steps, (race.seconds, best)], "soft")
    heights = spread([chart.y(accuracy) for _, accuracy, _ in finished], 34, HEIGHT - 58, gap=13)
    for (end, accuracy, run), at in zip(finished, heights, strict=True):
        style = "good" if run.won else "control"
        title = f"{run.strategy}, {run.backbone}: {percent(accuracy, 1)}"
        chart.dot((end, accuracy), style, radius=5 if run.won else 4, title=title)
        side, anchor = (-9, "end") if chart.x(end) > 0.6 * WIDTH else (9, "start")
        chart.text(chart.x(end) + side, at - 6, run.strategy, f"label {style}", anchor)
    table = data_table(
        ("run", "backbone", "epochs", "ended at (s)", "validation accuracy", "result"),
        [
            (
                run.strategy,
                run.backbone,
                "–" if run.epochs is None else run.epochs,
                f"{end:,.0f}",
                "–" if run.validation_accuracy is None else percent(run.validation_accuracy, 1),
                "won" if run.won else run.failed or "",
            )
            for end, run in ends
        ],
    )
    return Drawn("The race", chart.svg("Accuracy of each candidate against time", race.why), _sentence(race.why), table)


def _read(kind: type[T], values: object) -> T | None:
    if values is None:
        return None
    try:
        return from_plain(kind, values)
    except ValueError:  # written by another version
        return None


def _position(case: Mapping[str, Any] | None) -> Position | None:
    try:
        if case is None:
            return None
        similarity = case["similarity"]
        number_, images = int(case["number"]), 10 ** (DECADES * float(case["size"]))
        if number_ not in QUADRANTS:
            return None
        return Position(
            number_, images, float(similarity["value"]), float(similarity["low"]), float(similarity["high"]), case["doubt"] or ""
        )
    except (KeyError, TypeError, ValueError):  # written by another version
        return None


def _images_for(curve: Curve, accuracy: float) -> int | None:
    """Returns the number of images for which the law of a curve predicts an accuracy; None if there is none."""
    left = 1 - accuracy - curve.floor
    if left <= 0 or curve.exponent <= 0 or curve.scale <= 0:
        return None
    images: float = (curve.scale / left) ** (1 / curve.exponent)
    return round(min(1e9, images))


def _cells(estimate: Any) -> tuple[str, str, str]:
    return percent(estimate.value, 1), percent(estimate.low, 1), percent(estimate.high, 1)


def _sentence(text: str) -> str:
    """Returns a text with a capital at its start and a full stop at its end; "" stays empty."""
    return text and text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
