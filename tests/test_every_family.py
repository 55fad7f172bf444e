"""Covers one network of each family of the catalog, from `fit` to a loaded artifact that predicts.

Two small families are in the suite; `make test-real` runs all. `python -m benchmarks artifacts` uses every network.
"""

import keras
import numpy as np
import pytest

import crossroads
from crossroads.networks.catalog import CATALOG
from crossroads.networks.construct import choose
from crossroads.run.train import rehearse
from pictures import stripes

pytestmark = pytest.mark.usefixtures("cache")
IN_THE_SUITE = ("squeezenet", "small-cnn")
"""Branches that are concatenated, and a dense layer on a flattened map. Other tests fit residual and depthwise blocks."""


def smallest_of_each_family():
    """Returns the smallest network of each source. A network with another preprocessing is a family of its own."""
    smallest = {}
    for record in sorted(CATALOG, key=lambda record: record.parameters):
        smallest.setdefault((record.source, record.scaling), record)
    return [pytest.param(r, id=r.name, marks=[pytest.mark.slow] * (r.name not in IN_THE_SUITE)) for r in smallest.values()]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path / "cache"))
    yield
    keras.backend.clear_session()


@pytest.mark.parametrize("record", smallest_of_each_family())
def test_one_network_of_each_family_becomes_an_artifact_that_predicts(record, tmp_path):
    size = record.limits[0]
    images, labels = stripes(18, size=size)
    options = {"strategy": "feature-extraction", "weights": "none", "test_fraction": 0.0, "validation": 0.34}
    run = crossroads.fit((images, labels), out=tmp_path / "run", backbone=record.name, image_size=size, **options)
    loaded = crossroads.load(run.artifact)
    (found,) = loaded.predict([images[0]])
    assert {ranked.label for ranked in found.labels} == {"level", "upright"}
    assert np.isfinite(loaded.probabilities(images[:4])).all()


@pytest.mark.parametrize("record", smallest_of_each_family())
def test_one_network_of_each_family_can_be_exported_from_keras_once_it_is_trained(record):
    rehearse(choose(record.name), record.limits[0], 2)
