"""The race end to end with stubbed trainings: results, failures, Ctrl-C, time limits, and resuming."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import tiny_networks
from crossroads.advice import expectation
from crossroads.advice.estimate import Estimate
from crossroads.data.partition import load_and_split
from crossroads.errors import RecipeError, TrainingError
from crossroads.networks.construct import choose
from crossroads.progress import EpochRecord, Relay, Silent, StopTraining, StopWithinEpoch
from crossroads.race import running as module
from crossroads.race.records import Plan, RaceCandidate
from crossroads.race.running import race
from crossroads.recipe import Recipe
from crossroads.run.folder import RunFolder
from crossroads.run.task import Tasks
from crossroads.strategies import resolve_recipe
from crossroads.training.checkpoint import TrainingState
from pictures import stripes
from rows import dataset
from watchers import Notes

EXPECTED = {
    "feature-extraction": Estimate(0.80, 0.72, 0.86),
    "early-features": Estimate(0.85, 0.78, 0.90),
    "finetune": Estimate(0.86, 0.70, 0.95),
    "warm-start": Estimate(0.84, 0.60, 0.96),
    "from-scratch": Estimate(0.82, 0.60, 0.94),
}
SECONDS = {"feature-extraction": 10.0, "early-features": 12.0, "finetune": 100.0, "warm-start": 100.0, "from-scratch": 80.0}
BATCHES = 100


def candidate(name, shortens=True):
    trains = "feature" not in name
    recipe = Recipe(strategy=name, backbone="b", epochs=8 if trains else None)
    return RaceCandidate(recipe, EXPECTED[name], SECONDS[name], SECONDS[name] / 8 if trains else 0.0, shortens)


def plan(*names, budget=600.0, shortens=True):
    return Plan(tuple(candidate(name, shortens) for name in names), budget, 5.0, {"case": None})


@pytest.fixture
def trainings(monkeypatch):
    """Replaces training by a stub with a clock of its own.

    Each strategy reaches its accuracy in `reaches`, less `short` if it has no epochs. The stub keeps checkpoints and resumes from
    them, ends when the watcher stops it, and stops early after `stops` epochs.
    """
    state = SimpleNamespace(reaches={}, ran=[], clock=0.0, takes=dict(SECONDS), short=0.13, stops={}, places=[], kept_head=())

    def train(task, place, watcher):
        recipe = task
        state.ran.append((recipe.strategy, recipe.epochs))
        accuracy = state.reaches[recipe.strategy]
        if isinstance(accuracy, BaseException):
            raise accuracy
        checkpoints, total = place.checkpoints(0), recipe.epochs or 1
        state.places.append(checkpoints.folder.parent.name)
        progress = checkpoints.load_for(str(recipe)) or TrainingState(str(recipe), (), 1)
        each = state.takes[recipe.strategy] / (8 if recipe.epochs else 1)
        while len(progress.history) < min(total, state.stops.get(recipe.strategy, total)) and not progress.facts:
            epoch = len(progress.history) + 1
            try:
                for batch in range(1, BATCHES + 1):
                    state.clock += each / BATCHES
                    if recipe.epochs:  # a head is solved without steps
                        watcher.step(epoch, batch, BATCHES)
                progress = replace(progress, history=(*progress.history, EpochRecord("train", epoch, each, 0.0, 0.0, 0.0, 0.0)))
                checkpoints.save(replace(progress, best=epoch), [])
                watcher.epoch(progress.history[-1], total)
            except StopTraining as stop:
                if not progress.history:
                    if not isinstance(stop, StopWithinEpoch):
                        raise
                    progress = replace(progress, history=(EpochRecord("train", 1, each, 0.0, 0.0, 0.0, 0.0),))
                    checkpoints.save(replace(progress, best=1), [])
                progress = replace(progress, best=len(progress.history), facts={"ended": True})
                checkpoints.save_facts(progress)
        missing = 0.0 if recipe.epochs is None or state.stops else state.short * (8 - len(progress.history)) / 8
        return SimpleNamespace(
            validation_accuracy=accuracy - missing,
            validation_loss=1 - accuracy,
            history=progress.history,
            validation=SimpleNamespace(dataset=dataset([0, 1] * 100)),
            held_out=None,
            validation_correct=None,
            stopped=bool(progress.facts),
            improved=recipe.strategy not in state.kept_head,
        )

    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(module.time, "perf_counter", lambda: state.clock)
    return state


@pytest.fixture(autouse=True)
def equal_penalties(monkeypatch):
    """Gives all strategies the same penalty for fewer epochs."""
    equal = expectation.EpochPenalty(0.4, 0.4)
    laws = {name: law if law.epochs is None else replace(law, epochs=equal) for name, law in expectation.LAWS.items()}
    monkeypatch.setattr(expectation, "LAWS", laws)


def skips(watcher):
    """Returns the strategy and the reason of each skip."""
    said = [note.figures for note in watcher.said if note.code == "candidates-skipped"]
    return [(one["strategy"], figures["reason"]) for figures in said for one in figures["candidates"]]


class Keeper:
    """Keeps the name and the recipe of the best run, as the artifact does."""

    def __init__(self, path):
        self._path = path
        self.saved = []
        self.kept, self.task = "", None
        if path.exists():
            self.kept, recipe = json.loads(path.read_text())
            self.task = Recipe.from_mapping(recipe)

    def save(self, name, task, fitted):
        self.kept, self.task = name, task
        self.saved.append(name)
        self._path.write_text(json.dumps([name, getattr(task, "recipe", task).to_mapping()]))

    def seconds_to_save(self, *, frozen):
        return 0.0


def run(tmp_path, of, watcher=None):
    folder = RunFolder(tmp_path / "run")
    folder.scratch.mkdir(parents=True, exist_ok=True)
    keeper = Keeper(tmp_path / "kept.json")
    raced = race(of, lambda recipe: recipe, folder, keeper, watcher or Silent())
    return SimpleNamespace(results=raced.results, report=raced.report, task=keeper.task, saved=keeper.saved)


def test_frozen_heads_run_first_then_a_quarter_of_the_others_then_the_better_half(tmp_path, trainings):
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
    assert [row.won for row in found.report.runs] == [False] * 5 + [True, False]
    assert found.report.why.code == "race-won"
    assert found.report.why.figures["strategy"] == "finetune"
    assert (found.report.why.figures["accuracy"], found.report.why.figures["expected"]) == (0.92, 0.86)


@pytest.mark.parametrize(
    ("finetuned", "budget", "goes_on"), [(0.9, 600.0, "from-scratch"), (0.95, 600.0, "finetune"), (0.9004, 180.0, "finetune")]
)
def test_a_tied_quicker_candidate_runs_first_if_it_leaves_time_for_the_most_promising(
    tmp_path, trainings, monkeypatch, finetuned, budget, goes_on
):
    monkeypatch.setitem(EXPECTED, "from-scratch", EXPECTED["finetune"])
    trainings.reaches = {"feature-extraction": 0.8, "finetune": finetuned, "from-scratch": 0.9}
    run(tmp_path, plan("feature-extraction", "finetune", "from-scratch", budget=budget))
    assert [epochs for _, epochs in trainings.ran[:4]] == [None, 2, 2, 8]
    assert trainings.ran[3][0] == goes_on


@pytest.mark.parametrize(("scratch", "close"), [(0.902, True), (0.85, False)])
def test_the_lead_is_reported_in_validation_images(tmp_path, trainings, scratch, close):
    trainings.reaches = {"feature-extraction": 0.8, "finetune": 0.9, "from-scratch": scratch}
    trainings.short = 0.0
    why = run(tmp_path, plan("feature-extraction", "finetune", "from-scratch")).report.why
    assert (why.figures["margin_images"] < 1) == close


def test_the_first_answer_ignores_the_budget_and_the_others_respect_it(tmp_path, trainings):
    trainings.reaches = {"early-features": 0.85, "finetune": 0.99}
    watcher = Notes()
    found = run(tmp_path, plan("finetune", "early-features", budget=1.0), watcher)
    assert found.task.strategy == "early-features"
    assert trainings.ran == [("early-features", None)]
    assert skips(watcher) == [("finetune", "too-few-epochs")]
    assert watcher.said[-1].code == "race-over-budget"
    assert watcher.said[-1].figures == {"seconds": 17.0, "budget": 1.0, "evidence_seconds": 5.0}


def test_a_small_budget_shortens_a_run(tmp_path, trainings):
    """After the advice and the head 83 s are left: 12.5 s an epoch, of which a tenth is kept for what goes wrong."""
    trainings.reaches = {"early-features": 0.85, "finetune": 0.99}
    watcher = Notes()
    found = run(tmp_path, plan("finetune", "early-features", budget=100.0), watcher)
    assert trainings.ran == [("early-features", None), ("finetune", 6)]
    assert found.task.epochs == 6
    row = found.report.runs[-1]
    assert (row.won, row.epochs, row.usual_epochs, row.whole) == (True, 6, 8, False)
    assert found.report.why.figures["accuracy"] == pytest.approx(0.9575)
    started = [note for note in watcher.said if note.code == "run-started"][-1]
    assert (started.figures["epochs"], started.figures["usual_epochs"]) == (6, 8)


def test_nothing_is_expected_of_a_strategy_that_the_user_named(tmp_path, trainings):
    trainings.reaches = {"finetune": 0.95}
    named = plan("finetune")
    named = replace(named, candidates=tuple(replace(one, estimated=False) for one in named.candidates))
    watcher = Notes()
    found = run(tmp_path, named, watcher)
    (started,) = [note for note in watcher.said if note.code == "run-started"]
    assert (started.figures["expected"], found.report.runs[0].expected, found.report.runs[0].posterior) == (None, None, None)
    assert (found.report.why.figures["expected"], found.report.why.figures["posterior"]) == (None, None)


def test_a_run_of_the_first_rung_can_win(tmp_path, trainings):
    """The head is done. A run of the first rung takes half of the time and is better; the rest is too short for others."""
    trainings.reaches = {"early-features": 0.85, "finetune": 0.99, "from-scratch": 0.9}
    trainings.short = 0.01
    trainings.takes["finetune"] = 400.0  # which nobody knew before
    found = run(tmp_path, plan("finetune", "from-scratch", "early-features", budget=150.0))
    assert trainings.ran == [("early-features", None), ("finetune", 2)]
    assert (found.task.strategy, found.task.epochs) == ("finetune", 2)
    assert found.report.runs[-1].epochs == 1
    assert found.report.why.figures["accuracy"] == pytest.approx(0.98125)


def test_the_seconds_of_the_first_rung_decide_the_epochs_of_the_second(tmp_path, trainings):
    trainings.reaches = {"early-features": 0.85, "finetune": 0.92, "warm-start": 0.99}
    trainings.takes["warm-start"] = 3_000.0  # which nobody knew before
    found = run(tmp_path, plan("finetune", "early-features", "warm-start", budget=2500.0))
    assert trainings.ran == [("early-features", None), ("finetune", 2), ("warm-start", 2), ("warm-start", 4)]
    assert (found.task.strategy, found.task.epochs) == ("warm-start", 4)


@pytest.mark.parametrize(
    ("takes", "had", "ends"),
    [(1_140.0, 2, 12 + 2 * 142.5), (2_000.0, 1, 12 + 283 + 15), (10_000.0, 0, 12 + 283 + 15)],
    ids=["at the end of an epoch", "in the twentieth that an epoch may be late", "before one is done"],
)
def test_a_run_that_exceeds_the_budget_ends_with_its_finished_epochs(tmp_path, trainings, takes, had, ends):
    """The first answer takes 12 s and the advice took 5: the run has 283 s, of which an epoch may be 15 s late."""
    trainings.reaches, trainings.short = {"early-features": 0.85, "finetune": 0.99}, 0.01
    trainings.takes["finetune"] = takes
    watcher = Notes()
    found = run(tmp_path, plan("finetune", "early-features", budget=300.0), watcher)
    assert ends - 1e-6 <= trainings.clock <= ends + takes / 8 / BATCHES
    row = found.report.runs[-1]
    if had:
        early = next(note for note in watcher.said if note.code == "run-ended-early")
        assert (early.figures["epochs"], early.figures["planned"]) == (had, 8)
        assert (row.epochs, row.won, row.whole) == (had, True, False)
    else:
        assert "run-out-of-time" in [note.code for note in watcher.said]
        assert row.failed
        assert found.task.strategy == "early-features"


def test_time_that_cheap_runs_leave_counts_for_the_most_promising(tmp_path, trainings):
    """Its own third of the half would be 9 s, less than an epoch; after a cheap one, which takes 1 s, it has 12."""
    trainings.reaches = {"early-features": 0.85, "finetune": 0.9, "warm-start": 0.9, "from-scratch": 0.9}
    made = plan("from-scratch", "finetune", "warm-start", "early-features", budget=78.0)
    cheap = replace(made.candidates[0], seconds=4.0, epoch_seconds=0.5)
    trainings.takes["from-scratch"] = 4.0
    run(tmp_path, replace(made, candidates=(cheap, *made.candidates[1:])))
    assert trainings.ran[1:3] == [("from-scratch", 2), ("finetune", 1)]


def test_if_the_most_promising_fails_the_others_have_a_first_rung(tmp_path, trainings):
    trainings.reaches = {"early-features": 0.85, "finetune": MemoryError(), "warm-start": 0.9, "from-scratch": 0.9}
    run(tmp_path, plan("finetune", "warm-start", "from-scratch", "early-features", budget=75.0))
    assert trainings.ran[1][0] == "finetune"
    assert [name for name, _ in trainings.ran[2:4]] == ["warm-start", "from-scratch"]


def test_the_first_rung_divides_half_of_the_time(tmp_path, trainings, monkeypatch, caplog):
    """Of 53 s the half is 26, a third of it 9: less than an epoch. What the first two leave is enough for the third."""
    monkeypatch.setitem(EXPECTED, "from-scratch", Estimate(0.90, 0.80, 0.97))
    monkeypatch.setitem(SECONDS, "from-scratch", 40.0)
    trainings.takes["from-scratch"] = 40.0
    trainings.reaches = {"early-features": 0.85, "finetune": 0.9, "warm-start": 0.9, "from-scratch": 0.9}
    caplog.set_level("DEBUG", module.__name__)
    run(tmp_path, plan("finetune", "warm-start", "from-scratch", "early-features", budget=70.0))
    assert trainings.ran[1] == ("from-scratch", 2)
    (note,) = [note for record in caplog.records for note in record.args if note.code == "candidates-skipped"]
    assert note.figures["reason"] == "no-time-in-first-rung"
    assert [one["strategy"] for one in note.figures["candidates"]] == ["finetune", "warm-start"]


def test_an_exception_of_the_watcher_ends_the_race_and_is_no_failure_of_a_candidate(tmp_path, trainings):
    class Stops(Silent):
        def epoch(self, record, total):
            raise OSError("the window is closed")

    trainings.reaches = {"early-features": 0.85, "finetune": 0.9, "from-scratch": 0.95}
    asked = plan("finetune", "early-features", "from-scratch")
    with pytest.raises(OSError, match="the window is closed"):
        run(tmp_path, asked, Stops())
    found = run(tmp_path, asked)  # resumed
    assert [row.failed for row in found.report.runs] == [None] * 4


def test_a_recipe_error_ends_the_race(tmp_path, trainings):
    trainings.reaches = {
        "early-features": 0.85,
        "finetune": RecipeError("a flip must not change what an image shows", received="a"),
    }
    with pytest.raises(RecipeError, match="a flip must not"):
        run(tmp_path, plan("finetune", "early-features"))


def test_grouped_validation_images_count_as_their_effective_number():
    groups = np.repeat(np.arange(9), [1_000, *[1] * 8])
    side = SimpleNamespace(dataset=replace(dataset([0, 1] * 504), groups=groups))
    fitted = SimpleNamespace(
        validation_accuracy=1.0,
        validation_loss=0.0,
        history=(),
        validation=side,
        stopped=False,
        improved=False,
        held_out=None,
        validation_correct=None,
    )
    blank = module.CandidateRun("candidate-00-run-1", 0, None, None, True, 1.0)
    completed = module.completed(blank, fitted)
    assert 1 < completed.images < 1.1
    assert not completed.improved


@pytest.mark.parametrize("kind", [TypeError, AttributeError, KeyError, AssertionError, NameError])
def test_a_bug_is_raised(tmp_path, trainings, kind):
    trainings.reaches = {"early-features": 0.85, "finetune": kind("a bug"), "from-scratch": 0.95}
    asked = plan("finetune", "early-features", "from-scratch")
    with pytest.raises(kind, match="a bug"):
        run(tmp_path, asked)
    trainings.reaches["finetune"] = 0.9
    assert [row.failed for row in run(tmp_path, asked).report.runs] == [None] * 4  # resumed once it is fixed


class ResourceExhaustedError(Exception):
    """As TensorFlow defines it."""

    __module__ = "tensorflow.python.framework.errors_impl"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError("no room"), "MemoryError: no room"),
        (ResourceExhaustedError("OOM"), "ResourceExhaustedError: OOM"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (ValueError("\nnegative dimension\nat line 3"), "ValueError: negative dimension"),
        (TrainingError("the loss must be finite"), "the loss must be finite"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failure_is_a_warning_with_a_traceback_in_the_log_and_does_not_lose_the_race(tmp_path, trainings, caplog, error, reason):
    trainings.reaches = {"early-features": 0.85, "finetune": error, "warm-start": 0.95, "from-scratch": 0.7}
    watcher = Relay(Silent())
    found = run(tmp_path, plan("finetune", "early-features", "warm-start", "from-scratch"), watcher)
    assert (found.task.strategy, found.task.epochs) == ("warm-start", 8)
    [failed] = [row for row in found.report.runs if row.failed]
    assert (failed.strategy, failed.epochs, failed.whole, failed.failed) == ("finetune", 0, False, reason)
    [warning] = watcher.warnings
    assert (warning.code, warning.figures["reason"]) == ("run-failed", reason)
    [record] = caplog.records
    assert (record.name, record.exc_info[1]) == ("crossroads.race.running", error)


def test_a_wrapped_exception_of_the_watcher_is_raised_unwrapped(tmp_path, trainings, monkeypatch):
    class Stops(Silent):
        def epoch(self, record, total):
            raise MemoryError("of the watcher")

    def wrapping(task, place, watcher, whole=module.train):
        try:
            return whole(task, place, watcher)
        except MemoryError as error:
            raise TrainingError("memory must hold a batch") from error

    monkeypatch.setattr(module, "train", wrapping)
    trainings.reaches = {"early-features": 0.85, "finetune": 0.9}
    with pytest.raises(MemoryError, match="of the watcher"):
        run(tmp_path, plan("finetune", "early-features"), Stops())


def test_if_the_first_head_fails_another_candidate_gives_the_first_answer(tmp_path, trainings):
    trainings.reaches = {"early-features": TrainingError("no room in the cache"), "finetune": 0.9, "from-scratch": 0.8}
    found = run(tmp_path, plan("early-features", "finetune", "from-scratch", budget=1.0))
    assert (found.task.strategy, found.task.epochs) == ("finetune", 1)
    assert [row.failed for row in found.report.runs] == ["no room in the cache", None]


def test_if_all_fail_the_last_error_is_raised(tmp_path, trainings):
    trainings.reaches = {"early-features": TrainingError("one"), "finetune": TrainingError("two")}
    with pytest.raises(TrainingError, match="two"):
        run(tmp_path, plan("early-features", "finetune"))


def test_early_stopping_counts_as_a_whole_run(tmp_path, trainings):
    """Its validation loss was no better; the clock has nothing to do with it, and named epochs are all there."""
    trainings.reaches, trainings.stops = {"early-features": 0.80, "finetune": 0.97}, {"finetune": 5}
    watcher = Notes()
    found = run(tmp_path, plan("early-features", "finetune", shortens=False), watcher)
    assert (found.task.strategy, found.task.epochs) == ("finetune", 8)
    assert found.report.runs[-1].whole
    assert "run-ended-early" not in [note.code for note in watcher.said]


def test_a_candidate_that_proves_faster_runs_again(tmp_path, trainings):
    """It was planned with two epochs of 25 s, which took 1 s each."""
    trainings.reaches = {"early-features": 0.80, "finetune": 0.99}
    trainings.takes["finetune"] = 8.0
    of = plan("early-features", "finetune", budget=80.0)
    slow = replace(of.candidates[1], seconds=200.0, epoch_seconds=25.0)
    found = run(tmp_path, replace(of, candidates=(of.candidates[0], slow)))
    assert trainings.ran == [("early-features", None), ("finetune", 2), ("finetune", 8)]
    assert found.task.epochs == 8


def test_with_unknown_seconds_as_on_a_gpu_runs_end_with_the_budget(tmp_path, trainings):
    trainings.reaches = {"early-features": 0.80, "finetune": 0.9, "warm-start": 0.9, "from-scratch": 0.9}
    trainings.takes |= {"finetune": 1_000.0, "warm-start": 1_000.0, "from-scratch": 1_000.0}
    of = plan("early-features", "finetune", "warm-start", "from-scratch", budget=100.0)
    blind = tuple(replace(one, seconds=0.0, epoch_seconds=0.0) for one in of.candidates)
    found = run(tmp_path, replace(of, candidates=blind))
    assert found.task.strategy == "early-features"
    assert trainings.ran == [("early-features", None), ("finetune", 2), ("warm-start", 8)]  # then the time is over
    assert trainings.clock < 100 * 1.1


def test_a_killed_run_has_the_rest_of_its_time(tmp_path, trainings, monkeypatch):
    """283 s for eight epochs that take 59 s, not 35: five of them, whether the process was killed after the fourth or not."""
    trainings.reaches, trainings.short = {"early-features": 0.80, "finetune": 0.99}, 0.01
    of = plan("early-features", "finetune", budget=300.0)
    trainings.takes["finetune"] = 472.0

    class KillAfterFour(Silent):
        def epoch(self, record, total):
            if record.epoch == 4 and total == 8:
                raise Kill

    whole = run(tmp_path / "whole", of).report
    with pytest.raises(Kill):
        run(tmp_path / "killed", of, KillAfterFour())
    again = run(tmp_path / "killed", of).report
    assert whole.runs[-1].epochs == 5
    assert again == whole


def test_each_run_has_its_own_checkpoints(tmp_path, trainings):
    trainings.reaches = {"early-features": 0.85, "finetune": 0.92, "warm-start": 0.9}
    run(tmp_path, plan("finetune", "early-features", "warm-start"))
    assert len(set(trainings.places)) == len(trainings.places) == 4


def test_the_only_candidate_runs_again_if_it_proves_faster(tmp_path, trainings):
    trainings.reaches, trainings.takes["from-scratch"] = {"from-scratch": 0.9}, 16.0
    of = plan("from-scratch", budget=60.0)
    slow = replace(of, candidates=(replace(of.candidates[0], seconds=800.0, epoch_seconds=100.0),))
    assert run(tmp_path, slow).task.epochs == 8
    assert trainings.ran == [("from-scratch", 1), ("from-scratch", 8)]


def test_ctrl_c_keeps_the_best_so_far(tmp_path, trainings):
    trainings.reaches = {"early-features": 0.85, "feature-extraction": 0.80, "finetune": KeyboardInterrupt()}
    watcher = Notes()
    found = run(tmp_path, plan("finetune", "early-features", "feature-extraction"), watcher)
    assert found.task.strategy == "early-features"
    assert found.report.stopped
    assert "race-stopped" in [note.code for note in watcher.said]


def test_ctrl_c_before_the_first_answer_is_raised(tmp_path, trainings):
    trainings.reaches = {"early-features": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, plan("early-features"))


class Kill(BaseException):
    """Ends the process in the middle of a run."""


@pytest.mark.parametrize("at", range(1, 7))
def test_a_killed_race_resumes_and_ends_the_same(tmp_path, trainings, monkeypatch, at):
    trainings.reaches = {
        "early-features": 0.85,
        "feature-extraction": 0.80,
        "finetune": 0.92,
        "warm-start": 0.9,
        "from-scratch": 0.8,
    }
    of = plan("finetune", "early-features", "warm-start", "from-scratch", "feature-extraction")
    whole = run(tmp_path / "whole", of).report
    everything, trainings.ran = trainings.ran, []
    assert len(everything) == 7
    original_train = module.train

    def killed(task, place, watcher):
        if len(trainings.ran) == at:
            raise Kill
        return original_train(task, place, watcher)

    monkeypatch.setattr(module, "train", killed)
    with pytest.raises(Kill):
        run(tmp_path / "killed", of)
    before, trainings.ran = trainings.ran, []
    monkeypatch.setattr(module, "train", original_train)
    again = run(tmp_path / "killed", of).report
    assert [*before, *trainings.ran][: len(everything)] == everything
    assert again == whole


def test_a_finished_race_only_loads_its_winner(tmp_path, trainings):
    trainings.reaches = {"early-features": 0.85, "feature-extraction": 0.80}
    run(tmp_path, plan("early-features", "feature-extraction"))
    trainings.ran = []
    assert run(tmp_path, plan("early-features", "feature-extraction")).task.strategy == "early-features"
    assert trainings.ran == []  # its model is saved


def test_a_winner_that_was_not_saved_is_loaded_from_its_checkpoints_and_saved(tmp_path, trainings):
    trainings.reaches = {"early-features": 0.85, "feature-extraction": 0.80}
    run(tmp_path, plan("early-features", "feature-extraction"))
    (tmp_path / "kept.json").unlink()  # as if the process was killed while it saved
    trainings.ran = []
    assert run(tmp_path, plan("early-features", "feature-extraction")).saved == ["candidate-00-run-1"]
    assert trainings.ran == [("early-features", None)]


def test_a_run_is_saved_as_soon_as_it_is_the_best(tmp_path, trainings):
    trainings.reaches = {"early-features": 0.85, "feature-extraction": 0.80, "finetune": 0.95, "from-scratch": 0.5}
    found = run(tmp_path, plan("early-features", "feature-extraction", "finetune", "from-scratch"))
    assert found.saved[0] == "candidate-00-run-1"
    assert found.saved[-1] == found.results.winner().name
    assert "candidate-01-run-1" not in found.saved


def test_a_resumed_race_tries_failures_again(tmp_path, trainings):
    """As where a disk was full: only the candidate that runs last can write again, and then the others can."""
    full = TrainingError("no room on the disk")
    trainings.reaches = {"early-features": full, "finetune": full, "from-scratch": 0.8}
    of = plan("early-features", "finetune", "from-scratch")
    before = run(tmp_path, of)
    assert before.task.strategy == "from-scratch"
    assert before.report.why.figures["failed"] == ["early-features", "finetune"]
    trainings.reaches = {"early-features": 0.85, "finetune": 0.92, "from-scratch": 0.8}
    again = run(tmp_path, of)
    assert again.task.strategy == "finetune"
    assert {row.strategy for row in again.report.runs} == {"early-features", "finetune", "from-scratch"}
    assert again.report.why.figures["failed"] == []


def test_finished_runs_are_kept_when_a_failure_is_tried_again(tmp_path, trainings):
    full = TrainingError("no room on the disk")
    trainings.reaches = {"early-features": full, "finetune": 0.9, "warm-start": 0.92, "from-scratch": 0.8}
    of = plan("early-features", "from-scratch", "finetune", "warm-start", budget=110.0)
    run(tmp_path, of)
    before, trainings.ran = trainings.ran, []
    trainings.reaches["early-features"] = 0.85
    again = run(tmp_path, of).report.runs
    kept = [(strategy, epochs) for strategy, epochs in before if strategy != "early-features"]
    assert len(kept) == 2
    rerun = [run for run in trainings.ran if run in kept]
    assert len(rerun) <= 1  # the winner, from its checkpoints
    assert len({(row.strategy, row.epochs) for row in again}) == len(again)


def test_the_only_candidate_runs_to_its_end(tmp_path, trainings):
    trainings.reaches = {"from-scratch": 0.9}
    assert run(tmp_path, plan("from-scratch")).task.epochs == 8
    assert trainings.ran == [("from-scratch", 8)]


class StepClock(Silent):
    """A clock that advances with each training step alone, so that the test does not depend on the machine."""

    def __init__(self, seconds_per_step):
        self.now, self._seconds_per_step, self._last = 0.0, seconds_per_step, None

    def step(self, epoch, done, total):
        if (epoch, done) != self._last:  # validation repeats the last batch
            self.now += self._seconds_per_step
        self._last = (epoch, done)


@pytest.mark.parametrize(("seconds_per_step", "epochs"), [(1.0, 21), (100.0, 0)], ids=["after an epoch", "before the first epoch"])
def test_the_real_training_loop_runs_out_of_time(tmp_path, monkeypatch, seconds_per_step, epochs):
    """An epoch is one batch of 48 images, and the budget is 20 s. After 21 epochs of 1 s the time is over."""
    clock = StepClock(seconds_per_step)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))  # the clock of the race alone
    network, folder = tiny_networks.tiny(), RunFolder(tmp_path / "run")
    folder.scratch.mkdir(parents=True)
    partition = load_and_split(stripes(60, size=16), None, Recipe(validation=0.2, test_fraction=0.0), Silent())

    def made(name, accuracy, **options):
        record = choose(network).record
        asked = Recipe(strategy=name, backbone=record.name, weights="own", image_size=16, **options)
        recipe = resolve_recipe(asked, record, images=len(partition.train), image_size=16)
        return RaceCandidate(recipe, Estimate(accuracy, 0.5, 0.99), 0.0)

    candidates = (made("feature-extraction", 0.6), made("warm-start", 0.99, epochs=30, batch_size=48))
    tasks = Tasks(partition, tmp_path, network, clock)
    keeper = Keeper(tmp_path / "kept.json")
    found = race(Plan(candidates, 20.0, 0.0, {}), tasks.task_for, folder, keeper, clock)
    head, trained = found.results.runs
    assert (head.whole, head.seconds) == (True, 0.0)
    assert (trained.planned, trained.epochs, trained.whole) == (30, epochs, False)
    assert trained.out_of_time is (epochs == 0)
    assert keeper.kept == found.results.winner().name
