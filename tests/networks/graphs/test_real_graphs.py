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


def by_litert(path, images, resolver):
    """Returns the dequantised map before the last average pooling, computed by one of LiteRT's sets of kernels."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    kind = getattr(litert.OpResolverType, resolver)
    interpreter = litert.Interpreter(str(path), experimental_preserve_all_tensors=True, experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    pool = [operation for operation in interpreter._get_ops_details() if operation["op_name"] == "AVERAGE_POOL_2D"][-1]
    index = int(pool["inputs"][0])
    scale, zero = interpreter.get_tensor_details()[index]["quantization"]
    found = []
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        found.append((interpreter.get_tensor(index).astype(np.float32) - zero) * scale)
    return np.concatenate(found).mean(axis=(1, 2))


@pytest.mark.parametrize("name", TFLITE)
def test_quantised_features_agree_with_litert_as_well_as_its_own_kernels_do(name, shared_weights, photos):
    """LiteRT's kernels round integers in different ways, and one step early in the network changes many later ones.

    Measured on 8 photos: of the 256 features of MobileNetV1 0.25, OpenVINO and LiteRT differ by 1.0 % of the mean feature, and
    LiteRT's two sets of kernels by 3.4 %. For the 1,280 of MobileNetV2 it is 6.0 % and 7.9 %.
    """
    body = read_graph(shared_weights / name)
    images = sized(photos, body.size)
    fast, reference = (by_litert(shared_weights / name, images, kind) for kind in ("AUTO", "BUILTIN_REF"))
    scale = fast.mean()
    error, between = np.abs(pooled(body, images) - fast).mean() / scale, np.abs(fast - reference).mean() / scale
    print(f"{name}: OpenVINO and LiteRT {error:.4f}, LiteRT's kernels {between:.4f}")
    assert error <= between


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
    expected = evaluate(part(body, body.end), images)[0].astype(np.float32)
    for depth in (0.1, 0.3, 0.5, 0.7, 0.9):
        cut = body.find(depth)
        middle = evaluate(part(body, cut), images)[0]
        error = np.abs(evaluate(rest(body, cut), middle)[0].astype(np.float32) - expected)
        print(f"{name} {cut.name}: largest {error.max() / expected.max():.1e}, mean {error.mean() / expected.mean():.1e}")
        if name == ONNX:  # the map at the cut is rounded to float16
            assert error.max() <= 2e-3 * expected.max()
        else:  # integers at the cut are rounded in another way, as above
            assert error.mean() <= 0.15 * expected.mean()


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
