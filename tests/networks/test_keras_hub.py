"""Covers presets of KerasHub: their sizes, preprocessing, cuts at blocks, savable layers and refusals."""

import importlib.util
import json
from functools import cache

import keras
import numpy as np
import pytest

from crossroads.errors import BackboneError
from crossroads.networks.construct import build, choose
from crossroads.networks.cuts import blocks, cuts
from crossroads.networks.keras_hub import preset_parts
from crossroads.networks.pooling import pool
from refusals import refused
from tiny_presets import BUILDERS, SIZE, preset


@pytest.fixture(scope="module")
def parts_of(shared_preset):
    """Returns a function from a kind of preset to its parts. Each is loaded once, and no test changes it."""
    return cache(lambda kind: preset_parts(shared_preset(kind), SIZE))


@pytest.fixture(scope="module")
def built(shared_preset):
    """Returns a function from a kind of preset to the backbone built from it, with its own weights. No test changes it."""
    return cache(lambda kind: build(choose(shared_preset(kind)), SIZE, weights="own"))


def values(model, images):
    return keras.ops.convert_to_numpy(model(images, training=False))


@pytest.mark.parametrize(
    ("kind", "limits"), [("resnet", (8, 2048)), ("vit", (SIZE, SIZE)), ("dinov2", (8, 2048)), ("siglip", (SIZE, SIZE))]
)
def test_the_size_is_that_of_the_image_converter(shared_preset, kind, limits):
    record = choose(shared_preset(kind)).record
    assert (record.sizes, record.limits, record.trainable) == ((SIZE,), limits, True)


@pytest.mark.parametrize("kind", BUILDERS)
def test_the_weights_and_the_scaling_are_those_of_the_preset(shared_preset, built, kind):
    hub = pytest.importorskip("keras_hub")
    parts = built(kind).parts
    backbone = hub.models.Backbone.from_preset(shared_preset(kind).removeprefix("keras-hub:"))
    network = getattr(backbone, "vision_encoder", backbone)
    images = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype("float32")
    (scaled,) = (layer(images) for layer in parts.preprocessing)
    np.testing.assert_allclose(scaled, images / 127.5 + np.float32([-1, -1, -0.5]), atol=1e-5)
    expected = values(keras.Model(network.inputs[0], network.outputs[0]), scaled)
    np.testing.assert_allclose(values(parts.backbone, scaled), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "shapes", "prefix"),
    [
        ("resnet", [(8, 8, 64), (8, 8, 64), (4, 4, 64)], 0),
        ("vit", [(17, 16)] * 3, 1),
        ("dinov2", [(21, 16)] * 3, 5),
        ("siglip", [(16, 16)] * 3 + [(16,)], 0),
    ],
)
def test_each_block_is_a_cut_and_a_group_of_layers(parts_of, kind, shapes, prefix):
    parts = parts_of(kind)
    assert [cut.shape for cut in cuts(parts.backbone)] == shapes
    assert parts.prefix == prefix
    assert len(blocks(parts.backbone)) == len(shapes)


def test_random_weights_are_new_ones(shared_preset, built):
    choice = choose(shared_preset("vit"))
    kept, again, fresh = built("vit"), *(build(choice, SIZE, weights=weights) for weights in ("own", None))
    assert kept.digest == again.digest != fresh.digest


def test_a_position_embedding_is_fitted_to_another_size(shared_preset):
    parts = preset_parts(shared_preset("dinov2"), 64)
    assert parts.backbone.output_shape == (None, 5 + 64, 16)
    assert parts.prefix == 5


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_the_tokens_of_the_patches_and_the_class_token_are_pooled(parts_of, kind):
    parts = parts_of(kind)
    tokens = keras.Input(parts.backbone.output_shape[1:])
    drawn = np.random.default_rng(0).standard_normal((2, *tokens.shape[1:])).astype("float32")
    average = drawn[:, parts.prefix :].mean(axis=1)
    expected = {"class-token": drawn[:, 0], "average": average, "class-and-average": np.hstack([drawn[:, 0], average])}
    for pooling, wanted in expected.items():
        np.testing.assert_allclose(values(keras.Model(tokens, pool(tokens, pooling, parts.prefix)), drawn), wanted, atol=1e-6)


def test_a_missing_preset_has_the_nearest_name_as_a_hint():
    pytest.importorskip("keras_hub")
    with refused("unknown-preset", BackboneError, field="backbone") as caught:
        choose("keras-hub:vit_base_patch16_224_imagenett")
    assert "vit_base_patch16_224_imagenet'" in caught.value.hint


def test_a_preset_without_an_image_converter_is_refused(tmp_path):
    with refused("no-image-converter", BackboneError, field="backbone"):
        choose(preset("vit", tmp_path, converter=False))


def test_a_preset_for_text_is_refused(tmp_path):
    hub = pytest.importorskip("keras_hub")
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 8, "max_sequence_length": 8}
    hub.models.BertBackbone(vocabulary_size=16, **sizes).save_to_preset(str(tmp_path))
    with refused("not-an-image-preset", BackboneError, field="backbone"):
        choose(f"keras-hub:{tmp_path}")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"registered_name": "os>system", "class_name": "system", "module": "os", "config": {}}']
)
def test_a_broken_or_hostile_folder_is_one_clear_error(tmp_path, text):
    pytest.importorskip("keras_hub")
    (tmp_path / "config.json").write_text(text)
    with refused("preset-not-loadable", BackboneError, field="backbone") as caught:
        choose(f"keras-hub:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_cut_off_weights_are_one_clear_error(tmp_path):
    named = preset("vit", tmp_path)
    weights = tmp_path / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[:5000])
    with refused("preset-not-loadable", BackboneError, field="backbone"):
        build(choose(named), SIZE, weights="own")


def test_a_download_without_a_network_is_one_clear_error(monkeypatch):
    hub = pytest.importorskip("keras_hub")

    def unreachable(preset, **options):
        raise ConnectionError("HTTPSConnectionPool: Max retries exceeded\nmore")

    monkeypatch.setattr(hub.models.Backbone, "from_preset", unreachable)
    with refused("preset-not-downloaded", BackboneError, field="backbone") as caught:
        choose("keras-hub:vit_base_patch16_224_imagenet")
    assert "\n" not in str(caught.value)


def test_without_the_extra_its_name_is_in_the_hint(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with refused("keras-hub-not-installed", BackboneError, field="backbone") as caught:
        choose("keras-hub:vit_base_patch16_224_imagenet")
    assert ".[keras-hub]" in caught.value.hint


def test_a_saved_layer_can_only_be_one_of_keras_hub(parts_of):
    layer = parts_of("vit").backbone.get_layer("vit_patching_and_embedding")
    saved = keras.saving.serialize_keras_object(layer)
    assert type(keras.saving.deserialize_keras_object(saved, safe_mode=True).inner()) is type(layer.inner())
    for module, kind in (("subprocess", "Popen"), ("keras_hub.src.utils.preset_utils", "os"), ("keras.layers", "Lambda")):
        other = json.loads(json.dumps(saved))
        other["config"] |= {"module": module, "kind": kind, "arguments": {}}
        with pytest.raises(TypeError, match="must exist in the installed version"):  # Keras wraps the error
            keras.saving.deserialize_keras_object(other, safe_mode=True)
