"""What each strategy will take on this machine: seconds and memory, from multiply-adds and what was measured a moment ago."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crossroads.heads.large_ridge import SAMPLE_SIZE, is_large

if TYPE_CHECKING:
    from crossroads.networks.cuts import Cut

OVERHEAD = 12.0
"""Seconds of a run beside its work: networks are built, the graph is exported and checked, the artifact written and scored. On two
cores 10 to 14 s for a head on some hundred images."""

FORWARD = 1.2
"""Seconds of a forward pass by OpenVINO over those of as many multiply-adds in a matrix product. On two cores MobileNetV2 at 96 px
runs at 0.7 and ResNet50 at 224 px at 1.2 times the speed of the product."""

STEP, DEPTHWISE_STEP = 4.5, 5.5
"""Seconds of a training step by Keras on a CPU over those of a forward pass by OpenVINO. On two cores: ResNet50 at 224 px 4.6, at
96 px 4.4, SqueezeNet 4.1; with depthwise convolutions, at 96 px, EfficientNetB0 4.0, MobileNet 4.5, MobileNetV2 8.2: the mean of
these, since a race cuts off what takes longer. ConvNeXt, with depthwise convolutions of 7 by 7, takes 18: TensorFlow does those
slowly."""

MANY_STEPS = 0.81
"""Seconds of an image in a training of many steps, of which Keras runs eight in one call, over those in a short one: MobileNet at
96 px 5.7 and 7.0 ms, small-cnn at 32 px 0.56 and 0.70 ms."""

VALIDATING = 0.4
"""Seconds of an image that is validated by Keras over those of one that is trained on: MobileNet at 96 px, 2.2 and 5.7 ms."""

ACTIVATION = 20
"""Multiply-adds that take as long, in a training step, as one number that a layer gives out: these are written and read several
times. MobileNet at 96 px with BatchNorm frozen, cut at `conv_pw_12`, `conv_pw_5` and `conv_dw_2`, takes 4.2, 2.3 and 1.0 ms per
image for 95, 37 and 8 million multiply-adds and 3.1, 2.3 and 1.2 million such numbers: 0.027 ns for the ones, 0.55 ns for the
others."""

TRACE = 8.0
"""Seconds until a pretrained network of the usual size takes its first step."""

HEAD_STEPS = 350
"""Steps of L-BFGS that a head takes over all penalties; each reads the turned features twice."""

PROCESS_MB, BYTES_PER_PARAMETER = 780.0, 16
"""Memory of a process that has loaded Keras and OpenVINO; weights, gradients and the two moments of Adam, float32 each."""

HELD = 16
"""Images whose activations are held at once where nothing is trained, as graph, check and calibration come together: MobileNet at
96 and 224 px holds 15 and 13, MobileNetV2, ResNet50 and SqueezeNet at 224 px 16, 13 and 22. A training holds those of its batch: a
warm start of MobileNet in batches of 32 holds 28."""

MULTIPLY_ADDS_PER_ACTIVATION = 100
"""Of a network that is not built: small-cnn has 162, ResNet50 104, SqueezeNet 40, MobileNet 34, MobileNetV2 14. Of a pretrained one
that is asked for only to leave out what memory cannot hold; it is asked again once it is built."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine does.

    Attributes:
        products: Multiply-adds a second of a matrix product in float32.
    """

    products: float


def measured_machine(size: int = 768, times: int = 3) -> Machine:
    """Time a matrix product: a few milliseconds."""
    a = np.random.default_rng(0).random((size, size), np.float32)
    a @ a
    best = min(_seconds(a) for _ in range(times))
    return Machine(size**3 / best)


def forward_seconds(multiply_adds: int, machine: Machine) -> float:
    """Seconds of one image through a frozen part."""
    return FORWARD * multiply_adds / machine.products


def step_seconds(multiply_adds: int, machine: Machine, *, depthwise: bool) -> float:
    """Seconds of one image in a training step."""
    return (DEPTHWISE_STEP if depthwise else STEP) * forward_seconds(multiply_adds, machine)


def step_fraction(cut: Cut, end: Cut) -> float:
    """What a training step up to a cut takes of one up to a later cut, the end of what was measured."""
    part, whole = (one.multiply_adds + ACTIVATION * one.activations for one in (cut, end))
    return part / whole


def measured_step(short: float, together: bool, images: int, batch_size: int) -> float:
    """Seconds of an image in a training on `images`, from those of a short one whose steps Keras ran several `together`, or not."""
    from crossroads.training.batches import STEPS_PER_EXECUTION, steps_per_epoch  # loads Keras

    return short * (MANY_STEPS if not together and steps_per_epoch(images, batch_size) % STEPS_PER_EXECUTION == 0 else 1.0)


def epoch_seconds(each: float, images: int, validated: float) -> float:
    """Seconds of an epoch whose steps take `each` for an image."""
    return each * (images + VALIDATING * validated)


def head_seconds(n: int, d: int, classes: int, machine: Machine) -> float:
    """Seconds to solve a linear head on `n` images with `d` features: inner products, their axes or factor, the two solvers."""
    small = min(n, d)
    if is_large(n, d):
        work = n * d * d + 3 * (d**3 / 3 + SAMPLE_SIZE * d * d) + 10 * SAMPLE_SIZE**3
        return 3 * work / machine.products
    axes = n * d * small + 10 * small**3
    ridge = 17 * n * small * classes
    logistic = HEAD_STEPS * 2 * n * small * classes
    return (3 * axes + 3 * ridge + 6 * logistic) / machine.products


def memory_mb(parameters: int, activations: float, batch_size: int, *, trained: bool) -> float:
    """MiB that a run holds at its peak, to about a fifth.

    Args:
        parameters: Of the network.
        activations: Numbers that its layers give out for one image.
        batch_size: Images a step.
        trained: Whether it is trained, or runs as it is.
    """
    weights = parameters * (BYTES_PER_PARAMETER if trained else 8)
    held = max(HELD, batch_size) if trained else HELD
    return PROCESS_MB + (weights + 4 * activations * held) / 2**20


def _seconds(a: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> float:
    began = time.perf_counter()
    a @ a
    return time.perf_counter() - began


def format_seconds(seconds: float) -> str:
    """A number of seconds for people to read."""
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}"
