"""Adapts BatchNorm to training: moving statistics that suit short trainings, and TensorFlow's fused operation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import layers, ops

from crossroads.networks.network import Network, batchnorms, momentum_at_most

WINDOWS, MIN_MOMENTUM = 10, 0.9
"""The steps of a training are `WINDOWS` times the window of the moving average, 1 / (1 - momentum), unless that lowers the momentum
below `MIN_MOMENTUM`."""

MAX_REMAINDER = 0.01
"""Fraction of the initial statistics that may remain after the last step. With few steps it lowers the momentum further."""

MIN_EPSILON = 1.001e-5
"""Smallest epsilon of TensorFlow's fused operation, which replaces a smaller one with it."""


@contextmanager
def adapted_momentum(network: Network, steps: int) -> Iterator[None]:
    """Lowers the momentum of the BatchNorm layers that are trained, inside the context, to suit the number of steps.

    With Keras' default of 0.99, a hundredth of the initial statistics remains after 460 steps. After a short training the network
    would be validated and shipped with the statistics of the images that it was pretrained on.
    """
    with momentum_at_most(momentum_for(steps), [layer for layer in batchnorms(network.trained) if layer.trainable]):
        yield


def momentum_for(steps: int) -> float:
    """Returns the highest momentum that a training of `steps` steps may use."""
    steps = max(1, steps)
    return float(min(max(MIN_MOMENTUM, 1 - WINDOWS / steps), MAX_REMAINDER ** (1 / steps)))


@contextmanager
def fused_batchnorm(network: Network) -> Iterator[None]:
    """Trains BatchNorm layers on maps by TensorFlow's fused operation inside the context. Results agree to rounding.

    Keras computes mean, variance and normalisation one after another, forwards and backwards. On two cores a training step of
    MobileNet at 96 px took 8.4 ms per image; fused it takes 5.1 ms (`python -m benchmarks finetune` measures MobileNetV2). Do not
    copy or save a model inside the context, where its layers have another class.
    """
    fused = [layer for layer in batchnorms(network.trained) if _can_be_fused(layer)]
    try:
        for layer in fused:
            _set_class(layer, _FusedBatchNorm)
        yield
    finally:
        for layer in fused:
            _set_class(layer, layers.BatchNormalization)


def _set_class(layer: layers.BatchNormalization, kind: type[layers.BatchNormalization]) -> None:
    """Replaces the methods of a layer that is already part of a graph."""
    object.__setattr__(layer, "__class__", kind)


def _can_be_fused(layer: layers.BatchNormalization) -> bool:
    """Returns whether a layer is trained, is of Keras' own class, and runs on float32 channels-last maps in TensorFlow."""
    if (
        keras.backend.backend() != "tensorflow"
        or type(layer) is not layers.BatchNormalization
        or not (layer.trainable and layer.built)
    ):
        return False
    plain = not (layer.synchronized or layer.renorm) and layer.compute_dtype == layer.variable_dtype == "float32"
    return plain and layer.input_spec.ndim == 4 and layer.axis in (-1, 3) and layer.epsilon >= MIN_EPSILON


class _FusedBatchNorm(layers.BatchNormalization):  # type: ignore[misc]
    """A BatchNorm layer on maps, float32 (n, height, width, channels), that is trained by one TensorFlow operation."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalises and updates the moving statistics as Keras does."""
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
        biased = variance * ((n - 1) / n)  # TensorFlow returns the unbiased variance, Keras keeps the biased one
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, biased)):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return normalised
