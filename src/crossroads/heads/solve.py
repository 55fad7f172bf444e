"""A linear head solved, not approximated: multinomial logistic regression and ridge regression, the better on validation.

Both work on standardised features turned to the principal axes of the training images. Penalties that shrink all directions alike
do not see that turn, so nothing is lost by it; where there are fewer images than features (the dual), or directions without any
spread, there is less to solve, and every penalty of ridge regression costs one product. What comes out is folded back into one
kernel and one bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import TrainingError
from crossroads.heads._logistic import logistic
from crossroads.heads._principal import PrincipalComponents, chunks, moments, principal_components
from crossroads.heads._ridge import centred, path
from crossroads.heads.large_ridge import fit_large_ridge, is_large
from crossroads.heads.metrics import sums

if TYPE_CHECKING:
    from crossroads.features.arrays import Indexable

__all__ = ["LinearHead", "Tried", "measure", "moments", "solve"]

LOGISTIC_STEPS = (1.0, 0.1, 0.01, 0.001)
"""Strong to weak, as shares of the penalty that ridge regression chose: its best lay at 0.1 to 0.01 on ants/bees and GTSRB."""

RIDGE_PENALTIES = tuple(10.0 ** (i / 2) for i in range(2, -15, -1))
"""Strong to weak: 10 to 1e-7, per image and in the same unit."""

PATIENCE = 2
"""Penalties in a row that do no better on validation than ridge and all before, in accuracy or in loss, after which weaker ones
are not tried; a single one once any has done better. The weakest take the most steps: of 27,629 signs a tenth of the best penalty
took a third longer than the best did, and a hundredth more than twice as long."""
UNSEEN = 1e-3
"""Share of penalty and images that the spread of the directions left out of logistic regression may reach together. Such a
direction has the slope ``Z'(softmax - target)``, which the penalty holds its weights to: without them the scores of an average
image differ by this share of its error at most."""

Kind = Literal["ridge", "logistic"]


@dataclass(frozen=True, slots=True)
class Tried:
    """One candidate.

    Attributes:
        kind: How it was solved.
        penalty: Strength, in the unit of the two tables above.
        held_out_loss: Ridge: cross-entropy in nats of the scores of images, or groups, that were left out. None for logistic.
        validation_loss: Cross-entropy on the validation images in nats; None for the ridge that lost by `held_out_loss`.
        validation_accuracy: Share of validation images that are right; None likewise.
    """

    kind: Kind
    penalty: float
    held_out_loss: float | None
    validation_loss: float | None
    validation_accuracy: float | None


@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """Scores are ``features @ kernel + bias``; their softmax is the probability of each class.

    Attributes:
        kernel: float32 (d, k).
        bias: float32 (k,).
        kind: How it was solved.
        penalty: The strength that was chosen.
        validation_loss: Mean cross-entropy on the validation images, in nats.
        validation_accuracy: Share of validation images that are right.
        tried: Every candidate.
    """

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    kind: Kind
    penalty: float
    validation_loss: float
    validation_accuracy: float
    tried: tuple[Tried, ...]


def solve(
    features: Indexable,
    labels: NDArray[np.integer],
    validation_features: Indexable,
    validation_labels: NDArray[np.integer],
    classes: int,
    *,
    groups: NDArray[np.integer] | None = None,
    weights: NDArray[np.floating] | None = None,
) -> LinearHead:
    """The better linear head on validation: by accuracy, then by loss.

    Logistic regression is solved along a path of penalties, each started from the one before (Friedman, Hastie and Tibshirani,
    2010), by L-BFGS. Ridge regression on one-hot rows chooses its penalty by the cross-entropy of scores in closed form for
    images, or whole groups, left out; the same scores set the temperature that makes its softmax calibrated (Guo et al., 2017).
    A class without images gets scores that leave it at most one part in n + 1.

    Args:
        features: Float (n, d); read a chunk at a time, several times over.
        labels: Integers (n,) in [0, classes).
        validation_features: Float (m, d).
        validation_labels: Integers (m,).
        classes: Number of classes.
        groups: Integers (n,): images that must be left out together, such as frames of one object or views of one image.
        weights: Weight of each class, (classes,); None where all weigh one.

    Raises:
        TrainingError: A feature is not finite, there is no image to learn from or to choose by, or n and d are both so large that
            memory would not do.
    """
    if not len(labels) or not len(validation_labels):
        raise TrainingError(
            "a head is solved on training and validation images", received=f"{len(labels)} and {len(validation_labels)} of them"
        )
    per_image = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)[labels]
    present, codes = np.unique(labels, return_inverse=True)
    if len(present) == 1:
        candidates = [_constant(features.shape[1], classes, int(present[0]))]
    elif is_large(*features.shape):
        candidates = _of_many(features, codes, present, classes, per_image, groups)
    else:
        problem = _Problem(principal_components(features, per_image), codes, present, classes, per_image)
        validation = (validation_features, np.asarray(validation_labels))
        ridge = _ridge(problem, groups)
        candidates = [*_logistic(problem, validation, *_reached(ridge, validation)), *ridge]
    return _best(candidates, validation_features, np.asarray(validation_labels))


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    turn: PrincipalComponents
    codes: NDArray[np.integer]
    present: NDArray[np.integer]
    classes: int
    weights: NDArray[np.float64]

    @property
    def total(self) -> float:
        return float(self.weights.sum())

    def head(self, kernel: NDArray[np.float64], bias: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Coordinates and present classes to features and all classes; softmax does not see the mean that is taken off."""
        return self.turn.folded(*_for_all(kernel, bias, self.present, self.classes, len(self.codes)))


def _for_all(
    kernel: NDArray[np.float64], bias: NDArray[np.float64], present: NDArray[np.integer], classes: int, images: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Kernel and bias of the classes that occur as those of all; the others get a score that is low and always the same."""
    whole, level = np.zeros((len(kernel), classes)), np.full(classes, -np.log(images + 1.0))
    whole[:, present] = kernel - kernel.mean(axis=1, keepdims=True)
    level[present] = bias - bias.mean()
    return whole, level


_Candidate = tuple[Tried, NDArray[np.float32] | None, NDArray[np.float32] | None]


def _constant(d: int, classes: int, label: int) -> _Candidate:
    bias = np.full(classes, -20.0, np.float32)
    bias[label] = 0
    return Tried("ridge", RIDGE_PENALTIES[0], None, None, None), np.zeros((d, classes), np.float32), bias


def _best(candidates: list[_Candidate], features: Indexable, labels: NDArray[np.integer]) -> LinearHead:
    tried, scored = [], []
    for record, kernel, bias in candidates:
        if kernel is None or bias is None:
            tried.append(record)
            continue
        loss, accuracy = record.validation_loss, record.validation_accuracy
        if loss is None or accuracy is None:
            loss, accuracy = measure(features, labels, kernel, bias)
            record = Tried(record.kind, record.penalty, record.held_out_loss, loss, accuracy)
        tried.append(record)
        scored.append(LinearHead(kernel, bias, record.kind, record.penalty, loss, accuracy, ()))
    best = max(scored, key=lambda head: (head.validation_accuracy, -head.validation_loss))
    figures = (best.penalty, best.validation_loss, best.validation_accuracy)
    return LinearHead(best.kernel, best.bias, best.kind, *figures, tuple(tried))


def measure(
    features: Indexable, labels: NDArray[np.integer], kernel: NDArray[np.float32], bias: NDArray[np.float32]
) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy of a linear head on features (m, d) with labels (m,)."""
    loss, right = 0.0, 0.0
    for start, rows in chunks(features):
        scores = (rows.astype(np.float32) @ kernel + bias).astype(np.float64)
        truth = labels[start : start + len(rows)]
        found = sums(scores, truth)
        loss, right = loss + found[0], right + found[1]
    return loss / len(labels), right / len(labels)


def _logistic(
    problem: _Problem, validation: tuple[Indexable, NDArray[np.integer]], strongest: float, best: tuple[float, float]
) -> list[_Candidate]:
    """Heads along the path of penalties from `strongest` on, as far as they do better on validation than `best` and those before.

    `best` is accuracy and minus loss.
    """
    found: list[_Candidate] = []
    kernel, bias = np.zeros((0, len(problem.present))), np.zeros(len(problem.present))
    worse, patience = 0, PATIENCE
    for penalty in (step * strongest for step in LOGISTIC_STEPS):
        seen = max(len(kernel), _seen(problem, penalty))
        coordinates, spread = problem.turn.coordinates[:, :seen], problem.turn.spread[:seen]
        kernel, bias = logistic(coordinates, problem.codes, problem.weights, spread, penalty, (kernel, bias))
        head = problem.head(kernel, bias)
        loss, accuracy = measure(*validation, *head)
        found.append((Tried("logistic", penalty, None, loss, accuracy), *head))
        if accuracy > best[0] or -loss > best[1]:
            worse, patience = 0, max(1, PATIENCE - 1)
        else:
            worse += 1
        best = (max(best[0], accuracy), max(best[1], -loss))
        if worse >= patience:
            break
    return found


def _seen(problem: _Problem, penalty: float) -> int:
    """Directions that matter under a penalty."""
    left = np.cumsum(problem.turn.spread[::-1])[::-1]  # spread of a direction and all after it
    return max(1, int((left > UNSEEN * penalty * problem.total).sum()))


def _of_many(
    features: Indexable,
    codes: NDArray[np.integer],
    present: NDArray[np.integer],
    classes: int,
    weights: NDArray[np.float64],
    groups: NDArray[np.integer] | None,
) -> list[_Candidate]:
    """Ridge regression of many images with many features. Logistic regression is left out: there it took minutes and lost."""
    found = fit_large_ridge(features, codes, len(present), weights, groups, RIDGE_PENALTIES)
    head = found.standard.folded(*_for_all(found.kernel, found.bias, present, classes, len(codes)))
    return [
        (Tried("ridge", penalty, loss, None, None), *(head if penalty == found.penalty else (None, None)))
        for penalty, loss in found.tried
    ]


def _reached(ridge: list[_Candidate], validation: tuple[Indexable, NDArray[np.integer]]) -> tuple[float, tuple[float, float]]:
    """The penalty that ridge regression chose, and its accuracy and minus loss on validation."""
    record, kernel, bias = next(candidate for candidate in ridge if candidate[1] is not None)
    if kernel is None or bias is None:
        raise TrainingError("ridge regression leaves one head", received="none")
    loss, accuracy = measure(*validation, kernel, bias)
    return record.penalty, (accuracy, -loss)


def _ridge(problem: _Problem, groups: NDArray[np.integer] | None) -> list[_Candidate]:
    """Every penalty with its held-out loss, and the head of the best."""
    targets, level, correlations = centred(problem.turn, problem.codes, len(problem.present), problem.weights)
    found = [
        (step.loss, step.penalty, step.sharpness)
        for step in path(problem.turn, targets, level, correlations, problem.codes, problem.weights, groups, RIDGE_PENALTIES)
    ]
    _, chosen, sharpness = min(found)
    kernel = correlations / (problem.turn.spread + chosen * problem.total)[:, None]
    head = problem.head(sharpness * kernel, sharpness * level)
    return [
        (Tried("ridge", penalty, loss, None, None), *(head if penalty == chosen else (None, None))) for loss, penalty, _ in found
    ]
