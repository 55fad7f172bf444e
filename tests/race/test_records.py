"""The files of a race: plan and state are read as they were written, and damaged files are refused."""

import json

import pytest

from crossroads.advice.estimate import Estimate
from crossroads.errors import TrainingError
from crossroads.plain import to_plain
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


IDENTITY = "images or labels: 1; versions: 2"


@pytest.fixture
def path(tmp_path):
    """The path of a file in the folder of a run."""
    folder = tmp_path / "run" / "checkpoint"
    folder.mkdir(parents=True)
    return folder / "race.json"


def change(path, **parts):
    """Replaces parts of a stored JSON object."""
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


def test_a_plan_is_read_as_it_was_written(path):
    assert stored_plan(path, IDENTITY) is None
    keep_plan(PLAN, path, IDENTITY)
    assert stored_plan(path, IDENTITY) == PLAN


@pytest.mark.parametrize(
    ("changed", "other"),
    [
        ({"identity": "images or labels: 3; versions: 2"}, "images or labels"),
        ({"identity": "images or labels: 1; versions: 1"}, "versions"),
        ({"identity": "b"}, "data, recipe or version"),
        ({"format": 1}, "versions"),
        ({"format": None}, "versions"),
    ],
    ids=str,
)
def test_a_plan_for_other_images_or_of_another_version_is_refused_whatever_it_contains(path, changed, other):
    keep_plan(PLAN, path, IDENTITY)
    change(path, plan={"old": 1}, **changed)
    with refused("resumed-run-differs", TrainingError, received=f"{path.parents[1]} with other {other}"):
        stored_plan(path, IDENTITY)


def test_a_plan_that_cannot_be_written_is_refused(tmp_path):
    with refused("out-not-writable", TrainingError, field="out"):
        keep_plan(PLAN, tmp_path / "absent" / "plan.json", IDENTITY)


def with_option(name):
    """Returns the plan as JSON with an option in the recipe of its first candidate."""
    plan = to_plain(PLAN)
    plan["candidates"][0]["recipe"] |= {name: 0}
    return plan


@pytest.mark.parametrize(
    "plan",
    [
        None,
        {},
        to_plain(PLAN) | {"candidates": [{}]},
        to_plain(PLAN) | {"budget": "60"},
        with_option("backbones"),
        with_option("epochs"),
    ],
    ids=["no plan", "no fields", "an empty candidate", "a budget as text", "an unknown option", "an option out of range"],
)
def test_a_plan_with_wrong_fields_is_damaged(path, plan):
    keep_plan(PLAN, path, IDENTITY)
    change(path, plan=plan)
    with refused("damaged-run", TrainingError, received=str(path)):
        stored_plan(path, IDENTITY)


def test_the_state_is_read_as_it_was_written(path):
    assert stored_state(path) == RaceState({}, {})
    done = RaceState(
        {"candidate-00-run-1": CandidateRun("candidate-00-run-1", 0, 2, 2, False, 12.5, 5.0, 0.9, 0.1, 40.0)},
        {"candidate-00-run-1": 2, "candidate-01-run-1": None},
    )
    keep_state(done, path)
    assert stored_state(path) == done


NO_JSON = ("{", "[]")
WRONG = ("{}", json.dumps({"runs": {"a": {}}, "begun": {}}), json.dumps({"runs": {}}))


@pytest.mark.parametrize("text", [*NO_JSON, *WRONG])
def test_a_damaged_file_is_refused(path, text):
    path.write_text(text)
    with refused("damaged-run", TrainingError):
        stored_state(path)
    with refused("damaged-run" if text in NO_JSON else "resumed-run-differs", TrainingError):
        stored_plan(path, IDENTITY)
