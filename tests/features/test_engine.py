"""Covers the engine: features in order for any chunks, in bounded memory, and Keras on a GPU."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest

from crossroads.features import engine as engine_module
from crossroads.features.bodies import body_of
from crossroads.features.engine import Engine
from crossroads.networks.construct import choose

SIZE = 8


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    images = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 255, offset=-0.5)(images)
    return keras.Model(images, keras.layers.Conv2D(4, 3, activation="relu", name="conv")(x), name="small")


@pytest.fixture(scope="module")
def body(network, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSROADS_CACHE", str(tmp_path_factory.mktemp("cache")))
        return body_of(choose(network), SIZE, "own")


def pixels(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


def expected(network, images, pooling):
    maps = keras.ops.convert_to_numpy(network(images.astype(np.float32), training=False))
    return maps if pooling is None else maps.mean(axis=(1, 2))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(engine_module, "MEASURE_SECONDS", 0.0)


@pytest.mark.parametrize("pooling", ["average", None])
def test_features_equal_those_of_keras_in_order_for_any_chunks(pooling, network, body):
    images = pixels(75)
    engine = Engine(body.until(body.end, pooling))
    chunks = np.split(images, [0, 1, 1, 40, 74])
    features = np.concatenate(list(engine.stream(chunks)))
    assert features.dtype == np.float32
    assert features.shape[1:] == engine.shape
    np.testing.assert_allclose(features, expected(network, images, pooling), atol=1e-5)
    np.testing.assert_array_equal(features, engine(images))
    assert engine.runs_on == "openvino"


def test_few_batches_are_in_memory_at_a_time(body):
    engine = Engine(body.until(body.end, "average"))
    engine(pixels(2))
    made = []

    def chunks():
        for i in range(200):
            made.append(i)
            yield pixels(engine.batch_size)

    source = engine.stream(chunks())
    next(source)
    assert len(made) < 20
    source.close()
    assert engine(pixels(0)).shape == (0, 4)
    assert list(engine.stream([])) == []


def test_keras_runs_on_a_gpu(monkeypatch, network, body):
    monkeypatch.setattr(engine_module, "has_gpu", lambda: True)
    engine = Engine(body.until(body.end, "average"))
    np.testing.assert_allclose(engine(pixels(37)), expected(network, pixels(37), "average"), atol=1e-5)
    assert engine.runs_on == "keras"
    graph = Engine(replace(body.until(body.end, "average"), keras_model=None))
    graph(pixels(3))
    assert graph.runs_on == "openvino"


@pytest.mark.parametrize("pooling", ["average-2", "average-3", "average-4"])
def test_grids_of_a_network_with_reversed_channels_equal_those_of_keras(pooling):

    choice = choose("squeezenet")
    body = body_of(choice, 48, "none")
    cut = body.find("fire2_concat")
    images = np.random.default_rng(0).integers(0, 256, (5, 48, 48, 3), dtype=np.uint8)
    features = Engine(body.until(cut, pooling))(images)
    in_keras = np.asarray(body.until(cut, pooling).keras_model().predict_on_batch(images))
    np.testing.assert_allclose(features, in_keras, atol=1e-3 * np.abs(features).max())
