"""Covers locating a network in a file: below any prefix, in any dict of a checkpoint, and an error if two networks fit."""

import keras
import numpy as np
import pytest
from keras import layers
from weight_files import save_npy, save_safetensors, save_torch, save_torch_legacy, tensors

from crossroads.errors import WeightsError
from crossroads.networks.catalog import backbone
from crossroads.networks.construct import build, choose
from crossroads.networks.weights.assign import assign_weights
from crossroads.networks.weights.pretrained import load_pretrained
from crossroads.networks.weights.read import read_weights
from crossroads.networks.weights.torchvision import NAMES
from refusals import refused

pytestmark = pytest.mark.core


def network(named=True):
    """Returns a convolution, BatchNorm and a convolution with bias. The layers have PyTorch's names with dots."""
    names = ["stem.conv", "stem.norm", "block.conv"] if named else [None] * 3
    images = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, use_bias=False, name=names[0])(images)
    x = layers.BatchNormalization(name=names[1])(x)
    return keras.Model(images, layers.Conv2D(5, 1, name=names[2])(x), name="tiny")


def state(seed=0, prefix=""):
    """Returns a state dict of that network, with a head."""
    draw = np.random.default_rng(seed)
    shapes = {
        "stem.conv.weight": (4, 3, 3, 3),
        **{f"stem.norm.{role}": (4,) for role in ("weight", "bias", "running_mean", "running_var")},
        "block.conv.weight": (5, 4, 1, 1),
        "block.conv.bias": (5,),
        "head.weight": (2, 5),
        "head.bias": (2,),
    }
    return {prefix + name: draw.random(shape, np.float32) + 0.1 for name, shape in shapes.items()}


def holds(model, arrays):
    kernels = [model.layers[1].weights[0], model.layers[3].weights[0]]
    wanted = [arrays["stem.conv.weight"].transpose(2, 3, 1, 0), arrays["block.conv.weight"].transpose(2, 3, 1, 0)]
    equal = all(np.array_equal(keras.ops.convert_to_numpy(kernel), array) for kernel, array in zip(kernels, wanted, strict=True))
    return equal and np.array_equal(keras.ops.convert_to_numpy(model.layers[2].moving_mean), arrays["stem.norm.running_mean"])


def save_npz(path, arrays):
    np.savez(path, **arrays)
    return path


def checkpoint(path, content):
    """Writes dicts within dicts of arrays as ``torch.save`` does."""
    storages = {}

    def stored(value):
        if isinstance(value, dict):
            return {name: stored(inner) for name, inner in value.items()}
        if not isinstance(value, np.ndarray):
            return value
        made, held = tensors({"": value})
        storage = next(iter(held.values()))
        storage.key = str(len(storages))
        storages[storage.key] = storage
        return made[""]

    return save_torch(path, content=stored(content), storages=storages)


SAVERS = {"w.pth": save_torch, "old.pt": save_torch_legacy, "w.safetensors": save_safetensors, "w.npz": save_npz, "w.npy": save_npy}
PREFIXES = ("", "module.", "model.", "_orig_mod.", "net.", "backbone.", "encoder.", "model._orig_mod.module.", "student.0.trunk.")


@pytest.mark.parametrize("file", SAVERS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_of_every_name_is_ignored_in_every_format(tmp_path, file, prefix):
    model = network()
    fitted = assign_weights(model, read_weights(SAVERS[file](tmp_path / file, state(prefix=prefix))))
    assert (fitted.loaded_to, fitted.layers, fitted.notes) == (None, 3, ())
    assert holds(model, state())


@pytest.mark.parametrize("file", SAVERS)
def test_arrays_without_the_prefix_are_ignored(tmp_path, file):
    arrays = {"n_averaged": np.array([3]), **state(prefix="module."), "loss.weight": np.ones(2, np.float32)}
    model = network()
    assert assign_weights(model, read_weights(SAVERS[file](tmp_path / file, arrays))).layers == 3
    assert holds(model, state())


def test_a_wrapper_of_a_part_is_ignored(tmp_path):
    inside = {name.replace("stem.", "stem.module."): array for name, array in state(prefix="_orig_mod.").items()}
    model = network()
    assign_weights(model, read_weights(save_safetensors(tmp_path / "w.safetensors", inside)))
    assert holds(model, state())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {"state_dict": state}, "best_score": np.array(0.5, np.float32)},
        lambda state: {"model_state_dict": state, "optimizer": {"state": {0: {"exp_avg": state["head.bias"]}}}},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": {"moments": state}},
        lambda state: {"ema": state},
        lambda state: {"model_ema": {"n_averaged": np.array(9), **{f"module.{name}": array for name, array in state.items()}}},
        lambda state: {"module": state, "scaler": {"scale": np.ones(1, np.float32)}},
        lambda state: {"net": {f"module.{name}": array for name, array in state.items()}},
        lambda state: {"whatever_it_is_called": state},
    ],
)
@pytest.mark.parametrize("named", [True, False], ids=["by name", "by order"])
def test_the_state_dict_inside_a_checkpoint_is_assigned(tmp_path, wrap, named):
    model = network(named)
    assert assign_weights(model, read_weights(checkpoint(tmp_path / "w.ckpt", wrap(state())))).notes == ()
    assert holds(model, state())
    if named:
        again = network()
        assign_weights(again, read_weights(save_npy(tmp_path / "w.npy", wrap(state()))))
        assert holds(again, state())


@pytest.mark.parametrize("keys", [("model", "ema"), ("state_dict", "state_dict_ema"), ("model", "model_ema")])
@pytest.mark.parametrize("named", [True, False], ids=["by name", "by order"])
def test_the_moving_average_is_used_and_noted(tmp_path, keys, named):
    model = network(named)
    file = read_weights(checkpoint(tmp_path / "w.pth", {keys[0]: state(0), keys[1]: state(1)}))
    [note] = assign_weights(model, file).notes
    assert note.code == "moving-average"
    assert note.figures["place"] == keys[1]
    assert holds(model, state(1))


def test_a_built_backbone_has_the_note_on_its_weights(tmp_path):
    file = checkpoint(tmp_path / "w.pth", {"model": state(0), "model_ema": state(1)})
    built = build(choose(network()), 6, weights=str(file))
    assert "moving-average" in [getattr(note, "code", "") for note in built.notes]
    assert built.weights == {"from": "w.pth", "layers": 3}


@pytest.mark.parametrize("keys", [("student", "teacher"), ("encoder_q", "encoder_k")])
def test_two_networks_that_fit_are_refused(tmp_path, keys):
    model, untouched = network(), [np.array(weight) for weight in network().get_weights()]
    model.set_weights(untouched)
    both = [{key: state(seed) for seed, key in enumerate(keys)}]
    flat = {f"module.{key}.{name}": array for seed, key in enumerate(keys) for name, array in state(seed).items()}
    for file in (checkpoint(tmp_path / "a.pth", *both), save_safetensors(tmp_path / "b.safetensors", flat)):
        with refused("weights-ambiguous", WeightsError) as caught:
            assign_weights(model, read_weights(file))
        assert all(key in caught.value.received for key in keys)
        assert caught.value.hint
    assert all(np.array_equal(mine, other) for mine, other in zip(model.get_weights(), untouched, strict=True))


def test_the_same_numbers_under_two_prefixes_are_one_network(tmp_path):
    arrays = {**state(prefix="model."), **state(prefix="backbone.")}
    model = network()
    assert assign_weights(model, read_weights(save_safetensors(tmp_path / "w.safetensors", arrays))).notes == ()
    assert holds(model, state())


def test_names_without_a_prefix_are_preferred(tmp_path):
    model = network()
    assign_weights(model, read_weights(save_safetensors(tmp_path / "w.safetensors", {**state(1, "teacher."), **state(0)})))
    assert holds(model, state(0))


def test_a_repeated_block_of_another_network_is_refused(tmp_path):
    arrays = {f"layer{n}.{name}": array for n in range(3) for name, array in state(n).items() if name.startswith("stem.")}
    with refused("weights-misfit", WeightsError):
        assign_weights(network(), read_weights(save_safetensors(tmp_path / "w.safetensors", arrays)))


def test_the_error_names_the_shape_in_the_network_not_in_another_dict(tmp_path):
    arrays = state(prefix="module.") | {"module.block.conv.weight": np.ones((6, 4, 1, 1), np.float32)}
    file = checkpoint(tmp_path / "w.pth", {"best_score": np.array(0.5, np.float32), "model": arrays})
    with refused("weights-misfit", received="the shape (1, 1, 4, 6) of 'block.conv' in w.pth"):
        assign_weights(network(), read_weights(file))


@pytest.mark.parametrize("prefix", ["module.", "model.net.", "features.module."])
def test_torchvision_names_below_a_prefix_are_assigned(tmp_path, prefix):
    record = backbone("squeezenet-torchvision")
    parts = record.build(32)
    table = next(table for table in NAMES if "fire2_squeeze1x1" in table.values())
    arrays = {}
    for theirs, ours in table.items():
        kernel, bias = parts.backbone.get_layer(ours).weights
        name = theirs.replace("features.", prefix) if prefix.startswith("features.") else prefix + theirs
        arrays[f"{name}.weight"] = np.full(tuple(kernel.shape)[::-1], len(arrays), np.float32)
        arrays[f"{name}.bias"] = np.zeros(tuple(bias.shape), np.float32)
    fitted = load_pretrained(parts, record, str(save_safetensors(tmp_path / "w.safetensors", arrays)))
    assert (fitted.layers, fitted.loaded_to) == (len(table), None)
    assert keras.ops.convert_to_numpy(parts.backbone.get_layer("fire2_squeeze1x1").kernel).max() == 2


def test_nothing_in_an_npz_is_unpickled(tmp_path):
    np.savez(tmp_path / "w.npz", **{"a.weight": np.array([{"a": 1}], object)})
    with refused("array-of-objects", WeightsError):
        read_weights(tmp_path / "w.npz")
