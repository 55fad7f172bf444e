"""The accuracy and seconds expected of a candidate's next run."""

from dataclasses import replace

import pytest

from crossroads.advice import expectation
from crossroads.advice.estimate import Estimate
from crossroads.race.posterior import affordable_epochs, expected_after, posterior, posterior_of_run, seconds_of
from crossroads.race.records import CandidateRun, RaceCandidate
from crossroads.recipe import Recipe


@pytest.fixture(autouse=True)
def equal_penalties(monkeypatch):
    """Gives all strategies the same penalty for fewer epochs."""
    equal = expectation.EpochPenalty(0.4, 0.4)
    laws = {name: law if law.epochs is None else replace(law, epochs=equal) for name, law in expectation.LAWS.items()}
    monkeypatch.setattr(expectation, "LAWS", laws)


def candidate():
    return RaceCandidate(Recipe(strategy="finetune", backbone="b", epochs=8), Estimate(0.86, 0.70, 0.95), 100.0, 12.5)


def test_few_validation_images_have_little_weight():
    expected = Estimate(0.80, 0.70, 0.87)
    assert posterior(expected, 1.0, 10).value < 0.9
    assert posterior(expected, 0.95, 10_000).value == pytest.approx(0.95, abs=0.005)
    assert posterior(expected, 0.80, 100).value == pytest.approx(0.80, abs=0.005)


def test_an_expectation_is_centred_between_its_limits():
    """A sure and an unsure expectation with one centre have the same posterior if validation agrees with them."""
    sure, unsure = Estimate(0.95, 0.94, 0.9585), Estimate(0.90, 0.6167, 0.9952)  # both centred at a log odds of 2.944
    assert posterior(unsure, 0.95, 400).value == pytest.approx(posterior(sure, 0.95, 400).value, abs=0.002)
    assert posterior(unsure, 1.0, 16).value > posterior(sure, 1.0, 16).value


def test_validation_narrows_the_interval():
    expected = Estimate(0.80, 0.70, 0.87)
    few, many = posterior(expected, 0.9, 20), posterior(expected, 0.9, 2_000)
    assert expected.low < few.low < many.low < many.value < many.high < 0.92
    assert few.value < many.value < 0.9


def made_run(epochs, accuracy, seconds=30.0, epoch_seconds=10.0, images=400):
    return CandidateRun("run", 0, epochs, epochs, epochs == 8, seconds, epoch_seconds, accuracy, 0.1, images)


def test_fewer_epochs_are_expected_to_reach_less_and_a_run_informs_most_about_its_own_epochs():
    one = candidate()
    assert expected_after(one, 8, []) == pytest.approx(one.accuracy)
    values = [expected_after(one, epochs, []).value for epochs in (1, 2, 4, 8)]
    assert values == sorted(values)
    assert values[0] < values[-1] - 0.05
    short = [made_run(2, 0.93)]
    assert expected_after(one, 2, short).value == pytest.approx(posterior_of_run(one, short[0]).value)
    assert 0.9 < expected_after(one, 2, short).value < expected_after(one, 8, short).value
    wide, narrow = expected_after(one, 8, short), expected_after(one, 2, short)
    assert wide.high - wide.low > narrow.high - narrow.low


def test_seconds_come_from_the_advice_until_a_run_was_timed():
    one = candidate()
    assert [seconds_of(one, epochs, []) for epochs in (0, 2, 8)] == [0.0, 25.0, 100.0]
    assert [seconds_of(one, epochs, [made_run(2, 0.9)]) for epochs in (0, 2, 8)] == [10.0, 30.0, 90.0]
    assert affordable_epochs(one, 1_000.0, []) == 8
    assert affordable_epochs(one, 56.0, []) == 4
    assert affordable_epochs(one, 5.0, []) == 0
    assert affordable_epochs(RaceCandidate(one.recipe, one.accuracy, 0.0), 5.0, []) == 8  # nothing is known: it is tried


def test_without_time_no_epochs_are_affordable():
    one = candidate()
    assert affordable_epochs(one, 0.0, []) == affordable_epochs(RaceCandidate(one.recipe, one.accuracy, 0.0), -1.0, []) == 0
