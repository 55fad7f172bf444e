"""Covers `load_pretrained`: from the field `weights` to a backbone with weights."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from weight_files import save_torch

from conftest import SHARED
from crossroads.errors import WeightsError
from crossroads.networks.catalog import backbone
from crossroads.networks.weights import store
from crossroads.networks.weights.pretrained import load_pretrained
from refusals import refused
from serving import serving

pytestmark = pytest.mark.core
SQUEEZENET = "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))


@pytest.fixture
def shared_weights():
    if not (SHARED / "weights").is_dir():
        pytest.skip("needs the shared weights beside the checkout: ../shared/weights")
    return SHARED / "weights"


def first_kernel(parts):
    return keras.ops.convert_to_numpy(parts.backbone.get_layer("conv1").kernel)


def test_imagenet_weights_are_downloaded_and_assigned(shared_weights, monkeypatch):
    record, seen = backbone("squeezenet"), []
    parts = record.build(64)
    with serving({SQUEEZENET: (shared_weights / SQUEEZENET).read_bytes()}) as server:
        monkeypatch.setenv(store.MIRROR, server.address)
        fitted = load_pretrained(parts, record, "imagenet", lambda stage, received, total: seen.append((stage, received / total)))
    assert (fitted.loaded_to, fitted.layers, seen[-1]) == (None, 25, ("weights", 1))
    again = record.build(64)
    load_pretrained(again, record, "imagenet")  # from the cache: the server has stopped
    assert np.array_equal(first_kernel(parts), first_kernel(again))


def test_a_partial_file_is_loaded_up_to_its_end(shared_weights):
    record = backbone("mobilenet")
    fitted = load_pretrained(record.build(64), record, str(shared_weights / "mobilenet_v1_imagenet_to_conv_pw_12.weights.h5"))
    assert fitted.loaded_to == "conv_pw_12_relu"


def test_a_known_file_of_another_backbone_is_refused(shared_weights):
    record = backbone("squeezenet-torchvision")  # it has the same shapes but another preprocessing
    parts = record.build(64)
    before = first_kernel(parts)
    with refused("weights-of-another-backbone", WeightsError, field="weights"):
        load_pretrained(parts, record, str(shared_weights / SQUEEZENET))
    assert np.array_equal(first_kernel(parts), before)


def state_dict(seed=0):
    """Returns the state dict of torchvision's SqueezeNet 1.1 with its classifier."""
    draw = np.random.default_rng(seed)
    shapes = {"features.0": (64, 3, 3, 3), "classifier.1": (10, 512, 1, 1)}
    channels = 64
    squeezed_to = (16, 16, 32, 32, 48, 48, 64, 64)
    for place, squeezed in zip((3, 4, 6, 7, 9, 10, 11, 12), squeezed_to, strict=True):
        expanded = 4 * squeezed
        fire = f"features.{place}"
        shapes |= {f"{fire}.squeeze": (squeezed, channels, 1, 1), f"{fire}.expand1x1": (expanded, squeezed, 1, 1)}
        shapes |= {f"{fire}.expand3x3": (expanded, squeezed, 3, 3)}
        channels = 2 * expanded
    weights = {f"{name}.weight": draw.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    return weights | {f"{name}.bias": draw.standard_normal(shape[0], dtype=np.float32) for name, shape in shapes.items()}


def test_a_torchvision_state_dict_in_any_order_is_assigned_by_names(tmp_path):
    record, state = backbone("squeezenet-torchvision"), state_dict()
    shuffled = dict(sorted(state.items(), reverse=True))
    parts = record.build(64)
    assert load_pretrained(parts, record, str(save_torch(tmp_path / "w.pth", shuffled))).layers == 25
    kernel = keras.ops.convert_to_numpy(parts.backbone.get_layer("fire9_expand3x3").kernel)
    assert np.array_equal(kernel, state["features.12.expand3x3.weight"].transpose(2, 3, 1, 0))


def test_weights_from_pytorch_need_its_preprocessing(tmp_path):
    path = str(save_torch(tmp_path / "w.pth", state_dict()))
    with refused("weights-preprocessing") as caught:
        load_pretrained(backbone("squeezenet").build(64), backbone("squeezenet"), path)
    assert "squeezenet-torchvision" in (caught.value.hint or "")
    odd = replace(backbone("squeezenet"), name="odd")
    with refused("weights-preprocessing"):
        load_pretrained(odd.build(64), odd, path)


def test_weights_from_pytorch_are_refused_by_a_network_that_scales_differently(tmp_path):
    path = str(save_torch(tmp_path / "w.pth", dict(sorted(state_dict().items(), reverse=True))))
    record = backbone("squeezenet-torchvision")
    scaling = replace(record, name="odd", scaling="none")
    with refused("weights-preprocessing"):
        load_pretrained(record.build(64), scaling, path)
    own = replace(scaling, builder="")  # as in the records of custom networks
    assert load_pretrained(record.build(64), own, path).layers == 25


def test_a_missing_path_is_refused(tmp_path):
    record = backbone("squeezenet")
    with refused("no-such-file", WeightsError):
        load_pretrained(record.build(64), record, str(tmp_path / "none.h5"))
