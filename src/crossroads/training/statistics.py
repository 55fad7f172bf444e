"""BatchNorm's statistics in a training of few steps: they follow fast enough to be those of the images that it sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from crossroads.networks.network import Network, batchnorms, momentum_at_most

WINDOWS, LEAST = 10, 0.9
"""How many times the window of the average, 1 / (1 - momentum), fits into the steps; and the least momentum for that."""

LEFT = 0.01
"""Share of the first statistics that may be left after the last step; where there are so few steps, the window is shorter still."""


@contextmanager
def settling(network: Network, steps: int) -> Iterator[None]:
    """Inside, the statistics of the BatchNorm layers that are trained follow fast enough for so many steps.

    Keras' usual momentum of 0.99 leaves a hundredth of the first statistics after 460 steps. Of a network that was trained on other
    images, these are what a short training would be validated with, and shipped.
    """
    with momentum_at_most(momentum_for(steps), [layer for layer in batchnorms(network.trained) if layer.trainable]):
        yield


def momentum_for(steps: int) -> float:
    """The greatest momentum for a training of so many steps."""
    steps = max(1, steps)
    return float(min(max(LEAST, 1 - WINDOWS / steps), LEFT ** (1 / steps)))
