"""Estimated time and memory: rules that hold on any machine."""

import pytest

from crossroads.advice.cost import (
    ACTIVATION,
    DEPTHWISE_STEP,
    MANY_STEPS,
    STEP,
    Machine,
    forward_seconds,
    head_seconds,
    measure_machine,
    step_fraction,
    step_seconds,
    whole_step_seconds,
)
from crossroads.heads.large_ridge import is_large
from crossroads.networks.cuts import Cut

SLOW, FAST = Machine(1e9), Machine(1e11)


def test_a_machine_is_measured_in_multiply_adds_per_second():
    assert 1e8 < measure_machine(size=256).products < 1e14


def test_seconds_grow_with_the_work_and_fall_with_the_machine():
    assert forward_seconds(2_000, SLOW) == 2 * forward_seconds(1_000, SLOW) == 200 * forward_seconds(1_000, FAST)
    assert step_seconds(1_000, SLOW, depthwise=False) == STEP * forward_seconds(1_000, SLOW)
    assert step_seconds(1_000, SLOW, depthwise=True) == DEPTHWISE_STEP * forward_seconds(1_000, SLOW)


def test_a_training_of_many_steps_takes_less_time_per_image():
    assert whole_step_seconds(0.002, False, 30_000, 32) == 0.002 * MANY_STEPS
    assert whole_step_seconds(0.002, False, 1_700, 32) == whole_step_seconds(0.002, True, 30_000, 32) == 0.002
    assert whole_step_seconds(0.02, False, 30_000, 32) == 0.02  # such a long step runs alone


def test_the_fraction_of_a_step_counts_activations_too():
    early, end = (
        Cut(name, 0, 1.0, (4, 4, 8), work, 0, activations) for name, work, activations in (("a", 100, 90), ("b", 1_000, 100))
    )
    assert 0.1 < step_fraction(early, end) < 0.9
    assert step_fraction(early, end) == (100 + ACTIVATION * 90) / (1_000 + ACTIVATION * 100)
    assert step_fraction(end, end) == 1


@pytest.mark.parametrize(("n", "d"), [(200, 1_024), (4_000, 256), (20_000, 8_192)])
def test_a_head_takes_longer_with_more_images_features_and_on_a_slower_machine(n, d):
    usual = head_seconds(n, d, 10, FAST)
    assert 0 < usual < head_seconds(2 * n, d, 10, FAST)
    assert usual < head_seconds(n, 2 * d, 10, FAST)
    assert head_seconds(n, d, 10, SLOW) == pytest.approx(100 * usual)


def test_the_cost_of_a_head_depends_on_its_solver():
    assert not is_large(200, 1_024)
    assert is_large(20_000, 8_192)
    assert head_seconds(20_000, 8_192, 10, FAST) == head_seconds(20_000, 8_192, 1_000, FAST)  # one factorisation for all classes
