"""EfficientNet-Lite0, -1 and -2: EfficientNet without channel attention, with ReLU6 in place of swish."""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
from keras import layers

from crossroads.networks.network import Parts
from crossroads.networks.preprocessing import layers_of


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks with the same number of output channels.

    Attributes:
        repeats: Number of blocks of Lite0.
        kernel: Side of the depthwise kernels.
        stride: Stride of the first block; the others have stride 1.
        expansion: Channels within a block for each channel of its input.
        channels: Output channels of Lite0.
    """

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
"""The stages of EfficientNet-B0, table 1 of Tan and Le 2019."""

STEM, TOP = 32, 1280
"""Channels of the first and the last convolution, which no size scales."""


def build_lite0(size: int) -> Parts:
    """Builds EfficientNet-Lite0 for images of side `size` pixels; its features are float32 (n, h, w, 1280)."""
    return _parts(size, width=1.0, depth=1.0, name="efficientnet_lite0")


def build_lite1(size: int) -> Parts:
    """Builds EfficientNet-Lite1, which is deeper than Lite0, for images of side `size` pixels; features float32 (n, h, w, 1280)."""
    return _parts(size, width=1.0, depth=1.1, name="efficientnet_lite1")


def build_lite2(size: int) -> Parts:
    """Builds EfficientNet-Lite2, which is deeper and wider, for images of side `size` pixels; features float32 (n, h, w, 1280)."""
    return _parts(size, width=1.1, depth=1.2, name="efficientnet_lite2")


def _parts(size: int, *, width: float, depth: float, name: str) -> Parts:
    """Builds one size as TensorFlow's reference does (tensorflow/tpu, ``efficientnet/lite``).

    Convolutions are padded like TensorFlow's "same". The first and the last stage keep their number of blocks. Layers have the
    names of EfficientNet in `keras.applications`.
    """
    images = keras.Input((size, size, 3), name="images")
    x = layers.Conv2D(STEM, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(images)
    x = _normalised(x, "stem_bn", "stem_activation")
    for number, stage in enumerate(STAGES, start=1):
        scaled = stage.repeats if number in (1, len(STAGES)) else math.ceil(stage.repeats * depth)
        for index in range(scaled):
            x = _block(x, stage, _channels(stage.channels * width), index, f"block{number}{chr(ord('a') + index)}")
    x = layers.Conv2D(TOP, 1, use_bias=False, name="top_conv")(x)
    x = _normalised(x, "top_bn", "top_activation")
    return Parts(preprocessing=layers_of("lite"), backbone=keras.Model(images, x, name=name))


def _channels(scaled: float) -> int:
    """Rounds to a multiple of 8, and up if more than a tenth would be lost."""
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _block(x: keras.KerasTensor, stage: Stage, channels: int, index: int, name: str) -> keras.KerasTensor:
    """Adds an inverted residual block (Sandler et al. 2018, https://arxiv.org/abs/1801.04381)."""
    before, stride = x, stage.stride if index == 0 else 1
    if stage.expansion > 1:
        x = layers.Conv2D(x.shape[-1] * stage.expansion, 1, use_bias=False, name=f"{name}_expand_conv")(x)
        x = _normalised(x, f"{name}_expand_bn", f"{name}_expand_activation")
    x = layers.DepthwiseConv2D(stage.kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_dwconv")(x)
    x = _normalised(x, f"{name}_bn", f"{name}_activation")
    x = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = _normalised(x, f"{name}_project_bn")
    return layers.Add(name=f"{name}_add")([x, before]) if index else x


def _normalised(x: keras.KerasTensor, name: str, activation: str | None = None) -> keras.KerasTensor:
    x = layers.BatchNormalization(epsilon=1e-3, name=name)(x)
    return layers.ReLU(6.0, name=activation)(x) if activation else x
