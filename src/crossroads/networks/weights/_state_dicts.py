"""Locates the arrays of one network in a file: the dict of a checkpoint, and the prefix of the names.

Training programs store a state dict in a dict of their own (``state_dict``, ``model``, ``ema``), and wrappers add prefixes to
its names: ``module.`` (DataParallel), ``model.`` (Lightning), ``_orig_mod.`` (torch.compile), or several of them. No list of such
words would be complete. Instead, the right prefix is the one below which the names match those of the network.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from crossroads.networks.weights.record import LayerWeights, WeightFile

MAX_DEPTH = 8
"""Levels of nested dicts that are searched."""
_TRAINING = re.compile(r"optim|sched|scaler|callback|hyper|metric|history", re.IGNORECASE)
"""Keys of a checkpoint that hold the state of the training, not a network."""
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Names that PyTorch's wrappers give to the network they wrap, which may be a part of another one."""
_AVERAGED = re.compile(r"(^|[._/])(ema|swa|averaged)([._/]|$)", re.IGNORECASE)


def state_dicts(
    content: object, is_array: Callable[[object], bool], opened: Callable[[object], object] = lambda value: value
) -> dict[str, dict[str, Any]]:
    """Returns the dicts of a checkpoint that contain arrays, by their path of keys, such as ``ema.module``; the largest first.

    Args:
        content: The unpickled checkpoint.
        is_array: Whether a value is an array, or the arrays of a layer.
        opened: Unwraps an entry of a dict.
    """
    by_path: dict[str, dict[str, Any]] = {}
    seen: set[int] = set()

    def search(value: object, path: tuple[str, ...]) -> None:
        if not isinstance(value, Mapping) or id(value) in seen or len(path) > MAX_DEPTH:
            return
        seen.add(id(value))  # a dict may occur several times, even in itself
        named = {decoded(name): opened(entry) for name, entry in value.items() if isinstance(name, (str, bytes))}
        arrays = {name: entry for name, entry in named.items() if is_array(entry)}
        if arrays:
            by_path[".".join(path)] = arrays
        for name, entry in named.items():
            if name not in arrays and not _TRAINING.search(name):
                search(entry, (*path, name))

    search(opened(content), ())
    return dict(sorted(by_path.items(), key=lambda item: -len(item[1])))


def decoded(name: object) -> str:
    """Returns a name as text. Python 2 wrote bytes."""
    return name.decode("latin1") if isinstance(name, bytes) else str(name)


def together(files: Sequence[WeightFile]) -> WeightFile:
    """Returns the files of one checkpoint as one: the first file with the rest in `others`."""
    first, *others = files
    return replace(first, others=tuple(others))


def prefixes(layers: Sequence[LayerWeights], wanted: Collection[str], spelled: Callable[[str], str]) -> list[str]:
    """Returns the prefixes below which layers have wanted names, most matches first. Each is empty or ends in ``.`` or ``/``."""
    counts: Counter[str] = Counter()
    for layer in layers:
        for start in (0, *(match.end() for match in re.finditer(r"[./]", layer.name))):
            if spelled(layer.name[start:]) in wanted:
                counts[layer.name[:start]] += 1
    return [prefix for prefix, _ in sorted(counts.items(), key=lambda item: (-item[1], len(item[0])))]


def below(layers: Iterable[LayerWeights], prefix: str) -> list[LayerWeights]:
    """Returns the layers whose names start with a prefix, without the prefix."""
    return [replace(layer, name=layer.name[len(prefix) :]) for layer in layers if layer.name.startswith(prefix)]


def unwrapped(layers: Sequence[LayerWeights]) -> list[LayerWeights] | None:
    """Removes the names of PyTorch's wrappers from the names of layers.

    Returns None if there are no wrappers, or if two layers would have the same name.
    """
    names = [".".join(part for part in layer.name.split(".") if part not in _WRAPPERS) for layer in layers]
    if len(set(names)) < len(names) or all(layer.name == name for layer, name in zip(layers, names, strict=True)):
        return None
    return [replace(layer, name=name) for layer, name in zip(layers, names, strict=True)]


def averaged(place: str) -> bool:
    """Returns whether the path of keys says that the weights are a moving average."""
    return _AVERAGED.search(place) is not None
