"""Covers building the backbone of a recipe: weights, cuts and digests."""

import keras
import numpy as np
import pytest

from crossroads.errors import BackboneError
from crossroads.networks.construct import build, choose
from refusals import refused

MOBILENET = "mobilenet_v1_imagenet_to_conv_pw_12.weights.h5"


@pytest.fixture
def built(shared_weights):
    def made(**options):
        return build(choose("mobilenet"), 32, weights=str(shared_weights / MOBILENET), **options)

    return made


def test_weights_that_end_early_limit_the_cut(built):
    mobilenet = built()
    assert mobilenet.keep.name == "conv_pw_12_relu"
    assert mobilenet.keep.depth == pytest.approx(25 / 27)  # of the whole network, as its cuts are listed
    assert mobilenet.weights == {"from": MOBILENET, "layers": 50, "reach": "conv_pw_12_relu"}
    (note,) = mobilenet.notes
    assert (note.code, note.figures["cut"]) == ("weights-end-early", "conv_pw_12_relu")


@pytest.mark.parametrize("cut", ["1.0", "-1", "0.97"])
def test_depths_and_negative_indices_stop_at_the_end_of_the_weights(built, cut):
    assert built(cut=cut).keep.name == "conv_pw_12_relu"


@pytest.mark.parametrize(
    ("option", "cut"), [("cut", "conv_pw_13_relu"), ("cut", "26"), ("cut", "conv_dw_13_relu"), ("freeze_to", "conv_pw_13_relu")]
)
def test_a_cut_after_the_weights_is_refused(built, option, cut):
    with refused("cut-after-weights", BackboneError, received=repr(cut)):
        built(**{option: cut})


def test_earlier_cuts_are_those_of_the_list(built):
    mobilenet = built(cut="0.5", freeze_to="3")
    assert (mobilenet.keep.name, mobilenet.freeze.name) == ("conv_dw_7_relu", "conv_dw_2_relu")


def test_the_digest_depends_on_the_seed_of_the_initial_weights():
    first, same, other = (build(choose("quiz-cnn"), 32, weights=None, seed=seed) for seed in (1, 1, 2))
    assert first.digest == same.digest != other.digest
    assert first.function == same.function != other.function
    kernels = [b.parts.backbone.get_layer("conv").get_weights()[0] for b in (first, same)]
    np.testing.assert_array_equal(*kernels)


def test_the_function_digest_depends_on_the_layers_too():
    def net(activation, strides):
        images = keras.Input((16, 16, 3))
        x = keras.layers.Conv2D(4, 3, strides=strides, activation=activation, kernel_initializer="ones", name="conv")(images)
        return keras.Model(images, x, name="net")

    first, second = (build(choose(net(*how)), 16, weights="own") for how in (("relu", 1), ("gelu", 2)))
    assert first.digest == second.digest
    assert first.function != second.function
