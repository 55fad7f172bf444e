"""Covers the lookup of features: one engine for all data sets, none if the cache has everything, one key per function."""

from dataclasses import replace

import numpy as np
import pytest

import crossroads
from crossroads.errors import RecipeError
from crossroads.features import lookup as lookup_module
from crossroads.features.bodies import body_of
from crossroads.features.lookup import Lookup, feature_key, resize_of
from crossroads.networks.catalog import backbone
from crossroads.networks.construct import choose
from crossroads.progress import Silent
from crossroads.recipe import Recipe
from crossroads.strategies import resolve_recipe
from pictures import stripes
from refusals import refused

RECORD = backbone("small-cnn")
RECIPE = resolve_recipe(Recipe(strategy="feature-extraction", weights="none"), RECORD, images=24, image_size=16)


@pytest.fixture(scope="module")
def frozen():
    body = body_of(choose("small-cnn"), 16, "none")
    return body.until(body.find("conv2_relu"), "average")


@pytest.fixture
def engines(monkeypatch, tmp_path):
    """Returns the engines that were created. The cache belongs to the test."""
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path))
    created = []
    original = lookup_module.Engine

    def counted(*args, **options):
        created.append(original(*args, **options))
        return created[-1]

    monkeypatch.setattr(lookup_module, "Engine", counted)
    return created


def test_one_engine_serves_every_data_set_and_cached_features_need_none(frozen, engines):
    first, second = (crossroads.read(stripes(12, size=16, seed=seed)) for seed in (0, 1))
    lookup = Lookup(frozen, RECORD.name, RECIPE, "conv2_relu", Silent())
    assert lookup.runs_on == "the cache"
    before = [np.asarray(lookup.features(dataset, "features").features[:]) for dataset in (first, second)]
    assert len(engines) == 1
    assert lookup.runs_on == engines[0].runs_on
    again = Lookup(frozen, RECORD.name, RECIPE, "conv2_relu", Silent())
    for dataset, features in zip((first, second), before, strict=True):
        np.testing.assert_array_equal(again.features(dataset, "features").features[:], features)
    assert len(engines) == 1
    assert again.runs_on == "the cache"


def test_everything_that_determines_a_feature_is_in_its_key(frozen):
    key = feature_key(frozen, RECORD.name, RECIPE, "conv2_relu")
    others = [
        feature_key(frozen, RECORD.name, RECIPE, "conv1_relu"),
        feature_key(frozen, RECORD.name, replace(RECIPE, resize="crop"), "conv2_relu"),
        feature_key(frozen, RECORD.name, replace(RECIPE, pooling="average-4"), "conv2_relu"),
        feature_key(frozen, RECORD.name, replace(RECIPE, feature_type="float16"), "conv2_relu"),
    ]
    assert key == feature_key(frozen, RECORD.name, RECIPE, "conv2_relu")
    assert key not in others
    assert len(set(map(repr, others))) == len(others)


def test_a_recipe_that_is_not_resolved_is_refused():
    with refused("recipe-not-resolved", RecipeError):
        resize_of(Recipe())
