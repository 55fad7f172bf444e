"""A probe: ridge regression on frozen features, scored on images that were left out, in closed form and so in a moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import TrainingError
from crossroads.heads._principal import principal_components
from crossroads.heads._ridge import centred, path

if TYPE_CHECKING:
    from crossroads.features.arrays import Indexable

PENALTIES = tuple(10.0**i for i in range(1, -7, -1))
"""Strong to weak, per image. Every second one of those that a head is solved with: an accuracy hardly moves between two."""


FOLDS = 10
"""Parts that are left out in turn. Images are not left out alone: a class of ten would be left with nine beside tens, and the probe
would turn against the very class that is asked for; on ten images a class that cost a tenth of the accuracy."""


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """What frozen features tell of the classes.

    Attributes:
        correct: bool (n,), whether each image was right when its fold was left out.
        penalty: The strength that was chosen, by the cross-entropy of what was left out.
    """

    correct: NDArray[np.bool_]
    penalty: float

    @property
    def accuracy(self) -> float:
        """Share of images that are right."""
        return float(self.correct.mean())


def probe(features: Indexable, labels: NDArray[np.integer], groups: NDArray[np.integer] | None = None) -> Probe:
    """Probe features (n, d): each image is told by ridge regression on the standardised features of the images of other folds.

    The closed form is that of `_ridge.held_out_scores`; the penalty is one for all images.

    Args:
        features: Float (n, d).
        labels: Integers (n,).
        groups: Integers (n,): images that stay in one fold; None where each stands alone.

    Raises:
        TrainingError: No image, or a feature that is not finite.
    """
    if not len(labels):
        raise TrainingError("a probe needs images", received="none")
    present, codes = np.unique(labels, return_inverse=True)
    weights = np.ones(len(labels))
    if len(present) == 1:
        return Probe(np.ones(len(labels), bool), PENALTIES[0])
    turn = principal_components(features, weights)
    targets, level, correlations = centred(turn, codes, len(present), weights)
    steps = path(turn, targets, level, correlations, codes, weights, folds(codes, groups), PENALTIES)
    best = min(steps, key=lambda step: step.loss)
    return Probe(best.scores.argmax(axis=1) == codes, best.penalty)


def folds(labels: NDArray[np.integer], groups: NDArray[np.integer] | None = None) -> NDArray[np.int64]:
    """The fold of each row, int64 (n,) in [0, `FOLDS`): classes are dealt out evenly, groups stay whole; always the same.

    A group that holds several classes counts as one of the class of its first row.
    """
    units = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    _, first = np.unique(units, return_index=True)
    order = np.random.default_rng(len(labels)).permutation(len(first))
    order = order[np.argsort(labels[first[order]], kind="stable")]  # class after class, so that no fold gets one more of each
    dealt = np.empty(len(first), np.int64)
    dealt[order] = np.arange(len(first)) % FOLDS
    fold: NDArray[np.int64] = dealt[units]
    return fold
