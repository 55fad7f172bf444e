"""A linear head solved, not approximated: multinomial logistic regression and ridge regression, the better on validation.

Both work on standardised features turned to the principal axes of the training images. Penalties that shrink all directions alike
do not see that turn, so nothing is lost by it; where there are fewer images than features (the dual), or directions without any
spread, there is less to solve, and every penalty of ridge regression costs one product. What comes out is folded back into one
kernel and one bias.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import TrainingError
from crossroads.training._ridge import held_out_scores, temperature

LOGISTIC_STEPS = (1.0, 0.1, 0.01, 0.001)
"""Strong to weak, as shares of the penalty that ridge regression chose: its best lay at 0.1 to 0.01 on ants/bees and GTSRB."""

RIDGE_PENALTIES = tuple(10.0 ** (i / 2) for i in range(2, -15, -1))
"""Strong to weak: 10 to 1e-7, per image and in the same unit."""

PATIENCE = 2  # Penalties on end that do worse on validation than ridge and all before, after which weaker ones are not tried.
STEPS, FLAT = 1000, 1e-5
"""Of L-BFGS: most steps a penalty, and the largest slope at which it stops, for features of unit variance. Ten times that, or
shorter features, stopped it on GTSRB at an accuracy of 0.864 where it goes on to 0.877."""
MEMORY = 1 << 30  # Bytes that the turned features may take; beyond it the directions of least spread are left out.
CHUNK = 1 << 25  # Bytes of features that are read at a time, as float64.
FEWEST = 1e-10  # Share of the largest spread below which a direction is rounding, in float64 sums of float32 features.

Kind = Literal["ridge", "logistic"]


class Features(Protocol):
    """What can be asked for its shape and for some of its rows: an array, a memory map, `Rows` of the cache."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Images first."""
        ...

    def __getitem__(self, rows: Any, /) -> Any:
        """The rows of a slice."""
        ...


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


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    """From features to coordinates: ``(x - mean) @ axes``; the sum of squares of coordinate i over the images is ``spread[i]``.

    `width` is the number of features that vary, so that coordinates times its root are of features of unit variance.
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    spread: NDArray[np.float64]
    width: int

    def folded(self, kernel: NDArray[np.float64], bias: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Kernel (r, k) and bias (k,) on coordinates as kernel (d, k) and bias on features."""
        whole = self.axes @ kernel
        return whole.astype(np.float32), (bias - self.mean @ whole).astype(np.float32)


def solve(
    features: Features,
    labels: NDArray[np.integer],
    validation_features: Features,
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
        features: Float (n, d); read a chunk at a time, three times over.
        labels: Integers (n,) in [0, classes).
        validation_features: Float (m, d).
        validation_labels: Integers (m,).
        classes: Number of classes.
        groups: Integers (n,): images that must be left out together, such as frames of one object or views of one image.
        weights: Weight of each class, (classes,); None where all weigh one.

    Raises:
        TrainingError: A feature is not finite, or there is no image to learn from or to choose by.
    """
    if not len(labels) or not len(validation_labels):
        raise TrainingError(
            "a head is solved on training and validation images", received=f"{len(labels)} and {len(validation_labels)} of them"
        )
    per_image = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)[labels]
    present, codes = np.unique(labels, return_inverse=True)
    if len(present) == 1:
        candidates = [_constant(features.shape[1], classes, int(present[0]))]
    else:
        turn = _turn(features, per_image)
        coordinates = _coordinates(features, turn)
        problem = _Problem(coordinates, codes, present, classes, per_image, turn)
        validation = (validation_features, np.asarray(validation_labels))
        ridge = _ridge(problem, groups)
        candidates = [*_logistic(problem, validation, *_reached(ridge, validation)), *ridge]
    return _best(candidates, validation_features, np.asarray(validation_labels))


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    coordinates: NDArray[np.float32]
    codes: NDArray[np.integer]
    present: NDArray[np.integer]
    classes: int
    weights: NDArray[np.float64]
    turn: _Turn

    @property
    def total(self) -> float:
        return float(self.weights.sum())

    def head(self, kernel: NDArray[np.float64], bias: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Coordinates and present classes to features and all classes; softmax does not see the mean that is taken off."""
        absent = -np.log(len(self.codes) + 1.0)
        whole, level = np.zeros((len(kernel), self.classes)), np.full(self.classes, absent)
        whole[:, self.present] = kernel - kernel.mean(axis=1, keepdims=True)
        level[self.present] = bias - bias.mean()
        return self.turn.folded(whole, level)


_Candidate = tuple[Tried, NDArray[np.float32] | None, NDArray[np.float32] | None]


def _constant(d: int, classes: int, label: int) -> _Candidate:
    bias = np.full(classes, -20.0, np.float32)
    bias[label] = 0
    return Tried("ridge", RIDGE_PENALTIES[0], None, None, None), np.zeros((d, classes), np.float32), bias


def _best(candidates: list[_Candidate], features: Features, labels: NDArray[np.integer]) -> LinearHead:
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
    features: Features, labels: NDArray[np.integer], kernel: NDArray[np.float32], bias: NDArray[np.float32]
) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy of a linear head on features (m, d) with labels (m,)."""
    loss, right = 0.0, 0
    for start, rows in _chunks(features):
        scores = (rows.astype(np.float32) @ kernel + bias).astype(np.float64)
        truth = labels[start : start + len(rows)]
        peak = scores.max(axis=1)
        log_sum = peak + np.log(np.exp(scores - peak[:, None]).sum(axis=1))
        loss += float((log_sum - scores[np.arange(len(rows)), truth]).sum())
        right += int((scores.argmax(axis=1) == truth).sum())
    return loss / len(labels), right / len(labels)


def _chunks(features: Features) -> Any:
    """Pairs of the first row and float64 (c, d), a bounded number of rows at a time. Raises `TrainingError` where not finite."""
    n, d = features.shape
    step = max(1, CHUNK // (8 * d))
    for start in range(0, n, step):
        rows = np.asarray(features[start : min(start + step, n)], np.float64)
        if not np.isfinite(rows).all():
            raise TrainingError("features must be finite", received=f"NaN or infinity in rows {start} to {start + len(rows) - 1}")
        yield start, rows


def _turn(features: Features, weights: NDArray[np.float64]) -> _Turn:
    """Weighted mean, and axes that standardise, divide by the root of d and turn to the principal directions.

    Divided so, the squared length of an average image is one whatever d is, and one table of penalties serves every backbone.
    """
    n, d = features.shape
    total = weights.sum()
    # About the first rows' mean: sums of squares about a far origin would lose the spread in rounding.
    origin = next(iter(_chunks(features)))[1].mean(axis=0)
    sums, squares = np.zeros(d), np.zeros(d)
    products = np.zeros((d, d)) if d <= n else None
    for start, rows in _chunks(features):
        part = weights[start : start + len(rows), None]
        rows = rows - origin  # never in place: they may be the caller's
        sums += (part * rows).sum(axis=0)
        rows *= np.sqrt(part)
        squares += (rows**2).sum(axis=0)
        if products is not None:
            products += rows.T @ rows
    shift = sums / total
    deviation = np.sqrt(np.maximum(squares / total - shift**2, 0))
    useful = deviation > 1e-7 * max(deviation.max(), 1e-30)
    scale = np.where(useful, 1 / np.where(useful, deviation, 1), 0) / np.sqrt(max(1, useful.sum()))
    if products is not None:
        products -= total * np.outer(shift, shift)
        products *= scale[:, None] * scale
        spread, axes = np.linalg.eigh(products)
    else:
        spread, axes = _dual(features, weights, origin + shift, scale)
    keep = min(len(spread), max(1, MEMORY // (4 * n)))
    spread, axes = spread[::-1][:keep], axes[:, ::-1][:, :keep]
    spread = np.maximum(spread, 0)
    real = spread > FEWEST * max(spread[0], 1e-30)
    real[0] = True  # where all images are alike: a direction that says nothing
    return _Turn(origin + shift, scale[:, None] * axes[:, real], spread[real], max(1, int(useful.sum())))


def _dual(
    features: Features, weights: NDArray[np.float64], mean: NDArray[np.float64], scale: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues and eigenvectors (d, n) of the d x d matrix, by way of the n x n one: there are fewer images than features."""
    rows = np.concatenate([(part - mean) * scale for _, part in _chunks(features)]) * np.sqrt(weights)[:, None]
    spread, left = np.linalg.eigh(rows @ rows.T)
    safe = np.sqrt(np.maximum(spread, FEWEST * max(spread[-1], 1e-30)))
    return spread, (rows.T @ left) / safe


def _coordinates(features: Features, turn: _Turn) -> NDArray[np.float32]:
    """float32 (n, r)."""
    found = np.empty((features.shape[0], turn.axes.shape[1]), np.float32)
    for start, rows in _chunks(features):
        found[start : start + len(rows)] = (rows - turn.mean) @ turn.axes
    return found


def _logistic(
    problem: _Problem, validation: tuple[Features, NDArray[np.integer]], strongest: float, best: tuple[float, float]
) -> list[_Candidate]:
    """Heads along the path of penalties from `strongest` on, as far as they do better on validation than `best` and those before.

    `best` is accuracy and minus loss. Scales the coordinates.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    found: list[_Candidate] = []
    unit = np.float32(np.sqrt(problem.turn.width))  # to features of unit variance, in which slopes have a scale
    problem.coordinates[:] *= unit
    model = LogisticRegression(warm_start=True, max_iter=STEPS, tol=FLAT)
    worse = 0
    for penalty in (step * strongest for step in LOGISTIC_STEPS):
        # Mean loss + penalty / 2 |W|^2, where scikit-learn's is C x sum of losses + 1 / 2 |W|^2.
        model.set_params(C=1 / (penalty * problem.total * float(unit) ** 2))
        # One thread: NumPy and SciPy bring a pool of threads each, which wait for each other at every step. Measured on 4,320
        # images of 1,024 features and 36 classes, two busy cores: 0.6 s a penalty against 6 s.
        with threadpool_limits(limits=1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the path goes on from there
            model.fit(problem.coordinates, problem.codes, sample_weight=problem.weights)
        kernel, bias = model.coef_.T.astype(np.float64) * unit, model.intercept_.astype(np.float64)
        if kernel.shape[1] == 1:  # two classes are told apart by one score
            kernel, bias = np.concatenate([-kernel, kernel], axis=1) / 2, np.concatenate([-bias, bias]) / 2
        head = problem.head(kernel, bias)
        loss, accuracy = measure(*validation, *head)
        found.append((Tried("logistic", penalty, None, loss, accuracy), *head))
        worse = 0 if accuracy > best[0] or -loss > best[1] else worse + 1
        best = (max(best[0], accuracy), max(best[1], -loss))
        if worse >= PATIENCE:
            break
    return found


def _reached(ridge: list[_Candidate], validation: tuple[Features, NDArray[np.integer]]) -> tuple[float, tuple[float, float]]:
    """The penalty that ridge regression chose, and its accuracy and minus loss on validation."""
    record, kernel, bias = next(candidate for candidate in ridge if candidate[1] is not None)
    if kernel is None or bias is None:
        raise TrainingError("ridge regression leaves one head", received="none")
    loss, accuracy = measure(*validation, kernel, bias)
    return record.penalty, (accuracy, -loss)


def _ridge(problem: _Problem, groups: NDArray[np.integer] | None) -> list[_Candidate]:
    """Every penalty with its held-out loss, and the head of the best."""
    targets = np.zeros((len(problem.codes), len(problem.present)))
    targets[np.arange(len(targets)), problem.codes] = 1
    level = problem.weights @ targets / problem.total
    targets -= level
    correlations = problem.coordinates.T @ (problem.weights[:, None] * targets).astype(np.float32)
    found, sharp = [], 1.0
    for penalty in RIDGE_PENALTIES:
        scores = held_out_scores(
            problem.coordinates, targets, problem.turn.spread, penalty * problem.total, correlations, problem.weights, groups
        )
        sharp, loss = temperature(scores + level, problem.codes, problem.weights, start=sharp)
        found.append((loss, penalty, sharp))
    _, chosen, sharpness = min(found)
    kernel = correlations / (problem.turn.spread + chosen * problem.total)[:, None]
    head = problem.head(sharpness * kernel, sharpness * level)
    return [
        (Tried("ridge", penalty, loss, None, None), *(head if penalty == chosen else (None, None))) for loss, penalty, _ in found
    ]
