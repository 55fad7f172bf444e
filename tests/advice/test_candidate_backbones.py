"""Which pretrained backbones are considered."""

import pytest

import tiny_networks
from crossroads.advice.candidate_backbones import candidate_backbones
from crossroads.errors import RecipeError
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


def test_missing_weights_are_reported_without_the_address(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("CROSSROADS_WEIGHTS_URL", "http://127.0.0.1:9")
    backbones, notes = considered([], [])
    assert not backbones
    assert (notes[0].code, notes[0].figures["backbone"]) == ("weights-unavailable", "mobilenet-v2")
    assert "127.0.0.1" not in notes[0]
