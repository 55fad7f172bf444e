"""Short trainings: how much they see, when they end, and when there is none."""

import math
from dataclasses import replace

import pytest

import crossroads
import tiny_networks
from crossroads.advice import short_training, warm_start
from crossroads.advice.backbone_evidence import see
from crossroads.advice.cost import Machine
from crossroads.advice.short_training import Limit, allowed, rise_of, run_short_training
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
def seen(pictures, tiny, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSROADS_CACHE", str(tmp_path_factory.mktemp("cache")))
        recipe = resolve_recipe(
            Recipe(strategy="feature-extraction", backbone=tiny.record.name, weights="own", image_size=SIZE),
            tiny.record,
            images=len(pictures),
            image_size=SIZE,
        )
        return see(pictures, tiny, recipe, Silent())


def test_it_sees_four_fifths_as_often_as_the_passes_allow_and_is_scored_on_the_rest(pictures):
    watcher = Notes()
    found = run_short_training(pictures, choose("quiz-cnn"), SCRATCH, Limit(400, (2, 30), 60.0), watcher)
    assert (found.images, found.epochs, found.passes) == (96, 4, 384)
    assert 0 <= found.accuracy.low <= found.accuracy.value <= found.accuracy.high <= 1
    assert found.seconds_per_image > 0
    assert watcher.said == ["evidence: a short training of quiz-cnn, 4 epochs of 96 images"]


def test_where_the_least_epochs_are_too_many_passes_fewer_images_are_seen(pictures):
    found = run_short_training(pictures, choose("quiz-cnn"), SCRATCH, Limit(100, (2, 30), 60.0), Silent())
    assert found.epochs == 2
    assert 40 <= found.images <= 52


def test_with_fewer_images_than_tell_anything_there_is_none(pictures):
    def given(limit, dataset=pictures):
        return run_short_training(dataset, choose("quiz-cnn"), SCRATCH, limit, Silent())

    assert given(Limit(79, (2, 30), 60.0, images=40)) is None
    assert given(Limit(80, (2, 30), 60.0, images=40)) is not None
    assert given(Limit(9_600, (2, 30), 60.0, images=40), pictures.select(range(40))) is None  # of which it would see 32
    assert given(Limit(6, (2, 30), 60.0)) is None  # three images of two classes


def test_it_ends_when_its_time_is_over_with_one_epoch_at_least(pictures):
    watcher = Notes()
    found = run_short_training(pictures, choose("quiz-cnn"), SCRATCH, Limit(9_600, (2, 30), 0.0), watcher)
    assert found.epochs == 1
    timed = short_training.keras_backend() == "tensorflow"  # of the first epoch the steps after the first tell what one takes
    assert (0 < found.seconds_per_image * found.images < found.start_seconds) is timed
    assert watcher.said[-1] == "the short training of quiz-cnn ended after 1 of 30 epochs: its time was over"
    assert found.start_seconds > 0


def test_an_image_takes_what_its_steps_take_and_not_validation_after_them(monkeypatch):
    monkeypatch.setattr(short_training, "keras_backend", lambda: "tensorflow")
    epoch = EpochRecord("train", 2, 9.0, 0.0, 0.0, 0.0, 0.0)
    assert short_training._seconds_per_image(epoch, [10.0, 11.0, 12.0, 13.0], 80, 20) == pytest.approx(4 / 80)
    one = short_training._seconds_per_image(epoch, [10.0], 80, 20)  # of one step nothing else is known
    assert one == pytest.approx(9 / (80 + short_training.VALIDATING * 20))


def test_one_whose_first_epoch_takes_too_long_is_given_up_and_told_of(pictures, monkeypatch):
    monkeypatch.setattr(short_training, "GRACE", 0.0)
    watcher = Notes()
    assert run_short_training(pictures, choose("quiz-cnn"), SCRATCH, Limit(9_600, (2, 30), 0.0), watcher) is None
    assert watcher.said[-1] == "no short training of quiz-cnn: an epoch takes too long"


def test_a_fault_of_this_program_is_raised(pictures, monkeypatch):
    def fails(*_):
        raise TypeError("a bug")

    monkeypatch.setattr(short_training.training, "train", fails)
    with pytest.raises(TypeError, match="a bug"):
        run_short_training(pictures, choose("quiz-cnn"), SCRATCH, Limit(400, (2, 30), 60.0), Silent())


def test_a_failure_gets_a_note_and_stops_nothing(pictures, monkeypatch, caplog):
    def fails(*_):
        raise MemoryError("no room\nfor it")

    monkeypatch.setattr(short_training.training, "train", fails)
    watcher = Notes()
    assert run_short_training(pictures, choose("quiz-cnn"), SCRATCH, Limit(400, (2, 30), 60.0), watcher) is None
    assert watcher.said[-1] == "no short training of quiz-cnn: no room"
    (record,) = (record for record in caplog.records if record.name.startswith("crossroads"))
    assert isinstance(record.exc_info[1], MemoryError)


def test_what_the_watcher_raises_ends_it(pictures):
    class Stops(Silent):
        def progress(self, stage, done, total):
            raise ConnectionError(stage)

    with pytest.raises(ConnectionError, match="a short training"):
        run_short_training(pictures, choose("quiz-cnn"), SCRATCH, Limit(400, (2, 30), 60.0), Stops())


def test_of_one_class_or_of_single_images_there_is_none(pictures):
    limit = Limit(400, (2, 30), 60.0)
    assert run_short_training(pictures.select(pictures.labels == 0), choose("quiz-cnn"), SCRATCH, limit, Silent()) is None
    single = [int((pictures.labels == label).nonzero()[0][0]) for label in range(len(pictures.classes))]
    assert run_short_training(pictures.select(single), choose("quiz-cnn"), SCRATCH, limit, Silent()) is None


def test_a_short_training_gets_a_fraction_of_the_budget():
    assert (allowed(15.0, None), allowed(15.0, 600.0), allowed(15.0, 60.0)) == (15.0, 15.0, 6.0)


def test_a_short_warm_start_starts_from_the_weights_that_the_backbone_has(seen, monkeypatch):
    monkeypatch.setattr(warm_start, "SECONDS", 0.2)
    watcher = Notes()
    found = short_warm_start(seen, Recipe(), FAST, None, None, watcher)
    assert (found.strategy, found.backbone, found.image_size) == ("warm-start", "own:tiny", SIZE)
    assert watcher.said[0] == "evidence: a short warm start of own:tiny, 30 epochs of 96 images"
    assert found.to_json()["accuracy"] == found.accuracy.to_json()


@pytest.mark.parametrize(
    ("asked", "machine", "budget", "memory"),
    [
        (Recipe(epochs=1), FAST, None, None),
        (Recipe(schedule="constant", warm_up=0.2), FAST, None, None),  # which no training takes
        (Recipe(), Machine(1e3), None, None),
        (Recipe(), FAST, 1e-6, None),
        (Recipe(), FAST, None, 10.0),
    ],
    ids=["one epoch", "an option in its way", "a slow machine", "no budget", "no memory"],
)
def test_where_something_stands_in_its_way_there_is_none(seen, asked, machine, budget, memory):
    assert short_warm_start(seen, asked, machine, budget, memory, Silent()) is None


def test_random_weights_are_no_start(seen):
    assert (
        short_warm_start(replace(seen, recipe=replace(seen.recipe, weights="none")), Recipe(), FAST, None, None, Silent()) is None
    )


@pytest.mark.parametrize("epochs", [4, 5, 7, 9, 10, 20, 30])
def test_a_rise_is_of_a_doubling_however_many_epochs_there_are(epochs):
    odds = [-1 + 0.7 * math.log2(epoch) for epoch in range(1, epochs + 1)]
    found = rise_of([1 / (1 + math.exp(-value)) for value in odds], 1e6)
    assert found.value == pytest.approx(0.7, abs=0.03)


def test_the_error_of_a_rise_is_that_of_the_images_held_out_and_largest_where_all_are_right():
    errors = [rise_of([value] * 10, 400).error for value in (0.5, 0.75, 0.98, 1.0)]
    doublings = math.log2(9.5 / 5)
    assert errors[1] == pytest.approx(math.sqrt(1 / 300.5 + 1 / 100.5) / doublings, rel=0.01)
    assert errors == sorted(errors)
    assert errors[-1] > 1
    assert rise_of([0.75] * 10, 25).error > 3 * errors[1]


def test_a_rise_is_not_told_of_two_or_three_epochs():
    assert rise_of([0.1, 0.5, 0.9], 400) is None
    assert rise_of([0.1, 0.5, 0.5, 0.9], 400) is not None
