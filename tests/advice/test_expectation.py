"""What accuracy is expected, from a probe and constants."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossroads.advice.estimate import Estimate, from_log_odds, log_odds
from crossroads.advice.expectation import (
    EPOCH_PENALTIES,
    EXTRAPOLATIONS,
    SLOPE_ERROR,
    STRATEGY_OFFSETS,
    Base,
    Coefficients,
    Extrapolation,
    LearningGain,
    Setting,
    StrategyOffset,
    expected,
    least_error,
    reach,
    slope,
    with_epochs,
)
from crossroads.strategies import STRATEGIES

STARTS = [(record.name, "probe") for record in STRATEGIES] + [(name, "short training") for name in EXTRAPOLATIONS]


USUAL = Setting(5_000, 30, 1.0)


def certain(level, by_size=0.0):
    return Coefficients({"finetune": StrategyOffset(level, by_size, 0.0)}, {})


def probe(value, low=None, high=None):
    return (Base("probe", Estimate(value, value if low is None else low, value if high is None else high)),)


def test_every_strategy_has_its_constants():
    assert set(STRATEGY_OFFSETS) == {record.name for record in STRATEGIES}
    assert set(EXTRAPOLATIONS) == {"warm-start", "from-scratch"}
    assert set(EPOCH_PENALTIES) == {record.name for record in STRATEGIES if not record.frozen}


@given(st.sampled_from(STARTS), st.floats(0, 1), st.floats(0, 0.2), st.floats(0.1, 1e5), st.integers(1, 10**6), st.floats(0, 1))
def test_what_is_expected_lies_in_its_interval_and_both_are_shares(start, value, width, of_a_class, images, gain):
    name, kind = start
    base = Base(kind, Estimate(value, max(0.0, value - width), min(1.0, value + width)), 1.5 if kind == "short training" else 0.0)
    found = expected(name, [base], Setting(images, of_a_class, gain))
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_a_lift_adds_to_the_log_odds_of_what_was_measured():
    found = expected("finetune", probe(0.8), USUAL, certain(0.5))
    assert found.value == pytest.approx(from_log_odds(log_odds(0.8, 1e-9) + 0.5))
    assert (found.low, found.high) == pytest.approx((found.value, found.value), abs=1e-4)


def test_the_part_of_a_lift_that_goes_with_size_is_nothing_at_thirty_images_of_a_class():
    few, usual, many = (
        expected("finetune", probe(0.8), Setting(5_000, n, 1.0), certain(0.0, by_size=0.5)).value for n in (3, 30, 300)
    )
    assert few < usual < many
    assert usual == pytest.approx(0.8)


def test_beyond_the_tasks_it_was_fitted_to_size_changes_nothing_more():
    assert reach(1e6) == reach(30 * 10**1.5) == 1.5
    assert reach(0.0) == pytest.approx(-1.477, abs=0.001)  # less than one image of a class is one


def test_what_is_known_badly_has_a_wider_interval_about_the_same_middle():
    each = (Coefficients({"finetune": StrategyOffset(0.0, 0.0, scatter)}) for scatter in (0.1, 2.0))
    sure, unsure = (expected("finetune", probe(0.9), USUAL, laws) for laws in each)
    assert sure.value == unsure.value == pytest.approx(0.9)
    assert unsure.low < sure.low < sure.high < unsure.high


def test_of_few_images_no_perfect_probe_promises_perfection():
    assert expected("finetune", probe(1.0), Setting(20, 30, 1.0), certain(0.0)).value == pytest.approx(1 - least_error(20))
    assert least_error(1) == least_error(10)


def test_fewer_epochs_cost_accuracy_and_sureness_and_the_usual_ones_nothing():
    known = Estimate(0.9, 0.8, 0.95)
    assert with_epochs("warm-start", known, 1.0) == pytest.approx(known)
    half, quarter = with_epochs("warm-start", known, 0.5), with_epochs("warm-start", known, 0.25)
    assert quarter.value < half.value < known.value
    assert log_odds(known.value, 1e-6) - log_odds(quarter.value, 1e-6) == pytest.approx(2 * EPOCH_PENALTIES["warm-start"].loss)
    assert log_odds(quarter.high, 1e-6) - log_odds(quarter.low, 1e-6) > log_odds(0.95, 1e-6) - log_odds(0.8, 1e-6)
    assert with_epochs("warm-start", known, 2.0).value > known.value


TWO = Coefficients({"warm-start": StrategyOffset(0.0, 0.0, 1.0)}, {"warm-start": Extrapolation(0.3, 0.5)})


def ends(found):
    """Of the interval, in log odds."""
    return log_odds(found.low, 1e-9), log_odds(found.high, 1e-9)


def after(halvings, *more, gain=1.0):
    short = Base("short training", Estimate(0.9, 0.9, 0.9), halvings)
    return ends(expected("warm-start", [*more, short], Setting(5_000, 30, gain), TWO))


def test_a_whole_training_has_more_than_a_short_one_by_what_each_halving_is_worth_and_is_known_less_well():
    for halvings in (1.0, 4.0):
        low, high = after(halvings)
        assert (low + high) / 2 == pytest.approx(log_odds(0.9, 1e-9) + 0.3 * halvings)
        assert high - low == pytest.approx(2 * 1.96 * 0.5 * halvings**0.5)


def test_two_bases_are_averaged_by_what_they_are_sure_of_and_are_surer_together():
    low, high = after(1.0, *probe(0.5))
    assert (low + high) / 2 == pytest.approx((log_odds(0.9, 1e-9) + 0.3) * 4 / 5)  # a scatter of half as much weighs four times
    below, above = after(1.0)
    assert high - low < above - below


def test_of_more_halvings_than_were_seen_nothing_more_is_promised_and_of_fewer_nothing_less():
    assert after(6.0) == after(12.0)
    assert after(0.0) == after(0.25)


def test_what_another_network_has_learned_lifts_no_training_from_scratch_and_may_warn_of_one():
    short = Base("short training", Estimate(0.8, 0.8, 0.8), 2.0)
    alone = expected("from-scratch", [short], USUAL)
    assert expected("from-scratch", [*probe(0.99), short], USUAL) == alone
    assert expected("from-scratch", [*probe(0.5), short], USUAL).value < alone.value


def test_a_flat_learning_curve_means_a_small_gain_from_training():
    lifted = [expected("finetune", probe(0.8), Setting(5_000, 30, gain), certain(0.5)).value for gain in (0.0, 0.2, 1.0)]
    assert lifted == pytest.approx([from_log_odds(log_odds(0.8, 1e-9) + 0.5 * gain) for gain in (0.0, 0.2, 1.0)])
    for gain in (0.2, 1.0):
        assert sum(after(4.0, gain=gain)) / 2 == pytest.approx(log_odds(0.9, 1e-9) + gain * 0.3 * 4)


def test_what_a_short_training_rose_by_counts_as_it_is_sure_of_beside_the_probes_slope():
    def base(rise):
        return Base("short training", Estimate(0.8, 0.7, 0.9), 2.0, rise)

    setting = Setting(5_000, 30, 1.0)
    assert slope(base(None), setting) == 1.0
    assert slope(base(LearningGain(0.2, 1e-6)), setting) == pytest.approx(0.2, abs=1e-3)
    assert slope(base(LearningGain(0.2, SLOPE_ERROR)), setting) == pytest.approx(0.6)
    assert slope(base(LearningGain(0.2, 100.0)), setting) == pytest.approx(1.0, abs=1e-3)
    assert slope(base(LearningGain(-3.0, 0.1)), setting) == 0.0  # more passes take nothing away
    little, much = (expected("from-scratch", [base(LearningGain(value, 0.1))], setting).value for value in (0.1, 1.0))
    assert little < much
