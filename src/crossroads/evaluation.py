"""Probabilities and true labels in, one immutable `Evaluation` out: every headline figure with its interval.

Intervals are at 95 %. Which kind is used follows from how the images were taken, and `Evaluation.interval_method` says it:

- ``wilson``: the images are independent. Accuracy takes the score interval of Wilson (1927), which stays honest near 0 and 1.
  Balanced accuracy, a mean of one share a class, takes the Wilson limits of the classes combined by the method of Zou, Huang and
  Zhang (2009), "A note on confidence interval estimation for a linear function of binomial proportions". A bootstrap would give a
  class without a mistake no spread at all.
- ``group bootstrap``: images come in groups (the 30 frames of one traffic sign), so that 1,000 images may be worth 33. Whole groups
  are drawn with replacement (Field and Welsh 2007, "Bootstrapping clustered data"); the interval is the 2.5 and 97.5 percentiles.
- ``wilson over groups``: too few groups, or too few with a mistake (or with a correct answer), for the bootstrap to see the spread:
  without any mistake it would claim exactly 1. Wilson's interval is taken with the effective number of groups as n, as if all
  images of a group were right or wrong together, which errs on the wide side. Groups of sizes s count as (sum s)^2 / sum s^2 equal
  ones (Kish 1965, "Survey Sampling"): one group of 1,000 images among eight of one image is hardly more than one. Balanced accuracy
  takes the limits of the classes, each with its own effective number, together as above; where groups hold several classes, the
  classes are not independent, and the distances add up plainly and not in squares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossroads.data.loading import Refusal
from crossroads.errors import DataError

Z = 1.959963984540054
"""The 97.5 % point of the normal distribution: two-sided 95 %."""
RESAMPLES = 2_000
BOOTSTRAP_SEED = 1_927
MIN_GROUPS = 10
"""With fewer effective groups the percentiles of a bootstrap are too narrow (Cameron, Gelbach and Miller 2008)."""
MIN_INFORMATIVE_GROUPS = 5
"""With fewer groups that hold a mistake, or a correct answer, many resamples hold none and the bootstrap's tail is an accident."""
CLIP = 1e-7
"""Probabilities are raised to this before the logarithm, as Keras does: one confident mistake costs 16.1 nats, not infinity."""
CALIBRATION_BINS = 15
MAX_MISTAKES = 20
_CHUNK = 4_000_000

Interval = tuple[float, float]


class ClassScore(NamedTuple):
    """How one class fares. A figure that the data cannot tell is None: recall without images, precision without predictions."""

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


class Mistake(NamedTuple):
    """One image that was given the wrong class, with the probability that the wrong class got."""

    name: str
    true: str
    predicted: str
    confidence: float


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What a classifier is worth on one data set.

    Attributes:
        classes: Class names, in the order of the columns.
        n: Number of images.
        groups: Number of groups that the images come in, or None where they are independent.
        loss: Mean cross-entropy in nats, probabilities clipped at `CLIP`.
        accuracy: Share of images whose most probable class is the true one.
        accuracy_interval: Its 95 % interval.
        balanced_accuracy: Mean recall over the classes that occur.
        balanced_accuracy_interval: Its 95 % interval.
        interval_method: ``wilson``, ``group bootstrap`` or ``wilson over groups``; the module says when.
        top_k: For some k, the share of images whose true class is among the k most probable.
        per_class: One score a class, in class order.
        confusion_matrix: int64 (k, k), read-only; row i counts the images of class i by the class they were given.
        expected_calibration_error: Mean gap between confidence and accuracy over 15 equal bins (Guo et al. 2017).
        mistakes: The most confident mistakes, at most `MAX_MISTAKES`, the most confident first.
        seen_in_training: Images among the `n` that the classifier was trained on or chosen by; None where that is not known.
        refused: The images that could not be read, with the reasons; they are not among the `n`.
        warnings: What the user was warned of.
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

    @property
    def untested_classes(self) -> tuple[str, ...]:
        """The classes without an image: they have no recall, and balanced accuracy is over the others."""
        return tuple(score.name for score in self.per_class if not score.support)

    def lines(self) -> Iterator[tuple[str, str | float]]:
        """The figures as (name, value), in the order in which they are printed as ``name: value``."""
        yield "n", self.n
        if self.seen_in_training:
            yield "seen_in_training", self.seen_in_training
        if self.refused:
            yield "refused", len(self.refused)
        if self.groups is not None:
            yield "groups", self.groups
        yield "loss", self.loss
        yield "accuracy", self.accuracy
        yield "accuracy_interval", _spell(self.accuracy_interval, self.interval_method)
        yield "balanced_accuracy", self.balanced_accuracy
        yield "balanced_accuracy_interval", _spell(self.balanced_accuracy_interval, self.interval_method)
        yield from ((f"top_{k}_accuracy", share) for k, share in self.top_k.items() if k > 1)
        yield "expected_calibration_error", self.expected_calibration_error
        if self.untested_classes:
            yield "untested_classes", f"{len(self.untested_classes)} of {len(self.classes)}, left out of balanced_accuracy"

    def summary(self) -> dict[str, Any]:
        """The five headline figures, ready for JSON: n, accuracy, accuracy_interval, balanced_accuracy, loss."""
        return {
            "n": self.n,
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
            "balanced_accuracy": self.balanced_accuracy,
            "loss": self.loss,
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values ready for JSON; a figure that the data cannot tell is None and nothing is NaN."""
        values = {**self.summary(), **asdict(self)}
        values["classes"] = list(self.classes)
        values["accuracy_interval"] = list(self.accuracy_interval)
        values["balanced_accuracy_interval"] = list(self.balanced_accuracy_interval)
        values["top_k"] = {str(k): share for k, share in self.top_k.items()}
        values["per_class"] = [score._asdict() for score in self.per_class]
        values["untested_classes"] = list(self.untested_classes)
        values["confusion_matrix"] = self.confusion_matrix.tolist()
        values["mistakes"] = [mistake._asdict() for mistake in self.mistakes]
        values["refused"] = [refusal.to_json() for refusal in self.refused]
        values["warnings"] = list(self.warnings)
        return values

    def table(self) -> str:
        """The classes as text, one per line: name, precision, recall, F1, support; ``-`` where the data cannot tell.

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
    """Scores predictions against the truth.

    Args:
        probabilities: Float (n, k), rows that sum to 1. A tie goes to the class that comes first.
        labels: Integers (n,), indices into `classes`.
        classes: The k class names.
        names: What to call each image in the list of mistakes; ``row 0``, ``row 1``, ... by default.
        groups: Integers (n,); images with equal numbers are not independent of each other.
        top: The k for which to count the true class among the k most probable; those not below the number of classes are left out.

    Raises:
        DataError: No rows, shapes that disagree, values that are no probabilities, labels out of range.
    """
    p, y = _checked(probabilities, labels, classes)
    n, k = p.shape
    _require_length("names", None if names is None else len(names), n)
    group_numbers = None if groups is None else _group_numbers(groups, n)
    predicted = p.argmax(axis=1)
    matrix = np.bincount(y * k + predicted, minlength=k * k).reshape(k, k).astype(np.int64)
    matrix.setflags(write=False)
    correct = predicted == y
    recalls = matrix.diagonal()[matrix.sum(axis=1) > 0] / matrix.sum(axis=1)[matrix.sum(axis=1) > 0]
    accuracy, balanced = float(correct.mean()), float(recalls.mean())
    if group_numbers is None:
        support = matrix.sum(axis=1)
        method, plain = "wilson", wilson_interval(int(correct.sum()), n)
        even = _mean_of_shares(recalls, support[support > 0], independent=True)
    else:
        method, plain, even = _grouped_intervals(group_numbers, y, correct, accuracy, balanced)
    true_probability = p[np.arange(n), y]
    return Evaluation(
        classes=tuple(classes),
        n=n,
        groups=None if group_numbers is None else int(group_numbers.max()) + 1,
        loss=float(-np.log(np.clip(true_probability, CLIP, 1.0)).mean()),
        accuracy=accuracy,
        accuracy_interval=plain,
        balanced_accuracy=balanced,
        balanced_accuracy_interval=even,
        interval_method=method,
        top_k=_top_k(p, y, true_probability, top),
        per_class=tuple(_class_scores(matrix, classes)),
        confusion_matrix=matrix,
        expected_calibration_error=_calibration_error(p.max(axis=1), correct),
        mistakes=_mistakes(p, y, predicted, classes, names),
    )


def wilson_interval(correct: float, n: float) -> Interval:
    """The 95 % score interval of the share `correct` / `n`, n > 0; both may be fractions, for an effective number of observations.

    Wilson (1927), "Probable inference, the law of succession, and statistical inference", J. Am. Stat. Assoc. 22, 209-212.
    """
    share = correct / n
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(max(0.0, share * (1 - share)) / n + Z * Z / (4 * n * n))
    # At a share of 0 or 1 one limit is the share itself; rounding must not put it a hair outside.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def accuracy_interval(correct: NDArray[np.bool_], groups: NDArray[np.integer] | None = None) -> Interval:
    """The 95 % interval of the share of True in `correct` (n,), n > 0: Wilson's, or over whole groups as `evaluate` has it."""
    if groups is None:
        return wilson_interval(float(correct.sum()), len(correct))
    numbers = _group_numbers(groups, len(correct))
    return _grouped_intervals(numbers, np.zeros(len(correct), np.int64), correct, float(correct.mean()), float(correct.mean()))[1]


def _mean_of_shares(shares: NDArray[np.float64], numbers: NDArray[Any], *, independent: bool) -> Interval:
    """The interval of the mean of the classes' recalls: Wilson limits of each class, their distances from the recall combined.

    Args:
        shares: float (k,), the recalls.
        numbers: (k,), how many observations each recall is worth.
        independent: Whether one class tells nothing about another: distances then add up in squares, else plainly.
    """
    limits = np.array([wilson_interval(share * n, n) for share, n in zip(shares.tolist(), numbers.tolist(), strict=True)])
    order = 2 if independent else 1
    below, above = (float(np.linalg.norm(limits[:, side] - shares, order)) / len(shares) for side in (0, 1))
    mean = float(shares.mean())
    return max(0.0, mean - below), min(1.0, mean + above)


def effective_count(groups: NDArray[np.integer]) -> float:
    """How many groups of equal size the groups that rows belong to, int (n,), are worth (Kish 1965)."""
    return _effective_count(np.unique(groups, return_counts=True)[1])


def _effective_count(sizes: NDArray[np.int64]) -> float:
    """The same, of groups of these sizes."""
    return float(sizes.sum()) ** 2 / float((sizes.astype(np.float64) ** 2).sum())


def _grouped_intervals(
    groups: NDArray[np.int64], labels: NDArray[np.int64], correct: NDArray[np.bool_], accuracy: float, balanced: float
) -> tuple[str, Interval, Interval]:
    """The method, the interval of the accuracy and that of the balanced accuracy where images come in groups."""
    count = int(groups.max()) + 1
    with_correct = len(np.unique(groups[correct]))
    with_mistake = len(np.unique(groups[~correct]))
    effective = _effective_count(np.bincount(groups))
    if effective < MIN_GROUPS or min(with_correct, with_mistake) < MIN_INFORMATIVE_GROUPS:
        pairs, sizes = np.unique(labels * count + groups, return_counts=True)
        present = np.unique(labels)
        numbers = np.array([_effective_count(sizes[pairs // count == label]) for label in present])
        recalls = np.array([correct[labels == label].mean() for label in present])
        mean = _mean_of_shares(recalls, numbers, independent=len(pairs) == count)
        return "wilson over groups", wilson_interval(accuracy * effective, effective), mean
    plain, even = _resampled(groups, labels, correct, count)
    return "group bootstrap", _percentiles(plain, accuracy), _percentiles(even, balanced)


def _resampled(
    groups: NDArray[np.int64], labels: NDArray[np.int64], correct: NDArray[np.bool_], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Accuracy and balanced accuracy of `RESAMPLES` draws of whole groups, each float64 (RESAMPLES,).

    Rows are first counted up by pair of class and group, of which there are hardly more than groups; a draw then only weighs these
    counts, so its cost knows neither the number of images nor classes times groups.
    """
    pairs, pair_of_row = np.unique(labels * count + groups, return_inverse=True)
    total = np.bincount(pair_of_row).astype(np.float64)
    hits = np.bincount(pair_of_row, weights=correct)
    group_of_pair, class_of_pair = pairs % count, pairs // count
    starts = np.flatnonzero(np.r_[True, class_of_pair[1:] != class_of_pair[:-1]])
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    plain, even = np.empty(RESAMPLES), np.empty(RESAMPLES)
    step = max(1, _CHUNK // max(count, len(pairs)))
    for begin in range(0, RESAMPLES, step):
        draws = min(step, RESAMPLES - begin)
        drawn = rng.integers(0, count, (draws, count)) + np.arange(draws)[:, None] * count
        weights = np.bincount(drawn.ravel(), minlength=draws * count).reshape(draws, count)[:, group_of_pair]
        class_hits = np.add.reduceat(weights * hits, starts, axis=1)
        class_total = np.add.reduceat(weights * total, starts, axis=1)
        occurs = class_total > 0
        plain[begin : begin + draws] = class_hits.sum(axis=1) / class_total.sum(axis=1)
        recall = np.divide(class_hits, class_total, out=np.zeros_like(class_hits), where=occurs)
        even[begin : begin + draws] = recall.sum(axis=1) / occurs.sum(axis=1)
    return plain, even


def _percentiles(values: NDArray[np.float64], estimate: float) -> Interval:
    low, high = np.percentile(values, (2.5, 97.5))
    return min(float(low), estimate), max(float(high), estimate)


def _top_k(
    p: NDArray[np.float64], y: NDArray[np.int64], true_probability: NDArray[np.float64], top: tuple[int, ...]
) -> dict[int, float]:
    """Ties rank by class order, as in the prediction itself, so that top-1 equals the accuracy."""
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
    """Bins are (0, 1/15], (1/15, 2/15], ...; each counts by its share of the images (Guo et al. 2017, equation 3)."""
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
    """The arguments as float64 (n, k) and int64 (n,), or a `DataError` that says which of them is wrong."""
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] != len(classes) or p.shape[1] == 0:
        raise DataError(f"probabilities must have the shape (n, {len(classes)}), one column a class", received=p.shape)
    if len(p) == 0:
        raise DataError("an evaluation needs at least one image", received="none")
    if not np.isfinite(p).all() or p.min() < -1e-6 or p.max() > 1 + 1e-3 or np.abs(p.sum(axis=1) - 1).max() > 1e-2:
        bad = np.flatnonzero(~(np.isfinite(p).all(axis=1) & (np.abs(p.sum(axis=1) - 1) <= 1e-2) & (p.min(axis=1) >= -1e-6)))
        row = int(bad[0]) if len(bad) else int(p.max(axis=1).argmax())
        raise DataError("each row must hold probabilities that sum to 1", received=f"{p[row].tolist()[:8]} in row {row}")
    y = np.asarray(labels)
    if y.shape != (len(p),):
        raise DataError(f"labels must have the shape ({len(p)},), one a row of the probabilities", received=y.shape)
    if not np.issubdtype(y.dtype, np.integer):
        raise DataError("labels must be whole numbers, indices into the classes", received=y.dtype)
    outside = np.flatnonzero((y < 0) | (y >= len(classes)))
    if len(outside):
        raise DataError(f"labels must lie in 0..{len(classes) - 1}", received=f"{y[outside[0]]} in row {outside[0]}")
    return p, y.astype(np.int64)


def _group_numbers(groups: ArrayLike, n: int) -> NDArray[np.int64]:
    """Groups renumbered to 0, 1, ..., without gaps."""
    given = np.asarray(groups)
    if given.shape != (n,):
        raise DataError(f"groups must have the shape ({n},), one a row of the probabilities", received=given.shape)
    return np.unique(given, return_inverse=True)[1].astype(np.int64)


def _require_length(what: str, length: int | None, n: int) -> None:
    if length is not None and length != n:
        raise DataError(f"{what} must be {n}, one a row of the probabilities", received=length)


def _spell(interval: Interval, method: str) -> str:
    return f"{interval[0]:.4f} to {interval[1]:.4f} (95 %, {method})"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
