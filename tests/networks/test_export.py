"""Digests that say what a model computes, and the process in which graphs are made on other backends."""

import keras
import numpy as np
import pytest
from keras import layers

from crossroads.networks.catalog import backbone
from crossroads.networks.export import convert_elsewhere, function_digest

pytestmark = pytest.mark.core


def filled(model):
    for weight in model.weights:
        weight.assign(np.full(weight.shape, 0.5, np.float32))
    return model


def activated(activation):
    """The name of a layer is also a word among settings."""
    images = keras.Input((4, 4, 3))
    return filled(keras.Model(images, layers.Activation(activation, name=activation)(layers.Conv2D(2, 1)(images))))


def nested(activation="relu", *, swapped=False):
    inner = keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2D(3, 1, activation=activation), layers.Conv2D(3, 1)])
    images = keras.Input((4, 4, 3))
    first, second = layers.ReLU()(inner(images)), layers.ReLU(max_value=6)(images)
    both = [second, first] if swapped else [first, second]
    outer = keras.Model(images, layers.Concatenate()([*both, keras.ops.multiply(first, 2.0)]))
    return filled(keras.Model(images, layers.TimeDistributed(layers.Dense(2))(outer(images))))


def test_another_activation_another_digest():
    digests = [function_digest(activated(activation)) for activation in ("relu", "tanh", "relu6")]
    assert len(set(digests)) == 3
    assert function_digest(nested()) != function_digest(nested("relu6"))


def test_another_order_of_inputs_another_digest():
    assert function_digest(nested()) != function_digest(nested(swapped=True))


def test_another_precision_another_digest():
    def dense(dtype):
        return filled(keras.Sequential([keras.Input((3,)), layers.Dense(2, dtype=dtype)]))

    assert function_digest(dense("float32")) != function_digest(dense("mixed_float16"))


def mobilenet():
    return filled(backbone("mobilenet").build(32).backbone)


@pytest.mark.parametrize("build", [nested, mobilenet])
def test_built_twice_in_one_process_the_digest_is_the_same(build):
    assert function_digest(build()) == function_digest(build())


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="one process is enough")
def test_a_graph_is_made_elsewhere_without_what_lies_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for named in ("keras", "openvino"):
        (tmp_path / f"{named}.py").write_text("open('ran', 'w').close()\nraise SystemExit(0)\n")
    activated("relu").save(tmp_path / "saved.keras")
    convert_elsewhere(tmp_path / "saved.keras", tmp_path / "graph.xml")
    assert (tmp_path / "graph.xml").exists()
    assert not (tmp_path / "ran").exists()
