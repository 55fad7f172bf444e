"""The contract of every backbone, and the quiz network against the notes."""

import random

import keras
import numpy as np
import pytest
from keras import layers

from crossroads.errors import BackboneError
from crossroads.networks.catalog import CATALOG, backbone
from crossroads.networks.network import assemble, seeded

pytestmark = pytest.mark.core
every_backbone = pytest.mark.parametrize("record", CATALOG, ids=lambda b: b.name)


def images(n, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def build(record, size, classes=5, seed=0):
    with seeded(seed):
        return assemble(record.build(size), size, classes)


@every_backbone
def test_images_in_probabilities_out(record):
    network = build(record, record.sizes[0])
    found = network.inference.predict_on_batch(images(3, record.sizes[0]))
    assert found.shape == (3, 5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


@every_backbone
def test_it_builds_at_its_smallest_size_and_at_each_size_it_names(record):
    for size in {record.limits[0], *record.sizes}:
        assert build(record, size).logits.output_shape == (None, 5)


@every_backbone
def test_both_sides_share_their_weights(record):
    network = build(record, record.sizes[0])
    pixels = images(4, record.sizes[0])
    scores = keras.ops.convert_to_numpy(network.logits(pixels.astype("float32"), training=False))
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(network.inference.predict_on_batch(pixels), expected, atol=1e-5)
    assert {id(v) for v in network.logits.weights} == {id(v) for v in network.inference.weights}


@every_backbone
def test_the_seed_decides_the_first_weights(record):
    one, same, other = (build(record, record.sizes[0], seed=seed).logits.get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@every_backbone
def test_it_saves_and_loads_in_safe_mode(record, tmp_path):
    network = build(record, record.sizes[0])
    network.inference.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    pixels = images(2, record.sizes[0])
    np.testing.assert_allclose(loaded.predict_on_batch(pixels), network.inference.predict_on_batch(pixels), atol=1e-6)


def test_other_settings_of_keras_are_refused_and_not_silently_taken():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with pytest.raises(BackboneError, match="received Keras set to mixed_bfloat16"):
            build(CATALOG[0], CATALOG[0].sizes[0])
    finally:
        keras.config.set_dtype_policy("float32")


def test_seeding_leaves_the_callers_generators_alone():
    random.seed(3)
    np.random.seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist()
    with seeded(9):
        random.random()
        np.random.rand()
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_the_quiz_network_is_the_one_of_the_notes():
    notes = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(32, (3, 3), padding="valid"),
            layers.MaxPooling2D((2, 2), padding="valid"),
            layers.Dropout(0.5),
            layers.Activation("relu"),
            layers.Flatten(),
            layers.Dense(128),
            layers.Activation("relu"),
            layers.Dense(5),
            layers.Activation("softmax"),
        ]
    )
    network = build(backbone("quiz-cnn"), 32)
    assert [w.shape for w in network.logits.get_weights()] == [w.shape for w in notes.get_weights()]
    notes.set_weights(network.logits.get_weights())
    pixels = images(8, 32)
    expected = notes.predict_on_batch(pixels / np.float32(255) - np.float32(0.5))
    np.testing.assert_allclose(network.inference.predict_on_batch(pixels), expected, atol=1e-5)
    dropout = next(layer for layer in network.logits.get_layer("quiz_cnn").layers if isinstance(layer, layers.Dropout))
    assert dropout.rate == 0.5


def test_the_small_network_does_not_mind_brightness_and_contrast():
    network = build(backbone("small-cnn"), 32)
    pixels = images(4, 32) // 4 + 64
    brighter = pixels + 60
    np.testing.assert_allclose(network.inference.predict_on_batch(brighter), network.inference.predict_on_batch(pixels), atol=2e-3)
