"""What a file of weights holds, whatever its format: named arrays, layer by layer."""

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
        name: What the file calls the layer.
        roles: What the file calls each array: ``0``, ``conv1/kernel:0``, ``weight``.
        arrays: Numbers, in the order of the file; that of Keras where the layout is Keras'.
        path: Where the layer lay in the model that was saved, such as ``layers/conv2d_3``; "" where the format does not tell.
        track: Layers of one track come in the order of the model; "" is the track of a file that is in order as a whole.
    """

    name: str
    roles: tuple[str, ...]
    arrays: tuple[NDArray[Any], ...]
    path: str = ""
    track: str = ""

    def array(self, role: str) -> NDArray[Any] | None:
        """The array that the file calls `role`, or None."""
        return dict(zip(self.roles, self.arrays, strict=True)).get(role)


@dataclass(frozen=True, slots=True)
class WeightFile:
    """Everything that a file of weights holds.

    Attributes:
        origin: Its name, for messages.
        format: Its format in words.
        layout: How its arrays are laid out.
        layers: The layers that have arrays; see `LayerWeights.track` for what their order says.
        folded: Whether a model inside the saved model counts as one layer, as in the files of older Keras versions.
        place: The keys that lead to the dict in which the layers stand, such as ``ema.module``; "" where that is the whole file.
        others: What stands in other dicts of the same checkpoint; a network is in one of them.
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
        """Whether the layers come in the order of the model as a whole."""
        return all(not layer.track for layer in self.layers)


def unreadable(origin: str, received: object, hint: str = "fetch or save the file again") -> WeightsError:
    """What is said of a file that is damaged, or that holds something else than weights."""
    return WeightsError(f"{origin} cannot be read as weights", received=str(received)[:300], hint=hint)


def numbers(values: NDArray[Any], what: str, origin: str) -> NDArray[Any]:
    """`values`, which must be plain numbers. Raises `WeightsError`."""
    if values.dtype.kind not in "biuf" and values.dtype.name != "bfloat16":
        raise unreadable(origin, f"{what} of dtype {values.dtype}", "weights are arrays of numbers; save them again as float32")
    return values


def from_bfloat16(raw: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bfloat16 is the upper half of a float32."""
    return (raw.astype(np.uint32) << 16).view(np.float32)
