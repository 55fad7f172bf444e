"""Locates the arrays of one network in a file: the dict of a checkpoint, and the prefix of the names.

Training programs store a state dict in a dict of their own (``state_dict``, ``model``, ``ema``), and wrappers add prefixes to
its names: ``module.`` (DataParallel), ``model.`` (Lightning), ``_orig_mod.`` (torch.compile), or several of them. No list of such
words would be complete, so none is kept: the right prefix is the one below which the names match those of the network.
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
"""Keys of a checkpoint that hold the state of a training and not a network."""
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Names that PyTorch's wrappers give to the network they wrap, which may be a part of another one."""
_AVERAGED = re.compile(r"(^|[._/])(ema|swa|averaged)([._/]|$)", re.IGNORECASE)


def dicts_of(
    content: object, is_array: Callable[[object], bool], opened: Callable[[object], object] = lambda value: value
) -> dict[str, dict[str, Any]]:
    """The dicts of a checkpoint that hold arrays, largest first, by their path of keys, such as ``ema.module``.

    Args:
        content: The unpickled checkpoint.
        is_array: Whether a value is an array, or the arrays of a layer.
        opened: Unwraps an entry of a dict.
    """
    found: dict[str, dict[str, Any]] = {}
    seen: set[int] = set()

    def look(inner: object, path: tuple[str, ...]) -> None:
        if not isinstance(inner, Mapping) or id(inner) in seen or len(path) > MAX_DEPTH:
            return
        seen.add(id(inner))  # a dict may occur several times, even in itself
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
    """The files of one checkpoint as one: the first, with the others in `others`."""
    first, *others = files
    return replace(first, others=tuple(others))


def prefixes(layers: Sequence[LayerWeights], wanted: Collection[str], spelt: Callable[[str], str]) -> list[str]:
    """The prefixes below which layers have wanted names, most matches first. Each is empty or ends in a dot or a slash."""
    found: Counter[str] = Counter()
    for layer in layers:
        for start in (0, *(match.end() for match in re.finditer(r"[./]", layer.name))):
            if spelt(layer.name[start:]) in wanted:
                found[layer.name[:start]] += 1
    return [prefix for prefix, _ in sorted(found.items(), key=lambda item: (-item[1], len(item[0])))]


def below(layers: Iterable[LayerWeights], prefix: str) -> list[LayerWeights]:
    """The layers whose names start with a prefix, which is removed."""
    return [replace(layer, name=layer.name[len(prefix) :]) for layer in layers if layer.name.startswith(prefix)]


def unwrapped(layers: Sequence[LayerWeights]) -> list[LayerWeights] | None:
    """The layers without the names of PyTorch's wrappers; None if there are no such names, or two layers would then share one."""
    names = [".".join(part for part in layer.name.split(".") if part not in _WRAPPERS) for layer in layers]
    if len(set(names)) < len(names) or all(layer.name == name for layer, name in zip(layers, names, strict=True)):
        return None
    return [replace(layer, name=name) for layer, name in zip(layers, names, strict=True)]


def averaged(place: str) -> bool:
    """Whether the path of keys says that the weights are a moving average."""
    return _AVERAGED.search(place) is not None
