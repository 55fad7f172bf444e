"""The files of a race: what is read is what was written, and what cannot be read is told."""

import json

import pytest

from crossroads.advice.estimate import Estimate
from crossroads.errors import TrainingError
from crossroads.race.records import CandidateRun, Done, Plan, RaceCandidate, keep_done, keep_plan, stored_done, stored_plan
from crossroads.recipe import Recipe

PLAN = Plan(
    (
        RaceCandidate(Recipe(strategy="finetune", backbone="b", epochs=8), Estimate(0.86, 0.70, 0.95), 100.0, 12.5),
        RaceCandidate(Recipe(strategy="early-features", backbone="b"), Estimate(0.85, 0.78, 0.90), 12.0, shortens=False),
    ),
    600.0,
    5.0,
    {"case": None},
)


def test_a_plan_is_kept_as_it_is(tmp_path):
    path = tmp_path / "plan.json"
    assert stored_plan(path, "a") is None
    keep_plan(PLAN, path, "a")
    assert stored_plan(path, "a") == PLAN
    with pytest.raises(TrainingError, match="belongs to another run"):
        stored_plan(path, "b")


@pytest.mark.parametrize("change", [{"format": 1}, {"format": None}, {"identity": "b"}])
def test_a_plan_of_another_version_is_told_as_such_whatever_else_is_in_it(tmp_path, change):
    path = tmp_path / "plan.json"
    keep_plan(PLAN, path, "a")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"candidates": [{"old": 1}]} | change))
    with pytest.raises(TrainingError, match=r"belongs to another run: .*version"):
        stored_plan(path, "a")


def test_of_a_plan_for_other_images_it_is_told_what_differs(tmp_path):
    path = tmp_path / "plan.json"
    keep_plan(PLAN, path, "images or labels: 1; versions: 2")
    with pytest.raises(TrainingError, match="another run: images or labels differ"):
        stored_plan(path, "images or labels: 3; versions: 2")


def test_a_plan_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(TrainingError, match="--out must be writable"):
        keep_plan(PLAN, tmp_path / "absent" / "plan.json", "a")


@pytest.mark.parametrize("change", [{"candidates": [{}]}, {"budget": None, "candidates": 3}])
def test_a_plan_that_is_not_one_is_told(tmp_path, change):
    path = tmp_path / "plan.json"
    keep_plan(PLAN, path, "a")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(TrainingError, match="the unfinished run is damaged"):
        stored_plan(path, "a")


def test_a_plan_with_an_option_that_there_is_not_is_damaged(tmp_path):
    path = tmp_path / "plan.json"
    keep_plan(PLAN, path, "a")
    path.write_text(path.read_text().replace('"backbone"', '"backbones"'))
    with pytest.raises(TrainingError, match="the unfinished run is damaged"):
        stored_plan(path, "a")


def test_what_was_done_is_kept_as_it_is(tmp_path):
    path = tmp_path / "race.json"
    assert stored_done(path) == Done({}, {})
    done = Done(
        {"candidate-00-run-1": CandidateRun("candidate-00-run-1", 0, 2, 2, False, 12.5, 5.0, 0.9, 0.1, 40)},
        {"candidate-00-run-1": 2, "candidate-01-run-1": None},
    )
    keep_done(done, path)
    assert stored_done(path) == done


NO_DONE = ("{}", json.dumps({"runs": [{}], "begun": {}}), json.dumps({"runs": []}))


@pytest.mark.parametrize("text", ["{", "[]", *NO_DONE])
def test_a_damaged_file_is_told(tmp_path, text):
    path = tmp_path / "race.json"
    path.write_text(text)
    with pytest.raises(TrainingError, match="the unfinished run is damaged"):
        stored_done(path)
    with pytest.raises(TrainingError, match="versions differ" if text in NO_DONE else "is damaged"):
        stored_plan(path, "a")
