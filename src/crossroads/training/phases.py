"""Runs one phase of a strategy on a network in Keras: its head is solved, or layers are trained."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from crossroads.errors import TrainingError
from crossroads.networks.network import Network, unfolded
from crossroads.progress import Watcher
from crossroads.strategies import Phase, Solve
from crossroads.training.batches import LabelledData
from crossroads.training.checkpoint import Checkpoints
from crossroads.training.loop import assign, train
from crossroads.training.solving import PhaseResult, solve_head


def run_phase(
    network: Network,
    phase: Solve | Phase,
    data: LabelledData,
    validation: LabelledData,
    checkpoints: Checkpoints,
    identity: str,
    watcher: Watcher,
) -> PhaseResult:
    """Runs one phase in place: `network` holds the first weights, or those of the phase before, and then the result.

    Args:
        network: Changed in place.
        phase: A phase that a strategy plans.
        data: Training data, as `network.trained` takes it.
        validation: Validation data.
        checkpoints: The checkpoints of this phase alone.
        identity: Digest of data, splits, recipe and network; a checkpoint with another identity is refused.
        watcher: Receives steps and epochs.

    Raises:
        TrainingError: As `loop.train` does; or a head cannot be solved.
    """
    if isinstance(phase, Phase):
        return train(network, phase, data, validation, checkpoints, identity, watcher)
    dense, standardisation = _head_layers(network.trained)
    result, *solution = solve_head(phase, dense.units, data, validation, checkpoints, identity, watcher)
    assign([dense.kernel, dense.bias], _as_in(standardisation, *solution))
    return result


def _head_layers(model: keras.Model) -> tuple[Any, keras.layers.BatchNormalization | None]:
    """Returns the dense layer of a linear head, and the layer before it that standardises features, if any.

    Raises:
        TrainingError: The model is not a linear head.
    """
    *before, layer = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    linear = isinstance(layer, keras.layers.Dense) and layer.activation is keras.activations.linear and layer.use_bias
    fixed = all(isinstance(x, keras.layers.BatchNormalization) and not (x.trainable or x.scale or x.center) for x in before)
    if not linear or not fixed or len(before) > 1 or len(model.input_shape) != 2:
        raise TrainingError(
            "only a head of one dense layer with a bias, on a vector of features, can be solved",
            code="head-not-linear",
            received=" on ".join(type(x).__name__ for x in reversed([*before, layer])),
        )
    return layer, before[0] if before else None


def _as_in(
    standardisation: keras.layers.BatchNormalization | None, kernel: NDArray[np.float32], bias: NDArray[np.float32]
) -> list[NDArray[np.float32]]:
    """Returns kernel and bias of the dense layer; they were solved on features that are not standardised."""
    if standardisation is None:
        return [kernel, bias]
    return [values.astype(np.float32) for values in unfolded(standardisation, kernel, bias)]
