"""Compares two runs of a race by the images that both were judged by."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from crossroads.evaluation import paired_difference
from crossroads.race.records import CandidateRun

VERY_FEW = 30
"""Validation images below which a trained network must beat the best head by twice the standard error. Its best epoch is chosen on
the same images, so its score is biased: on 80 flowers a finetuned network was right on all 10 and on 0.779 of 720 others, and the
head on 0.797 of them."""


def beats(run: CandidateRun, first: CandidateRun) -> bool:
    """Whether a run is better on validation. On equal accuracy it is not: the first head is the cheapest candidate."""
    return run.accuracy > first.accuracy


def clearly_beats(run: CandidateRun, best: CandidateRun, first: CandidateRun) -> bool:
    """Whether a training beats the frozen heads: the best of them image by image if validation is small, else the first."""
    return beats(run, first) if in_common(run, best) is None else clear_gain(run, best)[0]


def in_common(run: CandidateRun, other: CandidateRun) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Returns which of the images that both runs were judged by each classifies correctly; None if they are not compared by image.

    These are the images that both predicted out of fold, otherwise the validation images.
    """
    for ours, theirs in ((run.crossed, other.crossed), (run.correct, other.correct)):
        if ours and len(ours) == len(theirs):
            both = [(one, two) for one, two in zip(ours, theirs, strict=True) if "-" not in (one, two)]
            return np.array([one == "1" for one, _ in both]), np.array([two == "1" for _, two in both])
    return None


def clear_gain(run: CandidateRun, other: CandidateRun) -> tuple[bool, float, float]:
    """Returns whether a run is clearly better than another on the same few images, the difference, and the error it must exceed.

    That is the standard error, and twice as much on fewer than `VERY_FEW` images that chose the epoch of the run.
    """
    ours, theirs = in_common(run, other) or (np.zeros(1, bool), np.zeros(1, bool))
    difference, error = paired_difference(ours, theirs)
    # Frames of one object are right or wrong together, so their effective number counts.
    effective, crossed = run.images or float(len(ours)), run.crossed and other.crossed
    error *= math.sqrt(max(1.0, len(ours) / effective)) * (2 if effective < VERY_FEW and not crossed else 1)
    return difference > error, difference, error
