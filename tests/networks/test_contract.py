"""What every backbone of the catalog must do, from its record to the graph that predicts."""

import gc
import zipfile
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from keras import layers

from crossroads.inference import Graph
from crossroads.networks.catalog import CATALOG
from crossroads.networks.cuts import after, cuts, until
from crossroads.networks.export import to_openvino
from crossroads.networks.network import Parts, seeded

LIGHT = {"small-cnn", "quiz-cnn", "alexnet", "squeezenet", "squeezenet-torchvision", "mobilenet", "mobilenet-v3-small"}
"""In the ordinary run; `make test-real` has all."""

EXPORTED = {"small-cnn", "quiz-cnn", "alexnet", "squeezenet", "mobilenet-v3-small"}
"""Those that are converted in the ordinary run: all kinds of layers that are not Keras' usual ones."""


CORE = {"small-cnn", "quiz-cnn", "alexnet"}
"""Those that also run on JAX, which compiles each operation for each shape: a deep network takes half a minute."""


def marked(names, core=frozenset()):
    def marks(name):
        return [pytest.mark.real] * (name not in names) + [pytest.mark.core] * (name in core)

    return [pytest.param(r, id=r.name, marks=marks(r.name)) for r in CATALOG]


def run(model, values):
    """Layer by layer: compiling a graph for two images takes longer."""
    return keras.ops.convert_to_numpy(model(values, training=False))


@dataclass
class Whole:
    """A backbone with random weights, at its smallest size, and all of it from uint8 images to features."""

    parts: Parts
    model: keras.Model
    images: np.ndarray

    def floats(self):
        """What the backbone takes, for these images."""
        x = self.images.astype("float32")
        for layer in self.parts.preprocessing:
            x = layer(x)
        return x

    def features(self):
        return run(self.model, self.images)


@pytest.fixture(scope="module")
def built(request):
    """The last one is kept: parameters of a module come one after the other."""
    record = request.param
    size = record.limits[0]
    with seeded(0):
        parts = record.build(size)
    images = keras.Input((size, size, 3), dtype="uint8")
    x = layers.Rescaling(1.0)(images)
    for layer in parts.preprocessing:
        x = layer(x)
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    yield Whole(parts, keras.Model(images, parts.backbone(x)), pixels)
    keras.backend.clear_session()
    gc.collect()


each = pytest.mark.parametrize("built", marked(LIGHT, CORE), indirect=True)


def close(found, expected, tolerance):
    assert found.shape == expected.shape
    assert np.isfinite(expected).all()
    assert difference(found, expected) <= tolerance


def difference(found, expected):
    """Largest difference, relative to the largest value."""
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-6))


@each
def test_it_builds_with_one_input_and_one_output(built):
    size = built.images.shape[1]
    assert built.parts.backbone.input_shape == (None, size, size, 3)
    assert len(built.parts.backbone.output_shape) in (2, 4)
    assert not any(layer.weights for layer in built.parts.preprocessing)


@each
def test_features_differ_from_image_to_image(built):
    first, second = built.features()
    assert np.isfinite(first).all()
    assert not np.array_equal(first, second)


@each
def test_cuts_compose_exactly(built):
    found = cuts(built.parts.backbone)
    assert found
    assert found[-1].shape == built.parts.backbone.output_shape[1:]
    floats = built.floats()
    whole = run(built.parts.backbone, floats)
    for cut in {found[0], found[len(found) // 2]} - {found[-1]}:
        below, above = until(built.parts.backbone, cut), after(built.parts.backbone, cut)
        features = run(below, floats)
        assert features.shape[1:] == cut.shape
        np.testing.assert_allclose(run(above, features), whole, rtol=1e-5, atol=1e-5 * np.abs(whole).max())


@each
def test_it_saves_and_loads_in_safe_mode(built, tmp_path):
    built.model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        assert b'"crossroads' not in file.read("config.json")  # so it also loads where Crossroads is not installed
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    close(run(loaded, built.images), built.features(), 1e-6)


@pytest.mark.parametrize("built", marked(EXPORTED), indirect=True)
def test_the_inference_graph_agrees(built, tmp_path):
    to_openvino(built.model, tmp_path / "graph.xml")
    graph = Graph(tmp_path / "graph.xml")
    found, expected = graph(built.images), built.features()
    if difference(found, expected) > 1e-3 and difference(rounded_otherwise(built), expected) > 1e-3:
        pytest.skip("its random weights amplify rounding so far that Keras does not agree with itself")
    close(found, expected, 1e-3)


def rounded_otherwise(built):
    """What Keras computes where each weight is as much as its rounding error off."""
    rng, before = np.random.default_rng(0), built.model.get_weights()
    try:
        built.model.set_weights([(w * (1 + 6e-8 * rng.standard_normal(w.shape))).astype(w.dtype) for w in before])
        return built.features()
    finally:
        built.model.set_weights(before)
