"""Covers BatchNorm in training: moving statistics that suit short trainings, and TensorFlow's fused operation."""

import keras
import numpy as np
import pytest
from keras import layers

from crossroads.progress import Silent
from crossroads.training import batchnorm
from crossroads.training.batchnorm import adapted_momentum, momentum_for
from crossroads.training.checkpoint import Checkpoints
from crossroads.training.freezing import freeze
from crossroads.training.loop import train
from tiny_networks import labelled, network, phase

pytestmark = pytest.mark.core
DATA, VALIDATION = labelled(48), labelled(16, seed=1)


def norms(made):
    every = made.trained._flatten_layers(include_self=False, recursive=True)
    return [layer for layer in every if isinstance(layer, layers.BatchNormalization)]


@pytest.mark.parametrize("steps", [1, 2, 6, 20, 43, 44, 100, 400, 460, 1_000, 100_000])
def test_a_hundredth_of_the_first_statistics_remains_at_most(steps):
    assert min(0.99, momentum_for(steps)) ** steps <= 0.0101
    assert 0 < momentum_for(steps) < 1


def test_a_long_training_keeps_the_default_momentum():
    assert momentum_for(1_000) == 0.99
    assert [round(momentum_for(steps), 3) for steps in (6, 100, 400)] == [0.464, 0.9, 0.975]


def test_the_momentum_of_trained_layers_is_restored():
    made = network()
    norms(made)[0].momentum = 0.5
    freeze(made, phase(train_batchnorm=True))
    with adapted_momentum(made, 100):
        assert [layer.momentum for layer in norms(made)] == [0.5, 0.9]
    assert [layer.momentum for layer in norms(made)] == [0.5, 0.99]


def test_the_momentum_of_frozen_layers_is_not_changed():
    made = network()
    freeze(made, phase())
    with adapted_momentum(made, 20):
        assert {layer.momentum for layer in norms(made)} == {0.99}


def first_means(made):
    return keras.ops.convert_to_numpy(norms(made)[0].moving_mean).copy()


def test_a_short_training_ends_with_statistics_of_its_own_images(tmp_path):
    made, fresh = network(), network()
    first = first_means(fresh)
    freeze(fresh, phase(train_batchnorm=True))
    for layer in norms(fresh):
        layer.momentum = 0.0
    fresh.trained(np.asarray(DATA.inputs, np.float32), training=True)
    own = first_means(fresh)
    planned = phase(epochs=4, batch_size=4, learning_rate=1e-9, train_batchnorm=True)
    train(made, planned, DATA, VALIDATION, Checkpoints(tmp_path), "id", Silent())
    assert np.abs(first_means(made) - own).max() < 0.4 * np.abs(first - own).max()  # with a momentum of 0.99 it would be 0.6
    assert {layer.momentum for layer in norms(made)} == {0.99}


def trained(tmp_path, monkeypatch, fused):
    """Returns all weights after a few steps, the number of fused layers, and the network."""
    made, counts = network(), []
    with monkeypatch.context() as patched:
        if not fused:
            patched.setattr(batchnorm, "_can_be_fused", lambda layer: False)
        patched.setattr(
            batchnorm, "_set_class", lambda layer, kind, become=batchnorm._set_class: (counts.append(kind), become(layer, kind))
        )
        planned = phase(epochs=2, batch_size=8, learning_rate=1e-3, train_batchnorm=True)
        train(made, planned, DATA, VALIDATION, Checkpoints(tmp_path / str(fused)), "id", Silent())
    return [keras.ops.convert_to_numpy(weight) for weight in made.trained.weights], counts.count(batchnorm._FusedBatchNorm), made


def test_fused_layers_train_as_keras_does(tmp_path, monkeypatch):
    (ours, fused, made), (theirs, none, _) = (trained(tmp_path, monkeypatch, fused) for fused in (True, False))
    assert (fused, none) == (2 if keras.backend.backend() == "tensorflow" else 0, 0)
    for mine, plain in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, plain, rtol=1e-3, atol=1e-4)
    assert {type(layer) for layer in norms(made)} == {layers.BatchNormalization}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the fused operation is TensorFlow's")
@pytest.mark.parametrize("change", [{"scale": False}, {"center": False}, {"scale": False, "center": False}, {"epsilon": 0.1}])
def test_a_fused_layer_has_the_output_and_statistics_of_keras(change):
    images = np.random.default_rng(0).normal(3, 2, (5, 4, 6, 3)).astype(np.float32)
    plain, fused = layers.BatchNormalization(**change), batchnorm._FusedBatchNorm(**change)
    np.testing.assert_allclose(fused(images, training=True), plain(images, training=True), atol=1e-5)
    for mine, theirs in zip(fused.weights, plain.weights, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fused(images, training=False), plain(images, training=False), atol=1e-5)


class Custom(layers.BatchNormalization):
    """A BatchNorm class of the user."""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the fused operation is TensorFlow's")
@pytest.mark.parametrize(
    ("kind", "options", "shape"),
    [
        (Custom, {}, (2, 4, 4, 3)),
        (layers.BatchNormalization, {}, (2, 3)),
        (layers.BatchNormalization, {"axis": 1}, (2, 4, 4, 3)),
        (layers.BatchNormalization, {"epsilon": 1e-6}, (2, 4, 4, 3)),
        (layers.BatchNormalization, {"trainable": False}, (2, 4, 4, 3)),
        (layers.BatchNormalization, {"renorm": True}, (2, 4, 4, 3)),
        (layers.BatchNormalization, {"synchronized": True}, (2, 4, 4, 3)),
        (layers.BatchNormalization, {"dtype": "mixed_bfloat16"}, (2, 4, 4, 3)),
    ],
)
def test_other_layers_are_not_fused(kind, options, shape):
    layer = kind(**options)
    layer.build(shape)
    assert not batchnorm._can_be_fused(layer)


def test_a_custom_layer_without_an_input_spec_is_not_fused():
    layer = Custom()
    layer.build((2, 4, 4, 3))
    layer.input_spec = None
    assert not batchnorm._can_be_fused(layer)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the fused operation is TensorFlow's")
def test_classes_are_restored_after_an_error():
    made = network()
    freeze(made, phase(train_batchnorm=True))
    inside = []

    def fails():
        with batchnorm.fused_batchnorm(made):
            inside.extend(type(layer) for layer in norms(made))
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert set(inside) == {batchnorm._FusedBatchNorm}
    assert {type(layer) for layer in norms(made)} == {layers.BatchNormalization}
