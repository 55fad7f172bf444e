"""Shows the scores: the interval of the accuracy, the reliability diagram and the table of classes."""

from __future__ import annotations

from collections.abc import Sequence

from crossroads.evaluation import Interval
from crossroads.report.facts import Bin, ClassRow, Pair, percent
from crossroads.report.html.charts import Chart, horizontal, svg, vertical
from crossroads.report.html.figures import data_table, figure
from crossroads.report.html.markup import Content, Html, element


def interval_bar(accuracy: float, interval: Interval) -> Html:
    """Returns a bar from 0 to 1 with an interval and its point."""
    low, high = (300 * value for value in interval)
    at = 300 * accuracy
    marks = [
        element("rect", x=0, y=10, width=300, height=6, rx=3, class_="track"),
        element("rect", x=f"{low:.1f}", y=10, width=f"{max(2.0, high - low):.1f}", height=6, rx=3, class_="range"),
        element("circle", cx=f"{at:.1f}", cy=13, r=7, class_="dot accent"),
        [
            element("text", percent(tick), x=300 * tick, y=36, class_="tick", text_anchor=anchor)
            for tick, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))
        ],
    ]
    text = f"{percent(accuracy, 1)}, with a 95 % interval from {percent(interval[0], 1)} to {percent(interval[1], 1)}"
    return svg("Accuracy with its interval", text, marks, width=300, height=42)


def reliability_diagram(bins: Sequence[Bin], error: float) -> Html:
    """Returns the accuracy of the predictions by their confidence."""
    chart = Chart(horizontal(0, 1, written=percent), vertical(0, 1), "confidence", "accuracy")
    chart.segment((0, 0), (1, 1), "soft")
    chart.text(chart.x(0.98), chart.y(0.05), "dashed: perfectly calibrated", "quiet", "end")
    most = max(each.images for each in bins)
    for each in bins:
        chart.segment((each.confidence, each.interval[0]), (each.confidence, each.interval[1]), "accent")
    chart.line([(each.confidence, each.accuracy) for each in bins], "accent thin")
    for each in bins:
        title = f"{each.images:,} images with a confidence of about {percent(each.confidence)}: {percent(each.accuracy, 1)} correct"
        chart.dot((each.confidence, each.accuracy), "accent", radius=3 + 4 * (each.images / most) ** 0.5, title=title)
    sure = sum(each.images * each.confidence for each in bins) / sum(each.images for each in bins)
    right = sum(each.images * each.accuracy for each in bins) / sum(each.images for each in bins)
    if abs(sure - right) < 0.02:
        text = "On average, the confidence agrees with the accuracy."
    else:
        text = f"The classifier is {'too sure' if sure > right else 'not sure enough'}: its mean confidence is {percent(sure, 1)}."
    text += f" The expected calibration error is {percent(error, 1)}."
    rows = [
        (
            f"{percent(each.low)} to {percent(each.high)}",
            f"{each.images:,}",
            percent(each.confidence, 1),
            percent(each.accuracy, 1),
            percent(each.interval[0], 1),
            percent(each.interval[1], 1),
        )
        for each in bins
    ]
    table = data_table(("confidence", "images", "mean confidence", "accuracy", "95 % from", "to"), rows)
    return figure("Reliability", chart.svg("Accuracy by confidence", text), text, table)


def class_table(rows: Sequence[ClassRow]) -> Html:
    """Returns the table of classes, the worst first. The script sorts it by any column."""
    names = ("class", "images", "found (recall)", "95 % interval", "precision", "most often taken for")
    head = [element("th", element("button", name, type="button", class_="sort"), scope="col") for name in names]
    body = [element("tr", _class_cells(row)) for row in rows]
    caption = element("caption", "Scores by class, the worst first. The buttons in the first row sort the table.", class_="hidden")
    table = element(
        "table", caption, element("thead", element("tr", head)), element("tbody", body), class_="classes", data_sort=True
    )
    return element("div", table, class_="scroll tall", tabindex="0", role="region", aria_label="Scores by class")


def _class_cells(row: ClassRow) -> list[Html]:
    name = element("th", row.name, scope="row", data_value=row.name)
    images = element("td", f"{row.images:,}", class_="number", data_value=row.images)
    if row.recall is None or row.interval is None:
        return [name, images, element("td", "not tested", colspan="4", class_="quiet", data_value=2)]
    bar = element("span", element("span", style=f"width:{100 * row.recall:.1f}%"), class_="bar", aria_hidden="true")
    mistaken: Content = [row.mistaken_for, element("span", f" ({row.mistakes:,})", class_="quiet")] if row.mistaken_for else "–"
    return [
        name,
        images,
        element("td", bar, element("span", percent(row.recall, 1)), class_="recall", data_value=f"{row.recall:.6f}"),
        element(
            "td",
            f"{100 * row.interval[0]:.0f} to {percent(row.interval[1])}",
            class_="quiet nowrap",
            data_value=f"{row.interval[0]:.6f}",
        ),
        element(
            "td",
            "–" if row.precision is None else percent(row.precision, 1),
            class_="number",
            data_value=f"{-1 if row.precision is None else row.precision:.6f}",
        ),
        element("td", mistaken, data_value=row.mistakes),
    ]


def pairs_table(pairs: Sequence[Pair], classes: Sequence[str]) -> Html:
    """Returns the most confused pairs of classes. The buttons show their images."""
    rows = [
        (
            element(
                "button",
                element("b", classes[pair.true]),
                " taken for ",
                element("b", classes[pair.predicted]),
                type="button",
                class_="pair",
                data_cell=f"{pair.true},{pair.predicted}",
            ),
            f"{pair.images:,}",
            percent(pair.fraction),
        )
        for pair in pairs
    ]
    return data_table(("pair", "images", "of the true class"), rows)
