"""One phase that a strategy plans, solved or trained, with checkpoints of its own: a finished one is loaded, not done again."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from crossroads.errors import TrainingError
from crossroads.networks.network import Network, unfolded
from crossroads.strategies import Phase, Solve
from crossroads.training import heads
from crossroads.training.batches import Labelled, Rows, class_weights, rows_at_once
from crossroads.training.checkpoint import Checkpoints, EpochRecord, Progress
from crossroads.training.loop import Trained, assign, train
from crossroads.training.watch import Watcher

IN_MEMORY = 1 << 28
"""Bytes of a head's features beyond which they are kept in a file while the head is solved."""


def execute(
    network: Network,
    phase: Solve | Phase,
    data: Labelled,
    validation: Labelled,
    checkpoints: Checkpoints,
    identity: str,
    watcher: Watcher,
) -> Trained:
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
    network: Network, phase: Solve, data: Labelled, validation: Labelled, checkpoints: Checkpoints, identity: str, watcher: Watcher
) -> Trained:
    """Solve the last layer of `network.trained` on what comes into it, or load what was solved."""
    head, below = _last_layer(network.trained)
    figures = _standardisation(below)
    below = None if figures else below
    progress = checkpoints.resumed(identity)
    if progress is None:
        started = time.perf_counter()
        solved, loss = _solved(phase, head.units, below, data, validation, checkpoints.folder, watcher)
        seconds = time.perf_counter() - started
        record = EpochRecord(phase.name, 1, seconds, 0.0, loss, solved.validation_loss, solved.validation_accuracy)
        facts = {"kind": solved.kind, "penalty": solved.penalty, "tried": [asdict(row) for row in solved.tried]}
        progress = Progress(identity, (record,), 1, facts)
        checkpoints.save(progress, _behind(figures, solved))
        watcher.epoch(record, 1)
    assign([head.kernel, head.bias], checkpoints.arrays(1))
    return Trained(progress.history, progress.best, progress.facts)


def _standardisation(below: keras.Model | None) -> keras.layers.BatchNormalization | None:
    """The layer of fixed figures, where it is all that is below a head."""
    layers = [] if below is None else [layer for layer in below.layers if not isinstance(layer, keras.layers.InputLayer)]
    alone = len(layers) == 1 and isinstance(layers[0], keras.layers.BatchNormalization)
    return layers[0] if alone and not (layers[0].trainable or layers[0].scale or layers[0].center) else None


def _behind(figures: keras.layers.BatchNormalization | None, solved: heads.LinearHead) -> list[NDArray[np.float32]]:
    """Kernel and bias for standardised features, where the head stands on such; it was solved on the features as they come."""
    if figures is None:
        return [solved.kernel, solved.bias]
    return [values.astype(np.float32) for values in unfolded(figures, solved.kernel, solved.bias)]


def _last_layer(model: keras.Model) -> tuple[Any, keras.Model | None]:
    """The dense layer at a model's end, and the model up to it; None where the layer is all there is.

    Raises:
        TrainingError: The model does not end in a dense layer on a vector.
    """
    # The layer may stand in other networks too: the node is asked for that this model ends with, which nothing public names.
    layer, node, _ = model.outputs[0]._keras_history
    start = layer._inbound_nodes[node].input_tensors[0]
    linear = isinstance(layer, keras.layers.Dense) and layer.activation is keras.activations.linear and layer.use_bias
    if not linear or len(start.shape) != 2:
        raise TrainingError("a head that is solved is one dense layer with a bias on a vector", received=type(layer).__name__)
    return layer, None if start is model.inputs[0] else keras.Model(model.inputs[0], start)


def _solved(
    phase: Solve, classes: int, below: keras.Model | None, data: Labelled, validation: Labelled, folder: Path, watcher: Watcher
) -> tuple[heads.LinearHead, float]:
    """The head and its loss on the training images."""
    with ExitStack() as open_files:
        train_side, held_out = (
            side if below is None else replace(side, inputs=_features(below, side, name, folder, open_files, watcher))
            for name, side in (("train", data), ("validation", validation))
        )
        # Views of one image are left out together: each tells almost all of the others.
        own = np.arange(len(data)) if data.groups is None else data.groups
        together = np.tile(own, data.views) if data.views > 1 or data.groups is not None else None
        labels = np.tile(data.labels, data.views)
        weights = class_weights(data.labels, classes, phase.class_weights)
        solved = heads.solve(
            train_side.inputs, labels, held_out.inputs, validation.labels, classes, groups=together, weights=weights
        )
        loss, _ = heads.measure(train_side.inputs, labels, solved.kernel, solved.bias)
    return solved, loss


def _features(below: keras.Model, side: Labelled, name: str, folder: Path, open_files: ExitStack, watcher: Watcher) -> Rows:
    """float32 (rows, d) of what comes into the head, computed once; in a file without a name where memory would not do."""
    shape = (side.inputs.shape[0], below.output_shape[-1])
    found: NDArray[np.float32]
    if 4 * shape[0] * shape[1] <= IN_MEMORY:
        found = np.empty(shape, np.float32)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        file = open_files.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 (it is closed by the stack)
        found = np.memmap(file, np.float32, "w+", shape=shape)
    step = rows_at_once(side.inputs)
    for start in range(0, shape[0], step):
        rows = np.asarray(side.inputs[start : start + step], np.float32)
        found[start : start + len(rows)] = below.predict_on_batch(rows)
        watcher.progress(f"features of {name}", start + len(rows), shape[0])
    return found
