"""Defines a cut of a network and how a recipe refers to one. Neither Keras nor an inference engine is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crossroads.errors import BackboneError, did_you_mean


@dataclass(frozen=True, slots=True)
class Cut:
    """A layer after which a backbone can be divided.

    Attributes:
        name: Name of the layer, the same in every process: unnamed layers are numbered within the backbone.
        index: Position in `cuts`, from 0; None for a possible cut that is not listed there, such as a convolution before its
            normalisation and activation.
        depth: Layers with kernels on the longest path to the cut, as a fraction of those to the end, in (0, 1].
        shape: Shape of the tensor without the batch axis: (height, width, channels), (tokens, channels) or (channels,).
        multiply_adds: Multiply-adds per image up to the cut.
        parameters: Number of parameters up to the cut.
        activations: Number of output values of all layers per image up to the cut.
    """

    name: str
    index: int | None
    depth: float
    shape: tuple[int, ...]
    multiply_adds: int
    parameters: int
    activations: int

    @property
    def channels(self) -> int:
        """Length of the last axis."""
        return self.shape[-1]

    @property
    def side(self) -> int | None:
        """Height of the map in positions, or the number of tokens; None for vectors."""
        return self.shape[0] if len(self.shape) > 1 else None


def find_cut(possible: Sequence[Cut], wanted: str | int | float, network: str) -> Cut:
    """Finds a cut by name, position or depth.

    Args:
        possible: Every possible cut of the network in order; the useful ones have an index.
        wanted: Name of a layer; or an index, negative from the end; or a depth in (0, 1], for the nearest useful cut (the deeper
            one of a tie). Numbers may be text: ``"7"`` is an index, ``"0.6"`` a depth.
        network: Name of the network for messages.

    Raises:
        BackboneError: No cut has this name, or a number is out of range.
    """
    if isinstance(wanted, bool):
        raise _invalid(wanted)
    if isinstance(wanted, str):
        named = next((cut for cut in possible if cut.name == wanted), None)
        if named is not None:
            return named
        wanted = _number(possible, wanted, network)
    listed = [cut for cut in possible if cut.index is not None]
    if isinstance(wanted, int):
        return _by_index(listed, wanted)
    return _by_depth(listed, wanted)


def _number(possible: Sequence[Cut], text: str, network: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    names = sorted((cut.name for cut in possible), key=[cut.name for cut in possible if cut.index is None].__contains__)
    hint = did_you_mean(text, names)
    hint += f"{'' if hint.endswith('?') else ';'} `crossroads backbones NAME` lists the cuts of a network"
    raise BackboneError(f"no layer of {network!r} has this name", code="unknown-cut", field="cut", received=repr(text), hint=hint)


def _by_index(listed: Sequence[Cut], index: int) -> Cut:
    if not -len(listed) <= index < len(listed):
        raise BackboneError(
            f"the index of a cut must be between 0 and {len(listed) - 1}, or between {-len(listed)} and -1 from the end",
            code="cut-out-of-range",
            field="cut",
            received=str(index),
            hint=f"use {0 if index < 0 else len(listed) - 1}, or a depth such as 0.5",
        )
    return listed[index]


def _by_depth(listed: Sequence[Cut], depth: float) -> Cut:
    if not (isinstance(depth, float) and 0 < depth <= 1):
        raise _invalid(depth)
    return min(listed, key=lambda cut: (abs(cut.depth - depth), -cut.depth))


def _invalid(cut: object) -> BackboneError:
    return BackboneError(
        "a cut must be the name of a layer, an index, or a depth above 0 and up to 1",
        code="invalid-cut",
        field="cut",
        received=repr(cut),
        hint="use a value such as 0.5 or -1",
    )
