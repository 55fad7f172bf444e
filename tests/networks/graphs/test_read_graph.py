"""Covers graphs of files as backbones: input, cuts, layouts, ends, batches."""

import json
import sys

import numpy as np
import pytest

from crossroads.errors import BackboneError
from crossroads.inference import evaluate, read_model, runtime
from crossroads.networks.graphs import describe, read_graph
from refusals import refused
from tiny_graphs import SIZE, Maker, convnet, vit, written


def pixels(n=2, size=SIZE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), np.uint8)


def read(model, tmp_path, preprocessing="tf", **options):
    return read_graph(written(model, tmp_path / "net.xml"), preprocessing=preprocessing, **options)


def features(body, images, cut=None, pooling="average"):
    part = body.until(body.find(cut), pooling)
    return evaluate(part.model, images)[0].reshape(len(images), *part.shape)


def listed(body):
    return [cut.name for cut in body.cuts]


def tap(body, name):
    return next(tap for tap in body.taps if tap.cut.name == name)


def rest_of(body, name):
    """Returns the graph from a tap to the last one."""
    model = body.model.clone()
    position = [tap.cut.name for tap in body.taps].index(name)
    tensor = model.outputs[position].get_node().input_value(0)
    start = runtime().opset13.parameter([-1, *list(tensor.get_partial_shape())[1:]], np.float32)
    for target in tensor.get_target_inputs():
        target.replace_source_output(start.output(0))
    end = [tap.cut.name for tap in body.taps].index(body.end.name)
    return runtime().Model([model.get_results()[end].input_value(0)], [start], "rest")


def tensor_at(body, name):
    model = body.model.clone()
    position = [tap.cut.name for tap in body.taps].index(name)
    return runtime().Model([model.get_results()[position].input_value(0)], model.get_parameters(), "part")


# Cuts


def test_the_cuts_of_a_graph_are_the_ends_of_its_runs_up_to_the_map_before_the_classifier(tmp_path):
    body = read(convnet(), tmp_path)
    assert listed(body) == ["stem_relu", "depthwise_relu", "pointwise_relu", "sum"]
    assert body.end.name == "sum"
    assert [tap.cut.name for tap in body.taps][-1] == "pool"
    assert [cut.depth for cut in body.cuts] == pytest.approx([1 / 5, 2 / 5, 3 / 5, 1])
    assert [cut.shape for cut in body.cuts] == [(8, 8, 8), (8, 8, 8), (8, 8, 12), (8, 8, 12)]
    costs = np.cumsum([64 * 27 * 8, 64 * 9 * 8, 64 * 8 * 12, 2 * 64 * 9 * 12 * 12])
    assert [cut.multiply_adds for cut in body.cuts] == costs.tolist()
    parameters = np.cumsum([27 * 8 + 8, 9 * 8 + 8, 8 * 12 + 12, 2 * (9 * 12 * 12 + 12)])
    assert [cut.parameters for cut in body.cuts] == parameters.tolist()
    assert (body.depthwise, body.quantised, body.batch) == (True, False, None)
    assert tap(body, "stem_relu").layout == "NCHW"


def test_names_do_not_depend_on_the_process_and_are_unique(tmp_path):
    path = written(convnet(), tmp_path / "net.xml")
    first, second = (read_graph(path, preprocessing="tf") for _ in range(2))
    names = [tap.cut.name for tap in first.taps]
    assert names == [tap.cut.name for tap in second.taps]
    assert len(set(names)) == len(names)
    assert first.digest == second.digest


@pytest.mark.parametrize(
    ("options", "end"), [({"softmax": False}, "sum"), ({"classes": 0}, "sum"), ({"classes": 12, "softmax": True}, "sum")]
)
def test_a_classifier_is_left_out_however_it_ends(options, end, tmp_path):
    assert read(convnet(**options), tmp_path).end.name == end


@pytest.mark.parametrize("model", [convnet(), vit(), vit(registers=4), vit(class_token=False)])
def test_parts_compose_to_the_whole(model, tmp_path):
    body = read(model, tmp_path)
    images = pixels()
    expected = evaluate(tensor_at(body, body.end.name), images)[0]
    for cut in body.cuts[:-1]:
        middle = evaluate(tensor_at(body, cut.name), images)[0]
        np.testing.assert_allclose(evaluate(rest_of(body, cut.name), middle)[0], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["MobileNetV2", pytest.param("ResNet50V2", marks=pytest.mark.slow)])
def test_the_cuts_are_those_of_the_keras_network_that_a_graph_came_from(name, tmp_path):
    keras = pytest.importorskip("keras")
    from crossroads.networks.cuts import cuts
    from crossroads.networks.export import converted, exports_here

    if not exports_here():
        pytest.skip("needs Keras on TensorFlow")
    make = getattr(keras.applications, name)
    body = read(converted(make(weights=None, input_shape=(32, 32, 3), classes=7)), tmp_path)
    expected = cuts(make(weights=None, input_shape=(32, 32, 3), include_top=False))
    assert [(cut.depth, cut.shape, cut.multiply_adds) for cut in body.cuts] == [
        (cut.depth, cut.shape, cut.multiply_adds) for cut in expected
    ]


# Tokens


@pytest.mark.parametrize(("options", "prefix"), [({}, 1), ({"registers": 4}, 5), ({"class_token": False}, 0)])
def test_the_residual_stream_is_a_cut_after_each_block(options, prefix, tmp_path):
    body = read(vit(**options), tmp_path)
    assert listed(body) == ["embedding", "block0_attention", "block0", "block1_attention", "norm"]
    for name in listed(body):
        assert (tap(body, name).layout, tap(body, name).prefix) == ("NTC", prefix)
        assert tap(body, name).cut.shape == (16 + prefix, 8)
    projections, products = 4 * 8 * 8, 2 * (16 + prefix) * 8
    inside = (16 + prefix) * (projections + products)
    assert body.find("block0_attention").multiply_adds - body.find("embedding").multiply_adds == inside


def test_class_token_and_patches_are_pooled_apart(tmp_path):
    body, images = read(vit(registers=4), tmp_path), pixels(3)
    tokens = features(body, images, pooling=None)
    assert tokens.shape == (3, 21, 8)
    np.testing.assert_allclose(features(body, images), tokens[:, 5:].mean(axis=1), atol=1e-5)
    both = np.concatenate([tokens[:, 0], tokens[:, 5:].mean(axis=1)], axis=1)
    np.testing.assert_allclose(features(body, images, pooling="class-and-average"), both, atol=1e-5)


def test_of_several_outputs_the_hidden_state_is_taken(tmp_path):
    body = read(vit(hidden=True, blocks=3), tmp_path)
    assert (body.end.name, tap(body, "norm").layout) == ("norm", "NTC")


# Input


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("channels_first", [True, False])
@pytest.mark.parametrize("batch", [-1, 1])
def test_layout_type_and_batch_of_the_input_do_not_matter(kind, channels_first, batch, tmp_path):
    shape = (batch, 3, SIZE, SIZE) if channels_first else (batch, SIZE, SIZE, 3)
    body = read(convnet(shape, kind), tmp_path)
    assert body.batch is None
    expected = features(read(convnet(), tmp_path), pixels(3))
    np.testing.assert_allclose(features(body, pixels(3)), expected, rtol=2e-3, atol=2e-3)


def test_pixels_are_scaled_as_chosen(tmp_path):
    images = pixels()
    model = convnet(classes=0)
    expected = evaluate(model, np.ascontiguousarray((images / 127.5 - 1).transpose(0, 3, 1, 2).astype(np.float32)))[0]
    np.testing.assert_allclose(features(read(model, tmp_path), images), expected, atol=1e-4)


def test_an_input_of_bytes_takes_pixels_as_they_are(tmp_path):
    model = convnet((1, SIZE, SIZE, 3), np.uint8, classes=0)
    body = read(model, tmp_path, preprocessing=None)
    expected = np.concatenate([evaluate(model, image[None])[0] for image in pixels()])
    np.testing.assert_allclose(features(body, pixels()), expected, rtol=1e-4, atol=1e-3)
    with refused("option-without-effect"):
        read(model, tmp_path, preprocessing="torch")


def test_a_graph_that_only_takes_one_image_runs_one_by_one(tmp_path):
    make = Maker()
    images = make.ops.parameter([1, 3, SIZE, SIZE], np.float32, name="input")
    x = make.relu(make.convolution(images, 3, 8, stride=8, name="stem"), "relu")
    x = make.ops.reshape(x, make.ints(1, 8, 4), False)
    x = make.ops.transpose(x, make.ints(0, 2, 1))
    x = make.dense(x, 8, 6)
    body = read(runtime().Model([x.output(0)], [images], "fixed"), tmp_path)
    assert body.batch == 1
    assert features(body, pixels(1)).shape == (1, 6)


def test_a_dynamic_size_is_chosen(tmp_path):
    path = written(convnet((-1, 3, -1, -1)), tmp_path / "net.xml")
    assert describe(path).input.largest is None
    assert read_graph(path, preprocessing="tf").size == 224
    assert read_graph(path, preprocessing="tf", size=32).cuts[0].shape == (16, 16, 8)
    fixed = written(convnet(), tmp_path / "fixed.xml")
    assert (describe(fixed).input.smallest, describe(fixed).input.largest) == (SIZE, SIZE)
    with refused("image-size-not-supported"):
        read_graph(fixed, preprocessing="tf", size=32)


def test_a_layout_without_any_known_side_is_channels_first(tmp_path):
    path = written(convnet((-1, 3, -1, -1)), tmp_path / "net.xml")
    model = read_model(path)
    assert describe(path).input.layout == "NCHW"
    model.reshape({model.inputs[0]: [-1, -1, -1, -1]})
    assert read(model, tmp_path, size=SIZE).cuts[-1].shape == (8, 8, 12)


def test_a_transformer_for_one_size_refuses_others(tmp_path):
    model = vit()
    model.reshape([-1, 3, SIZE, SIZE])
    with refused("image-size-not-supported"):
        read(model, tmp_path, size=48)


# Preprocessing, licence and source beside the file


CONFIG = {
    "do_resize": True,
    "size": {"shortest_edge": 20},
    "do_center_crop": True,
    "crop_size": {"height": SIZE, "width": SIZE},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.5, 0.6, 0.7],
    "do_convert_rgb": True,
}


def test_preprocessing_licence_and_source_are_found_beside_the_file(tmp_path):
    (tmp_path / "onnx").mkdir()
    path = written(convnet(classes=0), tmp_path / "onnx" / "net.xml")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "README.md").write_text("---\ntags:\n- vision\nlicense: apache-2.0\nbase_model:\n- some/model\n---\n# Card\n")
    file = describe(path)
    found = file.preprocessing
    assert (found.size, found.resize, found.crop_fraction, found.resample) == (SIZE, "crop", 0.8, "bicubic")
    body = read_graph(path)
    assert body.weights == {"from": "net.xml", "sha256": body.weights["sha256"], "licence": "Apache-2.0", "source": "some/model"}
    assert not body.notes
    values = (pixels() / 255 - CONFIG["image_mean"]) / CONFIG["image_std"]
    expected = evaluate(convnet(classes=0), np.ascontiguousarray(values.transpose(0, 3, 1, 2).astype(np.float32)))[0]
    np.testing.assert_allclose(features(body, pixels()), expected, atol=1e-4)


@pytest.mark.parametrize(
    "change", [{"size": {"height": 4, "width": 5}}, {"image_std": [0, 1, 1]}, {"image_mean": "x"}, {"resample": 99}, {"size": []}]
)
def test_a_configuration_that_does_not_fit_is_refused(change, tmp_path):
    path = written(convnet(), tmp_path / "net.xml")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(CONFIG | {"do_center_crop": False} | change))
    with refused("invalid-preprocessor-config"):
        describe(path)


def test_unknown_preprocessing_is_asked_for_with_the_choices(tmp_path):
    path = written(convnet(), tmp_path / "net.xml")
    with refused("preprocessing-needed", BackboneError) as caught:
        read_graph(path)
    assert "clip" in caught.value.hint
    with refused("unknown-preprocessing"):
        read_graph(path, preprocessing="torhc")


def test_an_unknown_licence_is_noted_and_an_argument_is_recorded(tmp_path):
    assert read(convnet(), tmp_path).notes == ()
    body = read(convnet(), tmp_path, licence="MIT", source="my own")
    assert (body.weights["licence"], body.weights["source"], body.notes) == ("MIT", "my own", ())


def test_no_framework_is_loaded():
    import subprocess

    code = "import crossroads.networks.graphs, sys; sys.exit(any(m in sys.modules for m in ('keras', 'tensorflow')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
