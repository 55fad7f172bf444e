"""What is believed of a candidate: of its accuracy, from what was expected and what validation says, and of its seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from crossroads.advice.estimate import Estimate, from_log_odds, log_odds
from crossroads.advice.expectation import with_epochs
from crossroads.race.records import CandidateRun, RaceCandidate
from crossroads.strategies import strategy

MARGIN = 1.1
"""Seconds that an epoch is planned with over those it is expected to take: what does not end in time is cut off."""


def posterior(expected: Estimate, accuracy: float, images: float) -> Estimate:
    """What was expected and what validation says, each weighed by how sure it is, with a 95 % interval.

    Both are taken as normal in log odds: the expectation with the width of its interval, the validation with the variance of a
    share of `images`, half an image added to right and wrong (Agresti 2013, section 3.1): few images are believed little. The
    normal of the expectation stands in the middle of its limits: its value, the mean of a share, is drawn towards a half.
    """
    low, high = (log_odds(value, 1e-4) for value in (expected.low, expected.high))
    prior = (low + high) / 2
    prior_variance = max(((high - low) / 3.92) ** 2, 1e-6)
    right, wrong = accuracy * images + 0.5, (1 - accuracy) * images + 0.5
    seen, seen_variance = math.log(right / wrong), 1 / right + 1 / wrong
    precision = 1 / prior_variance + 1 / seen_variance
    middle, half = (prior / prior_variance + seen / seen_variance) / precision, 1.96 / math.sqrt(precision)
    return Estimate(from_log_odds(middle), from_log_odds(middle - half), from_log_odds(middle + half))


def believed(expected: Estimate, accuracy: float, images: float) -> float:
    """The middle of `posterior`."""
    return posterior(expected, accuracy, images).value


def posterior_of_run(candidate: RaceCandidate, trial: CandidateRun) -> Estimate:
    """The accuracy of what a trial left."""
    return posterior(expected_after(candidate, trial.epochs, ()), trial.accuracy, trial.images)


def expected_after(candidate: RaceCandidate, epochs: int | None, trials: Sequence[CandidateRun]) -> Estimate:
    """The accuracy that a candidate would reach with so many epochs, after its `trials`."""
    if epochs is None:
        return candidate.accuracy
    known, of = candidate.accuracy, candidate.recipe.epochs
    done = [trial for trial in trials if not trial.failed]
    if done:
        known, of = posterior_of_run(candidate, done[-1]), done[-1].epochs
    return known if of is None else with_epochs(strategy(candidate.recipe.strategy).name, known, epochs / of)


def seconds_of(candidate: RaceCandidate, epochs: int | None, trials: Sequence[CandidateRun]) -> float:
    """Seconds of a run with so many epochs, from the candidate's last trial where there is one, else from the advice."""
    whole, each, of = candidate.seconds, candidate.epoch_seconds, candidate.recipe.epochs
    done = [trial for trial in trials if not trial.failed]
    if done:
        whole, each, of = done[-1].seconds, done[-1].epoch_seconds, done[-1].epochs
    return whole if epochs is None or of is None else whole + (epochs - of) * each


def planned_seconds(candidate: RaceCandidate, epochs: int, trials: Sequence[CandidateRun]) -> float:
    """Seconds that a run with so many epochs is given: a tenth more for these than they are expected to take."""
    fixed = seconds_of(candidate, 0, trials)
    return fixed + MARGIN * (seconds_of(candidate, epochs, trials) - fixed)


def epochs_within(candidate: RaceCandidate, seconds: float, trials: Sequence[CandidateRun]) -> int:
    """The most epochs, of those that the recipe has, that are expected to be done in time; 0 where not one is.

    Where nothing is known of its seconds, as on a GPU, all of them, while there is time at all.
    """
    most = (candidate.recipe.epochs or 0) if seconds > 0 else 0
    fixed = seconds_of(candidate, 0, trials)
    each = planned_seconds(candidate, 1, trials) - fixed
    return most if each <= 0 else max(0, min(most, int((seconds - fixed) / each)))
