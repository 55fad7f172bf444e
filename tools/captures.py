"""Captures commands as a terminal shows them, and measures how long a live line is visible.

    python tools/captures.py --out OUT --columns 80 100 140 -- crossroads audit photos

The command runs in a pseudo-terminal of each width. OUT gets the whole output as ``.txt`` and ``.svg``, and a picture of the screen
in the middle of the command. Needs ``pip install pyte``.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from dataclasses import dataclass
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

COMMANDS = ("demo", "audit", "advise", "fit", "evaluate", "predict", "backbones")
ROWS = 40
LIVE = re.compile(r"^([⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] |[-\\|/] (starting|step \d))")
"""How the line begins that shows what goes on."""


@dataclass(frozen=True)
class Chunk:
    """Output that arrived at one time, in seconds after the start."""

    at: float
    text: bytes


def record(command: list[str], columns: int) -> tuple[list[Chunk], float, int]:
    """Runs a command in a terminal. Returns its output, the seconds until the last of it, and the exit status."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    environment |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    began = time.monotonic()
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True)
    os.close(slave)
    chunks: list[Chunk] = []
    while True:
        if select.select([master], [], [], 0.05)[0]:
            try:
                text = os.read(master, 65536)
            except OSError:  # the terminal was closed
                break
            if not text:
                break
            chunks.append(Chunk(time.monotonic() - began, text))
        elif process.poll() is not None:
            break
    status = process.wait()
    os.close(master)
    return chunks, chunks[-1].at if chunks else time.monotonic() - began, status


def lines_of(screen: pyte.HistoryScreen) -> list[dict[int, pyte.screens.Char]]:
    """Returns the lines of a screen with those that were scrolled out, without the empty ones at the end."""
    lines = [*screen.history.top, *(screen.buffer[row] for row in range(screen.lines))]
    while lines and not any(cell.data.strip() for cell in lines[-1].values()):
        lines.pop()
    return lines


def to_text(line: dict[int, pyte.screens.Char], columns: int) -> Text:
    """Returns a line as a text of Rich, with its colours."""
    text = Text()
    for column in range(columns):
        cell = line[column]
        colour = None if cell.fg == "default" else f"#{cell.fg}" if re.fullmatch("[0-9a-f]{6}", cell.fg) else _named(cell.fg)
        text.append(cell.data, Style(color=colour, bold=cell.bold, italic=cell.italics))
    text.rstrip()
    return text


def _named(colour: str) -> str:
    return {"brown": "yellow"}.get(colour, colour.replace("bright", "bright_").replace("bright_brown", "bright_yellow"))


def write(lines: list[dict[int, pyte.screens.Char]], columns: int, path: Path, title: str) -> None:
    """Writes lines as ``.txt`` and ``.svg``."""
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    texts = [to_text(line, columns) for line in lines]
    for text in texts:
        console.print(text, no_wrap=True, overflow="crop")
    path.with_suffix(".txt").write_text("\n".join(text.plain for text in texts) + "\n", encoding="utf-8")
    path.with_suffix(".svg").write_text(console.export_svg(title=title), encoding="utf-8")


def visible(chunks: list[Chunk], seconds: float, columns: int) -> tuple[float, float]:
    """Returns the fraction of the time with a live line, and when the first one appeared."""
    screen = pyte.Screen(columns, ROWS)
    stream, shown, first = pyte.ByteStream(screen), 0.0, seconds
    for chunk, following in zip(chunks, [*(each.at for each in chunks[1:]), seconds], strict=True):
        stream.feed(chunk.text)
        if any(LIVE.match(line) for line in screen.display):
            shown += following - chunk.at
            first = min(first, chunk.at)
    return shown / seconds, first


def capture(command: list[str], columns: int, out: Path, moments: list[float]) -> None:
    """Runs a command, and writes what the terminal shows at the end and at some moments, as fractions of the time."""
    chunks, seconds, status = record(command, columns)
    share, first = visible(chunks, seconds, columns)
    name = next((word for word in command if word in COMMANDS), "other")
    live = f"live line {share:.1%}, first after {first:.2f} s"
    print(f"{name} at {columns} columns: exit {status}, {seconds:.1f} s, {live}", flush=True)
    title = " ".join(Path(word).name if "/" in word else word for word in command)
    for moment in [*moments, 1.0]:
        screen = pyte.HistoryScreen(columns, ROWS, history=5000)
        stream = pyte.ByteStream(screen)
        for chunk in chunks:
            if chunk.at <= moment * seconds or moment == 1.0:
                stream.feed(chunk.text)
        suffix = "" if moment == 1.0 else f"-{round(100 * moment)}"
        write(lines_of(screen), columns, out / f"{name}-{columns}{suffix}", title)


def main() -> None:
    """Reads the arguments and captures one command at each width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--columns", type=int, nargs="+", default=[80, 100, 140])
    parser.add_argument("--moments", type=float, nargs="*", default=[0.5], help="fractions of the time")
    parser.add_argument("command", nargs="+")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for columns in asked.columns:
        capture([word.replace("COLUMNS", str(columns)) for word in asked.command], columns, asked.out, asked.moments)


if __name__ == "__main__":
    main()
