"""Covers preprocessing: each kind computes what Keras, torchvision or its description says."""

import keras
import numpy as np
import pytest

from crossroads.errors import BackboneError
from crossroads.inference import runtime
from crossroads.networks.catalog import CATALOG
from crossroads.networks.export import converted
from crossroads.networks.network import Parts, prepared
from crossroads.networks.preprocessing import layers_of
from crossroads.networks.records import PREPROCESSINGS
from refusals import refused

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3)).astype("float32")
MODULES = {"tf": "mobilenet_v2", "caffe": "resnet50", "torch": "densenet", "none": "efficientnet_v2"}


def preprocess(kind, pixels=PIXELS):
    x = pixels
    for layer in layers_of(kind):
        x = layer(x)
    return keras.ops.convert_to_numpy(x)


@pytest.mark.core
@pytest.mark.parametrize("kind", MODULES)
def test_kinds_of_keras_compute_what_keras_computes(kind):
    expected = getattr(keras.applications, MODULES[kind]).preprocess_input(PIXELS.copy())
    np.testing.assert_allclose(preprocess(kind), expected, atol=1e-4)


def test_the_torch_kind_uses_the_constants_of_torchvision():
    expected = (PIXELS / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(preprocess("torch"), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("bvlc", PIXELS[..., ::-1] - (104.00698793, 116.66876762, 122.67891434)),
        ("clip", (PIXELS / 255 - (0.48145466, 0.4578275, 0.40821073)) / (0.26862954, 0.26130258, 0.27577711)),
        ("lite", (PIXELS - 127) / 128),
        ("centre", PIXELS / 255 - 0.5),
        ("each", (PIXELS - PIXELS.mean(axis=(1, 2, 3), keepdims=True)) / PIXELS.std(axis=(1, 2, 3), keepdims=True)),
    ],
)
def test_other_kinds_compute_what_their_description_says(kind, expected):
    np.testing.assert_allclose(preprocess(kind), expected, atol=2e-2 if kind == "each" else 1e-4)


@pytest.mark.core
def test_no_kind_has_weights():
    for kind in PREPROCESSINGS:
        assert not any(layer.weights for layer in layers_of(kind))


def test_an_unknown_kind_gets_the_nearest_as_a_hint():
    with refused("unknown-preprocessing", BackboneError) as caught:
        layers_of("cafe")
    assert "'caffe'" in caught.value.hint


@pytest.mark.parametrize("record", [record for record in CATALOG if record.application], ids=lambda record: record.name)
def test_each_keras_backbone_has_the_preprocessing_of_its_module(record):
    module = getattr(keras.applications, record.application).__module__.rpartition(".")[2]
    expected = getattr(keras.applications, module).preprocess_input(PIXELS.copy())
    np.testing.assert_allclose(preprocess(record.scaling), expected, atol=1e-4)


def test_the_scaling_of_a_graph_computes_what_the_layers_do():
    from crossroads.inference import evaluate, operations, runtime
    from crossroads.networks.graphs.preprocessing import scaled
    from crossroads.networks.scaling import SCALINGS

    assert set(PREPROCESSINGS) <= set(SCALINGS)
    for kind in PREPROCESSINGS:
        images = operations().parameter([-1, *PIXELS.shape[1:]], np.uint8)
        model = runtime().Model([scaled(images.output(0), SCALINGS[kind])], [images], kind)
        np.testing.assert_allclose(evaluate(model, PIXELS.astype(np.uint8))[0], preprocess(kind), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("kind", PREPROCESSINGS)
def test_a_graph_with_a_map_and_the_flattened_map_as_outputs_computes_what_keras_computes(kind):
    # OpenVINO 2026.4 undoes a flip of the channels by split and concatenate in such a graph.
    images = keras.Input((16, 16, 3))
    pooled = keras.layers.MaxPooling2D(2)(keras.layers.Conv2D(4, 3)(images))
    network = keras.Model(images, [pooled, keras.layers.Flatten()(pooled)])
    pixels = keras.Input((16, 16, 3), dtype="uint8", name="images")
    model = keras.Model(pixels, prepared(Parts(layers_of(kind), network), pixels, network))
    given = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    found = runtime().Core().compile_model(converted(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(given)
    for place, expected in enumerate(model(given)):
        expected = keras.ops.convert_to_numpy(expected)
        np.testing.assert_allclose(found[place], expected, atol=1e-4 * np.abs(expected).max())
