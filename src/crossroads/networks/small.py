"""The default network for training from scratch on images of 32 to 64 px."""

from __future__ import annotations

import keras
from keras import layers

from crossroads.networks.network import Parts


def _convolve(x: keras.KerasTensor, filters: int, kernel: int, name: str, strides: int = 1) -> keras.KerasTensor:
    x = layers.Conv2D(filters, kernel, strides=strides, padding="same", use_bias=False, name=name)(x)
    x = layers.BatchNormalization(momentum=0.95, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def build(size: int) -> Parts:
    """The small network for images of side `size` pixels; features float32 (n, 128)."""
    inputs = keras.Input((size, size, 3), name="images")
    x = _convolve(inputs, 32, 5, "conv1", strides=2)
    x = _convolve(x, 64, 3, "conv2")
    x = layers.MaxPooling2D(2, name="pool2")(x)
    x = _convolve(x, 128, 3, "conv3")
    x = layers.MaxPooling2D(2, name="pool3")(x)
    x = _convolve(x, 128, 3, "conv4")
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dropout(0.3, name="drop")(x)
    x = layers.Dense(128, use_bias=False, name="hidden")(x)
    x = layers.BatchNormalization(momentum=0.95, name="hidden_norm")(x)
    x = layers.ReLU(name="hidden_relu")(x)
    x = layers.Dropout(0.3, name="hidden_drop")(x)
    standardise = layers.LayerNormalization(axis=(1, 2, 3), epsilon=1e-3, center=False, scale=False, name="standardise")
    return Parts(
        preprocessing=(layers.Rescaling(1 / 255, name="rescale"), standardise),
        backbone=keras.Model(inputs, x, name="small_cnn"),
    )
