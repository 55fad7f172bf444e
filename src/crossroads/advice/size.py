"""How many images there are, how many they are worth, and what more of them would bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crossroads.advice.estimate import Estimate, estimate_accuracy, log_odds
from crossroads.advice.sample import part
from crossroads.data.dataset import Dataset
from crossroads.heads.probe import FOLDS, probe

if TYPE_CHECKING:
    from crossroads.features.arrays import Indexable

SHARES = ((1 / 8, 3), (1 / 4, 2), (1 / 2, 2), (1.0, 1))
"""Parts of the sample that the learning curve is measured on, and how often each is drawn: small parts scatter more."""

TRAINED = 1 - 1 / FOLDS
"""Fraction of its images that a probe learns from."""

RESAMPLES = 400
FLOORS = tuple(np.linspace(0, 0.95, 20).tolist())
"""Errors that no number of images removes, as fractions of the least one measured. A probe has few features: on CIFAR-10's
subset errors of .458 .358 .299 .264 from 250 to 2,000 images go on to .221 at 9,000, where a law without a floor says .171."""

STEEPEST = 1.0
"""Largest exponent of the power law: steeper ones come of few, scattered points, and promise too much."""

SLOPES, USUAL_SLOPE = (0.05, 1.0), 0.85
"""Least and largest slope that counts, for the same reason, and the one taken where it is not known, the median of the tasks of the
benchmark. These run from 0.1 for ants and bees and 0.2 for CIFAR-10 with 100 of a class to 1.3 for signs with 10 of a class."""


@dataclass(frozen=True, slots=True)
class Size:
    """How many training images there are.

    Attributes:
        images: All of them.
        classes: That occur.
        smallest: Images of the smallest class.
        largest: Of the largest.
        groups: Groups, such as tracks; None where each image stands alone.
        repeated: Fraction of the images that repeat an earlier one, as measured on the sample.
        within: How alike images of one group are: 0 no more than any two of the class, 1 the same; None without groups, or where
            the sample cannot tell: they then count as the same.
        effective: How many independent images they are worth.
    """

    images: int
    classes: int
    smallest: int
    largest: int
    groups: int | None
    repeated: float
    within: float | None
    effective: float

    @property
    def effective_per_class(self) -> float:
        """Independent images of an average class."""
        return self.effective / max(1, self.classes)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "images": self.images,
            "classes": self.classes,
            "smallest_class": self.smallest,
            "largest_class": self.largest,
            "groups": self.groups,
            "repeated": round(self.repeated, 4),
            "alike_within_groups": None if self.within is None else round(self.within, 4),
            "effective": round(self.effective, 1),
        }


@dataclass(frozen=True, slots=True)
class Curve:
    """The learning curve of a probe: ``error = floor + scale x images ** -exponent``.

    Attributes:
        points: Images and accuracy of each part of the sample.
        floor: Of the law: errors that more images do not remove.
        scale: Of the law.
        exponent: Of the law, in [0, 1].
        here: What the law says for all training images.
        twice: And for twice as many.
    """

    points: tuple[tuple[int, Estimate], ...]
    floor: float
    scale: float
    exponent: float
    here: Estimate
    twice: Estimate

    @property
    def gain(self) -> float:
        """Accuracy that twice the images would add."""
        return self.twice.value - self.here.value

    @property
    def slope(self) -> float:
        """What twice the images added over the parts of the sample, in log odds."""
        return slope_of(self.points)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "points": [{"images": images, "accuracy": found.to_json()} for images, found in self.points],
            "floor": round(self.floor, 4),
            "scale": round(self.scale, 5),
            "exponent": round(self.exponent, 4),
            "here": self.here.to_json(),
            "twice": self.twice.to_json(),
            "slope": round(self.slope, 4),
        }


def size_of(
    dataset: Dataset,
    digests: NDArray[np.uint8] | None,
    features: NDArray[np.float32],
    labels: NDArray[np.integer],
    groups: NDArray[np.integer] | None,
    refused: int = 0,
) -> Size:
    """The size of training images.

    A group of m images whose likeness is r counts for ``m / (1 + (m - 1) r)`` images: the design effect of sampling by clusters
    (Kish 1965, section 5.4).

    Args:
        dataset: All training images.
        digests: uint8 (s, 16), of a sample; None where nothing of it was read. A sample of s among n images shows a pair of equal
            ones with a chance of about (s / n)^2, by which the pairs are counted up.
        features: Float (s, d), of the sample.
        labels: Integers (s,), likewise.
        groups: Integers (s,), likewise, or None.
        refused: Rows of the sample that could not be read.
    """
    counts = dataset.counts()
    counts = counts[counts > 0]
    repeated = 0.0 if digests is None else _repeated(digests, len(dataset) - refused)
    effective, within, count = len(dataset) * (1 - repeated), None, None
    if dataset.groups is not None and groups is not None:
        count = len(np.unique(dataset.groups))
        within = likeness(features, labels, groups)
        effective = min(effective, effective_images(dataset.groups, within))
    return Size(len(dataset), len(counts), int(counts.min()), int(counts.max()), count, repeated, within, effective)


def effective_images(groups: NDArray[np.integer] | None, within: float | None, images: int = 0) -> float:
    """How many independent images groups (n,) are worth whose images are alike by `within`; without groups as many as there are."""
    if groups is None:
        return float(images)
    sizes = np.unique(groups, return_counts=True)[1]
    return float((sizes / (1 + (sizes - 1) * (1.0 if within is None else within))).sum())


def _repeated(digests: NDArray[np.uint8], images: int) -> float:
    counts = np.unique(digests, axis=0, return_counts=True)[1]
    n = len(digests)
    if n >= images:
        return 1 - len(counts) / n
    pairs = float((counts * (counts - 1)).sum() / 2) * (images * (images - 1)) / max(1, n * (n - 1))
    return 1 - 1 / (1 + 2 * pairs / images)  # as if every image came equally often


def likeness(features: NDArray[np.float32], labels: NDArray[np.integer], groups: NDArray[np.integer]) -> float | None:
    """The intraclass correlation of features in groups inside classes, in [0, 1] (one-way analysis of variance, Fisher 1925).

    Groups of which the sample holds one image tell nothing of it; None where hardly any has two, or features have no spread.
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


def curve_of(
    features: Indexable | NDArray[np.float32],
    labels: NDArray[np.integer],
    groups: NDArray[np.integer] | None,
    times: float,
    seed: int,
    whole: NDArray[np.bool_] | None = None,
) -> Curve:
    """The learning curve of a probe on features (n, d), carried on to all training images and to twice as many.

    Power laws with a floor describe learning curves well (Hestness et al. 2017, https://arxiv.org/abs/1712.00409). The limits come
    from drawing the points anew within theirs; a quarter of the way that is carried on widens them, for what the law may miss.

    Args:
        features: Of the sample.
        labels: Integers (n,).
        groups: Integers (n,) or None.
        times: How many of these samples all training images are worth, at least 1.
        seed: Decides the parts.
        whole: What the probe on the whole sample got right, bool (n,), where that is known already.
    """
    rng = np.random.default_rng([seed, 12])
    x = np.asarray(features[:], np.float32)
    points: list[tuple[int, Estimate]] = []
    for portion, draws in SHARES:
        if portion == 1.0 and whole is not None:
            points.append((round(TRAINED * len(labels)), estimate_accuracy(whole, groups)))
            continue
        found, sizes, chosen_groups = [], [], []
        for _ in range(draws):
            rows = part(labels, groups, portion, rng)
            found.append(probe(x[rows], labels[rows], None if groups is None else groups[rows]).correct)
            sizes.append(TRAINED * len(rows))
            chosen_groups.append(rows if groups is None else groups[rows])
        if points and round(float(np.mean(sizes))) <= points[-1][0]:
            continue
        estimate = estimate_accuracy(np.concatenate(found), np.concatenate(chosen_groups))
        points.append((round(float(np.mean(sizes))), estimate))
    return fitted(tuple(points), len(labels) * times, rng)


def slope_of(points: Sequence[tuple[int, Estimate]]) -> float:
    """What twice the images add to a probe, in log odds: the least squares line through the points, within `SLOPES`."""
    if len({count for count, _ in points}) < 2:
        return USUAL_SLOPE
    odds = [
        log_odds(found.value, 1 / (3 * count)) for count, found in points
    ]  # errors below a third of an image cannot be measured
    doublings = np.log2([count for count, _ in points])
    doublings = doublings - doublings.mean()
    return min(SLOPES[1], max(SLOPES[0], float(doublings @ odds / (doublings @ doublings))))


def fitted(points: tuple[tuple[int, Estimate], ...], images: float, rng: np.random.Generator) -> Curve:
    """The law through points, carried on to `images` and to twice as many.

    Each draw moves the points within their limits and fits the law anew; the figure is the median of the draws.
    """
    sizes = np.array([float(count) for count, _ in points])
    errors = np.array([1 - found.value for _, found in points])
    deviations = np.array([max((found.high - found.low) / 3.92, 1e-4) for _, found in points])
    drawn = errors + rng.normal(size=(RESAMPLES, len(points))) * deviations
    floors, scales, exponents = _laws(sizes, drawn, deviations)

    def at(count: float) -> Estimate:
        low, middle, high = np.percentile(1 - floors - scales * count**-exponents, (2.5, 50, 97.5))
        beyond = abs(middle - points[-1][1].value) / 4
        return Estimate(*(float(np.clip(value, 0, 1)) for value in (middle, low - beyond, high + beyond)))

    floor, scale, exponent = (float(np.median(column)) for column in (floors, scales, exponents))
    return Curve(points, floor, scale, exponent, at(images), at(2 * images))


def _laws(
    sizes: NDArray[np.float64], errors: NDArray[np.float64], deviations: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Floor, scale and exponent for each row of errors (m, p): least squares in logarithms above each of `FLOORS`, the best."""
    least = 0.25 / sizes  # a quarter of an image: no sample shows an error of nothing
    clipped = np.clip(errors, least, 1.0)
    best = np.full(len(errors), np.inf)
    found = np.zeros((3, len(errors)))
    x = -np.log(sizes)
    for lowest in FLOORS if len(sizes) > 3 else FLOORS[:1]:
        floor = lowest * clipped.min(axis=1)
        rest = np.maximum(clipped - floor[:, None], least)
        weights = (rest / deviations) ** 2
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
        found[:, better] = np.stack([floor, scales, exponents])[:, better]
    return found[0], found[1], found[2]


def _means(x: NDArray[np.float64], codes: NDArray[np.integer]) -> NDArray[np.float64]:
    """The mean of each row's own class or group, (n, d)."""
    _, dense, counts = np.unique(codes, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), x.shape[1]))
    np.add.at(sums, dense, x)
    result: NDArray[np.float64] = (sums / counts[:, None])[dense]
    return result
