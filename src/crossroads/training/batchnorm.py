"""BatchNorm while it is trained: its statistics follow fast enough for few steps, and TensorFlow takes them in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import layers, ops

from crossroads.networks.network import Network, batchnorms, momentum_at_most

WINDOWS, LEAST = 10, 0.9
"""How many times the window of the average, 1 / (1 - momentum), fits into the steps; and the least momentum for that."""

LEFT = 0.01
"""Share of the first statistics that may be left after the last step; where there are so few steps, the window is shorter still."""

LEAST_EPSILON = 1.001e-5
"""Of TensorFlow's fused operation, which takes this for anything smaller."""


@contextmanager
def settling(network: Network, steps: int) -> Iterator[None]:
    """Inside, the statistics of the BatchNorm layers that are trained follow fast enough for so many steps.

    Keras' usual momentum of 0.99 leaves a hundredth of the first statistics after 460 steps. Of a network that was trained on other
    images, these are what a short training would be validated with, and shipped.
    """
    with momentum_at_most(momentum_for(steps), [layer for layer in batchnorms(network.trained) if layer.trainable]):
        yield


def momentum_for(steps: int) -> float:
    """The greatest momentum for a training of so many steps."""
    steps = max(1, steps)
    return float(min(max(LEAST, 1 - WINDOWS / steps), LEFT ** (1 / steps)))


@contextmanager
def in_one_pass(network: Network) -> Iterator[None]:
    """Inside, TensorFlow trains the BatchNorm layers of images by its fused operation, which gives the same to rounding.

    Keras computes mean, variance and normalisation one after another, forwards and backwards: a step of MobileNet at 96 px took 8.4
    ms an image so on two cores, and takes 5.1 (`python -m benchmarks finetune` has MobileNetV2). No model is to be copied or saved
    inside: its layers are of another class there.
    """
    fused = [layer for layer in batchnorms(network.trained) if _can_be_fused(layer)]
    try:
        for layer in fused:
            _become(layer, _OnePass)
        yield
    finally:
        for layer in fused:
            _become(layer, layers.BatchNormalization)


def _become(layer: layers.BatchNormalization, kind: type[layers.BatchNormalization]) -> None:
    """A layer that is part of a graph already stays the same object, with other methods."""
    object.__setattr__(layer, "__class__", kind)


def _can_be_fused(layer: layers.BatchNormalization) -> bool:
    """Whether it is trained, a plain one of Keras, on maps of float32 with the channels last, in TensorFlow."""
    if (
        keras.backend.backend() != "tensorflow"
        or type(layer) is not layers.BatchNormalization
        or not (layer.trainable and layer.built)
    ):
        return False
    plain = not (layer.synchronized or layer.renorm) and layer.compute_dtype == layer.variable_dtype == "float32"
    return plain and layer.input_spec.ndim == 4 and layer.axis in (-1, 3) and layer.epsilon >= LEAST_EPSILON


class _OnePass(layers.BatchNormalization):  # type: ignore[misc]
    """A BatchNorm layer on maps, float32 (n, height, width, channels), that is trained by one operation of TensorFlow."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """The same as Keras' own, moving statistics included."""
        if not training or not self.trainable or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        scale = self.gamma if self.scale else ops.ones_like(self.moving_mean)
        offset = self.beta if self.center else ops.zeros_like(self.moving_mean)
        normalised, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            ops.cast(inputs, "float32"),
            ops.convert_to_tensor(scale),
            ops.convert_to_tensor(offset),
            epsilon=self.epsilon,
            is_training=True,
            data_format="NHWC",
        )
        n = ops.cast(ops.size(inputs), "float32") / inputs.shape[-1]
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance * ((n - 1) / n))):  # which it gives unbiased
            moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return normalised
