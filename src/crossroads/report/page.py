"""Writes a result: with colours, boxes and wrapped words on a terminal, and as plain lines elsewhere.

Plain lines have a stable form, ``label: value``, so that programs such as `grep` find them. They are not wrapped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossroads.files.text import printable
from crossroads.report.terminal import WIDEST, is_rich, rich_console

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

SENTENCE = 24
"""Characters that a cell with several words needs at least."""


class Styled(str):
    """A text with a style of Rich, such as ``bold green``. Plain lines leave the style out.

    Args:
        text: The text.
        style: The style.
    """

    style: str

    def __new__(cls, text: object, style: str) -> Styled:  # noqa: D102
        styled = super().__new__(cls, text)
        styled.style = style
        return styled


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its heading.
        optional: Rank among the columns that a narrow terminal leaves out, the highest first; 0 for one that is always shown.
        right: Whether its texts are aligned to the right, as numbers are in any column.
    """

    name: str
    optional: int = 0
    right: bool = False


class Page:
    """Writes to the standard output."""

    def __init__(self) -> None:
        self._console: Console | None = rich_console(sys.stdout) if is_rich(sys.stdout) else None
        self._box: list[RenderableType] | None = None

    @property
    def rich(self) -> bool:
        """Whether the output is a terminal."""
        return self._console is not None

    @contextmanager
    def panel(self, title: str) -> Iterator[None]:
        """Draws a box around what is written in the context. Plain lines have no boxes."""
        self._box = []
        yield
        parts, self._box = self._box, None
        if self._console is not None:
            from rich.console import Group
            from rich.panel import Panel

            self.space()
            self._show(Panel(Group(*parts), title=title, title_align="left", border_style="green", expand=False, padding=(0, 1)))

    def headline(self, label: str, value: str, rest: str = "") -> None:
        """Writes the one figure that matters most."""
        if self._console is None:
            print(printable(f"{label}: {value} {rest}".rstrip()))
            return
        from rich.text import Text

        text = Text(f"{label}  ", "bold").append(printable(value), "bold green")
        self._show(text.append(f"  {rest}", "bold") if rest else text)

    def text(self, text: str, style: str = "") -> None:
        """Writes a paragraph."""
        if self._console is None:
            print(printable(text))
            return
        from rich.text import Text

        self._show(Text(printable(text), style))

    def space(self) -> None:
        """Writes an empty line."""
        self.text("")

    def heading(self, text: str) -> None:
        """Writes a heading after an empty line."""
        self.space()
        self.text(text, "bold")

    def items(self, texts: Iterable[str]) -> None:
        """Writes a list, one sentence per item."""
        if self._console is None:
            for text in texts:
                print(printable(f"- {text}"))
            return
        from rich.table import Table

        grid = Table.grid(padding=(0, 1))
        for text in texts:
            grid.add_row("-", printable(text))
        self._show(grid)

    def facts(self, facts: Iterable[tuple[str, object]]) -> None:
        """Writes ``label: value`` lines."""
        if self._console is None:
            for label, value in facts:
                print(printable(f"{label}: {value}"))
            return
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for label, value in facts:
            grid.add_row(label, Text(printable(str(value)), getattr(value, "style", "default")))
        self._show(grid)

    def table(self, columns: Sequence[Column | str], rows: Iterable[Sequence[object]]) -> None:
        """Writes a table with numbers aligned to the right. On a narrow terminal, the optional columns are left out."""
        known = [column if isinstance(column, Column) else Column(column) for column in columns]
        cells = [[_text(cell) for cell in row] for row in rows]
        if self._console is None:
            for line in _plain_table(known, cells):
                print(line)
        else:
            self._show(_rich_table(known, cells, self._console.width - (4 if self._box is not None else 0)))

    def commands(self, commands: Iterable[tuple[str, str]]) -> None:
        """Writes commands to run next, each with what it does. They are not wrapped, so that they can be copied."""
        listed = list(commands)
        if listed:
            self.space()
        if self._console is None:
            for number, (words, _) in enumerate(listed):
                print(printable(f"{'next: ' if number == 0 else '      '}{words}"))
            return
        if listed:
            self.text("What to do next", "bold")
        for words, purpose in listed:
            self._console.print(printable(f"  {purpose}"), style="dim")
            self._console.print(printable(f"  {words}"), style="cyan", soft_wrap=True)

    def _show(self, part: RenderableType) -> None:
        if self._box is not None:
            self._box.append(part)
        elif self._console is not None:
            from rich.table import Table

            width = None if isinstance(part, Table) else min(self._console.width, WIDEST)
            self._console.print(part, width=width)


def _text(cell: object) -> str:
    return Styled(printable(cell), cell.style) if isinstance(cell, Styled) else printable(str(cell))


def _plain_table(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yields the lines of a table whose columns are as wide as their widest cell."""
    header = [column.name for column in columns]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    right = _flush_right(columns, cells)
    for row in (header, ["-" * width for width in widths], *cells):
        padded = (cell.rjust(width) if flush else cell.ljust(width) for cell, width, flush in zip(row, widths, right, strict=True))
        yield "  ".join(padded).rstrip()


def _rich_table(columns: Sequence[Column], cells: Sequence[Sequence[str]], width: int) -> Table:
    """Returns a table that fits the width. Its optional columns are left out, the highest rank first, until it does."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    widths = [max(map(_least_width, (columns[i].name, *(row[i] for row in cells)))) for i in range(len(columns))]
    shown = [i for i in range(len(columns)) if columns[i].name or any(row[i] for row in cells)]
    while sum(widths[i] + 2 for i in shown) > width and any(columns[i].optional for i in shown):
        shown.remove(max(shown, key=lambda i: columns[i].optional))
    right = _flush_right(columns, cells)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 1, 0, 0))
    for i in shown:
        table.add_column(columns[i].name, justify="right" if right[i] else "left", overflow="fold", no_wrap=right[i])
    for row in cells:
        table.add_row(*(Text(row[i], getattr(row[i], "style", "")) for i in shown))
    return table


def _least_width(text: str) -> int:
    """Returns the width that a cell needs. A sentence can be wrapped, and a name or a number cannot."""
    from rich.cells import cell_len

    return min(cell_len(text), max(SENTENCE, *map(cell_len, text.split()))) if text else 0


def _flush_right(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> list[bool]:
    """Returns for each column whether it is aligned to the right. ``-`` stands for a number that is missing."""
    return [
        column.right or (any(_is_number(row[i]) for row in cells) and all(row[i] == "-" or _is_number(row[i]) for row in cells))
        for i, column in enumerate(columns)
    ]


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").rstrip("%"))
    except ValueError:
        return False
    return True
