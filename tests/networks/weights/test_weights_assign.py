"""Covers assigning weights by name, place or order: all that fit, or one error and nothing assigned."""

import itertools
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers
from weight_files import save_npy, save_older_keras, save_torch

from conftest import SHARED
from crossroads.networks.squeezenet import build as build_squeezenet
from crossroads.networks.weights import read
from crossroads.networks.weights.assign import assign_weights
from crossroads.networks.weights.read import read_weights
from crossroads.networks.weights.record import LayerWeights, WeightFile
from refusals import refused

pytestmark = pytest.mark.core


@pytest.fixture(autouse=True)
def _unchecked(monkeypatch):
    monkeypatch.setattr(read, "check_hdf5", lambda *_: None)  # it takes a third of a second per HDF5 file


def network(*, named=True, head=False, width=6, nested=False):
    """Returns a convolution, a depthwise one, BatchNorm, a convolution with bias, and a dense layer after a flattened map."""

    def name(text):
        return {"name": text} if named else {}

    images = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, use_bias=False, **name("first"))(images)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, **name("depthwise"))(x)
    x = layers.BatchNormalization(**name("norm"))(x)
    x = layers.ReLU(**name("relu"))(x)
    if nested:
        x = keras.Sequential([layers.Conv2D(width, 1, **name("inner"))], **name("block"))(x)
    else:
        x = layers.Conv2D(width, 1, **name("second"))(x)
    x = layers.Flatten(**name("flatten"))(x)
    x = layers.Dense(5, **name("hidden"))(x)
    if head:
        x = layers.Dense(3, **name("head"))(x)
    return keras.Model(images, x, name="tiny")


def randomised(model, seed=0):
    """Returns the model with a different number in each weight, so that a swap of two would show."""
    draw = np.random.default_rng(seed)
    for variable in model.weights:
        variable.assign(np.abs(draw.standard_normal(variable.shape)) + 0.1)
    return model


def weights_of(model):
    return [keras.ops.convert_to_numpy(variable) for variable in model.weights]


def same(model, other):
    pairs = zip(weights_of(model), weights_of(other), strict=False)
    return all(np.array_equal(mine, theirs) for mine, theirs in pairs)


SAVED = {
    "Keras 3 weights": lambda model, folder: model.save_weights(folder / "w.weights.h5") or folder / "w.weights.h5",
    "Keras 3 model": lambda model, folder: model.save(folder / "w.keras") or folder / "w.keras",
    "older Keras": lambda model, folder: model.save(folder / "w.h5") or folder / "w.h5",
}


@pytest.mark.parametrize("form", SAVED)
@pytest.mark.parametrize("named", [True, False], ids=["named", "counted"])
@pytest.mark.parametrize("nested", [True, False], ids=["nested", "flat"])
def test_files_that_keras_saved_are_assigned(tmp_path, form, named, nested):
    saved = randomised(network(named=named, nested=nested, head=True))
    file = read_weights(SAVED[form](saved, tmp_path))
    fresh = network(named=named, nested=nested)  # Keras continues the numbers of the first network
    assert assign_weights(fresh, file).loaded_to is None, "the head of the saved model is left out"
    assert same(fresh, saved)


@pytest.mark.parametrize("form", SAVED)
def test_a_backbone_nested_in_a_saved_model_is_assigned(tmp_path, form):
    backbone = randomised(network(named=False))
    images = keras.Input((6, 6, 3))
    saved = keras.Model(images, layers.Dense(2)(backbone(layers.Rescaling(1 / 255)(images))))
    fresh = network(named=False)
    assert assign_weights(fresh, read_weights(SAVED[form](saved, tmp_path))).loaded_to is None
    assert same(fresh, backbone)


def chain(count):
    """Returns convolutions that differ only in their position."""
    images = x = keras.Input((4, 4, 3))
    for _ in range(count):
        x = layers.Conv2D(3, 1, activation="relu")(x)
    return keras.Model(images, x, name="chain")


def in_parts(backbone, *places):
    """Returns a network whose backbone is cut after these layers, with each part in its own nested model, and a head."""
    nodes = [backbone.input, *(backbone.layers[place].output for place in places), backbone.output]
    x = images = keras.Input((4, 4, 3))
    for start, end in itertools.pairwise(nodes):
        inner, outer = keras.Model(start, end), keras.Input(x.shape[1:])
        y = inner(outer)
        if end is backbone.output:
            y = layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(y))
        x = keras.Model(outer, y)(x)
    return keras.Model(images, layers.Softmax()(x))


@pytest.mark.parametrize("form", ["Keras 3 weights", "Keras 3 model"])
@pytest.mark.parametrize("places", [(2,), (3,), (4,), (1, 4)], ids=str)
def test_a_backbone_in_several_nested_models_is_joined_in_order(tmp_path, form, places):
    backbone, fresh, longer = randomised(chain(6)), chain(6), chain(7)
    file = read_weights(SAVED[form](in_parts(backbone, *places), tmp_path))
    assert assign_weights(fresh, file).loaded_to is None
    assert same(fresh, backbone)
    assert assign_weights(longer, file).loaded_to == "conv2d_5", "the layer after the saved ones stays random"
    assert same(longer, backbone)


def test_a_nested_model_that_may_not_hold_the_first_layers_is_refused(tmp_path):
    backbone, fresh = randomised(chain(6)), chain(6)
    x = backbone.layers[2].output
    x = keras.Model(x, backbone.output)(x)  # the first two layers are outside of the nested model
    file = read_weights(SAVED["Keras 3 weights"](keras.Model(backbone.input, layers.Dense(2)(x)), tmp_path))
    before = weights_of(fresh)
    with refused("weights-misfit"):
        assign_weights(fresh, file)
    assert all(map(np.array_equal, before, weights_of(fresh)))


@pytest.mark.parametrize("form", SAVED)
def test_a_file_that_stops_early_is_loaded_up_to_a_cut(tmp_path, form):
    whole = randomised(network())
    part = keras.Model(whole.input, whole.get_layer("relu").output)
    fresh = network()
    before = weights_of(fresh.get_layer("second"))
    fitted = assign_weights(fresh, read_weights(SAVED[form](part, tmp_path)))
    assert (fitted.loaded_to, fitted.layers, fitted.missing) == ("relu", 3, ("second", "hidden"))
    assert same(keras.Model(fresh.input, fresh.get_layer("relu").output), part)
    assert all(map(np.array_equal, before, weights_of(fresh.get_layer("second"))))


def test_loading_stops_at_the_first_missing_layer(tmp_path):
    whole = randomised(network())
    part = keras.Model(whole.input, whole.get_layer("relu").output)
    path = SAVED["older Keras"](part, tmp_path)
    file = read_weights(path)

    def without(name):
        return replace(file, folded=False, layers=tuple(layer for layer in file.layers if layer.name != name))

    assert assign_weights(network(), without("norm")).loaded_to == "first"
    with refused("weights-misfit", received="none for 'first'"):
        assign_weights(network(), without("first"))


@pytest.mark.parametrize("form", SAVED)
def test_a_misfit_names_the_layer_and_both_shapes_and_assigns_nothing(tmp_path, form):
    file = read_weights(SAVED[form](randomised(network(width=7)), tmp_path))
    fresh = network()
    before = weights_of(fresh)
    with refused("weights-misfit", received=f"the shape (1, 1, 8, 7) of 'second' in {file.origin}"):
        assign_weights(fresh, file)
    assert all(map(np.array_equal, before, weights_of(fresh)))


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    broken = randomised(network())
    broken.get_layer("hidden").bias.assign(np.full(5, np.nan, np.float32))
    with refused("weights-misfit", received="NaN or infinity of 'hidden' in w.weights.h5"):
        assign_weights(network(), read_weights(SAVED["Keras 3 weights"](broken, tmp_path)))


def test_a_misfit_after_a_flattened_map_suggests_another_image_size():
    arrays = [np.zeros((3, 3, 3, 4)), np.zeros((999, 5))]
    small = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(4, 3, use_bias=False, name="a"),
            layers.Flatten(),
            layers.Dense(5, use_bias=False, name="b"),
        ]
    )
    file = WeightFile(
        "w", "test", "keras", tuple(LayerWeights(name, ("0",), (array,)) for name, array in zip("ab", arrays, strict=True))
    )
    with refused("weights-misfit") as caught:
        assign_weights(small, file)
    assert "image_size" in (caught.value.hint or "")


def test_a_file_with_layers_that_the_network_lacks_is_refused(tmp_path):
    """All shapes of VGG16 occur in VGG19, so its weights would fit there and compute nonsense."""
    deep = keras.Sequential([keras.Input((4, 4, 2)), *(layers.Conv2D(2, 1, name=f"block{n}") for n in range(4))])
    shallow = keras.Sequential([keras.Input((4, 4, 2)), *(layers.Conv2D(2, 1, name=f"block{n}") for n in (0, 1, 3))])
    for form in SAVED:
        file = read_weights(SAVED[form](deep, tmp_path))
        with refused("weights-misfit", received=f"also 'block2' in {file.origin}"):
            assign_weights(shallow, file)


def test_a_file_of_another_network_is_refused(tmp_path):
    file = read_weights(save_npy(tmp_path / "w.npy", {"other": [np.zeros((2, 2))]}))
    with refused("weights-misfit", received="layers 'other'"):
        assign_weights(network(), file)


def test_half_precision_and_normalization_layers_are_assigned(tmp_path):
    """A Normalization layer computes with copies of its weights, which must change too."""

    def build():
        return keras.Sequential(
            [keras.Input((2, 2, 3)), layers.Normalization(name="scale"), layers.Conv2D(2, 1, name="conv")], name="n"
        )

    saved = build()
    saved.layers[0].adapt(np.random.default_rng(0).normal(5, 3, (50, 2, 2, 3)).astype("float32"))
    fresh, images = build(), np.random.default_rng(1).normal(5, 3, (4, 2, 2, 3)).astype("float32")
    assign_weights(fresh, read_weights(SAVED["Keras 3 weights"](saved, tmp_path)))
    assert np.array_equal(keras.ops.convert_to_numpy(fresh(images)), keras.ops.convert_to_numpy(saved(images)))
    saved.save_weights(tmp_path / "w.weights.h5")
    half = {layer.name: [array.astype("float16") for array in weights_of(layer)] for layer in saved.layers}
    assign_weights(fresh, read_weights(save_npy(tmp_path / "half.npy", half)))
    assert np.allclose(keras.ops.convert_to_numpy(fresh(images)), keras.ops.convert_to_numpy(saved(images)), atol=1e-2)


def convolved(images, kernel, groups=1):
    """Computes PyTorch's convolution by its definition: (n, c, h, w) with (out, c / groups, 3, 3), no padding."""
    n, channels, height, width = images.shape
    out, size = kernel.shape[0], kernel.shape[-1]
    result = np.zeros((n, out, height - size + 1, width - size + 1))
    for o in range(out):
        first = o // (out // groups) * (channels // groups)
        for i in range(kernel.shape[1]):
            for y in range(size):
                for x in range(size):
                    window = images[:, first + i, y : y + result.shape[2], x : x + result.shape[3]]
                    result[:, o] += kernel[o, i, y, x] * window
    return result


def test_pytorch_weights_compute_what_they_compute_in_pytorch(tmp_path):
    draw = np.random.default_rng(0)
    first, depthwise, second = draw.normal(size=(4, 3, 3, 3)), draw.normal(size=(8, 1, 3, 3)), draw.normal(size=(6, 8, 1, 1))
    scale, shift, mean, variance = draw.normal(size=8), draw.normal(size=8), draw.normal(size=8), draw.uniform(1, 2, 8)
    bias, dense, offset = draw.normal(size=6), draw.normal(size=(5, 24)), draw.normal(size=5)
    state = {
        "features.0.weight": first,
        "features.1.weight": depthwise,
        "features.2.weight": scale,
        "features.2.bias": shift,
        "features.2.running_mean": mean,
        "features.2.running_var": variance,
        "features.2.num_batches_tracked": np.array(9),
        "features.4.weight": second,
        "features.4.bias": bias,
        "classifier.weight": dense,
        "classifier.bias": offset,
        "head.weight": draw.normal(size=(2, 5)),
    }
    path = save_torch(
        tmp_path / "w.pth", {name: array.astype("float32" if array.dtype != int else int) for name, array in state.items()}
    )
    model = network()
    assert assign_weights(model, read_weights(path)).loaded_to is None
    images = draw.normal(size=(2, 6, 6, 3))
    x = convolved(convolved(images.transpose(0, 3, 1, 2), first), depthwise, groups=4)
    x = (x - mean[:, None, None]) / np.sqrt(variance[:, None, None] + model.get_layer("norm").epsilon) * scale[:, None, None]
    x = convolved(np.maximum(x + shift[:, None, None], 0), second) + bias[:, None, None]
    expected = x.reshape(2, -1) @ dense.T + offset  # flattened as (channels, height, width)
    assert np.allclose(keras.ops.convert_to_numpy(model(images.astype("float32"))), expected, atol=1e-4)


def test_a_grouped_convolution_is_split_into_the_layers_of_its_groups(tmp_path):
    images = keras.Input((5, 5, 3))
    x = layers.Conv2D(4, 1, name="conv1")(images)
    halves = keras.ops.split(x, 2, axis=-1)
    x = layers.Concatenate(name="conv2")([layers.Conv2D(3, 3, name=f"conv2_{n}")(half) for n, half in enumerate(halves, start=1)])
    model = keras.Model(images, x, name="grouped")
    draw = np.random.default_rng(0)
    content = {
        "conv2": [draw.normal(size=(3, 3, 2, 6)).astype("float32"), draw.normal(size=6).astype("float32")],
        "conv1": [draw.normal(size=(1, 1, 3, 4)).astype("float32"), np.zeros(4, "float32")],
        "fc8": [np.zeros((2, 2), "float32"), np.zeros(2, "float32")],
    }
    assert assign_weights(model, read_weights(save_npy(tmp_path / "w.npy", content))).loaded_to is None
    pixels = draw.normal(size=(2, 5, 5, 3))
    inner = pixels @ content["conv1"][0][0, 0]
    expected = (
        convolved(inner.transpose(0, 3, 1, 2), content["conv2"][0].transpose(3, 2, 0, 1), groups=2)
        + content["conv2"][1][:, None, None]
    )
    assert np.allclose(keras.ops.convert_to_numpy(model(pixels.astype("float32"))), expected.transpose(0, 2, 3, 1), atol=1e-4)
    content["conv2"][0] = content["conv2"][0][..., :4]
    with refused("weights-misfit", received="the shape (3, 3, 2, 2) of 'conv2' in w.npy"):
        assign_weights(model, read_weights(save_npy(tmp_path / "w.npy", content)))


def test_names_with_slashes_match_and_unknown_names_go_by_order(tmp_path):
    model = keras.Sequential(
        [keras.Input((4, 4, 2)), layers.Conv2D(2, 1, name="fire2_squeeze"), layers.Conv2D(2, 1, name="fire2_expand")], name="s"
    )
    kernels = [np.full((1, 1, 2, 2), value, "float32") for value in (1, 2)]
    arrays = [{f"{n}/kernel:0": kernel, f"{n}/bias:0": np.zeros(2, "float32")} for n, kernel in enumerate(kernels)]
    by_name = save_older_keras(tmp_path / "a.h5", list(zip(("fire2/expand", "fire2/squeeze"), arrays, strict=True)))
    assign_weights(model, read_weights(by_name))
    assert weights_of(model)[0].flat[0] == 2, "by name: the second of the file is the first of the model"
    by_order = save_older_keras(tmp_path / "b.h5", list(zip(("convolution_1", "convolution_2"), arrays, strict=True)))
    assign_weights(model, read_weights(by_order))
    assert weights_of(model)[0].flat[0] == 1


@pytest.fixture(scope="module")
def shared_weights():
    folder = SHARED / "weights"
    if not folder.is_dir():
        pytest.skip("needs the shared weights beside the checkout: ../shared/weights")
    return folder


def test_the_shared_mobilenet_file_loads_up_to_its_last_block(shared_weights):
    def build():
        return keras.applications.MobileNet(weights=None, include_top=False, input_shape=(64, 64, 3))

    path = shared_weights / "mobilenet_v1_imagenet_to_conv_pw_12.weights.h5"
    model, other = build(), build()
    fitted = assign_weights(model, read_weights(path))
    assert (fitted.loaded_to, fitted.layers) == ("conv_pw_12_relu", 50)
    assert fitted.missing == ("conv_dw_13", "conv_dw_13_bn", "conv_pw_13", "conv_pw_13_bn")
    reached, expected = (keras.Model(whole.input, whole.get_layer("conv_pw_12_relu").output) for whole in (model, other))
    expected.load_weights(path)
    assert same(reached, expected)


def test_the_shared_squeezenet_file_loads_all_layers(shared_weights):
    path = shared_weights / "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"
    model, other = build_squeezenet(64).backbone, build_squeezenet(64).backbone
    fitted = assign_weights(model, read_weights(path))
    assert (fitted.loaded_to, fitted.layers, fitted.missing) == (None, 25, ())
    other.load_weights(path)
    assert same(model, other)
