"""Builds the quiz network, a first classifier for small images: one convolution, one pooling, dropout, two dense layers."""

from __future__ import annotations

import keras
from keras import layers

from crossroads.networks.network import Parts


def build(size: int) -> Parts:
    """Builds the quiz network up to its last hidden layer, for images of side `size` pixels.

    Convolution of 32 3x3 filters without padding, 2x2 max-pooling, dropout of one half, ReLU, flatten, dense 128, ReLU.
    Its input is ``x / 255 - 0.5``; its features are float32 (n, 128).
    """
    inputs = keras.Input((size, size, 3), name="images")
    x = layers.Conv2D(32, 3, padding="valid", name="conv")(inputs)
    x = layers.MaxPooling2D(2, padding="valid", name="pool")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    x = layers.ReLU(name="conv_relu")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(128, name="hidden")(x)
    x = layers.ReLU(name="hidden_relu")(x)
    return Parts(
        preprocessing=(layers.Rescaling(1 / 255, offset=-0.5, name="rescale"),),
        backbone=keras.Model(inputs, x, name="quiz_cnn"),
    )
