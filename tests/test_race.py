"""The race: who runs, for how long, who wins, and that it goes on where it stopped."""

import json
from types import SimpleNamespace

import pytest

from crossroads import race as module
from crossroads.advice.estimate import Estimate
from crossroads.errors import TrainingError
from crossroads.race import Entrant, Plan, believed, keep_plan, race, stored_plan
from crossroads.recipe import Recipe
from crossroads.run_folder import RunFolder
from crossroads.training.checkpoint import EpochRecord
from crossroads.training.watch import Silent
from rows import dataset

EXPECTED = {
    "feature-extraction": Estimate(0.80, 0.72, 0.86),
    "early-features": Estimate(0.85, 0.78, 0.90),
    "finetune": Estimate(0.86, 0.70, 0.95),
    "warm-start": Estimate(0.84, 0.60, 0.96),
    "from-scratch": Estimate(0.82, 0.60, 0.94),
}
SECONDS = {"feature-extraction": 10.0, "early-features": 12.0, "finetune": 100.0, "warm-start": 100.0, "from-scratch": 80.0}
BATCHES = 100


class Notes(Silent):
    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


def plan(*names, budget=600.0):
    entrants = tuple(
        Entrant(Recipe(strategy=name, backbone="b", epochs=None if "feature" in name else 8), EXPECTED[name], SECONDS[name])
        for name in names
    )
    return Plan(entrants, budget, 5.0, {"case": None})


@pytest.fixture
def trainings(monkeypatch):
    """Stands in for training: what each strategy reaches, by its epochs; what was run, and what time it took."""
    state = SimpleNamespace(reaches={}, ran=[], places=[], clock=0.0, takes=dict(SECONDS))

    def carry_out(task, place, watcher):
        recipe = task
        state.ran.append((recipe.strategy, recipe.epochs))
        accuracy = state.reaches[recipe.strategy]
        if isinstance(accuracy, BaseException):
            raise accuracy
        place.checkpoints(0).folder.mkdir(parents=True, exist_ok=True)
        state.places.append(place.checkpoints(0).folder.parent.name)
        share = 1.0 if recipe.epochs is None else recipe.epochs / 8
        reached = {"accuracy": accuracy if share == 1 else accuracy - 0.1, "loss": 1 - accuracy}
        for epoch in range(1, (recipe.epochs or 1) + 1):
            record = EpochRecord("train", epoch, state.takes[recipe.strategy] / 8, 0.0, 0.0, 0.0, 0.0)
            for batch in range(1, BATCHES + 1):
                state.clock += state.takes[recipe.strategy] / (8 if recipe.epochs else 1) / BATCHES
                watcher.step(epoch, batch, BATCHES)
            watcher.epoch(record, recipe.epochs or 1)
        return SimpleNamespace(reached=reached, history=(), validation=SimpleNamespace(dataset=dataset([0, 1] * 100)))

    monkeypatch.setattr(module, "carry_out", carry_out)
    monkeypatch.setattr(module.time, "perf_counter", lambda: state.clock)
    return state


def run(tmp_path, of, watcher=None):
    folder = RunFolder(tmp_path / "run")
    folder.scratch.mkdir(parents=True, exist_ok=True)
    return race(of, lambda recipe: recipe, folder, watcher or Silent())


def test_the_surest_comes_first_then_a_quarter_of_the_others_then_the_better_half(tmp_path, trainings):
    trainings.reaches = {
        "early-features": 0.85,
        "feature-extraction": 0.8,
        "finetune": 0.92,
        "warm-start": 0.9,
        "from-scratch": 0.88,
    }
    found = run(tmp_path, plan("finetune", "early-features", "warm-start", "from-scratch", "feature-extraction"))
    assert trainings.ran == [
        ("early-features", None),
        ("feature-extraction", None),
        ("finetune", 2),
        ("warm-start", 2),
        ("from-scratch", 2),
        ("finetune", 8),
        ("warm-start", 8),
    ]
    assert (found.task.strategy, found.task.epochs) == ("finetune", 8)
    assert [row["won"] for row in found.facts["trials"]] == [False] * 5 + [True, False]
    assert "finetune of b won: 0.9200 on validation where 0.860 was expected" in found.facts["why"]


def test_a_candidate_that_cannot_be_hoped_to_win_is_not_tried(tmp_path, trainings):
    trainings.reaches = {"early-features": 0.97, "feature-extraction": 0.8}
    run(tmp_path, plan("early-features", "feature-extraction"))
    assert trainings.ran == [("early-features", None)]


def test_the_first_answer_comes_whatever_the_budget_and_the_others_only_within_it(tmp_path, trainings):
    trainings.reaches = {"early-features": 0.85, "finetune": 0.99}
    watcher = Notes()
    found = run(tmp_path, plan("finetune", "early-features", budget=1.0), watcher)
    assert found.task.strategy == "early-features"
    assert trainings.ran == [("early-features", None)]
    assert any("finetune of b is not tried: it takes about 100 s, and 0 are left" in note for note in watcher.said)


def test_time_that_a_short_turn_took_says_what_the_whole_takes(tmp_path, trainings):
    trainings.reaches = {"early-features": 0.85, "finetune": 0.92, "warm-start": 0.93}
    trainings.takes["warm-start"] = 3_000.0  # which nobody knew before
    found = run(tmp_path, plan("finetune", "early-features", "warm-start", budget=2500.0))
    assert ("warm-start", 2) in trainings.ran
    assert ("warm-start", 8) not in trainings.ran
    assert (found.task.strategy, found.task.epochs) == ("finetune", 8)  # the next one takes its place


@pytest.mark.parametrize(
    ("takes", "ends"),
    [(1_140.0, 12 + 2 * 142.5), (2_388.0, 12 + 298.5), (10_000.0, 12 + 283 + 30)],
    ids=["at the end of an epoch", "in the tenth that an epoch may be late", "in mid-epoch"],
)
def test_a_trial_that_outlasts_the_budget_is_given_up(tmp_path, trainings, takes, ends):
    """The first answer takes 12 s and the advice took 5: the trial has 283 s, of which an epoch may be 30 late."""
    trainings.reaches = {"early-features": 0.85, "finetune": 0.99}
    trainings.takes["finetune"] = takes
    watcher = Notes()
    found = run(tmp_path, plan("finetune", "early-features", budget=300.0), watcher)
    assert found.task.strategy == "early-features"
    assert ends - 1e-6 <= trainings.clock <= ends + takes / 8 / BATCHES
    assert "finetune of b is given up: the budget was spent before its end" in watcher.said
    assert found.facts["trials"][-1]["failed"] == "the budget was spent before its end"


def test_a_candidate_that_fails_does_not_lose_the_race(tmp_path, trainings):
    trainings.reaches = {"early-features": 0.85, "finetune": TrainingError("the loss must be finite"), "from-scratch": 0.95}
    found = run(tmp_path, plan("finetune", "early-features", "from-scratch"))
    assert found.task.strategy == "from-scratch"
    assert [row["failed"] for row in found.facts["trials"]] == [None, "the loss must be finite", None, None]


def test_a_fault_of_the_backend_does_not_lose_the_race_either(tmp_path, trainings):
    trainings.reaches = {"early-features": 0.85, "finetune": ValueError("\nnegative dimension\nat line 3")}
    watcher = Notes()
    found = run(tmp_path, plan("finetune", "early-features"), watcher)
    assert found.task.strategy == "early-features"
    assert "finetune of b is given up: ValueError: negative dimension" in watcher.said
    assert found.facts["trials"][-1]["failed"] == "ValueError: negative dimension"


def test_where_the_first_answer_fails_another_has_to_give_it(tmp_path, trainings):
    trainings.reaches = {"early-features": TrainingError("no room in the cache"), "finetune": 0.9, "from-scratch": 0.8}
    found = run(tmp_path, plan("early-features", "finetune", "from-scratch", budget=1.0))
    assert (found.task.strategy, found.task.epochs) == ("finetune", 8)
    assert [row["failed"] for row in found.facts["trials"]] == ["no room in the cache", None]


def test_where_all_fail_the_last_error_is_told(tmp_path, trainings):
    trainings.reaches = {"early-features": TrainingError("one"), "finetune": TrainingError("two")}
    with pytest.raises(TrainingError, match="two"):
        run(tmp_path, plan("early-features", "finetune"))


def test_each_trial_has_checkpoints_of_its_own(tmp_path, trainings):
    trainings.reaches = {"early-features": 0.85, "finetune": 0.92, "warm-start": 0.9}
    run(tmp_path, plan("finetune", "early-features", "warm-start"))
    assert len(set(trainings.places)) == len(trainings.places) == 4


def test_no_winner_does_worse_on_validation_than_the_first_answer(tmp_path, trainings):
    trainings.reaches = {"early-features": 0.90, "finetune": 0.895}
    assert run(tmp_path, plan("early-features", "finetune")).task.strategy == "early-features"


def test_ctrl_c_keeps_the_best_so_far(tmp_path, trainings):
    trainings.reaches = {"early-features": 0.85, "feature-extraction": 0.80, "finetune": KeyboardInterrupt()}
    watcher = Notes()
    found = run(tmp_path, plan("finetune", "early-features", "feature-extraction"), watcher)
    assert found.task.strategy == "early-features"
    assert found.facts["stopped"]
    assert any(note.startswith("stopped: the best so far is kept") for note in watcher.said)


def test_ctrl_c_before_there_is_anything_stops(tmp_path, trainings):
    trainings.reaches = {"early-features": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, plan("early-features"))


class Kill(BaseException):
    """Ends the process in the middle of a trial."""


@pytest.mark.parametrize("at", range(1, 7))
def test_a_race_that_was_killed_goes_on_and_ends_the_same(tmp_path, trainings, monkeypatch, at):
    trainings.reaches = {
        "early-features": 0.85,
        "feature-extraction": 0.80,
        "finetune": 0.92,
        "warm-start": 0.9,
        "from-scratch": 0.8,
    }
    of = plan("finetune", "early-features", "warm-start", "from-scratch", "feature-extraction")
    whole = run(tmp_path / "whole", of).facts
    everything, trainings.ran = trainings.ran, []
    assert len(everything) == 7
    whole_carry_out = module.carry_out

    def killed(task, place, watcher):
        if len(trainings.ran) == at:
            raise Kill
        return whole_carry_out(task, place, watcher)

    monkeypatch.setattr(module, "carry_out", killed)
    with pytest.raises(Kill):
        run(tmp_path / "killed", of)
    before, trainings.ran = trainings.ran, []
    monkeypatch.setattr(module, "carry_out", whole_carry_out)
    again = run(tmp_path / "killed", of).facts
    assert [*before, *trainings.ran][: len(everything)] == everything
    assert again == whole


def test_a_finished_race_trains_nothing_but_loads_its_winner(tmp_path, trainings):
    trainings.reaches = {"early-features": 0.85, "feature-extraction": 0.80}
    run(tmp_path, plan("early-features", "feature-extraction"))
    trainings.ran = []
    assert run(tmp_path, plan("early-features", "feature-extraction")).task.strategy == "early-features"
    assert trainings.ran == [("early-features", None)]  # from its checkpoints


def test_what_failed_is_tried_again_when_a_race_is_taken_up(tmp_path, trainings):
    """As where a disk was full: only the candidate that runs last can write again, and then the others can."""
    full = TrainingError("no room on the disk")
    trainings.reaches = {"early-features": full, "finetune": full, "from-scratch": 0.8}
    of = plan("early-features", "finetune", "from-scratch")
    before = run(tmp_path, of)
    assert before.task.strategy == "from-scratch"
    assert "(early-features, finetune failed)" in before.facts["why"]
    trainings.reaches = {"early-features": 0.85, "finetune": 0.92, "from-scratch": 0.8}
    again = run(tmp_path, of)
    assert again.task.strategy == "finetune"
    assert {row["strategy"] for row in again.facts["trials"]} == {"early-features", "finetune", "from-scratch"}
    assert "failed" not in again.facts["why"]


def test_without_a_pretrained_network_the_only_candidate_runs_to_its_end(tmp_path, trainings):
    trainings.reaches = {"from-scratch": 0.9}
    assert run(tmp_path, plan("from-scratch")).task.epochs == 8
    assert trainings.ran == [("from-scratch", 8)]


def test_few_validation_images_are_believed_little():
    expected = Estimate(0.80, 0.70, 0.87)
    assert believed(expected, 1.0, 10) < 0.9
    assert believed(expected, 0.95, 10_000) == pytest.approx(0.95, abs=0.005)
    assert believed(expected, 0.80, 100) == pytest.approx(0.80, abs=0.005)


def test_a_plan_is_kept_as_it_is(tmp_path):
    path = tmp_path / "plan.json"
    assert stored_plan(path, "a") is None
    keep_plan(plan("finetune", "early-features"), path, "a")
    assert stored_plan(path, "a") == plan("finetune", "early-features")
    with pytest.raises(TrainingError, match="on the images and with the version it was started with"):
        stored_plan(path, "b")


def test_a_plan_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(TrainingError, match="--out must be writable"):
        keep_plan(plan("finetune"), tmp_path / "absent" / "plan.json", "a")


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"entrants": [{}]})])
def test_a_damaged_plan_is_told(tmp_path, text):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(TrainingError, match="the unfinished run is damaged"):
        stored_plan(path, "a")
