"""Covers networks: heads on backbones, cut and frozen, and the quiz network against a plain Keras model."""

import random

import keras
import numpy as np
import pytest
from keras import layers

from crossroads.errors import SetupError
from crossroads.networks.catalog import backbone
from crossroads.networks.cuts import find
from crossroads.networks.network import Layout, assemble, head_layers, seeded, standardise
from refusals import refused

pytestmark = pytest.mark.core
small_backbones = pytest.mark.parametrize("record", [backbone(name) for name in ("small-cnn", "quiz-cnn")], ids=lambda b: b.name)


def images(n, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def build(record, size, classes=5, seed=0):
    with seeded(seed):
        return assemble(record.build(size), size, head_layers("linear", classes))


def mobilenet(freeze=None, keep=None, pooling="average", kind="linear", parts=None, head=None):
    """Returns MobileNet at 32 px, cut and frozen at these layers."""
    parts = parts or backbone("mobilenet").build(32)
    layout = Layout(*(None if name is None else find(parts.backbone, name) for name in (keep, freeze)), pooling)
    return assemble(parts, 32, head or head_layers(kind, 5), layout)


@small_backbones
def test_a_network_turns_images_into_probabilities(record):
    network = build(record, record.sizes[0])
    scores = network.ship().predict_on_batch(images(3, record.sizes[0]))
    assert scores.shape == (3, 5)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)


@small_backbones
def test_a_backbone_builds_at_its_smallest_size_and_its_default_sizes(record):
    for size in {record.limits[0], *record.sizes}:
        assert build(record, size).trained.output_shape == (None, 5)


@small_backbones
def test_the_trained_and_the_shipped_model_share_their_weights(record):
    network = build(record, record.sizes[0])
    pixels = images(4, record.sizes[0])
    scores = keras.ops.convert_to_numpy(network.trained(pixels.astype("float32"), training=False))
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(network.ship().predict_on_batch(pixels), expected, atol=1e-5)
    assert {id(v) for v in network.trained.weights} == {id(v) for v in network.ship().weights}


@small_backbones
def test_the_seed_decides_the_initial_weights(record):
    first, same, other = (build(record, record.sizes[0], seed=seed).trained.get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@small_backbones
def test_a_network_saves_and_loads_in_safe_mode(record, tmp_path):
    network = build(record, record.sizes[0])
    network.ship().save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    pixels = images(2, record.sizes[0])
    np.testing.assert_allclose(loaded.predict_on_batch(pixels), network.ship().predict_on_batch(pixels), atol=1e-6)


def test_another_precision_of_keras_is_refused():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with refused("keras-types", SetupError):
            build(backbone("quiz-cnn"), 32)
    finally:
        keras.config.set_dtype_policy("float32")


def test_seeding_restores_the_generators_of_the_caller():
    random.seed(3)
    np.random.seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist()
    with seeded(9):
        random.random()
        np.random.rand()
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_the_quiz_network_computes_what_a_plain_keras_model_computes():
    plain = keras.Sequential(
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
    assert [w.shape for w in network.trained.get_weights()] == [w.shape for w in plain.get_weights()]
    plain.set_weights(network.trained.get_weights())
    pixels = images(8, 32)
    expected = plain.predict_on_batch(pixels / np.float32(255) - np.float32(0.5))
    np.testing.assert_allclose(network.ship().predict_on_batch(pixels), expected, atol=1e-5)
    dropout = next(layer for layer in network.trained.get_layer("quiz_cnn").layers if isinstance(layer, layers.Dropout))
    assert dropout.rate == 0.5


def test_the_small_network_ignores_brightness():
    network = build(backbone("small-cnn"), 32)
    pixels = images(4, 32) // 4 + 64
    brighter = pixels + 60
    np.testing.assert_allclose(network.ship().predict_on_batch(brighter), network.ship().predict_on_batch(pixels), atol=2e-3)


@pytest.mark.parametrize(
    ("keep", "freeze", "pooling"),
    [
        ("conv_pw_4_relu", "conv_pw_4_relu", "average-2"),
        ("conv_pw_4_relu", "conv_pw_2_relu", "average"),
        (None, "conv_pw_2_relu", "average-2"),
    ],
)
def test_the_frozen_and_the_trained_part_compose_to_the_whole_network(keep, freeze, pooling):
    network = mobilenet(freeze, keep, pooling)
    pixels = images(3, 32)
    features = network.frozen.predict_on_batch(pixels)
    scores = keras.ops.convert_to_numpy(network.trained(features, training=False)).astype(np.float64)
    expected = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(network.ship().predict_on_batch(pixels), expected, atol=1e-5)


def test_networks_of_the_same_parts_and_head_share_their_weights():
    parts, head = backbone("mobilenet").build(32), head_layers("linear", 5)
    whole, partly_frozen = (mobilenet(freeze, "conv_pw_4_relu", parts=parts, head=head) for freeze in (None, "conv_pw_2_relu"))
    assert {id(v) for v in whole.ship().weights} == {id(v) for v in partly_frozen.ship().weights}
    assert {id(v) for v in partly_frozen.trained.weights} < {id(v) for v in whole.trained.weights}
    pixels = images(2, 32)
    np.testing.assert_allclose(whole.ship().predict_on_batch(pixels), partly_frozen.ship().predict_on_batch(pixels), atol=1e-6)


def test_blocks_contain_every_trained_weight_once_and_end_with_the_head():
    network = mobilenet("conv_pw_2_relu", "conv_pw_4_relu")
    inside = [id(weight) for block in network.blocks for layer in block for weight in layer.weights]
    assert sorted(inside) == sorted(id(weight) for weight in network.trained.weights)
    assert [layer.name for layer in network.blocks[-1]] == ["head"]
    assert len(network.blocks) > 3


def test_the_sgd_head_starts_with_a_truncated_normal():
    (head,) = head_layers("sgd", 5)
    head.build((None, 4096))
    kernel, bias = (np.asarray(weight) for weight in head.get_weights())
    assert np.abs(kernel).max() <= 0.02  # a truncated normal: two deviations at most
    assert 0.008 < kernel.std() < 0.0095
    assert not bias.any()


def test_an_mlp_standardises_by_fixed_statistics():
    head = head_layers("mlp", 5)
    network = mobilenet("conv_pw_4_relu", "conv_pw_4_relu", head=head)
    width = network.trained.input_shape[-1]
    standardise(head, np.full(width, 3.0, np.float32), np.full(width, 2.0, np.float32))
    standardised = keras.ops.convert_to_numpy(head[0](np.full((1, width), 7.0, np.float32), training=True))
    np.testing.assert_allclose(standardised, 2.0, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_standardising_head_ships_as_its_dense_layers(kind):
    head = head_layers(kind, 5, tuned=True)
    network = mobilenet("conv_pw_4_relu", "conv_pw_4_relu", "average-2", head=head)
    rng, width = np.random.default_rng(0), network.trained.input_shape[-1]
    standardise(head, rng.normal(50, 9, width), rng.uniform(20, 80, width))
    pixels = images(4, 32)
    for _ in range(2):  # shipping again follows the trained weights
        head[1].kernel.assign(rng.normal(size=head[1].kernel.shape))
        head[1].bias.assign(rng.normal(size=head[1].bias.shape))
        scores = np.asarray(network.trained(network.frozen.predict_on_batch(pixels), training=False))
        expected = np.exp(scores - scores.max(axis=1, keepdims=True))
        expected /= expected.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(network.ship().predict_on_batch(pixels), expected, atol=1e-4)
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in network.ship().layers[-2].layers)


def test_a_small_deviation_is_raised_before_it_divides():
    head = head_layers("linear", 2, tuned=True)
    head[0].build((None, 3))
    standardise(head, np.zeros(3), np.array([1e-6, 5.0, 8.0]))
    np.testing.assert_allclose(np.sqrt(head[0].moving_variance), [0.5, 5, 8], rtol=1e-6)
    standardise(head, np.zeros(3), np.array([0.0, 0.0, 8.0]))
    np.testing.assert_allclose(np.sqrt(head[0].moving_variance), [0.8, 0.8, 8], rtol=1e-6)
    standardise(head, np.zeros(3), np.zeros(3))
    np.testing.assert_array_equal(head[0].moving_variance, 1)


@small_backbones
@pytest.mark.parametrize("kind", ["linear", "mlp", "sgd"])
def test_every_head_fits_on_every_small_backbone(record, kind):
    size = record.sizes[0]
    network = assemble(record.build(size), size, head_layers(kind, 3))
    assert network.ship().output_shape == (None, 3)
