"""Freezes layers one by one. Training must leave every frozen weight bit-identical.

The moving statistics of a BatchNorm layer change whenever it runs in training mode. That happens even if its gain and offset get no
gradient, and even if the model was called with ``training=False`` before it was unfrozen. Only ``trainable = False`` on the layer
itself stops it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from crossroads.errors import TrainingError, option
from crossroads.networks.network import Network, all_layers
from crossroads.strategies import Phase


def freeze(network: Network, phase: Phase) -> list[Any]:
    """Makes the layers of `network.trained` trainable or not, as `phase` needs.

    BatchNorm layers are frozen unless the phase trains them. A BatchNorm layer in the head standardises features by fixed
    statistics and is always frozen.

    Returns:
        Every variable of the network that must not change, including its frozen part.
    """
    trained, head = network.trained, {id(layer) for layer in network.blocks[-1]}
    layers = all_layers(trained)
    for layer in (trained, *layers):
        layer.trainable = True  # layer by layer, since a model that is already trainable does not change its layers
    if phase.name == "head":
        for layer in trained.layers:
            layer.trainable = id(layer) in head
    for layer in layers:
        if isinstance(layer, keras.layers.BatchNormalization) and (id(layer) in head or not phase.train_batchnorm):
            layer.trainable = False
    frozen = [variable for layer in layers if not layer.trainable for variable in layer.weights]
    if network.frozen is not None:
        frozen += network.frozen.weights
    return list({id(variable): variable for variable in frozen}.values())


def fingerprint(variables: Sequence[Any]) -> list[bytes]:
    """Returns a digest of the bits of each variable."""
    return [_digest(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _digest(value: Any) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=16).digest()


def require_unchanged(variables: Sequence[Any], before: Sequence[bytes]) -> None:
    """Raises `TrainingError` unless each variable still has the fingerprint `before`."""
    for variable, expected, actual in zip(variables, before, fingerprint(variables), strict=True):
        if expected != actual:
            raise TrainingError(
                "frozen weights must not change in training",
                code="frozen-weights-changed",
                received=f"changed values of {variable.path}",
                hint=f"set {option('train_batchnorm')} if these are statistics, or use another {option('backbone')}",
            )
