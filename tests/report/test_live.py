"""Covers the line and the table that a terminal shows while a call goes on."""

import io
import time

import pytest
from rich.cells import cell_len
from rich.console import Console

from crossroads.progress import EpochRecord, Note, Step, Uncounted
from crossroads.report.activity import Activity
from crossroads.report.live import Drawing, line, summary
from races import raced

WIDTHS = (40, 80, 100, 140, 200)


def going(*stages):
    activity = Activity()
    for stage in stages:
        activity.begin(*stage)
    return activity


TRAINING = going((Step("trying the best candidates", 4, 4), 0, 1), (Uncounted("training efficientnet-lite0"), 0, 1))
TRAINING.batch(1, 1, 10)
TRAINING.epoch(EpochRecord("train", 2, 2.0, 0.001, 0.5, 0.4, 0.75), 12)
TRAINING.batch(3, 5, 10)

ACTIVITIES = {
    "nothing": Activity(),
    "uncounted": going((Step("reading images", 1, 4), 0, 1)),
    "counted": going((Step("a first answer", 2, 4), 0, 1), ("features of train", 320, 640)),
    "bytes": going(("weights", 3_200_000, 14_000_000)),
    "unknown size": going(("downloading network.onnx", 3_200_000, 0)),
    "long": going(("features of the sample, " + 3 * "a-very-long-name-", 3, 640)),
    "wide": going((Uncounted("分類" * 40), 0, 1)),
    "training": TRAINING,
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("activity", ACTIVITIES.values(), ids=ACTIVITIES)
def test_the_line_fits_the_width(activity, width):
    shown = line(activity, time.monotonic() + 100, width)
    assert cell_len(shown.plain) == width - 3  # there is room for ^C


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", ["working", "1:40"]),
        ("uncounted", ["step 1 of 4", "reading images"]),
        ("counted", ["step 2 of 4", "computing features of 640 training images", "1:40, 1:40 left"]),
        ("bytes", ["downloading weights, 3.2 of 14.0 MB", "left"]),
        ("unknown size", ["downloading network.onnx, 3.2 MB"]),
        ("training", ["training efficientnet-lite0, epoch 3 of 12", "validation accuracy 0.750", "left"]),
    ],
)
def test_the_line_names_what_goes_on(name, words):
    activity = ACTIVITIES[name]
    now = (activity.going[-1].began if activity.going else activity.began) + 100.5
    shown = line(activity, now, 140).plain
    for word in words:
        assert word in shown


def test_the_line_needs_no_unicode():
    shown = line(ACTIVITIES["counted"], time.monotonic(), 100, ascii_only=True).plain
    assert shown.isascii()
    assert "#" in shown


@pytest.mark.parametrize("width", WIDTHS)
def test_the_table_of_a_race_fits_the_width(width):
    drawing = Drawing(Activity())
    raced(drawing.activity)
    stream = io.StringIO()
    Console(file=stream, width=width).print(drawing)
    shown = stream.getvalue().splitlines()
    assert max(map(cell_len, shown)) <= width
    assert sum("0.9300" in row for row in shown) == 1


def test_the_line_stays_visible_if_there_are_more_candidates_than_rows():
    drawing = Drawing(Activity())
    expected = {f"strategy-{number} with small-cnn": 0.5 for number in range(30)}
    drawing.activity.note(Note("", "race-started", expected=expected, budget=600.0))
    drawing.activity.note(Note("", "run-started", strategy="strategy-29", backbone="small-cnn", epochs=5))
    stream = io.StringIO()
    Console(file=stream, width=100, height=20).print(drawing)
    lines = stream.getvalue().splitlines()
    assert len(lines) <= 20
    assert any(line.startswith("strategy-29") for line in lines)
    assert "working" in lines[-1]


def test_a_notebook_shows_the_same_as_text():
    activity = Activity()
    raced(activity)
    shown = list(summary(activity, time.monotonic()))
    assert shown[0].split()[:3] == ["candidate", "best", "result"]
    assert "working" in shown[-1]
    assert len(list(summary(activity, time.monotonic(), ended=True))) == len(shown) - 1
