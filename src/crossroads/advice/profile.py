"""Measures the depth profile: the accuracy of a probe at several depths, for pretrained weights and for a random control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crossroads.advice.estimate import Estimate, estimate_accuracy, log_odds
from crossroads.heads.probe import Probe, probe

if TYPE_CHECKING:
    from crossroads.features.arrays import Indexable
    from crossroads.networks.cuts import Cut

RESAMPLES = 300
"""Bootstrap samples for the similarity and its interval."""

SATURATED = 0.98
"""A probe with at least this accuracy counts as perfect, because a handful of images would determine the odds. With 900 images, two
errors at the best depth and eight at the end give odds of 450 and 112 to 1, but this does not show that the accuracy falls."""

CEILING = log_odds(SATURATED, 0.0)

CUTS = 8
"""Number of depths that are probed. Ten depths and every second one of them give profiles of the same shape."""


@dataclass(frozen=True, slots=True)
class Depth:
    """One depth of the profile.

    Attributes:
        cut: Name of the layer.
        depth: Fraction of the depth of the whole backbone, in (0, 1].
        accuracy: Accuracy of the probe on averages of the pretrained features.
        random: Accuracy of the probe on the random control, whose BatchNorm statistics fit the images; None without pretrained
            weights.
    """

    cut: str
    depth: float
    accuracy: Estimate
    random: Estimate | None


@dataclass(frozen=True, slots=True)
class Similarity:
    """The similarity of the images to those of the pretraining, as seen by a network.

    Attributes:
        value: The product of the other three, in [0, 1]. `similarity` explains them.
        peak: Depth with the highest accuracy, as a fraction of the probed depth.
        kept: Odds of a correct prediction at the end, divided by those at the best depth.
        gain: What pretraining adds: 1 minus the odds of the random control divided by those of the pretrained network.
    """

    value: Estimate
    peak: float
    kept: float
    gain: float


@dataclass(frozen=True, slots=True)
class Profile:
    """The depth profile of one backbone.

    Attributes:
        backbone: Its name.
        image_size: Side of the images in pixels.
        images: Number of probed images.
        depths: The probed depths, from the input to the end.
        similarity: The similarity, computed from the depths; None without pretrained weights or without a random control.
        pretrained: Whether the network has pretrained weights.
    """

    backbone: str
    image_size: int
    images: int
    depths: tuple[Depth, ...]
    similarity: Similarity | None
    pretrained: bool = True

    @property
    def best(self) -> Depth:
        """The depth with the highest accuracy. If several depths have it, the deepest one."""
        return max(self.depths, key=lambda depth: (depth.accuracy.value, depth.depth))

    @property
    def random(self) -> float:
        """Accuracy of the random control at its best depth; 0 if there is none."""
        return max((depth.random.value for depth in self.depths if depth.random is not None), default=0.0)

    @property
    def end(self) -> Depth:
        """The deepest depth."""
        return self.depths[-1]


def spread_cuts(cuts: tuple[Cut, ...], count: int = CUTS) -> tuple[Cut, ...]:
    """Returns about `count` of the cuts, evenly spread over the depth, including the first and the last."""
    if len(cuts) <= count:
        return cuts
    wanted = np.linspace(cuts[0].depth, cuts[-1].depth, count)
    chosen = {int(np.argmin([abs(cut.depth - depth) for cut in cuts])) for depth in wanted} | {len(cuts) - 1}
    return tuple(cuts[index] for index in sorted(chosen))


def probe_depths(
    features: Indexable | NDArray[np.float32],
    widths: tuple[int, ...],
    labels: NDArray[np.integer],
    groups: NDArray[np.integer] | None,
) -> list[Probe]:
    """Returns the probe at each cut.

    Args:
        features: Float (n, d), the averages at all cuts side by side.
        widths: Channels of each cut; their sum is d.
        labels: Integers (n,).
        groups: Integers (n,) or None.
    """
    whole = np.asarray(features[:], np.float32)
    edges = np.cumsum((0, *widths))
    return [probe(np.ascontiguousarray(whole[:, low:high]), labels, groups) for low, high in pairwise(edges)]


def similarity(
    accuracies: Sequence[NDArray[np.bool_]],
    random: Sequence[NDArray[np.bool_]],
    depths: Sequence[float],
    groups: NDArray[np.integer] | None,
    seed: int,
) -> Similarity:
    """Computes the similarity from a depth profile: ``peak x kept x gain``.

    The odds of a probe are right to wrong, with half an image added to each. The best depth has the highest odds.

    - ``peak``: the best depth as a fraction of the probed depth. For images similar to those of the pretraining, accuracy rises up
      to the last layer; for others the later layers are too specific.
    - ``kept``: odds at the end divided by odds at the best depth, at most 1.
    - ``gain``: 1 minus the odds of the random control divided by those of the pretrained network, each at its best depth; at least
      0. Random features represent colours and edges. The difference was learned in pretraining.

    Odds are capped at those of `SATURATED`, and of depths with equal odds the deepest counts. If the random control reaches the cap
    too, the similarity is unknown: the interval is all of [0, 1].

    The maximum over depths is optimistically biased. Images, or whole groups, are therefore drawn with replacement. The drawn
    images choose the best depth, and the others score it (the out-of-bag estimate of the bootstrap, Efron 1983). `peak` is the mean
    of the chosen depths. The other two come from the mean log odds. The interval is computed from the draws.

    Args:
        accuracies: bool (n,) for each depth, which images the probe of the pretrained network classified correctly.
        random: The same for the random control.
        depths: The depths, in (0, 1] and ascending.
        groups: Integers (n,) or None.
        seed: Seed of the draws.
    """
    right, control = (np.stack(each).T.astype(np.float64) for each in (accuracies, random))
    units = np.arange(len(right)) if groups is None else np.unique(groups, return_inverse=True)[1]
    resamples = [_resample(right, control, np.asarray(depths), drawn) for drawn in _draws(units, seed)]
    peaks, losses, gains, values = (list(column) for column in zip(*resamples, strict=True))
    peak, loss, gain = float(np.mean(peaks)), min(0.0, float(np.mean(losses))), max(0.0, float(np.mean(gains)))
    value = _value(peak, loss, gain)
    everything = np.ones(len(right))
    saturated = min(float(_log_odds(each, everything).max()) for each in (right, control)) >= CEILING
    low, high = (0.0, 1.0) if saturated else np.percentile(values, (2.5, 97.5))
    interval = Estimate(value, min(value, float(low)), max(value, float(high)))
    return Similarity(interval, peak, float(np.exp(loss)), float(1 - np.exp(-gain)))


def _draws(units: NDArray[np.integer], seed: int) -> Iterator[NDArray[np.float64]]:
    """Yields bootstrap samples of whole units: for each of the n images how often it is drawn."""
    count, rng = int(units.max()) + 1, np.random.default_rng([seed, 13])
    for _ in range(RESAMPLES):
        yield np.bincount(rng.integers(0, count, count), minlength=count)[units].astype(np.float64)


def _resample(
    right: NDArray[np.float64], control: NDArray[np.float64], place: NDArray[np.float64], drawn: NDArray[np.float64]
) -> tuple[float, float, float, float]:
    """Returns peak, loss and gain of one bootstrap sample, and the similarity on the sample itself, which gives the interval."""
    left_out = (drawn == 0).astype(np.float64)
    odds, odds_random = _log_odds(right, drawn), _log_odds(control, drawn)
    best, best_random = odds >= odds.max() - 1e-9, int(np.argmax(odds_random))
    judged, judged_random = _log_odds(right, left_out), _log_odds(control, left_out)
    top, peak = float(judged[best].mean()), float(place[best].max() / place[-1])
    value = _value(peak, float(odds[-1] - odds.max()), float(odds.max() - odds_random.max()))
    return peak, float(judged[-1]) - top, top - float(judged_random[best_random]), value


def _value(peak: float, loss: float, gain: float) -> float:
    """Returns the similarity. Loss and gain are differences of log odds, whose exponentials are ratios of odds."""
    return peak * float(np.exp(min(0.0, loss))) * max(0.0, 1 - float(np.exp(-gain)))


def _log_odds(right: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the log odds of each column of (n, k), with a weight (n,) for each row, at most `CEILING`."""
    hits, total = weights @ right, weights.sum()
    odds: NDArray[np.float64] = np.minimum(np.log((hits + 0.5) / (total - hits + 0.5)), CEILING)
    return odds


def depth_records(
    cuts: tuple[Cut, ...],
    accuracies: list[NDArray[np.bool_]],
    random: list[NDArray[np.bool_]] | None,
    groups: NDArray[np.integer] | None,
) -> tuple[Depth, ...]:
    """Returns one record per cut."""
    controls = [None] * len(cuts) if random is None else [estimate_accuracy(correct, groups) for correct in random]
    return tuple(
        Depth(cut.name, cut.depth, estimate_accuracy(correct, groups), control)
        for cut, correct, control in zip(cuts, accuracies, controls, strict=True)
    )
