"""Defines the contents of a file of weights in any format: named arrays, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import WeightsError

Layout = Literal["keras", "torch"]
"""How arrays are laid out: a convolution's kernel is (height, width, in, out) in Keras, (out, in, height, width) in PyTorch."""


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """The arrays of one layer.

    Attributes:
        name: Name of the layer in the file.
        roles: Name of each array in the file: ``0``, ``conv1/kernel:0``, ``weight``.
        arrays: Numbers, in the order of the file, or of Keras if the layout is Keras'.
        path: Path of the layer in the saved model, such as ``layers/conv2d_3``; "" if the format has none.
        track: Layers with the same track are in the order of the model. It is "" for all layers of a file that is in order.
    """

    name: str
    roles: tuple[str, ...]
    arrays: tuple[NDArray[Any], ...]
    path: str = ""
    track: str = ""


@dataclass(frozen=True, slots=True)
class WeightFile:
    """The contents of a file of weights.

    Attributes:
        origin: Its name, for messages.
        format: Its format in words.
        layout: How its arrays are laid out.
        layers: The layers that have arrays; see `LayerWeights.track` for their order.
        folded: Whether a nested model counts as one layer, as in the files of older Keras versions.
        place: The keys that lead to the dict of the layers, such as ``ema.module``; "" for the whole file.
        others: The contents of other dicts of the same checkpoint.
    """

    origin: str
    format: str
    layout: Layout
    layers: tuple[LayerWeights, ...]
    folded: bool = False
    place: str = ""
    others: tuple[WeightFile, ...] = ()

    @property
    def ordered(self) -> bool:
        """Whether all layers are in the order of the model."""
        return all(not layer.track for layer in self.layers)


def unreadable(
    origin: str, received: object, hint: str = "fetch or save the file again", code: str = "weights-unreadable"
) -> WeightsError:
    """Returns the error for a file that is damaged or does not hold weights."""
    return WeightsError(f"{origin} cannot be read as weights", code=code, received=str(received)[:300], hint=hint)


def numbers(values: NDArray[Any], what: str, origin: str) -> NDArray[Any]:
    """Returns `values`, or raises `WeightsError` if they are not plain numbers."""
    if values.dtype.kind not in "biuf" and values.dtype.name != "bfloat16":
        raise unreadable(origin, f"{what} of dtype {values.dtype}", "weights are arrays of numbers; save them again as float32")
    return values


def from_bfloat16(raw: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Converts bfloat16 numbers. Each is the upper half of a float32."""
    return (raw.astype(np.uint32) << 16).view(np.float32)
