"""Estimates with their intervals, and log odds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossroads.advice.estimate import Estimate, estimate_accuracy, from_log_odds, log_odds


@given(st.floats(0.001, 0.999))
def test_log_odds_can_be_inverted(value):
    assert from_log_odds(log_odds(value, 1e-4)) == pytest.approx(value)


def test_log_odds_stay_away_from_certainty_by_the_margin():
    assert log_odds(1.0, 0.01) == log_odds(0.99, 0.01) == pytest.approx(-log_odds(0.0, 0.01))


def test_an_interval_over_groups_is_wider_than_one_over_images():
    correct = np.repeat([True, False, True, True, True, False, True, True], 30)
    alone, together = estimate_accuracy(correct), estimate_accuracy(correct, np.repeat(np.arange(8), 30))
    assert alone.value == together.value == 0.75
    assert together.low < alone.low < 0.75 < alone.high < together.high


def test_the_text_of_an_estimate_has_three_digits():
    assert str(Estimate(0.98765, 0.9, 1.0)) == "0.988 (0.900 to 1.000)"
