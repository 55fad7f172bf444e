"""Estimates the time of each strategy on this machine, from multiply-adds and a quick measurement."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crossroads._runtime.machine import crowding
from crossroads.heads.large_ridge import SAMPLE_SIZE, is_large

if TYPE_CHECKING:
    from crossroads.networks.cuts import Cut

OVERHEAD = 12.0
"""Fixed seconds of a run: to build networks, to export and check the graph, to write and score the artifact. On two cores a head on
some hundred images takes 10 to 14 s."""

FROZEN_OVERHEAD = 3.0
"""The same for a head on features that are in the cache, which needs no Keras: `fit` takes 2.7 s for 398 photographs in all."""

FORWARD = 1.2
"""Seconds of a forward pass by OpenVINO, divided by those of a matrix product with as many multiply-adds. On two cores the ratio is
0.7 for MobileNetV2 at 96 px and 1.2 for ResNet50 at 224 px."""

STEP, DEPTHWISE_STEP = 4.5, 5.5
"""Seconds of a training step by Keras on a CPU, divided by those of a forward pass by OpenVINO. On two cores: ResNet50 at 224
px 4.6, at 96 px 4.4, SqueezeNet 4.1. With depthwise convolutions, at 96 px: EfficientNetB0 4.0, MobileNet 4.5, MobileNetV2 8.2;
the constant is their mean, because a race stops what takes longer. ConvNeXt's depthwise convolutions of 7 by 7 are slow in
TensorFlow: it takes 18."""

MANY_STEPS, LARGE_STEP_SECONDS = 0.81, 0.1
"""Seconds per image in a long training, where Keras runs eight steps in one call, divided by those in a short one: small-cnn at
32 px 0.56 and 0.70 ms. Steps that take more seconds than the second number run one by one (`training.batches.LARGE_STEP`)."""

VALIDATING = 0.4
"""Seconds per validation image, divided by seconds per training image. MobileNet at 96 px takes 2.2 and 5.7 ms."""

ACTIVATION = 20
"""Multiply-adds that take as long in a training step as one activation, which is written and read several times. MobileNet at 96 px
with frozen BatchNorm, cut at `conv_pw_12`, `conv_pw_5` and `conv_dw_2`, takes 4.2, 2.3 and 1.0 ms per image for 95, 37 and 8
million multiply-adds and 3.1, 2.3 and 1.2 million activations: 0.027 ns per multiply-add and 0.55 ns per activation."""

TRACE = 8.0
"""Seconds until a pretrained network of the usual size takes its first step."""

HEAD_STEPS = 350
"""Steps of L-BFGS for a head over all penalties. Each reads the principal components twice."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The speed of this machine.

    Attributes:
        products: Multiply-adds per second of a matrix product in float32.
        crowding: How many times longer fixed work takes because other processes use the cores.
    """

    products: float
    crowding: float = 1.0


def measure_machine(size: int = 768, times: int = 3) -> Machine:
    """Times a matrix product for a few milliseconds."""
    matrix = np.random.default_rng(0).random((size, size), np.float32)
    matrix @ matrix

    def seconds() -> float:
        began = time.perf_counter()
        matrix @ matrix
        return time.perf_counter() - began

    return Machine(size**3 / min(seconds() for _ in range(times)), crowding())


def forward_seconds(multiply_adds: int, machine: Machine) -> float:
    """Returns the seconds per image in a frozen part."""
    return FORWARD * multiply_adds / machine.products


def step_seconds(multiply_adds: int, machine: Machine, *, depthwise: bool) -> float:
    """Returns the seconds per image in a training step."""
    return (DEPTHWISE_STEP if depthwise else STEP) * forward_seconds(multiply_adds, machine)


def step_fraction(cut: Cut, end: Cut) -> float:
    """Returns the time of a training step up to a cut, as a fraction of that up to a later cut."""
    part, whole = (each.multiply_adds + ACTIVATION * each.activations for each in (cut, end))
    return part / whole


def whole_step_seconds(short: float, grouped: bool, images: int, batch_size: int) -> float:
    """Returns the seconds per image in a training on `images`, from those in a short training.

    Args:
        short: Seconds per image in the short training.
        grouped: Whether Keras ran several of its steps in one call.
        images: Images of the whole training.
        batch_size: Its batch size.
    """
    from crossroads.training.batches import STEPS_PER_EXECUTION, steps_per_epoch  # loads Keras

    will_be = steps_per_epoch(images, batch_size) % STEPS_PER_EXECUTION == 0 and short * batch_size < LARGE_STEP_SECONDS
    return short * (MANY_STEPS if will_be and not grouped else 1.0)


def epoch_seconds(per_image: float, images: int, validation_images: float) -> float:
    """Returns the seconds of an epoch, from the seconds per image in a training step."""
    return per_image * (images + VALIDATING * validation_images)


def head_seconds(n: int, d: int, classes: int, machine: Machine) -> float:
    """Returns the seconds to solve a linear head on `n` images with `d` features: inner products, factorisation, both solvers."""
    small = min(n, d)
    if is_large(n, d):
        work = n * d * d + 3 * (d**3 / 3 + SAMPLE_SIZE * d * d) + 10 * SAMPLE_SIZE**3
        return 3 * work / machine.products
    axes = n * d * small + 10 * small**3
    ridge = 17 * n * small * classes
    logistic = HEAD_STEPS * 2 * n * small * classes
    return (3 * axes + 3 * ridge + 6 * logistic) / machine.products


def format_seconds(seconds: float) -> str:
    """Formats a number of seconds for messages."""
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}"
