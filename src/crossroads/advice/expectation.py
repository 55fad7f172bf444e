"""What accuracy a strategy will reach, from what was measured in seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from crossroads.advice.estimate import Estimate, from_log_odds, log_odds
from crossroads.recipe import StrategyName

Kind = Literal["probe", "short training"]


class LearningGain(NamedTuple):
    """What twice the epochs added to a short training at its end, in log odds, with its standard error."""

    value: float
    error: float

    def to_json(self) -> dict[str, float]:
        """Returns plain values, rounded to the meaningful digits."""
        return {"value": round(self.value, 3), "error": round(self.error, 3)}


@dataclass(frozen=True, slots=True)
class Base:
    """A measurement that an expectation starts from.

    Attributes:
        kind: A probe, at the cut where the backbone ends, carried on to all images; for a warm start, which leaves the pretrained
            features behind wherever they were best, and from scratch, which knows none, the best probe at any cut. Or a short
            training of the same strategy.
        accuracy: What it reached.
        halvings: How many times the images seen by the whole training would have to be halved to be those of the short one.
        rise: Of a short training that had enough epochs to tell.
    """

    kind: Kind
    accuracy: Estimate
    halvings: float = 0.0
    rise: LearningGain | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        rise = None if self.rise is None else self.rise.to_json()
        return {"kind": self.kind, "accuracy": self.accuracy.to_json(), "halvings": round(self.halvings, 2), "rise": rise}


@dataclass(frozen=True, slots=True)
class Setting:
    """What an expectation knows of the images beside what was reached with them.

    Attributes:
        images: Number of training images. Errors below a third of an image cannot be measured.
        images_per_class: Effective ones.
        slope: What twice the images add to a probe, in log odds (`advice.size.Curve.slope`): where the learning curve is still
            steep more training adds much too, and where it is flat little.
    """

    images: int
    images_per_class: float
    slope: float


@dataclass(frozen=True, slots=True)
class StrategyOffset:
    """Offset from a probe to a strategy, in log odds: ``slope x (level + by_size x log10(images per class / 30))``.

    Attributes:
        level: At 30 effective images of a class.
        by_size: For ten times as many.
        scatter: Standard deviation of what is left.
    """

    level: float
    by_size: float
    scatter: float


STRATEGY_OFFSETS: dict[StrategyName, StrategyOffset] = {
    "feature-extraction": StrategyOffset(0.39, 0.11, 0.84),
    "early-features": StrategyOffset(0.5, 0.14, 0.72),
    "finetune": StrategyOffset(1.36, 1.72, 1.23),
    "finetune-early": StrategyOffset(1.07, 1.26, 1.3),
    "warm-start": StrategyOffset(1.47, 1.77, 1.23),
    "from-scratch": StrategyOffset(0.25, 0.8, 2.55),
}
"""Fitted by `python -m benchmarks regret`, which prints them, to the runs of benchmarks/figures: 12 tasks with MobileNet and with
SqueezeNet, one seed, by all six strategies. The scatter is that of five sources of images, which know it badly.
docs/explanation/four-cases.md says what of this has seen the figures that judge it."""


@dataclass(frozen=True, slots=True)
class Extrapolation:
    """From a short training to the whole one, in log odds, for each time that the images seen would have to be halved.

    Attributes:
        gain: On average, where twice as much adds 1 (`slope`); of so many halvings, so many times as much.
        scatter: Standard deviation of one; of so many, times their square root.
    """

    gain: float
    scatter: float


EXTRAPOLATIONS: dict[StrategyName, Extrapolation] = {
    "warm-start": Extrapolation(0.82, 0.47),
    "from-scratch": Extrapolation(0.68, 1.02),
}
"""Fitted likewise, by maximum likelihood, since a short training on few images is known badly itself."""

SLOPE_ERROR = 0.3
"""How far the slope of a probe's learning curve lies from what twice the epochs add to a training, as a standard deviation. It was
taken as this once; while rises were being tried the advice's regret on 24 outcomes was 0.09 points more with 0.15 and with 0.6."""

HALVINGS = (0.25, 6.0)
"""Least and most halvings that count: the short trainings of the tasks saw from four fifths to a fortieth of what the whole ones
did, 0.3 to 5.4 halvings."""


class Coefficients(NamedTuple):
    """What leads from measurements to expectations."""

    lifts: Mapping[StrategyName, StrategyOffset] = STRATEGY_OFFSETS
    carried: Mapping[StrategyName, Extrapolation] = EXTRAPOLATIONS


@dataclass(frozen=True, slots=True)
class EpochPenalty:
    """What half the epochs cost, in log odds.

    Attributes:
        loss: On average.
        scatter: Standard deviation.
    """

    loss: float
    scatter: float


EPOCH_PENALTIES: dict[StrategyName, EpochPenalty] = {
    "finetune": EpochPenalty(0.12, 0.37),
    "finetune-early": EpochPenalty(0.03, 0.12),
    "warm-start": EpochPenalty(0.16, 0.19),
    "from-scratch": EpochPenalty(0.16, 0.14),
}
"""Fitted by `python -m benchmarks regret` to the runs of benchmarks/figures with all epochs and with a quarter of them, on six
tasks: a warm start lives on its epochs; where a head is solved before finetuning, few do too."""


def expected(strategy: StrategyName, bases: Sequence[Base], setting: Setting, laws: Coefficients | None = None) -> Estimate:
    """The accuracy that a strategy is expected to reach, as likely to be more as to be less, with a 95 % interval.

    What each base leads to is a figure of its own; they are averaged in log odds, each by what it is sure of.

    Args:
        strategy: Its name.
        bases: What it starts from, one at least.
        setting: What is known of the images.
        laws: Others than the constants of this module.
    """
    least, known = least_error(setting.images), laws or Coefficients()
    parts = [_part(strategy, base, setting, known, least) for base in bases]
    if strategy == "from-scratch" and len(parts) > 1:
        # What another network learned before lifts none that has learned nothing: the probe may only warn.
        trained = min(part.centre for part, base in zip(parts, bases, strict=True) if base.kind != "probe")
        parts = [part for part, base in zip(parts, bases, strict=True) if base.kind != "probe" or part.centre < trained]
    weights = [1 / max(1e-9, ((part.down + part.up) / 2) ** 2) for part in parts]
    centre = sum(weight * part.centre for weight, part in zip(weights, parts, strict=True)) / sum(weights)
    below = 1 / math.sqrt(sum(1 / max(1e-9, part.down**2) for part in parts))
    above = 1 / math.sqrt(sum(1 / max(1e-9, part.up**2) for part in parts))
    return Estimate(*(from_log_odds(value) for value in (centre, centre - below, centre + above)))


class _Part(NamedTuple):
    """What one base leads to, in log odds, and how far down and up its 95 % interval goes."""

    centre: float
    down: float
    up: float


def _part(strategy: StrategyName, base: Base, setting: Setting, laws: Coefficients, least: float) -> _Part:
    middle, low, high = (log_odds(value, least) for value in base.accuracy)
    more, scatter = _moved(strategy, base, setting, laws)
    return _Part(middle + more, math.hypot(middle - low, 1.96 * scatter), math.hypot(high - middle, 1.96 * scatter))


def _moved(strategy: StrategyName, base: Base, setting: Setting, laws: Coefficients) -> tuple[float, float]:
    """How far a strategy goes beyond a base, in log odds, and the standard deviation of that."""
    if base.kind == "probe":
        lift = laws.lifts[strategy]
        return setting.slope * (lift.level + lift.by_size * reach(setting.images_per_class)), lift.scatter
    carried, halvings = laws.carried[strategy], clamped(base.halvings)
    return slope(base, setting) * carried.gain * halvings, carried.scatter * math.sqrt(halvings)


def slope(base: Base, setting: Setting) -> float:
    """What twice as much adds, in log odds: the probe's slope, and what the short training rose by, each by what it is sure of.

    How badly it is known is in the scatter that `Extrapolation` was fitted with.
    """
    if base.rise is None:
        return setting.slope
    by_slope, by_rise = 1 / SLOPE_ERROR**2, 1 / base.rise.error**2
    return max(0.0, (setting.slope * by_slope + base.rise.value * by_rise) / (by_slope + by_rise))


def clamped(halvings: float) -> float:
    """Halvings as far as anything is known of them."""
    return min(max(halvings, HALVINGS[0]), HALVINGS[1])


def with_epochs(strategy: StrategyName, accuracy: Estimate, share: float) -> Estimate:
    """What is expected with fewer epochs, or with more: less, or more, and known less well.

    Args:
        strategy: One that trains.
        accuracy: Expected with the usual ones.
        share: How many there are for each of those.
    """
    halved, halvings = EPOCH_PENALTIES[strategy], -math.log2(share)
    centre, low, high = (log_odds(value, 1e-4) for value in accuracy)
    moved = centre - halved.loss * halvings
    below, above = (math.hypot(side, 1.96 * halved.scatter * halvings) for side in (centre - low, high - centre))
    return Estimate(*(from_log_odds(value) for value in (moved, moved - below, moved + above)))


def least_error(images: int) -> float:
    """Returns a third of an image as a fraction of the training images."""
    return 1 / (3 * max(10, images))


def reach(images_per_class: float) -> float:
    """Decades of effective images of a class above 30, at most one and a half either way: the tasks reach no further."""
    return min(1.5, max(-1.5, math.log10(max(images_per_class, 1.0) / 30)))
