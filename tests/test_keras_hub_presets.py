"""Covers runs on presets of KerasHub, from `fit` to a loaded artifact that predicts."""

import importlib.util

import keras
import numpy as np
import pytest

import crossroads
from crossroads import artifact
from pictures import stripes
from refusals import refused
from tiny_presets import SIZE


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path / "cache"))
    yield
    keras.backend.clear_session()


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [("resnet", None), pytest.param("vit", "average-2", marks=pytest.mark.slow), ("dinov2", "class-and-average")],
)
def test_a_preset_of_keras_hub_becomes_an_artifact_that_predicts(kind, pooling, shared_preset, tmp_path):
    images, labels = stripes(18, size=SIZE)
    options = {"strategy": "feature-extraction", "pooling": pooling, "test_fraction": 0.0, "validation": 0.34}
    run = crossroads.fit((images, labels), out=tmp_path / "run", backbone=shared_preset(kind), **options)
    assert np.isfinite(crossroads.load(run.artifact).probabilities(images[:4])).all()


@pytest.mark.parametrize(
    ("strategy", "freeze_to"), [("finetune", "0.5"), pytest.param("from-scratch", None, marks=pytest.mark.slow)]
)
def test_a_preset_of_keras_hub_is_trained_saved_and_loaded(strategy, freeze_to, shared_preset, tmp_path, monkeypatch):
    images, labels = stripes(18, size=SIZE)
    options = {"strategy": strategy, "freeze_to": freeze_to, "epochs": 1, "test_fraction": 0.0, "validation": 0.34}
    run = crossroads.fit((images, labels), out=tmp_path / "run", backbone=shared_preset("dinov2"), **options)
    model = artifact.load_model(run.artifact)
    expected = crossroads.load(run.artifact).probabilities(images[:4])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(images[:4], training=False)), expected, atol=1e-4)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with refused("keras-hub-not-installed", field="backbone"):
        artifact.load_model(run.artifact)
    assert np.isfinite(crossroads.load(run.artifact).probabilities(images[:4])).all()
