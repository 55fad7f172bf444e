"""Measures the size of a data set in independent images, and the learning curve, which predicts the gain from more images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossroads.advice.estimate import Estimate, estimate_accuracy, log_odds
from crossroads.advice.sample import random_part
from crossroads.data.dataset import Dataset
from crossroads.heads.probe import FOLDS, probe

if TYPE_CHECKING:
    from crossroads.features.arrays import Indexable

PARTS = ((1 / 8, 3), (1 / 4, 2), (1 / 2, 2), (1.0, 1))
"""Fractions of the sample that the learning curve is measured on, and how often each is drawn. Results of small parts vary more."""

TRAINED = 1 - 1 / FOLDS
"""Fraction of the images that a probe is trained on in each fold."""

RESAMPLES = 400
FLOORS = tuple(np.linspace(0, 0.95, 20).tolist())
"""Errors that more images do not remove, as fractions of the smallest measured one. A probe has few features: on CIFAR-10's subset
the errors .458 .358 .299 .264 from 250 to 2,000 images continue to .221 at 9,000, where a law without a floor predicts .171."""

STEEPEST = 1.0
"""Largest exponent of the power law. Larger ones result from few, noisy points and predict too much gain."""

SLOPES, USUAL_SLOPE = (0.05, 1.0), 0.85
"""Limits of the slope, for the same reason, and the slope that is assumed if it is unknown.

The assumed slope is the median of the benchmark's tasks. Their slopes range from 0.1 for ants and bees and 0.2 for CIFAR-10 with
100 images per class to 1.3 for signs with 10 images per class.
"""


@dataclass(frozen=True, slots=True)
class Size:
    """The number of training images.

    Attributes:
        images: All images.
        classes: Classes that occur.
        smallest_class: Images of the smallest class.
        largest_class: Images of the largest class.
        groups: Number of groups, such as tracks; None without groups.
        repeated: Fraction of the images that are copies of others, as measured on the sample.
        group_correlation: Similarity of images in one group. It is 0 if they are no more similar than any two images of the class,
            and 1 if they are equal. None without groups, or if the sample does not show it. A group then counts as one image.
        effective: The equivalent number of independent images.
    """

    images: int
    classes: int
    smallest_class: int
    largest_class: int
    groups: int | None
    repeated: float
    group_correlation: float | None
    effective: float

    @property
    def effective_per_class(self) -> float:
        """Effective images of an average class."""
        return self.effective / max(1, self.classes)


class CurvePoint(NamedTuple):
    """The accuracy of a probe that learned from a number of images."""

    images: int
    accuracy: Estimate


@dataclass(frozen=True, slots=True)
class Curve:
    """The learning curve of a probe: ``error = floor + scale x images ** -exponent``.

    Attributes:
        points: One for each part of the sample that was measured.
        floor: Error that more images do not remove.
        scale: Factor of the law.
        exponent: Exponent of the law, in [0, 1].
        slope: What doubling the images added over the parts of the sample, in log odds.
        here: Accuracy that the law predicts with all training images.
        twice: Accuracy that it predicts with twice as many.
    """

    points: tuple[CurvePoint, ...]
    floor: float
    scale: float
    exponent: float
    slope: float
    here: Estimate
    twice: Estimate

    @property
    def gain(self) -> float:
        """Accuracy that twice the images would add."""
        return self.twice.value - self.here.value


def measure_size(
    dataset: Dataset,
    digests: NDArray[np.uint8] | None,
    features: NDArray[np.float32],
    labels: NDArray[np.integer],
    groups: NDArray[np.integer] | None,
    refused: int = 0,
) -> Size:
    """Returns the size of the training images.

    A group of m images with the correlation r counts as ``m / (1 + (m - 1) r)`` images: the design effect of cluster sampling
    (Kish 1965, section 5.4). Thirty frames with r = 0.5 count as 1.9 images.

    Args:
        dataset: All training images.
        digests: uint8 (s, 16), the digests of a sample; None if no image was read.
        features: Float (s, d), the features of the sample.
        labels: Integers (s,), the labels of the sample.
        groups: Integers (s,), the groups of the sample, or None.
        refused: Number of images of the sample that could not be read.
    """
    counts = dataset.counts()
    counts = counts[counts > 0]
    repeated = 0.0 if digests is None else _repeated(digests, len(dataset) - refused)
    effective, correlation, group_count = len(dataset) * (1 - repeated), None, None
    if dataset.groups is not None and groups is not None:
        group_count = len(np.unique(dataset.groups))
        correlation = intraclass_correlation(features, labels, groups)
        effective = min(effective, effective_images(dataset.groups, correlation))
    return Size(len(dataset), len(counts), int(counts.min()), int(counts.max()), group_count, repeated, correlation, effective)


def effective_images(groups: NDArray[np.integer], correlation: float | None) -> float:
    """Returns the number of independent images in groups (n,). If the correlation is unknown, each group counts as one image."""
    sizes = np.unique(groups, return_counts=True)[1]
    return float((sizes / (1 + (sizes - 1) * (1.0 if correlation is None else correlation))).sum())


def _repeated(digests: NDArray[np.uint8], images: int) -> float:
    """Returns the fraction of images that are copies of others, from the digests of a sample."""
    counts = np.unique(digests, axis=0, return_counts=True)[1]
    n = len(digests)
    if n >= images:
        return 1 - len(counts) / n
    # A sample of s among n images contains both images of a pair with a probability of about (s / n)^2. With each of 50,000 images
    # there twice, a sample of 2,000 has some 40 pairs of the 25,000, which are scaled up and divided by the images.
    pairs = float((counts * (counts - 1)).sum() / 2) * (images * (images - 1)) / max(1, n * (n - 1))
    return 1 - 1 / (1 + 2 * pairs / images)  # as if every image occurred equally often


def intraclass_correlation(features: NDArray[np.float32], labels: NDArray[np.integer], groups: NDArray[np.integer]) -> float | None:
    """Returns the intraclass correlation of features in groups within classes, in [0, 1] (one-way ANOVA, Fisher 1925).

    Groups with one image in the sample do not count. None if hardly any group has two, or if the features do not vary.
    """
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    several = sizes[codes] > 1
    if several.sum() < 8 or features.shape[1] == 0:
        return None
    x = np.asarray(features[several], np.float64)
    inside = x - _means(x, codes[several])
    whole = x - _means(x, np.asarray(labels)[several])
    n, g, k = len(x), len(np.unique(codes[several])), len(np.unique(labels[several]))
    within = (inside**2).sum(axis=0) / max(1, n - g)
    total = (whole**2).sum(axis=0) / max(1, n - k)
    useful = total > 1e-12 * max(total.max(), 1e-30)
    if not useful.any():
        return None
    return float(np.clip(1 - np.mean(within[useful] / total[useful]), 0.0, 1.0))


def learning_curve(
    features: Indexable | NDArray[np.float32],
    labels: NDArray[np.integer],
    groups: NDArray[np.integer] | None,
    times: float,
    seed: int,
    whole: NDArray[np.bool_] | None = None,
) -> Curve:
    """Returns the learning curve of a probe on features (n, d), extrapolated to all training images and to twice as many.

    Power laws with a floor describe learning curves well (Hestness et al. 2017, https://arxiv.org/abs/1712.00409).

    Args:
        features: The features of the sample.
        labels: Integers (n,).
        groups: Integers (n,) or None.
        times: All effective training images, divided by those of the sample; at least 1.
        seed: Seed for drawing the parts.
        whole: Which images the probe on the whole sample classifies correctly, bool (n,), if it was run already.
    """
    rng = np.random.default_rng([seed, 12])
    x = np.asarray(features[:], np.float32)
    points: list[CurvePoint] = []
    for fraction, draws in PARTS:
        if fraction == 1.0 and whole is not None:
            points.append(CurvePoint(round(TRAINED * len(labels)), estimate_accuracy(whole, groups)))
            continue
        parts = [random_part(labels, groups, fraction, rng) for _ in range(draws)]
        images = round(float(np.mean([TRAINED * len(part) for part in parts])))
        if not points or images > points[-1].images:
            points.append(CurvePoint(images, _accuracy_of(parts, x, labels, groups)))
    return fit_curve(tuple(points), len(labels) * times, rng)


def _accuracy_of(
    parts: list[NDArray[np.int64]], x: NDArray[np.float32], labels: NDArray[np.integer], groups: NDArray[np.integer] | None
) -> Estimate:
    """Returns the accuracy of a probe on all parts together. An image that is in several parts counts as one unit."""
    correct = [probe(x[part], labels[part], None if groups is None else groups[part]).correct for part in parts]
    units = [part if groups is None else groups[part] for part in parts]
    return estimate_accuracy(np.concatenate(correct), np.concatenate(units))


def slope_of(points: Sequence[CurvePoint]) -> float:
    """Returns what doubling the images adds to a probe, in log odds: the least-squares line through the points, within `SLOPES`."""
    if len({images for images, _ in points}) < 2:
        return USUAL_SLOPE
    # Errors below a third of an image cannot be measured.
    odds = [log_odds(accuracy.value, 1 / (3 * images)) for images, accuracy in points]
    doublings = np.log2([images for images, _ in points])
    doublings = doublings - doublings.mean()
    return min(SLOPES[1], max(SLOPES[0], float(doublings @ odds / (doublings @ doublings))))


def fit_curve(points: tuple[CurvePoint, ...], images: float, rng: np.random.Generator) -> Curve:
    """Fits the law to points and extrapolates it to `images` and to twice as many.

    Each resample moves the points within their intervals and fits the law again. The result is the median of the resamples. A
    quarter of the extrapolated difference widens the interval, because the law itself may be wrong.
    """
    sizes = np.array([float(count) for count, _ in points])
    errors = np.array([1 - accuracy.value for _, accuracy in points])
    deviations = np.array([max((accuracy.high - accuracy.low) / 3.92, 1e-4) for _, accuracy in points])
    drawn = errors + rng.normal(size=(RESAMPLES, len(points))) * deviations
    floors, scales, exponents = _fit_laws(sizes, drawn, deviations)

    def at(count: float) -> Estimate:
        low, middle, high = np.percentile(1 - floors - scales * count**-exponents, (2.5, 50, 97.5))
        beyond = abs(middle - points[-1].accuracy.value) / 4
        return Estimate(*(float(np.clip(value, 0, 1)) for value in (middle, low - beyond, high + beyond)))

    floor, scale, exponent = (float(np.median(column)) for column in (floors, scales, exponents))
    return Curve(points, floor, scale, exponent, slope_of(points), at(images), at(2 * images))


def _fit_laws(
    sizes: NDArray[np.float64], errors: NDArray[np.float64], deviations: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Returns floor, scale and exponent for each row of errors (m, p).

    Above a fixed floor the law is a line in logarithms, ``log(error - floor) = log(scale) - exponent x log(images)``, which
    weighted least squares fits. Of all `FLOORS` the one with the smallest residuals is kept.
    """
    least = 0.25 / sizes  # a quarter of an image: no sample shows an error of 0
    clipped = np.clip(errors, least, 1.0)
    best = np.full(len(errors), np.inf)
    laws = np.zeros((3, len(errors)))
    x = -np.log(sizes)
    for fraction in FLOORS if len(sizes) > 3 else FLOORS[:1]:
        floor = fraction * clipped.min(axis=1)
        rest = np.maximum(clipped - floor[:, None], least)
        weights = (rest / deviations) ** 2  # inverse variances of log(rest)
        total = weights.sum(axis=1)
        y = np.log(rest)
        mean_x, mean_y = (weights @ x) / total, (weights * y).sum(axis=1) / total
        slopes = (weights * (x - mean_x[:, None]) * (y - mean_y[:, None])).sum(axis=1)
        spread = (weights * (x - mean_x[:, None]) ** 2).sum(axis=1)
        exponents = np.clip(slopes / np.maximum(spread, 1e-12), 0.0, STEEPEST)
        scales = np.exp(mean_y - exponents * mean_x)
        fit = floor[:, None] + scales[:, None] * np.exp(exponents[:, None] * x)
        misfit = (((fit - clipped) / deviations) ** 2).sum(axis=1)
        better = misfit < best - 1e-9
        best[better] = misfit[better]
        laws[:, better] = np.stack([floor, scales, exponents])[:, better]
    return laws[0], laws[1], laws[2]


def _means(x: NDArray[np.float64], codes: NDArray[np.integer]) -> NDArray[np.float64]:
    """Returns for each row of (n, d) the mean of the rows with the same code."""
    _, dense, counts = np.unique(codes, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), x.shape[1]))
    np.add.at(sums, dense, x)
    means: NDArray[np.float64] = (sums / counts[:, None])[dense]
    return means
