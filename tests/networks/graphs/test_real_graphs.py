"""Covers real graph files: their features agree with the reference runtime of each format, and parts compose to the whole."""

import numpy as np
import pytest

from crossroads.inference import evaluate, runtime
from crossroads.networks.graphs import read_graph

pytestmark = pytest.mark.real

TFLITE = (
    "mobilenet_v1_0.25_128_quant.tflite",
    "mobilenet_v2_1.0_224_quant.tflite",
    "mobilenet_v2_1.0_224_inat_insect_quant.tflite",
)
ONNX = "squeezenet_1.1_fp16.onnx"


@pytest.fixture(scope="module")
def photos(shared_data):
    """Returns real photos, uint8 (8, 224, 224, 3)."""
    import io
    import tarfile

    from PIL import Image

    with tarfile.open(shared_data / "ants_bees.tar") as archive:
        members = [member for member in archive if "/val/" in member.name and member.name.endswith(".jpg")][::20][:8]
        opened = [Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB") for member in members]
    return np.stack([np.asarray(image.resize((224, 224))) for image in opened])


def sized(photos, size):
    from PIL import Image

    return np.stack([np.asarray(Image.fromarray(photo).resize((size, size))) for photo in photos])


def pooled(body, images):
    part = body.until(body.end, "average")
    return evaluate(part.model, images)[0]


def by_litert(path, images):
    """Returns the dequantised output of the last average pooling, and of the map before it."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(
        str(path), experimental_preserve_all_tensors=True, num_threads=2
    )
    interpreter.allocate_tensors()
    pool = [operation for operation in interpreter._get_ops_details() if operation["op_name"] == "AVERAGE_POOL_2D"][-1]
    details = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    found = []
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        values = []
        for index in (int(pool["inputs"][0]), int(pool["outputs"][0])):
            scale, zero = details[index]["quantization"]
            values.append((interpreter.get_tensor(index).astype(np.float32) - zero) * scale)
        found.append(values)
    return np.concatenate([maps for maps, _ in found]), np.concatenate([pools for _, pools in found]).reshape(len(images), -1)


@pytest.mark.parametrize("name", TFLITE)
def test_quantised_features_agree_with_litert(name, shared_weights, photos):
    body = read_graph(shared_weights / name)
    images = sized(photos, body.size)
    maps, _ = by_litert(shared_weights / name, images)
    ours, expected = pooled(body, images), maps.mean(axis=(1, 2))
    error = np.abs(ours - expected)
    largest = float(np.abs(expected).max())
    print(f"{name}: largest {error.max() / largest:.2e}, mean {error.mean() / largest:.2e}")
    whole = evaluate(body.until(body.end, None).model, images)[0]
    print(f"map: largest {np.abs(whole - maps).max() / maps.max():.2e}, equal {(np.abs(whole - maps) < 1e-4).mean():.4f}")
    assert error.max() / largest < 1e-3


def test_float16_features_agree_with_onnx_runtime(shared_weights, photos):
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    body = read_graph(shared_weights / ONNX, preprocessing="caffe")
    model = onnx.load(shared_weights / ONNX)
    model.graph.output.extend([onnx.helper.make_empty_tensor_value_info(body.end.name)])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = (photos[..., ::-1].astype(np.float32) - (103.939, 116.779, 123.68)).transpose(0, 3, 1, 2).astype(np.float16)
    expected = np.concatenate([session.run([body.end.name], {"data_0": value[None]})[0] for value in values]).astype(np.float32)
    expected = expected.mean(axis=(2, 3))
    error = np.abs(pooled(body, photos) - expected).max() / np.abs(expected).max()
    print(f"largest {error:.2e}")
    assert error < 1e-3


@pytest.mark.parametrize("name", [*TFLITE, ONNX])
def test_parts_compose_at_five_depths(name, shared_weights, photos):
    body = read_graph(shared_weights / name, preprocessing="caffe" if name == ONNX else None)
    images = sized(photos[:2], body.size)
    expected = evaluate(part(body, body.end), images)[0]
    for depth in (0.1, 0.3, 0.5, 0.7, 0.9):
        cut = body.find(depth)
        middle = evaluate(part(body, cut), images)[0]
        found = evaluate(rest(body, cut), middle)[0]
        assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()


def part(body, cut):
    model = body.model.clone()
    position = [tap.cut.name for tap in body.taps].index(cut.name)
    return runtime().Model([model.get_results()[position].input_value(0)], model.get_parameters(), "part")


def rest(body, cut):
    model = body.model.clone()
    names = [tap.cut.name for tap in body.taps]
    tensor = model.outputs[names.index(cut.name)].get_node().input_value(0)
    start = runtime().opset13.parameter([-1, *list(tensor.get_partial_shape())[1:]], tensor.get_element_type())
    for target in tensor.get_target_inputs():
        target.replace_source_output(start.output(0))
    return runtime().Model([model.get_results()[names.index(body.end.name)].input_value(0)], [start], "rest")
