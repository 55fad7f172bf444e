"""Covers the sentence on why the case, the recommendation and the winner of a race differ."""

import pytest

from crossroads.advice.estimate import Estimate
from crossroads.progress import Note
from crossroads.race.choice import Ended, explain_choice
from crossroads.race.decisions import Results, Skip
from crossroads.race.records import CandidateRun, Plan, RaceCandidate
from crossroads.recipe import Recipe

EPOCHS = {"feature-extraction": None, "early-features": None}


def candidate(strategy):
    recipe = Recipe(strategy=strategy, backbone="lite0", epochs=EPOCHS.get(strategy, 8))
    return RaceCandidate(recipe, Estimate(0.9, 0.85, 0.94), 10.0, 1.0)


def row(strategy, obstacle=None):
    return {"strategy": strategy, "backbone": "lite0", "accuracy": {"value": 0.9}, "obstacle": obstacle}


def run(index, accuracy, epochs=8, **facts):
    return CandidateRun(f"run-{index}", index, epochs, epochs, True, 10.0, 1.0, accuracy, 0.3, 400.0, **facts)


HEAD, BETTER_HEAD = run(0, 0.925, None), run(0, 0.95, None)
CANDIDATES = (candidate("feature-extraction"), candidate("finetune"))


def ended(case, *advised, runs=(HEAD,), skipped=None, stopped=False, final=None):
    ranked = [row(one) if isinstance(one, str) else one for one in advised]
    advice = {"case": None if case is None else {"number": case}, "ranked": ranked} if ranked else {}
    results = Results(Plan(CANDIDATES, 600.0, 20.0, advice), tuple(runs))
    return Ended(results, skipped or {}, stopped, final)


def failed(reason, *, out_of_time=False):
    return CandidateRun("run-1", 1, 8, 0, False, 10.0, failed=reason, out_of_time=out_of_time)


@pytest.mark.parametrize(
    "agreed",
    [
        ended(1, "feature-extraction", "finetune"),
        ended(None, "feature-extraction", "finetune"),
        ended(3, "finetune", "feature-extraction", runs=[HEAD, run(1, 0.97)]),
        ended(None),  # a named strategy
    ],
)
def test_nothing_is_said_if_all_agree(agreed):
    assert explain_choice(agreed) is None


FINETUNE = ("finetune", "feature-extraction")
RIGHT = {"correct": "1" * 92 + "0" * 8}
MORE = {"correct": "1" * 91 + "0" + "11" + "0" * 6}


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (ended(3, *FINETUNE, runs=[HEAD, run(1, 0.912)]), "measured"),
        (ended(3, *FINETUNE, runs=[HEAD, run(1, 0.925, improved=False)]), "no-improvement"),
        (ended(3, *FINETUNE, runs=[run(0, 0.92, None, **RIGHT), run(1, 0.93, **MORE)]), "within-error"),
        (ended(3, *FINETUNE, runs=[run(0, 0.92, None, **RIGHT), run(1, 0.92, **RIGHT)]), "tie"),
        (ended(3, *FINETUNE, runs=[HEAD, failed("out of memory")]), "failed"),
        (ended(3, *FINETUNE, runs=[HEAD, failed("late", out_of_time=True)]), "out-of-time"),
        (ended(3, *FINETUNE, skipped={1: Skip(1, "too-few-epochs", 1, 20.0, 8.0)}), "out-of-time"),
        (ended(3, *FINETUNE, skipped={1: Skip(1, "no-gain", 8, reachable=0.92)}), "no-gain"),
        (ended(3, *FINETUNE, stopped=True), "stopped"),
        (ended(3, "warm-start", "feature-extraction"), "not-a-candidate"),
    ],
)
def test_the_winner_is_not_the_recommended_one(found, reason):
    note = explain_choice(found)
    assert (note.code, note.figures["reason"]) == ("choice", reason)
    assert (note.figures["case"], note.figures["winner"]) == (3, "feature-extraction")


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (ended(3, "feature-extraction", "finetune"), "expected"),
        (ended(3, "feature-extraction", "finetune", runs=[HEAD, run(1, 0.91)]), "measured"),
        (ended(3, "feature-extraction", row("finetune", "needs the extra train")), "not-possible"),
        (ended(3, "feature-extraction"), "not-a-candidate"),
    ],
)
def test_the_recommended_one_is_not_that_of_the_case(found, reason):
    figures = explain_choice(found).figures
    assert (figures["reason"], figures["of_case"], figures["recommended"]) == (reason, ["finetune"], "feature-extraction")


def test_the_classic_strategy_of_a_case_comes_before_its_alternative():
    assert explain_choice(ended(4, "feature-extraction")).figures["of_case"] == ["from-scratch", "warm-start"]


def test_a_first_answer_that_is_final_gives_its_own_reason():
    note = explain_choice(ended(None, final=Note("the first answer is final", "cannot-train")))
    assert (note.figures["reason"], note.figures["winner"]) == ("cannot-train", "feature-extraction")
