"""Covers Adam with rules: learning rates, decays, unfreezing, averages and schedules."""

import keras
import numpy as np
import pytest

from crossroads.training.optimizer import WIDE, Rule, RuledAdam, rules, schedule
from tiny_networks import network, phase

pytestmark = pytest.mark.core


def variables():
    rng = np.random.default_rng(0)
    return [keras.Variable(rng.normal(size=shape).astype(np.float32)) for shape in ((4, 3), (3,))]


def gradients(step):
    rng = np.random.default_rng(step + 1)
    return [keras.ops.convert_to_tensor(rng.normal(size=shape).astype(np.float32)) for shape in ((4, 3), (3,))]


def values(optimizer, steps, made=None, grads=gradients):
    """Returns the values of both variables before the first step and after each step."""
    made = made or variables()
    optimizer.build(made)
    course = [[keras.ops.convert_to_numpy(v).copy() for v in made]]
    for step in range(steps):
        optimizer.apply(grads(step), made)
        course.append([keras.ops.convert_to_numpy(v).copy() for v in made])
    return course


def zeros(step):
    return [keras.ops.zeros((4, 3)), keras.ops.zeros((3,))]


def test_without_rules_it_is_adam():
    for ours, theirs in zip(
        values(RuledAdam([Rule(), Rule()], 0.1), 5), values(keras.optimizers.Adam(learning_rate=0.1), 5), strict=True
    ):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_with_weight_decay_it_is_adamw():
    for ours, theirs in zip(
        values(RuledAdam([Rule(decay=0.3), Rule(decay=0.3)], 0.1), 5),
        values(keras.optimizers.AdamW(learning_rate=0.1, weight_decay=0.3), 5),
        strict=True,
    ):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_a_rate_is_a_factor_of_the_learning_rate():
    scaled = values(RuledAdam([Rule(rate=0.25), Rule()], 0.1), 4)
    slow, fast = values(RuledAdam([Rule(), Rule()], 0.025), 4), values(RuledAdam([Rule(), Rule()], 0.1), 4)
    np.testing.assert_allclose(scaled[-1][0], slow[-1][0], atol=1e-6)
    np.testing.assert_allclose(scaled[-1][1], fast[-1][1], atol=1e-6)


def rates(options, steps=100):
    planned = schedule(phase(learning_rate=0.2, **options), steps)
    if isinstance(planned, float):
        return np.full(steps + 1, planned)
    return np.array([float(keras.ops.convert_to_numpy(planned(step))) for step in range(steps + 1)])


@pytest.mark.parametrize("name", ["cosine", "one-cycle"])
def test_the_rate_rises_to_its_peak_and_falls_to_0(name):
    rate = rates({"schedule": name, "warm_up": 0.2})
    assert rate[0] == pytest.approx(0.002)
    assert rate.argmax() == 20
    assert rate.max() == pytest.approx(0.2)
    assert (np.diff(rate[:21]) > 0).all()
    assert (np.diff(rate[21:]) < 0).all()
    assert rate[-1] == pytest.approx(0, abs=1e-7)


def test_without_a_warm_up_the_rate_starts_at_its_peak():
    rate = rates({"schedule": "cosine"})
    assert rate[0] == pytest.approx(0.2)
    assert rate[50] == pytest.approx(0.1)


def test_a_constant_rate_is_constant_after_its_warm_up():
    np.testing.assert_array_equal(rates({"schedule": "constant"}), 0.2)
    rate = rates({"schedule": "constant", "warm_up": 0.1})
    np.testing.assert_allclose(rate[10:], 0.2, rtol=1e-6)
    assert rate[0] < 0.01


def test_rules_depend_on_the_depth_below_the_head():
    made = network()
    options = {"layer_decay": 0.5, "weight_decay": 0.1}
    made.trained.trainable = True
    trained = made.trained.trainable_variables
    by_path = dict(zip([v.path for v in trained], rules(made.blocks, trained, phase(**options)), strict=True))
    for path, rule in by_path.items():
        depth = 0 if path.startswith("head") else 1 if "2" in path else 2
        assert rule.rate == 0.5**depth
        assert rule.decay == (0.1 if path.endswith("kernel") else 0)
    plain = rules(made.blocks, trained, phase())
    assert set(plain) == {Rule()}


def test_a_wide_head_is_finetuned_at_a_lower_rate():
    made = network(extra=keras.layers.Dense(4 * WIDE, name="wide"))
    trained = made.trained.trainable_variables
    by_path = {v.path: rule.rate for v, rule in zip(trained, rules(made.blocks, trained, phase(layer_decay=0.5)), strict=True)}
    assert by_path["head/kernel"] == 1 / 4
    assert by_path["head/bias"] == 1
    (alone,) = {rule.rate for rule in rules(made.blocks, trained, phase(name="head"))}
    assert alone == 1  # a head trained alone has the full rate
