"""One phase that a strategy plans, solved or trained, with checkpoints of its own: a finished one is loaded, not done again."""

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
    """Carry out one phase; the network holds what it leaves.

    Args:
        network: Holds its first weights, or those of the phase before.
        phase: One that a strategy plans.
        data: What to train on, as `network.trained` takes it.
        validation: What chooses.
        checkpoints: Those of this phase alone.
        identity: Digest of data, splits, recipe and network; a checkpoint of another identity is refused.
        watcher: Is told of each step and epoch.

    Raises:
        TrainingError: See `loop.train`; or a head cannot be solved.
    """
    work = (data, validation, checkpoints, identity, watcher)
    return _solve(network, phase, *work) if isinstance(phase, Solve) else train(network, phase, *work)


def _solve(
    network: Network,
    phase: Solve,
    data: LabelledData,
    validation: LabelledData,
    checkpoints: Checkpoints,
    identity: str,
    watcher: Watcher,
) -> PhaseResult:
    """Solve the dense layer that is all that `network.trained` trains, or load what was solved."""
    head, figures = _parts(network.trained)
    progress = checkpoints.load_for(identity)
    if progress is None:
        started = time.perf_counter()
        solved, loss = _solved(phase, head.units, data, validation)
        seconds = time.perf_counter() - started
        record = EpochRecord(phase.name, 1, seconds, 0.0, loss, solved.validation_loss, solved.validation_accuracy)
        facts = {"kind": solved.kind, "penalty": solved.penalty, "tried": [asdict(row) for row in solved.candidates]}
        progress = TrainingState(identity, (record,), 1, facts)
        checkpoints.save(progress, _behind(figures, solved))
        with suppress(StopTraining):  # that was all
            watcher.epoch(record, 1)
    assign([head.kernel, head.bias], checkpoints.arrays(1))
    return PhaseResult(progress.history, progress.best, progress.facts)


def _parts(model: keras.Model) -> tuple[Any, keras.layers.BatchNormalization | None]:
    """The dense layer that a model of features is, and the layer of fixed figures before it, where there is one.

    Raises:
        TrainingError: The model is something else.
    """
    *before, layer = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    linear = isinstance(layer, keras.layers.Dense) and layer.activation is keras.activations.linear and layer.use_bias
    fixed = all(isinstance(x, keras.layers.BatchNormalization) and not (x.trainable or x.scale or x.center) for x in before)
    if not linear or not fixed or len(before) > 1 or len(model.input_shape) != 2:
        received = " on ".join(type(x).__name__ for x in reversed([*before, layer]))
        raise TrainingError("a head that is solved is one dense layer with a bias on a vector of features", received=received)
    return layer, before[0] if before else None


def _behind(figures: keras.layers.BatchNormalization | None, solved: heads.LinearHead) -> list[NDArray[np.float32]]:
    """Kernel and bias for standardised features, where the head stands on such; it was solved on the features as they come."""
    if figures is None:
        return [solved.kernel, solved.bias]
    return [values.astype(np.float32) for values in unfolded(figures, solved.kernel, solved.bias)]


def _solved(phase: Solve, classes: int, data: LabelledData, validation: LabelledData) -> tuple[heads.LinearHead, float]:
    """The head and its loss on the training images."""
    # Views of one image are left out together: each tells almost all of the others.
    own = np.arange(len(data)) if data.groups is None else data.groups
    together = np.tile(own, data.views) if data.views > 1 or data.groups is not None else None
    labels = np.tile(data.labels, data.views)
    weights = class_weights(data.labels, classes, phase.class_weights)
    solved = heads.solve(data.inputs, labels, validation.inputs, validation.labels, classes, groups=together, weights=weights)
    loss, _ = heads.loss_and_accuracy(data.inputs, labels, solved.kernel, solved.bias)
    return solved, loss
