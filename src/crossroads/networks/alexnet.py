"""Builds AlexNet in two versions: the original with grouped convolutions, and torchvision's single tower."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

from crossroads.networks.network import Parts
from crossroads.networks.preprocessing import layers_of

RADIUS, ALPHA = 2, 2e-5
"""Local response normalisation: number of channels on each side, and factor of the sum of squares. Caffe multiplies the mean of the
five squares by its alpha of 1e-4, so their sum is multiplied by a fifth of it."""


def build(size: int) -> Parts:
    """Builds AlexNet up to the ReLU after fc7, for images of side `size` pixels; its features are float32 (n, 4096).

    It has five convolutions, then fc6 and fc7 without dropout (Krizhevsky et al. 2012, https://doi.org/10.1145/3065386, in the
    order of Caffe's bvlc_alexnet). The second, fourth and fifth convolution have two groups. Local response normalisation follows
    the first two. The first convolution is padded like TensorFlow's "same", as programs for ``bvlc_alexnet.npy`` do. The design
    size is 227 px. The weights of fc6 fit maps of 6x6, that is, images of 217 to 248 px. Each group is a layer: ``conv2_1`` and
    ``conv2_2`` take one half of the channels each, and ``conv2`` concatenates their outputs.
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
    """Builds torchvision's AlexNet up to ``classifier.5``, for images of side `size` pixels; its features are float32 (n, 4096).

    It has one tower and no local response normalisation (Krizhevsky 2014, https://arxiv.org/abs/1404.5997). As in torchvision,
    maps larger than 6x6 (images of 255 px and more) are averaged to 6x6 before fc6. Images below 223 px give smaller maps, which
    the pretrained fc6 does not fit. Dropout is left out.
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
    """Adds fc6 and fc7 with 4096 units each."""
    x = layers.Flatten(name="flatten")(x)
    for number in (6, 7):
        x = layers.Dense(4096, name=f"fc{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(x)
    return x


def _grouped(x: keras.KerasTensor, filters: int, kernel: int, name: str) -> keras.KerasTensor:
    """Adds a convolution in two groups by split, convolve, concatenate. TensorFlow's grouped convolution is slow on a CPU."""
    halves = ops.split(x, 2, axis=-1)
    outputs = [
        layers.Conv2D(filters // 2, kernel, padding="same", name=f"{name}_{number}")(half)
        for number, half in enumerate(halves, start=1)
    ]
    return layers.Concatenate(name=name)(outputs)


def _local_response(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Adds ``x / (1 + ALPHA * s) ** 0.75``, where s sums the squares of a channel and of `RADIUS` channels on each side.

    The formula is in section 3.3 of Krizhevsky et al. 2012. The operations are in a nested model, so that they count as one layer.
    A 1x1 convolution whose kernel has ones near the diagonal sums the neighbours. Five shifted slices would copy every block of 16
    channels in OpenVINO. With the convolution, the whole network runs at 104 images/s instead of 70 (123 without normalisation).
    Two square roots take half the time of one power.
    """
    maps = keras.Input(x.shape[1:])
    channel = np.arange(x.shape[-1])
    near = (np.abs(channel[:, None] - channel) <= RADIUS).astype("float32")
    total = ops.conv(ops.square(maps), near[None, None], padding="valid")
    root = ops.rsqrt(1 + ALPHA * total)
    return keras.Model(maps, maps * (root * ops.sqrt(root)), name=name)(x)
