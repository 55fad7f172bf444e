"""Estimates the peak memory of a process from the size of a network, and how many images it may train on at once.

TensorFlow keeps the activations of a batch until the gradients are computed, and its allocator never returns their memory to the
system. They are the largest part of the memory of a training. A large batch is therefore split into parts whose gradients are
averaged before the weights change.

The figures are those of two cores (x86, TensorFlow with oneDNN). EfficientNet-Lite0 at 224 px has 76 MB of activations per image:

| training | images at once | peak MB |
| --- | --- | --- |
| all layers with BatchNorm, as in a warm start | 8, 16, 32 | 1,668, 2,203, 3,238 |
| frozen BatchNorm, as in finetuning | 8, 32 | 1,354, 2,181 |

A training step in parts of 8 took 7 % more processor time per image than one on 32 images (66.7 and 62 ms).
"""

from __future__ import annotations

import math

from crossroads.errors import TrainingError, option

MIB = 2**20
VALUE_BYTES = 4
"""Bytes of a float32 value."""

TRAINING_MB = 1_080.0
"""Memory of a process that trains, without weights and activations: Keras and TensorFlow, OpenVINO, and the check of the graph."""

TRAINED_BYTES = 16
"""Bytes per parameter in training: weight, gradient and the two moments of Adam."""

KEPT, KEPT_FROZEN_BATCHNORM = 0.9, 0.5
"""Fraction of the outputs of all layers that a training step keeps. With frozen BatchNorm layers, their outputs are not needed."""

ACTIVATIONS_MB = 600.0
"""Memory for the activations of a part of a batch. EfficientNet-Lite0 at 224 px then trains within 2 GB."""

LEAST_PART = 8
"""Smallest part of a batch. BatchNorm needs several images for its statistics, and smaller parts take longer."""

GRAPH_MB, STORED_BYTES, GRAPH_IMAGES = 600.0, 8, 2
"""Frozen features of a network whose inference graph does not come from Keras: memory of the process with images and features,
bytes per parameter, and images whose activations are in memory. EfficientNet-Lite0 at 224 px took 460 to 870 MB for 80 to 8,000
images."""

KERAS_MB, HELD_IMAGES = 780.0, 16
"""The same for a graph that Keras makes and checks first: 15 and 13 images for MobileNet at 96 and 224 px, and 16, 13 and 22 for
MobileNetV2, ResNet50 and SqueezeNet at 224 px."""

MULTIPLY_ADDS_PER_ACTIVATION = 100
"""Assumed number for a network that is not built yet.

small-cnn has 162, ResNet50 104, SqueezeNet 40, MobileNet 34 and MobileNetV2 14. With this high value, the estimated memory is low,
so a pretrained network is excluded only if it clearly does not fit. Once the network is built, the real number is used.
"""


def frozen_mb(parameters: int, activations: float, *, keras: bool) -> float:
    """Returns the peak memory in MiB of a run that trains a head on frozen features.

    Args:
        parameters: Number of parameters of the network.
        activations: Outputs of all layers for one image, as a number of values.
        keras: Whether Keras makes the inference graph.
    """
    fixed, images = (KERAS_MB, HELD_IMAGES) if keras else (GRAPH_MB, GRAPH_IMAGES)
    return fixed + (STORED_BYTES * parameters + VALUE_BYTES * activations * images) / MIB


def training_mb(parameters: int, activations: float, images: int, *, train_batchnorm: bool) -> float:
    """Returns the peak memory in MiB of a run that trains layers of a network.

    Args:
        parameters: Number of parameters of the network.
        activations: Outputs of all layers for one image, as a number of values.
        images: Images that it trains on at once.
        train_batchnorm: Whether its BatchNorm layers are trained. True for a network without such layers.
    """
    return TRAINING_MB + TRAINED_BYTES * parameters / MIB + images * _image_mb(activations, train_batchnorm)


def batch_parts(
    batch_size: int, parameters: int, activations: float, *, train_batchnorm: bool, limit_mb: float | None = None
) -> int:
    """Returns the number of parts into which a batch is split, so that the activations of one part fit into memory.

    Args:
        batch_size: Images per step.
        parameters: Number of parameters of the network.
        activations: Outputs of all layers for one image, as a number of values.
        train_batchnorm: Whether its BatchNorm layers are trained.
        limit_mb: Largest peak memory in MiB; None for none. A part has `LEAST_PART` images even if they do not fit.
    """
    fixed = training_mb(parameters, activations, 0, train_batchnorm=train_batchnorm)
    room = ACTIVATIONS_MB if limit_mb is None else min(ACTIVATIONS_MB, limit_mb - fixed)
    images = max(LEAST_PART, int(room / max(1e-6, _image_mb(activations, train_batchnorm))))
    return math.ceil(batch_size / images)


def part_mb(batch_size: int, parameters: int, activations: float, *, train_batchnorm: bool, limit_mb: float | None = None) -> float:
    """Returns the peak memory in MiB of a training whose batches are split by `batch_parts`. The arguments are the same."""
    parts = batch_parts(batch_size, parameters, activations, train_batchnorm=train_batchnorm, limit_mb=limit_mb)
    return training_mb(parameters, activations, math.ceil(batch_size / parts), train_batchnorm=train_batchnorm)


def over_memory(needed_mb: float, limit_mb: float, smaller: str) -> TrainingError:
    """Returns the error that a named strategy needs more memory than the user allows.

    Args:
        needed_mb: The memory that it needs, in MiB.
        limit_mb: The limit, in MiB.
        smaller: What to use instead.
    """
    return TrainingError(
        f"this strategy needs about {needed_mb:,.0f} MB of memory, more than {option('memory')} allows",
        code="over-memory",
        field="memory",
        received=f"{limit_mb:,.0f} MB",
        hint=f"allow more, or use {smaller}",
    )


def _image_mb(activations: float, train_batchnorm: bool) -> float:
    return (KEPT if train_batchnorm else KEPT_FROZEN_BATCHNORM) * VALUE_BYTES * activations / MIB
