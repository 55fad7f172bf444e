"""What must be beaten: the largest class, a probe on raw pixels, and a small network after a short training."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from crossroads.advice.estimate import Estimate, share
from crossroads.advice.sample import compact, joined
from crossroads.data.dataset import Dataset
from crossroads.data.images import Resize
from crossroads.data.loading import load_all
from crossroads.data.splits import split
from crossroads.errors import SplitError
from crossroads.evaluation import effective, wilson
from crossroads.fitting import Task, carry_out
from crossroads.lookup import resize_of
from crossroads.networks.catalog import DEFAULT_FROM_SCRATCH
from crossroads.networks.construct import choose
from crossroads.recipe import Recipe
from crossroads.run_folder import TrialFolder
from crossroads.strategies import resolve, strategy
from crossroads.training.checkpoint import EpochRecord
from crossroads.training.probe import probe
from crossroads.training.watch import Enough, Relay, Silent, Watcher

PIXELS = 16
"""Side in pixels at which raw pixels are probed."""

SHORT_PASSES, SHORT_EPOCHS = 12_000, (4, 30)
"""Images that the small network sees in its short training, and least and most epochs: 10 s at 32 px on two cores."""

SHORT_SECONDS, SHORT_SHARE = 60.0, 0.1
"""After which time the short training ends, and after what share of a budget: with two epochs at least, which tell what one
takes."""

HELD_OUT = 0.2


@dataclass(frozen=True, slots=True)
class Short:
    """A short training of the small network on four fifths of the sample, scored on the rest.

    Attributes:
        backbone: Which network.
        image_size: Side of the images in pixels.
        images: It was trained on.
        epochs: Passes over them.
        accuracy: After the last epoch.
        start_seconds: That the first epoch took longer than the others.
        seconds_an_image: Of one pass.
    """

    backbone: str
    image_size: int
    images: int
    epochs: int
    accuracy: Estimate
    start_seconds: float
    seconds_an_image: float


@dataclass(frozen=True, slots=True)
class Level:
    """What must be beaten.

    Attributes:
        majority: Share of the largest class.
        pixels: A probe on the pixels themselves.
        short: The small network; None where the sample is too small to hold out a part.
    """

    majority: float
    pixels: Estimate
    short: Short | None

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        short = self.short
        return {
            "majority": round(self.majority, 4),
            "pixels": self.pixels.to_json(),
            "small_network": None
            if short is None
            else {
                "backbone": short.backbone,
                "image_size": short.image_size,
                "images": short.images,
                "epochs": short.epochs,
                "accuracy": short.accuracy.to_json(),
            },
        }


def level_of(dataset: Dataset, recipe: Recipe, size: int, majority: float, budget: float | None, watcher: Watcher) -> Level:
    """The level of a sample.

    Args:
        dataset: The sample, all of whose classes occur.
        recipe: What the user asked for; `seed`, `resize` and `class_weights` matter.
        size: Side in pixels at which the small network is trained.
        majority: Share of the largest class of all training images.
        budget: In seconds, of the training that is advised on; None for any time.
        watcher: Is told what goes on.

    Raises:
        DataError: No image can be read.
    """
    loaded = load_all(dataset, Resize(PIXELS, recipe.resize or "squash"))
    found = loaded.dataset
    found = replace(found, groups=joined(found.groups, loaded.digests))
    flat = loaded.pixels.reshape(len(found), -1).astype(np.float32)
    pixels = share(probe(flat, found.labels, found.groups).correct, found.groups)
    return Level(majority, pixels, short_training(found, recipe, size, budget, watcher))


def _divisible(dataset: Dataset) -> Dataset:
    """The rows of the classes that have two images at least, or two groups."""
    units = np.arange(len(dataset)) if dataset.groups is None else dataset.groups
    several = [label for label in range(len(dataset.classes)) if len(np.unique(units[dataset.labels == label])) > 1]
    kept = np.isin(dataset.labels, several)
    return compact(dataset.select(kept)) if kept.any() else replace(dataset.select([]), classes=())


def short_training(dataset: Dataset, recipe: Recipe, size: int, budget: float | None, watcher: Watcher) -> Short | None:
    """Train the small network for a moment, on those classes of which an image can be held out; None where there are no two."""
    dataset = _divisible(dataset)
    if len(dataset.classes) < 2:
        return None
    record = strategy("from-scratch")
    choice = choose(DEFAULT_FROM_SCRATCH)
    try:
        parts = split(replace(dataset, splits=None), validation=HELD_OUT, test=0.0, seed=recipe.seed)
    except SplitError:
        return None
    least, most = SHORT_EPOCHS
    epochs = max(least, min(most, round(SHORT_PASSES / len(parts.train))))
    plain = Recipe(
        strategy="from-scratch", seed=recipe.seed, resize=recipe.resize, class_weights=recipe.class_weights, epochs=epochs
    )
    resolved = resolve(plain, choice.record, images=len(parts.train), image_size=size)
    watcher.note(f"evidence: a short training of {DEFAULT_FROM_SCRATCH}, {epochs} epochs of {len(parts.train)} images")
    train, validation = (load_all(part, resize_of(resolved)) for part in (parts.train, parts.validation))
    with tempfile.TemporaryDirectory(prefix="crossroads-") as folder:
        task = Task(resolved, choice, record, parts.train, parts.validation, (train, validation))
        end = time.perf_counter() + min(SHORT_SECONDS, math.inf if budget is None else SHORT_SHARE * budget)

        def between(record: EpochRecord, total: int) -> None:
            watcher.progress("a short training", record.epoch * len(parts.train), total * len(parts.train))
            if 2 <= record.epoch < total and time.perf_counter() > end:
                raise Enough

        history = carry_out(task, TrialFolder(Path(folder)), Relay(Silent(), after_epoch=between)).history
    seconds = [epoch.seconds for epoch in history]
    usual = float(np.median(seconds[1:]))
    accuracy = history[-1].validation_accuracy
    groups = validation.dataset.groups
    worth = len(validation.dataset) if groups is None else effective(groups)
    known = Estimate(accuracy, *wilson(accuracy * worth, worth))
    n = len(train.dataset)
    return Short(DEFAULT_FROM_SCRATCH, size, n, len(history), known, max(0.0, seconds[0] - usual), usual / n)
