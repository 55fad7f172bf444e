"""Covers the conversion to inference graphs, the child process for other backends, and digests of what a model computes."""

from subprocess import CompletedProcess
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers

from crossroads.errors import ArtifactError
from crossroads.networks import export
from crossroads.networks.catalog import backbone
from crossroads.networks.export import _require_same_ends, convert_elsewhere, converted, function_digest
from refusals import refused

pytestmark = pytest.mark.core


def filled(model):
    for weight in model.weights:
        weight.assign(np.full(weight.shape, 0.5, np.float32))
    return model


def activated(activation):
    """Returns a model with a layer whose name is also the value of a setting."""
    images = keras.Input((4, 4, 3))
    return filled(keras.Model(images, layers.Activation(activation, name=activation)(layers.Conv2D(2, 1)(images))))


def nested(activation="relu", *, swapped=False):
    inner = keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2D(3, 1, activation=activation), layers.Conv2D(3, 1)])
    images = keras.Input((4, 4, 3))
    first, second = layers.ReLU()(inner(images)), layers.ReLU(max_value=6)(images)
    both = [second, first] if swapped else [first, second]
    outer = keras.Model(images, layers.Concatenate()([*both, keras.ops.multiply(first, 2.0)]))
    return filled(keras.Model(images, layers.TimeDistributed(layers.Dense(2))(outer(images))))


def test_the_digest_depends_on_activations():
    digests = [function_digest(activated(activation)) for activation in ("relu", "tanh", "relu6")]
    assert len(set(digests)) == 3
    assert function_digest(nested()) != function_digest(nested("relu6"))


def test_the_digest_depends_on_the_order_of_inputs():
    assert function_digest(nested()) != function_digest(nested(swapped=True))


def test_the_digest_depends_on_the_precision():
    def dense(dtype):
        return filled(keras.Sequential([keras.Input((3,)), layers.Dense(2, dtype=dtype)]))

    assert function_digest(dense("float32")) != function_digest(dense("mixed_float16"))


def mobilenet():
    return filled(backbone("mobilenet").build(32).backbone)


@pytest.mark.parametrize("build", [nested, mobilenet])
def test_the_digest_is_the_same_after_building_twice(build):
    assert function_digest(build()) == function_digest(build())


def probabilities(make):
    images = keras.Input((8, 8, 3), dtype="uint8", name="images")
    x = layers.GlobalAveragePooling2D()(make(layers.Rescaling(1 / 255)(images)))
    return keras.Model(images, layers.Dense(3, activation="softmax")(x), name="net")


ON_TENSORFLOW = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="other backends export in a child process")


@ON_TENSORFLOW
@pytest.mark.parametrize("activation", ["silu", "mish", "relu"])
def test_a_graph_has_only_the_input_and_the_output_of_its_model(activation):
    graph = converted(probabilities(lambda x: layers.Conv2D(4, 3, activation=activation)(x)))
    ends = [(end.get_element_type().get_type_name(), str(end.partial_shape)) for end in (*graph.inputs, *graph.outputs)]
    assert ends == [("u8", "[?,8,8,3]"), ("f32", "[?,3]")]
    assert graph.inputs[0].get_names() == {"images"}


@ON_TENSORFLOW
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("bins", lambda x: keras.ops.cast(layers.Discretization(bin_boundaries=[0.3], name="bins")(x), "float32")),
        ("looked_up", lambda x: looked_up(x)),
    ],
)
def test_a_layer_that_does_not_convert_is_named(name, make):
    with refused("layer-does-not-convert", ArtifactError) as caught:
        converted(probabilities(make))
    assert repr(name) in caught.value.received


def looked_up(x):
    whole = keras.ops.cast(layers.Reshape((-1,))(x) * 9, "int32")
    return keras.ops.reshape(
        keras.ops.cast(layers.IntegerLookup(vocabulary=[1, 2], name="looked_up")(whole), "float32"), (-1, 8, 8, 3)
    )


@ON_TENSORFLOW
def test_a_graph_with_other_ends_than_its_model_is_refused():
    model = probabilities(lambda x: x)
    graph, (output,) = converted(model), model.outputs
    _require_same_ends(graph, model)
    for outputs in ([output, output], [keras.KerasTensor((None, 4))], [keras.KerasTensor((None, 3), "float16")]):
        with refused("graph-ends-differ", ArtifactError):
            _require_same_ends(graph, SimpleNamespace(inputs=model.inputs, outputs=outputs))


@ON_TENSORFLOW
def test_patches_of_openvino_are_undone_after_a_conversion():
    from openvino.frontend.tensorflow import node_decoder, utils

    before = node_decoder.TFGraphNodeDecoder.get_variable
    converted(probabilities(lambda x: x))
    assert node_decoder.TFGraphNodeDecoder.get_variable is before
    assert "exec" not in vars(utils)


@ON_TENSORFLOW
def test_the_child_process_imports_nothing_from_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for named in ("keras", "openvino"):
        (tmp_path / f"{named}.py").write_text("open('ran', 'w').close()\nraise SystemExit(0)\n")
    activated("relu").save(tmp_path / "saved.keras")
    convert_elsewhere(tmp_path / "saved.keras", tmp_path / "graph.xml")
    assert (tmp_path / "graph.xml").exists()
    assert not (tmp_path / "ran").exists()


@ON_TENSORFLOW
def test_the_child_process_reports_the_same_error(tmp_path, monkeypatch, capsys):
    def main_here(command, **_):
        """Runs what the child runs in this process, where Keras is loaded. Another test starts a child."""
        with pytest.raises(SystemExit) as ended:
            export._main(*command[-2:])
        return CompletedProcess(command, ended.value.code, capsys.readouterr().out, "")

    monkeypatch.setattr(export.subprocess, "run", main_here)
    model = probabilities(lambda x: keras.ops.cast(layers.Discretization(bin_boundaries=[0.3], name="bins")(x), "float32"))
    model.save(tmp_path / "saved.keras")
    with refused("layer-does-not-convert", ArtifactError) as caught:
        convert_elsewhere(tmp_path / "saved.keras", tmp_path / "graph.xml")
    assert "'bins'" in caught.value.received
