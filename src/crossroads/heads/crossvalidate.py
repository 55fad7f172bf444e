"""Measures a linear head on few images by nested cross-validation, and chooses its kind and penalty.

The images are dealt to `FOLDS` folds. Each fold is left out in turn. An inner cross-validation of the other folds chooses kind and
penalty, and the head that is solved on these folds predicts the fold. The label of an image therefore has no influence on the head
that predicts it, so the choice does not inflate the accuracy of these out-of-fold probabilities (Varma and Simon, 2006). The
principal components are computed from all images, but they do not depend on the labels.

Ridge regression leaves out one or two folds in closed form. With the hat matrix H of the fit to all images and its residuals e, the
residuals without the images U are (I - H_UU)^-1 e_U. Logistic regression is solved again for each fold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from crossroads.features.arrays import Indexable
from crossroads.heads._logistic import logistic
from crossroads.heads._principal import principal_components
from crossroads.heads._ridge import RidgeProblem, inverse_temperature, ridge_problem, smoothed
from crossroads.heads.folds import deal, divisible
from crossroads.heads.probe import PENALTIES
from crossroads.heads.solve import HeadCandidate, Kind, relevant_directions
from crossroads.heads.standardize import DEVIATION_FLOOR

FOLDS = 5

MAX_ROWS = 2_500
"""The largest number of rows of features that is cross-validated. With 1,280 features and ten classes, 1,000 rows took 1.6 s on
two busy cores, and 2,400 rows took 15 s."""

REPEATED_ROWS, MAX_REPEATS = 1_000, 8
"""The folds are drawn again as long as all draws together have at most `REPEATED_ROWS` rows, up to `MAX_REPEATS` times. With 80
images, the accuracy of a single draw is off by up to 3 points."""

LOGISTIC_STEPS = (0.03,)
"""Penalties of logistic regression, relative to the penalty that ridge regression chose. With 10 to 40 images per class from five
data sets, the best ratios were 0.1 and 0.01, and their accuracies were almost equal."""

TOLERANCE = 1e-4
"""Tolerance of the gradient of logistic regression. The final head is solved with a smaller tolerance."""

INNER_FOLDS = (-1, 1)
"""Positions, relative to the fold that is left out, of the inner folds on which logistic regression is measured. Solving it for all
pairs of folds would double the time."""

Scores = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class CrossValidation:
    """The result of a cross-validation.

    Attributes:
        probabilities: Out-of-fold probabilities, float32 (n, k), averaged over the repeats; 0 for rows that are never left out.
        held_out: bool (n,), the rows that were left out. The others are always trained on, because a class has no rows elsewhere.
        kind: The kind of head with the lowest cross-entropy in the inner folds of all repeats.
        penalty: Its penalty, per image.
        candidates: Every kind and penalty, with its cross-entropy in the inner folds.
        folds: Number of folds.
        repeats: Number of times that the folds were drawn.
    """

    probabilities: NDArray[np.float32]
    held_out: NDArray[np.bool_]
    kind: Kind
    penalty: float
    candidates: tuple[HeadCandidate, ...]
    folds: int
    repeats: int


def cross_validate(
    features: Indexable,
    labels: NDArray[np.integer],
    classes: int,
    *,
    groups: NDArray[np.integer] | None = None,
    weights: NDArray[np.floating] | None = None,
) -> CrossValidation | None:
    """Cross-validates a linear head.

    Args:
        features: Float (n, d).
        labels: Integers (n,) in [0, classes).
        classes: Number of classes.
        groups: Integers (n,) of rows that stay in one fold, such as frames of one object, views of one image, or equal images.
        weights: Weight of each row, (n,); None for equal weights.

    Returns:
        The result; None if there are too many rows, only one class, or too few groups to fill three folds.

    Raises:
        TrainingError: A feature is not finite, or the memory limits are exceeded.
    """
    n = len(labels)
    units = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(n)
    movable = divisible(units, np.asarray(labels))
    count = min(FOLDS, len(np.unique(units[movable])))
    present, codes = np.unique(labels, return_inverse=True)
    if n > MAX_ROWS or count < 3 or len(present) < 2:
        return None
    row_weights = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    components = principal_components(features, row_weights, floor=DEVIATION_FLOOR)
    problem = ridge_problem(components, codes, len(present), None)
    ridge = _Ridge(problem)
    repeats = min(MAX_REPEATS, max(1, REPEATED_ROWS // n))
    total, losses = np.zeros((n, len(present))), _Losses()
    for draw in range(1, repeats + 1):
        fold = np.full(n, -1)
        fold[movable] = deal(codes[movable], units[movable], count=count, draw=draw)
        folds = [np.flatnonzero(fold == number) for number in range(count)]
        for rows, probabilities in _out_of_fold(problem, ridge, folds, losses):
            total[rows] += probabilities / repeats
    kind, penalty, candidates = losses.chosen()
    everything = np.zeros((n, classes), np.float32)
    everything[:, present] = total
    return CrossValidation(everything, movable, kind, penalty, candidates, count, repeats)


class _Ridge:
    """Solves ridge regression without some of the rows, for each penalty.

    Attributes:
        residuals: Residuals of the fits to all rows, float64 (n, k), by penalty.
        hats: Their hat matrices W^1/2 Z M^-1 Z' W^1/2, float64 (n, n), with the intercept.
    """

    def __init__(self, problem: RidgeProblem) -> None:
        components = problem.components
        root = np.sqrt(components.weights)[:, None]
        rooted = root * components.coordinates  # (n, r)
        self._problem, self._root = problem, root
        self.residuals: dict[float, Scores] = {}
        self.hats: dict[float, Scores] = {}
        for penalty in PENALTIES:
            diagonal = components.spread + penalty * components.total
            self.hats[penalty] = (rooted / diagonal) @ rooted.T + root @ root.T / components.total
            fitted = components.coordinates @ (problem.correlations / diagonal[:, None]).astype(np.float32)
            self.residuals[penalty] = problem.targets - fitted

    def scores(self, penalty: float, rows: Rows) -> Scores:
        """Returns the scores of `rows` by a fit without them, float64 (m, k)."""
        from scipy.linalg import solve  # type: ignore[import-untyped]

        left = np.eye(len(rows)) - self.hats[penalty][np.ix_(rows, rows)]
        root = self._root[rows]
        residuals = solve(left, root * self.residuals[penalty][rows], assume_a="pos", check_finite=False) / root
        problem = self._problem
        scores: Scores = problem.mean + problem.targets[rows] - residuals
        return scores


@dataclass(slots=True)
class _Losses:
    """The cross-entropies in the inner folds, one for each fold of each repeat.

    Attributes:
        ridge: The cross-entropies by penalty.
        logistic: The cross-entropies by the ratio to the penalty of ridge regression.
    """

    ridge: dict[float, list[float]] = field(default_factory=lambda: defaultdict(list))
    logistic: dict[float, list[float]] = field(default_factory=lambda: defaultdict(list))

    def chosen(self) -> tuple[Kind, float, tuple[HeadCandidate, ...]]:
        """Returns the best kind and penalty over all folds, and every candidate."""
        found = {penalty: float(np.mean(losses)) for penalty, losses in self.ridge.items()}
        penalty = min(found, key=found.__getitem__)
        candidates = [HeadCandidate("ridge", each, loss) for each, loss in found.items()]
        candidates += [HeadCandidate("logistic", step * penalty, float(np.mean(losses))) for step, losses in self.logistic.items()]
        best = min(candidates, key=lambda candidate: candidate.held_out_loss or 0.0)
        return best.kind, best.penalty, tuple(sorted(candidates, key=lambda one: (one.kind, -one.penalty)))


def _out_of_fold(problem: RidgeProblem, ridge: _Ridge, folds: list[Rows], losses: _Losses) -> Iterator[tuple[Rows, Scores]]:
    """Yields the rows of each fold, and their probabilities by a head that was chosen and solved without them, float64 (m, p)."""
    from scipy.special import softmax  # type: ignore[import-untyped]

    inner = _inner_ridge(ridge, folds)
    codes, weights = problem.codes, problem.components.weights
    chosen: list[tuple[float, float, float]] = []  # penalty, inverse temperature, loss
    for number in range(len(folds)):
        others = np.concatenate([rows for other, rows in enumerate(folds) if other != number])
        path = []
        for penalty in PENALTIES:
            factor, loss = inverse_temperature(inner[penalty][number], codes[others], weights[others], smooth=len(codes))
            losses.ridge[penalty].append(loss)
            path.append((loss, penalty, factor))
        loss, penalty, factor = min(path)
        chosen.append((penalty, factor, loss))
    logistic = _Logistic(problem, folds)
    for number, (penalty, factor, loss) in enumerate(chosen):
        neighbours = [(number + step) % len(folds) for step in INNER_FOLDS]
        found = {step: logistic.loss(number, neighbours, step * penalty) for step in LOGISTIC_STEPS}
        for step, one in found.items():
            losses.logistic[step].append(one)
        best = min(found, key=found.__getitem__)
        if found[best] < loss:
            scores = logistic.scores((number,), best * penalty)[number]
        else:
            scores = factor * ridge.scores(penalty, folds[number])
        yield folds[number], softmax(scores, axis=1)


def _inner_ridge(ridge: _Ridge, folds: list[Rows]) -> dict[float, list[Scores]]:
    """Returns, by penalty and fold, the scores of all rows outside the fold. Each fit leaves out this fold and the row's own."""
    inner: dict[float, list[Scores]] = {}
    for penalty in PENALTIES:
        pairs: dict[tuple[int, int], Scores] = {}  # (left out, scored)
        for first in range(len(folds)):
            for second in range(first):
                scores = ridge.scores(penalty, np.concatenate([folds[first], folds[second]]))
                pairs[second, first], pairs[first, second] = np.split(scores, [len(folds[first])])
        inner[penalty] = [
            np.concatenate([pairs[number, other] for other in range(len(folds)) if other != number]) for number in range(len(folds))
        ]
    return inner


class _Logistic:
    """Solves logistic regression without one or two folds, and makes each fit only once."""

    def __init__(self, problem: RidgeProblem, folds: list[Rows]) -> None:
        self._problem, self._folds = problem, folds
        self._found: dict[tuple[tuple[int, ...], float], dict[int, Scores]] = {}

    def scores(self, left_out: tuple[int, ...], penalty: float) -> dict[int, Scores]:
        """Returns the scores of each fold that is left out, float64 (m, p)."""
        key = (tuple(sorted(left_out)), penalty)
        if key not in self._found:
            problem, components = self._problem, self._problem.components
            kept = np.ones(len(problem.codes), bool)
            kept[np.concatenate([self._folds[number] for number in left_out])] = False
            width, weights, classes = relevant_directions(components, penalty), components.weights[kept], len(problem.mean)
            coordinates = components.coordinates[:, :width]
            spread = components.spread[:width] * weights.sum() / components.total
            start = np.zeros((0, classes)), np.zeros(classes)
            kernel, bias = logistic(coordinates[kept], problem.codes[kept], weights, spread, penalty, start, TOLERANCE)
            self._found[key] = {number: coordinates[self._folds[number]] @ kernel + bias for number in left_out}
        return self._found[key]

    def loss(self, number: int, others: list[int], penalty: float) -> float:
        """Returns the cross-entropy in nats of the folds `others`. Each is left out together with the fold `number`."""
        from scipy.special import log_softmax

        codes, weights = self._problem.codes, self._problem.components.weights
        losses, total = 0.0, 0.0
        for other in others:
            rows = self._folds[other]
            logs = log_softmax(self.scores((number, other), penalty)[other], axis=1)
            losses -= float(weights[rows] @ smoothed(logs[np.arange(len(rows)), codes[rows]], logs, len(codes)))
            total += float(weights[rows].sum())
        return losses / total
