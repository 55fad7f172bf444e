"""BatchNorm's statistics in a training of few steps: they follow fast enough to be those of the images that it sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from crossroads.networks.network import Network

WINDOWS, USUAL_LEAST = 10, 0.9
"""How many times over the steps of a training would forget the first statistics; and the momentum below which that is not lowered
while it leaves less than `LEFT` of them."""

LEFT = 0.01
"""Most that may be left of the first statistics at the end."""


@contextmanager
def settling(network: Network, steps: int) -> Iterator[None]:
    """Inside, the statistics of the BatchNorm layers that are trained follow fast enough for so many steps.

    Keras' usual momentum of 0.99 leaves a hundredth of the first statistics after 460 steps. Of a network that was trained on other
    images, these are what a short training would be validated with, and shipped. Afterwards each layer has its own momentum again.
    """
    layers = network.trained._flatten_layers(include_self=False, recursive=True)
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]
    before = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = min(layer.momentum, momentum_for(steps))
    try:
        yield
    finally:
        for layer, momentum in zip(norms, before, strict=True):
            layer.momentum = momentum


def momentum_for(steps: int) -> float:
    """The greatest momentum for a training of so many steps."""
    steps = max(1, steps)
    return float(min(max(USUAL_LEAST, 1 - WINDOWS / steps), LEFT ** (1 / steps)))
