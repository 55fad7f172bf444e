"""Covers what is known about a call while it goes on."""

import pytest

from crossroads.progress import EpochRecord, Note, Step, Uncounted
from crossroads.report.activity import Activity
from races import facts, raced, run


@pytest.fixture
def activity():
    return Activity()


def names(activity):
    return [going.name for going in activity.going]


def test_stages_go_on_inside_each_other(activity):
    activity.begin(Uncounted("trying finetune"), 0, 1)
    activity.begin("decoding train", 0, 10)
    activity.begin("decoding validation", 0, 10)  # the stage before was interrupted
    assert names(activity) == ["trying finetune", "decoding validation"]
    activity.end("decoding validation")
    assert names(activity) == ["trying finetune"]


def test_what_an_error_interrupted_ends_with_the_stage_around_it(activity):
    activity.begin(Uncounted("trying finetune"), 0, 1)
    activity.begin(Uncounted("building"), 0, 1)
    activity.begin("weights", 0, 10)
    activity.end(Uncounted("trying finetune"))
    assert names(activity) == []


def test_the_end_of_an_unknown_stage_changes_nothing(activity):
    activity.begin(Uncounted("loading"), 0, 1)
    assert activity.end("decoding") is None
    assert names(activity) == ["loading"]


def test_the_outermost_step_is_the_step_of_the_call(activity):
    activity.begin(Step("comparing", 3, 4), 0, 1)
    activity.begin(Step("probing", 2, 5), 0, 1)
    assert (activity.step.number, activity.step.total) == (3, 4)
    activity.end(Step("probing", 2, 5))
    assert activity.step == "comparing"
    activity.end(Step("comparing", 3, 4))
    assert activity.step is None


def test_epochs_count_the_finished_part_of_a_training(activity):
    activity.begin(Uncounted("training mobilenet"), 0, 1)
    activity.begin("decoding train", 0, 10)
    activity.batch(1, 1, 4)
    assert names(activity) == ["training mobilenet"]
    assert activity.epochs.fraction == 0  # the number of epochs is unknown
    activity.epoch(EpochRecord("train", 1, 2.0, 0.001, 0.5, 0.4, 0.75), 4)
    assert (activity.epochs.fraction, activity.epochs.best) == (0.25, 0.75)
    activity.batch(2, 2, 4)
    assert activity.epochs.fraction == 0.375
    activity.end(Uncounted("training mobilenet"))
    assert activity.epochs is None


def test_a_race_has_a_row_for_each_candidate(activity):
    run(activity, "finetune", 0.9)
    assert not activity.in_race  # a candidate alone is no race
    activity.end(Uncounted("trying finetune"))
    activity.racers.clear()
    raced(activity)
    assert not activity.in_race
    rows = [(racer.name, racer.best, racer.epochs, racer.state) for racer in activity.racers.values()]
    assert rows == [
        ("feature-extraction", 0.9, 0, "done"),
        ("finetune, mobilenet", 0.93, 2, "best so far"),
        ("from-scratch", None, 0, "out of time"),
        ("finetune, resnet50", None, 0, "not tried"),
    ]
    assert activity.racers["feature-extraction", "mobilenet"].seconds == 8.0


def test_the_folds_of_a_candidate_do_not_change_its_result(activity):
    raced(activity)
    racer = activity.racers["finetune", "mobilenet"]
    activity.note(Note("", "folds-started", **facts("finetune")))
    assert activity.in_race
    assert racer.state == "cross-validating"
    activity.epoch(EpochRecord("tune", 1, 1.0, 0.001, 0.5, 0.4, 1.0), 2)
    for _ in range(2):  # the second note would end folds that have not begun
        activity.note(Note("", "folds-compared", **facts("finetune")))
        assert (racer.best, racer.state) == (0.93, "best so far")
    assert not activity.in_race


def test_a_single_candidate_is_no_race(activity):
    activity.note(Note("", "run-started", **facts("finetune", epochs=2)))
    activity.begin(Uncounted("trying finetune"), 0, 1)
    assert not activity.in_race


def test_notes_without_a_code_are_ignored(activity):
    activity.note("trying")
    assert activity == Activity(activity.began)
