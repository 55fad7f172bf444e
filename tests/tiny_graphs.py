"""Tiny inference graphs that tests write as files: convolutional networks and transformers, with random weights."""

from __future__ import annotations

import numpy as np
import pytest

from crossroads.inference import operations, runtime

SIZE = 16


class Maker:
    """Makes operations with random weights."""

    def __init__(self, seed=0):
        self.ops = operations()
        self.random = np.random.default_rng(seed)

    def constant(self, *shape, scale=0.5):
        return self.ops.constant(self.random.normal(0, scale, shape).astype(np.float32))

    def ints(self, *values):
        return self.ops.constant(np.array(values, np.int64))

    def convolution(self, x, inputs, outputs, side=3, stride=1, name=None, groups=False):
        pads = [side // 2] * 2 if side % 2 else [0, 0]
        scale = 1 / np.sqrt(side * side * (1 if groups else inputs))
        if groups:
            kernel = self.constant(inputs, 1, 1, side, side, scale=scale)
            y = self.ops.group_convolution(x, kernel, [stride] * 2, pads, pads, [1, 1])
        else:
            y = self.ops.convolution(x, self.constant(outputs, inputs, side, side, scale=scale), [stride] * 2, pads, pads, [1, 1])
        y = self.ops.add(y, self.constant(1, outputs, 1, 1))
        if name:
            y.set_friendly_name(name)
        return y

    def relu(self, x, name):
        y = self.ops.relu(x)
        y.set_friendly_name(name)
        return y

    def dense(self, x, inputs, outputs):
        y = self.ops.matmul(x, self.constant(inputs, outputs, scale=1 / np.sqrt(inputs)), False, False)
        return self.ops.add(y, self.constant(outputs, scale=0.1))

    def norm(self, x, width):
        y = self.ops.mvn(x, self.ints(-1), True, 1e-6, "INSIDE_SQRT")
        return self.ops.add(self.ops.multiply(y, self.constant(width)), self.constant(width))


def convnet(shape=(-1, 3, SIZE, SIZE), kind=np.float32, classes=5, softmax=True, seed=0):
    """Returns a network of a stem, a depthwise block, a residual block, global pooling and a classifier (or none)."""
    make = Maker(seed)
    images = make.ops.parameter(list(shape), kind, name="input")
    x = images if kind == np.float32 else make.ops.convert(images, "f32")
    x = x if shape[1] == 3 else make.ops.transpose(x, make.ints(0, 3, 1, 2))
    x = make.relu(make.convolution(x, 3, 8, stride=2, name="stem"), "stem_relu")
    x = make.relu(make.convolution(x, 8, 8, groups=True, name="depthwise"), "depthwise_relu")
    x = make.relu(make.convolution(x, 8, 12, 1, name="pointwise"), "pointwise_relu")
    y = make.relu(make.convolution(x, 12, 12, name="inner"), "inner_relu")
    y = make.ops.add(x, make.convolution(y, 12, 12, name="inner2"))
    y.set_friendly_name("sum")
    x = make.ops.reduce_mean(y, make.ints(2, 3), False)
    x.set_friendly_name("pool")
    if classes:
        x = make.dense(x, 12, classes)
        x.set_friendly_name("logits")
        x = make.ops.softmax(x, 1) if softmax else x
    return runtime().Model([x.output(0)], [images], "convnet")


def vit(registers=0, class_token=True, classes=5, blocks=2, width=8, batch=-1, hidden=False, seed=1):
    """Returns a transformer on patches of 4 px: 16 tokens of an image, a class token, and register tokens after it."""
    make = Maker(seed)
    ops = make.ops
    images = ops.parameter([batch, 3, SIZE, SIZE], np.float32, name="pixel_values")
    x = make.convolution(images, 3, width, 4, 4, name="patches")
    x = ops.reshape(x, make.ints(0, width, 16), True)
    x = ops.transpose(x, make.ints(0, 2, 1))
    extra = class_token + registers
    if extra:
        batch_size = ops.gather(ops.shape_of(images), make.ints(0), make.ints(0))
        shape = ops.concat([batch_size, make.ints(extra, width)], 0)
        x = ops.concat([ops.broadcast(make.constant(1, extra, width), shape), x], 1)
    x = ops.add(x, make.constant(1, 16 + extra, width))
    x.set_friendly_name("embedding")
    for number in range(blocks):
        x = ops.add(x, attention(make, make.norm(x, width), 16 + extra, width))
        x.set_friendly_name(f"block{number}_attention")
        y = make.dense(ops.gelu(make.dense(make.norm(x, width), width, 2 * width), "erf"), 2 * width, width)
        x = ops.add(x, y)
        x.set_friendly_name(f"block{number}")
    x = make.norm(x, width)
    x.set_friendly_name("norm")
    outputs = [x.output(0)]
    first = ops.constant(np.array(0, np.int64))
    x = ops.gather(x, first, make.ints(1)) if class_token else ops.reduce_mean(x, make.ints(1), False)
    x = make.dense(x, width, classes)
    outputs = [*outputs, ops.tanh(x).output(0)] if hidden else [x.output(0)]
    return runtime().Model(outputs, [images], "vit")


def attention(make, x, tokens, width, heads=2):
    """Returns the self-attention of tokens (n, tokens, width)."""
    ops, each = make.ops, width // heads
    parts = []
    for number in range(3):
        y = ops.reshape(make.dense(x, width, width), make.ints(0, tokens, heads, each), True)
        parts.append(ops.transpose(y, make.ints(0, 2, 3, 1) if number == 1 else make.ints(0, 2, 1, 3)))
    scores = ops.softmax(ops.multiply(ops.matmul(parts[0], parts[1], False, False), make.ops.constant(np.float32(each**-0.5))), 3)
    y = ops.transpose(ops.matmul(scores, parts[2], False, False), make.ints(0, 2, 1, 3))
    return make.dense(ops.reshape(y, make.ints(0, tokens, width), True), width, width)


def written(model, path):
    """Writes a model as an OpenVINO graph and returns the path."""
    runtime().serialize(model, str(path))
    return path


def onnx_graph(data=None, seed=0):
    """Returns the bytes of an ONNX graph of two convolutions; with `data`, its first kernel is in the file of this name.

    Returns:
        The graph, and the content of that file.
    """
    onnx = pytest.importorskip("onnx")
    make, random = onnx.helper, np.random.default_rng(seed)
    kernels = [random.normal(0, 0.3, shape).astype(np.float32) for shape in ((8, 3, 3, 3), (8, 8, 3, 3))]
    tensors = [onnx.numpy_helper.from_array(kernel, f"kernel{number}") for number, kernel in enumerate(kernels)]
    if data is not None:
        tensors[0].ClearField("raw_data")
        tensors[0].data_location = onnx.TensorProto.EXTERNAL
        tensors[0].external_data.add(key="location", value=data)
    nodes = [
        make.make_node("Conv", ["image", "kernel0"], ["map"], strides=[2, 2]),
        make.make_node("Relu", ["map"], ["stem"]),
        make.make_node("Conv", ["stem", "kernel1"], ["inner"]),
        make.make_node("Relu", ["inner"], ["features"]),
    ]
    given = make.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ("n", 3, SIZE, SIZE))
    output = make.make_tensor_value_info("features", onnx.TensorProto.FLOAT, None)
    graph = make.make_graph(nodes, "net", [given], [output], tensors)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString(), kernels[0].tobytes()
