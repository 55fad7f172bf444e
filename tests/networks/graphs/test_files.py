"""Covers the files of graphs: each fault gives one clear error, and nothing outside the folder is read."""

import contextlib
import os
import shutil

import numpy as np
import pytest

from crossroads.errors import BackboneError
from crossroads.inference import operations, runtime
from crossroads.networks.graphs import describe, read_graph
from crossroads.networks.graphs.files import LARGEST
from refusals import refused
from tiny_graphs import SIZE, convnet, written

onnx = pytest.importorskip("onnx")
helper = pytest.importorskip("onnx.helper")


def saved(path, nodes=None, inputs=None, weights=(), domains=("",), shape=("n", 3, SIZE, SIZE)):
    """Writes an ONNX graph of one convolution, or of other nodes."""
    kernel = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    weights = weights or [onnx.numpy_helper.from_array(kernel, "kernel")]
    nodes = nodes or [helper.make_node("Conv", ["image", "kernel"], ["map"]), helper.make_node("Relu", ["map"], ["features"])]
    inputs = inputs or [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, shape)]
    output = helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "net", inputs, [output], list(weights))
    opsets = [helper.make_opsetid(domain, 17 if not domain else 1) for domain in domains]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return path


def external(path, location):
    """Writes an ONNX graph whose kernel is in another file."""
    tensor = onnx.TensorProto(name="kernel", data_type=onnx.TensorProto.FLOAT, dims=[4, 3, 3, 3])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(4 * 108)}.items():
        tensor.external_data.add(key=key, value=value)
    return saved(path, weights=[tensor])


def test_an_onnx_graph_is_read(tmp_path):
    body = read_graph(saved(tmp_path / "net.onnx"), preprocessing="tf")
    assert (body.end.name, body.end.shape) == ("features", (SIZE - 2, SIZE - 2, 4))


def test_several_inputs_are_refused(tmp_path):
    two = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ("n", 3, 8, 8)) for name in ("image", "mask")]
    nodes = [helper.make_node("Add", ["image", "mask"], ["sum"]), helper.make_node("Conv", ["sum", "kernel"], ["features"])]
    with refused("several-graph-inputs", BackboneError) as caught:
        describe(saved(tmp_path / "net.onnx", nodes, two))
    assert "mask" in caught.value.received


@pytest.mark.parametrize(("shape", "kind"), [(("n", 7), 1), (("n", 5, 8, 8), 1), (("n", 3, 8, 8), 7), ((3, 8, 8), 1)])
def test_an_input_that_is_no_image_is_refused(shape, kind, tmp_path):
    given = [helper.make_tensor_value_info("image", kind, shape)]
    nodes = [helper.make_node("Identity", ["image"], ["features"])]
    with refused("no-image-input"):
        describe(saved(tmp_path / "net.onnx", nodes, given))


def test_an_input_without_a_number_of_axes_is_refused(tmp_path):
    given = [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, None)]
    with refused("dynamic-rank"):
        describe(saved(tmp_path / "net.onnx", [helper.make_node("Relu", ["image"], ["features"])], given))


def test_images_that_are_not_square_are_refused(tmp_path):
    with refused("input-not-square"):
        describe(saved(tmp_path / "net.onnx", shape=("n", 3, 8, 12)))


def test_a_graph_without_features_is_refused(tmp_path):
    with refused("no-features"):
        read_graph(saved(tmp_path / "net.onnx", [helper.make_node("Relu", ["image"], ["features"])]), preprocessing="tf")


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_gives_one_error_or_none(seed, tmp_path):
    path = saved(tmp_path / "net.onnx") if seed % 2 else written(convnet(), tmp_path / "net.xml")
    content, random = bytearray(path.read_bytes()), np.random.default_rng(seed)
    for place in random.integers(0, len(content), 5):
        content[place] = random.integers(256)
    path.write_bytes(content)
    with contextlib.suppress(BackboneError):
        read_graph(path, preprocessing="tf")


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(suffix, kept, tmp_path):
    path = saved(tmp_path / "net.onnx") if suffix == ".onnx" else written(convnet(), tmp_path / "net.xml")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with refused("damaged-graph"):
        describe(path)


def test_truncated_weights_are_refused(tmp_path):
    path = written(convnet(), tmp_path / "net.xml")
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:100])
    with refused("damaged-graph"):
        describe(path)
    weights.unlink()
    with refused("no-graph-weights"):
        describe(path)


@pytest.mark.parametrize(("suffix", "found"), [(".xml", "onnx"), (".tflite", "onnx"), (".onnx", "openvino")])
def test_a_file_of_another_format_than_its_suffix_is_refused(suffix, found, tmp_path):
    path = saved(tmp_path / "net.onnx") if found == "onnx" else written(convnet(), tmp_path / "net.xml")
    other = tmp_path / f"other{suffix}"
    shutil.copy(path, other)
    with refused("graph-format-mismatch") as caught:
        describe(other)
    assert path.suffix in caught.value.hint


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("net.pt", b"PK\x03\x04", "unknown-graph-format"),
        ("net.onnx", b"PK\x03\x04", "graph-format-mismatch"),
        ("net.tflite", b"", "graph-format-mismatch"),
        ("net.tflite", b"\x1c\x00\x00\x00TFL3" + bytes(100), "damaged-graph"),
        ("net.onnx", b"\x08\x08", "damaged-graph"),
        ("net.xml", b'<?xml version="1.0"?><net name="a" version="11"></net>', "no-image-input"),
    ],
)
def test_other_files_are_refused(name, content, code, tmp_path):
    (tmp_path / name).write_bytes(content)
    with refused(code, BackboneError):
        describe(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path):
    with refused("no-graph-file"):
        describe(tmp_path / "net.onnx")


def test_a_file_of_2_gb_is_refused_before_it_is_read(tmp_path):
    path = saved(tmp_path / "net.onnx")
    os.truncate(path, LARGEST)
    with refused("graph-too-large"):
        describe(path)


def test_an_operation_that_openvino_lacks_is_refused(tmp_path):
    nodes = [helper.make_node("Conv", ["image", "kernel"], ["map"]), helper.make_node("Own", ["map"], ["features"], domain="own")]
    with refused("operation-not-supported") as caught:
        describe(saved(tmp_path / "net.onnx", nodes, domains=("", "own")))
    assert "Own" in caught.value.received


def test_an_extension_in_an_openvino_graph_is_refused(tmp_path):
    path = written(convnet(), tmp_path / "net.xml")
    path.write_text(path.read_text().replace('type="ReLU" version="opset1"', 'type="Mine" version="extension"', 1))
    with refused("operation-not-supported") as caught:
        describe(path)
    assert "Mine" in caught.value.received


def test_weights_beside_an_onnx_graph_are_read_and_belong_to_its_digest(tmp_path):
    path = external(tmp_path / "net.onnx", "net.bin")
    with refused("no-graph-weights"):
        describe(path)
    digests = set()
    for seed in (0, 1):
        (tmp_path / "net.bin").write_bytes(np.random.default_rng(seed).normal(size=108).astype(np.float32).tobytes())
        digests.add(read_graph(path, preprocessing="tf").digest)
    assert len(digests) == 2


@pytest.mark.parametrize("way", ["parent", "absolute", "link"])
def test_weights_outside_the_folder_are_refused(way, tmp_path):
    folder, secret = tmp_path / "net", tmp_path / "secret.bin"
    folder.mkdir()
    secret.write_bytes(bytes(4 * 108))
    if way == "link":
        (folder / "link.bin").symlink_to(secret)
    path = external(folder / "net.onnx", {"parent": "../secret.bin", "absolute": str(secret), "link": "link.bin"}[way])
    with refused("weights-outside-folder"):
        describe(path)


def test_a_fixed_class_token_leaves_one_image_at_a_time(tmp_path):
    token = onnx.numpy_helper.from_array(np.ones((1, 1, 4), np.float32), "token")
    shape = onnx.numpy_helper.from_array(np.array([1, 4, 4]), "shape")
    kernel = onnx.numpy_helper.from_array(np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32), "kernel")
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["map"], strides=[8, 8]),
        helper.make_node("Reshape", ["map", "shape"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["patches"], perm=[0, 2, 1]),
        helper.make_node("Concat", ["token", "patches"], ["features"], axis=1),
    ]
    path = saved(tmp_path / "net.onnx", nodes, weights=[token, shape, kernel], shape=(1, 3, SIZE, SIZE))
    body = read_graph(path, preprocessing="tf")
    assert (body.batch, body.taps[-1].layout, body.taps[-1].prefix) == (1, "NTC", 1)


def test_a_graph_of_constants_is_refused(tmp_path):
    ops = operations()
    images = ops.parameter([-1, 3, SIZE, SIZE], np.float32, name="input")
    shape = ops.convert(ops.shape_of(images), "f32")
    with refused("no-features"):
        read_graph(written(runtime().Model([shape.output(0)], [images], "shape"), tmp_path / "net.xml"), preprocessing="tf")
