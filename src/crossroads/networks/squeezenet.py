"""Builds SqueezeNet 1.1 in two versions: keras-squeezenet's and torchvision's."""

from __future__ import annotations

import keras
from keras import layers

from crossroads.networks.network import Parts
from crossroads.networks.preprocessing import layers_of

FIRES = ((2, 16, 64), (3, 16, 64), (4, 32, 128), (5, 32, 128), (6, 48, 192), (7, 48, 192), (8, 64, 256), (9, 64, 256))
"""The fire modules: the number, the squeeze channels, and the channels of each of the two expansions."""


def build(size: int) -> Parts:
    """Builds SqueezeNet 1.1 for the weights of keras-squeezenet, for images of side `size` pixels; features float32 (n, h, w, 512).

    It has eight fire modules (Iandola et al. 2016, https://arxiv.org/abs/1602.07360). Layers have the names of the weight file
    with ``_`` for ``/``, which Keras 3 does not allow in a name.
    """
    return Parts(preprocessing=layers_of("caffe"), backbone=_network(size, ceil=False, name="squeezenet"))


def build_torchvision(size: int) -> Parts:
    """Builds torchvision's SqueezeNet 1.1 up to ``features.12``, for images of side `size` pixels; features float32 (n, h, w, 512).

    It differs in its pooling: a window may extend past the right and the bottom edge (PyTorch's ``ceil_mode``).
    """
    return Parts(preprocessing=layers_of("torch"), backbone=_network(size, ceil=True, name="squeezenet_torchvision"))


def _network(size: int, *, ceil: bool, name: str) -> keras.Model:
    images = keras.Input((size, size, 3), name="images")
    x = layers.Conv2D(64, 3, strides=2, name="conv1")(images)
    x = layers.ReLU(name="relu_conv1")(x)
    x = _pool(x, ceil, "pool1")
    for number, squeezed, expanded in FIRES:
        x = _fire(x, f"fire{number}", squeezed, expanded)
        if number in (3, 5):
            x = _pool(x, ceil, f"pool{number}")
    return keras.Model(images, x, name=name)


def _pool(x: keras.KerasTensor, ceil: bool, name: str) -> keras.KerasTensor:
    """Adds 3x3 max pooling with stride 2. "same" pads even sides at the end only, like ``ceil_mode``; odd sides need none."""
    overhangs = ceil and x.shape[1] % 2 == 0
    return layers.MaxPooling2D(3, strides=2, padding="same" if overhangs else "valid", name=name)(x)


def _fire(x: keras.KerasTensor, name: str, squeezed: int, expanded: int) -> keras.KerasTensor:
    x = layers.Conv2D(squeezed, 1, name=f"{name}_squeeze1x1")(x)
    x = layers.ReLU(name=f"{name}_relu_squeeze1x1")(x)
    one = layers.Conv2D(expanded, 1, name=f"{name}_expand1x1")(x)
    three = layers.Conv2D(expanded, 3, padding="same", name=f"{name}_expand3x3")(x)
    one = layers.ReLU(name=f"{name}_relu_expand1x1")(one)
    three = layers.ReLU(name=f"{name}_relu_expand3x3")(three)
    return layers.Concatenate(name=f"{name}_concat")([one, three])
