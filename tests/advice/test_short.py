"""Short trainings: how much they see, when they end, and when there is none."""

from dataclasses import replace

import pytest

import crossroads
import tiny_networks
from crossroads.advice import short
from crossroads.advice.cost import Machine
from crossroads.advice.frozen import see
from crossroads.advice.short import FEWEST, Limit, allowed, short_training, short_warm_start
from crossroads.networks.construct import choose
from crossroads.recipe import Recipe
from crossroads.strategies import resolve
from crossroads.training.watch import Silent
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
        recipe = resolve(
            Recipe(strategy="feature-extraction", backbone=tiny.record.name, weights="own", image_size=SIZE),
            tiny.record,
            images=len(pictures),
            image_size=SIZE,
        )
        return see(pictures, tiny, recipe, Silent())


def test_it_sees_four_fifths_as_often_as_the_passes_allow_and_is_scored_on_the_rest(pictures):
    watcher = Notes()
    found = short_training(pictures, choose("quiz-cnn"), SCRATCH, Limit(400, (2, 30), 60.0), watcher)
    assert (found.images, found.epochs, found.passes) == (96, 4, 384)
    assert 0 <= found.accuracy.low <= found.accuracy.value <= found.accuracy.high <= 1
    assert found.seconds_an_image > 0
    assert watcher.said == ["evidence: a short training of quiz-cnn, 4 epochs of 96 images"]


def test_where_the_least_epochs_are_too_many_passes_fewer_images_are_seen(pictures):
    found = short_training(pictures, choose("quiz-cnn"), SCRATCH, Limit(100, (2, 30), 60.0), Silent())
    assert found.epochs == 2
    assert FEWEST <= found.images <= 52
    assert short_training(pictures, choose("quiz-cnn"), SCRATCH, Limit(2 * FEWEST - 1, (2, 30), 60.0), Silent()) is None


def test_it_ends_when_its_time_is_over_with_two_epochs_at_least(pictures):
    assert short_training(pictures, choose("quiz-cnn"), SCRATCH, Limit(9_600, (2, 30), 0.0), Silent()).epochs == 2


def test_of_one_class_or_of_single_images_there_is_none(pictures):
    limit = Limit(400, (2, 30), 60.0)
    assert short_training(pictures.select(pictures.labels == 0), choose("quiz-cnn"), SCRATCH, limit, Silent()) is None
    single = [int((pictures.labels == label).nonzero()[0][0]) for label in range(len(pictures.classes))]
    assert short_training(pictures.select(single), choose("quiz-cnn"), SCRATCH, limit, Silent()) is None


def test_a_budget_allows_a_share_of_it():
    assert (allowed(15.0, None), allowed(15.0, 600.0), allowed(15.0, 60.0)) == (15.0, 15.0, 6.0)


def test_a_short_warm_start_starts_from_the_weights_that_the_backbone_has(seen, monkeypatch):
    monkeypatch.setattr(short, "WARM_SECONDS", 0.2)
    watcher = Notes()
    found = short_warm_start(seen, Recipe(), FAST, None, None, watcher)
    assert (found.strategy, found.backbone, found.image_size) == ("warm-start", "own:tiny", SIZE)
    assert watcher.said == ["evidence: a short warm start of own:tiny, 30 epochs of 96 images"]
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
