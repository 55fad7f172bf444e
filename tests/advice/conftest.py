"""Advice in seconds: a tiny network, small images, and next to no short training."""

import keras
import pytest
from keras import layers

from crossroads.advice import level
from pictures import stripes

SIZE = 16


@pytest.fixture(autouse=True)
def _quick(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path_factory.getbasetemp() / "advice-cache"))
    monkeypatch.setattr(level, "SHORT_EPOCHS", (2, 2))


@pytest.fixture(scope="session")
def tiny():
    """Three convolutions with BatchNorm whose statistics are those of stripes."""
    keras.utils.set_random_seed(1)
    images = keras.Input((SIZE, SIZE, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(images)
    for number, filters in enumerate((8, 12, 16), start=1):
        x = layers.Conv2D(filters, 3, strides=number % 2 + 1, padding="same", use_bias=False, name=f"conv{number}")(x)
        x = layers.BatchNormalization(momentum=0.0, name=f"norm{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(x)
    model = keras.Model(images, x, name="tiny")
    model(stripes(64, size=SIZE)[0].astype("float32"), training=True)
    return model


@pytest.fixture(scope="session")
def pictures():
    return stripes(120, classes=("level", "slanting", "upright"), size=SIZE)
