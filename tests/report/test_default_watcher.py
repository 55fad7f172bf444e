"""Covers warnings and progress of calls without a watcher."""

import io
import logging
import sys
import warnings

import pytest

import crossroads
from crossroads.errors import CrossroadsError, CrossroadsWarning
from crossroads.progress import EpochRecord
from crossroads.report import default_watcher as module
from crossroads.report.default_watcher import DefaultWatcher, watched
from pictures import folder_of, stripes

RECORD = EpochRecord("train", 2, 1.5, 0.001, 0.25, 0.5, 0.875)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def progress(watcher):
    """Calls every method except `warning`."""
    watcher.note("trying finetune")
    watcher.progress("decoding", 5, 10)
    watcher.progress("decoding", 10, 10)
    watcher.step(2, 1, 3)
    watcher.epoch(RECORD, 4)


LINES = ["trying finetune", "decoding: 10 images", "epoch 2/4"]


def test_a_warning_names_the_line_of_the_caller():
    with pytest.warns(CrossroadsWarning, match="3 images were refused") as caught:
        DefaultWatcher().warning("3 images were refused")
    assert caught[0].filename == __file__


def test_frames_of_other_libraries_are_not_the_caller(monkeypatch, tmp_path):
    """If Keras calls back, the line of the warning is still that of the program that called `fit`."""
    outer = tmp_path / "outer.py"
    monkeypatch.setattr(module, "PACKAGE", str(outer))
    code = compile("def fit(callback): callback()", str(outer), "exec")
    exec(code, names := {})
    inner = compile("def warn(watcher): watcher.warning('deep')", str(outer), "exec")
    exec(inner, names)
    with pytest.warns(CrossroadsWarning) as caught:
        names["fit"](lambda: names["warn"](DefaultWatcher()))
    assert caught[0].filename == __file__


def test_progress_goes_to_the_log_if_the_program_enabled_it(monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with caplog.at_level(logging.INFO, logger="crossroads"):
        progress(DefaultWatcher())
    assert [record.name for record in caplog.records] == ["crossroads"] * 3
    assert all(message.startswith(line) for message, line in zip(caplog.messages, LINES, strict=True))
    assert sys.stderr.getvalue() == ""


def test_progress_is_lines_in_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    progress(DefaultWatcher())
    shown = sys.stderr.getvalue().splitlines()
    assert all(message.startswith(line) for message, line in zip(shown, LINES, strict=True))
    DefaultWatcher().note("caf\udce9.png")
    assert sys.stderr.getvalue().endswith("caf\\udce9.png\n")


@pytest.mark.parametrize("stream", [io.StringIO(), None])
def test_elsewhere_there_is_no_output(monkeypatch, capsys, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    progress(DefaultWatcher())
    assert capsys.readouterr().out == ""
    assert stream is None or stream.getvalue() == ""


def test_a_call_in_a_terminal_has_a_live_line_that_ends_with_it(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    data = folder_of(tmp_path / "data", *stripes(8))
    for _ in range(2):
        assert crossroads.audit(data).n == 8
        assert "reading images" in terminal.getvalue()
        assert terminal.getvalue().rstrip("\n").endswith("\x1b[2K")  # the line is gone
        assert sys.stderr is terminal
        terminal.truncate(0)
    with pytest.raises(CrossroadsError):
        crossroads.audit(tmp_path / "nowhere")
    assert sys.stderr is terminal


def test_only_one_call_at_a_time_has_a_live_line(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    with module.progress_ends():
        first = watched(None)
        with module.progress_ends():
            assert watched(None)._watcher._display is None
        assert first._watcher._display is not None


def test_a_closed_terminal_ends_no_run(monkeypatch):
    class Gone(Terminal):
        def write(self, text):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    progress(DefaultWatcher())


def test_if_warnings_are_errors_training_continues_and_shows_them(monkeypatch):
    shown = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, category, *_: shown.append((str(message), category)))
    relay = watched(None, trains=True)
    with warnings.catch_warnings(action="error"):
        relay.warning("2 test images are also in train")
    assert shown == [("2 test images are also in train", CrossroadsWarning)]
    assert relay.warnings == ("2 test images are also in train",)


def test_if_warnings_are_errors_other_calls_raise_them():
    with warnings.catch_warnings(action="error"), pytest.raises(CrossroadsWarning, match="in train"):
        watched(None).warning("2 test images are also in train")


@pytest.fixture
def with_a_link(tmp_path):
    """Returns class folders, one of which holds two links to another."""
    data = folder_of(tmp_path / "data", *stripes(8))
    (data / "upright" / "again").symlink_to(data / "level")
    (data / "upright" / "once more").symlink_to(data / "level")
    return data


def test_audit_names_the_line_that_called_it(with_a_link):
    with pytest.warns(CrossroadsWarning) as caught:
        crossroads.audit(with_a_link)
    assert {warning.filename for warning in caught} == {__file__}


def test_audit_raises_warnings_that_are_errors(with_a_link):
    for category in (CrossroadsWarning, UserWarning):
        with warnings.catch_warnings():
            warnings.simplefilter("error", category)
            with pytest.raises(CrossroadsWarning, match="link"):
                crossroads.audit(with_a_link)
