"""Covers the graphs of backbones: made once, kept by what they compute, replaced if damaged, refused if they differ."""

import json

import keras
import numpy as np
import pytest

from crossroads.errors import ArtifactError, BackboneError, FeatureError
from crossroads.features import bodies
from crossroads.features.bodies import body_of
from crossroads.inference import Graph
from crossroads.networks import keras_body, own
from crossroads.networks._once import built_once
from crossroads.networks.construct import choose
from refusals import refused

SIZE = 16


@pytest.fixture
def graphs(monkeypatch, tmp_path):
    """Returns the folder of graphs of a cache of the test's own."""
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path))
    return tmp_path / "graphs"


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(1)
    images = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, use_bias=False, name="conv1")(images)
    x = keras.layers.ReLU(name="relu1")(keras.layers.BatchNormalization(name="norm1")(x))
    return keras.Model(images, keras.layers.Conv2D(6, 3, activation="relu", name="conv2")(x), name="small")


def pixels(n):
    return np.random.default_rng(0).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


def test_every_cut_computes_what_keras_computes(graphs, network):
    body = body_of(choose(network), SIZE, "own")
    assert [tap.cut.name for tap in body.taps] == ["conv1", "norm1", "relu1", "conv2"]
    assert [cut.name for cut in body.cuts] == ["relu1", "conv2"]
    images = pixels(3)
    for tap in body.taps:
        part = keras.Model(network.input, network.get_layer(tap.cut.name).output)
        values = Graph.of(body.until(tap.cut, None).model)(images)
        np.testing.assert_allclose(values, np.asarray(part(images.astype(np.float32))), rtol=1e-4, atol=1e-3)
    joined = body.averages(body.cuts)
    assert joined.shape == (10,)
    averages = [Graph.of(body.until(cut, "average").model)(images) for cut in body.cuts]
    np.testing.assert_allclose(Graph.of(joined.model)(images), np.concatenate(averages, axis=1), rtol=1e-5)


def test_the_graph_of_alexnet_with_a_flattened_output_keeps_the_order_of_the_channels(graphs):
    assert body_of(choose("alexnet"), 67, "none").cuts[-1].name == "relu7"


def test_a_graph_is_made_once(graphs, monkeypatch):
    first = body_of(choose("quiz-cnn"), SIZE, "none", seed=3)
    monkeypatch.setattr(bodies, "build", lambda *_, **__: pytest.fail("built again"))
    again = body_of(choose("quiz-cnn"), SIZE, "none", seed=3)
    assert (again.digest, again.taps, again.end, again.notes) == (first.digest, first.taps, first.end, first.notes)
    assert [note.code for note in again.notes] == ["random-weights"]
    cut = again.end
    np.testing.assert_array_equal(*(Graph.of(body.until(cut, None).model)(pixels(2)) for body in (first, again)))


def test_other_weights_sizes_and_seeds_have_other_graphs(graphs):
    made = [body_of(choose("quiz-cnn"), size, "none", seed) for size, seed in ((SIZE, 0), (SIZE, 1), (20, 0))]
    assert len({body.digest for body in made}) == 3
    assert len(list(graphs.glob("*/body.xml"))) == 3


@pytest.mark.parametrize("name", ["body.json", "body.xml", "body.bin"])
def test_a_damaged_graph_is_replaced(graphs, network, name):
    good = body_of(choose(network), SIZE, "own")
    expected = Graph.of(good.until(good.end, None).model)(pixels(2))
    (folder,) = (path.parent for path in graphs.glob("*/body.xml"))
    (folder / name).write_bytes(b"{")
    body = body_of(choose(network), SIZE, "own")
    np.testing.assert_array_equal(Graph.of(body.until(body.end, None).model)(pixels(2)), expected)
    assert json.loads((folder / "body.json").read_text())["end"] == "conv2"
    assert [path for path in graphs.iterdir() if path.name.startswith(".")] == []


def test_the_graph_of_a_faster_process_stays(graphs, network, monkeypatch):
    real, theirs = keras_body.write_body, []

    def slowly(*arguments):
        monkeypatch.setattr(keras_body, "write_body", real)
        body_of(choose(network), SIZE, "own")
        theirs.extend(path.stat().st_ino for path in graphs.glob("*/body.json"))
        return real(*arguments)

    monkeypatch.setattr(keras_body, "write_body", slowly)
    body_of(choose(network), SIZE, "own")
    assert [path.stat().st_ino for path in graphs.glob("*/body.json")] == theirs


def test_a_graph_that_computes_something_else_is_refused(graphs, network, monkeypatch):
    real = keras_body.to_openvino
    other = keras.models.clone_model(network)
    whole = keras_body._whole

    def wrong(_, path):
        parts = keras_body.Parts((), other)
        outputs = [other.get_layer(name).output for name in ("conv1", "norm1", "relu1", "conv2")]
        real(whole(parts, SIZE, outputs), path)

    monkeypatch.setattr(keras_body, "to_openvino", wrong)
    with refused("graph-disagrees", ArtifactError, field="backbone"):
        body_of(choose(network), SIZE, "own")
    assert not list(graphs.glob("*/body.xml"))


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, tmp_path, network):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FeatureError):
        body_of(choose(network), SIZE, "own")


def test_weights_own_are_those_of_a_custom_network(graphs):
    with refused("own-weights-of-the-catalog", BackboneError):
        body_of(choose("quiz-cnn"), SIZE, "own")


def counted(monkeypatch, module, name):
    """Counts the calls of a function of a module."""
    calls, before = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args, **options: calls.append(args) or before(*args, **options))
    return calls


@pytest.mark.parametrize("kind", ["object", "file", "function"])
def test_a_custom_network_is_built_once_in_a_run(graphs, network, monkeypatch, tmp_path, kind):
    network.save(tmp_path / "small.keras")
    source = {"object": network, "file": str(tmp_path / "small.keras"), "function": lambda: network}[kind]
    built, copied = counted(monkeypatch, own, "own_backbone"), counted(monkeypatch, bodies, "build")
    with built_once():
        found = [body_of(choose(source), SIZE, "own") for _ in range(3)]  # each step of a run looks the backbone up
    assert (len(built), len(copied)) == (1, 1)
    assert len({id(body.model) for body in found}) == 1
    body_of(choose(source), SIZE, "own")
    assert len(copied) == 2  # nothing is kept after the run


def test_weights_that_were_changed_between_two_runs_are_seen(graphs, network):
    def digest():
        with built_once():
            return body_of(choose(network), SIZE, "own").digest

    first, weights = digest(), network.get_weights()
    network.set_weights([weight + 1 for weight in weights])
    changed = digest()
    network.set_weights(weights)
    assert changed != first == digest()


def test_random_weights_of_a_custom_network_depend_on_the_seed_alone(graphs, network):
    with built_once():
        first, again = (body_of(choose(network), SIZE, "none", seed=5).digest for _ in range(2))
        other = body_of(choose(network), SIZE, "none", seed=6).digest
    assert first == again == body_of(choose(network), SIZE, "none", seed=5).digest != other
