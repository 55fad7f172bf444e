"""What is believed of a candidate: its accuracy with any number of epochs, and its seconds."""

import pytest

from crossroads.advice import expectation
from crossroads.advice.estimate import Estimate
from crossroads.race.posterior import believed, epochs_within, expected_after, posterior, posterior_of_run, seconds_of
from crossroads.race.records import CandidateRun, RaceCandidate
from crossroads.recipe import Recipe


@pytest.fixture(autouse=True)
def what_epochs_cost(monkeypatch):
    """The same for all strategies, whatever was measured."""
    monkeypatch.setattr(
        expectation, "EPOCH_PENALTIES", dict.fromkeys(expectation.EPOCH_PENALTIES, expectation.EpochPenalty(0.4, 0.4))
    )


def candidate():
    return RaceCandidate(Recipe(strategy="finetune", backbone="b", epochs=8), Estimate(0.86, 0.70, 0.95), 100.0, 12.5)


def test_few_validation_images_are_believed_little():
    expected = Estimate(0.80, 0.70, 0.87)
    assert believed(expected, 1.0, 10) < 0.9
    assert believed(expected, 0.95, 10_000) == pytest.approx(0.95, abs=0.005)
    assert believed(expected, 0.80, 100) == pytest.approx(0.80, abs=0.005)


def test_the_normal_of_an_expectation_stands_in_the_middle_of_its_limits():
    """What is nearly certain and what is merely possible, of one middle, are believed alike where validation says the same."""
    sure, unsure = Estimate(0.95, 0.94, 0.9585), Estimate(0.90, 0.6167, 0.9952)  # log odds of 2.944, whose mean is drawn to a half
    assert believed(unsure, 0.95, 400) == pytest.approx(believed(sure, 0.95, 400), abs=0.002)
    assert believed(unsure, 1.0, 16) > believed(sure, 1.0, 16)


def test_validation_narrows_what_is_expected():
    expected = Estimate(0.80, 0.70, 0.87)
    few, many = posterior(expected, 0.9, 20), posterior(expected, 0.9, 2_000)
    assert expected.low < few.low < many.low < many.value < many.high < 0.92
    assert few.value < many.value < 0.9


def trial(epochs, accuracy, seconds=30.0, epoch_seconds=10.0, images=400):
    return CandidateRun("trial", 0, epochs, epochs, epochs == 8, seconds, epoch_seconds, accuracy, 0.1, images)


def test_fewer_epochs_are_expected_to_reach_less_and_a_trial_says_more_of_its_own_epochs():
    one = candidate()
    assert expected_after(one, 8, []) == pytest.approx(one.accuracy)
    values = [expected_after(one, epochs, []).value for epochs in (1, 2, 4, 8)]
    assert values == sorted(values)
    assert values[0] < values[-1] - 0.05
    short = [trial(2, 0.93)]
    assert expected_after(one, 2, short).value == pytest.approx(posterior_of_run(one, short[0]).value)
    assert 0.9 < expected_after(one, 2, short).value < expected_after(one, 8, short).value
    wide, narrow = expected_after(one, 8, short), expected_after(one, 2, short)
    assert wide.high - wide.low > narrow.high - narrow.low


def test_seconds_come_from_the_advice_until_a_trial_was_timed():
    one = candidate()
    assert [seconds_of(one, epochs, []) for epochs in (0, 2, 8)] == [0.0, 25.0, 100.0]
    assert [seconds_of(one, epochs, [trial(2, 0.9)]) for epochs in (0, 2, 8)] == [10.0, 30.0, 90.0]
    assert epochs_within(one, 1_000.0, []) == 8
    assert epochs_within(one, 56.0, []) == 4
    assert epochs_within(one, 5.0, []) == 0
    assert epochs_within(RaceCandidate(one.recipe, one.accuracy, 0.0), 5.0, []) == 8  # nothing is known: it is tried


def test_without_time_there_are_no_epochs_whatever_is_known():
    one = candidate()
    assert epochs_within(one, 0.0, []) == epochs_within(RaceCandidate(one.recipe, one.accuracy, 0.0), -1.0, []) == 0
