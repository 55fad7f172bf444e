"""Covers the export of an artifact as a Keras model: built again where the backbone stayed frozen, and compared with the graph."""

import keras
import numpy as np
import pytest

import crossroads
from crossroads import artifact
from crossroads.errors import ArtifactError
from crossroads.run import export
from crossroads.run.export import export_keras
from pictures import stripes
from refusals import refused

IMAGES, LABELS = stripes(40, size=32)
OPTIONS = {"image_size": 32, "test_fraction": 0.0, "validation": 0.25, "watcher": crossroads.Silent()}


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """Returns an artifact whose backbone stayed frozen, with a head of two layers."""
    out = tmp_path_factory.mktemp("frozen") / "run"
    return crossroads.fit(
        (IMAGES, LABELS), out=out, strategy="early-features", backbone="squeezenet", weights="none", head="mlp", epochs=2, **OPTIONS
    ).artifact


def test_the_model_of_a_frozen_backbone_predicts_what_the_artifact_predicts(frozen, tmp_path):
    model = keras.saving.load_model(export_keras(frozen, tmp_path / "model.keras"), compile=False)
    expected = crossroads.load(frozen).probabilities(IMAGES)
    np.testing.assert_allclose(np.asarray(model(IMAGES)), expected, atol=artifact.TOLERANCE)
    with refused("no-keras-model", ArtifactError):
        artifact.load_model(frozen)


def test_a_model_that_computes_something_else_leaves_no_file(frozen, tmp_path, monkeypatch):
    real = export.head_of
    monkeypatch.setattr(export, "head_of", lambda graph: tuple(type(x)(x.kernel, -1 - 9 * x.bias) for x in real(graph)))
    with refused("export-disagrees", ArtifactError):
        export_keras(frozen, tmp_path / "model.keras")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model.h5", "taken.keras"])
def test_the_target_must_be_a_new_keras_file(frozen, tmp_path, name):
    (tmp_path / "taken.keras").write_bytes(b"mine")
    with refused("export-target", ArtifactError, field="out"):
        export_keras(frozen, tmp_path / name)
    assert (tmp_path / "taken.keras").read_bytes() == b"mine"


def test_the_graph_of_a_file_has_no_keras_model(frozen, tmp_path):
    options = OPTIONS | {"strategy": "feature-extraction"}
    run = crossroads.fit((IMAGES, LABELS), out=tmp_path / "run", backbone=str(frozen / "model.xml"), **options)
    with refused("no-keras-model", ArtifactError):
        export_keras(run, tmp_path / "model.keras")
