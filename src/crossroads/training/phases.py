"""Runs one phase of a strategy: it is solved or trained, and a finished phase is loaded from its checkpoint."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from crossroads.errors import TrainingError
from crossroads.heads import solve as heads
from crossroads.networks.network import Network, unfolded
from crossroads.progress import EpochRecord, StopTraining, Watcher
from crossroads.strategies import Phase, Solve
from crossroads.training.batches import LabelledData, class_weights
from crossroads.training.checkpoint import Checkpoints, TrainingState
from crossroads.training.loop import PhaseResult, assign, train


def run_phase(
    network: Network,
    phase: Solve | Phase,
    data: LabelledData,
    validation: LabelledData,
    checkpoints: Checkpoints,
    identity: str,
    watcher: Watcher,
) -> PhaseResult:
    """Runs one phase.

    Args:
        network: Holds the initial weights or those of the previous phase, and afterwards the result.
        phase: A phase that a strategy plans.
        data: Training data, as `network.trained` takes it.
        validation: Validation data.
        checkpoints: The checkpoints of this phase alone.
        identity: Digest of data, splits, recipe and network; a checkpoint with another identity is refused.
        watcher: Receives steps and epochs.

    Raises:
        TrainingError: As `loop.train` does; or a head cannot be solved.
    """
    if isinstance(phase, Solve):
        return _solve_head(network, phase, data, validation, checkpoints, identity, watcher)
    return train(network, phase, data, validation, checkpoints, identity, watcher)


def _solve_head(
    network: Network,
    phase: Solve,
    data: LabelledData,
    validation: LabelledData,
    checkpoints: Checkpoints,
    identity: str,
    watcher: Watcher,
) -> PhaseResult:
    """Solves the dense layer of `network.trained`, or loads it from the checkpoint."""
    dense, standardisation = _head_layers(network.trained)
    state = checkpoints.load_for(identity)
    if state is None:
        started = time.perf_counter()
        head, loss = _solved(phase, dense.units, data, validation)
        seconds = time.perf_counter() - started
        record = EpochRecord(phase.name, 1, seconds, 0.0, loss, head.validation_loss, head.validation_accuracy)
        facts = {"kind": head.kind, "penalty": head.penalty, "tried": [asdict(candidate) for candidate in head.candidates]}
        state = TrainingState(identity, (record,), 1, facts)
        checkpoints.save(state, _kernel_and_bias(standardisation, head))
        with suppress(StopTraining):  # the phase has no further epochs
            watcher.epoch(record, 1)
    assign([dense.kernel, dense.bias], checkpoints.arrays(1))
    return PhaseResult(state.history, state.best, state.facts)


def _head_layers(model: keras.Model) -> tuple[Any, keras.layers.BatchNormalization | None]:
    """Returns the dense layer of a linear head, and the layer before it that standardises features, if any.

    Raises:
        TrainingError: The model is not such a head.
    """
    *before, layer = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    linear = isinstance(layer, keras.layers.Dense) and layer.activation is keras.activations.linear and layer.use_bias
    fixed = all(isinstance(x, keras.layers.BatchNormalization) and not (x.trainable or x.scale or x.center) for x in before)
    if not linear or not fixed or len(before) > 1 or len(model.input_shape) != 2:
        raise TrainingError(
            "only a head of one dense layer with a bias, on a vector of features, can be solved",
            code="head-not-linear",
            received=" on ".join(type(x).__name__ for x in reversed([*before, layer])),
            hint="train this head with gradient steps",
        )
    return layer, before[0] if before else None


def _kernel_and_bias(standardisation: keras.layers.BatchNormalization | None, head: heads.LinearHead) -> list[NDArray[np.float32]]:
    """Returns kernel and bias of the dense layer; `head` was solved on features that are not standardised."""
    if standardisation is None:
        return [head.kernel, head.bias]
    return [values.astype(np.float32) for values in unfolded(standardisation, head.kernel, head.bias)]


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
