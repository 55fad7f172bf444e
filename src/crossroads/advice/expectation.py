"""What accuracy a strategy will reach, from what was measured in seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from crossroads.advice.estimate import Estimate, from_log_odds, log_odds
from crossroads.recipe import StrategyName

Kind = Literal["probe", "short training"]
From = tuple[StrategyName, Kind]
"""Whose lift, and from what."""


@dataclass(frozen=True, slots=True)
class Base:
    """A measurement that an expectation starts from.

    Attributes:
        kind: A probe, at the cut where the backbone ends, carried on to all images; for a warm start, which leaves the pretrained
            features behind wherever they were best, the best probe at any cut. Or a short training of the same strategy.
        accuracy: What it reached.
        halvings: How many times the images seen by the whole training would have to be halved to be those of the short one.
    """

    kind: Kind
    accuracy: Estimate
    halvings: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"kind": self.kind, "accuracy": self.accuracy.to_json(), "halvings": round(self.halvings, 2)}


@dataclass(frozen=True, slots=True)
class Lift:
    """From a base to what a strategy reaches, in log odds: ``level + by_size x log10(images a class / 30)``.

    Attributes:
        level: At 30 effective images of a class.
        by_size: For ten times as many.
        scatter: Standard deviation of what is left.
    """

    level: float
    by_size: float
    scatter: float


LIFTS: dict[From, Lift] = {
    ("feature-extraction", "probe"): Lift(0.28, -0.09, 0.95),
    ("early-features", "probe"): Lift(0.39, -0.12, 0.77),
    ("finetune", "probe"): Lift(0.78, 0.54, 1.55),
    ("finetune-early", "probe"): Lift(0.67, 0.44, 1.47),
    ("warm-start", "probe"): Lift(0.69, 0.7, 1.89),
    ("warm-start", "short training"): Lift(0.0, 0.0, 1.0),
    ("from-scratch", "short training"): Lift(1.51, 0.32, 2.38),
}
"""Fitted by `python -m benchmarks regret`, which prints them, to the runs of benchmarks/figures: 12 tasks with MobileNet, 8 of them
with SqueezeNet, one seed, nearly all by all six strategies. The scatter is that of six sources of images, which know it badly."""


@dataclass(frozen=True, slots=True)
class Halved:
    """What half the epochs cost, in log odds.

    Attributes:
        loss: On average.
        scatter: Standard deviation.
    """

    loss: float
    scatter: float


HALVED: dict[StrategyName, Halved] = {
    "finetune": Halved(0.13, 0.38),
    "finetune-early": Halved(0.04, 0.15),
    "warm-start": Halved(0.41, 0.38),
    "from-scratch": Halved(0.17, 0.17),
}
"""Fitted by `python -m benchmarks regret` to the runs of benchmarks/figures with all epochs and with a quarter of them, on six
tasks: a warm start lives on its epochs; where a head is solved before finetuning, few do too."""


MOST_HALVINGS = 6.0
"""Halvings that anything is known of: the short trainings of the tasks saw down to a sixtieth of what the whole ones did."""


def expected(
    strategy: StrategyName, bases: Sequence[Base], images_of_a_class: float, images: int, lifts: Mapping[From, Lift] | None = None
) -> Estimate:
    """The accuracy that a strategy is expected to reach, with a 95 % interval.

    Each base with its lift is a figure of its own; they are averaged in log odds, each by what it is sure of.

    Args:
        strategy: Its name.
        bases: What it starts from, one at least.
        images_of_a_class: Effective images of an average class.
        images: Training images; of errors fewer than a third of one nothing can be told.
        lifts: Others than `LIFTS`.
    """
    least = least_error(images)
    known = LIFTS if lifts is None else lifts
    centre = precision = below = above = 0.0
    for base in bases:
        lift = known[strategy, base.kind]
        middle, low, high = (log_odds(value, least) for value in base.accuracy)
        here = middle + lift.level + lift.by_size * reach(images_of_a_class) + gained(strategy, base)
        down, up = math.hypot(middle - low, 1.96 * lift.scatter), math.hypot(high - middle, 1.96 * lift.scatter)
        weight = 1 / max(1e-9, ((down + up) / 2) ** 2)
        centre, precision = centre + weight * here, precision + weight
        below, above = below + 1 / max(1e-9, down**2), above + 1 / max(1e-9, up**2)
    centre, below, above = centre / precision, 1 / math.sqrt(below), 1 / math.sqrt(above)
    # The mean of a share whose log odds are normal (MacKay 1992, "The evidence framework applied to classification networks").
    # Where little is known it lies nearer to a half, so that what is merely possible is not put before what is known.
    variance = ((below + above) / 2 / 1.96) ** 2
    mean = from_log_odds(centre / math.sqrt(1 + math.pi * variance / 8))
    low, high = from_log_odds(centre - below), from_log_odds(centre + above)
    return Estimate(min(max(mean, low), high), low, high)


def gained(strategy: StrategyName, base: Base) -> float:
    """What a whole training has over a short one by its passes alone, in log odds; no more than was seen on any task."""
    return HALVED[strategy].loss * min(base.halvings, MOST_HALVINGS) if base.halvings else 0.0


def with_epochs(strategy: StrategyName, accuracy: Estimate, share: float) -> Estimate:
    """What is expected with fewer epochs, or with more: less, or more, and known less well.

    Args:
        strategy: One that trains.
        accuracy: Expected with the usual ones.
        share: How many there are for each of those.
    """
    halved, halvings = HALVED[strategy], -math.log2(share)
    centre, low, high = (log_odds(value, 1e-4) for value in accuracy)
    moved = centre - halved.loss * halvings
    below, above = (math.hypot(side, 1.96 * halved.scatter * halvings) for side in (centre - low, high - centre))
    return Estimate(*(from_log_odds(value) for value in (moved, moved - below, moved + above)))


def least_error(images: int) -> float:
    """A third of an image, as a share of the training images."""
    return 1 / (3 * max(10, images))


def reach(images_of_a_class: float) -> float:
    """Decades of effective images of a class above 30, at most one and a half either way: the tasks reach no further."""
    return min(1.5, max(-1.5, math.log10(max(images_of_a_class, 1.0) / 30)))
