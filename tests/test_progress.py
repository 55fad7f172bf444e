"""Covers the methods that a watcher needs, and what a relay passes on and keeps."""

import json
import pickle

import pytest

import crossroads
from crossroads.errors import RecipeError
from crossroads.progress import (
    EpochRecord,
    Note,
    Relay,
    Silent,
    Step,
    StopTraining,
    Uncounted,
    epoch_line,
    require_watcher,
    stage,
    stage_line,
)
from refusals import refused
from watchers import Notes


class Incomplete:
    """Lacks `step` and `epoch`."""

    def note(self, text): ...

    def warning(self, text): ...

    def progress(self, stage, done, total): ...


@pytest.mark.parametrize(
    ("watcher", "received"),
    [
        (Incomplete(), "Incomplete without step, epoch"),
        (print, "without note"),
        (Silent, "the class Silent"),
        (Incomplete, "without step, epoch"),
    ],
)
def test_an_object_without_all_methods_is_refused(watcher, received):
    with refused("not-a-watcher", RecipeError, field="watcher") as caught:
        require_watcher(watcher)
    assert received in caught.value.received


@pytest.mark.parametrize("call", ["fit", "advise", "evaluate", "audit"])
def test_every_function_refuses_it_before_any_work(call, tmp_path):
    arguments = {
        "fit": (crossroads.fit, ("nowhere",), {"out": tmp_path / "run"}),
        "advise": (crossroads.advise, ("nowhere",), {}),
        "evaluate": (crossroads.evaluate, ("nowhere", "nowhere"), {}),
        "audit": (crossroads.audit, ("nowhere",), {}),
    }
    function, positional, named = arguments[call]
    with refused("not-a-watcher", RecipeError):
        function(*positional, **named, watcher=Incomplete())
    assert list(tmp_path.iterdir()) == []


def test_a_watcher_needs_no_base_class():
    class Complete(Incomplete):
        def step(self, epoch, done, total): ...

        def epoch(self, record, total): ...

    require_watcher(Complete())


def test_a_silent_watcher_passes_warnings_to_note():
    watcher = Notes()
    watcher.warning("1 image was refused")
    assert watcher.said == ["1 image was refused"]


def test_a_relay_keeps_each_warning_once_and_no_notes():
    watcher, notes = Notes(), []
    relay = Relay(watcher, after_note=notes.append)
    for text in ("one", "two", "one"):
        relay.warning(text)
    relay.note("trying")
    assert relay.warnings == ("one", "two")
    assert watcher.said == notes == ["one", "two", "trying"]


def test_an_exception_of_a_watcher_is_raised_again():
    class Stops(Silent):
        def step(self, epoch, done, total):
            raise MemoryError("the user's own")

    relay = Relay(Stops())
    relay.note("before")
    for again in (lambda: relay.step(1, 1, 2), relay.raise_again, lambda: relay.note("after it was swallowed")):
        with pytest.raises(MemoryError, match="the user's own"):
            again()


def test_stop_training_is_not_raised_again():
    class Stops(Silent):
        def note(self, text):
            raise StopTraining

    relay = Relay(Stops())
    with pytest.raises(StopTraining):
        relay.note("")
    relay.raise_again()


def test_a_note_is_a_string_with_its_facts_also_after_pickling():
    note = pickle.loads(pickle.dumps(Note("3 images were refused", "images-refused", images=3)))
    assert (note, note.code, note.figures) == ("3 images were refused", "images-refused", {"images": 3})
    assert json.dumps([note]) == '["3 images were refused"]'


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        ("decoding", "decoding: 1,500,000 images"),
        ("weights", "weights: 1.5 MB"),
        ("downloading net.onnx", "downloading net.onnx: 1.5 MB"),
    ],
)
def test_the_end_of_a_stage_is_reported_in_images_or_in_mb(stage, line):
    assert stage_line(stage, 1_500_000) == line


@pytest.mark.parametrize(
    ("phase", "rate", "total", "line"),
    [
        ("head", 0.0, 1, "head solved  1.5 s  loss 0.2500  validation loss 0.5000  validation accuracy 0.8750"),
        ("head", 0.001, 1, "head epoch 1/1  "),
        ("tune", 0.0, 1, "tune epoch 1/1  "),
        ("train", 0.001, 4, "epoch 1/4  "),
    ],
)
def test_the_line_of_an_epoch_names_its_phase(phase, rate, total, line):
    assert epoch_line(EpochRecord(phase, 1, 1.5, rate, 0.25, 0.5, 0.875), total).startswith(line)


def test_a_step_is_the_same_after_pickling():
    step = pickle.loads(pickle.dumps(Step("comparing", 3, 4)))
    assert (step, step.number, step.total) == ("comparing", 3, 4)


class Stages(Silent):
    """Keeps the stages that it receives."""

    def __init__(self):
        self.seen = []

    def progress(self, stage, done, total):
        self.seen.append((stage, done, total))


def test_a_stage_that_cannot_be_counted_has_a_begin_and_an_end_also_after_an_error():
    watcher = Stages()
    with pytest.raises(ZeroDivisionError), stage(watcher.progress, "loading"), stage(watcher.progress, "parsing"):
        raise ZeroDivisionError
    assert watcher.seen == [("loading", 0, 1), ("parsing", 0, 1), ("parsing", 1, 1), ("loading", 1, 1)]
    assert all(isinstance(name, Uncounted) for name, _, _ in watcher.seen)


def test_a_watcher_may_end_the_work_at_the_end_of_a_stage():
    class Late(Silent):
        def progress(self, stage, done, total):
            if done:
                raise StopTraining

    with pytest.raises(StopTraining), stage(Late().progress, "loading"):
        pass
    with pytest.raises(ZeroDivisionError), stage(Late().progress, "loading"):
        raise ZeroDivisionError


def test_no_watcher_receives_no_stage():
    with stage(None, "loading"):
        pass
