"""Covers SqueezeNet: shapes of its weight file, and the pooling of Caffe and of torchvision."""

from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from crossroads.networks.catalog import backbone

FILE = Path(__file__).parents[3] / "shared" / "weights" / "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"


@pytest.mark.skipif(not FILE.exists(), reason=f"needs {FILE.name}")
def test_layers_and_shapes_are_those_of_the_weight_file():
    model = backbone("squeezenet").build(227).backbone
    with h5py.File(FILE) as file:
        names = [name.decode() if isinstance(name, bytes) else name for name in file.attrs["layer_names"]]
        shapes = {
            name.replace("/", "_"): [file[name][weight].shape for weight in file[name].attrs["weight_names"]] for name in names[1:]
        }
    assert {layer.name: [tuple(weight.shape) for weight in layer.weights] for layer in model.layers[1:]} == shapes


@pytest.mark.core
def test_maps_have_the_sides_of_caffe():
    model = backbone("squeezenet").build(227).backbone
    assert [model.get_layer(name).output.shape[1] for name in ("conv1", "pool1", "pool3", "pool5")] == [113, 56, 27, 13]


def pooled(x):
    """Returns PyTorch's ``MaxPool2d(3, 2, ceil_mode=True)`` of (h, w, c). The last window may extend past the edge."""
    side = x.shape[0]
    out = -(-(side - 3) // 2) + 1
    padded = np.pad(x, ((0, 3), (0, 3), (0, 0)), constant_values=-np.inf)
    return sliding_window_view(padded, (3, 3), axis=(0, 1))[::2, ::2][:out, :out].max(axis=(-2, -1))


@pytest.mark.core
@pytest.mark.parametrize("size", [63, 65, 67, 69])
def test_torchvision_pooling_extends_past_the_edge(size):
    model = backbone("squeezenet-torchvision").build(size).backbone
    rng = np.random.default_rng(0)
    for name in ("pool1", "pool3", "pool5"):
        layer = model.get_layer(name)
        maps = rng.normal(size=(1, *layer.input.shape[1:3], 2)).astype("float32")
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(maps))[0], pooled(maps[0]))


@pytest.mark.core
def test_both_versions_have_their_weights_in_the_same_order():
    shapes = [
        [tuple(w.shape) for w in backbone(name).build(64).backbone.weights] for name in ("squeezenet", "squeezenet-torchvision")
    ]
    assert shapes[0] == shapes[1]
