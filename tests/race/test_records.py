"""The files of a race: plan and state are read as they were written, and damaged files are refused."""

import json

import pytest

from crossroads.advice.estimate import Estimate
from crossroads.errors import TrainingError
from crossroads.race.records import (
    CandidateRun,
    Plan,
    RaceCandidate,
    RaceState,
    keep_plan,
    keep_state,
    stored_plan,
    stored_state,
)
from crossroads.recipe import Recipe
from refusals import refused

PLAN = Plan(
    (
        RaceCandidate(Recipe(strategy="finetune", backbone="b", epochs=8), Estimate(0.86, 0.70, 0.95), 100.0, 12.5),
        RaceCandidate(Recipe(strategy="early-features", backbone="b"), Estimate(0.85, 0.78, 0.90), 12.0, shortens=False),
    ),
    600.0,
    5.0,
    {"case": None},
)


def test_a_plan_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "plan.json"
    assert stored_plan(path, "a") is None
    keep_plan(PLAN, path, "a")
    assert stored_plan(path, "a") == PLAN
    with refused("resumed-run-differs", TrainingError):
        stored_plan(path, "b")


@pytest.mark.parametrize("change", [{"format": 1}, {"format": None}, {"identity": "b"}])
def test_a_plan_of_another_version_is_refused_whatever_it_contains(tmp_path, change):
    path = tmp_path / "plan.json"
    keep_plan(PLAN, path, "a")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"candidates": [{"old": 1}]} | change))
    with refused("resumed-run-differs", TrainingError) as caught:
        stored_plan(path, "a")
    assert "version" in caught.value.rule


def test_a_plan_for_other_images_is_refused(tmp_path):
    path = tmp_path / "plan.json"
    keep_plan(PLAN, path, "images or labels: 1; versions: 2")
    with refused("resumed-run-differs", TrainingError) as caught:
        stored_plan(path, "images or labels: 3; versions: 2")
    assert "images or labels differ" in caught.value.rule


def test_a_plan_that_cannot_be_written_is_refused(tmp_path):
    with refused("out-not-writable", TrainingError, field="out"):
        keep_plan(PLAN, tmp_path / "absent" / "plan.json", "a")


@pytest.mark.parametrize("change", [{"candidates": [{}]}, {"budget": None, "candidates": 3}])
def test_a_plan_with_wrong_fields_is_damaged(tmp_path, change):
    path = tmp_path / "plan.json"
    keep_plan(PLAN, path, "a")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with refused("damaged-run", TrainingError):
        stored_plan(path, "a")


def test_a_plan_with_an_unknown_option_is_damaged(tmp_path):
    path = tmp_path / "plan.json"
    keep_plan(PLAN, path, "a")
    path.write_text(path.read_text().replace('"backbone"', '"backbones"'))
    with refused("damaged-run", TrainingError):
        stored_plan(path, "a")


def test_the_state_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "race.json"
    assert stored_state(path) == RaceState({}, {})
    done = RaceState(
        {"candidate-00-run-1": CandidateRun("candidate-00-run-1", 0, 2, 2, False, 12.5, 5.0, 0.9, 0.1, 40)},
        {"candidate-00-run-1": 2, "candidate-01-run-1": None},
    )
    keep_state(done, path)
    assert stored_state(path) == done


OLD = ("{}", json.dumps({"runs": [{}], "begun": {}}), json.dumps({"runs": []}))


@pytest.mark.parametrize("text", ["{", "[]", *OLD])
def test_a_damaged_file_is_refused(tmp_path, text):
    path = tmp_path / "race.json"
    path.write_text(text)
    with refused("damaged-run", TrainingError):
        stored_state(path)
    with refused("resumed-run-differs" if text in OLD else "damaged-run", TrainingError):
        stored_plan(path, "a")
