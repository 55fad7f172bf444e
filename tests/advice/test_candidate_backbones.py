"""Which pretrained backbones are considered."""

import pytest

import tiny_networks
from crossroads.advice.candidate_backbones import candidate_backbones
from crossroads.errors import RecipeError
from crossroads.progress import Silent
from refusals import refused
from watchers import Notes

pytestmark = pytest.mark.core


def named(*arguments, **options):
    watcher = Notes()
    return [
        (offer.choice.record.name, offer.weights, offer.named) for offer in candidate_backbones(*arguments, watcher, **options)
    ], watcher.said


def test_backbones_that_are_named_come_with_imagenet_or_with_what_is_named_beside_them():
    assert named(["mobilenet", "resnet50"], [])[0] == [("mobilenet", "imagenet", True), ("resnet50", "imagenet", True)]
    assert named(["mobilenet", "resnet50"], ["a.h5"])[0] == [("mobilenet", "a.h5", True), ("resnet50", "a.h5", True)]
    assert named(["mobilenet", "resnet50"], ["a.h5", None])[0] == [("mobilenet", "a.h5", True), ("resnet50", "imagenet", True)]


def test_a_backbone_without_pretrained_weights_is_left_out_and_told_where_the_user_asked_for_advice():
    assert named(["small-cnn"], []) == ([], [])
    found, said = named(["small-cnn"], [], own=True)
    assert not found
    assert said == ["small-cnn has no pretrained weights, and is not considered; name some with --weights"]


def test_a_network_of_ones_own_is_pretrained_if_the_user_asked_for_advice_on_it():
    model = tiny_networks.tiny()
    assert named([model], [])[0] == []
    assert [of for _, of, _ in named([model], [], own=True)[0]] == ["own"]


def test_weights_need_a_backbone():
    with refused("weights-without-backbone", RecipeError, hint="add backbone NAME"):
        candidate_backbones((), ("a.h5",), Silent())
    with refused("weights-without-backbone", RecipeError, hint="add backbone mobilenet"):
        candidate_backbones((), ("there/mobilenet_1_0_224_tf_no_top.h5",), Silent())


def test_missing_weights_are_reported_with_what_they_would_allow(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("CROSSROADS_WEIGHTS_URL", "http://127.0.0.1:9")
    found, said = named([], [])
    assert not found
    assert said[0].startswith("no pretrained network is considered")
    assert "`crossroads weights list`" in said[0]
    assert "127.0.0.1" not in said[0]
