"""Solves the head of a phase, or loads it from its checkpoint. Keras is not needed."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads.heads import solve as heads
from crossroads.progress import EpochRecord, StopTraining, Watcher
from crossroads.strategies import Solve
from crossroads.training.batches import LabelledData, class_weights
from crossroads.training.checkpoint import Checkpoints, TrainingState


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """The result of a phase. The network holds the weights of the best epoch.

    Attributes:
        history: One record per epoch.
        best: The best epoch, counted from 1: by validation accuracy, then by validation loss, then the later one.
        head: The kind, penalty and candidates of a solved head, as plain JSON values; None for a trained phase.
        ended: Whether the watcher ended training before the last epoch.
    """

    history: tuple[EpochRecord, ...]
    best: int
    head: dict[str, Any] | None = None
    ended: bool = False


def solve_head(
    phase: Solve,
    classes: int,
    data: LabelledData,
    validation: LabelledData,
    checkpoints: Checkpoints,
    identity: str,
    watcher: Watcher,
) -> tuple[PhaseResult, NDArray[np.float32], NDArray[np.float32]]:
    """Solves a linear head, or loads it from the checkpoint.

    Args:
        phase: The phase.
        classes: Number of classes k.
        data: Training data, features float32 (n, d).
        validation: Validation data.
        checkpoints: The checkpoints of this phase alone.
        identity: Digest of data, splits, recipe and network; a checkpoint with another identity is refused.
        watcher: Receives the one epoch.

    Returns:
        The result, kernel float32 (d, k) and bias float32 (k,), for features as they are.

    Raises:
        TrainingError: The head cannot be solved.
    """
    state = checkpoints.load_for(identity)
    if state is None:
        started = time.perf_counter()
        head, loss = _solved(phase, classes, data, validation)
        seconds = time.perf_counter() - started
        record = EpochRecord(phase.name, 1, seconds, 0.0, loss, head.validation_loss, head.validation_accuracy)
        facts = {"kind": head.kind, "penalty": head.penalty, "tried": [asdict(candidate) for candidate in head.candidates]}
        state = TrainingState(identity, (record,), 1, facts)
        checkpoints.save(state, [head.kernel, head.bias])
        with suppress(StopTraining):  # the phase has no further epochs
            watcher.epoch(record, 1)
    kernel, bias = (np.asarray(array, np.float32) for array in checkpoints.arrays(1))
    return PhaseResult(state.history, state.best, state.facts), kernel, bias


def _solved(phase: Solve, classes: int, data: LabelledData, validation: LabelledData) -> tuple[heads.LinearHead, float]:
    """Returns the head and its loss on the training images."""
    groups = data.groups
    if groups is None and data.views > 1:
        groups = np.arange(len(data))  # views of one image predict each other, so they are left out together
    groups = None if groups is None else np.tile(groups, data.views)
    labels = np.tile(data.labels, data.views)
    weights = class_weights(data.labels, classes, phase.class_weights)
    head = heads.solve(data.inputs, labels, validation.inputs, validation.labels, classes, groups=groups, weights=weights)
    loss, _ = heads.loss_and_accuracy(data.inputs, labels, head.kernel, head.bias)
    return head, loss
