"""Candidates: their order, their limits, and training from scratch."""

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
from crossroads.progress import Note, Silent
from crossroads.recipe import Recipe
from refusals import refused

KNOWN = Estimate(0.8, 0.75, 0.85)
LOW = Estimate(0.3, 0.2, 0.4)
CONTEXT = AdviceContext(
    Recipe(), images=1_000, classes=10, images_per_class=100.0, slope=0.7, median_side=32.0, machine=Machine(1e11)
)


def candidate(name, accuracy, seconds=10.0, epochs=None, epoch_seconds=0.0, **options):
    recipe, estimate = Recipe(strategy=name, epochs=epochs), Estimate(accuracy, accuracy - 0.1, accuracy + 0.1)
    return Candidate(recipe, (Base("probe", KNOWN),), estimate, seconds, epoch_seconds, 500.0, **options)


def names(candidates):
    return [each.recipe.strategy for each in candidates]


def test_the_best_comes_first_and_a_candidate_with_an_obstacle_last():
    blocked = candidate("finetune", 0.9, obstacle=Note("takes too long", "over-budget"))
    ranked = rank([candidate("early-features", 0.7), blocked, candidate("from-scratch", 0.8)])
    assert names(ranked) == ["from-scratch", "early-features", "finetune"]


def test_the_cheaper_of_two_tied_candidates_comes_first():
    expensive, cheap = candidate("finetune", 0.8 + TIE * 0.9, 500.0), candidate("feature-extraction", 0.8, 10.0)
    assert names(rank([expensive, cheap])) == ["feature-extraction", "finetune"]
    better = replace(expensive, accuracy=Estimate(0.8 + TIE * 1.1, 0.7, 0.9))
    assert names(rank([better, cheap])) == [
        "finetune",
        "feature-extraction",
    ]


def test_a_chain_of_ties_does_not_put_a_clearly_worse_candidate_first():
    steps = [candidate("finetune", 0.8, 300.0), candidate("from-scratch", 0.797, 200.0), candidate("early-features", 0.794, 10.0)]
    assert names(rank(steps)) == ["from-scratch", "finetune", "early-features"]


def test_too_little_memory_or_budget_is_an_obstacle():
    free = candidate("finetune", 0.8, 100.0)
    assert apply_limits(free, 100.0, 500.0) == free
    assert apply_limits(free, None, None) == free
    slow = apply_limits(free, 60.0, None)
    assert (slow.obstacle.code, slow.obstacle.figures, slow.fits) == ("over-budget", {"seconds": 100.0, "budget": 60.0}, True)
    large = apply_limits(free, 60.0, 400.0)
    assert (large.obstacle.code, large.obstacle.figures) == ("over-memory", {"needed_mb": 500, "free_mb": 400})
    assert not large.fits


def test_a_budget_allows_as_many_epochs_as_there_is_time_for():
    free = candidate("finetune", 0.8, 100.0, epochs=8, epoch_seconds=10.0)
    assert apply_limits(free, 100.0, None) == free
    short = apply_limits(free, 69.0, None)
    assert (short.recipe.epochs, short.unshortened, short.seconds, short.obstacle) == (4, free, 60.0, None)
    assert short.shortened == "4 of 8 epochs"
    plain = short.to_json()
    assert (plain["epochs"], plain["usual_epochs"], plain["seconds"], plain["obstacle"]) == (4, 8, 60.0, None)
    assert short.accuracy == with_epochs("finetune", free.accuracy, 0.5)
    assert short.accuracy.value < free.accuracy.value
    one = apply_limits(free, 30.0, None)
    assert (one.recipe.epochs, one.seconds) == (1, 30.0)
    assert apply_limits(free, 29.0, None).obstacle.code == "over-budget"
    assert apply_limits(free, 69.0, None, may_shorten=False).obstacle.code == "over-budget"
    assert (free.least_seconds(may_shorten=True), free.least_seconds(may_shorten=False)) == (30.0, 100.0)


def test_from_scratch_is_timed_by_its_short_training_if_there_was_one():
    timed = ShortTraining("from-scratch", DEFAULT_FROM_SCRATCH, 32, 800, 10, KNOWN, start_seconds=3.0, seconds_per_image=0.001)
    measured, estimated = (from_scratch_candidate(short, CONTEXT, LOW, alone=False) for short in (timed, None))
    epoch = 0.001 * MANY_STEPS * (1_000 + VALIDATING * CONTEXT.validation_images)
    assert measured.epoch_seconds == pytest.approx(epoch)
    assert measured.seconds == pytest.approx(OVERHEAD + 3.0 + epoch * measured.recipe.epochs)
    probe, base = measured.bases
    assert (base.kind, base.accuracy) == ("short training", KNOWN)
    assert [probe] == list(estimated.bases)
    assert base.halvings == pytest.approx(math.log2(1_000 * measured.recipe.epochs / 8_000))
    assert [(base.kind, base.accuracy.value) for base in estimated.bases] == [("probe", 0.3)]
    assert estimated.seconds > OVERHEAD


def test_the_expected_accuracy_follows_the_slope_of_the_learning_curve():
    flat, steep = (
        from_scratch_candidate(None, replace(CONTEXT, slope=slope, images_per_class=900.0), LOW, alone=False)
        for slope in (0.1, 1.0)
    )
    assert LOW.value < flat.accuracy.value < steep.accuracy.value


def test_a_short_training_of_one_epoch_does_not_time_the_whole_one():
    timed = ShortTraining("from-scratch", DEFAULT_FROM_SCRATCH, 32, 800, 1, KNOWN, start_seconds=30.0, seconds_per_image=0.0)
    measured, estimated = (from_scratch_candidate(short, CONTEXT, KNOWN, alone=True) for short in (timed, None))
    assert measured.seconds == estimated.seconds


def test_the_small_network_takes_the_requested_size_if_it_is_in_its_range():
    record = backbone(DEFAULT_FROM_SCRATCH)
    assert scratch_size(Recipe(), 500.0, alone=False) == record.size_for(500.0)
    assert scratch_size(Recipe(image_size=record.sizes[0]), 500.0, alone=False) == record.sizes[0]
    assert scratch_size(Recipe(image_size=227), 40.0, alone=False) == record.size_for(40.0)  # a size for pretrained networks
    assert scratch_size(Recipe(image_size=227), 40.0, alone=True) == 227


def test_an_option_that_rules_out_every_strategy_is_refused_before_anything_is_measured():
    backbones = candidate_backbones(("mobilenet",), ("none",), Silent())
    require_trainable(Recipe(epochs=3), backbones, 32.0)
    with refused("option-without-effect", RecipeError, field="warm_up"):
        require_trainable(Recipe(schedule="constant", warm_up=0.2), backbones, 32.0)
