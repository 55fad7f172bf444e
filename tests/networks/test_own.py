"""Covers custom networks: objects, files and functions, and their errors."""

import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from keras import layers, ops

from crossroads.errors import BackboneError
from crossroads.networks.construct import choose
from crossroads.networks.cuts import after, cuts, until
from crossroads.networks.network import Parts
from crossroads.networks.own import own_backbone
from refusals import refused

pytestmark = pytest.mark.core


def run(model, images):
    return keras.ops.convert_to_numpy(model(images, training=False))


def pixels(size, n=2):
    return np.random.default_rng(0).uniform(0, 255, (n, size, size, 3)).astype(np.float32)


def quiz(size=16, head=True):
    """Returns a small network as a user writes it."""
    model = keras.Sequential(
        [
            keras.Input((size, size, 3)),
            layers.Rescaling(1 / 255, offset=-0.5),
            layers.Conv2D(4, 3, name="conv"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.5),
            layers.Activation("relu", name="relu"),
            layers.Flatten(),
            layers.Dense(8, name="hidden"),
            layers.Activation("relu", name="hidden_relu"),
        ],
        name="quiz",
    )
    if head:
        model.add(layers.Dense(5, name="scores"))
        model.add(layers.Activation("softmax"))
    return model


# Models


def test_the_head_of_a_sequential_is_removed_with_a_note():
    model = quiz()
    own = own_backbone(model, 16)
    assert (own.name, own.size, own.parts.preprocessing) == ("quiz", 16, ())
    assert [(note.code, note.figures) for note in own.notes] == [("head-removed", {"layer": "scores", "outputs": 5})]
    assert [cut.name for cut in cuts(own.parts.backbone)] == ["relu", "hidden_relu"]
    inner = keras.Model(model.inputs, model.get_layer("hidden_relu").output)
    np.testing.assert_array_equal(run(own.parts.backbone, pixels(16)), run(inner, [pixels(16)]))
    assert {id(w) for w in own.parts.backbone.weights} < {id(w) for w in model.weights}


def test_the_default_size_is_the_size_of_the_model():
    assert own_backbone(quiz(), None).size == 16
    with refused("image-size-not-supported", BackboneError, field="image_size", received="32 px", hint="use image_size 16"):
        own_backbone(quiz(), 32)


def test_a_model_of_any_size_is_built_at_the_given_size():
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(2, 3, name="a"), layers.Conv2D(4, 3, name="b")])
    own = own_backbone(model, 12)
    assert own.parts.backbone.input_shape == (None, 12, 12, 3)
    assert [cut.shape for cut in cuts(own.parts.backbone)] == [(10, 10, 2), (8, 8, 4)]
    np.testing.assert_array_equal(run(own.parts.backbone, pixels(12)), run(model, pixels(12)))
    assert own_backbone(model, None).size is None


def test_a_sequential_without_an_input_gets_one():
    model = keras.Sequential(
        [layers.Conv2D(2, 3, name="a"), layers.Flatten(), layers.Dense(3, activation="softmax", name="scores")]
    )
    assert own_backbone(model, None).size is None
    own = own_backbone(model, 12)
    assert own.size == 12
    assert own.parts.backbone.output_shape == (None, 200)
    narrow = keras.Sequential([layers.Conv2D(2, 20)], name="narrow")
    with refused("image-size-not-supported", BackboneError):
        own_backbone(narrow, 12)


def test_nested_models_are_replaced_by_their_layers():
    images = keras.Input((None, None, 3))
    x = layers.ReLU(name="inner_relu")(layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="inner")(images)))
    base = keras.Model(images, layers.Conv2D(4, 3, name="inner2")(x), name="base")
    inputs = keras.Input((12, 12, 3))
    x = layers.GlobalAveragePooling2D()(base(layers.Rescaling(1 / 255)(inputs), training=False))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="scores")(x), name="mine")
    backbone = own_backbone(model, 12).parts.backbone
    assert [cut.name for cut in cuts(backbone)] == ["inner_relu", "global_average_pooling2d"]
    expected = run(keras.Model(model.inputs, model.layers[-2].output), [pixels(12)])
    np.testing.assert_array_equal(run(backbone, pixels(12)), expected)
    cut = cuts(backbone)[0]
    np.testing.assert_array_equal(run(after(backbone, cut), run(until(backbone, cut), pixels(12))), expected)


def test_nested_models_whose_layers_share_a_name_stay_one_layer_each():
    def part(name, channels):
        return keras.Sequential([keras.Input((None, None, channels)), layers.Conv2D(3, 1, name="conv")], name=name)

    model = keras.Sequential([keras.Input((8, 8, 3)), part("one", 3), part("two", 3)])
    backbone = own_backbone(model, 8).parts.backbone
    assert [cut.name for cut in cuts(backbone)] == ["one", "two"]
    np.testing.assert_array_equal(run(backbone, pixels(8)), run(model, pixels(8)))


def test_a_size_too_small_for_the_layers_is_refused():
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(2, 20)], name="narrow")
    with refused("image-size-not-supported", BackboneError):
        own_backbone(model, 12)


# Heads


def ends_with(*top):
    x = images = keras.Input((8, 8, 3))
    for layer in (layers.Conv2D(4, 3, name="conv"), *top):
        x = layer(x)
    return keras.Model(images, x, name="mine")


@pytest.mark.parametrize(
    "top",
    [
        (layers.Flatten(), layers.Dense(3, activation="softmax", name="scores")),
        (layers.Flatten(), layers.Dense(3, name="scores"), layers.Softmax()),
        (layers.Flatten(), layers.Dense(3, name="scores"), ops.softmax),
        (layers.Conv2D(3, 1, name="scores"), layers.ReLU(), layers.GlobalAveragePooling2D(), layers.Softmax()),
        (layers.GlobalAveragePooling2D(keepdims=True), layers.Conv2D(3, 1, name="scores"), layers.Reshape((3,)), layers.Softmax()),
    ],
    ids=["dense softmax", "dense, softmax", "operation", "convolution, average", "convolution, reshape"],
)
def test_a_head_with_a_softmax_is_removed(top):
    own = own_backbone(ends_with(*top), None)
    assert [(note.code, note.figures) for note in own.notes] == [("head-removed", {"layer": "scores", "outputs": 3})]
    assert own.parts.backbone.output_shape[-1] in (4, 144)
    assert "scores" not in {layer.name for layer in own.parts.backbone.layers}


def test_a_dense_end_without_a_softmax_is_kept_with_a_note():
    own = own_backbone(ends_with(layers.Flatten(), layers.Dense(7, name="embedding")), None)
    assert own.parts.backbone.output_shape == (None, 7)
    assert [(note.code, note.figures) for note in own.notes] == [("dense-end-kept", {"layer": "embedding", "outputs": 7})]
    assert own_backbone(quiz(head=False), None).notes == ()


def test_a_softmax_that_is_not_a_head_is_kept():
    own = own_backbone(ends_with(layers.MaxPooling2D(), layers.Softmax(name="attention")), None)
    assert own.parts.backbone.layers[-1].name == "attention"
    assert own.notes == ()


# Errors


def subclassed():
    class Mine(keras.Model):
        def call(self, x):
            return x

    return Mine()


class Doubled(layers.Layer):
    def call(self, x):
        return 2 * x


def one_input(shape, dtype="float32"):
    x = keras.Input(shape, dtype=dtype)
    return keras.Model(x, layers.ReLU()(layers.Rescaling(0.5)(x)), name="mine")


@pytest.mark.parametrize(
    ("make", "code", "received"),
    [
        (lambda: one_input((8, 8, 1)), "input-not-an-image", "(None, 8, 8, 1)"),
        (lambda: one_input((3, 8, 8)), "input-not-an-image", "(None, 3, 8, 8)"),
        (lambda: one_input((8, 9, 3)), "input-not-an-image", "(None, 8, 9, 3)"),
        (lambda: one_input((64,)), "input-not-an-image", "(None, 64)"),
        (lambda: one_input((8, 8, 3), "uint8"), "input-not-an-image", "uint8"),
        (subclassed, "no-layer-graph", ""),
        (lambda: ends_with(layers.Lambda(lambda x: x, name="code")), "code-in-network", "a lambda in layer 'code'"),
        (lambda: ends_with(Doubled(name="twice")), "code-in-network", "Doubled in layer 'twice'"),
        (lambda: ends_with(layers.Activation(lambda x: x, name="code")), "code-in-network", "'code'"),
        (lambda: ends_with(keras.Sequential([Doubled(name="twice")])), "code-in-network", "Doubled"),
        (lambda: keras.Sequential([keras.Input((8, 8, 3)), layers.Dense(3, activation="softmax")]), "network-without-layers", ""),
        (lambda: layers.Dense(3), "not-a-network", "Dense"),
        (lambda: 7, "not-a-network", "int"),
    ],
)
def test_a_network_that_cannot_be_a_backbone_is_refused(make, code, received):
    with refused(code, BackboneError, field="backbone") as caught:
        own_backbone(make(), None)
    assert received in caught.value.received
    assert "\n" not in str(caught.value)


# Files


def test_a_file_is_read(tmp_path):
    model = quiz()
    model.save(tmp_path / "quiz.keras")
    own = own_backbone(tmp_path / "quiz.keras", 16)
    assert own.name == "quiz"
    np.testing.assert_array_equal(run(own.parts.backbone, pixels(16)), run(own_backbone(model, 16).parts.backbone, pixels(16)))
    assert own_backbone(str(tmp_path / "quiz.keras"), None).size == 16


def test_a_file_with_a_lambda_layer_is_refused(tmp_path):
    nested = keras.Sequential([layers.Lambda(lambda x: x, name="halving")], name="inside")
    ends_with(nested).save(tmp_path / "lambda.keras")
    with refused("code-in-network", BackboneError) as caught:
        own_backbone(tmp_path / "lambda.keras", None)
    assert "'halving'" in caught.value.received
    assert "safe_mode" not in str(caught.value)


@pytest.mark.parametrize(
    "reference",
    [
        {"module": "os", "class_name": "system"},
        {"module": "subprocess", "class_name": "Popen"},
        {"module": "keras.utils", "class_name": "get_file"},
        {"module": "builtins", "class_name": "function", "config": "exec"},
    ],
)
def test_a_file_that_names_a_python_function_is_refused(tmp_path, reference):
    quiz().save(tmp_path / "quiz.keras")
    marker = tmp_path / "ran"
    with zipfile.ZipFile(tmp_path / "quiz.keras") as good, zipfile.ZipFile(tmp_path / "bad.keras", "w") as bad:
        for name in good.namelist():
            content = good.read(name)
            if name == "config.json":
                config = json.loads(content)
                config["config"]["layers"][2] |= {"config": {"command": f"touch {marker}"}, "registered_name": None, **reference}
                content = json.dumps(config).encode()
            bad.writestr(name, content)
    with refused("network-file-not-loadable", BackboneError):
        own_backbone(tmp_path / "bad.keras", None)
    assert not marker.exists()


def test_broken_and_missing_files_are_refused(tmp_path):
    (tmp_path / "broken.keras").write_bytes(b"PK\x03\x04 and nothing")
    for path, code in (
        ("broken.keras", "network-file-not-loadable"),
        ("missing.keras", "no-such-file"),
        ("old.h5", "not-a-keras-file"),
    ):
        with refused(code, BackboneError):
            own_backbone(tmp_path / path, None)


# Functions


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module into the current folder and returns its name."""

    def write(code):
        name = f"own_{abs(hash(tmp_path))}"
        (tmp_path / f"{name}.py").write_text("import keras\nfrom keras import layers\n" + code)
        monkeypatch.chdir(tmp_path)
        return name

    return write


MAKES = "keras.Sequential([keras.Input(({size}, {size}, 3)), layers.Conv2D(2, 3, name='conv')], name='made')"


def test_a_function_receives_the_size(module):
    name = module(f"def build(size): return {MAKES.format(size='size')}\ndef tiny(): return {MAKES.format(size=8)}")
    assert own_backbone(f"{name}:build", 24).parts.backbone.input_shape == (None, 24, 24, 3)
    assert own_backbone(f"{name}:tiny", None).size == 8
    with refused("image-size-missing", BackboneError):
        own_backbone(f"{name}:build", None)
    with refused("image-size-not-supported", BackboneError, received="24 px"):
        own_backbone(f"{name}:tiny", 24)


def test_the_size_limits_follow_from_the_function(module):
    name = module(
        f"def tiny(): return {MAKES.format(size=8)}\n"
        f"def any_size(): return {MAKES.format(size='None')}\n"
        f"def build(size): return {MAKES.format(size='size')}\n"
        f"def usual(image_size=8): return {MAKES.format(size='image_size')}"
    )
    sizes = {function: choose(f"{name}:{function}").record.limits for function in ("tiny", "any_size", "build", "usual")}
    assert sizes.pop("tiny") == (8, 8)
    assert len(set(sizes.values())) == 1
    assert choose(lambda: quiz(20)).record.sizes == (20,)


def test_a_missing_module_or_file_is_refused_without_keras(module, tmp_path):
    module("")
    code = (
        "import sys\nfrom crossroads.networks._named import require_present\n"
        "for named in ('no_such:net', 'no_such.at_all:net', 'os.no_such:net', 'none.keras', 'os:'):\n"
        "    try: require_present(named)\n"
        "    except Exception as error: print(type(error).__name__)\n"
        "require_present('json.decoder:net')\n"
        "assert 'keras' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["BackboneError"] * 5


def test_other_parameters_keep_their_defaults(module):
    name = module(
        f"def build(width=2, *, image_size=8): return {MAKES.format(size='image_size')}\n"
        "def needy(size, width): pass\n"
        f"def pixels(side_in_px): return {MAKES.format(size='side_in_px')}"
    )
    assert own_backbone(f"{name}:build", 24).size == 24
    assert own_backbone(f"{name}:build", None).size == 8
    assert own_backbone(f"{name}:pixels", 24).size == 24
    with refused("function-parameters", BackboneError) as caught:
        own_backbone(f"{name}:needy", 24)
    assert caught.value.received.endswith(":needy(size, width)")


def test_a_function_may_return_parts_and_a_name_may_refer_to_a_model(module):
    name = module(
        "from crossroads.networks.network import Parts\n"
        f"model = {MAKES.format(size=8)}\n"
        "def build(): return Parts((layers.Rescaling(1 / 255),), model)"
    )
    own = own_backbone(f"{name}:build", 8)
    assert isinstance(own.parts, Parts)
    assert isinstance(own.parts.preprocessing[0], layers.Rescaling)
    assert own_backbone(f"{name}:model", 8).parts.backbone.weights[0] is own.parts.backbone.weights[0]


def test_a_function_object_is_called():
    assert own_backbone(lambda size: quiz(size), 20).size == 20


@pytest.mark.parametrize(
    ("named", "code", "received"),
    [
        ("no_such_module_here:build", "module-not-importable", "ModuleNotFoundError"),
        ("{name}:missing", "function-not-in-module", "'missing'"),
        ("{name}:fails", "function-fails", "ValueError: too deep"),
        ("{name}:other", "not-a-network", "int"),
        ("{name}", "custom-network-name", ""),
        (":build", "custom-network-name", ""),
    ],
)
def test_a_function_that_builds_no_network_is_refused(module, named, code, received):
    name = module("def fails(): raise ValueError('too deep')\ndef other(): return 7")
    with refused(code, BackboneError) as caught:
        own_backbone(named.format(name=name), None)
    assert received in caught.value.received


def test_a_module_that_fails_is_refused(module):
    with refused("module-not-importable", BackboneError):
        own_backbone(f"{module('1 / 0')}:build", None)
