"""Computes an immutable `Evaluation` from probabilities and true labels. Accuracies have 95 % confidence intervals.

`Evaluation.interval_method` names the kind of interval:

- ``wilson``: The images are independent. The interval of the accuracy is the score interval of Wilson (1927), which holds near 0
  and 1 too. The interval of the balanced accuracy, the mean of the recalls, combines the Wilson limits of the classes by the method
  of Zou, Huang and Zhang (2009), "A note on confidence interval estimation for a linear function of binomial proportions". A
  bootstrap would give a class without a mistake no spread at all.
- ``group bootstrap``: The images come in groups, such as the 30 frames of one traffic sign, and 1,000 images may carry no more
  information than 33. Whole groups are drawn with replacement (Field and Welsh 2007, "Bootstrapping clustered data"). The interval
  reaches from the 2.5th to the 97.5th percentile.
- ``wilson over groups``: There are too few groups for a bootstrap, or too few with a mistake or with a correct prediction. Without
  any mistake, a bootstrap interval would be exactly 1. Wilson's interval is computed with the effective number of groups as n, as
  if each group were all right or all wrong, which is conservative. Groups of sizes s count as (sum s)^2 / sum s^2 groups (Kish
  1965, "Survey Sampling"): one group of 1,000 images and eight of one image count as 1.02. The interval of the balanced accuracy
  combines the classes as above, each with its own effective number. If groups contain several classes, the classes are not
  independent, and the distances are added instead of their squares.
- ``…, cross-validated``: One of the above, each limit moved away from the accuracy by the root of `CROSS_VALIDATION_VARIANCE`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossroads.data.loading import Refusal
from crossroads.display import Shown
from crossroads.errors import DataError
from crossroads.plain import to_plain

Z = 1.959963984540054
"""The 97.5 % point of the normal distribution: two-sided 95 %."""
RESAMPLES = 2_000
BOOTSTRAP_SEED = 1_927
MIN_GROUPS = 10
"""Smallest effective number of groups for a bootstrap. With fewer, the interval is too narrow (Cameron et al. 2008)."""
MIN_INFORMATIVE_GROUPS = 5
"""Smallest number of groups with a mistake, and of groups with a correct answer, for a bootstrap.

With fewer, many resamples contain no mistake or no correct answer, so the interval is unreliable.
"""

CROSS_VALIDATION_VARIANCE = 1.5
"""Variance of a cross-validated accuracy about that of the final head on new images, relative to the binomial variance. The heads
of the folds share most of their images (Bates, Hastie and Tibshirani 2021, "Cross-validation: what does it estimate and how well
does it do it?"). Over 240 draws of 16 to 360 images of five data sets, the 95 % intervals contained the accuracy on the other
images in 88 % of the draws without this factor, and in 95 % with it."""
CLIP = 1e-7
"""Smallest probability in the cross-entropy, as in Keras. One confident mistake then costs 16.1 nats, not infinity."""
CALIBRATION_BINS = 15
MAX_MISTAKES = 20
_CHUNK = 4_000_000

Interval = tuple[float, float]


class ClassScore(NamedTuple):
    """The scores of one class. Recall is None without images, precision without predictions."""

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


class Mistake(NamedTuple):
    """One misclassified image, with the probability of the predicted class."""

    name: str
    true: str
    predicted: str
    confidence: float


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation(Shown):
    """The scores of a classifier on one data set.

    Attributes:
        classes: Class names, in the order of the columns.
        n: Number of images.
        groups: Number of groups; None if the images are independent.
        loss: Mean cross-entropy in nats, with probabilities clipped at `CLIP`.
        accuracy: Fraction of images whose most probable class is the true one.
        accuracy_interval: Its 95 % interval.
        balanced_accuracy: Mean recall over the classes with images.
        balanced_accuracy_interval: Its 95 % interval.
        interval_method: ``wilson``, ``group bootstrap`` or ``wilson over groups``, then ``, cross-validated`` if the probabilities
            are; see `crossroads.evaluation`.
        top_k: Top-k accuracy by k: the fraction of images whose true class is among the k most probable.
        per_class: The scores of each class, in class order.
        confusion_matrix: int64 (k, k), read-only; row i counts the images of class i by their predicted class.
        expected_calibration_error: Mean gap between confidence and accuracy over 15 equal bins (Guo et al. 2017).
        mistakes: The most confident mistakes, at most `MAX_MISTAKES`, most confident first.
        seen_in_training: Number of images that were also used for training or validation; None if unknown.
        refused: The images that could not be read, with the reasons. They are not counted in `n`.
        warnings: The warnings about the images and the scores.
    """

    classes: tuple[str, ...]
    n: int
    groups: int | None
    loss: float
    accuracy: float
    accuracy_interval: Interval
    balanced_accuracy: float
    balanced_accuracy_interval: Interval
    interval_method: str
    top_k: dict[int, float]
    per_class: tuple[ClassScore, ...]
    confusion_matrix: NDArray[np.int64]
    expected_calibration_error: float
    mistakes: tuple[Mistake, ...]
    seen_in_training: int | None = None
    refused: tuple[Refusal, ...] = ()
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Returns the accuracy and the number of images."""
        low, high = self.accuracy_interval
        return f"Evaluation(accuracy {self.accuracy:.4f} ({low:.4f} to {high:.4f}, 95 %) on {self.n:,} images)"

    @property
    def untested_classes(self) -> tuple[str, ...]:
        """The classes without images. They have no recall and are left out of the balanced accuracy."""
        return tuple(score.name for score in self.per_class if not score.support)

    def lines(self) -> Iterator[tuple[str, str | float]]:
        """Yields the scores as (name, value), in the order in which they are printed as ``name: value``."""
        yield "n", self.n
        if self.seen_in_training:
            yield "seen_in_training", self.seen_in_training
        if self.refused:
            yield "refused", len(self.refused)
        if self.groups is not None:
            yield "groups", self.groups
        yield "loss", self.loss
        yield "accuracy", self.accuracy
        yield "accuracy_interval", _with_method(self.accuracy_interval, self.interval_method)
        yield "balanced_accuracy", self.balanced_accuracy
        yield "balanced_accuracy_interval", _with_method(self.balanced_accuracy_interval, self.interval_method)
        yield from ((f"top_{k}_accuracy", accuracy) for k, accuracy in self.top_k.items() if k > 1)
        yield "expected_calibration_error", self.expected_calibration_error
        if self.untested_classes:
            yield "untested_classes", f"{len(self.untested_classes)} of {len(self.classes)}, left out of balanced_accuracy"

    def summary(self) -> dict[str, Any]:
        """Returns the five main scores, ready for JSON: n, accuracy, accuracy_interval, balanced_accuracy, loss."""
        return {
            "n": self.n,
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
            "balanced_accuracy": self.balanced_accuracy,
            "loss": self.loss,
        }

    def to_json(self) -> dict[str, Any]:
        """Returns everything as plain values, ready for JSON. Scores that are undefined are None, never NaN."""
        values = {**self.summary(), **to_plain(self), "untested_classes": list(self.untested_classes)}
        return values | {"warnings": list(self.warnings)}  # they keep their codes

    def table(self) -> str:
        """Returns the scores of the classes as text, one class per line, with ``-`` for an undefined score.

        A class without images is marked as not tested.
        """
        width = max(len("class"), *(len(score.name) for score in self.per_class))
        header = f"{'class':<{width}}  precision  recall      f1  support"
        rows = (
            f"{s.name:<{width}}  {_cell(s.precision):>9}  {_cell(s.recall):>6}  {_cell(s.f1):>6}  {s.support:>7}"
            + ("" if s.support else "  not tested")
            for s in self.per_class
        )
        return "\n".join([header, *rows])


def evaluate(
    probabilities: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    groups: ArrayLike | None = None,
    top: tuple[int, ...] = (1, 3, 5),
) -> Evaluation:
    """Evaluates predictions.

    Args:
        probabilities: Float (n, k), rows that sum to 1. A tie goes to the class that comes first.
        labels: Integers (n,), indices into `classes`.
        classes: The k class names.
        names: Names of the images for the list of mistakes; ``row 0``, ``row 1``, ... by default.
        groups: Integers (n,), the group of each image; None if the images are independent.
        top: The k of the top-k accuracies. Values that are not below the number of classes are left out.

    Raises:
        DataError: There are no rows, shapes disagree, values are not probabilities, or labels are out of range.
    """
    p, y = _checked(probabilities, labels, classes)
    n, k = p.shape
    if names is not None and len(names) != n:
        raise _other_shape("names", f"({n},), one name per row of the probabilities", (len(names),))
    group_numbers = None if groups is None else _group_numbers(groups, n)
    predicted = p.argmax(axis=1)
    matrix = np.bincount(y * k + predicted, minlength=k * k).reshape(k, k).astype(np.int64)
    matrix.setflags(write=False)
    correct, support = predicted == y, matrix.sum(axis=1)
    recalls = matrix.diagonal()[support > 0] / support[support > 0]
    accuracy, balanced = float(correct.mean()), float(recalls.mean())
    if group_numbers is None:
        method, interval = "wilson", wilson_interval(int(correct.sum()), n)
        balanced_interval = _mean_recall_interval(recalls, support[support > 0], independent=True)
    else:
        method, interval, balanced_interval = _grouped_intervals(group_numbers, y, correct, accuracy, balanced)
    true_probability = p[np.arange(n), y]
    return Evaluation(
        classes=tuple(classes),
        n=n,
        groups=None if group_numbers is None else int(group_numbers.max()) + 1,
        loss=float(-np.log(np.clip(true_probability, CLIP, 1.0)).mean()),
        accuracy=accuracy,
        accuracy_interval=interval,
        balanced_accuracy=balanced,
        balanced_accuracy_interval=balanced_interval,
        interval_method=method,
        top_k=_top_k(p, y, true_probability, top),
        per_class=tuple(_class_scores(matrix, classes)),
        confusion_matrix=matrix,
        expected_calibration_error=_calibration_error(p.max(axis=1), correct),
        mistakes=_mistakes(p, y, predicted, classes, names),
    )


def wilson_interval(correct: float, n: float) -> Interval:
    """Returns the 95 % score interval of the proportion `correct` / `n`, n > 0. Both may be fractional.

    Wilson (1927), "Probable inference, the law of succession, and statistical inference", J. Am. Stat. Assoc. 22, 209-212.
    """
    p = correct / n
    centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(max(0.0, p * (1 - p)) / n + Z * Z / (4 * n * n))
    # For p = 0 or 1 one limit is p itself, and rounding must not leave p outside.
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def accuracy_interval(correct: NDArray[np.bool_], groups: NDArray[np.integer] | None = None) -> Interval:
    """Returns the 95 % interval of the accuracy, the fraction of True in `correct` (n,), n > 0, as `evaluate` computes it."""
    if groups is None:
        return wilson_interval(float(correct.sum()), len(correct))
    numbers = _group_numbers(groups, len(correct))
    return _grouped_intervals(numbers, np.zeros(len(correct), np.int64), correct, float(correct.mean()), float(correct.mean()))[1]


def widened(evaluation: Evaluation) -> Evaluation:
    """Returns an evaluation of cross-validated probabilities with intervals that allow for the images that its heads share."""
    factor = math.sqrt(CROSS_VALIDATION_VARIANCE)

    def wider(interval: Interval, value: float) -> Interval:
        low, high = interval
        return max(0.0, value - factor * (value - low)), min(1.0, value + factor * (high - value))

    return replace(
        evaluation,
        accuracy_interval=wider(evaluation.accuracy_interval, evaluation.accuracy),
        balanced_accuracy_interval=wider(evaluation.balanced_accuracy_interval, evaluation.balanced_accuracy),
        interval_method=f"{evaluation.interval_method}, cross-validated",
    )


def paired_difference(
    correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_], groups: NDArray[np.integer] | None = None
) -> tuple[float, float]:
    """Returns how much more accurate a is than b on the same images, and the standard error of that difference.

    The error is that of McNemar's test (1947), if neither is better: only images that one of them alone classifies correctly count.
    With 3 such images of a and 1 of b, among 40, the difference is 2 / 40 = 0.05 with an error of sqrt(4) / 40 = 0.05. With groups
    the differences of a group are added before they are squared (Obuchowski 1998, "On the comparison of correlated proportions for
    clustered data").

    Args:
        correct_a: bool (n,), whether a classifies each image correctly, n > 0.
        correct_b: bool (n,), likewise.
        groups: Integers (n,), the group of each image; None if the images are independent.
    """
    n = len(correct_a)
    numbers = np.arange(n) if groups is None else _group_numbers(groups, n)
    differences = np.bincount(numbers, weights=correct_a.astype(np.float64) - correct_b)
    return float(differences.sum()) / n, math.sqrt(float((differences**2).sum())) / n


def _mean_recall_interval(recalls: NDArray[np.float64], numbers: NDArray[Any], *, independent: bool) -> Interval:
    """Combines the Wilson limits of the classes into an interval of their mean recall.

    Args:
        recalls: float (k,).
        numbers: (k,), effective number of observations of each class.
        independent: Whether the classes are independent. If so, the squared distances from recall to limit are added, otherwise
            the distances themselves.
    """
    limits = np.array([wilson_interval(recall * n, n) for recall, n in zip(recalls.tolist(), numbers.tolist(), strict=True)])
    order = 2 if independent else 1
    below, above = (float(np.linalg.norm(limits[:, end] - recalls, order)) / len(recalls) for end in (0, 1))
    mean = float(recalls.mean())
    return max(0.0, mean - below), min(1.0, mean + above)


def effective_count(groups: NDArray[np.integer]) -> float:
    """Returns the effective number of groups (Kish 1965), given the group of each row, int (n,)."""
    return _effective_count(np.unique(groups, return_counts=True)[1])


def _effective_count(sizes: NDArray[np.int64]) -> float:
    """Returns the effective number of groups, given their sizes."""
    return float(sizes.sum()) ** 2 / float((sizes.astype(np.float64) ** 2).sum())


def _grouped_intervals(
    groups: NDArray[np.int64], labels: NDArray[np.int64], correct: NDArray[np.bool_], accuracy: float, balanced: float
) -> tuple[str, Interval, Interval]:
    """Returns the method and the intervals of accuracy and balanced accuracy for images in groups."""
    count = int(groups.max()) + 1
    with_correct = len(np.unique(groups[correct]))
    with_mistake = len(np.unique(groups[~correct]))
    effective = _effective_count(np.bincount(groups))
    if effective < MIN_GROUPS or min(with_correct, with_mistake) < MIN_INFORMATIVE_GROUPS:
        pairs, sizes = np.unique(labels * count + groups, return_counts=True)
        present = np.unique(labels)
        numbers = np.array([_effective_count(sizes[pairs // count == label]) for label in present])
        recalls = np.array([correct[labels == label].mean() for label in present])
        balanced_interval = _mean_recall_interval(recalls, numbers, independent=len(pairs) == count)
        return "wilson over groups", wilson_interval(accuracy * effective, effective), balanced_interval
    accuracies, balanced_accuracies = _bootstrap(groups, labels, correct, count)
    return "group bootstrap", _percentiles(accuracies, accuracy), _percentiles(balanced_accuracies, balanced)


def _bootstrap(
    groups: NDArray[np.int64], labels: NDArray[np.int64], correct: NDArray[np.bool_], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns accuracy and balanced accuracy of `RESAMPLES` draws of whole groups, each float64 (RESAMPLES,).

    Rows are first counted by (class, group), and a draw only weights these counts. Its cost depends on the number of pairs that
    occur, which is hardly larger than the number of groups, and not on the number of images.
    """
    pairs, pair_of_row = np.unique(labels * count + groups, return_inverse=True)
    total = np.bincount(pair_of_row).astype(np.float64)
    hits = np.bincount(pair_of_row, weights=correct)
    group_of_pair, class_of_pair = pairs % count, pairs // count
    starts = np.flatnonzero(np.r_[True, class_of_pair[1:] != class_of_pair[:-1]])
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    accuracies, balanced = np.empty(RESAMPLES), np.empty(RESAMPLES)
    step = max(1, _CHUNK // max(count, len(pairs)))
    for begin in range(0, RESAMPLES, step):
        draws = min(step, RESAMPLES - begin)
        drawn = rng.integers(0, count, (draws, count)) + np.arange(draws)[:, None] * count
        weights = np.bincount(drawn.ravel(), minlength=draws * count).reshape(draws, count)[:, group_of_pair]
        class_hits = np.add.reduceat(weights * hits, starts, axis=1)
        class_total = np.add.reduceat(weights * total, starts, axis=1)
        occurs = class_total > 0
        accuracies[begin : begin + draws] = class_hits.sum(axis=1) / class_total.sum(axis=1)
        recall = np.divide(class_hits, class_total, out=np.zeros_like(class_hits), where=occurs)
        balanced[begin : begin + draws] = recall.sum(axis=1) / occurs.sum(axis=1)
    return accuracies, balanced


def _percentiles(values: NDArray[np.float64], estimate: float) -> Interval:
    low, high = np.percentile(values, (2.5, 97.5))
    return min(float(low), estimate), max(float(high), estimate)


def _top_k(
    p: NDArray[np.float64], y: NDArray[np.int64], true_probability: NDArray[np.float64], top: tuple[int, ...]
) -> dict[int, float]:
    """Returns the top-k accuracies. Ties rank by class order, as in the prediction, so that top-1 equals the accuracy."""
    k = p.shape[1]
    above = (p > true_probability[:, None]).sum(axis=1)
    rank = above + ((p == true_probability[:, None]) & (np.arange(k) < y[:, None])).sum(axis=1)
    return {size: float((rank < size).mean()) for size in sorted(set(top)) if 0 < size < k}


def _class_scores(matrix: NDArray[np.int64], classes: Sequence[str]) -> Iterator[ClassScore]:
    hits, support, given = matrix.diagonal().tolist(), matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist()
    for name, hit, images, predictions in zip(classes, hits, support, given, strict=True):
        if images == 0:
            yield ClassScore(name, None, None, None, 0)
        else:
            yield ClassScore(
                name, hit / predictions if predictions else None, hit / images, 2 * hit / (images + predictions), images
            )


def _calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """Returns the expected calibration error (Guo et al. 2017, equation 3) over the bins (0, 1/15], (1/15, 2/15], ..."""
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    gap = np.bincount(bins, weights=correct - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gap).sum() / len(confidence))


def _mistakes(
    p: NDArray[np.float64], y: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[str], names: Sequence[str] | None
) -> tuple[Mistake, ...]:
    wrong = np.flatnonzero(predicted != y)
    confidence = p[wrong, predicted[wrong]]
    worst = wrong[np.argsort(-confidence, kind="stable")[:MAX_MISTAKES]].tolist()
    return tuple(
        Mistake(
            f"row {row}" if names is None else names[row], classes[y[row]], classes[predicted[row]], float(p[row, predicted[row]])
        )
        for row in worst
    )


def _checked(probabilities: ArrayLike, labels: ArrayLike, classes: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns the arguments as float64 (n, k) and int64 (n,). Raises `DataError` if one of them is wrong."""
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] != len(classes) or p.shape[1] == 0:
        raise _other_shape("probabilities", f"(n, {len(classes)}), one column per class", p.shape)
    if len(p) == 0:
        raise DataError("an evaluation needs at least one image", code="no-images", received="none", hint="add images")
    if not np.isfinite(p).all() or p.min() < -1e-6 or p.max() > 1 + 1e-3 or np.abs(p.sum(axis=1) - 1).max() > 1e-2:
        bad = np.flatnonzero(~(np.isfinite(p).all(axis=1) & (np.abs(p.sum(axis=1) - 1) <= 1e-2) & (p.min(axis=1) >= -1e-6)))
        row = int(bad[0]) if len(bad) else int(p.max(axis=1).argmax())
        raise DataError(
            "each row must be probabilities that sum to 1",
            code="not-probabilities",
            field="probabilities",
            received=f"{p[row].tolist()[:8]} in row {row}",
            hint="apply softmax to scores first",
        )
    y = np.asarray(labels)
    if y.shape != (len(p),):
        raise _other_shape("labels", f"({len(p)},), one label per row of the probabilities", y.shape)
    if not np.issubdtype(y.dtype, np.integer):
        raise DataError(
            "labels must be integers, indices into the classes",
            code="not-integers",
            field="labels",
            received=y.dtype,
            hint="convert names with classes.index",
        )
    outside = np.flatnonzero((y < 0) | (y >= len(classes)))
    if len(outside):
        raise DataError(
            f"labels must be between 0 and {len(classes) - 1}",
            code="out-of-range",
            field="labels",
            received=f"{y[outside[0]]} in row {outside[0]}",
            hint="count classes from 0, or add the missing classes",
        )
    return p, y.astype(np.int64)


def _group_numbers(groups: ArrayLike, n: int) -> NDArray[np.int64]:
    """Returns the groups renumbered to 0, 1, ... without gaps, int64 (n,)."""
    given = np.asarray(groups)
    if given.shape != (n,):
        raise _other_shape("groups", f"({n},), one group per row of the probabilities", given.shape)
    return np.unique(given, return_inverse=True)[1].astype(np.int64)


def _other_shape(argument: str, expected: str, received: tuple[int, ...]) -> DataError:
    return DataError(f"{argument} must have the shape {expected}", code="other-shape", field=argument, received=received)


def _with_method(interval: Interval, method: str) -> str:
    return f"{interval[0]:.4f} to {interval[1]:.4f} (95 %, {method})"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
