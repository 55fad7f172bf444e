"""Where in a file the arrays of one network stand: in which dict of a checkpoint, and below which prefix of names.

Training programs put a state dict into a dict of their own (``state_dict``, ``model``, ``ema``), and wrappers put prefixes before
its names: ``module.`` (DataParallel), ``model.`` (Lightning), ``_orig_mod.`` (torch.compile), or several of them. No list of such
words could be complete, so none is kept: the right prefix is the one below which the file has the names of the network.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from crossroads.networks.weights.record import LayerWeights, WeightFile

MAX_DEPTH = 8
"""Dicts within dicts that are looked into."""
_TRAINING = re.compile(r"optim|sched|scaler|callback|hyper|metric|history", re.IGNORECASE)
"""Keys of a checkpoint under which the state of a training is kept, and no network."""
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""What PyTorch's wrappers call the network that they wrap, which may be a part within another one."""
_AVERAGED = re.compile(r"(^|[._/])(ema|swa|averaged)([._/]|$)", re.IGNORECASE)


def dicts_of(
    content: object, is_array: Callable[[object], bool], opened: Callable[[object], object] = lambda value: value
) -> dict[str, dict[str, Any]]:
    """The dicts of a checkpoint that hold arrays, by the keys that lead to them, such as ``ema.module``; the largest one first.

    Args:
        content: What was unpickled.
        is_array: Whether a value is an array, or the arrays of a layer.
        opened: From what stands in the dict to the value.
    """
    found: dict[str, dict[str, Any]] = {}
    seen: set[int] = set()

    def look(inner: object, path: tuple[str, ...]) -> None:
        if not isinstance(inner, Mapping) or id(inner) in seen or len(path) > MAX_DEPTH:
            return
        seen.add(id(inner))  # a dict may be in several places, and even in itself
        named = {text_of(name): opened(value) for name, value in inner.items() if isinstance(name, (str, bytes))}
        arrays = {name: value for name, value in named.items() if is_array(value)}
        if arrays:
            found[".".join(path)] = arrays
        for name, value in named.items():
            if name not in arrays and not _TRAINING.search(name):
                look(value, (*path, name))

    look(opened(content), ())
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def text_of(name: object) -> str:
    """A name as text; Python 2 wrote bytes."""
    return name.decode("latin1") if isinstance(name, bytes) else str(name)


def together(files: Sequence[WeightFile]) -> WeightFile:
    """One file of the dicts of a checkpoint: the first, with the others beside it."""
    first, *others = files
    return replace(first, others=tuple(others))


def prefixes(layers: Sequence[LayerWeights], wanted: Collection[str], spelt: Callable[[str], str]) -> list[str]:
    """The prefixes, each ending in a dot or a slash or empty, below which a layer has a wanted name; the most names first."""
    found: Counter[str] = Counter()
    for layer in layers:
        for start in (0, *(match.end() for match in re.finditer(r"[./]", layer.name))):
            if spelt(layer.name[start:]) in wanted:
                found[layer.name[:start]] += 1
    return [prefix for prefix, _ in sorted(found.items(), key=lambda item: (-item[1], len(item[0])))]


def below(layers: Iterable[LayerWeights], prefix: str) -> list[LayerWeights]:
    """The layers whose names begin with a prefix, without it."""
    return [replace(layer, name=layer.name[len(prefix) :]) for layer in layers if layer.name.startswith(prefix)]


def unwrapped(layers: Sequence[LayerWeights]) -> list[LayerWeights] | None:
    """The layers without the names of PyTorch's wrappers, wherever these stand; None where there are none, or names would clash."""
    names = [".".join(part for part in layer.name.split(".") if part not in _WRAPPERS) for layer in layers]
    if len(set(names)) < len(names) or all(layer.name == name for layer, name in zip(layers, names, strict=True)):
        return None
    return [replace(layer, name=name) for layer, name in zip(layers, names, strict=True)]


def averaged(place: str) -> bool:
    """Whether the name of a place says that the weights there are a moving average of those of the training."""
    return _AVERAGED.search(place) is not None
