"""What a backbone's pixels are scaled to, as Keras layers that travel with every saved model."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import layers, ops

from crossroads.errors import BackboneError, did_you_mean
from crossroads.networks.records import PREPROCESSINGS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
"""Of the red, green and blue channels over ImageNet, scaled to [0, 1]: torchvision's constants."""

CAFFE_MEAN = (103.939, 116.779, 123.68)
"""Of the blue, green and red channels in [0, 255], as VGG subtracts them and all of `keras.applications` after it."""

BVLC_MEAN = (104.00698793, 116.66876762, 122.67891434)
"""The same over ILSVRC 2012, as Caffe's own models subtract them: the mean of Caffe's ``ilsvrc_2012_mean.npy``."""


def layers_of(kind: str) -> tuple[keras.Layer, ...]:
    """The layers of the preprocessing called `kind`, a key of `PREPROCESSINGS`, in order.

    They take float32 RGB images (n, size, size, 3) in [0, 255], have no weights, and are Keras' own, so that a model with them
    loads in safe mode where Crossroads is not installed. Raises `BackboneError` for a kind that is not known.
    """
    try:
        return _LAYERS[kind]()
    except KeyError:
        hint = did_you_mean(kind, PREPROCESSINGS)
        raise BackboneError("no such preprocessing", received=repr(kind), hint=hint) from None


def _shift_and_scale() -> tuple[keras.Layer, ...]:
    return (layers.Rescaling(1 / 127.5, offset=-1.0, name="rescale"),)


def _standardise() -> tuple[keras.Layer, ...]:
    scale = [1 / (255 * deviation) for deviation in IMAGENET_DEVIATION]
    offset = [-mean / deviation for mean, deviation in zip(IMAGENET_MEAN, IMAGENET_DEVIATION, strict=True)]
    return (layers.Rescaling(scale, offset=offset, name="rescale"),)


def _flip_and_centre(mean: tuple[float, float, float]) -> tuple[keras.Layer, ...]:
    return _flip(), layers.Rescaling(1.0, offset=[-value for value in mean], name="centre")


def _flip() -> keras.Layer:
    """RGB to BGR, as a model of two operations: Keras has no such layer, and a Lambda does not load in safe mode.

    Split and join, since OpenVINO moves channels that way in the convolutions' own layout: 0.2 ms for an image of 227 px with what
    comes before and after, against 1.3 ms for ``ops.flip``.
    """
    images = keras.Input((None, None, 3))
    channels = ops.split(images, 3, axis=-1)
    return keras.Model(images, ops.concatenate(channels[::-1], axis=-1), name="bgr")


def _standardise_each() -> tuple[keras.Layer, ...]:
    rescale = layers.Rescaling(1 / 255, name="rescale")
    return rescale, layers.LayerNormalization(axis=(1, 2, 3), epsilon=1e-3, center=False, scale=False, name="standardise")


_LAYERS: dict[str, Callable[[], tuple[keras.Layer, ...]]] = {
    "none": tuple,
    "tf": _shift_and_scale,
    "torch": _standardise,
    "caffe": lambda: _flip_and_centre(CAFFE_MEAN),
    "bvlc": lambda: _flip_and_centre(BVLC_MEAN),
    "centre": lambda: (layers.Rescaling(1 / 255, offset=-0.5, name="rescale"),),
    "each": _standardise_each,
}
