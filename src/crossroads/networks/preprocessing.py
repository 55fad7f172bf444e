"""The preprocessing of backbones as Keras layers, which are part of every saved model."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import layers, ops

from crossroads.errors import BackboneError, did_you_mean
from crossroads.networks.records import PREPROCESSINGS
from crossroads.networks.scaling import (
    BVLC_MEAN,
    CAFFE_MEAN,
    CLIP_DEVIATION,
    CLIP_MEAN,
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
)

__all__ = ["IMAGENET_DEVIATION", "IMAGENET_MEAN", "layers_of"]


def layers_of(kind: str) -> tuple[keras.Layer, ...]:
    """Returns the layers of the preprocessing called `kind`, a key of `PREPROCESSINGS`, in order.

    They take float32 RGB images (n, size, size, 3) in [0, 255] and have no weights. They are Keras' own layers, so that a saved
    model loads in safe mode without Crossroads. Raises `BackboneError` for an unknown kind.
    """
    try:
        return _LAYERS[kind]()
    except KeyError:
        hint = did_you_mean(kind, PREPROCESSINGS)
        raise BackboneError("the preprocessing is unknown", code="unknown-preprocessing", received=repr(kind), hint=hint) from None


def _shift_and_scale() -> tuple[keras.Layer, ...]:
    return (layers.Rescaling(1 / 127.5, offset=-1.0, name="rescale"),)


def _standardise(means: tuple[float, float, float], deviations: tuple[float, float, float]) -> tuple[keras.Layer, ...]:
    scale = [1 / (255 * deviation) for deviation in deviations]
    offset = [-mean / deviation for mean, deviation in zip(means, deviations, strict=True)]
    return (layers.Rescaling(scale, offset=offset, name="rescale"),)


def _flip_and_centre(mean: tuple[float, float, float]) -> tuple[keras.Layer, ...]:
    return _flip(), layers.Rescaling(1.0, offset=[-value for value in mean], name="centre")


def _flip() -> keras.Layer:
    """Returns a model of one operation from RGB to BGR. Keras has no such layer, and a Lambda does not load in safe mode.

    It is a 1x1 convolution, which OpenVINO runs faster than ``ops.flip``. OpenVINO (2026.4) recognises split and concatenate, and
    moves the flip into the next kernel: twice, which undoes it, if a map and the flattened map are both outputs, as in AlexNet.
    """
    images = keras.Input((None, None, 3))
    reverse = np.eye(3, dtype="float32")[::-1]
    return keras.Model(images, ops.conv(images, reverse[None, None], padding="valid"), name="bgr")


def _standardise_each() -> tuple[keras.Layer, ...]:
    rescale = layers.Rescaling(1 / 255, name="rescale")
    return rescale, layers.LayerNormalization(axis=(1, 2, 3), epsilon=1e-3, center=False, scale=False, name="standardise")


_LAYERS: dict[str, Callable[[], tuple[keras.Layer, ...]]] = {
    "none": tuple,
    "tf": _shift_and_scale,
    "lite": lambda: (layers.Rescaling(1 / 128, offset=-127 / 128, name="rescale"),),
    "torch": lambda: _standardise(IMAGENET_MEAN, IMAGENET_DEVIATION),
    "clip": lambda: _standardise(CLIP_MEAN, CLIP_DEVIATION),
    "caffe": lambda: _flip_and_centre(CAFFE_MEAN),
    "bvlc": lambda: _flip_and_centre(BVLC_MEAN),
    "centre": lambda: (layers.Rescaling(1 / 255, offset=-0.5, name="rescale"),),
    "each": _standardise_each,
}
