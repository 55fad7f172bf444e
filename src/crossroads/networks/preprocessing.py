"""Defines the preprocessing of backbones as Keras layers, which are part of every saved model."""

from __future__ import annotations

import keras
from keras import layers, ops

from crossroads.errors import unknown
from crossroads.networks.scaling import SCALINGS, Scaling


def layers_of(kind: str) -> tuple[keras.Layer, ...]:
    """Returns the layers of the preprocessing called `kind`, a key of `SCALINGS`, in order.

    They take float32 RGB images (n, size, size, 3) in [0, 255] and have no weights. They are Keras' own layers, so that a saved
    model loads in safe mode without Crossroads. Raises `BackboneError` for an unknown kind.
    """
    if kind not in SCALINGS:
        raise unknown("preprocessing", kind, SCALINGS)
    scaling = SCALINGS[kind]
    made = [_flip()] if scaling.bgr else []
    if (scaling.scale, scaling.offset) != (Scaling().scale, Scaling().offset):
        made.append(layers.Rescaling(_shortest(scaling.scale), offset=_shortest(scaling.offset), name="rescale"))
    if scaling.each:
        made.append(layers.LayerNormalization(axis=(1, 2, 3), epsilon=1e-3, center=False, scale=False, name="standardise"))
    return tuple(made)


def _shortest(values: tuple[float, ...]) -> float | list[float]:
    """Returns one number if all are equal."""
    return values[0] if len(set(values)) == 1 else list(values)


def _flip() -> keras.Layer:
    """Returns a model of four operations from RGB to BGR. Keras has no such layer, and a Lambda does not load in safe mode.

    OpenVINO (2026.4) makes a split and concatenation a gather and moves it into the weights of the first convolution. It loses the
    gather if a flattened map is an output of the graph, as at AlexNet's cuts. Slices stay where they are.
    """
    images = keras.Input((None, None, 3))
    channels = [images[..., number : number + 1] for number in (2, 1, 0)]
    return keras.Model(images, ops.concatenate(channels, axis=-1), name="bgr")
