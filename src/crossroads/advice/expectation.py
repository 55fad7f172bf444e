"""What accuracy a strategy will reach, from what was measured in seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from crossroads.advice.estimate import Estimate
from crossroads.recipe import StrategyName

FEWEST_WRONG = 0.3
"""Images of the validation size that are taken as wrong at least: no prediction is of no error at all."""


@dataclass(frozen=True, slots=True)
class Lift:
    """From a probe to what a strategy reaches, in log odds: ``level + by_size x log10(images a class / 30)``.

    Attributes:
        level: At 30 effective images of a class.
        by_size: For ten times as many.
        scatter: Standard deviation of what is left.
    """

    level: float
    by_size: float
    scatter: float


LIFTS: dict[StrategyName, Lift] = {
    "feature-extraction": Lift(0.10, 0.0, 0.25),
    "early-features": Lift(0.05, 0.0, 0.30),
    "finetune": Lift(0.40, 0.50, 0.50),
    "finetune-early": Lift(0.40, 0.50, 0.50),
    "warm-start": Lift(0.10, 0.80, 0.70),
    "from-scratch": Lift(0.90, 0.40, 0.70),
}
"""Fitted by `python -m benchmarks regret`, which prints them, on the tasks of benchmarks/tasks.py."""


def expected(strategy: StrategyName, base: Estimate, images_of_a_class: float, least_error: float) -> Estimate:
    """The accuracy that a strategy is expected to reach, with a 95 % interval.

    Args:
        strategy: Its name.
        base: What it starts from: the probe on its own features carried on to all images; for finetuning and warm start the better
            of the backbone's two; from scratch the small network after its short training.
        images_of_a_class: Effective images of an average class.
        least_error: Error below which nothing can be told.
    """
    lift = LIFTS[strategy]
    reach = min(1.5, max(-1.5, math.log10(max(images_of_a_class, 1.0) / 30)))
    middle = _logit(base.value, least_error) + lift.level + lift.by_size * reach
    below = math.hypot(_logit(base.value, least_error) - _logit(base.low, least_error), 1.96 * lift.scatter)
    above = math.hypot(_logit(base.high, least_error) - _logit(base.value, least_error), 1.96 * lift.scatter)
    return Estimate(_share(middle), _share(middle - below), _share(middle + above))


def _logit(share: float, least_error: float) -> float:
    inside = min(max(share, least_error), 1 - least_error)
    return math.log(inside / (1 - inside))


def _share(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))
