"""Pretrained weights: read from any usual file without running anything in it, assigned to a backbone, kept in a cache.

    read_weights      a file of any known format -> named arrays, layer by layer
    assign_weights       those arrays -> the variables of a backbone, all or nothing
    obtain            a catalog record -> its file, from the cache or the network
    add, describe     the commands `crossroads weights add` and `crossroads weights list`
    load_pretrained   all steps: "imagenet" or a path -> a backbone with weights

The names load what they need when they are first used, so that listing the cache loads no Keras.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossroads.networks.weights.assign import Assignment, assign_weights
    from crossroads.networks.weights.download import Progress
    from crossroads.networks.weights.pretrained import load_pretrained
    from crossroads.networks.weights.read import read_weights
    from crossroads.networks.weights.record import LayerWeights, WeightFile
    from crossroads.networks.weights.store import CachedFile, add, cache_folder, describe, obtain, recognise

_HOMES = {
    "Assignment": "assign",
    "LayerWeights": "record",
    "Progress": "download",
    "CachedFile": "store",
    "WeightFile": "record",
    "add": "store",
    "cache_folder": "store",
    "describe": "store",
    "assign_weights": "assign",
    "load_pretrained": "pretrained",
    "obtain": "store",
    "read_weights": "read",
    "recognise": "store",
}

__all__ = [
    "Assignment",
    "CachedFile",
    "LayerWeights",
    "Progress",
    "WeightFile",
    "add",
    "assign_weights",
    "cache_folder",
    "describe",
    "load_pretrained",
    "obtain",
    "read_weights",
    "recognise",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
