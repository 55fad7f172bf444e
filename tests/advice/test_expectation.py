"""What accuracy is expected, from a probe and constants."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossroads.advice.estimate import Estimate, from_log_odds, log_odds
from crossroads.advice.expectation import (
    HALVED,
    LIFTS,
    MOST_HALVINGS,
    Base,
    Lift,
    expected,
    gained,
    least_error,
    reach,
    with_epochs,
)
from crossroads.strategies import STRATEGIES


def certain(level, by_size=0.0):
    return {("finetune", "probe"): Lift(level, by_size, 0.0)}


def probe(value, low=None, high=None):
    return (Base("probe", Estimate(value, value if low is None else low, value if high is None else high)),)


def test_every_strategy_has_its_constants():
    probed = {(record.name, "probe") for record in STRATEGIES if record.start == "pretrained"}
    assert set(LIFTS) == probed | {("warm-start", "short training"), ("from-scratch", "short training")}
    assert set(HALVED) == {record.name for record in STRATEGIES if not record.frozen}


@given(st.sampled_from(sorted(LIFTS)), st.floats(0, 1), st.floats(0, 0.2), st.floats(0.1, 1e5), st.integers(1, 10**6))
def test_what_is_expected_lies_in_its_interval_and_both_are_shares(start, value, width, of_a_class, images):
    name, kind = start
    base = Base(kind, Estimate(value, max(0.0, value - width), min(1.0, value + width)))
    found = expected(name, [base], of_a_class, images)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_a_lift_adds_to_the_log_odds_of_what_was_measured():
    found = expected("finetune", probe(0.8), 30, 5_000, certain(0.5))
    assert found.value == pytest.approx(from_log_odds(log_odds(0.8, 1e-9) + 0.5))
    assert (found.low, found.high) == pytest.approx((found.value, found.value), abs=1e-4)


def test_the_part_of_a_lift_that_goes_with_size_is_nothing_at_thirty_images_of_a_class():
    few, usual, many = (expected("finetune", probe(0.8), n, 5_000, certain(0.0, by_size=0.5)).value for n in (3, 30, 300))
    assert few < usual < many
    assert usual == pytest.approx(0.8)


def test_beyond_the_tasks_it_was_fitted_to_size_changes_nothing_more():
    assert reach(1e6) == reach(30 * 10**1.5) == 1.5
    assert reach(0.0) == pytest.approx(-1.477, abs=0.001)  # less than one image of a class is one


def test_what_is_known_badly_is_expected_nearer_to_a_half():
    base = probe(0.9)
    sure, unsure = (
        expected("finetune", base, 30, 5_000, {("finetune", "probe"): Lift(0.0, 0.0, scatter)}) for scatter in (0.1, 2.0)
    )
    assert 0.5 < unsure.value < sure.value < 0.9
    assert unsure.low < sure.low < sure.high < unsure.high


def test_of_few_images_no_perfect_probe_promises_perfection():
    assert expected("finetune", probe(1.0), 30, 20, certain(0.0)).value == pytest.approx(1 - least_error(20))
    assert least_error(1) == least_error(10)


def test_fewer_epochs_cost_accuracy_and_sureness_and_the_usual_ones_nothing():
    known = Estimate(0.9, 0.8, 0.95)
    assert with_epochs("warm-start", known, 1.0) == pytest.approx(known)
    half, quarter = with_epochs("warm-start", known, 0.5), with_epochs("warm-start", known, 0.25)
    assert quarter.value < half.value < known.value
    assert log_odds(known.value, 1e-6) - log_odds(quarter.value, 1e-6) == pytest.approx(2 * HALVED["warm-start"].loss)
    assert log_odds(quarter.high, 1e-6) - log_odds(quarter.low, 1e-6) > log_odds(0.95, 1e-6) - log_odds(0.8, 1e-6)
    assert with_epochs("warm-start", known, 2.0).value > known.value


TWO = {("warm-start", "probe"): Lift(0.0, 0.0, 1.0), ("warm-start", "short training"): Lift(0.0, 0.0, 0.5)}


def both(halvings=0.0):
    short = Base("short training", Estimate(0.9, 0.9, 0.9), halvings)
    return expected("warm-start", [*probe(0.5), short], 30, 5_000, TWO), expected("warm-start", [short], 30, 5_000, TWO)


def test_two_bases_are_averaged_by_what_they_are_sure_of_and_are_surer_together():
    found, short = both()
    assert 0.5 < found.value < short.value
    (low, high), (below, above) = ([log_odds(end, 1e-9) for end in (one.low, one.high)] for one in (found, short))
    assert (low + high) / 2 == pytest.approx(log_odds(0.9, 1e-9) * 4 / 5)  # a scatter of half as much weighs four times
    assert high - low < above - below


def test_a_whole_training_has_more_than_a_short_one_by_what_its_epochs_are_worth():
    middles = [(log_odds(found.low, 1e-9) + log_odds(found.high, 1e-9)) / 2 for _, found in (both(), both(halvings=3.0))]
    assert middles[1] - middles[0] == pytest.approx(3 * HALVED["warm-start"].loss)


def test_of_more_halvings_than_were_seen_nothing_more_is_promised():
    short = Base("short training", Estimate(0.3, 0.2, 0.4), MOST_HALVINGS)
    assert gained("warm-start", replace(short, halvings=12.0)) == gained("warm-start", short) > 0
