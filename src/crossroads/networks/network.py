"""A network: preprocessing, a backbone kept up to a cut, and a head on top, sharing layers between training and inference."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from crossroads.errors import BackboneError


@dataclass(frozen=True, slots=True)
class Parts:
    """What a backbone's builder returns.

    Attributes:
        preprocessing: Layers from float32 images in [0, 255] to what the backbone takes, in order; no weights.
        backbone: Preprocessed images (n, size, size, 3) in, features out.
    """

    preprocessing: tuple[keras.Layer, ...]
    backbone: keras.Model


@dataclass(frozen=True, slots=True)
class Network:
    """One network seen from two sides; both share every layer and weight.

    Attributes:
        logits: float32 (n, size, size, 3) in [0, 255] in, float32 (n, k) scores out. What training works on.
        inference: uint8 (n, size, size, 3) RGB in, float32 (n, k) probabilities out. What is saved.
        size: Side of the images in pixels.
    """

    logits: keras.Model
    inference: keras.Model
    size: int


def assemble(parts: Parts, size: int, classes: int) -> Network:
    """A backbone with a softmax head for `classes` classes. The head is one dense layer, as in the notes."""
    _require_plain_keras()
    pixels = keras.Input((size, size, 3), dtype="float32", name="pixels")
    x = pixels
    for layer in parts.preprocessing:
        x = layer(x)
    x = parts.backbone(x)
    scores = layers.Dense(classes, name="head")(x)
    logits = keras.Model(pixels, scores, name="network")
    images = keras.Input((size, size, 3), dtype="uint8", name="images")
    floats = layers.Rescaling(1.0, name="to_float")(images)
    probabilities = layers.Softmax(name="probabilities")(logits(floats))
    return Network(logits=logits, inference=keras.Model(images, probabilities, name="crossroads"), size=size)


def _require_plain_keras() -> None:
    """Settings of Keras that the whole process shares decide what a layer is; these networks are made for the usual ones."""
    policy, layout = keras.config.dtype_policy().name, keras.config.image_data_format()
    if policy != "float32" or layout != "channels_last":
        raise BackboneError(
            "networks are built in float32 with channels last",
            received=f"Keras set to {policy} and {layout}",
            mend="call keras.config.set_dtype_policy('float32') and keras.config.set_image_data_format('channels_last')",
        )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """First weights and dropout depend on `seed` alone inside; Python's and NumPy's own generators are put back after."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
