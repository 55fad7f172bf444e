"""A short training on a part of the sample, scored on the rest: what a strategy that trains does with these images."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from crossroads.advice.cost import Machine, memory_mb, step_seconds
from crossroads.advice.estimate import Estimate
from crossroads.advice.frozen import Seen
from crossroads.advice.sample import compact, part
from crossroads.data.dataset import Dataset
from crossroads.data.loading import load_all
from crossroads.data.splits import split
from crossroads.errors import RecipeError, SplitError
from crossroads.evaluation import effective, wilson
from crossroads.fitting import Task, carry_out
from crossroads.lookup import resize_of
from crossroads.networks.construct import Choice
from crossroads.recipe import Recipe
from crossroads.run_folder import TrialFolder
from crossroads.strategies import WARM_EPOCHS, relevant, resolve, strategy
from crossroads.training.checkpoint import EpochRecord
from crossroads.training.watch import Enough, Relay, Silent, Watcher

HELD_OUT = 0.2

SHARE = 0.1
"""Of a budget that a short training may take."""

WARM_SECONDS = 15.0
"""Time that the steps of a short warm start are expected to take. It ends after twice that."""

LEAST_EPOCHS = 2
"""Of a short training: the first one tells what it takes to begin, and the second what an epoch takes."""

FEWEST = 40
"""Images that a short training is given at least; of fewer nothing can be told."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How much a short training may take.

    Attributes:
        passes: Images that it sees, each as often as there are epochs.
        epochs: Least and most of them. Where the least are too many passes, fewer images are trained on.
        seconds: After which it ends, with `LEAST_EPOCHS` at least.
    """

    passes: int
    epochs: tuple[int, int]
    seconds: float


@dataclass(frozen=True, slots=True)
class Short:
    """A short training on four fifths of the sample at most, scored on the rest.

    Attributes:
        strategy: What was trained.
        backbone: Which network.
        image_size: Side of the images in pixels.
        images: It was trained on.
        epochs: Passes over them.
        accuracy: After the last epoch.
        start_seconds: That the first epoch took longer than the others.
        seconds_an_image: Of one pass.
    """

    strategy: str
    backbone: str
    image_size: int
    images: int
    epochs: int
    accuracy: Estimate
    start_seconds: float
    seconds_an_image: float

    @property
    def passes(self) -> int:
        """Images that it saw, each as often as there were epochs."""
        return self.images * self.epochs

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "strategy": self.strategy,
            "backbone": self.backbone,
            "image_size": self.image_size,
            "images": self.images,
            "epochs": self.epochs,
            "accuracy": self.accuracy.to_json(),
        }


def short_training(dataset: Dataset, choice: Choice, asked: Recipe, limit: Limit, watcher: Watcher) -> Short | None:
    """Train for a moment, on those classes of which an image can be held out; None where there are no two, or too few images.

    Args:
        dataset: The sample; images that are equal are in one group.
        choice: The backbone.
        asked: Strategy, image size and what else holds, without epochs.
        limit: How long.
        watcher: Is told what goes on.
    """
    dataset = _divisible(dataset)
    if len(dataset.classes) < 2:
        return None
    try:
        parts = split(replace(dataset, splits=None), validation=HELD_OUT, test=0.0, seed=asked.seed)
    except SplitError:
        return None
    least, most = limit.epochs
    chosen = parts.train
    if limit.passes < least * len(chosen):
        if limit.passes < least * max(FEWEST, 2 * len(dataset.classes)):
            return None
        share = limit.passes / (least * len(chosen))
        chosen = chosen.select(part(chosen.labels, chosen.groups, share, np.random.default_rng([asked.seed, 12])))
    epochs = max(least, min(most, round(limit.passes / len(chosen))))
    size = int(asked.image_size or 0)
    recipe = resolve(replace(asked, epochs=epochs), choice.record, images=len(chosen), image_size=size)
    kind = "training" if strategy(recipe.strategy).start == "random" else recipe.strategy.replace("-", " ")
    watcher.note(f"evidence: a short {kind} of {choice.record.name}, {epochs} epochs of {len(chosen)} images")
    train, validation = (load_all(side, resize_of(recipe)) for side in (chosen, parts.validation))
    end = time.perf_counter() + limit.seconds

    def between(record: EpochRecord, total: int) -> None:
        watcher.progress(f"a short {kind}", record.epoch * len(chosen), total * len(chosen))
        if LEAST_EPOCHS <= record.epoch < total and time.perf_counter() > end:
            raise Enough

    with tempfile.TemporaryDirectory(prefix="crossroads-") as folder:
        task = Task(recipe, choice, strategy(recipe.strategy), chosen, parts.validation, (train, validation))
        history = carry_out(task, TrialFolder(Path(folder)), Relay(Silent(), after_epoch=between)).history
    seconds = [epoch.seconds for epoch in history]
    usual = float(np.median(seconds[1:]))
    accuracy = history[-1].validation_accuracy
    groups = validation.dataset.groups
    worth = len(validation.dataset) if groups is None else effective(groups)
    known = Estimate(accuracy, *wilson(accuracy * worth, worth))
    n, start = len(train.dataset), max(0.0, seconds[0] - usual)
    return Short(recipe.strategy, choice.record.name, size, n, len(history), known, start, usual / n)


def short_warm_start(
    seen: Seen, asked: Recipe, machine: Machine, budget: float | None, memory_limit_mb: float | None, watcher: Watcher
) -> Short | None:
    """A short warm start of a backbone; None where too few images could be seen, where memory or an option stands in its way.

    Args:
        seen: What the backbone sees.
        asked: What the user asked for.
        machine: What this machine does.
        budget: In seconds, of the training that is advised on; None for any time.
        memory_limit_mb: What is free; None where it is not known.
        watcher: Is told what goes on.
    """
    cut, epochs = seen.built.keep, asked.epochs or WARM_EPOCHS[1]
    if seen.recipe.weights == "none" or epochs < LEAST_EPOCHS:
        return None
    size, resize = seen.profile.image_size, seen.recipe.resize
    wanted = replace(asked, backbone=seen.recipe.backbone, weights=seen.recipe.weights, image_size=size, resize=resize, epochs=None)
    try:
        plain = relevant(wanted, strategy("warm-start"))
        batch_size = resolve(plain, seen.choice.record, images=len(seen.dataset), image_size=size).batch_size or 0
    except RecipeError:  # which is told where the candidate is left out
        return None
    need = memory_mb(cut.parameters, cut.multiply_adds, batch_size, trained=True)
    if memory_limit_mb is not None and need > memory_limit_mb:
        return None
    seconds = allowed(WARM_SECONDS, budget)
    passes = int(seconds / step_seconds(cut.multiply_adds, machine, depthwise=seen.depthwise))
    return short_training(seen.dataset, seen.choice, plain, Limit(passes, (LEAST_EPOCHS, epochs), 2 * seconds), watcher)


def allowed(seconds: float, budget: float | None) -> float:
    """Seconds that a short training may take: no more than a share of a budget."""
    return seconds if budget is None else min(seconds, SHARE * budget)


def _divisible(dataset: Dataset) -> Dataset:
    """The rows of the classes that have two images at least, or two groups."""
    units = np.arange(len(dataset)) if dataset.groups is None else dataset.groups
    several = [label for label in range(len(dataset.classes)) if len(np.unique(units[dataset.labels == label])) > 1]
    kept = np.isin(dataset.labels, several)
    return compact(dataset.select(kept)) if kept.any() else replace(dataset.select([]), classes=())
