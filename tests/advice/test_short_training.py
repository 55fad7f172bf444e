"""Short trainings: their images and epochs, their end, and when there is none."""

import math
from dataclasses import replace

import pytest

import crossroads
import tiny_networks
from crossroads.advice import short_training, warm_start
from crossroads.advice.backbone_evidence import probe_backbone, with_random_control
from crossroads.advice.cost import Machine
from crossroads.advice.short_training import Limit, learning_gain, limit_by_budget, run_short_training
from crossroads.advice.warm_start import short_warm_start
from crossroads.networks.construct import choose
from crossroads.progress import EpochRecord, Silent
from crossroads.recipe import Recipe
from crossroads.strategies import resolve_recipe
from pictures import stripes
from watchers import Notes

pytestmark = pytest.mark.core
SIZE = 16
SCRATCH = Recipe(strategy="from-scratch", image_size=32)
FAST = Machine(1e12)


@pytest.fixture(scope="module")
def pictures():
    return crossroads.read(stripes(120, size=SIZE))


@pytest.fixture(scope="module", name="tiny")
def _tiny():
    return choose(tiny_networks.tiny())


@pytest.fixture(scope="module")
def evidence(pictures, tiny, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSROADS_CACHE", str(tmp_path_factory.mktemp("cache")))
        recipe = resolve_recipe(
            Recipe(strategy="feature-extraction", backbone=tiny.record.name, weights="own", image_size=SIZE),
            tiny.record,
            images=len(pictures),
            image_size=SIZE,
        )
        return with_random_control(probe_backbone(pictures, tiny, recipe, Silent()), Silent())


def test_it_trains_on_four_fifths_for_as_many_epochs_as_the_limit_allows(pictures):
    watcher = Notes()
    result = run_short_training(pictures, choose("quiz-cnn"), SCRATCH, Limit(400, (2, 30), 60.0), watcher)
    assert (result.images, result.epochs, result.passes) == (96, 4, 384)
    assert 0 <= result.accuracy.low <= result.accuracy.value <= result.accuracy.high <= 1
    assert result.seconds_per_image > 0
    [note] = watcher.said
    facts = {"strategy": "from-scratch", "backbone": "quiz-cnn", "epochs": 4, "images": 96}
    assert (note.code, note.figures) == ("short-training", facts)


def test_it_trains_on_fewer_images_if_the_fewest_epochs_are_too_many_passes(pictures):
    result = run_short_training(pictures, choose("quiz-cnn"), SCRATCH, Limit(100, (2, 30), 60.0), Silent())
    assert result.epochs == 2
    assert 40 <= result.images <= 52


def test_there_is_none_with_too_few_images(pictures):
    def within(limit, dataset=pictures):
        return run_short_training(dataset, choose("quiz-cnn"), SCRATCH, limit, Silent())

    assert within(Limit(79, (2, 30), 60.0, images=40)) is None
    assert within(Limit(80, (2, 30), 60.0, images=40)) is not None
    assert within(Limit(9_600, (2, 30), 60.0, images=40), pictures.select(range(40))) is None  # it would see 32 of them
    assert within(Limit(6, (2, 30), 60.0)) is None  # three images of two classes


def test_it_ends_when_its_time_is_over_but_finishes_one_epoch(pictures):
    watcher = Notes()
    result = run_short_training(pictures, choose("quiz-cnn"), SCRATCH, Limit(9_600, (2, 30), 0.0), watcher)
    assert result.epochs == 1
    timed = short_training.keras_backend() == "tensorflow"  # the steps after the first one show the time per step
    assert (0 < result.seconds_per_image * result.images < result.start_seconds) is timed
    assert watcher.said[-1].code == "short-training-stopped"
    assert (watcher.said[-1].figures["epochs"], watcher.said[-1].figures["planned"]) == (1, 30)
    assert result.start_seconds > 0


def test_the_time_per_image_is_that_of_the_steps_without_validation(monkeypatch):
    monkeypatch.setattr(short_training, "keras_backend", lambda: "tensorflow")
    epoch = EpochRecord("train", 2, 9.0, 0.0, 0.0, 0.0, 0.0)
    assert short_training._seconds_per_image(epoch, [10.0, 11.0, 12.0, 13.0], 80, 20) == pytest.approx(4 / 80)
    single = short_training._seconds_per_image(epoch, [10.0], 80, 20)  # one step shows nothing else
    assert single == pytest.approx(9 / (80 + short_training.VALIDATING * 20))


def test_it_is_given_up_with_a_note_if_the_first_epoch_takes_too_long(pictures, monkeypatch):
    monkeypatch.setattr(short_training, "GRACE", 0.0)
    watcher = Notes()
    assert run_short_training(pictures, choose("quiz-cnn"), SCRATCH, Limit(9_600, (2, 30), 0.0), watcher) is None
    assert watcher.said[-1].code == "short-training-too-slow"


def test_a_bug_is_raised(pictures, monkeypatch):
    def fails(*_):
        raise TypeError("a bug")

    monkeypatch.setattr(short_training, "train", fails)
    with pytest.raises(TypeError, match="a bug"):
        run_short_training(pictures, choose("quiz-cnn"), SCRATCH, Limit(400, (2, 30), 60.0), Silent())


def test_a_failure_is_a_warning_with_a_traceback_in_the_log(pictures, monkeypatch, caplog):
    def fails(*_):
        raise MemoryError("no room\nfor it")

    monkeypatch.setattr(short_training, "train", fails)
    watcher = Notes()
    assert run_short_training(pictures, choose("quiz-cnn"), SCRATCH, Limit(400, (2, 30), 60.0), watcher) is None
    assert (watcher.said[-1].code, watcher.said[-1].figures["reason"]) == ("short-training-failed", "no room")
    (record,) = (record for record in caplog.records if record.name.startswith("crossroads"))
    assert isinstance(record.exc_info[1], MemoryError)


def test_an_exception_of_the_watcher_ends_it(pictures):
    class Stops(Silent):
        def progress(self, stage, done, total):
            raise ConnectionError(stage)

    with pytest.raises(ConnectionError, match="a short training"):
        run_short_training(pictures, choose("quiz-cnn"), SCRATCH, Limit(400, (2, 30), 60.0), Stops())


def test_there_is_none_for_one_class_or_for_single_images(pictures):
    limit = Limit(400, (2, 30), 60.0)
    assert run_short_training(pictures.select(pictures.labels == 0), choose("quiz-cnn"), SCRATCH, limit, Silent()) is None
    single = [int((pictures.labels == label).nonzero()[0][0]) for label in range(len(pictures.classes))]
    assert run_short_training(pictures.select(single), choose("quiz-cnn"), SCRATCH, limit, Silent()) is None


def test_a_short_training_gets_a_fraction_of_the_budget():
    assert (limit_by_budget(15.0, None), limit_by_budget(15.0, 600.0), limit_by_budget(15.0, 60.0)) == (15.0, 15.0, 6.0)


def test_a_short_warm_start_starts_from_the_weights_of_the_backbone(evidence, monkeypatch):
    monkeypatch.setattr(warm_start, "SECONDS", 0.2)
    watcher = Notes()
    result = short_warm_start(evidence, Recipe(), FAST, None, None, watcher)
    assert (result.strategy, result.backbone, result.image_size) == ("warm-start", "own:tiny", SIZE)
    assert watcher.said[0].code == "short-training"
    assert watcher.said[0].figures == {"strategy": "warm-start", "backbone": "own:tiny", "epochs": 30, "images": 96}


@pytest.mark.parametrize(
    ("asked", "machine", "budget", "memory"),
    [
        (Recipe(epochs=1), FAST, None, None),
        (Recipe(schedule="constant", warm_up=0.2), FAST, None, None),  # no strategy that trains accepts it
        (Recipe(), Machine(1e3), None, None),
        (Recipe(), FAST, 1e-6, None),
        (Recipe(), FAST, None, 10.0),
    ],
    ids=["one epoch", "an invalid recipe", "a slow machine", "no budget", "no memory"],
)
def test_there_is_no_warm_start_without_time_memory_or_a_valid_recipe(evidence, asked, machine, budget, memory):
    assert short_warm_start(evidence, asked, machine, budget, memory, Silent()) is None


def test_there_is_no_warm_start_from_random_weights(evidence):
    untrained = replace(evidence, recipe=replace(evidence.recipe, weights="none"))
    assert short_warm_start(untrained, Recipe(), FAST, None, None, Silent()) is None


@pytest.mark.parametrize("epochs", [4, 5, 7, 9, 10, 20, 30])
def test_the_learning_gain_is_per_doubling_with_any_number_of_epochs(epochs):
    odds = [-1 + 0.7 * math.log2(epoch) for epoch in range(1, epochs + 1)]
    gain = learning_gain([1 / (1 + math.exp(-value)) for value in odds], 1e6)
    assert gain.value == pytest.approx(0.7, abs=0.03)


def test_the_error_of_a_gain_follows_the_number_of_held_out_images():
    errors = [learning_gain([value] * 10, 400).error for value in (0.5, 0.75, 0.98, 1.0)]
    doublings = math.log2(9.5 / 5)
    assert errors[1] == pytest.approx(math.sqrt(1 / 300.5 + 1 / 100.5) / doublings, rel=0.01)
    assert errors == sorted(errors)
    assert errors[-1] > 1
    assert learning_gain([0.75] * 10, 25).error > 3 * errors[1]


def test_there_is_no_gain_from_two_or_three_epochs():
    assert learning_gain([0.1, 0.5, 0.9], 400) is None
    assert learning_gain([0.1, 0.5, 0.5, 0.9], 400) is not None
