"""Covers results on a terminal and as plain lines."""

import io
import sys

import pytest
from rich.cells import cell_len

from crossroads.report.page import Column, Page, Styled

WIDTHS = (80, 100, 140, 200)
LONG = "the images count as similar, but the interval of the similarity includes the threshold of 0.55 " * 3
COLUMNS = ("run", Column("backbone", 1), Column("epochs", 2), Column("validation"), Column("time", right=True), Column(""))
ROWS = [
    ("early-features", "efficientnet-lite0", "-", "0.9037", "23.9 s", Styled("won", "bold green")),
    ("finetune-early", "keras-hub:a-very-long-name-of-a-preset", "5 of 20", "-", "1 min 37 s", LONG),
]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def written(monkeypatch):
    """Returns a function that writes a page to a stream and returns its lines."""

    def write(stream, width=80):
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", str(width))
        page = Page()
        with page.panel("result"):
            page.headline("test accuracy", "0.9544", "(0.929 to 0.971), 398 images")
            page.facts([("strategy", "finetune"), ("artifact", "runs/" + "long-name-" * 20), ("time", Styled("5.2 s", "bold"))])
        page.heading("Runs")
        page.table(COLUMNS, ROWS)
        page.items([LONG, "caf\udce9 分類"])
        page.text(LONG)
        return stream.getvalue().splitlines()

    return write


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_is_never_too_narrow(written, monkeypatch, width, no_color):
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("COLORTERM", "truecolor")
    lines = written(Terminal(), width)
    from rich.text import Text

    assert max(cell_len(Text.from_ansi(line).plain) for line in lines) <= width
    assert any("\x1b[1;32m" in line for line in lines) == (not no_color)


def test_words_are_not_cut(written, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    from rich.text import Text

    words = {word for line in written(Terminal(), 80) for word in Text.from_ansi(line).plain.split()}
    assert set(LONG.split()) <= words


def test_plain_lines_are_whole_and_can_be_found(written):
    lines = written(io.StringIO(), 40)
    assert lines[:2] == ["test accuracy: 0.9544 (0.929 to 0.971), 398 images", "strategy: finetune"]
    assert lines[4:6] == ["", "Runs"]
    assert lines[6].split() == ["run", "backbone", "epochs", "validation", "time"]
    assert f"- {LONG}" in lines
    assert "- caf\\xe9 分類" in lines
    assert not any("\x1b" in line for line in lines)


def test_a_narrow_terminal_leaves_out_optional_columns_and_lines_do_not(written):
    shown = {width: "\n".join(written(Terminal(), width)) for width in (80, 200)}
    assert "epochs" not in shown[80]
    assert "epochs" in shown[200]
    assert "epochs" in "\n".join(written(io.StringIO()))


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_commands_are_whole_in_one_line(monkeypatch, stream):
    monkeypatch.setattr(sys, "stdout", stream())
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    command = "crossroads predict " + " ".join(f"photo-{number}.jpg" for number in range(30))
    Page().commands([(command, "label images"), ("crossroads audit photos", "check images")])
    shown = sys.stdout.getvalue()
    assert command in shown
    assert "crossroads audit photos" in shown
    monkeypatch.setattr(sys, "stdout", empty := stream())
    Page().commands([])
    assert empty.getvalue() == ""
