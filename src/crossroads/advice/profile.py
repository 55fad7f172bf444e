"""The depth profile: the accuracy of a cheap probe at several depths, with pretrained weights and for a random control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crossroads.advice.estimate import Estimate, estimate_accuracy, log_odds
from crossroads.heads.probe import probe

if TYPE_CHECKING:
    from crossroads.features.arrays import Indexable
    from crossroads.networks.cuts import Cut

RESAMPLES = 300

SATURATED = 0.98
"""Accuracy from which on a probe is held to tell everything: above it a handful of images would decide over the odds. Of 900 images
two wrong at the best depth and eight at the end are odds of 450 and 112 to 1, and no sign that the end has lost anything."""

CEILING = log_odds(SATURATED, 0.0)

CUTS = 8
"""Depths that are probed: the design's table has ten, and shows the same shape with every second one."""


@dataclass(frozen=True, slots=True)
class Depth:
    """One depth.

    Attributes:
        cut: Name of the layer.
        depth: Fraction of the depth of the whole backbone, in (0, 1].
        accuracy: Of the probe on averages of the pretrained features.
        random: Of the same probe on those of random weights whose BatchNorm statistics fit the images; None for a network without
            pretrained weights, which is its own random control.
    """

    cut: str
    depth: float
    accuracy: Estimate
    random: Estimate | None


@dataclass(frozen=True, slots=True)
class Similarity:
    """How much the images are to a network like those it was trained on.

    Attributes:
        value: In [0, 1]: the product of the other three; see `similarity`.
        peak: Depth with the highest accuracy, as a fraction of the probed depth.
        kept: What of the odds of being right there is left at the end.
        gain: What pretraining adds to the odds of a random network, 1 less the one over the other.
    """

    value: Estimate
    peak: float
    kept: float
    gain: float

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "value": self.value.to_json(),
            "peak": round(self.peak, 4),
            "kept": round(self.kept, 4),
            "gain": round(self.gain, 4),
        }


@dataclass(frozen=True, slots=True)
class Profile:
    """What one backbone sees in the images, depth by depth.

    Attributes:
        backbone: Its name.
        image_size: Side of the images in pixels.
        images: How many were probed.
        depths: In order.
        similarity: Drawn from them; None for a network without pretrained weights.
    """

    backbone: str
    image_size: int
    images: int
    depths: tuple[Depth, ...]
    similarity: Similarity | None

    @property
    def best(self) -> Depth:
        """The depth with the highest accuracy, the deeper of two."""
        return max(self.depths, key=lambda depth: (depth.accuracy.value, depth.depth))

    @property
    def random(self) -> float:
        """Accuracy of the random control at its best depth; 0 without one."""
        return max((depth.random.value for depth in self.depths if depth.random is not None), default=0.0)

    @property
    def end(self) -> Depth:
        """The deepest."""
        return self.depths[-1]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        rows = [
            {
                "cut": row.cut,
                "depth": round(row.depth, 4),
                "accuracy": row.accuracy.to_json(),
                "random": None if row.random is None else row.random.to_json(),
            }
            for row in self.depths
        ]
        return {
            "backbone": self.backbone,
            "image_size": self.image_size,
            "images": self.images,
            "depths": rows,
            "similarity": None if self.similarity is None else self.similarity.to_json(),
        }


def spread(known: tuple[Cut, ...], count: int = CUTS) -> tuple[Cut, ...]:
    """About `count` of the cuts, evenly over the depth, the first and the last among them."""
    if len(known) <= count:
        return known
    wanted = np.linspace(known[0].depth, known[-1].depth, count)
    chosen = {int(np.argmin([abs(cut.depth - depth) for cut in known])) for depth in wanted} | {len(known) - 1}
    return tuple(known[index] for index in sorted(chosen))


def probed(
    features: Indexable | NDArray[np.float32],
    widths: tuple[int, ...],
    labels: NDArray[np.integer],
    groups: NDArray[np.integer] | None,
) -> list[NDArray[np.bool_]]:
    """Whether each image was right when it was left out, bool (n,), for each of the cuts whose averages stand side by side.

    Args:
        features: Float (n, d), the averages at all cuts in their order.
        widths: Channels of each cut; their sum is d.
        labels: Integers (n,).
        groups: Integers (n,) or None.
    """
    whole = np.asarray(features[:], np.float32)
    edges = np.cumsum((0, *widths))
    return [probe(np.ascontiguousarray(whole[:, low:high]), labels, groups).correct for low, high in pairwise(edges)]


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

    The maximum over depths is optimistically biased. Therefore images, or whole groups, are drawn with replacement: each draw
    chooses the best depth, and the images that it left out score it (the out-of-bag estimate of the bootstrap, Efron 1983). `peak`
    is the mean of the chosen depths. The other two come from the mean log odds. The interval is that of the draws.

    Args:
        accuracies: bool (n,) for each depth, what the pretrained network's probe got right.
        random: The same of its random control.
        depths: In (0, 1], in order.
        groups: Integers (n,) or None.
        seed: Decides the draws.
    """
    right, control, place = np.stack(accuracies).T.astype(np.float64), np.stack(random).T.astype(np.float64), np.asarray(depths)
    units = np.arange(len(right)) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(units.max()) + 1
    rng = np.random.default_rng([seed, 13])
    peaks, kept, gains, values = [], [], [], []
    for _ in range(RESAMPLES):
        drawn = np.bincount(rng.integers(0, count, count), minlength=count)[units].astype(np.float64)
        judge = (drawn == 0).astype(np.float64)
        odds, odds_random = _log_odds(right, drawn), _log_odds(control, drawn)
        best, best_random = odds >= odds.max() - 1e-9, int(np.argmax(odds_random))
        peaks.append(float(place[best].max() / place[-1]))
        judged, judged_random = _log_odds(right, judge), _log_odds(control, judge)
        top = float(judged[best].mean())
        kept.append(float(judged[-1]) - top)
        gains.append(top - float(judged_random[best_random]))
        values.append(_value(peaks[-1], float(odds[-1] - odds.max()), float(odds.max() - odds_random.max())))
    peak, loss, gain = float(np.mean(peaks)), min(0.0, float(np.mean(kept))), max(0.0, float(np.mean(gains)))
    value = _value(peak, loss, gain)
    everything = np.ones(len(right))
    ceiling = min(float(_log_odds(side, everything).max()) for side in (right, control)) >= CEILING
    low, high = (0.0, 1.0) if ceiling else np.percentile(values, (2.5, 97.5))
    found = Estimate(value, min(value, float(low)), max(value, float(high)))
    return Similarity(found, peak, float(np.exp(loss)), float(1 - np.exp(-gain)))


def _value(peak: float, kept: float, gain: float) -> float:
    return peak * float(np.exp(min(0.0, kept))) * max(0.0, 1 - float(np.exp(-gain)))


def _log_odds(right: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log odds of each column of (n, k), rows counted so often, at most `CEILING`."""
    hits, total = weights @ right, weights.sum()
    odds: NDArray[np.float64] = np.minimum(np.log((hits + 0.5) / (total - hits + 0.5)), CEILING)
    return odds


def depth_rows(
    chosen: tuple[Cut, ...],
    accuracies: list[NDArray[np.bool_]],
    random: list[NDArray[np.bool_]] | None,
    groups: NDArray[np.integer] | None,
) -> tuple[Depth, ...]:
    """The depths as records."""
    controls = [None] * len(chosen) if random is None else [estimate_accuracy(row, groups) for row in random]
    return tuple(
        Depth(cut.name, cut.depth, estimate_accuracy(row, groups), control)
        for cut, row, control in zip(chosen, accuracies, controls, strict=True)
    )
