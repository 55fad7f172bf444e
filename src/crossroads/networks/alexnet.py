"""AlexNet, as the notes' second program uses it, and the single tower of torchvision."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

from crossroads.networks.network import Parts
from crossroads.networks.preprocessing import layers_of

RADIUS, ALPHA = 2, 2e-5
"""Of the local response normalisation: channels on each side, weight of the sum of squares. Caffe's alpha of 1e-4 is meant for the
mean of the five squares, hence a fifth of it here."""


def build(size: int) -> Parts:
    """AlexNet of the notes up to the ReLU after fc7, for images of side `size` pixels; features float32 (n, 4096).

    Five convolutions, the second, fourth and fifth in two groups, local response normalisation after the first two, then fc6 and
    fc7, without dropout (Krizhevsky et al. 2012, https://doi.org/10.1145/3065386, in the order of Caffe's bvlc_alexnet). The first
    convolution is padded as TensorFlow's "same" pads, which is what the notes' program does with the file ``bvlc_alexnet.npy``; it
    is made for 227 px, and its fc6 fits maps of 6x6, images of 217 to 248 px. A group is a layer of its own: ``conv2_1`` and
    ``conv2_2`` take the two halves of the channels, and ``conv2`` joins what they find.
    """
    images = keras.Input((size, size, 3), name="images")
    x = layers.Conv2D(96, 11, strides=4, padding="same", name="conv1")(images)
    x = layers.ReLU(name="relu1")(x)
    x = _local_response(x, "norm1")
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    x = _grouped(x, 256, 5, "conv2")
    x = layers.ReLU(name="relu2")(x)
    x = _local_response(x, "norm2")
    x = layers.MaxPooling2D(3, strides=2, name="pool2")(x)
    x = layers.Conv2D(384, 3, padding="same", name="conv3")(x)
    x = layers.ReLU(name="relu3")(x)
    x = _grouped(x, 384, 3, "conv4")
    x = layers.ReLU(name="relu4")(x)
    x = _grouped(x, 256, 3, "conv5")
    x = layers.ReLU(name="relu5")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool5")(x)
    return Parts(preprocessing=layers_of("bvlc"), backbone=keras.Model(images, _dense(x), name="alexnet"))


def build_torchvision(size: int) -> Parts:
    """Torchvision's AlexNet up to ``classifier.5``, for images of side `size` pixels; features float32 (n, 4096).

    One tower without local response normalisation (Krizhevsky 2014, https://arxiv.org/abs/1404.5997). As in torchvision, larger
    maps than 6x6, those of images from 255 px on, are averaged to 6x6 before fc6. Smaller ones, below 223 px, stay as they are, and
    torchvision's fc6 does not fit. Dropout is left out.
    """
    images = keras.Input((size, size, 3), name="images")
    x = layers.ZeroPadding2D(2, name="pad1")(images)
    x = layers.Conv2D(64, 11, strides=4, name="conv1")(x)
    x = layers.ReLU(name="relu1")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    x = layers.Conv2D(192, 5, padding="same", name="conv2")(x)
    x = layers.ReLU(name="relu2")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool2")(x)
    for number, filters in ((3, 384), (4, 256), (5, 256)):
        x = layers.Conv2D(filters, 3, padding="same", name=f"conv{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool5")(x)
    if x.shape[1] > 6:
        x = layers.AdaptiveAveragePooling2D(6, name="average")(x)
    return Parts(preprocessing=layers_of("torch"), backbone=keras.Model(images, _dense(x), name="alexnet_torchvision"))


def _dense(x: keras.KerasTensor) -> keras.KerasTensor:
    """fc6 and fc7 of 4096 units each."""
    x = layers.Flatten(name="flatten")(x)
    for number in (6, 7):
        x = layers.Dense(4096, name=f"fc{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(x)
    return x


def _grouped(x: keras.KerasTensor, filters: int, kernel: int, name: str) -> keras.KerasTensor:
    """A convolution in two groups. Split, convolve, concatenate: TensorFlow's own grouped convolution is slow on a CPU."""
    halves = ops.split(x, 2, axis=-1)
    found = [
        layers.Conv2D(filters // 2, kernel, padding="same", name=f"{name}_{number}")(half)
        for number, half in enumerate(halves, start=1)
    ]
    return layers.Concatenate(name=name)(found)


def _local_response(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """``x / (1 + ALPHA * s) ** 0.75`` with s the sum of squares over a channel and `RADIUS` channels on each side.

    Section 3.3 of Krizhevsky et al. 2012. A model within the model, so that it counts as one layer. OpenVINO has the channels of a
    convolution in blocks of 16, where a 1x1 convolution with ones near the diagonal adds up neighbours at once and five slices each
    take a copy: 104 against 70 images/s for the whole network, and 123 without any normalisation. The two roots take half the time
    of a power.
    """
    maps = keras.Input(x.shape[1:])
    channel = np.arange(x.shape[-1])
    near = (np.abs(channel[:, None] - channel) <= RADIUS).astype("float32")
    total = ops.conv(ops.square(maps), near[None, None], padding="valid")
    root = ops.rsqrt(1 + ALPHA * total)
    return keras.Model(maps, maps * (root * ops.sqrt(root)), name=name)(x)
