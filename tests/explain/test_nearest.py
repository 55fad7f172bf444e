"""Covers the nearest training images: from the file of the artifact, by the features of its graph."""

import json
import shutil

import numpy as np
import pytest
from explained import frozen, images, random_head, saved

from crossroads import Silent, artifact, fit
from crossroads.artifact import Neighbours
from crossroads.errors import ArtifactError, DataError
from crossroads.explain import Nearest, nearest
from crossroads.explain.nearest import FeaturesOf
from crossroads.inference import Graph
from crossroads.predictor import Predictor
from crossroads.run import neighbours as collected
from pictures import folder_of, stripes
from refusals import refused
from tiny_graphs import convnet

TRAINED = {"strategy": "from-scratch", "backbone": "quiz-cnn", "image_size": 16, "epochs": 1, "batch_size": 16}


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    return frozen(convnet(), tmp_path_factory.mktemp("part"))


def stored(features, thumbnails=None):
    n = len(features)
    names = np.array([f"{number}.png" for number in range(n)])
    return Neighbours(features.astype(np.float16), np.arange(n, dtype=np.int32) % 3, names, thumbnails)


def unit_features(part, pixels):
    rows = Graph.of(part.model)(pixels)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_nearest_images_are_those_with_the_most_similar_features(tmp_path, part):
    colours = np.random.default_rng(2).integers(0, 256, (6, 1, 1, 3))
    pixels = ((images(6) // 4 + 3 * colours) // 4).astype(np.uint8)
    features = unit_features(part, pixels)
    thumbnails = tuple(bytes([number] * (number + 1)) for number in range(6))
    run = saved(tmp_path / "run", part, random_head(part.shape[0], hidden=4), stored(features, thumbnails))
    for row, found in enumerate(nearest(run, pixels, 3)):
        similarities = features @ features[row]
        assert [each.name for each in found] == [f"{number}.png" for number in np.argsort(-similarities)[:3]]
        assert found[0].thumbnail == thumbnails[row]
        assert found[0].label == f"class {row % 3}"
        assert found[0].similarity == pytest.approx(1, abs=1e-3)
    assert len(nearest(run, pixels[:1], 100)[0]) == 6
    with refused("out-of-range", DataError, field="nearest"):
        nearest(run, pixels, 0)


def test_an_artifact_without_training_images_says_so_only_when_asked(tmp_path, part):
    run = saved(tmp_path / "run", part, random_head(part.shape[0]))
    assert Predictor.load(run).probabilities(images(1)).shape == (1, 3)
    with refused("no-neighbours", ArtifactError):
        Nearest(run)


def test_a_damaged_file_of_training_images_is_refused(tmp_path, part):
    run = saved(tmp_path / "run", part, random_head(part.shape[0]), stored(unit_features(part, images(3))))
    path = run / artifact.NEIGHBOURS
    path.write_bytes(path.read_bytes()[:-100])
    with refused("changed-file", ArtifactError):
        Nearest(run)
    path.unlink()
    with refused("unreadable-file", ArtifactError):
        Nearest(run)


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": np.array([0, 9], np.int32)},
        {"labels": np.array([0], np.int32)},
        {"features": np.zeros((2, 3, 1), np.float16)},
        {"names": np.array([1, 2])},
        {"thumbnails": np.zeros(4, np.uint8), "ends": np.array([9, 4])},
        {"thumbnails": np.zeros(4, np.uint8)},
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, part, wrong):
    run = saved(tmp_path / "run", part, random_head(part.shape[0]), stored(unit_features(part, images(2))))
    arrays = dict(np.load(run / artifact.NEIGHBOURS)) | wrong
    draft = shutil.copytree(run, tmp_path / "other")
    np.savez(draft / artifact.NEIGHBOURS, **arrays)
    facts = json.loads((draft / artifact.MANIFEST).read_text())
    del facts["digest"]
    facts["files"][artifact.NEIGHBOURS] = artifact._manifest.file_record(draft / artifact.NEIGHBOURS)
    (draft / artifact.MANIFEST).write_text(artifact._manifest.manifest_text(facts))
    with refused("not-neighbours", ArtifactError):
        Nearest(draft)


def test_a_trained_network_keeps_some_training_images(tmp_path, monkeypatch):
    monkeypatch.setattr(collected, "MOST_COMPUTED", 12)
    pixels, labels = stripes(60)
    data = folder_of(tmp_path / "data", pixels, labels)
    run = fit(data, out=tmp_path / "run", validation=0.2, test_fraction=0.2, keep_thumbnails=True, watcher=Silent(), **TRAINED)
    manifest = artifact.open_verified(run)
    kept = artifact.read_neighbours(manifest)
    assert np.bincount(kept.labels).tolist() == [6, 6]
    assert kept.features.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(kept.features.astype(np.float32), axis=1), 1, atol=2e-3)
    assert all(file.startswith(b"\xff\xd8") for file in kept.thumbnails)
    own = next(data.rglob(kept.names[0].rpartition("/")[2]))
    predictor = Predictor.load(run)
    (found,) = nearest(predictor, pixels[[int(own.stem)]], 1)
    assert (found[0].name, found[0].similarity) == (kept.names[0], pytest.approx(1, abs=1e-3))
    assert FeaturesOf(predictor)(pixels[:0]).shape[0] == 0


def test_many_images_are_drawn_evenly_from_each_class():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    rows = collected._drawn(labels, 32)
    assert np.bincount(labels[rows]).tolist() == [20, 10, 2]
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(collected._drawn(labels, 160), np.arange(160))
    assert collected._room(1280, thumbnails=False) == 19_531
    assert collected._room(64, thumbnails=False) == 20_000
    assert collected._room(1280, thumbnails=True) < 8_000
