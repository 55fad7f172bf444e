"""Covers AlexNet: it computes what an implementation in NumPy computes, written from the paper and Caffe's weights."""

import keras
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from crossroads.networks.catalog import backbone
from crossroads.networks.weights.assign import assign_weights
from crossroads.networks.weights.read import read_weights

SHAPES = {
    "conv1": (11, 11, 3, 96),
    "conv2": (5, 5, 48, 256),
    "conv3": (3, 3, 256, 384),
    "conv4": (3, 3, 192, 384),
    "conv5": (3, 3, 192, 256),
    "fc6": (9216, 4096),
    "fc7": (4096, 4096),
}
"""Shapes of the kernels in ``bvlc_alexnet.npy``, for images of 227 px."""


def weights_for(size):
    """Returns random weights as large as trained ones, so that nothing vanishes and the normalisation matters."""
    rng = np.random.default_rng(0)
    last = ((((-(-size // 4) - 1) // 2 - 1) // 2) - 1) // 2
    shapes = SHAPES | {"fc6": (last * last * 256, 4096)}
    weights = {}
    for name, shape in shapes.items():
        kernel = rng.standard_normal(np.prod(shape), dtype=np.float32).reshape(shape) * np.float32(np.sqrt(2 / np.prod(shape[:-1])))
        weights[name] = [kernel, rng.normal(0, 0.1, shape[-1]).astype("float32")]
    return weights


def convolve(x, kernel, bias, stride=1, groups=1):
    """Returns TensorFlow's "same" convolution of (h, w, c). A group is a slice of the input channels and of the output channels."""
    side, size = kernel.shape[0], x.shape[0]
    out = -(-size // stride)
    padding = max((out - 1) * stride + side - size, 0)
    before, after = padding // 2, padding - padding // 2
    windows = sliding_window_view(np.pad(x, ((before, after), (before, after), (0, 0))), (side, side), axis=(0, 1))
    windows = windows[::stride, ::stride].transpose(0, 1, 3, 4, 2)
    slices = zip(np.split(windows, groups, axis=-1), np.split(kernel, groups, axis=-1), strict=True)
    return np.concatenate([np.tensordot(part, kernels, axes=3) for part, kernels in slices], axis=-1) + bias


def normalise(x):
    """Normalises over five neighbouring channels, by a loop over channels."""
    normalised = np.empty_like(x)
    for channel in range(x.shape[-1]):
        near = x[..., max(channel - 2, 0) : channel + 3]
        normalised[..., channel] = x[..., channel] / (1 + 2e-5 * (near**2).sum(axis=-1)) ** 0.75
    return normalised


def pool(x):
    return sliding_window_view(x, (3, 3), axis=(0, 1))[::2, ::2].max(axis=(-2, -1))


def relu(x):
    return np.maximum(x, 0)


def reference(pixels, weights):
    """Returns the maps after each normalisation and the 4096 outputs of fc7 for one image, all float64."""
    layers = {name: (kernel.astype("float64"), bias.astype("float64")) for name, (kernel, bias) in weights.items()}
    x = pixels.astype("float64")[..., ::-1] - (104.00698793, 116.66876762, 122.67891434)
    first = normalise(relu(convolve(x, *layers["conv1"], stride=4)))
    second = normalise(relu(convolve(pool(first), *layers["conv2"], groups=2)))
    x = relu(convolve(pool(second), *layers["conv3"]))
    x = relu(convolve(x, *layers["conv4"], groups=2))
    x = pool(relu(convolve(x, *layers["conv5"], groups=2))).reshape(-1)
    for name in ("fc6", "fc7"):
        x = relu(x @ layers[name][0] + layers[name][1])
    return first, second, x


@pytest.mark.core
@pytest.mark.parametrize("size", [99, pytest.param(227, marks=pytest.mark.real)])
def test_alexnet_with_a_numpy_weight_file_computes_what_numpy_computes(size, tmp_path):
    weights = weights_for(size)
    np.save(tmp_path / "bvlc_alexnet.npy", np.array(weights, dtype=object), allow_pickle=True)
    parts = backbone("alexnet").build(size)
    model = parts.backbone
    fitted = assign_weights(model, read_weights(tmp_path / "bvlc_alexnet.npy"))
    assert fitted.loaded_to is None
    pixels = np.random.default_rng(1).integers(0, 256, (size, size, 3))
    x = pixels[None].astype("float32")
    for layer in parts.preprocessing:
        x = layer(x)
    outputs = [model.get_layer("pool1").input, model.get_layer("pool2").input, model.output]
    actual = [keras.ops.convert_to_numpy(value)[0] for value in keras.Model(model.input, outputs)(x, training=False)]
    for maps, expected in zip(actual, reference(pixels, weights), strict=True):
        assert expected.std() > 0.1
        np.testing.assert_allclose(maps, expected, atol=1e-4 * np.abs(expected).max(), rtol=0)


@pytest.mark.core
def test_at_227_px_the_shapes_are_those_of_the_weight_file():
    model = backbone("alexnet").build(227).backbone
    shapes = {layer.name: tuple(layer.kernel.shape) for layer in model.layers if layer.weights}
    for name in ("conv2", "conv4", "conv5"):
        first, second = shapes.pop(f"{name}_1"), shapes.pop(f"{name}_2")
        assert first == second
        shapes[name] = (*first[:-1], 2 * first[-1])
    assert shapes == SHAPES
    assert model.output_shape == (None, 4096)


@pytest.mark.core
def test_the_torchvision_version_has_the_shapes_of_its_weights():
    def shapes(size):
        return [tuple(weight.shape) for weight in backbone("alexnet-torchvision").build(size).backbone.weights]

    kernels = [(11, 11, 3, 64), (5, 5, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256), (3, 3, 256, 256), (9216, 4096), (4096, 4096)]
    assert shapes(224)[::2] == kernels


@pytest.mark.core
def test_larger_maps_are_averaged_as_in_pytorch():
    model = backbone("alexnet-torchvision").build(300).backbone
    average = model.get_layer("average")
    assert average.output.shape == (None, 6, 6, 256)
    maps = np.random.default_rng(0).random((1, *average.input.shape[1:]), dtype=np.float32)
    side = maps.shape[1]
    bounds = [(i * side // 6, -(-(i + 1) * side // 6)) for i in range(6)]
    expected = np.stack([np.stack([maps[0, a:b, c:d].mean(axis=(0, 1)) for c, d in bounds]) for a, b in bounds])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(average(maps))[0], expected, atol=1e-5)
