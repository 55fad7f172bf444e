"""Covers pooling: it computes what NumPy computes, and refuses other shapes and names."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossroads.errors import BackboneError
from crossroads.inference import Graph, operations, runtime
from crossroads.networks.body import POOLINGS, Body, Tap
from crossroads.networks.cut import Cut
from crossroads.networks.pooling import pool
from refusals import refused

pytestmark = pytest.mark.core


def pooled(values, pooling):
    inputs = keras.Input(values.shape[1:])
    return keras.Model(inputs, pool(inputs, pooling)).predict_on_batch(values)


def expected_pool(values, regions):
    n, height, width, channels = values.shape
    result = np.empty((n, *regions, channels), np.float32)
    for i, j in np.ndindex(*regions):
        vertical = slice(i * height // regions[0], -(-(i + 1) * height // regions[0]))
        horizontal = slice(j * width // regions[1], -(-(j + 1) * width // regions[1]))
        result[:, i, j] = values[:, vertical, horizontal].mean(axis=(1, 2))
    return result.reshape(n, -1)


@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), grid=st.sampled_from([1, 2, 3, 4]))
def test_every_region_of_the_grid_is_averaged(height, width, grid):
    values = np.random.default_rng(0).standard_normal((2, height, width, 3)).astype(np.float32)
    expected = expected_pool(values, (min(grid, height), min(grid, width)))
    np.testing.assert_allclose(pooled(values, "average" if grid == 1 else f"average-{grid}"), expected, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS[:-2])
def test_a_vector_is_returned_unchanged(pooling):
    vector = keras.Input((3,))
    assert pool(vector, pooling) is vector


@pytest.mark.parametrize("pooling", POOLINGS[:-2])
def test_pooling_saves_and_loads_in_safe_mode(pooling, tmp_path):
    inputs = keras.Input((5, 7, 2))
    model = keras.Model(inputs, pool(inputs, pooling))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    values = np.random.default_rng(0).standard_normal((2, 5, 7, 2)).astype(np.float32)
    np.testing.assert_array_equal(again.predict_on_batch(values), model.predict_on_batch(values))


def test_an_unknown_pooling_gets_the_nearest_as_a_hint():
    with refused("unknown-pooling", BackboneError) as caught:
        pool(keras.Input((4, 4, 3)), "avarage-2")
    assert "'average-2'" in caught.value.hint


@pytest.mark.parametrize("shape", [(7, 8), (None, 8), (None, None, 8), (2, 3, 4, 5)])
def test_only_square_patches_maps_of_a_known_size_and_vectors_are_pooled(shape):
    with refused("shape-not-poolable", BackboneError):
        pool(keras.Input(shape), "average-2")


TOKENS = np.random.default_rng(0).standard_normal((2, 5 + 16, 3)).astype(np.float32)
"""A class token, four register tokens, and a map of 4x4 patches."""


@pytest.mark.parametrize("pooling", POOLINGS)
def test_tokens_are_pooled_as_in_a_graph(pooling, tmp_path):
    inputs = keras.Input(TOKENS.shape[1:])
    model = keras.Model(inputs, pool(inputs, pooling, 5))
    model.save(tmp_path / "model.keras")
    result = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True).predict_on_batch(TOKENS)
    patches = TOKENS[:, 5:].reshape(2, 4, 4, 3)
    if pooling == "class-token":
        expected = TOKENS[:, 0]
    elif pooling == "class-and-average":
        expected = np.hstack([TOKENS[:, 0], patches.mean(axis=(1, 2))])
    else:
        grid = int(pooling[-1]) if pooling[-1].isdigit() else 1
        expected = expected_pool(patches, (grid, grid))
    np.testing.assert_allclose(result, expected, atol=1e-6)
    np.testing.assert_allclose(as_a_graph(pooling), expected, atol=1e-6)


def as_a_graph(pooling):
    ops = operations()
    tokens = ops.parameter([-1, 21, 3], np.float32)
    cut = Cut("tokens", 0, 1.0, (21, 3), 1, 1, 63)
    body = Body("tokens", 1, runtime().Model([ops.result(tokens)], [tokens], "tokens"), (Tap(cut, "NTC", 5),), cut, "")
    return Graph.of(body.until(cut, pooling).model)(TOKENS).reshape(2, -1)


@pytest.mark.parametrize(("shape", "prefix"), [((16, 3), 0), ((3,), 1), ((4, 4, 3), 0)])
def test_only_tokens_have_a_class_token(shape, prefix):
    with refused("no-class-token", BackboneError, field="pooling"):
        pool(keras.Input(shape), "class-token", prefix)
