"""Covers characters that a stream cannot encode, and closed streams."""

import io
import json
import sys

import pytest

from crossroads.progress import Uncounted
from crossroads.report.console import print_json
from crossroads.report.streams import LastingStream, escape_standard_streams, json_text
from crossroads.report.watchers import ConsoleWatcher, NotesOnly

NAMES = ["größer", "猫", "caf\udce9.png", "a\\b", "\U0001f6d1", 'q"uote']


def written(encoding, errors="strict"):
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors, newline="\n")


def text_of(stream):
    stream.flush()
    return stream.buffer.getvalue().decode(stream.encoding)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8", "latin-1"])
def test_standard_streams_escape_what_they_cannot_encode(monkeypatch, encoding):
    out, err = written(encoding), written(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    escape_standard_streams()
    print(*NAMES)
    print(*NAMES, file=sys.stderr)
    assert text_of(out) == text_of(err)
    assert "\\udce9.png" in text_of(out)
    assert ("größer" in text_of(out)) == (encoding != "ascii")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8", "utf-16"])
def test_json_is_the_same_value_in_every_encoding_without_lone_surrogates(monkeypatch, encoding):
    out = written(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    print_json({name: [name] for name in NAMES})
    expected = {name: [name] for name in ["größer", "猫", r"caf\xe9.png", "a\\b", "\U0001f6d1", 'q"uote']}
    assert json.loads(text_of(out)) == expected


def test_json_in_utf_8_is_readable():
    assert "größer" in json_text({"class": "größer"}, written("utf-8"))
    assert "größer" in json_text({"class": "größer"}, None)


class Gone(io.StringIO):
    """Accepts a number of texts, then fails."""

    def __init__(self, takes, error):
        super().__init__()
        self.takes, self.error, self.tried = takes, error, 0

    def write(self, text):
        self.tried += 1
        if self.tried > self.takes:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(5, "Input/output error"), ValueError("closed file")], ids=repr)
def test_nothing_is_written_after_a_stream_failed(error):
    stream = Gone(1, error)
    lasting = LastingStream(stream)
    for text in ("one", "two", "three"):
        assert lasting.write(text) == len(text)
        lasting.flush()
    assert stream.getvalue() == "one"
    assert stream.tried == 2
    assert not lasting.isatty()


def test_a_closed_stream_is_no_terminal():
    stream = io.StringIO()
    stream.close()
    assert not LastingStream(stream).isatty()
    ConsoleWatcher(stream).warning("1 image was refused")


def test_another_error_of_a_stream_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        LastingStream(Gone(0, ZeroDivisionError())).write("one")


@pytest.mark.parametrize("kind", [ConsoleWatcher, NotesOnly])
@pytest.mark.parametrize("stream", [None, Gone(0, BrokenPipeError())], ids=["none", "gone"])
def test_progress_needs_no_stream(kind, stream):
    watcher = kind(stream)
    watcher.note("trying")
    watcher.warning("1 image was refused")
    watcher.progress("decoding", 1, 1)


def test_progress_bars_survive_a_closed_terminal():
    class Terminal(Gone):
        def isatty(self):
            return True

    with ConsoleWatcher(Terminal(3, OSError(5, "Input/output error"))) as watcher:
        watcher.progress("decoding", 1, 2)
        watcher.warning("caf\udce9.png was refused")
        watcher.progress("decoding", 2, 2)


def test_notes_and_warnings_are_marked_and_shown_once():
    stream = io.StringIO()
    watcher = ConsoleWatcher(stream)
    for _ in range(2):
        watcher.warning("3 images were seen in training")
        watcher.note("trying")
    assert stream.getvalue().splitlines() == ["note: 3 images were seen in training", "note: trying"]


def test_lines_leave_out_stages_that_cannot_be_counted():
    stream = io.StringIO()
    watcher = ConsoleWatcher(stream)
    for done in (0, 1):
        watcher.progress(Uncounted("loading"), done, 1)
        watcher.progress("decoding", done, 1)
    assert stream.getvalue() == "decoding: 1 images\n"
