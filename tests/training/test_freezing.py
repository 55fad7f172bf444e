"""Covers frozen weights: they and BatchNorm's statistics stay bit-identical, or the layer that changes them is refused."""

import keras
import numpy as np
import pytest
from keras import layers

from crossroads.errors import TrainingError
from crossroads.progress import Silent
from crossroads.training.checkpoint import Checkpoints
from crossroads.training.freezing import fingerprint, freeze, require_unchanged
from crossroads.training.loop import train
from refusals import refused
from tiny_networks import labelled, network, phase, same, weights

pytestmark = pytest.mark.core
DATA, VALIDATION = labelled(48), labelled(16, seed=1)


def trained(made, planned, folder, data=DATA, validation=VALIDATION):
    return train(made, planned, data, validation, Checkpoints(folder), "id", Silent())


def statistics(model):
    every = model._flatten_layers(include_self=False, recursive=True)
    norms = [layer for layer in every if isinstance(layer, layers.BatchNormalization)]
    return [keras.ops.convert_to_numpy(v).copy() for layer in norms for v in (layer.moving_mean, layer.moving_variance)]


def test_unfreezing_moves_batchnorm_statistics_in_plain_keras_and_not_here(tmp_path):
    inputs = keras.Input((16, 16, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs))
    base = keras.Model(inputs, x)
    base.trainable = False
    images = keras.Input((16, 16, 3))
    features = base(images, training=False)  # as tutorials do, to keep BatchNorm in inference mode
    plain = keras.Model(images, layers.Dense(2)(layers.GlobalAveragePooling2D()(features)))
    base.trainable = True
    before = statistics(plain)
    plain.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    plain.fit(np.asarray(DATA.inputs, np.float32), DATA.labels, epochs=1, verbose=0)
    assert not same(before, statistics(plain))

    ours = network()
    before = statistics(ours.trained)
    kernels = weights(ours.trained)
    trained(ours, phase(epochs=1), tmp_path)
    assert same(before, statistics(ours.trained))
    assert not same(kernels, weights(ours.trained))


def test_statistics_move_if_the_phase_trains_them(tmp_path):
    made = network()
    before = statistics(made.trained)
    trained(made, phase(epochs=1, train_batchnorm=True), tmp_path)
    assert not any(a.tobytes() == b.tobytes() for a, b in zip(before, statistics(made.trained), strict=True))


def test_the_head_phase_trains_only_the_head(tmp_path):
    made = network()
    before = {v.path: v.numpy().tobytes() if hasattr(v, "numpy") else bytes(np.array(v)) for v in made.trained.weights}
    trained(made, phase(name="head", epochs=1), tmp_path)
    after = {v.path: v.numpy().tobytes() if hasattr(v, "numpy") else bytes(np.array(v)) for v in made.trained.weights}
    assert {path for path in before if before[path] != after[path]} == {"head/kernel", "head/bias"}


def test_the_frozen_part_must_not_change():
    made = network(freeze="relu1")
    still = {v.path for v in freeze(made, phase())}
    assert {"conv1/kernel", "norm1/gamma", "norm1/moving_mean", "norm2/moving_mean", "norm2/gamma"} <= still
    assert not still & {"conv2/kernel", "head/kernel"}


def test_the_statistics_that_a_head_standardizes_by_are_never_trained():
    made = network(head="mlp")
    still = {v.path for v in freeze(made, phase(train_batchnorm=True))}
    assert still == {"head_standardise/moving_mean", "head_standardise/moving_variance"}


def test_the_next_phase_can_train_what_was_frozen():
    made = network()
    freeze(made, phase(name="head"))
    assert len(made.trained.trainable_variables) == 2
    freeze(made, phase(train_batchnorm=True))
    assert len(made.trained.trainable_variables) == 8


def test_a_checkpoint_holds_no_frozen_weights(tmp_path):
    made = network()
    trained(made, phase(name="head", epochs=1), tmp_path)
    held = Checkpoints(tmp_path).arrays(1)
    assert max(array.size for array in held) == 8 * 2


def test_a_changed_bit_is_reported_with_the_name_of_its_variable():
    made = network()
    variables = made.trained.weights
    before = fingerprint(variables)
    require_unchanged(variables, before)
    statistic = made.blocks[0][1].moving_variance
    statistic.assign(np.nextafter(np.asarray(statistic), np.float32(9)))
    with refused("frozen-weights-changed", TrainingError) as error:
        require_unchanged(variables, before)
    assert "norm1/moving_variance" in error.value.received


class Restless(layers.Layer):
    """Counts its calls in training, even if it is frozen."""

    def build(self, shape):
        self.count = self.add_weight(shape=(), trainable=False, name="count")

    def call(self, inputs, training=False):
        if training:
            self.count.assign(self.count + 1)
        return inputs


def test_a_layer_that_changes_frozen_weights_is_refused(tmp_path):
    made = network(extra=lambda x: Restless(name="restless")(x))
    with refused("frozen-weights-changed", TrainingError):
        trained(made, phase(name="head", epochs=1), tmp_path)
