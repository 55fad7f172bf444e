"""Covers the engine: features equal those of Keras, graphs are cached, and Keras replaces a graph that fails or differs."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from crossroads.features import engine as engine_module
from crossroads.features.engine import Engine

SIZE = 8


def model(seed=0, pooled=True, filters=4):
    keras.utils.set_random_seed(seed)
    images = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255, offset=-0.5)(images)
    x = keras.layers.Conv2D(filters, 3, activation="relu")(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x) if pooled else x)


def pixels(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


def expected(network, images):
    return keras.ops.convert_to_numpy(network(images, training=False))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(engine_module, "MEASURE_SECONDS", 0.0)


@pytest.mark.core
@pytest.mark.parametrize("pooled", [True, False])
def test_features_equal_those_of_keras_in_order_for_any_chunks(pooled):
    network, images = model(pooled=pooled), pixels(75)
    engine = Engine(network)
    assert engine.shape == network.output_shape[1:]
    chunks = np.split(images, [0, 1, 1, 40, 74])
    features = np.concatenate(list(engine.stream(chunks)))
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected(network, images), atol=1e-5)
    np.testing.assert_array_equal(features, engine(images))
    assert engine.note is None


def test_openvino_runs_few_batches_at_a_time_on_a_cpu():
    engine = Engine(model())
    engine(pixels(2))
    assert engine.runs_on == "openvino"
    made = []

    def chunks():
        for i in range(200):
            made.append(i)
            yield pixels(engine.batch_size)

    source = engine.stream(chunks())
    next(source)
    assert len(made) < 20
    source.close()
    assert engine(pixels(0)).shape == (0, 4)
    assert list(engine.stream([])) == []


def test_graphs_are_cached(tmp_path, monkeypatch):
    first = Engine(model(), graphs=tmp_path)(pixels(3))
    assert len(list(tmp_path.glob("*/model.xml"))) == 1
    monkeypatch.setattr(engine_module, "to_openvino", lambda *_: pytest.fail("converted again"))
    np.testing.assert_array_equal(Engine(model(), graphs=tmp_path)(pixels(3)), first)


def test_a_cached_graph_that_is_damaged_or_of_another_network_is_replaced(tmp_path):
    Engine(model(), graphs=tmp_path)(pixels(3))
    (kept,) = tmp_path.glob("*/model.xml")
    good = kept.with_suffix(".bin").read_bytes()
    for name, raw in ((".bin", bytes(len(good))), (".bin", b""), (".xml", b"<net")):
        kept.with_suffix(name).write_bytes(raw)
        engine = Engine(model(), graphs=tmp_path)
        np.testing.assert_allclose(engine(pixels(3)), expected(model(), pixels(3)), atol=1e-5)
        assert (engine.runs_on, engine.note) == ("openvino", None)


def test_a_graph_that_another_process_made_meanwhile_stays(tmp_path, monkeypatch):
    real = engine_module.to_openvino

    def slowly(network, path):
        real(network, path)
        monkeypatch.setattr(engine_module, "to_openvino", real)
        Engine(model(), graphs=tmp_path)(pixels(3))
        theirs.extend(kept.stat().st_ino for kept in tmp_path.glob("*/model.xml"))

    theirs = []
    monkeypatch.setattr(engine_module, "to_openvino", slowly)
    engine = Engine(model(), graphs=tmp_path)
    np.testing.assert_allclose(engine(pixels(3)), expected(model(), pixels(3)), atol=1e-5)
    assert [kept.stat().st_ino for kept in tmp_path.glob("*/model.xml")] == theirs
    assert [folder.name for folder in tmp_path.iterdir() if folder.name.startswith(".")] == []


def test_a_folder_without_its_graph_gets_a_new_one(tmp_path):
    Engine(model(), graphs=tmp_path)(pixels(3))
    (kept,) = tmp_path.glob("*/model.xml")
    kept.unlink()
    Engine(model(), graphs=tmp_path)(pixels(3))
    assert kept.exists()


def test_keras_replaces_a_graph_that_differs(monkeypatch):
    other = model(seed=1)
    real = engine_module.to_openvino
    monkeypatch.setattr(engine_module, "to_openvino", lambda _, path: real(other, path))
    engine, network = Engine(model()), model()
    np.testing.assert_allclose(engine(pixels(40)), expected(network, pixels(40)), atol=1e-6)
    assert engine.runs_on == "keras"
    assert engine.note.code == "inference-graph-differs"
    assert engine.note.figures["difference"] > engine.note.figures["tolerance"] == 0.001


def test_a_bug_is_not_taken_for_an_error_of_the_converter(monkeypatch):
    def fails(*_):
        raise TypeError("a bug")

    monkeypatch.setattr(engine_module, "to_openvino", fails)
    with pytest.raises(TypeError, match="a bug"):
        Engine(model())(pixels(5))


def test_a_network_that_cannot_be_exported_runs_on_keras(monkeypatch, caplog):
    def fails(*_):
        raise RuntimeError("OpConversionFailure")

    monkeypatch.setattr(engine_module, "to_openvino", fails)
    engine = Engine(model())
    np.testing.assert_allclose(engine(pixels(5)), expected(model(), pixels(5)), atol=1e-6)
    assert engine.runs_on == "keras"
    assert (engine.note.code, engine.note.figures) == ("inference-graph-failed", {"reason": "OpConversionFailure"})
    (record,) = (record for record in caplog.records if record.name.startswith("crossroads"))
    assert isinstance(record.exc_info[1], RuntimeError)


def test_keras_runs_on_a_gpu(monkeypatch):
    monkeypatch.setattr(engine_module, "has_gpu", lambda: True)
    engine = Engine(model())
    np.testing.assert_allclose(engine(pixels(37)), expected(model(), pixels(37)), atol=1e-6)
    assert (engine.runs_on, engine.note) == ("keras", None)


def test_a_folder_that_is_not_writable_leaves_the_work_to_keras(tmp_path):
    (tmp_path / "file").write_text("")
    engine = Engine(model(), graphs=tmp_path / "file" / "graphs")
    engine(pixels(4))
    assert (engine.runs_on, engine.note.code) == ("keras", "inference-graph-failed")


@pytest.mark.parametrize("pooling", ["average-2", "average-4"])
def test_flattened_maps_with_reversed_channels_equal_those_of_keras(pooling):
    from crossroads.networks.catalog import backbone
    from crossroads.networks.cuts import find
    from crossroads.networks.network import Layout, assemble, head_layers

    parts = backbone("squeezenet").build(48)
    cut = find(parts.backbone, "fire2_concat")
    frozen = assemble(parts, 48, head_layers("linear", 2), Layout(cut, cut, pooling)).frozen
    images = np.random.default_rng(0).integers(0, 256, (5, 48, 48, 3), dtype=np.uint8)
    engine = Engine(frozen)
    features = engine(images)
    assert (engine.runs_on, engine.note) == ("openvino", None)
    np.testing.assert_allclose(features, np.asarray(frozen.predict_on_batch(images)), atol=1e-3 * np.abs(features).max())
