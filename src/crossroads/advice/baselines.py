"""Measures the baselines: the largest class, a probe on raw pixels, and a small network after a short training."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from crossroads.advice.estimate import Estimate, estimate_accuracy
from crossroads.advice.sample import merge_duplicates
from crossroads.advice.short_training import Limit, ShortTraining, limit_by_budget, run_short_training
from crossroads.data.dataset import Dataset
from crossroads.data.loading import Refusal, load_all, refusal_notes
from crossroads.features.lookup import resize_of
from crossroads.heads.probe import probe
from crossroads.networks.catalog import DEFAULT_FROM_SCRATCH
from crossroads.networks.construct import choose
from crossroads.progress import Watcher
from crossroads.recipe import Recipe

PIXELS = 16
"""Side in pixels of the images for the probe on raw pixels."""

SHORT_PASSES, SHORT_EPOCHS = 12_000, (4, 30)
"""Images that the small network sees in its short training, and the smallest and largest number of epochs: 10 s at 32 px on two
cores."""

SHORT_SECONDS = 60.0
"""Time limit of the short training."""


@dataclass(frozen=True, slots=True)
class Baselines:
    """Accuracies that a strategy has to beat.

    Attributes:
        majority: Accuracy of always predicting the largest class.
        pixels: Accuracy of a probe on raw pixels.
        small_network: The small network after a short training; None if there was none.
    """

    majority: float
    pixels: Estimate
    small_network: ShortTraining | None


def measure_baselines(
    dataset: Dataset, asked: Recipe, size: int, majority: float, budget: float | None, watcher: Watcher
) -> tuple[Baselines, tuple[Refusal, ...]]:
    """Measures the baselines on a sample. Returns them with the images of the sample that could not be read.

    Args:
        dataset: The sample, with only the classes that occur.
        asked: The requested recipe; `seed`, `resize`, `crop_fraction`, `resample` and `class_weights` matter.
        size: Side in pixels of the images for the small network.
        majority: The largest class as a fraction of all training images.
        budget: Budget of the training that is advised on, in seconds; None if there is none; 0 for no short training.
        watcher: Receives progress and notes.

    Raises:
        DataError: No image can be read.
    """
    small = Recipe(
        strategy="from-scratch",
        seed=asked.seed,
        resize=asked.resize,
        crop_fraction=asked.crop_fraction,
        resample=asked.resample,
        class_weights=asked.class_weights,
        image_size=size,
    )
    loaded = load_all(dataset, resize_of(replace(small, image_size=PIXELS, resize=asked.resize or "squash")))
    for warning in refusal_notes("the sample", loaded.refusals):
        watcher.warning(warning)
    readable = replace(loaded.dataset, groups=merge_duplicates(loaded.dataset.groups, loaded.digests))
    flat = loaded.pixels.reshape(len(readable), -1).astype(np.float32)
    pixels = estimate_accuracy(probe(flat, readable.labels, readable.groups).correct, readable.groups)
    limit = Limit(SHORT_PASSES, SHORT_EPOCHS, limit_by_budget(SHORT_SECONDS, budget))
    if budget == 0:
        return Baselines(majority, pixels, None), loaded.refusals
    trained = run_short_training(readable, choose(DEFAULT_FROM_SCRATCH), small, limit, watcher)
    return Baselines(majority, pixels, trained), loaded.refusals
