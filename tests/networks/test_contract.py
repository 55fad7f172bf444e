"""Covers what every backbone of the catalog, and every preset of KerasHub, must do: build, cut, save, load and convert."""

import json
import zipfile
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from keras import layers

from crossroads.inference import Graph
from crossroads.networks.catalog import CATALOG
from crossroads.networks.construct import build, choose
from crossroads.networks.cuts import after, cuts, until
from crossroads.networks.export import to_openvino
from crossroads.networks.hub_layer import HubLayer
from crossroads.networks.network import Parts, all_layers, seeded
from tiny_presets import BUILDERS, SIZE

LIGHT = {
    "small-cnn",
    "quiz-cnn",
    "alexnet",
    "squeezenet",
    "mobilenet-v3-small",
    "efficientnet-lite0",
}
"""Backbones of the ordinary run. `make test-real` runs all."""

EXPORTED = {"small-cnn", "quiz-cnn", "alexnet", "squeezenet", "mobilenet-v3-small", "efficientnet-lite0"}
"""Backbones that the ordinary run converts. They contain all unusual kinds of layers."""


CORE = {"small-cnn", "quiz-cnn", "alexnet"}
"""Backbones that also run on JAX, which compiles each operation for each shape: a deep network takes half a minute."""


PRESETS = [pytest.param(kind, id=f"keras-hub {kind}") for kind in BUILDERS]


def marked(names, core=frozenset()):
    def marks(name):
        return [pytest.mark.real] * (name not in names) + [pytest.mark.core] * (name in core)

    return [pytest.param(r, id=r.name, marks=marks(r.name)) for r in CATALOG]


def run(model, values):
    """Runs a model layer by layer, because compiling a graph for two images takes longer."""
    return keras.ops.convert_to_numpy(model(values, training=False))


@dataclass
class Whole:
    """A backbone with random weights at its smallest size, and the model from uint8 images to its features."""

    parts: Parts
    model: keras.Model
    images: np.ndarray

    def floats(self):
        """Returns the input of the backbone for these images."""
        x = self.images.astype("float32")
        for layer in self.parts.preprocessing:
            x = layer(x)
        return x

    def features(self):
        return run(self.model, self.images)


@pytest.fixture(scope="module")
def built(request, shared_preset):
    """Builds the backbone once for all tests, because pytest runs the tests of one parameter of a module in a row."""
    with seeded(0):
        if isinstance(request.param, str):
            size, parts = SIZE, build(choose(shared_preset(request.param)), SIZE, weights=None).parts
        else:
            size = request.param.limits[0]
            parts = request.param.build(size)
    images = keras.Input((size, size, 3), dtype="uint8")
    x = layers.Rescaling(1.0)(images)
    for layer in parts.preprocessing:
        x = layer(x)
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    yield Whole(parts, keras.Model(images, parts.backbone(x)), pixels)
    keras.backend.clear_session()  # it also collects the garbage


each = pytest.mark.parametrize("built", [*marked(LIGHT, CORE), *PRESETS], indirect=True)


def assert_close(actual, expected, tolerance):
    assert actual.shape == expected.shape
    assert np.isfinite(expected).all()
    assert difference(actual, expected) <= tolerance


def difference(actual, expected):
    """Returns the largest difference relative to the largest value."""
    return float(np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-6))


@each
def test_a_backbone_has_one_input_and_one_output(built):
    size = built.images.shape[1]
    assert built.parts.backbone.input_shape == (None, size, size, 3)
    assert len(built.parts.backbone.output_shape) in (2, 3, 4)
    assert not any(layer.weights for layer in built.parts.preprocessing)


@each
def test_features_differ_between_images(built):
    first, second = built.features()
    assert np.isfinite(first).all()
    assert not np.array_equal(first, second)


@each
def test_cuts_compose_exactly(built):
    all_cuts = cuts(built.parts.backbone)
    assert all_cuts
    assert all_cuts[-1].shape == built.parts.backbone.output_shape[1:]
    floats = built.floats()
    whole = run(built.parts.backbone, floats)
    for cut in {all_cuts[0], all_cuts[len(all_cuts) // 2]} - {all_cuts[-1]}:
        below, above = until(built.parts.backbone, cut), after(built.parts.backbone, cut)
        features = run(below, floats)
        assert features.shape[1:] == cut.shape
        np.testing.assert_allclose(run(above, features), whole, rtol=1e-5, atol=1e-5 * np.abs(whole).max())


@each
def test_a_backbone_saves_and_loads_in_safe_mode(built, tmp_path):
    built.model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        config = json.loads(file.read("config.json"))
    if not any(isinstance(layer, HubLayer) for layer in all_layers(built.parts.backbone)):
        assert '"crossroads' not in json.dumps(config)  # so it also loads where Crossroads is not installed
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert_close(run(loaded, built.images), built.features(), 1e-6)


@pytest.mark.parametrize("built", [*marked(EXPORTED), *PRESETS], indirect=True)
def test_the_inference_graph_agrees(built, tmp_path):
    to_openvino(built.model, tmp_path / "graph.xml")
    graph = Graph(tmp_path / "graph.xml")
    actual, expected = graph(built.images), built.features()
    if difference(actual, expected) > 1e-3 and difference(with_rounding_errors(built), expected) > 1e-3:
        pytest.skip("random weights amplify rounding errors so much that Keras does not agree with itself")
    assert_close(actual, expected, 1e-3)


def with_rounding_errors(built):
    """Returns the features that Keras computes after each weight has changed by about its rounding error."""
    rng, before = np.random.default_rng(0), built.model.get_weights()
    try:
        built.model.set_weights([(w * (1 + 6e-8 * rng.standard_normal(w.shape))).astype(w.dtype) for w in before])
        return built.features()
    finally:
        built.model.set_weights(before)
