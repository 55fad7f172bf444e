"""Candidates: their order, and what stands in the way of one."""

import math
from dataclasses import replace

import pytest

from crossroads.advice.candidate_backbones import candidate_backbones
from crossroads.advice.candidates import (
    TIE,
    AdviceContext,
    Candidate,
    apply_limits,
    from_scratch_candidate,
    rank,
    require_trainable,
    scratch_size,
)
from crossroads.advice.cost import MANY_STEPS, OVERHEAD, VALIDATING, Machine
from crossroads.advice.estimate import Estimate
from crossroads.advice.expectation import Base, with_epochs
from crossroads.advice.short_training import ShortTraining
from crossroads.errors import RecipeError
from crossroads.networks.catalog import DEFAULT_FROM_SCRATCH, backbone
from crossroads.progress import Silent
from crossroads.recipe import Recipe

KNOWN = Estimate(0.8, 0.75, 0.85)
LOW = Estimate(0.3, 0.2, 0.4)
GROUND = AdviceContext(Recipe(), images=1_000, classes=10, images_per_class=100.0, slope=0.7, side=32.0, machine=Machine(1e11))


def candidate(name, accuracy, seconds=10.0, epochs=None, each=0.0, **options):
    recipe, known = Recipe(strategy=name, epochs=epochs), Estimate(accuracy, accuracy - 0.1, accuracy + 0.1)
    return Candidate(recipe, (Base("probe", KNOWN),), known, seconds, each, 500.0, **options)


def names(candidates):
    return [one.recipe.strategy for one in candidates]


def test_the_best_comes_first_and_what_cannot_be_taken_last():
    order = rank([
        candidate("early-features", 0.7), candidate("finetune", 0.9, obstacle="takes too long"), candidate("from-scratch", 0.8),
    ])  # fmt: skip
    assert names(order) == ["from-scratch", "early-features", "finetune"]


def test_of_two_that_are_as_good_the_cheaper_comes_first():
    dear, cheap = candidate("finetune", 0.8 + TIE * 0.9, 500.0), candidate("feature-extraction", 0.8, 10.0)
    assert names(rank([dear, cheap])) == ["feature-extraction", "finetune"]
    assert names(rank([replace(dear, accuracy=Estimate(0.8 + TIE * 1.1, 0.7, 0.9)), cheap])) == ["finetune", "feature-extraction"]


def test_a_chain_of_ties_does_not_carry_the_cheapest_over_a_clear_loss():
    steps = [candidate("finetune", 0.8, 300.0), candidate("from-scratch", 0.797, 200.0), candidate("early-features", 0.794, 10.0)]
    assert names(rank(steps)) == ["from-scratch", "finetune", "early-features"]


def test_memory_and_budget_stand_in_the_way_and_say_so():
    free = candidate("finetune", 0.8, 100.0)
    assert apply_limits(free, 100.0, 500.0) == free
    assert apply_limits(free, None, None) == free
    slow = apply_limits(free, 60.0, None)
    assert (slow.obstacle, slow.fits) == ("takes about 100 s, and the budget is 60 s", True)
    large = apply_limits(free, 60.0, 400.0)
    assert (large.obstacle, large.fits) == ("takes about 500 MB of memory, and 400 are free", False)


def test_a_budget_leaves_as_many_epochs_as_it_has_room_for():
    free = candidate("finetune", 0.8, 100.0, epochs=8, each=10.0)
    assert apply_limits(free, 100.0, None) == free
    short = apply_limits(free, 69.0, None)
    assert (short.recipe.epochs, short.unshortened, short.seconds, short.obstacle) == (4, free, 60.0, "")
    assert short.shortened == "4 of 8 epochs"
    assert (short.to_json()["epochs"], short.to_json()["usual_epochs"]) == (4, 8)
    assert short.accuracy == with_epochs("finetune", free.accuracy, 0.5)
    assert short.accuracy.value < free.accuracy.value
    one = apply_limits(free, 30.0, None)
    assert (one.recipe.epochs, one.seconds) == (1, 30.0)
    assert apply_limits(free, 29.0, None).obstacle == "takes about 100 s, and the budget is 29 s"
    assert (
        apply_limits(free, 69.0, None, shortens=False).obstacle == "takes about 100 s, and the budget is 69 s"
    )  # the user named them


def test_from_scratch_is_timed_by_its_short_training_where_there_was_one():
    timed = ShortTraining("from-scratch", DEFAULT_FROM_SCRATCH, 32, 800, 10, KNOWN, start_seconds=3.0, seconds_per_image=0.001)
    found, blind = from_scratch_candidate(timed, GROUND, LOW, KNOWN), from_scratch_candidate(None, GROUND, LOW, KNOWN)
    epoch = 0.001 * MANY_STEPS * (1_000 + VALIDATING * GROUND.validation_images)
    assert found.epoch_seconds == pytest.approx(epoch)
    assert found.seconds == pytest.approx(OVERHEAD + 3.0 + epoch * found.recipe.epochs)
    probe, base = found.bases
    assert (base.kind, base.accuracy) == ("short training", KNOWN)
    assert [probe] == list(blind.bases)
    assert base.halvings == pytest.approx(math.log2(1_000 * found.recipe.epochs / 8_000))
    assert [(base.kind, base.accuracy.value) for base in blind.bases] == [("probe", 0.3)]
    assert blind.seconds > OVERHEAD


def test_expectations_follow_the_slope_of_the_learning_curve():
    flat, steep = (
        from_scratch_candidate(None, replace(GROUND, slope=slope, images_per_class=900.0), LOW, KNOWN) for slope in (0.1, 1.0)
    )
    assert LOW.value < flat.accuracy.value < steep.accuracy.value


def test_without_a_pretrained_probe_raw_pixels_stand_in_only_where_there_was_no_short_training():
    timed = ShortTraining("from-scratch", DEFAULT_FROM_SCRATCH, 32, 800, 10, KNOWN, start_seconds=3.0, seconds_per_image=0.001)
    assert [base.kind for base in from_scratch_candidate(timed, GROUND, None, LOW).bases] == ["short training"]
    assert [base.accuracy for base in from_scratch_candidate(None, GROUND, None, LOW).bases] == [LOW]


def test_a_short_training_of_one_epoch_tells_nothing_of_the_time():
    timed = ShortTraining("from-scratch", DEFAULT_FROM_SCRATCH, 32, 800, 1, KNOWN, start_seconds=30.0, seconds_per_image=0.0)
    assert from_scratch_candidate(timed, GROUND, None, KNOWN).seconds == from_scratch_candidate(None, GROUND, None, KNOWN).seconds


def test_the_small_network_takes_the_size_that_was_asked_for_where_it_can():
    record = backbone(DEFAULT_FROM_SCRATCH)
    assert scratch_size(Recipe(), 500.0, alone=False) == record.size_for(500.0)
    assert scratch_size(Recipe(image_size=record.sizes[0]), 500.0, alone=False) == record.sizes[0]
    assert scratch_size(Recipe(image_size=227), 40.0, alone=False) == record.size_for(40.0)  # that is of the pretrained networks
    assert scratch_size(Recipe(image_size=227), 40.0, alone=True) == 227


def test_an_option_in_the_way_of_every_strategy_is_refused_before_anything_is_measured():
    offers = candidate_backbones(("mobilenet",), ("none",), Silent())
    require_trainable(Recipe(epochs=3), offers, 32.0)
    with pytest.raises(RecipeError, match="warm_up does nothing"):
        require_trainable(Recipe(schedule="constant", warm_up=0.2), offers, 32.0)
