"""Every format gives the arrays that were written, and a hostile or broken file one clear error."""

import argparse
import functools
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter, OrderedDict
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weight_files import (
    Storage,
    Tensor,
    dumped,
    flat,
    layers,
    save_keras,
    save_npy,
    save_older_keras,
    save_safetensors,
    save_torch,
    save_torch_legacy,
)

from conftest import SHARED
from crossroads.errors import CrossroadsError, WeightsError
from crossroads.networks._processes import module_environment
from crossroads.networks.weights import _hdf5_check, read
from crossroads.networks.weights.read import read_weights

TRACKED = "features.1.num_batches_tracked"


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


def kernel(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def two_layers():
    return {"conv1": [kernel(3, 3, 3, 4), kernel(4)], "fc6": [kernel(8, 5, seed=1), kernel(5, seed=2)]}


@pytest.fixture(autouse=True)
def _nothing_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(read, "check_hdf5", lambda *_: None)  # a third of a second for each HDF5
    yield
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("save", "ordered"),
    [(save_torch, True), (save_torch_legacy, True), (save_safetensors, False)],
    ids=lambda it: getattr(it, "__name__", ""),
)
def test_a_state_dict_is_read_as_it_was_written(tmp_path, save, ordered):
    arrays = layers()
    file = read_weights(save(tmp_path / "w.bin", arrays))
    expected = {name: array for name, array in arrays.items() if name != TRACKED}
    found = flat(file)
    assert (file.layout, file.ordered, sorted(found)) == ("torch", ordered, sorted(expected))
    assert all(np.array_equal(found[name], array) for name, array in expected.items())
    norm = next(layer for layer in file.layers if layer.name == "features.1")
    assert norm.roles == ("weight", "bias", "running_mean", "running_var"), "the order of Keras: scale, shift, mean, variance"


def test_layers_of_a_state_dict_come_in_its_order(tmp_path):
    for save in (save_torch, save_torch_legacy):
        assert [layer.name for layer in read_weights(save(tmp_path / "w.pth", layers())).layers] == [
            "features.0",
            "features.1",
            "classifier",
        ]


def test_a_tensor_may_be_a_view_of_a_storage(tmp_path):
    storage = Storage("0", np.arange(24, dtype=np.float32))
    state = {
        "a.weight": Tensor(storage, (3, 2), (1, 3), 4),
        "b.weight": Tensor(storage, (2,), (5,), 1),
        "c.weight": Tensor(storage, (), (), 7),
    }
    found = flat(read_weights(save_torch(tmp_path / "w.pth", content=state, storages={"0": storage})))
    assert found["a.weight"].tolist() == [[4, 7], [5, 8], [6, 9]]
    assert found["b.weight"].tolist() == [1, 6]
    assert found["c.weight"] == 7


def test_half_precision_and_bfloat16(tmp_path):
    values = np.array([1.5, -2, 0.25, 3e4], np.float32)
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    found = flat(read_weights(save_torch(tmp_path / "w.pth", {"a.weight": values.astype(np.float16), "b.weight": upper})))
    assert found["a.weight"].astype(np.float32).tolist() == values.tolist()
    assert np.allclose(found["b.weight"], values, rtol=1 / 128)
    header = b'{"a.weight":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}'
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + upper.tobytes())
    assert np.array_equal(flat(read_weights(tmp_path / "w.safetensors"))["a.weight"].reshape(-1), found["b.weight"])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "state_dict": state, "best": 0.5},
        lambda state: {"net": {"weights": state}, "args": argparse.Namespace(rate=0.1, out=Path("runs"))},
        lambda state: {"model": state, "optimizer": {"state": {0: {"exp_avg": state["a.weight"]}}, "moments": state}},
        lambda state: {"lr_scheduler": {"milestones": Counter({30: 1})}, "ema": {"module": state, "n": state["a.weight"]}},
    ],
)
def test_the_state_dict_inside_a_checkpoint(tmp_path, wrap):
    storage = Storage("0", np.arange(4, dtype=np.float32))
    state = OrderedDict({name: Tensor(storage, (4,), (1,)) for name in ("a.weight", "a.bias")})
    assert list(flat(read_weights(save_torch(tmp_path / "w.pth", content=wrap(state), storages={"0": storage})))) == [*state]


def test_dicts_within_each_other_end(tmp_path):
    storage = Storage("0", np.arange(4, dtype=np.float32))
    content = {"a.weight": Tensor(storage, (4,), (1,))}
    content["self"] = content
    file = tmp_path / "w.pth"
    assert list(flat(read_weights(save_torch(file, content=content, storages={"0": storage})))) == ["a.weight"]
    for _ in range(40):
        content = {"one": content, "other": content}
    refused(save_torch(file, content=content, storages={"0": storage}), "without tensors")


@pytest.mark.parametrize(
    "content",
    [
        two_layers(),
        {name: tuple(arrays) for name, arrays in two_layers().items()},
        {name: dict(zip(("weights", "biases"), arrays, strict=True)) for name, arrays in two_layers().items()},
        {name.encode(): arrays for name, arrays in two_layers().items()},
    ],
    ids=["lists", "tuples", "dicts", "names of Python 2"],
)
def test_a_numpy_dict_of_layers(tmp_path, content):
    file = read_weights(save_npy(tmp_path / "w.npy", content))
    assert file.layout == "keras"
    assert not file.ordered, "a dict of Python 2 has no order"
    for layer in file.layers:
        assert [array.tolist() for array in layer.arrays] == [array.tolist() for array in two_layers()[layer.name]]


def test_a_numpy_dict_that_python_2_wrote(tmp_path):
    """Protocol 2, as numpy.save of that time: the header says object, and a pickle of the old names follows."""
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    save_npy(tmp_path / "w.npy", {})
    header = (tmp_path / "w.npy").read_bytes()[:128]
    content = pickle.dumps(np.array({"fc6": [array, array[0]]}, dtype=object), protocol=2).replace(b"numpy._core", b"numpy.core")
    (tmp_path / "w.npy").write_bytes(header + content)
    assert flat(read_weights(tmp_path / "w.npy"))["fc6.0"].tolist() == array.tolist()


def test_keras_arrays_in_safetensors(tmp_path):
    arrays = {
        "conv1/kernel": kernel(3, 3, 3, 4),
        "conv1/bias": kernel(4),
        "bn/moving_mean": kernel(4),
        "bn/gamma": kernel(4),
        "bn/beta": kernel(4),
    }
    file = read_weights(save_safetensors(tmp_path / "w.safetensors", arrays))
    assert {layer.name: layer.roles for layer in file.layers} == {
        "conv1": ("kernel", "bias"),
        "bn": ("gamma", "beta", "moving_mean"),
    }
    assert file.layout == "keras"


@pytest.mark.parametrize("group", [None, "model_weights"], ids=["weights", "whole model"])
def test_older_keras_in_the_order_of_its_layers(tmp_path, group):
    content = [
        ("z/conv", {"z/conv_3/kernel:0": kernel(3, 3, 3, 4), "z/conv_3/bias:0": kernel(4)}),
        ("relu", {}),
        ("a", {"a_3/kernel:0": kernel(4, 2)}),
    ]
    file = read_weights(save_older_keras(tmp_path / "w.h5", content, group))
    assert [layer.name for layer in file.layers] == ["z/conv", "a"]
    assert (file.ordered, file.folded) == (True, True)
    assert np.array_equal(file.layers[0].arrays[0], kernel(3, 3, 3, 4))


def test_older_keras_cuts_a_long_list_of_names(tmp_path):
    path = save_older_keras(tmp_path / "w.h5", [("a", {"a/kernel:0": kernel(4, 2)}), ("b", {"b/kernel:0": kernel(2, 2)})])
    with h5py.File(path, "a") as file:
        names = list(file.attrs["layer_names"])
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:1], names[1:]
    assert [layer.name for layer in read_weights(path).layers] == ["a", "b"]


def test_keras_3_by_place(tmp_path):
    content = {f"conv2d{f'_{n}' if n else ''}": (f"conv{n}", [kernel(1, 1, 2, 2, seed=n)]) for n in range(12)}
    file = read_weights(save_keras(tmp_path / "w.weights.h5", content | {"dropout": ("drop", [])}))
    assert [layer.name for layer in file.layers] == [f"conv{n}" for n in range(12)], (
        "2 before 10; no optimizer, no layer without arrays"
    )
    assert {layer.track for layer in file.layers} == {"layers/conv2d"}
    assert file.layers[10].path == "layers/conv2d_10"


def test_a_keras_archive_is_read_for_its_weights_alone(tmp_path):
    save_keras(tmp_path / "model.weights.h5", {"conv2d": ("conv", [kernel(1, 1, 2, 2)])})
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write("model.weights.h5")
        archive.writestr("config.json", "no configuration at all")
    assert list(flat(read_weights(tmp_path / "m.keras"))) == ["conv.0"]


def test_a_name_without_a_suffix_or_with_a_wrong_one_is_read_by_its_contents(tmp_path):
    assert read_weights(save_torch(tmp_path / "weights.h5", layers())).layout == "torch"


# Hostile and broken files


def refused(path, *words):
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    message = str(caught.value)
    assert path.name in message
    assert caught.value.hint, message
    assert all(word in message for word in words), message


def test_what_is_no_file_of_weights(tmp_path):
    for name, raw, word in (("a.h5", b"", "empty"), ("b.h5", b"<!DOCTYPE html>" * 9, "DOCTYPE"), ("c.npy", b"\x93NUMPY", "")):
        (tmp_path / name).write_bytes(raw)
        refused(tmp_path / name, word)
    np.save(tmp_path / "d.npy", kernel(3))
    refused(tmp_path / "d.npy", "without names")
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        archive.writestr("photo.jpg", b"")
    refused(tmp_path / "e.zip", "neither Keras nor PyTorch")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["values"] = kernel(3)
    refused(tmp_path / "f.h5", "no layers")
    refused(tmp_path / "none.h5")
    with pytest.raises(WeightsError):
        read_weights(tmp_path)


@pytest.mark.parametrize("value", [Evil(), [Evil()], {"conv1": [Evil()]}, {"conv1": [kernel(3), Evil()]}])
def test_a_pickle_that_runs_code_does_not(tmp_path, value):
    save_npy(tmp_path / "w.npy", value)
    refused(tmp_path / "w.npy", "posix.system")
    save_torch(tmp_path / "w.pth", content=value)
    refused(tmp_path / "w.pth", "posix.system", "state_dict")
    save_torch_legacy(tmp_path / "old.pth", content=pickle.dumps(value, protocol=2))
    refused(tmp_path / "old.pth", "posix.system")


def test_objects_in_a_numpy_file(tmp_path):
    for content in ([kernel(3)], {}, {"conv1": "text"}, {"conv1": []}, {"conv1": [np.array(["a"])]}, {"conv1": [{"a": 1}]}):
        refused(save_npy(tmp_path / "w.npy", content))
    np.save(tmp_path / "w.npy", np.array([{"a": [kernel(3)]}, {"b": [kernel(3)]}], dtype=object), allow_pickle=True)
    refused(tmp_path / "w.npy", "one dict")


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor(Storage("0", np.arange(4, dtype=np.float32)), (5,), (1,)),
        Tensor(Storage("0", np.arange(4, dtype=np.float32)), (2,), (1,), 3),
        Tensor(Storage("0", np.arange(4, dtype=np.float32)), (2, 2), (100, 1)),
        Tensor(Storage("0", np.arange(4, dtype=np.float32)), (10**9, 10**9), (0, 0)),
        Tensor(Storage("0", np.arange(4, dtype=np.float32)), (2,), (-1,), 3),
        Tensor(Storage("0", np.arange(4, dtype=np.float32)), (10**15, 0), (1, 1)),
        Tensor(Storage("../../../../etc/passwd", np.arange(4, dtype=np.float32)), (2,), (1,)),
        Tensor("no storage", (2,), (1,)),
    ],
    ids=["too long", "offset", "stride", "endless", "backwards", "empty and endless", "path", "no storage"],
)
def test_a_tensor_that_lies_about_its_numbers(tmp_path, tensor):
    storages = {"0": Storage("0", np.arange(4, dtype=np.float32))}
    refused(save_torch(tmp_path / "w.pth", content={"a.weight": tensor}, storages=storages))


def test_a_storage_shorter_than_it_says(tmp_path):
    content = {"a.weight": Tensor(Storage("0", np.zeros(100, np.float32)), (100,), (1,))}
    refused(
        save_torch(tmp_path / "w.pth", content=content, storages={"0": Storage("0", np.zeros(9, np.float32))}), "36 of 400 bytes"
    )


def test_a_whole_model_is_not_built(tmp_path):
    raw = b"\x80\x02ctorch.nn.modules.container\nSequential\n)\x81."
    refused(save_torch(tmp_path / "w.pth", content=raw), "torch.nn.modules.container.Sequential", "state_dict")


def test_a_pid_of_a_module_and_other_nonsense(tmp_path):
    for raw in (
        b"\x80\x02(X\x06\x00\x00\x00moduleK\x01K\x02tQ.",
        b"\x80\x02K\x01Q.",
        b"\x80\x02]]a.",
        dumped({"a": 1}),
        dumped([1]),
    ):
        refused(save_torch(tmp_path / "w.pth", content=raw))


def test_a_zip_that_leaves_itself_or_swells(tmp_path):
    refused(save_torch(tmp_path / "w.pth", layers(), members=[("../../ran", b"")]))
    content = {"a.weight": Tensor(Storage("0", np.zeros(4, np.float32)), (4,), (1,))}
    size, claimed = 1_234_567, 1 << 31
    blank = [("archive/data/0", bytes(size))]
    path = save_torch(tmp_path / "b.pth", content=content, members=blank, compression=zipfile.ZIP_DEFLATED)
    path.write_bytes(path.read_bytes().replace(size.to_bytes(4, "little"), claimed.to_bytes(4, "little")))
    refused(path, str(claimed))


def linked(path, make):
    save_older_keras(path, [("a", {"a/kernel:0": kernel(2, 2)})])
    with h5py.File(path, "a") as file:
        del file["a/a/kernel:0"]
        make(file["a/a"])
    return path


def test_hdf5_that_points_elsewhere(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(16))
    layout = h5py.VirtualLayout((2, 2), "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", shape=(2, 2))
    cases = {
        "external link": lambda group: group.__setitem__("kernel:0", h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")),
        "soft link": lambda group: group.__setitem__("kernel:0", h5py.SoftLink("/a/b")),
        "external values": lambda group: group.create_dataset("kernel:0", (4,), "f4", external=[(str(tmp_path / "secret"), 0, 16)]),
        "virtual": lambda group: group.create_virtual_dataset("kernel:0", layout),
        "text": lambda group: group.__setitem__("kernel:0", "text"),
        "references": lambda group: group.create_dataset("kernel:0", (1,), h5py.ref_dtype),
        "group": lambda group: group.create_group("kernel:0"),
        "bomb": lambda group: group.create_dataset("kernel:0", (1 << 40,), "f4", chunks=(1 << 20,), compression="gzip"),
        "nothing": lambda group: None,
    }
    for name, make in cases.items():
        path = tmp_path / f"{name}.h5"
        refused(linked(path, make))


def test_hdf5_that_holds_itself(tmp_path):
    path = save_keras(tmp_path / "w.weights.h5", {"conv2d": ("conv", [kernel(2)])})
    with h5py.File(path, "a") as file:
        file["layers/conv2d/again"] = file["layers"]
    refused(path, "inside itself")


def samples(folder):
    """One small file of each format."""
    return [
        save_torch(folder / "a.pth", layers()),
        save_torch_legacy(folder / "b.pth", layers()),
        save_npy(folder / "c.npy", two_layers()),
        save_safetensors(folder / "d.safetensors", layers()),
        save_older_keras(folder / "e.h5", [("a", {"a/kernel:0": kernel(4, 2)})]),
        save_keras(folder / "f.weights.h5", {"conv2d": ("conv", [kernel(1, 1, 2, 2)])}),
    ]


@functools.cache
def originals():
    with tempfile.TemporaryDirectory() as folder:
        return [path.read_bytes() for path in samples(Path(folder))]


def read_quietly(path, raw):
    path.write_bytes(raw)
    with suppress(WeightsError):
        read_weights(path)


@pytest.mark.parametrize("which", range(6))
def test_a_file_cut_off_anywhere_is_one_clear_error(tmp_path, which):
    raw = originals()[which]
    for keep in np.linspace(1, len(raw) - 1, 40).astype(int):
        read_quietly(tmp_path / "cut", raw[:keep])


@given(which=st.integers(0, 3), places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_damage_never_leads_to_another_error(tmp_path_factory, which, places):
    raw = bytearray(originals()[which])
    for place, value in places:
        raw[place % len(raw)] = value
    read_quietly(tmp_path_factory.getbasetemp() / "damaged", bytes(raw))


def test_hdf5_over_which_its_library_hangs_or_crashes(tmp_path, monkeypatch):
    path = save_keras(tmp_path / "w.weights.h5", {"conv2d": ("conv", [kernel(2)])})
    monkeypatch.setattr(read, "check_hdf5", _hdf5_check.check_hdf5)
    assert read_weights(path).layers
    monkeypatch.setattr(_hdf5_check, "SECONDS", 0.001)
    assert read_weights(path).layers, "a file that was read once is not checked again"
    monkeypatch.setattr(_hdf5_check, "_CHECKED", set())
    refused(path, "seconds to read: it is damaged, or the machine is very busy")
    monkeypatch.setattr(_hdf5_check, "SECONDS", 1.0)
    hangs = "from crossroads.networks.weights._hdf5_check import limit_processor; limit_processor(1)\nwhile True: pass"
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda _command, **options: run([sys.executable, "-c", hangs], **options))
    refused(path, "takes more than 1 seconds of a processor to read: it is damaged")
    monkeypatch.setattr(_hdf5_check, "SECONDS", 30.0)
    crash = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"]
    monkeypatch.setattr(subprocess, "run", lambda _command, **options: run(crash, **options))
    refused(path, "crashes")
    fails = [sys.executable, "-c", "raise SystemExit('no such module')"]
    monkeypatch.setattr(subprocess, "run", lambda _command, **options: run(fails, **options))
    refused(path, "exit code 1 of the child process that checks it: no such module")
    monkeypatch.setattr(subprocess, "run", lambda _command, **options: run(["no-such-program"], **options))
    refused(path, "no child process to check it")


@pytest.mark.parametrize("named", ["h5py", "numpy", "crossroads", "pathlib"])
def test_the_hdf5_check_runs_nothing_of_the_current_folder(tmp_path, monkeypatch, named):
    path = save_keras(tmp_path / "w.weights.h5", {"conv2d": ("conv", [kernel(2)])})
    monkeypatch.setattr(read, "check_hdf5", _hdf5_check.check_hdf5)
    (tmp_path / f"{named}.py").write_text("open('ran', 'w').close()\nraise SystemExit(0)\n")
    assert read_weights(path).layers


def test_the_hdf5_check_finds_this_package_where_the_current_folder_led_to_it(tmp_path, monkeypatch):
    path = save_keras(tmp_path / "w.weights.h5", {"conv2d": ("conv", [kernel(2)])})
    home = str(Path(_hdf5_check.__file__).parents[3])
    monkeypatch.setattr(sys, "path", ["", *(entry for entry in sys.path if entry != home)])
    places = module_environment()["PYTHONPATH"].split(os.pathsep)
    assert home in places
    assert not {"", str(tmp_path)} & set(places)
    _hdf5_check.check_hdf5(path, path.name)


def test_the_shared_files():
    folder = SHARED / "weights"
    if not folder.is_dir():
        pytest.skip("needs the shared weights beside the checkout: ../shared/weights")
    mobilenet = read_weights(folder / "mobilenet_v1_imagenet_to_conv_pw_12.weights.h5")
    assert len(mobilenet.layers) == 50
    assert {"conv1", "conv_pw_12_bn"} <= {layer.name for layer in mobilenet.layers}
    squeezenet = read_weights(folder / "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5")
    assert (len(squeezenet.layers), squeezenet.layers[1].name) == (25, "fire2/squeeze1x1")
    assert squeezenet.layers[1].arrays[0].shape == (1, 1, 64, 16)


def test_weights_error_is_one_of_the_family():
    assert issubclass(WeightsError, CrossroadsError)


def test_the_folder_of_an_artifact_is_refused_with_the_file_in_it(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"PK")
    with pytest.raises(WeightsError, match=r"received the folder of an artifact; give .*model\.keras$"):
        read_weights(tmp_path)
