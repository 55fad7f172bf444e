"""Predicts the accuracy of a strategy from measurements that take seconds.

All arithmetic is in log odds, ``log(accuracy / (1 - accuracy))``, where equal steps are equally hard: from 0.80 to 0.90 is
0.81, and from 0.98 to 0.99 is 0.70.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from crossroads.advice.estimate import Estimate, from_log_odds, log_odds
from crossroads.recipe import StrategyName

Kind = Literal["probe", "short training"]

Z = 1.96
"""Standard deviations from the centre to the end of a 95 % interval."""


class LearningGain(NamedTuple):
    """What doubling the epochs added at the end of a short training, in log odds, with its standard error."""

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class Base:
    """A measurement that an expectation starts from.

    Attributes:
        kind: A probe extrapolated to all images, or a short training of the same strategy. The probe is at the end of the kept
            backbone. For a warm start it is the best probe at any cut, and for training from scratch a probe on raw pixels,
            which counts only without a short training.
        accuracy: The measured accuracy.
        halvings: How often the number of images seen by the whole training must be halved to get that of the short training.
        learning_gain: The gain of a short training; None if it had too few epochs.
    """

    kind: Kind
    accuracy: Estimate
    halvings: float = 0.0
    learning_gain: LearningGain | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """The data set, as far as it affects an expectation.

    Attributes:
        images: Number of training images. It limits how small an error can be measured.
        images_per_class: Effective images per class.
        slope: What doubling the images adds to a probe, in log odds (`advice.size.Curve.slope`). On a steep learning curve more
            training also adds much, on a flat one little.
    """

    images: int
    images_per_class: float
    slope: float


@dataclass(frozen=True, slots=True)
class StrategyOffset:
    """The expected accuracy of a strategy minus that of a probe, in log odds.

    It is ``slope x (intercept + by_size x log10(images per class / 30))``.

    Attributes:
        intercept: The offset at 30 effective images per class.
        by_size: The increase of the offset with ten times as many images per class.
        scatter: Standard deviation of the residuals.
    """

    intercept: float
    by_size: float
    scatter: float


@dataclass(frozen=True, slots=True)
class Extrapolation:
    """The expected gain of the whole training over a short one, in log odds. Halvings are those of `Base`.

    Attributes:
        gain: Average gain per halving, as a multiple of the slope; n halvings give n times as much.
        scatter: Standard deviation for one halving; n halvings give sqrt(n) times as much.
    """

    gain: float
    scatter: float


@dataclass(frozen=True, slots=True)
class EpochPenalty:
    """What halving the epochs costs, in log odds.

    Attributes:
        penalty: The average.
        scatter: Standard deviation.
    """

    penalty: float
    scatter: float


@dataclass(frozen=True, slots=True)
class Law:
    """The fitted constants of one strategy. They lead from measurements to its expected accuracy.

    Attributes:
        offset: From a probe to the strategy.
        extrapolation: From a short training to the whole one; None if the strategy has no short training.
        epochs: From the usual number of epochs to fewer; None for a solved head.
    """

    offset: StrategyOffset
    extrapolation: Extrapolation | None = None
    epochs: EpochPenalty | None = None


Laws = Mapping[StrategyName, Law]

LAWS: dict[StrategyName, Law] = {
    "feature-extraction": Law(StrategyOffset(0.29, 0.1, 0.62)),
    "early-features": Law(StrategyOffset(0.35, 0.12, 0.57)),
    "finetune": Law(StrategyOffset(1.36, 1.72, 1.23), None, EpochPenalty(0.12, 0.37)),
    "finetune-early": Law(StrategyOffset(1.07, 1.26, 1.3), None, EpochPenalty(0.03, 0.12)),
    "warm-start": Law(StrategyOffset(1.47, 1.77, 1.23), Extrapolation(0.82, 0.47), EpochPenalty(0.16, 0.19)),
    "from-scratch": Law(StrategyOffset(2.32, 3.43, 1.57), Extrapolation(0.48, 0.9), EpochPenalty(0.16, 0.14)),
}
"""The laws, which `python -m benchmarks regret` fits and prints. All differences of accuracy are in log odds.

The data are the runs in benchmarks/figures, one seed each: 12 tasks of five sources with MobileNet and with SqueezeNet and all six
strategies, and four tasks of four more sources with EfficientNet-Lite0, the frozen strategies and training from scratch. So few
sources leave the scatter itself uncertain. docs/explanation/four-cases.md says which of these figures are also
used to judge the advice.

An offset from scratch counts from a probe on raw pixels, the others from a probe on pretrained features. The extrapolations are
fitted by maximum likelihood, because the accuracy of a short training on few images is itself uncertain. The penalties are fitted
to six tasks with all epochs and with a quarter of them: fewer epochs cost a warm start a lot, and finetuning after a solved head
less.
"""

SLOPE_ERROR = 0.3
"""Standard deviation of the difference between the slope of the learning curve and the gain from doubling the epochs. It was
set once. In an experiment, 0.15 and 0.6 both raised the regret of the advice on 24 outcomes by 0.09 points."""

HALVINGS = (0.25, 6.0)
"""Smallest and largest number of halvings that counts. The short trainings of the tasks saw between four fifths and a fortieth
of the images of the whole training, which is 0.3 to 5.4 halvings."""


class _Prediction(NamedTuple):
    """The prediction of one base, in log odds, and how far its 95 % interval extends down and up."""

    centre: float
    down: float
    up: float


def expected(strategy: StrategyName, bases: Sequence[Base], setting: Setting, laws: Laws | None = None) -> Estimate:
    """Returns the accuracy that a strategy is expected to reach, as a median with a 95 % interval.

    Each base gives a prediction of its own. They are averaged in log odds with inverse-variance weights.

    Args:
        strategy: Its name.
        bases: The measurements, at least one.
        setting: The data set.
        laws: The fitted constants; None for `LAWS`.
    """
    law = (laws or LAWS)[strategy]
    if strategy == "from-scratch":
        # A short training has tried the network itself. With the probe on raw pixels beside it, regret and error were larger.
        bases = [base for base in bases if base.kind != "probe"] or bases
    predictions = [_prediction(law, base, setting) for base in bases]
    # Two predictions, 1.0 with an interval of +-0.5 and 2.0 with +-1.0: the weights are 4 and 1, the centre is 1.2, and the
    # interval is +-1/sqrt(4 + 1) = +-0.45, narrower than that of either.
    weights = [1 / max(1e-9, ((part.down + part.up) / 2) ** 2) for part in predictions]
    centre = sum(weight * part.centre for weight, part in zip(weights, predictions, strict=True)) / sum(weights)
    down = 1 / math.sqrt(sum(1 / max(1e-9, part.down**2) for part in predictions))
    up = 1 / math.sqrt(sum(1 / max(1e-9, part.up**2) for part in predictions))
    return Estimate(*(from_log_odds(value) for value in (centre, centre - down, centre + up)))


def _prediction(law: Law, base: Base, setting: Setting) -> _Prediction:
    middle, low, high = (log_odds(value, least_error(setting.images)) for value in base.accuracy)
    shift, scatter = _shift(law, base, setting)
    # The error of the measurement and the scatter of the constants are independent, so their squares add up.
    return _Prediction(middle + shift, math.hypot(middle - low, Z * scatter), math.hypot(high - middle, Z * scatter))


def _shift(law: Law, base: Base, setting: Setting) -> tuple[float, float]:
    """Returns how much a strategy exceeds a base, in log odds, and the standard deviation of this difference.

    A probe of 0.80 has log odds of 1.39. With a slope of 0.5 and 300 images per class, finetuning adds
    ``0.5 x (1.36 + 1.72 x log10(300 / 30)) = 1.54``, so that 0.949 is expected.

    A short warm start that saw 2,000 images lacks three halvings to a whole one that sees 16,000. From 0.80 and with the same slope
    it adds ``0.5 x 0.82 x 3 = 1.23``, so that 0.932 is expected, with a standard deviation of ``0.47 x sqrt(3) = 0.81``.
    """
    if base.kind == "probe" or law.extrapolation is None:
        offset = law.offset
        return setting.slope * (offset.intercept + offset.by_size * log_size(setting.images_per_class)), offset.scatter
    halvings = clamped(base.halvings)
    return combined_slope(base, setting) * law.extrapolation.gain * halvings, law.extrapolation.scatter * math.sqrt(halvings)


def combined_slope(base: Base, setting: Setting) -> float:
    """Returns what a doubling adds, in log odds: the inverse-variance mean of the probe's slope and the gain of the short training.

    Its uncertainty is part of the scatter that `Extrapolation` was fitted with.
    """
    if base.learning_gain is None:
        return setting.slope
    slope_weight, gain_weight = 1 / SLOPE_ERROR**2, 1 / base.learning_gain.error**2
    mean = (setting.slope * slope_weight + base.learning_gain.value * gain_weight) / (slope_weight + gain_weight)
    return max(0.0, mean)  # more training does not lower the expectation


def clamped(halvings: float) -> float:
    """Returns the halvings, limited to the range of the tasks that the constants were fitted to."""
    return min(max(halvings, HALVINGS[0]), HALVINGS[1])


def with_epochs(strategy: StrategyName, accuracy: Estimate, fraction: float) -> Estimate:
    """Returns the expected accuracy with another number of epochs. With fewer epochs, it is lower and less certain.

    Args:
        strategy: The strategy. Epochs have no effect on a solved head.
        accuracy: The expected accuracy with the usual number of epochs.
        fraction: The number of epochs divided by the usual number. A quarter is two halvings and costs the penalty twice.
    """
    cost, halvings = LAWS[strategy].epochs, -math.log2(fraction)
    if cost is None:
        return accuracy
    middle, low, high = (log_odds(value, 1e-4) for value in accuracy)
    centre = middle - cost.penalty * halvings
    down, up = (math.hypot(distance, Z * cost.scatter * halvings) for distance in (middle - low, high - middle))
    return Estimate(*(from_log_odds(value) for value in (centre, centre - down, centre + up)))


def least_error(images: int) -> float:
    """Returns the smallest error that can be measured: a third of an image, as a fraction of the training images."""
    return 1 / (3 * max(10, images))


def log_size(images_per_class: float) -> float:
    """Returns ``log10(images per class / 30)``, limited to one and a half either way, the range of the fitted tasks."""
    return min(1.5, max(-1.5, math.log10(max(images_per_class, 1.0) / 30)))
