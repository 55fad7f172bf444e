"""Covers strategies as records, recipes resolved for them, and the phases that they plan."""

import json
from dataclasses import fields, replace

import pytest

from crossroads.errors import RecipeError
from crossroads.networks.catalog import CATALOG, backbone
from crossroads.recipe import Augmentation, Recipe
from crossroads.strategies import ABOUT_GRAPHS, EARLY, STRATEGIES, Solve, plan_phases, resolve_recipe, strategy
from refusals import refused

QUIZ, MOBILENET = backbone("quiz-cnn"), backbone("mobilenet")


def test_every_strategy_names_a_backbone_of_the_catalog():
    for record in STRATEGIES:
        assert backbone(record.default_backbone) in CATALOG


def test_an_unknown_strategy_is_refused_with_the_nearest_name():
    with refused("unknown-strategy", RecipeError, hint="did you mean 'from-scratch'?"):
        strategy("from-scrach")


NAMES = [record.name for record in STRATEGIES]
TUNED_ONLY = {"layer_decay", "train_batchnorm"}
PRETRAINED_ONLY = {"weights", "pooling", "head"}


def resolved(record=MOBILENET, images=500, image_size=96, side=0.0, **options):
    return resolve_recipe(Recipe(**options), record, images=images, image_size=image_size, side=side)


def from_scratch(record=QUIZ, images=500, **options):
    return resolved(record, images, image_size=32, strategy="from-scratch", **options)


def phases(**options):
    return plan_phases(resolved(**options))


@pytest.mark.parametrize("record", CATALOG, ids=lambda b: b.name)
def test_a_resolved_recipe_resolves_to_itself_and_leaves_only_unused_options_open(record):
    found = resolve_recipe(Recipe(strategy="from-scratch"), record, images=500, image_size=32)
    open_fields = {field.name for field in fields(found) if getattr(found, field.name) is None}
    unused = {
        *ABOUT_GRAPHS,
        "data",
        "test",
        "class_names",
        "budget",
        "memory",
        "cut",
        "freeze_to",
        "views",
        "feature_type",
        "refit",
    }
    assert open_fields == unused | TUNED_ONLY | PRETRAINED_ONLY
    assert resolve_recipe(found, record, images=500, image_size=32) == found
    (phase,) = plan_phases(found)
    assert phase.epochs == found.epochs
    assert phase.augmentation == found.augmentation


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_resolves_to_itself(name):
    found = resolved(strategy=name)
    assert resolve_recipe(found, backbone("mobilenet"), images=500, image_size=96) == found
    assert plan_phases(found)


def test_the_phases_of_each_strategy():
    shown = {name: [phase.name for phase in phases(strategy=name)] for name in NAMES}
    assert shown == {
        "feature-extraction": ["head"],
        "early-features": ["head"],
        "finetune": ["head", "tune"],
        "finetune-early": ["head", "tune"],
        "warm-start": ["train"],
        "from-scratch": ["train"],
    }


def test_a_linear_head_is_solved_and_the_others_are_trained():
    assert isinstance(phases(strategy="feature-extraction")[0], Solve)
    (notes,) = phases(strategy="feature-extraction", head="sgd")
    assert (notes.name, notes.optimizer, notes.schedule, notes.epochs, notes.batch_size) == ("head", "adam", "constant", 10, 128)
    assert phases(strategy="finetune", head="mlp", epochs=3)[1].epochs == 3


def test_a_warm_start_takes_fewer_epochs_than_random_weights():
    chosen = backbone("mobilenet")
    warm, scratch = (
        resolve_recipe(Recipe(strategy=name, backbone="mobilenet"), chosen, images=4_300, image_size=96)
        for name in ("warm-start", "from-scratch")
    )
    assert (warm.epochs, scratch.epochs) == (9, 81)
    assert (warm.learning_rate, warm.schedule) == (scratch.learning_rate, scratch.schedule)


def test_batchnorm_is_trained_from_scratch_and_frozen_while_finetuning_by_default():
    assert phases(strategy="from-scratch")[0].train_batchnorm
    assert phases(strategy="warm-start")[0].train_batchnorm
    assert not phases(strategy="finetune")[1].train_batchnorm
    assert phases(strategy="finetune", train_batchnorm=True)[1].train_batchnorm


def test_early_strategies_cut_early_and_pool_into_a_grid():
    assert (resolved(strategy="early-features").cut, resolved(strategy="early-features").pooling) == (str(EARLY), "average-4")
    assert resolved(strategy="early-features", cut="conv_pw_4_relu").cut == "conv_pw_4_relu"
    assert resolved(strategy="finetune").cut is None


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"strategy": "from-scratch", "weights": "imagenet"}, "weights"),
        ({"strategy": "from-scratch", "layer_decay": 0.5}, "layer_decay"),
        ({"strategy": "feature-extraction", "epochs": 3}, "epochs"),
        ({"strategy": "finetune", "refit": False}, "refit"),
        ({"strategy": "feature-extraction", "head": "mlp", "refit": True}, "refit"),
        ({"strategy": "feature-extraction", "early_stopping": 3}, "early_stopping"),
        ({"strategy": "feature-extraction", "freeze_to": "0.5"}, "freeze_to"),
        ({"strategy": "feature-extraction", "augment": True}, "augmentation"),
        ({"strategy": "feature-extraction", "views": 3, "augment": False}, "views"),
        ({"strategy": "finetune", "views": 3}, "views"),
        ({"strategy": "finetune", "schedule": "constant", "warm_up": 0.1}, "warm_up"),
        ({"strategy": "warm-start", "head": "mlp"}, "head"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(options, field):
    with refused("option-without-effect", RecipeError, field=field):
        resolved(**options)


def test_several_views_are_augmented_and_a_single_one_is_not():
    assert not resolved(strategy="feature-extraction").augmentation.active
    assert resolved(strategy="feature-extraction", views=4).augmentation.active
    (trained,) = phases(strategy="feature-extraction", views=4, head="mlp")
    assert not trained.augmentation.active  # the views are in the cache already
    cached = resolved(strategy="finetune", freeze_to="0.5")
    assert (cached.views, cached.feature_type, cached.augmentation.active) == (1, "float16", False)


def test_options_of_the_user_override_the_defaults_of_the_backbone():
    found = from_scratch(epochs=3, batch_size=7, learning_rate=0.5)
    assert (found.epochs, found.batch_size, found.learning_rate) == (3, 7, 0.5)


def test_a_plan_needs_a_resolved_recipe():
    with refused("unresolved-recipe", RecipeError):
        plan_phases(Recipe(strategy="from-scratch"))


def test_augment_without_an_augmentation_is_refused():
    with refused("option-without-effect", RecipeError, field="augment"):
        from_scratch(augment=True, augmentation=Augmentation())


def test_augment_false_turns_the_augmentation_of_the_backbone_off():
    small = backbone("small-cnn")
    assert from_scratch(small).augmentation.active
    assert not from_scratch(small, augment=False).augmentation.active


def test_many_images_get_the_larger_batches():
    assert [from_scratch(images=n).batch_size for n in (100, 10_000)] == [32, 128]


def test_fewer_images_get_more_epochs_within_bounds():
    few, many = QUIZ.defaults.epochs_for(50), QUIZ.defaults.epochs_for(10**7)
    assert (many, few) == QUIZ.defaults.epochs


def test_photographs_are_cropped_if_nothing_is_enlarged_and_small_images_never():
    def mode(side, strategy="finetune", **options):
        return resolved(images=9, image_size=224, side=side, strategy=strategy, **options).resize

    assert [mode(side) for side in (32, 224, 256, 1000)] == ["squash", "squash", "crop", "crop"]
    assert mode(1000, "from-scratch") == "squash"
    assert mode(1000, resize="squash") == "squash"


def test_images_are_resized_as_the_user_wants_else_as_the_backbone_expects():
    def resizing(known, **options):
        given = replace(known, sizes=(32,))
        found = resolve_recipe(Recipe(strategy="finetune", **options), given, images=9, image_size=32, side=1000)
        return found.resize, found.crop_fraction, found.resample

    expects = replace(QUIZ, resize="crop", crop_fraction=0.9, resample="bicubic")
    assert resizing(QUIZ) == ("crop", 0.875, "bilinear")
    assert resizing(expects) == ("crop", 0.9, "bicubic")
    assert resizing(expects, resample="nearest", crop_fraction=0.5) == ("crop", 0.5, "nearest")
    assert resizing(expects, resize="squash") == ("squash", 1, "bicubic")
    assert resizing(replace(QUIZ, resize="squash", crop_fraction=0.75)) == ("squash", 0.75, "bilinear")


def test_a_head_trained_before_finetuning_has_the_epochs_of_a_head_alone():
    few, many = (plan_phases(resolved(images=n, strategy="finetune", head="mlp"), images=n)[0] for n in (100, 50_000))
    assert (few.epochs, few.batch_size) == (60, 64)
    assert (many.epochs, many.batch_size) == (10, 128)


@pytest.mark.parametrize("name", NAMES)
def test_a_resolved_recipe_survives_json(name):
    """A race stores recipes, and a checkpoint a digest of them: 8 degrees must not come back as 8.0."""
    for record in (backbone("mobilenet"), backbone("small-cnn")):
        found = resolve_recipe(Recipe(strategy=name), record, images=500, image_size=96)
        before = json.dumps(found.to_mapping(), sort_keys=True)
        assert json.dumps(Recipe.from_mapping(json.loads(before)).to_mapping(), sort_keys=True) == before


def test_weights_none_is_the_default_of_training_from_scratch():
    plain, explicit = (resolved(strategy="from-scratch", **options) for options in ({}, {"weights": "none"}))
    assert plain == explicit
