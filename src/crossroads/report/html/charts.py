"""Draws charts as SVG: axes, lines, bands, points and labels. Colours are classes of the stylesheet, which has light and dark."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from crossroads.report.facts import percent
from crossroads.report.html.markup import Content, Html, element

Point = tuple[float, float]

WIDTH, HEIGHT = 460, 300
LINE = 15.0
"""Smallest distance between two labels, in pixels."""


def number(value: float) -> str:
    """Returns a number with thousands separated, and without needless digits."""
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to pixels.

    Attributes:
        low: The value at `start`.
        high: The value at `end`.
        start: Pixels.
        end: Pixels.
        log: Whether the scale is logarithmic.
        written: Writes a value at a tick.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    written: Callable[[float], str] = number

    def __call__(self, value: float) -> float:
        """Returns the pixel of a value. Values outside the scale are moved to its end."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = (math.log(max(each, 1e-12)) for each in (low, high, value))
        fraction = (value - low) / (high - low) if high > low else 0.5
        return self.start + min(1.0, max(0.0, fraction)) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Returns round values within the scale."""
        if self.log:
            decades = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            found = [10.0**decade for decade in decades]
            if len(found) < 3:
                found = [m * 10.0**d for d in range(decades.start - 1, decades.stop + 1) for m in (1, 2, 5)]
            return [value for value in found if self.low * 0.999 <= value <= self.high * 1.001][: most + 2]
        step = step_for(self.high - self.low, most)
        first = math.ceil(self.low / step - 1e-9)
        return [round(index * step, 10) for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def step_for(extent: float, most: int) -> float:
    """Returns a round step that divides an extent into at most `most` parts."""
    rough = max(extent, 1e-9) / most
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)


def around(values: Iterable[float], *, low: float = 0.0, high: float = 1.0, least: float = 0.1) -> tuple[float, float]:
    """Returns round limits around fractions, at least `least` apart and within `low` and `high`."""
    found = [value for value in values if math.isfinite(value)]
    below, above = min(found, default=low), max(found, default=high)
    margin = max(0.08 * (above - below), (least - (above - below)) / 2)
    step = step_for(above - below + 2 * margin, 5)
    return max(low, math.floor((below - margin) / step) * step), min(high, math.ceil((above + margin) / step) * step)


def spread(wanted: Sequence[float], low: float, high: float, gap: float = LINE) -> list[float]:
    """Returns positions near the wanted ones that are at least `gap` apart, within `low` and `high` if there is room."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed = [0.0] * len(wanted)
    floor = low
    for index in order:
        placed[index] = max(wanted[index], floor)
        floor = placed[index] + gap
    ceiling = high
    for index in reversed(order):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    return placed


@dataclass(slots=True)
class Chart:
    """One chart. Marks are drawn in the order in which they are added, over the grid.

    Attributes:
        x: The horizontal scale.
        y: The vertical scale.
        x_title: What the horizontal axis shows.
        y_title: What the vertical axis shows.
        marks: The marks so far.
    """

    x: Scale
    y: Scale
    x_title: str
    y_title: str
    marks: list[Html] = field(default_factory=list)

    def line(self, points: Iterable[Point], style: str) -> None:
        """Draws a line through points."""
        path = "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)
        self.marks.append(element("path", d=f"M{path}", class_=f"line {style}"))

    def band(self, limits: Sequence[tuple[float, float, float]], style: str) -> None:
        """Draws an interval band from (x, low, high)."""
        there = [f"{self.x(x):.1f} {self.y(high):.1f}" for x, _, high in limits]
        back = [f"{self.x(x):.1f} {self.y(low):.1f}" for x, low, _ in reversed(limits)]
        self.marks.append(element("path", d=f"M{'L'.join([*there, *back])}Z", class_=f"band {style}"))

    def dot(self, point: Point, style: str, *, radius: float = 3.5, title: str = "") -> None:
        """Draws a point. Its title is shown under the pointer."""
        at = {"cx": f"{self.x(point[0]):.1f}", "cy": f"{self.y(point[1]):.1f}", "r": f"{radius:.1f}"}
        self.marks.append(element("circle", element("title", title) if title else None, **at, class_=f"dot {style}"))

    def segment(self, start: Point, end: Point, style: str) -> None:
        """Draws a straight line from one point to another."""
        self.marks.append(
            element(
                "line",
                x1=f"{self.x(start[0]):.1f}",
                y1=f"{self.y(start[1]):.1f}",
                x2=f"{self.x(end[0]):.1f}",
                y2=f"{self.y(end[1]):.1f}",
                class_=f"rule {style}",
            )
        )

    def area(self, low: Point, high: Point, style: str) -> None:
        """Draws a rectangle between two corners."""
        left, right = sorted((self.x(low[0]), self.x(high[0])))
        top, bottom = sorted((self.y(low[1]), self.y(high[1])))
        corner = {"x": f"{left:.1f}", "y": f"{top:.1f}"}
        self.marks.append(element("rect", **corner, width=f"{right - left:.1f}", height=f"{bottom - top:.1f}", class_=style))

    def text(self, x: float, y: float, content: str, style: str = "", anchor: str = "start") -> None:
        """Writes text at a position in pixels."""
        self.marks.append(element("text", content, x=f"{x:.1f}", y=f"{y:.1f}", class_=style or None, text_anchor=anchor))

    def svg(self, title: str, description: str, *, grid: bool = True) -> Html:
        """Returns the chart with its axes.

        Args:
            title: What it shows, for people who do not see it.
            description: What can be read from it, in one or two sentences.
            grid: Whether horizontal lines are drawn at the ticks.
        """
        return svg(title, description, [self._axes(grid), *self.marks])

    def _axes(self, grid: bool) -> list[Html]:
        left, right, top, bottom = self.x.start, self.x.end, self.y.end, self.y.start
        drawn: list[Html] = []
        for tick in self.y.ticks():
            at = self.y(tick)
            if grid:
                drawn.append(element("line", x1=left, x2=right, y1=f"{at:.1f}", y2=f"{at:.1f}", class_="grid"))
            drawn.append(element("text", self.y.written(tick), x=left - 8, y=f"{at + 4:.1f}", class_="tick", text_anchor="end"))
        for tick in self.x.ticks():
            at = self.x(tick)
            drawn.append(element("line", x1=f"{at:.1f}", x2=f"{at:.1f}", y1=bottom, y2=bottom + 4, class_="axis"))
            drawn.append(element("text", self.x.written(tick), x=f"{at:.1f}", y=bottom + 18, class_="tick", text_anchor="middle"))
        drawn.append(element("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis"))
        drawn.append(element("text", self.x_title, x=(left + right) / 2, y=bottom + 38, class_="title", text_anchor="middle"))
        drawn.append(element("text", self.y_title, x=left - 40 if left > 40 else 0, y=top - 12, class_="title"))
        return drawn


def svg(title: str, description: str, marks: Content, *, width: int = WIDTH, height: int = HEIGHT) -> Html:
    """Returns an SVG image with a title and a description for screen readers."""
    name = f"chart-{hashlib.blake2b(f'{title}{description}'.encode(), digest_size=6).hexdigest()}"
    return element(
        "svg",
        element("title", title, id=f"{name}-title"),
        element("desc", description, id=f"{name}-text"),
        marks,
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_labelledby=f"{name}-title {name}-text",
        class_="chart",
        style=f"max-width:{width * 1.2:.0f}px",
    )


def horizontal(low: float, high: float, *, log: bool = False, written: Callable[[float], str] = number, right: float = 16) -> Scale:
    """Returns the horizontal scale of a chart, with room for labels at the right."""
    return Scale(low, high, 48, WIDTH - right, log, written)


def vertical(low: float, high: float, *, written: Callable[[float], str] = percent) -> Scale:
    """Returns the vertical scale of a chart."""
    return Scale(low, high, HEIGHT - 50, 30, written=written)
