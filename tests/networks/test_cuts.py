"""Covers cuts: against brute force on random graphs, and on the graphs of `keras.applications`."""

import functools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

from crossroads.errors import BackboneError
from crossroads.networks.catalog import backbone
from crossroads.networks.cuts import Cut, after, between, blocks, cuts, find, multiply_adds, until
from crossroads.networks.graph import graph_of
from refusals import refused

pytestmark = pytest.mark.core


def values(model, n=2, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n, *model.inputs[0].shape[1:])).astype(np.float32)


def run(model, images):
    return keras.ops.convert_to_numpy(model(images, training=False))


def assert_composes(model, cut):
    images = values(model)
    features = run(until(model, cut), images)
    assert features.shape == (len(images), *cut.shape)
    np.testing.assert_array_equal(run(after(model, cut), features), run(model, images))


def stacked():
    """Returns a model without branches: convolutions with normalisation, activation and padding, then pooling and a dense layer."""
    images = keras.Input((9, 9, 3))
    x = layers.Rescaling(1 / 127.5, -1, name="rescale")(images)
    x = layers.Conv2D(4, 3, name="conv1")(x)
    x = layers.BatchNormalization(name="norm1")(x)
    x = layers.ReLU(name="relu1")(x)
    x = layers.ZeroPadding2D(name="pad")(x)
    x = layers.DepthwiseConv2D(3, strides=2, name="conv2")(x)
    x = layers.ReLU(name="relu2")(x)
    x = layers.Dropout(0.5, name="drop")(x)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    x = layers.Dense(5, name="dense")(x)
    return keras.Model(images, layers.ReLU(name="relu3")(x), name="stacked")


def residual():
    """Returns two residual blocks. The sum of the second one is an operation, not a layer."""
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(images)
    y = layers.Conv2D(4, 3, padding="same", name="inner")(layers.ReLU(name="inner_relu")(x))
    x = layers.Add(name="sum")([x, y])
    y = layers.Conv2D(4, 1, name="inner2")(x)
    x = ops.add(x, y)
    x = x * ops.sigmoid(x)
    return keras.Model(images, layers.Conv2D(2, 1, name="last")(x), name="residual")


# Places of cuts


def test_a_run_of_layers_has_one_cut_at_its_activation():
    names = [cut.name for cut in cuts(stacked())]
    assert names == ["relu1", "relu2", "relu3"]


def test_a_cut_describes_the_part_below_it():
    model = stacked()
    all_cuts = cuts(model)
    assert [cut.index for cut in all_cuts] == [0, 1, 2]
    assert [cut.depth for cut in all_cuts] == pytest.approx([1 / 3, 2 / 3, 1])
    assert [cut.shape for cut in all_cuts] == [(7, 7, 4), (4, 4, 4), (5,)]
    assert [(cut.channels, cut.side) for cut in all_cuts] == [(4, 7), (4, 4), (5, None)]
    costs = np.cumsum([49 * 27 * 4, 16 * 9 * 4, 4 * 5])
    assert [cut.multiply_adds for cut in all_cuts] == costs.tolist()
    assert [cut.parameters for cut in all_cuts] == np.cumsum([27 * 4 + 4 + 16, 9 * 4 + 4, 4 * 5 + 5]).tolist()
    assert (all_cuts[-1].multiply_adds, all_cuts[-1].parameters) == (multiply_adds(model), model.count_params())


def test_a_branch_with_kernels_is_one_step_and_a_gate_is_none():
    model = residual()
    all_cuts = cuts(model)
    assert [cut.name for cut in all_cuts] == ["stem", "sum", "multiply", "last"]
    assert [cut.depth for cut in all_cuts] == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1])
    for cut in all_cuts:
        assert_composes(model, cut)


def test_there_is_no_cut_between_two_calls_of_a_layer_with_weights():
    shared = layers.Conv2D(3, 1, name="shared")
    images = keras.Input((4, 4, 3))
    x = layers.ReLU(name="between")(shared(images))
    x = layers.Conv2D(3, 1, name="other")(x)
    model = keras.Model(images, layers.Conv2D(2, 1, name="last")(shared(x)))
    assert [cut.name for cut in cuts(model)] == ["shared", "last"]
    with refused("not-a-cut") as caught:
        find(model, "between")
    assert "'shared'" in caught.value.hint
    assert cuts(model)[-1].parameters == model.count_params()
    assert_composes(model, cuts(model)[0])


def test_a_layer_without_weights_is_a_cut_at_its_last_call():
    relu = layers.ReLU(name="relu")
    images = keras.Input((4, 4, 3))
    x = relu(layers.Conv2D(3, 1, name="one")(images))
    x = relu(layers.Conv2D(3, 1, name="two")(x))
    model = keras.Model(images, layers.Conv2D(2, 1, name="three")(x))
    assert [cut.name for cut in cuts(model)] == ["one", "relu", "three"]
    for cut in cuts(model):
        assert_composes(model, cut)


def test_a_layer_with_two_outputs_is_not_a_cut():
    images = keras.Input((4, 4, 4))
    one, two = ops.split(layers.Conv2D(4, 1, name="conv")(images), 2, axis=-1)
    x = layers.Concatenate(name="both")([layers.Conv2D(2, 1, name="left")(one), layers.Conv2D(2, 1, name="right")(two)])
    model = keras.Model(images, x)
    assert [cut.name for cut in cuts(model)] == ["conv", "both"]
    assert multiply_adds(model) == 16 * 16 + 2 * 16 * 4
    for cut in cuts(model):
        assert_composes(model, cut)


def test_a_sequential_has_cuts():
    model = keras.Sequential(
        [keras.Input((6, 6, 3)), layers.Conv2D(2, 3, name="a"), layers.ReLU(name="b"), layers.Dense(3, name="c")]
    )
    assert [cut.name for cut in cuts(model)] == ["b", "c"]
    assert [cut.activations for cut in cuts(model)] == [2 * 16 * 2, 2 * 16 * 2 + 16 * 3]
    assert_composes(model, cuts(model)[0])


def test_a_model_with_a_list_of_one_input_has_cuts():
    images = keras.Input((6, 6, 3))
    x = layers.Conv2D(2, 3, name="a")(images)
    model = keras.Model([images], [layers.Dense(3, name="c")(x)])
    assert [cut.name for cut in cuts(model)] == ["a", "c"]
    images = values(model)
    lower, upper = until(model, cuts(model)[0]), after(model, cuts(model)[0])
    np.testing.assert_array_equal(run(upper, run(lower, images)), run(model, [images]))


def test_a_nested_model_is_one_layer_unless_it_is_the_only_one():
    inner = stacked()
    wrapper = keras.Sequential([keras.Input((9, 9, 3)), inner])
    assert [cut.name for cut in cuts(wrapper)] == [cut.name for cut in cuts(inner)]
    assert_composes(wrapper, cuts(wrapper)[1])
    with_head = keras.Sequential([keras.Input((9, 9, 3)), inner, layers.Dense(2, name="head")])
    assert [cut.name for cut in cuts(with_head)] == ["stacked", "head"]
    assert cuts(with_head)[0].multiply_adds == multiply_adds(inner)
    assert cuts(with_head)[0].activations == cuts(inner)[-1].activations
    assert_composes(with_head, cuts(with_head)[0])


def test_a_nested_model_of_any_size_gets_the_size_of_the_outer_one():
    anything = keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(2, 3, name="a"), layers.Conv2D(4, 3, name="b")], name="any"
    )
    images = keras.Input((9, 9, 3))
    wrapper = keras.Model(images, anything(images))
    assert [cut.shape for cut in cuts(wrapper)] == [(7, 7, 2), (5, 5, 4)]
    assert multiply_adds(keras.Model(images, layers.ReLU()(anything(images)))) == multiply_adds(wrapper) == 49 * 54 + 25 * 72
    assert_composes(wrapper, cuts(wrapper)[0])


def test_a_network_without_kernels_can_only_be_cut_at_its_end():
    images = keras.Input((6, 6, 3))
    model = keras.Model(images, layers.MaxPooling2D(name="pool")(layers.Rescaling(0.5)(images)))
    assert cuts(model) == (Cut("pool", 0, 1.0, (3, 3, 3), 0, 0, 108 + 27),)
    assert blocks(model) == ()


def test_names_do_not_depend_on_what_was_built_before():
    def build():
        images = keras.Input((6, 6, 3))
        x = layers.ReLU()(layers.Conv2D(2, 3)(images))
        return keras.Model(images, layers.Conv2D(2, 1)(layers.Conv2D(2, 1, name="given")(x)))

    first, second = build(), build()
    assert [cut.name for cut in cuts(second)] == [cut.name for cut in cuts(first)] == ["re_lu", "given", "conv2d_1"]
    assert find(second, second.layers[-1].name) == cuts(second)[-1]
    assert_composes(second, find(second, "conv2d_1"))


def test_the_cuts_of_a_sequential_follow_added_layers():
    model = keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(2, 3, name="a")])
    assert len(cuts(model)) == 1
    model.add(layers.Conv2D(2, 3, name="b"))
    assert [cut.name for cut in cuts(model)] == ["a", "b"]


class Code(keras.Model):
    def call(self, x):
        return x


def two_inputs():
    one, two = keras.Input((4,)), keras.Input((4,))
    return keras.Model([one, two], layers.Add()([one, two]))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (Code, "no-layer-graph"),
        (lambda: keras.Sequential([layers.Dense(2)]), "no-layer-graph"),
        (two_inputs, "several-inputs-or-outputs"),
    ],
)
def test_a_network_must_be_a_graph_from_one_input_to_one_output(make, code):
    with refused(code, BackboneError):
        cuts(make())


def test_costs_need_a_size():
    images = keras.Input((None, None, 3))
    with refused("unknown-image-size", BackboneError):
        multiply_adds(keras.Model(images, layers.Conv2D(2, 3)(images)))


# Brute force


LAYERS = st.lists(
    # Most layers use the newest tensors. Otherwise articulation points would be rare.
    st.tuples(st.sampled_from(["dense", "relu", "add"]), st.sampled_from([1, 1, 2, 99]), st.sampled_from([1, 2, 3, 99])),
    min_size=1,
    max_size=9,
)


def random_model(kinds):
    """Returns a model of dense layers, activations and sums. Numbers say how many tensors before the layer its inputs are."""
    tensors = [keras.Input((2,))]
    for number, (kind, *steps_back) in enumerate(kinds):
        x, y = (tensors[max(0, len(tensors) - back)] for back in steps_back)
        if kind == "add" and x is not y:
            tensors.append(layers.Add(name=f"layer{number}")([x, y]))
        elif kind == "dense":
            tensors.append(layers.Dense(2, name=f"layer{number}")(x))
        else:
            tensors.append(layers.ReLU(name=f"layer{number}")(x))
    return keras.Model(tensors[0], tensors[-1])


@settings(max_examples=40, deadline=None)
@given(kinds=LAYERS)
def test_crossings_are_the_layers_on_every_path(kinds):
    graph = graph_of(random_model(kinds))

    def reaches_the_end_without(name):
        reached = {id(graph.source)}
        for call in graph.calls:
            if call.name != name and any(id(tensor) in reached for tensor in call.inputs):
                reached.update(map(id, call.outputs))
        return id(graph.sink) in reached

    expected = [call.name for call in graph.calls if not reaches_the_end_without(call.name)]
    assert [crossing.name for crossing in graph.crossings()] == expected


@settings(max_examples=15, deadline=None)
@given(kinds=LAYERS, data=st.data())
def test_every_cut_composes(kinds, data):
    model = random_model(kinds)
    cut = data.draw(st.sampled_from(cuts(model)))
    assert_composes(model, cut)
    assert 0 < cut.depth <= 1
    weighted = {id(layer) for layer in model.layers if layer.weights}
    grouped = [layer for block in blocks(model) for layer in block]
    assert {id(layer) for layer in grouped} == weighted
    assert len(grouped) == len(weighted)


# Parts


def test_parts_compose_and_together_have_each_weight_once():
    model = residual()
    first, second = cuts(model)[0], cuts(model)[2]
    parts = until(model, first), between(model, first, second), after(model, second)
    images = values(model)
    x = images
    for part in parts:
        x = run(part, x)
    np.testing.assert_array_equal(x, run(model, images))
    ids = [{id(weight) for weight in part.weights} for part in parts]
    assert set.union(*ids) == {id(weight) for weight in model.weights}
    assert sum(map(len, ids)) == len(model.weights)


def test_the_part_after_the_last_cut_is_the_identity():
    model = stacked()
    rest = after(model, cuts(model)[-1])
    features = values(rest)
    np.testing.assert_array_equal(run(rest, features), features)
    assert rest.weights == []
    same = between(model, cuts(model)[0], cuts(model)[0])
    np.testing.assert_array_equal(run(same, values(same)), values(same))


def test_cuts_in_wrong_order_and_of_another_network_are_refused():
    model = residual()
    first, second = cuts(model)[:2]
    with refused("cuts-out-of-order", BackboneError):
        between(model, second, first)
    with refused("cut-of-another-backbone", BackboneError):
        until(stacked(), first)


@pytest.mark.parametrize("part", ["until", "after", "between", "end"])
def test_parts_save_and_load_in_safe_mode(part, tmp_path):
    model = residual()
    first, second = cuts(model)[:2]
    model_part = {
        "until": lambda: until(model, second),
        "after": lambda: after(model, first),
        "between": lambda: between(model, first, second),
        "end": lambda: after(model, cuts(model)[-1]),
    }[part]()
    model_part.save(tmp_path / "part.keras")
    again = keras.saving.load_model(tmp_path / "part.keras", safe_mode=True)
    np.testing.assert_array_equal(run(again, values(model_part)), run(model_part, values(model_part)))
    assert "CLONE" not in str(model_part.get_config())


def test_a_part_can_be_cut_again():
    model = residual()
    upper = after(model, cuts(model)[0])
    assert [cut.name for cut in cuts(upper)] == ["sum", "multiply", "last"]
    assert_composes(upper, cuts(upper)[1])


# Finding


@pytest.mark.parametrize("cut", ["relu2", 1, "1", -2, "-2", 0.6, "0.6", 2 / 3])
def test_a_cut_is_found_by_name_index_or_depth(cut):
    assert find(stacked(), cut).name == "relu2"


def test_the_deeper_of_two_equally_near_cuts_is_taken():
    assert find(stacked(), 0.5).name == "relu2"
    assert find(stacked(), 1.0).name == find(stacked(), "1.0").name == "relu3"
    assert find(stacked(), 1e-9).name == "relu1"


def test_a_layer_within_a_run_is_a_cut_without_an_index():
    model = stacked()
    for name in ("conv1", "norm1", "pad", "average", "dense"):
        cut = find(model, name)
        assert (cut.name, cut.index) == (name, None)
        assert_composes(model, cut)
    assert find(model, "norm1").parameters == cuts(model)[0].parameters


@pytest.mark.parametrize(
    ("cut", "code", "hint"),
    [
        ("relu22", "unknown-cut", "'relu2'"),
        ("convv1", "unknown-cut", "'conv1'"),
        ("rescale", "not-a-cut", "'relu1'"),
        (3, "cut-out-of-range", "use 2"),
        ("-4", "cut-out-of-range", "use 0"),
        (0.0, "invalid-cut", ""),
        ("1.5", "invalid-cut", ""),
        ("nan", "invalid-cut", ""),
        (True, "invalid-cut", ""),
        (None, "invalid-cut", ""),
    ],
)
def test_an_invalid_cut_is_refused_with_a_hint(cut, code, hint):
    with refused(code, BackboneError) as caught:
        find(stacked(), cut)
    assert str(cut) in caught.value.received
    assert hint in caught.value.hint


def test_a_layer_inside_a_block_is_refused_with_the_cuts_around_it():
    with refused("not-a-cut", BackboneError, received="'inner' of 'residual'") as caught:
        find(residual(), "inner")
    assert {"'stem'", "'sum'"} <= set(caught.value.hint.split())


# Costs


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (layers.Conv2D(6, 3, groups=2), (8, 8, 4), 36 * 9 * 2 * 6),
        (layers.Conv2DTranspose(6, 3, strides=2), (4, 4, 2), 16 * 9 * 2 * 6),
        (layers.SeparableConv2D(6, 3), (8, 8, 4), 36 * (9 * 4 + 4 * 6)),
        (layers.Dense(5), (7, 3), 7 * 15),
        (layers.Conv1D(5, 3), (7, 3), 5 * 9 * 5),
        (layers.EinsumDense("abc,cd->abd", (None, 5)), (7, 3), 7 * 15),
        (layers.EinsumDense("...x,xy->...y", 5), (7, 3), 7 * 15),
        (layers.BatchNormalization(), (8, 8, 4), 0),
        (layers.LayerNormalization(axis=(1, 2, 3)), (8, 8, 4), 0),
        (layers.PReLU(), (8, 8, 4), 0),
        (layers.TimeDistributed(layers.Dense(5)), (7, 3), 7 * 15),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.Layer) else None,
)
def test_multiply_adds_are_counted_as_papers_do(layer, shape, expected):
    inputs = keras.Input(shape)
    assert multiply_adds(keras.Model(inputs, layer(inputs))) == expected


def test_the_cost_of_attention_is_its_projections_and_products():
    inputs = keras.Input((7, 6))
    attention = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    assert multiply_adds(keras.Model(inputs, attention)) == 4 * 7 * 6 * 6 + 2 * (2 * 7 * 7 * 3)
    product = ops.matmul(inputs, ops.transpose(inputs, (0, 2, 1)))
    assert multiply_adds(keras.Model(inputs, product)) == 7 * 7 * 6


# Graphs of keras.applications


APPLICATIONS = {
    "MobileNet": (27, ["conv1_relu", "conv_dw_1_relu", "conv_pw_1_relu"]),
    "ResNet50": (17, ["pool1_pool", "conv2_block1_out", "conv2_block2_out"]),
    "DenseNet121": (62, ["pool1", "conv2_block1_concat", "conv2_block2_concat"]),
    "NASNetMobile": (2, ["stem_bn1"]),
}


@functools.cache
def application(name):
    if name != "MobileNet" and keras.backend.backend() != "tensorflow":
        pytest.skip("the graphs are the same on every backend, and slow to build on this one")
    return getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(32, 32, 3))


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "NASNetMobile")) for name in APPLICATIONS])
def test_keras_applications_have_the_expected_cuts(name):
    model = application(name)
    all_cuts = cuts(model)
    count, first = APPLICATIONS[name]
    assert len(all_cuts) == count
    assert [cut.name for cut in all_cuts[: len(first)]] == first
    assert [cut.depth for cut in all_cuts] == sorted({cut.depth for cut in all_cuts})
    assert all_cuts[-1].depth == 1
    assert all_cuts[-1].parameters == model.count_params()
    assert [len(block) for block in blocks(model)].count(0) == 0
    assert sum(map(len, blocks(model))) == sum(bool(layer.weights) for layer in model.layers)


@pytest.mark.parametrize("name", ["MobileNet", "ResNet50"])
def test_parts_of_keras_applications_compose(name):
    model = application(name)
    images = values(model, n=1)
    expected = run(model, images)
    for cut in (cuts(model)[1], cuts(model)[-3]):
        features = run(until(model, cut), images)
        np.testing.assert_array_equal(run(after(model, cut), features), expected)


@pytest.mark.parametrize("name", ["MobileNet", "ResNet50"])
def test_published_multiply_adds_are_met(name):
    """Published at 224 px: 569e6 for MobileNet (Howard et al. 2017), 3.8e9 for ResNet50 (He et al. 2016), with heads of 1 to 2e6.

    224 / 32 = 7, so at 32 px all maps are 49 times smaller.
    """
    published = {"MobileNet": 568e6, "ResNet50": 3.86e9}
    assert multiply_adds(application(name)) * 49 == pytest.approx(published[name], rel=0.01)


def test_the_cuts_of_the_small_network_have_the_same_names_each_time():
    first, second = ([cut.name for cut in cuts(backbone("small-cnn").build(96).backbone)] for _ in range(2))
    assert first == second
