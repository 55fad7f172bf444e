"""What stays as it was: layers are frozen one by one, and afterwards every frozen weight must have kept its bits.

A BatchNorm layer has statistics that move whenever it runs in training, even where its gain and offset get no gradient and the
model was called with ``training=False`` before it was unfrozen: only ``trainable = False`` on the layer itself stops them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from crossroads.errors import TrainingError
from crossroads.networks.network import Network, all_layers
from crossroads.strategies import Phase


def freeze(network: Network, phase: Phase) -> list[Any]:
    """Set every layer of `network.trained` to what `phase` trains.

    BatchNorm layers are frozen unless the phase trains them; one in the head, which standardises features by fixed figures, is
    always frozen.

    Returns:
        Every variable of the network that must not change, those of its frozen part included.
    """
    trained, head = network.trained, {id(layer) for layer in network.blocks[-1]}
    layers = all_layers(trained)
    for layer in (trained, *layers):
        layer.trainable = True  # one by one: a model that is trainable already does not pass it on
    if phase.name == "head":
        for layer in trained.layers:
            layer.trainable = id(layer) in head
    for layer in layers:
        if isinstance(layer, keras.layers.BatchNormalization) and (id(layer) in head or not phase.train_batchnorm):
            layer.trainable = False
    still = [variable for layer in layers if not layer.trainable for variable in layer.weights]
    if network.frozen is not None:
        still += network.frozen.weights
    return list({id(variable): variable for variable in still}.values())


def fingerprint(variables: Sequence[Any]) -> list[bytes]:
    """A digest of the bits of each variable."""
    return [_digest(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _digest(value: Any) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=16).digest()


def require_unchanged(variables: Sequence[Any], before: Sequence[bytes]) -> None:
    """Raises `TrainingError` unless each variable has the bits it had when `before` was taken."""
    for variable, known, found in zip(variables, before, fingerprint(variables), strict=True):
        if known != found:
            raise TrainingError(
                "frozen weights must keep every bit",
                received=f"{variable.path}, which changed in training",
                hint="train it (--train-batchnorm for statistics), or use a backbone whose layers keep still when frozen",
            )
