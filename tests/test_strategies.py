from dataclasses import fields

import pytest

from crossroads.errors import RecipeError
from crossroads.networks.catalog import CATALOG, backbone
from crossroads.recipe import Augmentation, Recipe
from crossroads.strategies import STRATEGIES, plan, resolve, strategy

QUIZ = backbone("quiz-cnn")


def test_every_strategy_names_a_backbone_of_the_catalog():
    for record in STRATEGIES:
        assert backbone(record.default_backbone) in CATALOG


def test_an_unknown_strategy_is_told_with_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'from-scratch'"):
        strategy("from-scrach")


@pytest.mark.parametrize("record", CATALOG, ids=lambda b: b.name)
def test_a_resolved_recipe_leaves_nothing_open_and_resolves_to_itself(record):
    resolved = resolve(Recipe(), record, images=500, image_size=32)
    open_fields = {field.name for field in fields(resolved) if getattr(resolved, field.name) is None}
    assert open_fields == {"data", "test", "class_names"}
    assert resolve(resolved, record, images=500, image_size=32) == resolved
    (phase,) = plan(resolved)
    assert phase.epochs == resolved.epochs
    assert phase.augmentation == resolved.augmentation


def test_what_the_user_asks_for_wins_over_the_backbone():
    resolved = resolve(Recipe(epochs=3, batch_size=7, learning_rate=0.5), QUIZ, images=500, image_size=32)
    assert (resolved.epochs, resolved.batch_size, resolved.learning_rate) == (3, 7, 0.5)


def test_a_plan_needs_a_resolved_recipe():
    with pytest.raises(RecipeError, match="resolved"):
        plan(Recipe())


def test_augmentation_without_movement_is_refused():
    with pytest.raises(RecipeError, match="every augmentation is zero"):
        resolve(Recipe(augment=True, augmentation=Augmentation()), QUIZ, images=500, image_size=32)


def test_no_augment_turns_the_backbones_own_off():
    small = backbone("small-cnn")
    assert resolve(Recipe(), small, images=500, image_size=32).augmentation.moves
    assert not resolve(Recipe(augment=False), small, images=500, image_size=32).augmentation.moves


def test_many_images_get_the_larger_batches():
    assert [resolve(Recipe(), QUIZ, images=n, image_size=32).batch_size for n in (100, 10_000)] == [32, 128]


def test_fewer_images_get_more_epochs_within_bounds():
    few, many = QUIZ.defaults.epochs_for(50), QUIZ.defaults.epochs_for(10**7)
    assert (many, few) == QUIZ.defaults.epochs
