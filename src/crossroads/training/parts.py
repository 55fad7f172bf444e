"""Splits batches into parts whose activations fit into memory."""

from __future__ import annotations

from dataclasses import replace

import keras

from crossroads._runtime.machine import has_gpu
from crossroads.errors import option
from crossroads.networks.cost import activations
from crossroads.networks.graph import graph_of
from crossroads.networks.memory import batch_parts, over_memory, part_mb
from crossroads.networks.network import batchnorms
from crossroads.strategies import Phase, Solve


def with_parts(phase: Solve | Phase, trained: keras.Model, limit_mb: float | None) -> Solve | Phase:
    """Returns the phase with the number of parts into which its batches are split.

    On a GPU nothing is split, because the activations are in its own memory. A head that is solved has no batches.

    Args:
        phase: The phase as planned.
        trained: The layers that it trains.
        limit_mb: The most memory that the process may use, in MiB; None if the user set no limit.

    Raises:
        TrainingError: The smallest parts need more memory than the limit.
    """
    if not isinstance(phase, Phase) or has_gpu():
        return phase
    size, values = trained.count_params(), sum(map(activations, graph_of(trained).calls))
    train_batchnorm = phase.train_batchnorm or not batchnorms(trained)
    needed = part_mb(phase.batch_size, size, values, train_batchnorm=train_batchnorm, limit_mb=limit_mb)
    if limit_mb is not None and needed > limit_mb:
        smaller = f"a smaller {option('image_size')} or {option('backbone')}, or train a head on frozen features"
        raise over_memory(needed, limit_mb, smaller)
    return replace(phase, parts=batch_parts(phase.batch_size, size, values, train_batchnorm=train_batchnorm, limit_mb=limit_mb))
