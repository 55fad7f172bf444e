"""The endless row of training batches: batch b of epoch e depends on the seed, e and b alone, so a run can be taken up anywhere."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crossroads.data.augmentation import draw_transforms, generator_for
from crossroads.recipe import Augmentation
from crossroads.strategies import Phase
from crossroads.training.mixing import mixed_targets, others, pairs

ORDER, MOVES, VIEWS, MIXES = 0, 1, 2, 3

TOGETHER = 8
"""Steps that Keras runs in one call where an epoch has many: it waits less often for Python. Measured on `small-cnn` with batches
of 64: 2,150 images/s against 1,740, medians of five turns on a busy machine; 4 % between the best turns."""


AT_ONCE, FEWEST_AT_ONCE, BYTES_AT_ONCE = 256, 8, 7 << 20
"""Rows that run through a network at a time without training: at most, at least, and the bytes of input that they may take between.

What the layers hold grows with the input: MobileNetV2 took 5.5 GB for 256 images of 224 px. Now 32 px run by 256, 96 px by 66."""


class Rows(Protocol):
    """An array, a memory map, or rows of the feature cache: what can be asked for its shape and for some of its rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""
        ...

    def __getitem__(self, rows: Any, /) -> Any:
        """The rows of a slice or of an array of indices."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """What training takes in, with its labels.

    Attributes:
        inputs: Images, uint8 (n, size, size, 3) RGB, or features of them, float32 (views x n, ...): row v x n + i is view v of
            image i. In memory or read as they are asked for.
        labels: int32 (n,), indices of classes.
        views: Versions of each image.
        groups: Integers (n,) of images that belong together, such as frames of one object; None where each stands alone.
    """

    inputs: Rows
    labels: NDArray[np.int32]
    views: int = 1
    groups: NDArray[np.integer] | None = None

    def __len__(self) -> int:
        return len(self.labels)


def steps_of(n: int, batch_size: int) -> int:
    """Batches an epoch. All images are seen; no batch is larger than `batch_size`, and two differ by one image at most.

    Where there are many, their number is a multiple of `TOGETHER`, so that Keras can run that many in one call; no batch is empty.
    """
    steps = -(-n // batch_size)
    rounded = -(-steps // TOGETHER) * TOGETHER
    return steps if steps < 8 * TOGETHER or rounded > n else rounded


def rows_at_once(inputs: Rows) -> int:
    """Rows of `inputs` that run through a network at a time, by the bytes of one as float32."""
    return min(AT_ONCE, max(FEWEST_AT_ONCE, BYTES_AT_ONCE // (4 * math.prod(inputs.shape[1:]))))


def class_weights(labels: NDArray[np.int32], classes: int, kind: str) -> NDArray[np.float32] | None:
    """float32 (classes,): n / (classes present x images of the class), as scikit-learn's ``balanced``; None where all weigh one."""
    if kind == "none":
        return None
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    weights = np.zeros(classes, np.float32)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights


def one_hot(labels: NDArray[np.int32], classes: int) -> NDArray[np.float32]:
    """float32 (n, classes), 1 in the column of each label and 0 elsewhere."""
    rows = np.zeros((len(labels), classes), np.float32)
    rows[np.arange(len(labels)), labels] = 1
    return rows


def batches(data: Labelled, phase: Phase, classes: int, start: int) -> Iterator[tuple[object, ...]]:
    """Batches from epoch `start` (counted from 0) on, without end. In each epoch an image is seen once, in one of its views.

    Yields:
        ``(inputs, targets)`` or ``(inputs, targets, weights)``. Inputs are uint8 (b, s, s, 3) or float32 (b, ...) alone, or in a
        tuple with the maps and colours of `draw_transforms` where images are moved, then with others and shares for `Mix` if they
        are mixed. Targets are int32 (b,), or float32 (b, classes) where the phase smooths labels or mixes.
    """
    n, steps = len(data), steps_of(len(data), phase.batch_size)
    weights = class_weights(data.labels, classes, phase.class_weights)
    for epoch in itertools.count(start):
        order = generator_for(phase.seed, epoch, ORDER).permutation(n)
        views = generator_for(phase.seed, epoch, VIEWS).integers(0, data.views, n) if data.views > 1 else np.zeros(n, np.int64)
        moves = _moves(phase.augmentation, data.inputs.shape[1], n, phase.seed, epoch)
        mix = pairs(n, phase.mixup, generator_for(phase.seed, epoch, MIXES)) if phase.mixup else None
        for chosen in np.array_split(order, steps):
            labels = data.labels[chosen]
            inputs = [data.inputs[views[chosen] * n + chosen], *(() if moves is None else (moves[0][chosen], moves[1][chosen]))]
            target: object = one_hot(labels, classes) if phase.label_smoothing else labels
            weight = None if weights is None else weights[labels]
            if mix is not None:
                other, shares = others(mix[0][chosen]), mix[1][chosen]
                target, weight = mixed_targets(one_hot(labels, classes), other, shares, weight)
                inputs += [other[:, None], shares[:, None]]
            given = inputs[0] if len(inputs) == 1 else tuple(inputs)
            yield (given, target) if weight is None else (given, target, weight)


def _moves(
    augmentation: Augmentation, size: int, n: int, seed: int, epoch: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    if not augmentation.active:
        return None
    return draw_transforms(augmentation, size, n, generator_for(seed, epoch, MOVES))
