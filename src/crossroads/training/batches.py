"""Creates training batches. Batch b of epoch e depends only on the seed, e and b, so training can resume at any epoch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossroads._runtime.process import release_pages
from crossroads.data.augmentation import draw_transforms, generator_for
from crossroads.features.arrays import Indexable
from crossroads.strategies import Phase

ORDER, AUGMENTATION, VIEWS = 0, 1, 2
"""Purposes of the random number streams of an epoch."""

STEPS_PER_EXECUTION = 8
"""Steps that Keras runs per call in a long epoch, so that it waits less often for Python. `small-cnn` with batches of 64 trains
2,150 images/s instead of 1,740 (medians of five runs on a busy machine; the best runs differ by 4 %)."""

LARGE_STEP = 1_500_000_000
"""Multiply-adds of a batch above which Keras runs one step per call on a CPU, because the end of a budget is noticed only between
calls. Such a step takes more than a tenth of a second on two cores, and the calls cost it nothing: MobileNet at 96 px, with 3.3e9
per batch, takes 529 ms of processor time per step with one step per call and 530 ms with eight; `small-cnn` with 0.8e9 takes 66
and 64 ms."""

MAX_INFERENCE_BATCH, MIN_INFERENCE_BATCH, INFERENCE_BATCH_BYTES = 256, 8, 7 << 20
"""Maximum and minimum batch size for inference, and the bytes of input per batch that decide between them. The memory of the layers
grows with the input: MobileNetV2 took 5.5 GB for 256 images of 224 px. Batches have 256 images of 32 px, or 66 images of 96 px."""


RELEASE_BYTES = 16 << 20
"""After this many bytes read, the pages of inputs in a file are released, so that they do not count as memory of this process."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledData:
    """Inputs of training or validation, with their labels.

    Attributes:
        inputs: Images, uint8 (n, size, size, 3) RGB; or their features, float32 (views x n, ...), with view v of image i in row
            v x n + i. In memory or read on demand.
        labels: int32 (n,), class indices.
        views: Augmented versions per image.
        groups: Integers (n,), the group of each image, such as the frames of one object. None if the images are independent.
    """

    inputs: Indexable
    labels: NDArray[np.int32]
    views: int = 1
    groups: NDArray[np.integer] | None = None

    def __len__(self) -> int:
        return len(self.labels)


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Returns the number of batches per epoch. They hold all n images, and the sizes of two batches differ by at most one.

    No batch exceeds `batch_size`. A large number of batches is rounded up to a multiple of `STEPS_PER_EXECUTION`, unless a batch
    would then be empty.
    """
    steps = -(-n // batch_size)
    rounded = -(-steps // STEPS_PER_EXECUTION) * STEPS_PER_EXECUTION
    return steps if steps < 8 * STEPS_PER_EXECUTION or rounded > n else rounded


def steps_per_call(steps: int, multiply_adds: int) -> int:
    """Returns the number of steps that Keras runs per call.

    It does not depend on the measured speed, so that a resumed training runs the same graph.

    Args:
        steps: Steps of an epoch.
        multiply_adds: Multiply-adds of a forward pass of one batch; 0 on a GPU.
    """
    return 1 if steps % STEPS_PER_EXECUTION or multiply_adds > LARGE_STEP else STEPS_PER_EXECUTION


def parts_per_epoch(n: int, phase: Phase) -> int:
    """Returns the number of parts of batches per epoch. They hold all n images, and their sizes differ by at most one."""
    steps = steps_per_epoch(n, phase.batch_size)
    return steps * min(phase.parts, n // steps)


def inference_batch_size(inputs: Indexable) -> int:
    """Returns the batch size for inference, by the bytes of one input as float32."""
    row_bytes = 4 * math.prod(inputs.shape[1:])
    return min(MAX_INFERENCE_BATCH, max(MIN_INFERENCE_BATCH, INFERENCE_BATCH_BYTES // row_bytes))


def class_weights(labels: NDArray[np.int32], classes: int, kind: str) -> NDArray[np.float32] | None:
    """Returns scikit-learn's ``balanced`` class weights, float32 (classes,), 0 for a class without images; None for no weights."""
    if kind == "none":
        return None
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    weights = np.zeros(classes, np.float32)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights


def one_hot(labels: NDArray[np.int32], classes: int) -> NDArray[np.float32]:
    """Returns float32 (n, classes), 1 in the column of each label and 0 elsewhere."""
    targets = np.zeros((len(labels), classes), np.float32)
    targets[np.arange(len(labels)), labels] = 1
    return targets


def batches(data: LabelledData, phase: Phase, classes: int, start: int) -> Iterator[tuple[object, ...]]:
    """Yields batches endlessly, beginning with epoch `start`, counted from 0. Each epoch has each image once, in one of its views.

    A batch that the phase splits comes in its parts.

    Yields:
        ``(inputs, targets)`` or ``(inputs, targets, weights)``. Inputs are uint8 (b, s, s, 3) or float32 (b, ...), or a tuple that
        also has the maps and colours for `Augment`. Targets are int32 (b,), or float32 (b, classes) with label smoothing.
    """
    n, parts = len(data), parts_per_epoch(len(data), phase)
    weights = class_weights(data.labels, classes, phase.class_weights)
    augmentation, size, read = phase.augmentation, data.inputs.shape[1], 0
    for epoch in itertools.count(start):
        order = generator_for(phase.seed, epoch, ORDER).permutation(n)
        views = generator_for(phase.seed, epoch, VIEWS).integers(0, data.views, n) if data.views > 1 else np.zeros(n, np.int64)
        drawn = (
            draw_transforms(augmentation, size, n, generator_for(phase.seed, epoch, AUGMENTATION)) if augmentation.active else ()
        )
        for chosen in np.array_split(order, parts):
            labels = data.labels[chosen]
            inputs = [data.inputs[views[chosen] * n + chosen], *(parameters[chosen] for parameters in drawn)]
            read += inputs[0].nbytes
            if read > RELEASE_BYTES:
                read = 0
                release_pages(data.inputs)
            target: object = one_hot(labels, classes) if phase.label_smoothing else labels
            weight = None if weights is None else weights[labels]
            batch = inputs[0] if len(inputs) == 1 else tuple(inputs)
            yield (batch, target) if weight is None else (batch, target, weight)
