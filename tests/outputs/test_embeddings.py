"""Covers tables of features: those of an artifact and of a backbone, their labels, and continuing after an interruption."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from crossroads import artifact
from crossroads.data.readers.unlabelled import list_images
from crossroads.errors import ArtifactError, DataError, WeightsError
from crossroads.outputs import _journal
from crossroads.outputs.embeddings import embed_files, extractor, list_data
from crossroads.progress import Silent
from killing import Killed
from pictures import folder_of, stripes
from refusals import refused
from tiny_artifact import contents, model
from watchers import Notes


@pytest.fixture(scope="module")
def network():
    return model()


@pytest.fixture(scope="module")
def run(tmp_path_factory, network) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "run"
    artifact.write(folder, contents(network), {})
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Returns 40 images in class folders and a broken one."""
    folder = folder_of(tmp_path_factory.mktemp("data") / "stripes", *stripes(40, size=8))
    (folder / "level" / "broken.png").write_bytes(b"broken")
    return folder


def read_table(path: Path) -> dict[str, list]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            return {name: list(stored[name]) for name in stored.files}
    return pytest.importorskip("pyarrow.parquet").read_table(path).to_pydict()


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_features_are_what_the_last_layer_receives(run, network, data, tmp_path, suffix):
    out = tmp_path / f"features{suffix}"
    written = embed_files(extractor(run, Silent()), list_data(str(data), Silent()), out=out, watcher=Silent())
    table = read_table(out)
    assert (written.images, written.refused, len(table["path"])) == (41, 1, 41)
    readable = [row for row, error in enumerate(table["error"]) if not error]
    images = np.stack([np.asarray(Image.open(table["path"][row])) for row in readable])
    expected = keras.ops.convert_to_numpy(keras.Model(network.input, network.layers[-1].input)(images, training=False))
    found = np.array([table["features"][row] for row in readable], np.float32)
    assert np.abs(found - expected).max() < 1e-5
    assert [table["label"][row] for row in readable] == [Path(table["path"][row]).parent.name for row in readable]


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_an_interrupted_table_is_continued_to_the_same_values(run, data, tmp_path, monkeypatch, suffix):
    out, source = tmp_path / f"features{suffix}", extractor(run, Silent())
    monkeypatch.setattr(_journal, "CHECKPOINT_SECONDS", 0)

    class StopAfterABlock(Silent):
        def progress(self, stage, done, total):
            if 0 < done < total:
                raise Killed

    with pytest.raises(Killed):
        embed_files(source, list_data(str(data), Silent()), out=out, watcher=StopAfterABlock())
    assert embed_files(source, list_data(str(data), Silent()), out=out, watcher=Silent()).continued
    embed_files(source, list_data(str(data), Silent()), out=out.with_stem("whole"), watcher=Silent())
    ours, whole = read_table(out), read_table(out.with_stem("whole"))
    assert ours["path"] == whole["path"]
    assert str(ours["features"]) == str(whole["features"])


def test_images_without_labels_have_none(run, data, tmp_path):
    shutil.copytree(data / "level", tmp_path / "flat")
    watcher = Notes()
    listed = list_data(str(tmp_path / "flat"), watcher)
    assert [note.code for note in watcher.said] == ["labels-unknown"]
    embed_files(extractor(run, Silent()), listed, out=tmp_path / "features.npz", watcher=Silent())
    assert set(read_table(tmp_path / "features.npz")["label"]) == {""}
    assert [image.name for image in listed] == [image.name for image in list_images([tmp_path / "flat"])]


def test_the_names_of_a_data_set_are_those_of_its_listing(data, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "data"), "zip", data)
    for source in (str(data), archive):
        labelled, plain = list_data(source, Silent()), list_images([source])
        assert sorted(image.name for image in labelled) == sorted(image.name for image in plain)


def test_a_backbone_gives_its_pooled_features(data, tmp_path):
    source = extractor("efficientnet-lite0", Silent())
    assert (source.resize.size, source.graph.shape) == (224, (1280,))
    embed_files(source, list_images([data / "level" / "0000.png"]), out=tmp_path / "features.npz", watcher=Silent())
    (features,) = read_table(tmp_path / "features.npz")["features"]
    assert np.isfinite(features).all()
    assert features.std() > 0


def test_what_has_no_features_is_refused(run, data, tmp_path):
    with refused("no-pretrained-weights", WeightsError):
        extractor("quiz-cnn", Silent())
    with refused("not-an-artifact", ArtifactError):
        extractor(data, Silent())
    with refused("unknown-output-format", DataError):
        embed_files(extractor(run, Silent()), list_images([data]), out=tmp_path / "features.csv", watcher=Silent())
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1.0)(inputs))
    artifact.write(tmp_path / "run", contents(keras.Model(inputs, keras.layers.Softmax()(pooled)), classes=("r", "g", "b")), {})
    with refused("no-dense-layer", ArtifactError):
        extractor(tmp_path / "run", Silent())
