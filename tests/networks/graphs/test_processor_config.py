"""Covers ``preprocessor_config.json`` beside a graph: what is read from it, and that `fit` and `predict` both do it."""

import io
import json

import numpy as np
import pytest
from PIL import Image

import crossroads
from crossroads.inference import evaluate
from crossroads.networks.graphs import read_graph
from crossroads.networks.graphs.processor_config import from_config
from crossroads.recipe import Recipe
from tiny_graphs import SIZE, convnet, written
from watchers import Notes

SCALING = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7], "rescale_factor": 1 / 255}
CROPPED = {"do_center_crop": True, "crop_size": {"height": 224, "width": 224}}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param({"size": {"height": 224, "width": 224}, "resample": 2}, (224, "squash", 1, "bilinear"), id="ViT"),
        pytest.param({"size": 224}, (224, "squash", 1, None), id="a number"),
        pytest.param({"size": [224, 224], "resample": 0}, (224, "squash", 1, "nearest"), id="a list"),
        pytest.param({"size": {"shortest_edge": 256}, **CROPPED, "resample": 3}, (224, "crop", 0.875, "bicubic"), id="DINOv2"),
        pytest.param({"size": 224, **CROPPED, "crop_size": 224, "resample": 3}, (224, "crop", 1, "bicubic"), id="old CLIP"),
        pytest.param({"size": 256, **CROPPED, "default_to_square": True}, (224, "squash", 0.875, None), id="old BEiT"),
        pytest.param({"size": {"height": 256, "width": 256}, **CROPPED}, (224, "squash", 0.875, None), id="BEiT"),
        pytest.param(
            {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 1}, (224, "crop", 0.875, "lanczos"), id="ConvNeXt"
        ),
        pytest.param({"size": {"shortest_edge": 384}, "crop_pct": 0.95}, (384, "squash", 1, None), id="large ConvNeXt"),
        pytest.param({"size": {"shortest_edge": 224}, "crop_pct": 0.9, **CROPPED}, (224, "crop", 0.9, None), id="PoolFormer"),
        pytest.param({}, (None, None, None, None), id="only scaling"),
        pytest.param({"do_center_crop": False, "crop_size": 289, "size": 224}, (224, "squash", 1, None), id="no crop"),
    ],
)
def test_size_crop_and_filter(config, expected):
    found = from_config(SCALING | {"do_rescale": True, "do_convert_rgb": True, "image_processor_type": "x"} | config)
    assert (found.size, found.resize, found.crop_fraction, found.resample) == expected
    assert found.not_applied == ()


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        ({"do_pad": True, "pad_size": None, "rescale_offset": True}, ("do_pad", "rescale_offset")),
        ({"do_pad": False}, ()),
        ({"auto_map": {"AutoImageProcessor": "code.Processor"}}, ("auto_map",)),
        ({"size": {"shortest_edge": 800, "longest_edge": 1333}}, ("longest_edge", "shortest_edge without a crop")),
        ({"do_resize": False, "size": 224}, ("do_resize",)),
    ],
)
def test_what_is_not_applied_is_listed(config, keys):
    assert from_config(SCALING | config).not_applied == keys


@pytest.mark.parametrize(
    "config",
    [
        {"size": 224, **CROPPED, "crop_size": 256},
        {"size": {"height": 4, "width": 5}},
        {"size": {"shortest_edge": 224}, "crop_pct": 1.5},
        {"size": {"longest_edge": 224}},
        {"resample": "bicubic"},
        {"resample": 6},
        {"resample": True},
    ],
)
def test_what_is_not_understood_is_refused(config):
    with pytest.raises((ValueError, TypeError)):
        from_config(SCALING | config)


def photos(n, seed=0):
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (40 + row % 3, 60 + row % 5, 3), np.uint8) for row in range(n)]


def png(image):
    with io.BytesIO() as stream:
        Image.fromarray(image).save(stream, "PNG")
        return stream.getvalue()


def test_a_run_resizes_as_the_configuration_says_and_so_does_its_artifact(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path / "cache"))
    path = written(convnet(), tmp_path / "net.xml")
    geometry = {"size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": SIZE, "resample": 3, "do_pad": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(SCALING | geometry))
    images, labels, watcher = photos(40), np.arange(40) % 2, Notes()
    run = crossroads.fit(
        (images, labels), out=tmp_path / "run", strategy="feature-extraction", backbone=str(path), validation=0.25, watcher=watcher
    )
    assert [note.figures["keys"] for note in watcher.said if note.code == "preprocessor-config-not-applied"] == [["do_pad"]]
    manifest = crossroads.load(run.artifact).manifest
    assert manifest.facts["preprocessing"] == {
        **{"size": SIZE, "mode": "crop", "filter": "bicubic", "crop_fraction": 0.8},
        "input": f"uint8 (n, {SIZE}, {SIZE}, 3) RGB",
    }
    recipe = Recipe.from_toml(run.artifact / "recipe.toml")
    assert (recipe.resize, recipe.crop_fraction, recipe.resample) == ("crop", 0.8, "bicubic")

    def by_hand(image):
        """What Hugging Face's image processors do."""
        height, width = image.shape[:2]
        whole = Image.fromarray(image).resize((int(width * 20 / height), 20), Image.Resampling.BICUBIC)
        left, top = (whole.width - SIZE) / 2, (20 - SIZE) / 2
        return np.asarray(whole.crop((left, top, left + SIZE, top + SIZE)))

    from crossroads.inference import read_model

    image = photos(1, seed=7)[0]
    (prediction,) = crossroads.load(run.artifact).predict([png(image)])
    expected = evaluate(read_model(run.artifact / "model.xml"), by_hand(image)[None])[0][0]
    found = {ranked.label: ranked.probability for ranked in prediction.labels}
    np.testing.assert_allclose([found["0"], found["1"]], expected, atol=0.05)


def test_a_graph_that_takes_pixels_is_resized_as_the_configuration_says(tmp_path):
    from crossroads.networks.construct import choose

    path = written(convnet(kind=np.uint8), tmp_path / "net.xml")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(SCALING | {"size": SIZE, "resample": 3}))
    record = choose(str(path)).record
    assert (record.resize, record.crop_fraction, record.resample) == ("squash", 1, "bicubic")
    assert read_graph(path).size == SIZE
