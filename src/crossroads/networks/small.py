"""Builds the default network for training from scratch on images of 32 to 64 px."""

from __future__ import annotations

import keras
from keras import layers

from crossroads.networks.network import Parts

MOMENTUM = 0.95
"""Momentum of BatchNorm's moving statistics. A short training has too few steps for Keras' 0.99 to settle."""

LARGEST_MAP = 4
"""Side of the largest feature map that is flattened."""


def _convolve(
    x: keras.KerasTensor, name: str, filters: int, kernel: int = 3, strides: int = 1, pool: bool = False
) -> keras.KerasTensor:
    x = layers.Conv2D(filters, kernel, strides=strides, padding="same", use_bias=False, name=name)(x)
    if pool:
        x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)
    x = layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def build(size: int) -> Parts:
    """Builds the small network for images of side `size` pixels; its features are float32 (n, 128).

    The first of its four convolutions has a stride of 2, because maps at full size cost more time than they gain in accuracy.
    Pooling comes before normalisation, which then works on a quarter of the values. Larger images are pooled until the map is at
    most 4x4: the dense layer stays small and keeps positions. The measurements are in docs/benchmarks.md.
    """
    inputs = keras.Input((size, size, 3), name="images")
    x = _convolve(inputs, "conv1", 32, kernel=5, strides=2)
    x = _convolve(x, "conv2", 64, pool=True)
    x = _convolve(x, "conv3", 128, pool=True)
    x = _convolve(x, "conv4", 128)
    while (side := x.shape[1]) > LARGEST_MAP:
        x = layers.MaxPooling2D(2, padding="same", name=f"shrink{side}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dropout(0.3, name="drop")(x)
    x = layers.Dense(128, use_bias=False, name="hidden")(x)
    x = layers.BatchNormalization(momentum=MOMENTUM, name="hidden_norm")(x)
    x = layers.ReLU(name="hidden_relu")(x)
    x = layers.Dropout(0.3, name="hidden_drop")(x)
    standardise = layers.LayerNormalization(axis=(1, 2, 3), epsilon=1e-3, center=False, scale=False, name="standardise")
    return Parts(
        preprocessing=(layers.Rescaling(1 / 255, name="rescale"), standardise),
        backbone=keras.Model(inputs, x, name="small_cnn"),
    )
