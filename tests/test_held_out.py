"""Covers the stored predictions: they come back as they were, and only whole and fitting ones are read."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tiny_artifact
from crossroads import artifact
from crossroads.artifact import HeldOut, Predictions
from crossroads.artifact._held_out import predictions_of
from crossroads.artifact._manifest import file_record, manifest_text
from crossroads.data.readers import read
from crossroads.errors import ArtifactError
from refusals import refused

METRICS = {"test": {"accuracy": 0.5}}
COLUMNS = ("names", "labels", "digests", "top_labels", "top_probabilities")


def predictions(n=6, seed=0, groups=None):
    rng = np.random.default_rng(seed)
    dataset = read((tiny_artifact.pixels(n, seed), np.array(tiny_artifact.CLASSES)[np.arange(n) % 5]))
    return predictions_of(dataset, rng.integers(0, 256, (n, 16), dtype=np.uint8), rng.dirichlet(np.ones(5), n).astype(np.float32))


@pytest.fixture(scope="module")
def whole():
    return tiny_artifact.contents()


@pytest.fixture
def run(tmp_path, whole):
    with artifact.draft(tmp_path / "run", whole) as draft:
        draft.finish(METRICS, HeldOut(predictions(), None))
    return tmp_path / "run"


def rewritten(run, **changes):
    """Replaces arrays of the file, and states the new digest in the manifest, as another program could."""
    with np.load(run / artifact.HELD_OUT) as arrays:
        np.savez(run / artifact.HELD_OUT, allow_pickle=False, **{**arrays, **changes})
    restate(run)


def restate(run):
    facts = json.loads((run / "crossroads.json").read_text())
    del facts["digest"]
    facts["files"][artifact.HELD_OUT] = file_record(run / artifact.HELD_OUT)
    (run / "crossroads.json").write_text(manifest_text(facts))


def test_predictions_come_back_as_they_were(run):
    found, given = artifact.read_held_out(run), predictions()
    assert found.validation is None
    for name in COLUMNS:
        assert np.array_equal(getattr(found.test, name), getattr(given, name))
        assert getattr(found.test, name).dtype == getattr(given, name).dtype
    assert found.test.groups is None


def test_the_most_probable_classes_come_first():
    made = predictions()
    assert made.top_labels.shape == (6, 5)
    assert (np.diff(made.top_probabilities, axis=1) <= 0).all()
    assert np.array_equal(made.confidence, made.top_probabilities.max(axis=1))
    assert np.array_equal(made.correct, made.predicted == made.labels)


def test_the_file_is_verified_like_the_others(run):
    assert artifact.HELD_OUT in artifact.open_verified(run).names
    path = run / artifact.HELD_OUT
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with refused("changed-file", ArtifactError):
        artifact.open_verified(run)
    with refused("changed-file", ArtifactError):
        artifact.read_held_out(run)


def test_an_artifact_of_an_earlier_version_has_none(tmp_path, whole):
    artifact.write(tmp_path / "run", whole, METRICS)
    assert artifact.read_held_out(tmp_path / "run") is None
    assert artifact.HELD_OUT not in artifact.open_verified(tmp_path / "run").names


def test_it_survives_amended_metrics_and_a_copy(run, tmp_path):
    artifact.amend(run, {"test": {"accuracy": 0.75}})
    artifact.copy(run, tmp_path / "copy")
    assert len(artifact.read_held_out(tmp_path / "copy").test) == 6


def test_documents_are_copied_but_not_verified(run, tmp_path):
    (run / artifact.CARD).write_text("edited by hand")
    artifact.copy(run, tmp_path / "copy")
    assert (tmp_path / "copy" / artifact.CARD).read_text() == "edited by hand"
    (run / artifact.CARD).unlink()
    artifact.open_verified(run)


@pytest.mark.parametrize(
    "changes",
    [
        {"test_labels": np.arange(5, dtype=np.int32)},
        {"test_labels": np.full(6, 5, np.int32)},
        {"test_top_labels": np.full((6, 5), -1, np.int32)},
        {"test_digests": np.zeros((6, 8), np.uint8)},
        {"test_top_probabilities": np.zeros((6, 5), np.int32)},
        {"test_names": np.zeros(6)},
    ],
)
def test_arrays_that_do_not_fit_are_refused(run, changes):
    rewritten(run, **changes)
    with refused("not-predictions", ArtifactError):
        artifact.read_held_out(run)


def test_objects_are_never_unpickled(run):
    np.savez(run / artifact.HELD_OUT, test_labels=np.array([print], object))
    restate(run)
    with refused("not-predictions", ArtifactError):
        artifact.read_held_out(run)


def test_a_file_that_is_no_archive_is_refused(run):
    (run / artifact.HELD_OUT).write_bytes(b"no archive")
    restate(run)
    with refused("not-predictions", ArtifactError):
        artifact.read_held_out(run)


def test_groups_are_kept(tmp_path, whole):
    made = predictions()
    grouped = Predictions(*(getattr(made, name) for name in COLUMNS), np.arange(6) // 2)
    with artifact.draft(tmp_path / "run", whole) as draft:
        draft.finish(METRICS, HeldOut(None, grouped))
    assert artifact.read_held_out(tmp_path / "run").validation.groups.tolist() == [0, 0, 1, 1, 2, 2]
