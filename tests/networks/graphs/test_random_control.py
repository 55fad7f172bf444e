"""Covers the random control: nothing that was trained is left, and the statistics fit."""

import numpy as np
import pytest

from crossroads.inference import evaluate, operations, runtime
from crossroads.networks.body import Body, Tap
from crossroads.networks.cut import Cut
from crossroads.networks.graphs import random_control, read_graph
from tiny_graphs import SIZE, Maker, convnet, vit, written


def pixels(n=8, size=SIZE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), np.uint8)


def read(model, tmp_path):
    return read_graph(written(model, tmp_path / "net.xml"), preprocessing="tf")


def at(body, name, images):
    position = [tap.cut.name for tap in body.taps].index(name)
    model = body.model.clone()
    part = runtime().Model([model.get_results()[position].input_value(0)], model.get_parameters(), "part")
    return evaluate(part, images)[0]


def test_the_control_has_the_same_cuts_and_takes_any_batch(tmp_path):
    body = read(convnet(), tmp_path)
    control = random_control(body, pixels(), 0)
    assert (control.taps, control.end, control.size, control.batch) == (body.taps, body.end, body.size, None)
    assert control.weights is None
    assert control.digest != body.digest
    assert random_control(body, pixels(), 1).digest != control.digest
    assert at(control, "sum", pixels(3)).shape == at(body, "sum", pixels(3)).shape


@pytest.mark.parametrize("name", ["stem", "depthwise", "pointwise", "sum"])
def test_nothing_is_left_of_the_weights_of_a_convolutional_network(name, tmp_path):
    """Networks with other weights have the same control."""
    first, second = (random_control(read(convnet(seed=seed), tmp_path), pixels(), 7) for seed in (0, 1))
    np.testing.assert_allclose(at(first, name, pixels()), at(second, name, pixels()), atol=1e-4)


def test_convolutions_are_normalised_by_the_images(tmp_path):
    control = random_control(read(convnet(), tmp_path), pixels(), 0)
    for name in ("stem", "depthwise", "pointwise"):
        values = at(control, name, pixels())
        np.testing.assert_allclose(values.mean(axis=(0, 2, 3)), 0, atol=1e-4)
        np.testing.assert_allclose(values.std(axis=(0, 2, 3)), 1, atol=1e-2)


def test_the_statistics_do_not_depend_on_later_images(tmp_path):
    control = random_control(read(convnet(), tmp_path), pixels(), 0)
    together = at(control, "sum", pixels(6, seed=3))
    np.testing.assert_allclose(at(control, "sum", pixels(6, seed=3)[:1]), together[:1], atol=1e-4)


def test_no_weight_of_a_transformer_is_left(tmp_path):
    body = read(vit(registers=2), tmp_path)
    control = random_control(body, pixels(), 0)

    names = ("f32", "f16")
    old, new = (
        {
            np.array(n.data).tobytes()
            for n in model.get_ops()
            if n.get_type_name() == "Constant" and n.get_element_type().get_type_name() in names and np.array(n.data).size > 3
        }
        for model in (body.model, control.model)
    )
    assert old
    assert not old & new
    values = at(control, "norm", pixels())
    np.testing.assert_allclose(values.mean(axis=-1), 0, atol=1e-4)  # neither scale nor shift
    np.testing.assert_allclose(values.std(axis=-1), 1, atol=1e-3)
    assert values.std(axis=0).mean() > 1e-3


def test_a_batch_norm_before_a_convolution_is_normalised_and_the_shortcut_is_not(tmp_path):
    def model(seed):
        make = Maker(seed)
        images = make.ops.parameter([-1, 3, SIZE, SIZE], np.float32, name="input")
        x = make.convolution(images, 3, 8, name="stem")
        y = make.ops.add(make.ops.multiply(x, make.constant(1, 8, 1, 1)), make.constant(1, 8, 1, 1))
        y = make.convolution(make.relu(y, "relu"), 8, 8, name="inner")
        x = make.ops.add(x, y)
        x.set_friendly_name("sum")
        x = make.ops.add(make.ops.multiply(x, make.constant(1, 8, 1, 1)), make.constant(1, 8, 1, 1))
        return runtime().Model([make.relu(x, "end").output(0)], [images], "preactivated")

    first, second = (random_control(read(model(seed), tmp_path), pixels(), 7) for seed in (0, 1))
    for name in ("sum", "end"):
        np.testing.assert_allclose(at(first, name, pixels()), at(second, name, pixels()), atol=1e-4)
    assert at(first, "sum", pixels()).var() == pytest.approx(2, abs=0.7)


def test_a_quantised_graph_has_no_control(tmp_path):
    ops, make = operations(), Maker()
    images = ops.parameter([1, SIZE, SIZE, 3], np.uint8, name="input")
    x = ops.transpose(ops.convert(images, "f32"), make.ints(0, 3, 1, 2))
    bounds = [ops.constant(np.float32(value)) for value in (0, 255, -1, 1)]
    x = make.relu(make.convolution(ops.fake_quantize(x, *bounds, 256), 3, 4), "relu")
    path = written(runtime().Model([x.output(0)], [images], "quantised"), tmp_path / "net.xml")
    body = read_graph(path)
    assert [note.code for note in body.notes] == ["quantised-input"]
    assert body.notes[0].figures == {"low": -1, "high": 1}
    assert random_control(body, pixels(), 0) is None


def test_the_graph_of_a_keras_network_has_a_control():
    """Its convolutions stand between transpositions, and its preprocessing stays."""
    keras = pytest.importorskip("keras")
    from crossroads.networks.export import converted, exports_here

    if not exports_here():
        pytest.skip("needs Keras on TensorFlow")

    def body(seed):
        keras.utils.set_random_seed(seed)
        images = keras.Input((SIZE, SIZE, 3), dtype="uint8")
        x = keras.layers.Rescaling(1 / 127.5, -1)(images)
        for number, layer in enumerate([keras.layers.Conv2D(8, 3, name="conv"), keras.layers.DepthwiseConv2D(3, use_bias=False)]):
            x = keras.layers.BatchNormalization(gamma_initializer="random_normal", beta_initializer="random_normal")(layer(x))
            x = keras.layers.ReLU(6.0, name=f"relu{number}")(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        x = keras.layers.LayerNormalization(beta_initializer="random_normal", gamma_initializer="random_normal")(
            keras.layers.Dense(6, activation="relu")(x)
        )
        model = converted(keras.Model(images, x))
        cut = Cut("end", 0, 1.0, (6,), 1, 1, 1)
        return Body("net", SIZE, model, (Tap(cut, "NC"),), cut, "digest")

    first, second = (random_control(body(seed), pixels(), 7) for seed in (0, 1))
    kernels = [node for node in first.model.get_ops() if node.get_type_name() in ("Convolution", "GroupConvolution")]
    assert len(kernels) == 2
    images = pixels(5)
    trained = evaluate(body(0).model, images)[0]
    results = [evaluate(control.model, images)[0] for control in (first, second)]
    np.testing.assert_allclose(results[0], results[1], atol=1e-4)
    assert np.abs(trained - results[0]).max() > 0.3
