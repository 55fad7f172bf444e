"""What must be beaten: the largest class, a probe on raw pixels, and a small network after a short training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crossroads.advice.estimate import Estimate, estimate_accuracy
from crossroads.advice.sample import merge_duplicates
from crossroads.advice.short_training import Limit, ShortTraining, allowed, run_short_training
from crossroads.data.dataset import Dataset
from crossroads.data.images import Resize
from crossroads.data.loading import Refusal, load_all, refusal_notes
from crossroads.heads.probe import probe
from crossroads.networks.catalog import DEFAULT_FROM_SCRATCH
from crossroads.networks.construct import choose
from crossroads.progress import Watcher
from crossroads.recipe import Recipe

PIXELS = 16
"""Side in pixels at which raw pixels are probed."""

SHORT_PASSES, SHORT_EPOCHS = 12_000, (4, 30)
"""Images that the small network sees in its short training, and least and most epochs: 10 s at 32 px on two cores."""

SHORT_SECONDS = 60.0
"""After which the short training ends."""


@dataclass(frozen=True, slots=True)
class Baselines:
    """What must be beaten.

    Attributes:
        majority: Fraction of the largest class.
        pixels: A probe on the pixels themselves.
        short: The small network; None where the sample is too small to hold out a part.
        refused: The images of the sample that could not be read.
    """

    majority: float
    pixels: Estimate
    short: ShortTraining | None
    refused: tuple[Refusal, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "majority": round(self.majority, 4),
            "pixels": self.pixels.to_json(),
            "small_network": None if self.short is None else self.short.to_json(),
        }


def measure_baselines(
    dataset: Dataset, recipe: Recipe, size: int, majority: float, budget: float | None, watcher: Watcher
) -> Baselines:
    """The level of a sample.

    Args:
        dataset: The sample, all of whose classes occur.
        recipe: What the user asked for; `seed`, `resize` and `class_weights` matter.
        size: Side in pixels at which the small network is trained.
        majority: Fraction of the largest class of all training images.
        budget: In seconds, of the training that is advised on; None for any time.
        watcher: Receives progress and notes.

    Raises:
        DataError: No image can be read.
    """
    loaded = load_all(dataset, Resize(PIXELS, recipe.resize or "squash"))
    for warning in refusal_notes("the sample", loaded.refusals):
        watcher.warning(warning)
    found = loaded.dataset
    found = replace(found, groups=merge_duplicates(found.groups, loaded.digests))
    flat = loaded.pixels.reshape(len(found), -1).astype(np.float32)
    pixels = estimate_accuracy(probe(flat, found.labels, found.groups).correct, found.groups)
    return Baselines(majority, pixels, small_network(found, recipe, size, budget, watcher), loaded.refusals)


def small_network(dataset: Dataset, asked: Recipe, size: int, budget: float | None, watcher: Watcher) -> ShortTraining | None:
    """A short training of the small network; None where no image can be held out."""
    plain = Recipe(
        strategy="from-scratch", seed=asked.seed, resize=asked.resize, class_weights=asked.class_weights, image_size=size
    )
    limit = Limit(SHORT_PASSES, SHORT_EPOCHS, allowed(SHORT_SECONDS, budget))
    return run_short_training(dataset, choose(DEFAULT_FROM_SCRATCH), plain, limit, watcher)
