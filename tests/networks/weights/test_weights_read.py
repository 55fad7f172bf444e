"""Covers reading weights: each format returns the arrays that were written, and a hostile or damaged file is one `WeightsError`."""

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
from crossroads.errors import WeightsError
from crossroads.networks._processes import module_environment
from crossroads.networks.weights import _hdf5_check, read
from crossroads.networks.weights.read import read_weights
from refusals import refused

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
    monkeypatch.setattr(read, "check_hdf5", lambda *_: None)  # it takes a third of a second per HDF5 file
    yield
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("save", "ordered"),
    [(save_torch, True), (save_torch_legacy, True), (save_safetensors, False)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_state_dict_round_trips(tmp_path, save, ordered):
    arrays = layers()
    file = read_weights(save(tmp_path / "w.bin", arrays))
    expected = {name: array for name, array in arrays.items() if name != TRACKED}
    loaded = flat(file)
    assert (file.layout, file.ordered, sorted(loaded)) == ("torch", ordered, sorted(expected))
    assert all(np.array_equal(loaded[name], array) for name, array in expected.items())
    norm = next(layer for layer in file.layers if layer.name == "features.1")
    assert norm.roles == ("weight", "bias", "running_mean", "running_var"), "the order of Keras: scale, shift, mean, variance"


@pytest.mark.parametrize("save", [save_torch, save_torch_legacy])
def test_layers_keep_the_order_of_the_state_dict(tmp_path, save):
    file = read_weights(save(tmp_path / "w.pth", layers()))
    assert [layer.name for layer in file.layers] == ["features.0", "features.1", "classifier"]


def test_tensors_that_are_views_of_a_storage_are_read(tmp_path):
    storage = Storage("0", np.arange(24, dtype=np.float32))
    state = {
        "a.weight": Tensor(storage, (3, 2), (1, 3), 4),
        "b.weight": Tensor(storage, (2,), (5,), 1),
        "c.weight": Tensor(storage, (), (), 7),
    }
    loaded = flat(read_weights(save_torch(tmp_path / "w.pth", content=state, storages={"0": storage})))
    assert loaded["a.weight"].tolist() == [[4, 7], [5, 8], [6, 9]]
    assert loaded["b.weight"].tolist() == [1, 6]
    assert loaded["c.weight"] == 7


def test_half_precision_and_bfloat16_are_read(tmp_path):
    values = np.array([1.5, -2, 0.25, 3e4], np.float32)
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    loaded = flat(read_weights(save_torch(tmp_path / "w.pth", {"a.weight": values.astype(np.float16), "b.weight": upper})))
    assert loaded["a.weight"].astype(np.float32).tolist() == values.tolist()
    assert np.allclose(loaded["b.weight"], values, rtol=1 / 128)
    header = b'{"a.weight":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}'
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + upper.tobytes())
    assert np.array_equal(flat(read_weights(tmp_path / "w.safetensors"))["a.weight"].reshape(-1), loaded["b.weight"])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "state_dict": state, "best": 0.5},
        lambda state: {"net": {"weights": state}, "args": argparse.Namespace(rate=0.1, out=Path("runs"))},
        lambda state: {"model": state, "optimizer": {"state": {0: {"exp_avg": state["a.weight"]}}, "moments": state}},
        lambda state: {"lr_scheduler": {"milestones": Counter({30: 1})}, "ema": {"module": state, "n": state["a.weight"]}},
    ],
)
def test_the_state_dict_inside_a_checkpoint_is_read(tmp_path, wrap):
    storage = Storage("0", np.arange(4, dtype=np.float32))
    state = OrderedDict({name: Tensor(storage, (4,), (1,)) for name in ("a.weight", "a.bias")})
    assert list(flat(read_weights(save_torch(tmp_path / "w.pth", content=wrap(state), storages={"0": storage})))) == [*state]


def test_a_dict_that_contains_itself_is_read_once(tmp_path):
    storage = Storage("0", np.arange(4, dtype=np.float32))
    content = {"a.weight": Tensor(storage, (4,), (1,))}
    content["self"] = content
    file = tmp_path / "w.pth"
    assert list(flat(read_weights(save_torch(file, content=content, storages={"0": storage})))) == ["a.weight"]
    for _ in range(40):
        content = {"one": content, "other": content}
    refuses(save_torch(file, content=content, storages={"0": storage}), received="a dict without tensors")


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
def test_a_numpy_dict_of_layers_is_read(tmp_path, content):
    file = read_weights(save_npy(tmp_path / "w.npy", content))
    assert file.layout == "keras"
    assert not file.ordered, "a dict of Python 2 has no order"
    for layer in file.layers:
        assert [array.tolist() for array in layer.arrays] == [array.tolist() for array in two_layers()[layer.name]]


def test_a_numpy_dict_of_python_2_is_read(tmp_path):
    """`numpy.save` wrote a header with the dtype object, then a pickle of protocol 2 with old module names."""
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    save_npy(tmp_path / "w.npy", {})
    header = (tmp_path / "w.npy").read_bytes()[:128]
    content = pickle.dumps(np.array({"fc6": [array, array[0]]}, dtype=object), protocol=2).replace(b"numpy._core", b"numpy.core")
    (tmp_path / "w.npy").write_bytes(header + content)
    assert flat(read_weights(tmp_path / "w.npy"))["fc6.0"].tolist() == array.tolist()


def test_keras_arrays_in_safetensors_are_read(tmp_path):
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
def test_files_of_older_keras_keep_the_order_of_the_model(tmp_path, group):
    content = [
        ("z/conv", {"z/conv_3/kernel:0": kernel(3, 3, 3, 4), "z/conv_3/bias:0": kernel(4)}),
        ("relu", {}),
        ("a", {"a_3/kernel:0": kernel(4, 2)}),
    ]
    file = read_weights(save_older_keras(tmp_path / "w.h5", content, group))
    assert [layer.name for layer in file.layers] == ["z/conv", "a"]
    assert (file.ordered, file.folded) == (True, True)
    assert np.array_equal(file.layers[0].arrays[0], kernel(3, 3, 3, 4))


def test_a_list_of_names_that_older_keras_split_is_joined(tmp_path):
    path = save_older_keras(tmp_path / "w.h5", [("a", {"a/kernel:0": kernel(4, 2)}), ("b", {"b/kernel:0": kernel(2, 2)})])
    with h5py.File(path, "a") as file:
        names = list(file.attrs["layer_names"])
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:1], names[1:]
    assert [layer.name for layer in read_weights(path).layers] == ["a", "b"]


def test_layers_of_keras_3_are_in_natural_order_of_their_paths(tmp_path):
    content = {f"conv2d{f'_{n}' if n else ''}": (f"conv{n}", [kernel(1, 1, 2, 2, seed=n)]) for n in range(12)}
    file = read_weights(save_keras(tmp_path / "w.weights.h5", content | {"dropout": ("drop", [])}))
    assert [layer.name for layer in file.layers] == [f"conv{n}" for n in range(12)], (
        "2 before 10; no optimizer, no layer without arrays"
    )
    assert {layer.track for layer in file.layers} == {"layers/conv2d"}
    assert file.layers[10].path == "layers/conv2d_10"


def test_the_configuration_in_a_keras_archive_is_not_read(tmp_path):
    save_keras(tmp_path / "model.weights.h5", {"conv2d": ("conv", [kernel(1, 1, 2, 2)])})
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write("model.weights.h5")
        archive.writestr("config.json", "no configuration at all")
    assert list(flat(read_weights(tmp_path / "m.keras"))) == ["conv.0"]


def test_the_contents_decide_the_format_not_the_suffix(tmp_path):
    assert read_weights(save_torch(tmp_path / "weights.h5", layers())).layout == "torch"


# Hostile and damaged files


def refuses(path, code="weights-unreadable", received=""):
    """Expects that the file is refused with this code, this text in `received`, its name and a hint."""
    with refused(code, WeightsError) as caught:
        read_weights(path)
    assert path.name in caught.value.rule
    assert received in str(caught.value.received)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("raw", "code", "received"),
    [
        (b"", "weights-format", "empty"),
        (b"<!DOCTYPE html>" * 9, "weights-format", "<!DOCTYPE html>"),
        (b"\x93NUMPY", "weights-unreadable", ""),
    ],
    ids=["empty", "HTML", "magic number alone"],
)
def test_other_files_are_refused(tmp_path, raw, code, received):
    (tmp_path / "w.h5").write_bytes(raw)
    refuses(tmp_path / "w.h5", code, received)


def test_files_without_named_layers_are_refused(tmp_path):
    np.save(tmp_path / "d.npy", kernel(3))
    refuses(tmp_path / "d.npy", received="float32 and shape (3,)")
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        archive.writestr("photo.jpg", b"")
    refuses(tmp_path / "e.zip", "weights-format")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["values"] = kernel(3)
    refuses(tmp_path / "f.h5", "weights-empty")


def test_missing_files_and_folders_are_refused(tmp_path):
    refuses(tmp_path / "none.h5", "no-such-file")
    refuses(tmp_path, "file-unreadable")
    (tmp_path / "model.keras").write_bytes(b"PK")
    with refused("weights-folder", WeightsError, received="the folder of an artifact") as caught:
        read_weights(tmp_path)
    assert str(tmp_path / "model.keras") in caught.value.hint


@pytest.mark.parametrize("value", [Evil(), [Evil()], {"conv1": [Evil()]}, {"conv1": [kernel(3), Evil()]}])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, value):
    system = f"{os.system.__module__}.system"
    for path in (
        save_npy(tmp_path / "w.npy", value),
        save_torch(tmp_path / "w.pth", content=value),
        save_torch_legacy(tmp_path / "old.pth", content=pickle.dumps(value, protocol=2)),
    ):
        refuses(path, "unsafe-pickle", system)


def test_numpy_files_of_other_objects_are_refused(tmp_path):
    for content in ([kernel(3)], {}, {"conv1": "text"}, {"conv1": []}, {"conv1": [np.array(["a"])]}, {"conv1": [{"a": 1}]}):
        refuses(save_npy(tmp_path / "w.npy", content))
    np.save(tmp_path / "w.npy", np.array([{"a": [kernel(3)]}, {"b": [kernel(3)]}], dtype=object), allow_pickle=True)
    refuses(tmp_path / "w.npy", received="shape (2,)")


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
def test_a_tensor_outside_its_storage_is_refused(tmp_path, tensor):
    storages = {"0": Storage("0", np.arange(4, dtype=np.float32))}
    refuses(save_torch(tmp_path / "w.pth", content={"a.weight": tensor}, storages=storages))


def test_a_storage_that_is_shorter_than_declared_is_refused(tmp_path):
    content = {"a.weight": Tensor(Storage("0", np.zeros(100, np.float32)), (100,), (1,))}
    path = save_torch(tmp_path / "w.pth", content=content, storages={"0": Storage("0", np.zeros(9, np.float32))})
    refuses(path, received="36 of 400 bytes")


def test_a_whole_pytorch_model_is_refused(tmp_path):
    raw = b"\x80\x02ctorch.nn.modules.container\nSequential\n)\x81."
    refuses(save_torch(tmp_path / "w.pth", content=raw), "unsafe-pickle", "torch.nn.modules.container.Sequential")


def test_pytorch_files_of_other_objects_are_refused(tmp_path):
    for raw in (
        b"\x80\x02(X\x06\x00\x00\x00moduleK\x01K\x02tQ.",
        b"\x80\x02K\x01Q.",
        b"\x80\x02]]a.",
        dumped({"a": 1}),
        dumped([1]),
    ):
        refuses(save_torch(tmp_path / "w.pth", content=raw))


def test_a_zip_member_outside_the_archive_is_refused(tmp_path):
    refuses(save_torch(tmp_path / "w.pth", layers(), members=[("../../ran", b"")]), "archive-path", "../../ran")


def test_a_zip_bomb_is_refused(tmp_path):
    content = {"a.weight": Tensor(Storage("0", np.zeros(4, np.float32)), (4,), (1,))}
    size, claimed = 1_234_567, 1 << 31
    blank = [("archive/data/0", bytes(size))]
    path = save_torch(tmp_path / "b.pth", content=content, members=blank, compression=zipfile.ZIP_DEFLATED)
    path.write_bytes(path.read_bytes().replace(size.to_bytes(4, "little"), claimed.to_bytes(4, "little")))
    refuses(path, "archive-bomb", str(claimed))


def linked(path, make):
    save_older_keras(path, [("a", {"a/kernel:0": kernel(2, 2)})])
    with h5py.File(path, "a") as file:
        del file["a/a/kernel:0"]
        make(file["a/a"])
    return path


def test_hdf5_with_links_or_false_sizes_is_refused(tmp_path):
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
        refuses(linked(tmp_path / f"{name}.h5", make), received="kernel:0" if name != "bomb" else f"{4 << 40} bytes")


def test_an_hdf5_group_that_contains_itself_is_refused(tmp_path):
    path = save_keras(tmp_path / "w.weights.h5", {"conv2d": ("conv", [kernel(2)])})
    with h5py.File(path, "a") as file:
        file["layers/conv2d/again"] = file["layers"]
    refuses(path, received="'layers/conv2d/again'")


def samples(folder):
    """Returns one small file of each format."""
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
def test_a_file_cut_off_anywhere_is_a_weights_error_at_most(tmp_path, which):
    raw = originals()[which]
    for keep in np.linspace(1, len(raw) - 1, 40).astype(int):
        read_quietly(tmp_path / "cut", raw[:keep])


@given(which=st.integers(0, 3), places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_random_damage_is_a_weights_error_at_most(tmp_path_factory, which, places):
    raw = bytearray(originals()[which])
    for place, value in places:
        raw[place % len(raw)] = value
    read_quietly(tmp_path_factory.getbasetemp() / "damaged", bytes(raw))


def test_hdf5_files_on_which_the_library_hangs_or_crashes_are_refused(tmp_path, monkeypatch):
    path = save_keras(tmp_path / "w.weights.h5", {"conv2d": ("conv", [kernel(2)])})
    monkeypatch.setattr(read, "check_hdf5", _hdf5_check.check_hdf5)
    assert read_weights(path).layers
    monkeypatch.setattr(_hdf5_check, "SECONDS", 0.001)
    assert read_weights(path).layers, "a file that was read once is not checked again"
    monkeypatch.setattr(_hdf5_check, "_CHECKED", set())
    refuses(path, "weights-hang")
    monkeypatch.setattr(_hdf5_check, "SECONDS", 1.0)
    hangs = "from crossroads.networks.weights._hdf5_check import limit_processor; limit_processor(1)\nwhile True: pass"
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda _command, **options: run([sys.executable, "-c", hangs], **options))
    refuses(path, "weights-hang", "CPU")
    monkeypatch.setattr(_hdf5_check, "SECONDS", 30.0)
    crash = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"]
    monkeypatch.setattr(subprocess, "run", lambda _command, **options: run(crash, **options))
    refuses(path, "weights-crash")
    fails = [sys.executable, "-c", "raise SystemExit('no such module')"]
    monkeypatch.setattr(subprocess, "run", lambda _command, **options: run(fails, **options))
    refuses(path, "weights-check", "no such module")
    monkeypatch.setattr(subprocess, "run", lambda _command, **options: run(["no-such-program"], **options))
    refuses(path, "weights-check")


@pytest.mark.parametrize("named", ["h5py", "numpy", "crossroads", "pathlib"])
def test_the_hdf5_check_imports_nothing_from_the_current_folder(tmp_path, monkeypatch, named):
    path = save_keras(tmp_path / "w.weights.h5", {"conv2d": ("conv", [kernel(2)])})
    monkeypatch.setattr(read, "check_hdf5", _hdf5_check.check_hdf5)
    (tmp_path / f"{named}.py").write_text("open('ran', 'w').close()\nraise SystemExit(0)\n")
    assert read_weights(path).layers


def test_the_hdf5_check_finds_this_package_without_the_current_folder(tmp_path, monkeypatch):
    path = save_keras(tmp_path / "w.weights.h5", {"conv2d": ("conv", [kernel(2)])})
    home = str(Path(_hdf5_check.__file__).parents[3])
    monkeypatch.setattr(sys, "path", ["", *(entry for entry in sys.path if entry != home)])
    places = module_environment()["PYTHONPATH"].split(os.pathsep)
    assert home in places
    assert not {"", str(tmp_path)} & set(places)
    _hdf5_check.check_hdf5(path, path.name)


def test_the_shared_files_are_read():
    folder = SHARED / "weights"
    if not folder.is_dir():
        pytest.skip("needs the shared weights beside the checkout: ../shared/weights")
    mobilenet = read_weights(folder / "mobilenet_v1_imagenet_to_conv_pw_12.weights.h5")
    assert len(mobilenet.layers) == 50
    assert {"conv1", "conv_pw_12_bn"} <= {layer.name for layer in mobilenet.layers}
    squeezenet = read_weights(folder / "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5")
    assert (len(squeezenet.layers), squeezenet.layers[1].name) == (25, "fire2/squeeze1x1")
    assert squeezenet.layers[1].arrays[0].shape == (1, 1, 64, 16)
