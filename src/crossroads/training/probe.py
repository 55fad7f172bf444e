"""A probe: ridge regression on frozen features, scored on images that were left out, in closed form and so in a moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import TrainingError
from crossroads.training._principal import turned
from crossroads.training._ridge import centred, path
from crossroads.training.batches import Rows

PENALTIES = tuple(10.0**i for i in range(1, -7, -1))
"""Strong to weak, per image. Every second one of those that a head is solved with: an accuracy hardly moves between two."""


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """What frozen features tell of the classes.

    Attributes:
        correct: bool (n,), whether each image was right when it, or its group, was left out.
        penalty: The strength that was chosen, by the cross-entropy of what was left out.
    """

    correct: NDArray[np.bool_]
    penalty: float

    @property
    def accuracy(self) -> float:
        """Share of images that are right."""
        return float(self.correct.mean())


def probe(features: Rows, labels: NDArray[np.integer], groups: NDArray[np.integer] | None = None) -> Probe:
    """Probe features (n, d): each image is told by ridge regression on the standardised features of the images of other groups.

    The closed form is that of `_ridge.held_out_scores`; the penalty is one for all images.

    Args:
        features: Float (n, d).
        labels: Integers (n,).
        groups: Integers (n,): images that are left out together; None where each stands alone.

    Raises:
        TrainingError: No image, or a feature that is not finite.
    """
    if not len(labels):
        raise TrainingError("a probe needs images", received="none")
    present, codes = np.unique(labels, return_inverse=True)
    weights = np.ones(len(labels))
    if len(present) == 1:
        return Probe(np.ones(len(labels), bool), PENALTIES[0])
    turn = turned(features, weights)
    targets, level, correlations = centred(turn, codes, len(present), weights)
    steps = path(turn, targets, level, correlations, codes, weights, groups, PENALTIES)
    best = min(steps, key=lambda step: step.loss)
    return Probe(best.scores.argmax(axis=1) == codes, best.penalty)
