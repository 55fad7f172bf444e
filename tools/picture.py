"""Draws docs/picture.svg for README.md: the terminal of a real command beside a sketch of the report on its result.

    python tools/captures.py --out captures --columns 80 -- crossroads fit photos --out runs/flowers
    python tools/picture.py runs/flowers --terminal captures/fit-80.svg

Every figure of the sketch comes from the artifact: its sentence, its scores per class and its confusion matrix. No photograph is in
the picture. Without ``--terminal``, the terminal shows the lines of the standard input.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console

OUT = Path(__file__).resolve().parents[1] / "docs" / "picture.svg"
WIDTH, HEIGHT, TERMINAL, GAP = 1200, 560, 690, 20
CARD = WIDTH - TERMINAL - GAP
STYLE = """
.card { fill: #ffffff; stroke: #cbd5e1 } .text { fill: #0f172a } .quiet { fill: #475569 } .track { fill: #e2e8f0 }
.accent { fill: #2563eb } .good { fill: #15803d } .cell { fill: #2563eb } .on-cell { fill: #0f172a } .on-full { fill: #ffffff }
@media (prefers-color-scheme: dark) {
.card { fill: #0f172a; stroke: #334155 } .text { fill: #f1f5f9 } .quiet { fill: #94a3b8 } .track { fill: #1e293b }
.accent { fill: #60a5fa } .good { fill: #4ade80 } .cell { fill: #60a5fa } .on-cell { fill: #f1f5f9 } .on-full { fill: #0f172a } }
.report text { font-family: system-ui, -apple-system, "Segoe UI", sans-serif }
"""


def words(x: float, y: float, text: str, size: int = 14, kind: str = "text", *, anchor: str = "start", bold: bool = False) -> str:
    """Returns one line of text."""
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" class="{kind}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'


def bar(x: float, y: float, width: float, height: float, kind: str, opacity: float = 1) -> str:
    """Returns a rectangle."""
    shape = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" rx="3"'
    return f'<rect {shape} class="{kind}" opacity="{opacity:.2f}"/>'


def verdict(test: dict[str, Any]) -> list[str]:
    """Returns the sentence about the test, with its interval as a bar."""
    accuracy, (low, high) = test["accuracy"], test["accuracy_interval"]
    scale = CARD - 56
    return [
        words(28, 52, "Report", 13, "quiet"),
        words(28, 84, f"{accuracy:.0%} of {test['n']} test images are right", 22, bold=True),
        words(28, 108, f"between {low:.0%} and {high:.0%} with a confidence of 95 %", 14, "quiet"),
        bar(28, 122, scale, 10, "track"),
        bar(28 + low * scale, 122, (high - low) * scale, 10, "accent", 0.35),
        bar(28 + accuracy * scale - 2, 118, 4, 18, "accent"),
    ]


def classes(test: dict[str, Any], top: float) -> list[str]:
    """Returns the recall of each class as a bar, the worst first."""
    rows = sorted(test["per_class"], key=lambda row: row["recall"] or 0)[:5]
    drawn = [words(28, top, "Classes, worst first", 14, bold=True)]
    for number, row in enumerate(rows):
        y = top + 14 + 26 * number
        recall = row["recall"] or 0
        drawn += [
            words(28, y + 14, str(row["name"])[:14], 13),
            bar(130, y + 4, CARD - 220, 12, "track"),
            bar(130, y + 4, (CARD - 220) * recall, 12, "good"),
            words(CARD - 28, y + 15, f"{recall:.0%}", 13, "quiet", anchor="end"),
        ]
    return drawn


def confusion(test: dict[str, Any], top: float) -> list[str]:
    """Returns the confusion matrix: a row per true class, a column per predicted class."""
    matrix = test["confusion_matrix"]
    names = [str(row["name"]) for row in test["per_class"]]
    side = min(30.0, 150 / len(matrix))
    drawn = [
        words(28, top, "Confusion matrix", 14, bold=True),
        words(CARD - 28, top, "rows: true class", 12, "quiet", anchor="end"),
    ]
    for i, row in enumerate(matrix):
        y = top + 14 + i * side
        drawn.append(words(122, y + side / 2 + 4, names[i][:14], 12, "quiet", anchor="end"))
        for j, count in enumerate(row):
            strength = count / max(sum(row), 1)
            x = 130 + j * 2 * side
            drawn.append(bar(x, y, 2 * side - 3, side - 3, "track"))
            if count:
                drawn.append(bar(x, y, 2 * side - 3, side - 3, "cell", max(strength, 0.12)))
                kind = "on-full" if strength > 0.6 else "on-cell"
                drawn.append(words(x + side - 1.5, y + side / 2 + 3, str(count), 12, kind, anchor="middle"))
    return drawn


def report(test: dict[str, Any]) -> str:
    """Returns the sketch of the report."""
    frame = f'<rect x="0.5" y="0.5" width="{CARD - 1}" height="{HEIGHT - 1}" rx="10" class="card"/>'
    parts = [frame, *verdict(test), *classes(test, 178), *confusion(test, 364)]
    return f'<g class="report" transform="translate({TERMINAL + GAP} 0)">' + "\n".join(parts) + "</g>"


def printed(text: str) -> str:
    """Returns lines of output as a picture of a terminal."""
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(text, highlight=True, markup=False)
    return console.export_svg(title="crossroads")


def terminal(svg: str) -> str:
    """Returns a picture of a terminal in its place, without the fonts that it would load from the network."""
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    if found is None:
        raise SystemExit("the picture of the terminal has no viewBox")
    place = f'<svg width="{TERMINAL}" height="{HEIGHT}" viewBox="0 0 {found[1]} {found[2]}" preserveAspectRatio="xMinYMid meet"'
    return re.sub(r"<svg [^>]*>", place + ">", svg, count=1)


def main() -> None:
    """Reads the arguments and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--terminal", type=Path, help="an .svg of tools/captures.py")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    test = json.loads((asked.artifact / "metrics.json").read_text(encoding="utf-8"))["test"]
    shown = asked.terminal.read_text(encoding="utf-8") if asked.terminal else printed(sys.stdin.read())
    title = "A terminal with crossroads fit, and the report of the result"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
    svg = f"{head}\n<style>{STYLE}</style>\n{terminal(shown)}\n{report(test)}\n</svg>\n"
    asked.out.write_text(re.sub(r"[ \t]+\n", "\n", svg), encoding="utf-8")


if __name__ == "__main__":
    main()
