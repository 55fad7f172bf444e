"""Estimates the accuracy and the seconds of a candidate's next run, from the advice and from its earlier runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from crossroads.advice.estimate import Estimate, from_log_odds, log_odds
from crossroads.advice.expectation import with_epochs
from crossroads.race.records import CandidateRun, RaceCandidate
from crossroads.strategies import strategy

MARGIN = 1.1
"""Planned seconds of an epoch over its expected seconds: an epoch that does not end in time is lost."""


def posterior(expected: Estimate, accuracy: float, images: float) -> Estimate:
    """Combines an expected accuracy with a validation accuracy by their precisions.

    Both are treated as normal in log odds. The expectation has the width of its interval. The validation accuracy has the variance
    of a proportion of `images`, with half an image added to right and wrong (Agresti 2013, section 3.1). The expectation is centred
    between its limits, because its value is the mean of a proportion, which is drawn towards 0.5.

    Example: 0.80 (0.70 to 0.87) is 1.37 with a standard deviation of 0.27 in log odds. 90 of 100 right is 2.15 with 0.33. The
    precisions 13.8 and 9.4 give 1.69, which is 0.844.

    Args:
        expected: The prior.
        accuracy: On the validation images.
        images: Effective number of validation images.
    """
    low, high = (log_odds(value, 1e-4) for value in (expected.low, expected.high))
    prior = (low + high) / 2
    prior_variance = max(((high - low) / 3.92) ** 2, 1e-6)
    right, wrong = accuracy * images + 0.5, (1 - accuracy) * images + 0.5
    measured, measured_variance = math.log(right / wrong), 1 / right + 1 / wrong
    precision = 1 / prior_variance + 1 / measured_variance
    middle, half = (prior / prior_variance + measured / measured_variance) / precision, 1.96 / math.sqrt(precision)
    return Estimate(from_log_odds(middle), from_log_odds(middle - half), from_log_odds(middle + half))


def posterior_of_run(candidate: RaceCandidate, run: CandidateRun) -> Estimate:
    """Returns the posterior accuracy of the classifier that a run trained."""
    return posterior(expected_after(candidate, run.epochs, ()), run.accuracy, run.images)


def expected_after(candidate: RaceCandidate, epochs: int | None, runs: Sequence[CandidateRun]) -> Estimate:
    """Returns the accuracy expected of a run with this many epochs, given the candidate's earlier runs."""
    if epochs is None:
        return candidate.accuracy
    known, known_epochs = candidate.accuracy, candidate.recipe.epochs
    done = [run for run in runs if not run.failed]
    if done:
        known, known_epochs = posterior_of_run(candidate, done[-1]), done[-1].epochs
    return known if known_epochs is None else with_epochs(strategy(candidate.recipe.strategy).name, known, epochs / known_epochs)


def seconds_of(candidate: RaceCandidate, epochs: int | None, runs: Sequence[CandidateRun]) -> float:
    """Returns the seconds expected of a run with this many epochs: from the candidate's last run, or else from the advice."""
    whole, each, known_epochs = candidate.seconds, candidate.epoch_seconds, candidate.recipe.epochs
    done = [run for run in runs if not run.failed]
    if done:
        whole, each, known_epochs = done[-1].seconds, done[-1].epoch_seconds, done[-1].epochs
    return whole if epochs is None or known_epochs is None else whole + (epochs - known_epochs) * each


def planned_seconds(candidate: RaceCandidate, epochs: int, runs: Sequence[CandidateRun]) -> float:
    """Returns the seconds that a run is given: its expected seconds, with a tenth added to those of its epochs."""
    fixed = seconds_of(candidate, 0, runs)
    return fixed + MARGIN * (seconds_of(candidate, epochs, runs) - fixed)


def affordable_epochs(candidate: RaceCandidate, seconds: float, runs: Sequence[CandidateRun]) -> int:
    """Returns how many of the recipe's epochs are expected to end in time, possibly 0.

    If nothing is known of the seconds, as on a GPU, these are all epochs as long as any time is left.

    Example: a run of 100 s with 8 epochs of 10 s has 20 s of fixed work. Of 60 s, 40 s are left for epochs. Each is planned with
    11 s, so there are 3.
    """
    most = (candidate.recipe.epochs or 0) if seconds > 0 else 0
    fixed = seconds_of(candidate, 0, runs)
    each = planned_seconds(candidate, 1, runs) - fixed
    return most if each <= 0 else max(0, min(most, int((seconds - fixed) / each)))
