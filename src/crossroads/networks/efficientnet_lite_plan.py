"""Plans the layers of EfficientNet-Lite0, -1 and -2, from which both the Keras network and the inference graph are built."""

from __future__ import annotations

import math
from dataclasses import dataclass


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


@dataclass(frozen=True, slots=True)
class Block:
    """An inverted residual block (Sandler et al. 2018, https://arxiv.org/abs/1801.04381).

    Attributes:
        name: Beginning of the names of its layers, which are those of EfficientNet in `keras.applications`.
        inputs: Channels of its input.
        expanded: Channels of its depthwise convolution; the same as `inputs` if there is no convolution before it.
        channels: Channels of its output.
        kernel: Side of the depthwise kernels.
        stride: Stride of the depthwise convolution.
        residual: Whether its input is added to its output.
    """

    name: str
    inputs: int
    expanded: int
    channels: int
    kernel: int
    stride: int
    residual: bool


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

EPSILON = 1e-3
"""The epsilon of every BatchNorm layer."""

MULTIPLIERS = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2))
"""Multipliers of width and depth of Lite0, -1 and -2 (tensorflow/tpu, ``efficientnet/lite``)."""


def blocks(number: int) -> tuple[Block, ...]:
    """Returns the blocks of EfficientNet-Lite0, -1 or -2. The first and the last stage keep their number of blocks."""
    width, depth = MULTIPLIERS[number]
    made: list[Block] = []
    inputs = STEM
    for place, stage in enumerate(STAGES, start=1):
        repeats = stage.repeats if place in (1, len(STAGES)) else math.ceil(stage.repeats * depth)
        channels = _rounded(stage.channels * width)
        for index in range(repeats):
            name, stride = f"block{place}{chr(ord('a') + index)}", stage.stride if index == 0 else 1
            made.append(Block(name, inputs, inputs * stage.expansion, channels, stage.kernel, stride, residual=index > 0))
            inputs = channels
    return tuple(made)


def _rounded(channels: float) -> int:
    """Rounds to a multiple of 8, and up if more than a tenth would be lost."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
