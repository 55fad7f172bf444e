"""The expected accuracy, from measurements and fitted constants."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossroads.advice.estimate import Estimate, from_log_odds, log_odds
from crossroads.advice.expectation import (
    LAWS,
    SLOPE_ERROR,
    Base,
    Extrapolation,
    Law,
    LearningGain,
    Setting,
    StrategyOffset,
    combined_slope,
    expected,
    least_error,
    log_size,
    with_epochs,
)
from crossroads.strategies import STRATEGIES

STARTS = [(record.name, "probe") for record in STRATEGIES]
STARTS += [(name, "short training") for name, law in LAWS.items() if law.extrapolation]
USUAL = Setting(5_000, 30, 1.0)


def certain(intercept, by_size=0.0):
    """Returns constants without scatter."""
    return {"finetune": Law(StrategyOffset(intercept, by_size, 0.0))}


def probe(value, low=None, high=None):
    return (Base("probe", Estimate(value, value if low is None else low, value if high is None else high)),)


def test_every_strategy_has_its_constants():
    assert set(LAWS) == {record.name for record in STRATEGIES}
    assert {name for name, law in LAWS.items() if law.extrapolation} == {"warm-start", "from-scratch"}
    assert {name for name, law in LAWS.items() if law.epochs} == {record.name for record in STRATEGIES if not record.frozen}


@given(st.sampled_from(STARTS), st.floats(0, 1), st.floats(0, 0.2), st.floats(0.1, 1e5), st.integers(1, 10**6), st.floats(0, 1))
def test_the_expected_accuracy_is_in_its_interval_and_both_in_0_to_1(start, value, width, images_per_class, images, gain):
    name, kind = start
    base = Base(kind, Estimate(value, max(0.0, value - width), min(1.0, value + width)), 1.5 if kind == "short training" else 0.0)
    estimate = expected(name, [base], Setting(images, images_per_class, gain))
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_an_offset_is_added_to_the_measured_log_odds():
    estimate = expected("finetune", probe(0.8), USUAL, certain(0.5))
    assert estimate.value == pytest.approx(from_log_odds(log_odds(0.8, 1e-9) + 0.5))
    assert (estimate.low, estimate.high) == pytest.approx((estimate.value, estimate.value), abs=1e-4)


def test_the_part_of_an_offset_by_size_is_zero_at_thirty_images_per_class():
    few, usual, many = (
        expected("finetune", probe(0.8), Setting(5_000, n, 1.0), certain(0.0, by_size=0.5)).value for n in (3, 30, 300)
    )
    assert few < usual < many
    assert usual == pytest.approx(0.8)


def test_size_counts_only_in_the_range_of_the_fitted_tasks():
    assert log_size(1e6) == log_size(30 * 10**1.5) == 1.5
    assert log_size(0.0) == pytest.approx(-1.477, abs=0.001)  # less than one image per class counts as one


def test_more_scatter_widens_the_interval_around_the_same_value():
    constants = ({"finetune": Law(StrategyOffset(0.0, 0.0, scatter))} for scatter in (0.1, 2.0))
    certain, uncertain = (expected("finetune", probe(0.9), USUAL, each) for each in constants)
    assert certain.value == uncertain.value == pytest.approx(0.9)
    assert uncertain.low < certain.low < certain.high < uncertain.high


def test_a_perfect_probe_on_few_images_does_not_promise_perfection():
    assert expected("finetune", probe(1.0), Setting(20, 30, 1.0), certain(0.0)).value == pytest.approx(1 - least_error(20))
    assert least_error(1) == least_error(10)


def test_fewer_epochs_cost_accuracy_and_certainty():
    known = Estimate(0.9, 0.8, 0.95)
    assert with_epochs("warm-start", known, 1.0) == pytest.approx(known)
    half, quarter = with_epochs("warm-start", known, 0.5), with_epochs("warm-start", known, 0.25)
    assert quarter.value < half.value < known.value
    assert log_odds(known.value, 1e-6) - log_odds(quarter.value, 1e-6) == pytest.approx(2 * LAWS["warm-start"].epochs.penalty)
    assert log_odds(quarter.high, 1e-6) - log_odds(quarter.low, 1e-6) > log_odds(0.95, 1e-6) - log_odds(0.8, 1e-6)
    assert with_epochs("warm-start", known, 2.0).value > known.value


TWO = {"warm-start": Law(StrategyOffset(0.0, 0.0, 1.0), Extrapolation(0.3, 0.5))}


def ends(estimate):
    """Returns the limits of the interval in log odds."""
    return log_odds(estimate.low, 1e-9), log_odds(estimate.high, 1e-9)


def after(halvings, *more, gain=1.0):
    """Returns the limits of what a warm start is expected to reach after a short one of 0.9."""
    short = Base("short training", Estimate(0.9, 0.9, 0.9), halvings)
    return ends(expected("warm-start", [*more, short], Setting(5_000, 30, gain), TWO))


def test_each_halving_raises_the_expectation_and_widens_its_interval():
    for halvings in (1.0, 4.0):
        low, high = after(halvings)
        assert (low + high) / 2 == pytest.approx(log_odds(0.9, 1e-9) + 0.3 * halvings)
        assert high - low == pytest.approx(2 * 1.96 * 0.5 * halvings**0.5)


def test_two_bases_are_averaged_by_inverse_variance_and_narrow_the_interval():
    low, high = after(1.0, *probe(0.5))
    assert (low + high) / 2 == pytest.approx((log_odds(0.9, 1e-9) + 0.3) * 4 / 5)  # half the scatter has four times the weight
    below, above = after(1.0)
    assert high - low < above - below


def test_halvings_are_limited_to_the_range_of_the_fitted_tasks():
    assert after(6.0) == after(12.0)
    assert after(0.0) == after(0.25)


def test_from_scratch_a_short_training_counts_alone():
    short = Base("short training", Estimate(0.8, 0.8, 0.8), 2.0)
    assert expected("from-scratch", [*probe(0.1), short], USUAL) == expected("from-scratch", [short], USUAL)


def test_a_flat_learning_curve_means_a_small_gain_from_training():
    values = [expected("finetune", probe(0.8), Setting(5_000, 30, gain), certain(0.5)).value for gain in (0.0, 0.2, 1.0)]
    assert values == pytest.approx([from_log_odds(log_odds(0.8, 1e-9) + 0.5 * gain) for gain in (0.0, 0.2, 1.0)])
    for gain in (0.2, 1.0):
        assert sum(after(4.0, gain=gain)) / 2 == pytest.approx(log_odds(0.9, 1e-9) + gain * 0.3 * 4)


def test_a_learning_gain_and_the_probes_slope_are_averaged_by_inverse_variance():
    def base(gain):
        return Base("short training", Estimate(0.8, 0.7, 0.9), 2.0, gain)

    setting = Setting(5_000, 30, 1.0)
    assert combined_slope(base(None), setting) == 1.0
    assert combined_slope(base(LearningGain(0.2, 1e-6)), setting) == pytest.approx(0.2, abs=1e-3)
    assert combined_slope(base(LearningGain(0.2, SLOPE_ERROR)), setting) == pytest.approx(0.6)
    assert combined_slope(base(LearningGain(0.2, 100.0)), setting) == pytest.approx(1.0, abs=1e-3)
    assert combined_slope(base(LearningGain(-3.0, 0.1)), setting) == 0.0  # more training does not lower the expectation
    little, much = (expected("from-scratch", [base(LearningGain(value, 0.1))], setting).value for value in (0.1, 1.0))
    assert little < much
