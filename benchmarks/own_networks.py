"""Networks of a user's own, each with another kind of layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

SIZE = 32


def _maps(x: Any) -> Any:
    """Pixels as maps, (n, 30, 30, 8)."""
    return layers.Conv2D(8, 3)(layers.Rescaling(1 / 255)(x))


def _rows(x: Any) -> Any:
    """Pixels as a sequence of rows, (n, 32, 96)."""
    return layers.Reshape((SIZE, SIZE * 3))(layers.Rescaling(1 / 255)(x))


def _counts(x: Any) -> Any:
    """A whole number below 256 for each channel, (n, 3)."""
    return ops.cast(layers.GlobalMaxPooling2D()(x), "int32")


@keras.saving.register_keras_serializable(package="own")
class Doubled(keras.layers.Layer):  # type: ignore[misc]
    """A layer of the user's, registered as Keras asks."""

    def call(self, x: Any) -> Any:
        return x * 2


NETWORKS: dict[str, Callable[[Any], Any]] = {
    "silu": lambda x: layers.Activation("silu")(_maps(x)),
    "gelu": lambda x: layers.Activation("gelu")(_maps(x)),
    "PReLU": lambda x: layers.PReLU()(_maps(x)),
    "GroupNormalization": lambda x: layers.GroupNormalization(4)(_maps(x)),
    "LayerNormalization": lambda x: layers.LayerNormalization()(_maps(x)),
    "UnitNormalization": lambda x: layers.UnitNormalization()(_maps(x)),
    "SpectralNormalization": lambda x: layers.SpectralNormalization(layers.Conv2D(8, 3))(layers.Rescaling(1 / 255)(x)),
    "Normalization": lambda x: layers.Conv2D(8, 3)(layers.Normalization(mean=[120.0] * 3, variance=[900.0] * 3)(x)),
    "RandomFlip": lambda x: _maps(layers.RandomFlip()(x)),
    "RandomRotation": lambda x: _maps(layers.RandomRotation(0.1)(x)),
    "RandomContrast": lambda x: _maps(layers.RandomContrast(0.2)(x)),
    "RandomCrop": lambda x: _maps(layers.RandomCrop(24, 24)(x)),
    "RandAugment": lambda x: _maps(layers.RandAugment()(x)),
    "Resizing": lambda x: _maps(layers.Resizing(24, 24)(x)),
    "CenterCrop": lambda x: _maps(layers.CenterCrop(24, 24)(x)),
    "GaussianNoise": lambda x: layers.GaussianNoise(0.1)(_maps(x)),
    "SpatialDropout2D, AlphaDropout": lambda x: layers.SpatialDropout2D(0.1)(layers.AlphaDropout(0.1)(_maps(x))),
    "Conv2DTranspose": lambda x: layers.Conv2DTranspose(4, 3, strides=2)(_maps(x)),
    "SeparableConv2D": lambda x: layers.SeparableConv2D(4, 3)(_maps(x)),
    "DepthwiseConv2D": lambda x: layers.DepthwiseConv2D(3)(_maps(x)),
    "Conv2D, groups=2": lambda x: layers.Conv2D(8, 3, groups=2)(_maps(x)),
    "Conv3D": lambda x: layers.GlobalAveragePooling3D()(layers.Conv3D(4, 3)(layers.Reshape((4, 8, SIZE, 3))(x))),
    "UpSampling2D, bilinear": lambda x: layers.UpSampling2D(interpolation="bilinear")(_maps(x)),
    "MultiHeadAttention": lambda x: layers.MultiHeadAttention(2, 8)(_rows(x), _rows(x)),
    "LSTM": lambda x: layers.LSTM(8)(_rows(x)),
    "GRU": lambda x: layers.GRU(8)(_rows(x)),
    "Bidirectional LSTM": lambda x: layers.Bidirectional(layers.LSTM(8))(_rows(x)),
    "ConvLSTM2D": lambda x: layers.ConvLSTM2D(4, 3)(layers.Reshape((4, 8, SIZE, 3))(layers.Rescaling(1 / 255)(x))),
    "TimeDistributed": lambda x: layers.TimeDistributed(layers.Dense(4))(_rows(x)),
    "EinsumDense": lambda x: layers.EinsumDense("abc,cd->abd", output_shape=(SIZE, 4))(_rows(x)),
    "Embedding": lambda x: layers.Embedding(256, 4)(_counts(x)),
    "keras.ops: sort, top_k": lambda x: ops.top_k(ops.sort(layers.Flatten()(_maps(x))), 9)[0],
    "Discretization": lambda x: layers.Discretization(bin_boundaries=[50.0, 100.0, 200.0])(x),
    "CategoryEncoding": lambda x: layers.CategoryEncoding(num_tokens=256, output_mode="multi_hot")(_counts(x)),
    "Hashing": lambda x: layers.Hashing(16)(_counts(x)),
    "IntegerLookup": lambda x: layers.IntegerLookup(vocabulary=list(range(256)), output_mode="one_hot")(_counts(x)),
    "keras.ops: svd": lambda x: ops.svd(x[..., 0] / 255)[1],
    "Lambda": lambda x: layers.Lambda(lambda values: values * 2)(_maps(x)),
    "a registered layer": lambda x: Doubled()(_maps(x)),
}
"""By the layer that sets each apart."""


def network(name: str) -> keras.Model:
    """A backbone for images of 32 px, float pixels in [0, 255]."""
    keras.utils.set_random_seed(0)
    images = keras.Input((SIZE, SIZE, 3))
    x = ops.cast(NETWORKS[name](images), "float32")
    if len(x.shape) > 2:
        x = layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else layers.Flatten()(x)
    return keras.Model(images, x, name="own")
