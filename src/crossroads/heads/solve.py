"""Solves a linear head by multinomial logistic regression and by ridge regression, and keeps the better one on validation.

Both work on the principal components of the standardised training features. A penalty on the squared weights is invariant to that
rotation, so the solutions are the same. The problem is smaller if there are fewer images than features (the dual) or directions
without spread, and each penalty of ridge regression costs one matrix product. The solution is converted to one kernel and one bias
for raw features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import TrainingError
from crossroads.features.arrays import Indexable
from crossroads.heads._logistic import logistic
from crossroads.heads._principal import PrincipalComponents, principal_components
from crossroads.heads._ridge import held_out_scores, inverse_temperature, regularization_path, ridge_problem
from crossroads.heads.cross_entropy import summed_metrics
from crossroads.heads.large_ridge import fit_large_ridge, is_large
from crossroads.heads.standardize import read_chunks

RIDGE_PENALTIES = tuple(10.0 ** (i / 2) for i in range(2, -15, -1))
"""Penalties of ridge regression per image, from strong (10) to weak (1e-7)."""

LOGISTIC_STEPS = (1.0, 0.1, 0.01, 0.001)
"""Penalties of logistic regression, from strong to weak, relative to the penalty that ridge regression chose. On ants/bees and
GTSRB, the best were 0.1 to 0.01."""

PATIENCE = 2
"""Logistic regression stops after this number of penalties in a row that do not improve accuracy or loss on validation. Once a
penalty has improved them, one fewer suffices. The weakest penalties take the most steps: on 27,629 signs a tenth of the best
penalty took a third longer than the best one, and a hundredth more than twice as long."""

UNSEEN = 1e-3
"""Logistic regression leaves out the last directions, whose joint spread is at most this fraction of the total penalty. The
gradient along a direction, ``Z'(softmax - target)``, and the penalty bound its weight. Leaving it out therefore changes the scores
of an average image by at most this fraction of its error."""

Kind = Literal["ridge", "logistic"]


@dataclass(frozen=True, slots=True)
class HeadCandidate:
    """A head with one kind and penalty.

    Attributes:
        kind: How it was solved.
        penalty: Per image.
        held_out_loss: Held-out cross-entropy in nats of ridge regression; None for logistic regression.
        validation_loss: Cross-entropy in nats on the validation images; None for a ridge penalty that lost by `held_out_loss`.
        validation_accuracy: Fraction of the validation images that are correct; None likewise.
    """

    kind: Kind
    penalty: float
    held_out_loss: float | None
    validation_loss: float | None = None
    validation_accuracy: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """A linear head: scores are ``features @ kernel + bias``, and their softmax is the probability of each class.

    Attributes:
        kernel: float32 (d, k).
        bias: float32 (k,).
        kind: The method that solved it.
        penalty: The chosen penalty per image.
        validation_loss: Mean cross-entropy in nats on the validation images.
        validation_accuracy: Fraction of the validation images that are correct.
        candidates: Every candidate.
    """

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    kind: Kind
    penalty: float
    validation_loss: float
    validation_accuracy: float
    candidates: tuple[HeadCandidate, ...] = ()


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
    """Solves linear heads and returns the best one on validation: the most accurate, or in a tie the one with the lowest loss.

    Logistic regression is solved by L-BFGS along a regularization path, with warm starts (Friedman, Hastie and Tibshirani, 2010).
    Ridge regression on one-hot targets chooses its penalty by the cross-entropy of its held-out scores. The same scores determine
    the temperature that calibrates its softmax (Guo et al., 2017). A class without images gets a probability of at most
    1 / (n + 1).

    Args:
        features: Float (n, d), read a chunk at a time, several times.
        labels: Integers (n,) in [0, classes).
        validation_features: Float (m, d).
        validation_labels: Integers (m,).
        classes: Number of classes.
        groups: Integers (n,) of images that must be left out together, such as frames of one object or views of one image.
        weights: Weight of each class, (classes,); None for equal weights.

    Raises:
        TrainingError: A feature is not finite, there are no training or no validation images, or the memory limits are exceeded.
    """
    if not len(labels) or not len(validation_labels):
        raise TrainingError(
            "a head needs training and validation images",
            code="no-training-images",
            received=f"{len(labels)} and {len(validation_labels)} of them",
            hint="add images",
        )
    validation = _Validation(validation_features, np.asarray(validation_labels))
    image_weights = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)[labels]
    present, codes = np.unique(labels, return_inverse=True)
    targets = _Targets(codes, present, classes, groups)
    if len(present) == 1:
        return _choose([_constant(features.shape[1], classes, int(present[0]))], [], validation)
    if is_large(*features.shape):
        return _choose(*_large_ridge(features, targets, image_weights), validation)
    components = principal_components(features, image_weights)
    ridge, rejected = _ridge(components, targets)
    ridge = validation.measured(ridge)
    return _choose([*_logistic(components, targets, ridge, validation), ridge], rejected, validation)


def solve_with(
    kind: Kind,
    penalty: float,
    features: Indexable,
    labels: NDArray[np.integer],
    classes: int,
    *,
    groups: NDArray[np.integer] | None = None,
    weights: NDArray[np.floating] | None = None,
    floor: float = 0.0,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns kernel (d, k) and bias (k,) of the linear head of one kind and penalty; no validation images are needed.

    Args:
        kind: How it is solved.
        penalty: Per image.
        features: Float (n, d), read a chunk at a time, several times.
        labels: Integers (n,) in [0, classes).
        classes: Number of classes.
        groups: Integers (n,) of rows that are left out together to find the temperature of ridge regression.
        weights: Weight of each row, (n,); None for equal weights.
        floor: The least deviation that a feature is divided by, as `standardizer` takes it.

    Raises:
        TrainingError: A feature is not finite, or the memory limits are exceeded.
    """
    row_weights = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    present, codes = np.unique(labels, return_inverse=True)
    targets = _Targets(codes, present, classes, groups)
    if len(present) == 1:
        constant = _constant(features.shape[1], classes, int(present[0]))
        return constant.kernel, constant.bias
    if is_large(*features.shape):
        fit = fit_large_ridge(features, codes, len(present), row_weights, groups, [penalty])
        return fit.standardizer.fold(*targets.expand(fit.kernel, fit.bias))
    components = principal_components(features, row_weights, floor=floor)
    if kind == "logistic":
        width = relevant_directions(components, penalty)
        start = np.zeros((0, len(present))), np.zeros(len(present))
        coordinates, spread = components.coordinates[:, :width], components.spread[:width]
        return components.fold(*targets.expand(*logistic(coordinates, codes, row_weights, spread, penalty, start)))
    problem = ridge_problem(components, codes, len(present), groups)
    scores = problem.mean + held_out_scores(problem, penalty * components.total)
    factor, _ = inverse_temperature(scores, codes, row_weights, smooth=len(codes))
    kernel = problem.correlations / (components.spread + penalty * components.total)[:, None]  # (r, p)
    return components.fold(*targets.expand(factor * kernel, factor * problem.mean))


@dataclass(frozen=True, slots=True, eq=False)
class _Targets:
    """Classes of the training images: codes (n,) in [0, p), the labels (p,) that they are codes of, and groups (n,)."""

    codes: NDArray[np.integer]
    present: NDArray[np.integer]
    classes: int
    groups: NDArray[np.integer] | None

    def expand(self, kernel: NDArray[np.float64], bias: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Adds the classes without images to kernel (r, p) and bias (p,), with a low constant score.

        The mean over classes is subtracted, which does not change the softmax.
        """
        every_kernel = np.zeros((len(kernel), self.classes))
        every_bias = np.full(self.classes, -np.log(len(self.codes) + 1.0))
        every_kernel[:, self.present] = kernel - kernel.mean(axis=1, keepdims=True)
        every_bias[self.present] = bias - bias.mean()
        return every_kernel, every_bias


@dataclass(frozen=True, slots=True, eq=False)
class _Solution:
    """A candidate with its kernel float32 (d, k) and bias float32 (k,) for the features."""

    candidate: HeadCandidate
    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]

    @property
    def rank(self) -> tuple[float, float]:
        """Accuracy and minus the loss on validation."""
        accuracy, loss = self.candidate.validation_accuracy, self.candidate.validation_loss
        return (0.0, -np.inf) if accuracy is None or loss is None else (accuracy, -loss)


@dataclass(frozen=True, slots=True, eq=False)
class _Validation:
    features: Indexable
    labels: NDArray[np.integer]

    def measured(self, solution: _Solution) -> _Solution:
        """Returns the solution with its loss and accuracy on validation."""
        loss, accuracy = loss_and_accuracy(self.features, self.labels, solution.kernel, solution.bias)
        return replace(solution, candidate=replace(solution.candidate, validation_loss=loss, validation_accuracy=accuracy))


def _choose(solutions: list[_Solution], rejected: list[HeadCandidate], validation: _Validation) -> LinearHead:
    """Returns the best solution on validation; candidates are listed in the order of their kinds, then from strong to weak."""
    measured = [s if s.candidate.validation_loss is not None else validation.measured(s) for s in solutions]
    best = max(measured, key=lambda solution: solution.rank)
    chosen = best.candidate
    candidates = [*(solution.candidate for solution in measured), *rejected]
    candidates.sort(key=lambda candidate: (candidate.kind, -candidate.penalty))
    accuracy, negative_loss = best.rank
    return LinearHead(best.kernel, best.bias, chosen.kind, chosen.penalty, -negative_loss, accuracy, tuple(candidates))


def loss_and_accuracy(
    features: Indexable, labels: NDArray[np.integer], kernel: NDArray[np.float32], bias: NDArray[np.float32]
) -> tuple[float, float]:
    """Returns the mean cross-entropy in nats and the accuracy of a linear head on features (m, d) with labels (m,)."""
    loss, correct = 0.0, 0.0
    for start, chunk in read_chunks(features):
        scores = (chunk.astype(np.float32) @ kernel + bias).astype(np.float64)
        chunk_loss, chunk_correct = summed_metrics(scores, labels[start : start + len(chunk)])
        loss, correct = loss + chunk_loss, correct + chunk_correct
    return loss / len(labels), correct / len(labels)


def _constant(d: int, classes: int, label: int) -> _Solution:
    """Returns a head that always predicts one class."""
    bias = np.full(classes, -20.0, np.float32)
    bias[label] = 0
    return _Solution(HeadCandidate("ridge", RIDGE_PENALTIES[0], None), np.zeros((d, classes), np.float32), bias)


def _ridge(components: PrincipalComponents, targets: _Targets) -> tuple[_Solution, list[HeadCandidate]]:
    """Returns the solution with the lowest held-out loss, and the other penalties."""
    problem = ridge_problem(components, targets.codes, len(targets.present), targets.groups)
    path = [(p.loss, p.penalty, p.inverse_temperature) for p in regularization_path(problem, RIDGE_PENALTIES)]
    lowest, chosen, factor = min(path)
    kernel = problem.correlations / (components.spread + chosen * components.total)[:, None]  # (r, p)
    head = components.fold(*targets.expand(factor * kernel, factor * problem.mean))
    rejected = [HeadCandidate("ridge", penalty, loss) for loss, penalty, _ in path if penalty != chosen]
    return _Solution(HeadCandidate("ridge", chosen, lowest), *head), rejected


def _large_ridge(
    features: Indexable, targets: _Targets, weights: NDArray[np.float64]
) -> tuple[list[_Solution], list[HeadCandidate]]:
    """Solves ridge regression of many images with many features. Logistic regression took minutes for them, and lost."""
    fit = fit_large_ridge(features, targets.codes, len(targets.present), weights, targets.groups, RIDGE_PENALTIES)
    head = fit.standardizer.fold(*targets.expand(fit.kernel, fit.bias))
    rejected = [HeadCandidate("ridge", penalty, loss) for penalty, loss in fit.path if penalty != fit.penalty]
    return [_Solution(HeadCandidate("ridge", fit.penalty, fit.loss), *head)], rejected


def _logistic(components: PrincipalComponents, targets: _Targets, ridge: _Solution, validation: _Validation) -> list[_Solution]:
    """Returns the solutions along the path of penalties, from that of ridge regression down, until `PATIENCE` ends it."""
    solutions: list[_Solution] = []
    kernel, bias = np.zeros((0, len(targets.present))), np.zeros(len(targets.present))
    best_accuracy, best_negative_loss = ridge.rank
    worse, patience = 0, PATIENCE
    for penalty in (step * ridge.candidate.penalty for step in LOGISTIC_STEPS):
        width = max(len(kernel), relevant_directions(components, penalty))
        coordinates, spread = components.coordinates[:, :width], components.spread[:width]
        kernel, bias = logistic(coordinates, targets.codes, components.weights, spread, penalty, (kernel, bias))
        head = components.fold(*targets.expand(kernel, bias))
        solution = validation.measured(_Solution(HeadCandidate("logistic", penalty, None), *head))
        solutions.append(solution)
        accuracy, negative_loss = solution.rank
        if accuracy > best_accuracy or negative_loss > best_negative_loss:
            worse, patience = 0, max(1, PATIENCE - 1)
        else:
            worse += 1
        best_accuracy, best_negative_loss = max(best_accuracy, accuracy), max(best_negative_loss, negative_loss)
        if worse >= patience:
            break
    return solutions


def relevant_directions(components: PrincipalComponents, penalty: float) -> int:
    """Returns the number of leading directions that matter under a penalty, at least 1."""
    remaining = np.cumsum(components.spread[::-1])[::-1]  # (r,), the spread of a direction and all after it
    return max(1, int((remaining > UNSEEN * penalty * components.total).sum()))
