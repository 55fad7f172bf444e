"""Covers progress on a stream: plain lines, and what a terminal keeps."""

import io
import re

import pytest

from crossroads.progress import EpochRecord, Note, Step, Uncounted, stage
from crossroads.report.watchers import ConsoleWatcher

RECORD = EpochRecord("tune", 1, 1.5, 0.001, 0.25, 0.5, 0.875)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def a_race(watcher):
    """Reports a race of two candidates."""
    expected = {"finetune with mobilenet": 0.9, "from-scratch with small-cnn": 0.6}
    watcher.note(Note("comparing 2 candidates", "race-started", expected=expected))
    watcher.note(Note("trying finetune", "run-started", strategy="finetune", backbone="mobilenet", epochs=1))
    with stage(watcher.progress, "trying finetune"):
        watcher.progress("decoding train", 0, 4)
        watcher.progress("decoding train", 4, 4)
        watcher.step(1, 1, 1)
        watcher.epoch(RECORD, 1)
    skipped = [{"strategy": "from-scratch", "backbone": "small-cnn"}]
    watcher.note(Note("not tried: from-scratch", "candidates-skipped", candidates=skipped))


def lines_of(**options):
    stream = io.StringIO()
    with ConsoleWatcher(stream, **options) as watcher:
        with stage(watcher.progress, Step("trying the best candidates", 4, 4)):
            a_race(watcher)
        watcher.warning("2 images were refused")
    return stream.getvalue().splitlines()


def test_lines_give_one_line_for_the_epochs_of_a_candidate():
    lines = lines_of()
    assert lines[:3] == ["note: comparing 2 candidates", "note: trying finetune", "decoding train: 4 images"]
    assert re.fullmatch(r"finetune: 1 epoch, best validation accuracy 0\.8750, \d\.\d s", lines[3])
    assert re.fullmatch(r"step 4 of 4: trying the best candidates, \d\.\d s", lines[4])
    assert lines[5:] == ["note: 2 images were refused"]


def test_verbose_lines_explain_and_show_each_epoch():
    lines = lines_of(verbose=True)
    assert "note: not tried: from-scratch" in lines
    assert any(line.startswith("tune epoch 1/1") for line in lines)


@pytest.mark.parametrize("term", ["dumb", "xterm-256color"])
@pytest.mark.parametrize("no_color", ["", "1"])
def test_control_codes_are_written_only_to_a_terminal_that_understands_them(monkeypatch, term, no_color):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("NO_COLOR", no_color)
    stream = Terminal()
    with ConsoleWatcher(stream) as watcher:
        watcher.progress(Uncounted("loading TensorFlow"), 0, 1)
        watcher.warning("2 images were refused")
    shown = stream.getvalue()
    assert ("\x1b[" in shown) == (term != "dumb")
    assert ("\x1b[1;33m" in shown) == (term != "dumb" and not no_color)  # bold yellow
    assert "note: 2 images were refused" in shown
    assert ("loading TensorFlow" in shown) == (term != "dumb")


def test_a_terminal_shows_a_race_as_a_table(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    with ConsoleWatcher(stream) as watcher:
        a_race(watcher)
        watcher._live.refresh()
        shown = stream.getvalue()
    assert "best result" in shown
    assert "not tried" in shown
    for hidden in ("note: trying", "note: not tried", "tune epoch"):
        assert hidden not in stream.getvalue()


def test_the_epochs_of_a_training_are_shown_without_a_race(monkeypatch):
    stream = io.StringIO()
    with ConsoleWatcher(stream) as watcher:
        watcher.epoch(RECORD, 3)
    assert stream.getvalue().startswith("tune epoch 1/3  1.5 s")
