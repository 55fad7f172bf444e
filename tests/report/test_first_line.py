"""Covers the line that a terminal shows before anything large is imported."""

import io
import subprocess
import sys

import pytest

from crossroads.report import first_line


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(first_line, "_shown", [])


@pytest.mark.parametrize(
    ("arguments", "stream"),
    [
        (["fit", "photos"], "stdout"),
        (["advise", "photos", "--json"], "stderr"),
        (["predict", "run", "a.png"], "stderr"),
        (["fit", "photos", "--quiet"], None),
        (["fit", "--help"], None),
        (["backbones"], None),
        ([], None),
    ],
)
def test_it_is_shown_where_progress_is_shown_and_removed(monkeypatch, arguments, stream):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, Terminal())
    first_line.show_first_line(arguments)
    first_line.show_first_line(arguments)
    for name in ("stdout", "stderr"):
        assert getattr(sys, name).getvalue() == ("- starting" if name == stream else "")
    first_line.clear_first_line()
    assert stream is None or getattr(sys, stream).getvalue() == "- starting\r\x1b[2K"


@pytest.mark.parametrize("stream", [io.StringIO(), None])
def test_lines_do_not_show_it(monkeypatch, stream):
    monkeypatch.setattr(sys, "stdout", stream)
    first_line.show_first_line(["fit", "photos"])
    assert stream is None or stream.getvalue() == ""


def test_nothing_large_is_imported_before_it():
    code = (
        "import sys, crossroads.__main__, crossroads.report.first_line\n"
        "large = {'typer', 'rich', 'numpy', 'PIL'} & set(sys.modules)\n"
        "sys.exit(' '.join(large) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
