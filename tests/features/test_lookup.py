"""Features of a frozen part: one engine for all, none where the cache knows them, one key a function."""

from dataclasses import replace

import numpy as np
import pytest

import crossroads
from crossroads.errors import RecipeError
from crossroads.features import engine as engine_module
from crossroads.features.lookup import Lookup, feature_key, resize_of
from crossroads.networks.catalog import backbone
from crossroads.networks.cuts import find
from crossroads.networks.network import frozen_part
from crossroads.progress import Silent
from crossroads.recipe import Recipe
from crossroads.strategies import resolve_recipe
from pictures import stripes

RECORD = backbone("small-cnn")
RECIPE = resolve_recipe(Recipe(strategy="feature-extraction", weights="none"), RECORD, images=24, image_size=16)


@pytest.fixture(scope="module")
def frozen():
    parts = RECORD.build(16)
    return frozen_part(parts, 16, find(parts.backbone, "conv2_relu"), "average")


@pytest.fixture
def made(monkeypatch, tmp_path):
    """The engines that were made, with a cache of the test's own."""
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path))
    found = []
    usual = engine_module.Engine

    def counted(*args, **options):
        found.append(usual(*args, **options))
        return found[-1]

    monkeypatch.setattr(engine_module, "Engine", counted)
    return found


def test_one_engine_serves_every_data_set_and_none_where_the_cache_knows_all(frozen, made):
    first, second = (crossroads.read(stripes(12, size=16, seed=seed)) for seed in (0, 1))
    lookup = Lookup(frozen, RECORD, RECIPE, "conv2_relu", Silent())
    assert (lookup.runs_on, lookup.note) == ("the cache", None)
    before = [np.asarray(lookup.of(dataset, "features").features[:]) for dataset in (first, second)]
    assert len(made) == 1
    assert lookup.runs_on == made[0].runs_on
    again = Lookup(frozen, RECORD, RECIPE, "conv2_relu", Silent())
    for dataset, features in zip((first, second), before, strict=True):
        np.testing.assert_array_equal(again.of(dataset, "features").features[:], features)
    assert len(made) == 1
    assert again.runs_on == "the cache"


def test_what_decides_a_feature_decides_its_key(frozen):
    key = feature_key(frozen, RECORD, RECIPE, "conv2_relu")
    images = np.zeros((2, 16, 16, 3), np.uint8)
    others = [
        feature_key(frozen, RECORD, RECIPE, "conv1_relu"),
        feature_key(frozen, RECORD, replace(RECIPE, resize="crop"), "conv2_relu"),
        feature_key(frozen, RECORD, replace(RECIPE, pooling="max"), "conv2_relu"),
        feature_key(frozen, RECORD, replace(RECIPE, feature_type="float16"), "conv2_relu"),
        feature_key(frozen, RECORD, RECIPE, "conv2_relu", images),
        feature_key(frozen, RECORD, RECIPE, "conv2_relu", images + 1),
    ]
    assert key == feature_key(frozen, RECORD, RECIPE, "conv2_relu")
    assert key not in others
    assert len(set(map(repr, others))) == len(others)


def test_an_open_recipe_has_no_resize():
    with pytest.raises(RecipeError, match="image size and resize"):
        resize_of(Recipe())
