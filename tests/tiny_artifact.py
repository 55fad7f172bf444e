"""A tiny real network and the contents of its artifact, for tests that write or read artifacts."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np

from crossroads.artifact import Contents, Parity
from crossroads.data.images import Resize
from crossroads.recipe import Recipe

SIZE = 8
CLASSES = ("stop", "yield", "2", "10", "größer")


def model(*extra, seed=3):
    """Returns a model from images to probabilities, nested like the real networks, with `extra` layers before the head."""
    keras.utils.set_random_seed(seed)
    inner = keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.ReLU()],
        name="backbone",
    )
    images = keras.Input((SIZE, SIZE, 3), dtype="uint8", name="images")
    x = keras.layers.Rescaling(1 / 255, offset=-0.5)(images)
    x = keras.layers.Flatten()(keras.layers.Dropout(0.5)(keras.layers.MaxPooling2D()(inner(x))))
    for layer in extra:
        x = layer(x)
    return keras.Model(images, keras.layers.Dense(len(CLASSES), activation="softmax")(x), name="tiny")


def pixels(n, seed=0):
    """Returns random images, uint8 (n, SIZE, SIZE, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


def contents(network=None, **changes):
    """Returns the contents of a complete artifact of the tiny network."""
    plain = Contents(
        model=model() if network is None else network,
        classes=CLASSES,
        resize=Resize(SIZE),
        recipe=Recipe(backbone="tiny", strategy="from-scratch", image_size=SIZE, epochs=1, seed=7),
        history="epoch,loss\n1,0.5\n",
        parity=Parity(pixels(40)),
        seen=pixels(3).reshape(3, -1)[:, :16],
        data={"origin": "arrays", "n": 3, "digest": "ab", "splits": {"train": {"n": 2, "digest": "cd"}}},
    )
    return replace(plain, **changes)
