"""Covers progress in a notebook. IPython is replaced by a module that records what is displayed."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

import crossroads
from crossroads.progress import EpochRecord, Uncounted
from crossroads.report.notebook import NotebookWatcher, in_notebook
from pictures import folder_of, stripes
from races import raced


@pytest.fixture
def displayed(monkeypatch):
    """Returns what IPython displays, in order."""
    shown = []

    def display(content, *, raw, display_id):
        assert raw
        assert display_id
        shown.append(content)
        return SimpleNamespace(update=lambda content, raw: shown.append(content))

    ipython, module = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return shown


def test_a_stage_is_shown_in_one_place_and_removed(displayed):
    with NotebookWatcher() as watcher:
        watcher.progress(Uncounted("<loading>"), 0, 1)
        assert displayed[-1]["text/plain"].startswith("<loading>")
        assert "&lt;loading&gt;" in displayed[-1]["text/html"]
        watcher.epoch(EpochRecord("train", 1, 1.5, 0.001, 0.25, 0.5, 0.875), 3)
        for _ in range(2):
            watcher.note("the weights of the head are kept")
    lines = displayed[-1]["text/plain"].splitlines()
    assert lines[0].startswith("epoch 1/3")
    assert lines[1:] == ["note: the weights of the head are kept"]


def test_ipython_on_a_terminal_is_no_notebook(displayed, monkeypatch):
    assert in_notebook()
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", object)
    assert not in_notebook()


def test_a_race_is_a_table(displayed):
    with NotebookWatcher() as watcher:
        raced(watcher._activity)
    assert "best so far" in displayed[-1]["text/plain"]


def test_a_call_without_a_watcher_shows_its_progress(displayed, tmp_path):
    crossroads.audit(folder_of(tmp_path / "data", *stripes(8)))
    assert any("reading images" in content["text/plain"] for content in displayed)
    assert displayed[-1]["text/plain"] == ""
