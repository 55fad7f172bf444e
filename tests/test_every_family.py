"""Covers one network of each family of the catalog, from `fit` to a loaded artifact that predicts.

Large networks are cut after their first blocks, which have the layers of the family; `make test-real` uses the whole networks.
"""

import importlib.util

import keras
import numpy as np
import pytest

import crossroads
from crossroads import artifact
from crossroads.features.engine import Engine
from crossroads.networks.catalog import CATALOG
from pictures import stripes
from refusals import refused
from tiny_presets import SIZE, preset

SLOW = {
    *("convnext-tiny", "densenet121", "efficientnet-v2-b0", "inception-resnet-v2", "inception-v3"),
    *("nasnet-mobile", "resnet50-v2", "xception", "resnet50", "efficientnet-b0", "efficientnet-lite0"),
}
"""Networks that are cut early in the ordinary run. `python -m benchmarks artifacts` uses every network of the catalog whole."""

EARLY = "0.15"
"""Their cut, as a fraction of the depth."""


def smallest_of_each_family():
    """Returns the smallest network of each source. A network with another preprocessing is a family of its own."""
    smallest = {}
    for record in sorted(CATALOG, key=lambda record: record.parameters):
        smallest.setdefault((record.source, record.scaling), record)
    whole = [pytest.param(r, None, id=r.name, marks=[pytest.mark.real] * (r.name in SLOW)) for r in smallest.values()]
    return whole + [pytest.param(r, EARLY, id=f"{r.name}, early") for r in smallest.values() if r.name in SLOW]


@pytest.fixture(autouse=True)
def _quick_engine(tmp_path, monkeypatch):
    """Makes Keras compute the features, which for so few images is faster than a graph. Rehearsal and artifact still make one."""

    def prepared(self, images):
        self.runs_on, self.batch_size = "keras", len(images)

    monkeypatch.setattr(Engine, "_prepare", prepared)
    monkeypatch.setattr(Engine, "_by_keras", lambda self, images, size=0: np.asarray(self._model(images, training=False)))
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path / "cache"))
    yield
    keras.backend.clear_session()


@pytest.mark.parametrize(("kind", "pooling"), [("resnet", None), ("vit", "average-2"), ("dinov2", "class-and-average")])
def test_a_preset_of_keras_hub_becomes_an_artifact_that_predicts(kind, pooling, tmp_path):
    images, labels = stripes(18, size=SIZE)
    options = {"strategy": "feature-extraction", "pooling": pooling, "test_fraction": 0.0, "validation": 0.34}
    run = crossroads.fit((images, labels), out=tmp_path / "run", backbone=preset(kind, tmp_path / kind), **options)
    assert np.isfinite(crossroads.load(run.artifact).probabilities(images[:4])).all()


@pytest.mark.parametrize(("strategy", "freeze_to"), [("finetune", "0.5"), ("from-scratch", None)])
def test_a_preset_of_keras_hub_is_trained_saved_and_loaded(strategy, freeze_to, tmp_path, monkeypatch):
    images, labels = stripes(18, size=SIZE)
    options = {"strategy": strategy, "freeze_to": freeze_to, "epochs": 1, "test_fraction": 0.0, "validation": 0.34}
    run = crossroads.fit((images, labels), out=tmp_path / "run", backbone=preset("dinov2", tmp_path / "preset"), **options)
    model = artifact.load_model(run.artifact)
    expected = crossroads.load(run.artifact).probabilities(images[:4])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(images[:4], training=False)), expected, atol=1e-4)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with refused("keras-hub-not-installed", field="backbone"):
        artifact.load_model(run.artifact)
    assert np.isfinite(crossroads.load(run.artifact).probabilities(images[:4])).all()


@pytest.mark.parametrize(("record", "cut"), smallest_of_each_family())
def test_one_network_of_each_family_becomes_an_artifact_that_predicts(record, cut, tmp_path):
    size = record.limits[0]
    images, labels = stripes(18, size=size)
    options = {"strategy": "early-features" if cut else "feature-extraction", "cut": cut, "weights": "none"}
    options |= {"test_fraction": 0.0, "validation": 0.34}
    run = crossroads.fit((images, labels), out=tmp_path / "run", backbone=record.name, image_size=size, **options)
    loaded = crossroads.load(run.artifact)
    (found,) = loaded.predict([images[0]])
    assert {ranked.label for ranked in found.labels} == {"level", "upright"}
    assert np.isfinite(loaded.probabilities(images[:4])).all()
