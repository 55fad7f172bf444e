"""Builds EfficientNet-Lite0, -1 and -2: EfficientNet without channel attention, with ReLU6 in place of swish."""

from __future__ import annotations

import keras
from keras import layers

from crossroads.networks.efficientnet_lite_plan import EPSILON, STEM, TOP, Block, blocks
from crossroads.networks.network import Parts
from crossroads.networks.preprocessing import layers_of


def build_lite0(size: int) -> Parts:
    """Builds EfficientNet-Lite0 for images of side `size` pixels; its features are float32 (n, h, w, 1280)."""
    return _parts(0, size)


def build_lite1(size: int) -> Parts:
    """Builds EfficientNet-Lite1, which is deeper than Lite0, for images of side `size` pixels; features float32 (n, h, w, 1280)."""
    return _parts(1, size)


def build_lite2(size: int) -> Parts:
    """Builds EfficientNet-Lite2, which is deeper and wider, for images of side `size` pixels; features float32 (n, h, w, 1280)."""
    return _parts(2, size)


def _parts(number: int, size: int) -> Parts:
    """Builds one size as TensorFlow's reference does, with convolutions padded like TensorFlow's "same"."""
    images = keras.Input((size, size, 3), name="images")
    x = layers.Conv2D(STEM, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(images)
    x = _normalised(x, "stem_bn", "stem_activation")
    for block in blocks(number):
        x = _block(x, block)
    x = layers.Conv2D(TOP, 1, use_bias=False, name="top_conv")(x)
    x = _normalised(x, "top_bn", "top_activation")
    return Parts(preprocessing=layers_of("lite"), backbone=keras.Model(images, x, name=f"efficientnet_lite{number}"))


def _block(x: keras.KerasTensor, block: Block) -> keras.KerasTensor:
    before, name = x, block.name
    if block.expanded != block.inputs:
        x = layers.Conv2D(block.expanded, 1, use_bias=False, name=f"{name}_expand_conv")(x)
        x = _normalised(x, f"{name}_expand_bn", f"{name}_expand_activation")
    depthwise = layers.DepthwiseConv2D(block.kernel, strides=block.stride, padding="same", use_bias=False, name=f"{name}_dwconv")
    x = _normalised(depthwise(x), f"{name}_bn", f"{name}_activation")
    x = layers.Conv2D(block.channels, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = _normalised(x, f"{name}_project_bn")
    return layers.Add(name=f"{name}_add")([x, before]) if block.residual else x


def _normalised(x: keras.KerasTensor, name: str, activation: str | None = None) -> keras.KerasTensor:
    x = layers.BatchNormalization(epsilon=EPSILON, name=name)(x)
    return layers.ReLU(6.0, name=activation)(x) if activation else x
