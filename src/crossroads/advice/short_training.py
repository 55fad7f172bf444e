"""A short training on a part of the sample, scored on the rest: what a strategy that trains does with these images."""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from crossroads._runtime.faults import is_failure
from crossroads._runtime.keras_setup import keras_backend
from crossroads.advice.cost import VALIDATING
from crossroads.advice.estimate import Estimate
from crossroads.advice.expectation import LearningGain
from crossroads.advice.sample import compact, part
from crossroads.data.dataset import Dataset
from crossroads.data.loading import Loaded, load_all
from crossroads.data.splits import Splits, split
from crossroads.errors import CrossroadsError, SplitError
from crossroads.evaluation import effective_count, wilson_interval
from crossroads.features.lookup import resize_of
from crossroads.networks.construct import Choice
from crossroads.progress import EpochRecord, Relay, Silent, StopTraining, Watcher
from crossroads.recipe import Recipe, StrategyName
from crossroads.run import train as training
from crossroads.run.folder import TrainingFolder
from crossroads.run.task import Task
from crossroads.strategies import resolve_recipe, strategy

LOGGER = logging.getLogger(__name__)

HELD_OUT = 0.2

TELLING = 4
"""Minimum number of epochs for measuring a gain. In the first ones training finds its direction and BatchNorm settles."""

SHARE = 0.1
"""Of a budget that a short training may be planned for."""

GRACE = 20.0
"""Seconds beyond its limit after which a short training is given up though its first epoch is not done."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How much a short training may take.

    Attributes:
        passes: Images that it sees, each as often as there are epochs.
        epochs: Least and most of them. Where the least are too many passes, fewer images are trained on.
        seconds: After which it ends, with one epoch at least.
        images: Minimum number of images, and at least twice the number of classes; fewer say nothing.
    """

    passes: int
    epochs: tuple[int, int]
    seconds: float
    images: int = 1


@dataclass(frozen=True, slots=True)
class ShortTraining:
    """A short training on four fifths of the sample at most, scored on the rest.

    Attributes:
        strategy: What was done.
        backbone: Which network.
        image_size: Side of the images in pixels.
        images: It was trained on.
        epochs: Passes over them.
        accuracy: After the last epoch.
        start_seconds: That the first epoch took longer than the others.
        seconds_per_image: Of one pass, without validating; 0 where the first epoch alone was done and tells nothing of it.
        together: Whether Keras ran several steps in one call, as it does where there are many.
        rise: What twice the epochs added at its end; None where there were fewer than `TELLING`, or it was broken off.
    """

    strategy: StrategyName
    backbone: str
    image_size: int
    images: int
    epochs: int
    accuracy: Estimate
    start_seconds: float
    seconds_per_image: float
    together: bool = False
    rise: LearningGain | None = None

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
            "rise": None if self.rise is None else self.rise.to_json(),
        }


def run_short_training(dataset: Dataset, choice: Choice, asked: Recipe, limit: Limit, watcher: Watcher) -> ShortTraining | None:
    """Train for a moment, on those classes of which an image can be held out; None where there are no two, or too few images.

    If it fails, or its first epoch takes too long, the watcher receives a note and the result is None: other evidence remains.
    The log has the traceback of a failure; a fault of this program is raised.

    Args:
        dataset: The sample; images that are equal are in one group.
        choice: The backbone.
        asked: Strategy, image size and what else holds, without epochs.
        limit: How long.
        watcher: Receives progress and warnings; an exception that it raises ends the training.
    """
    parts = _divided(dataset, asked.seed)
    if parts is None:
        return None
    least, most = limit.epochs
    train, fewest = parts.train, max(limit.images, 2 * len(parts.train.classes))
    if min(limit.passes / least, len(train)) < fewest:
        return None
    if limit.passes < least * len(train):
        share = limit.passes / (least * len(train))
        train = train.select(part(train.labels, train.groups, share, np.random.default_rng([asked.seed, 12])))
    epochs = max(least, min(most, round(limit.passes / len(train))))
    size = int(asked.image_size or 0)
    recipe = resolve_recipe(replace(asked, epochs=epochs), choice.record, images=len(train), image_size=size)
    called = "training" if strategy(recipe.strategy).start == "random" else recipe.strategy.replace("-", " ")
    watcher.note(f"evidence: a short {called} of {choice.record.name}, {epochs} epochs of {len(train)} images")
    done: list[EpochRecord] = []
    ticks: list[float] = []  # of the epoch that is at work
    each: list[float] = []  # seconds of an image in the steps of each epoch; of the first 0 where it is not told
    heard = Relay(watcher)
    end = time.perf_counter() + limit.seconds

    def after_step() -> None:
        ticks.append(time.perf_counter())
        late = ticks[-1] - end
        if late > (0 if done else GRACE):
            raise StopTraining

    def after_epoch(record: EpochRecord, total: int) -> None:
        timed = bool(done) or _reports_steps(ticks)
        each.append(_seconds_per_image(record, ticks, len(train), len(parts.validation)) if timed else 0.0)
        done.append(record)
        ticks.clear()
        heard.progress(f"a short {called}", record.epoch * len(train), total * len(train))

    try:
        sides = tuple(load_all(side, resize_of(recipe)) for side in (train, parts.validation))
        with tempfile.TemporaryDirectory(prefix="crossroads-") as folder:
            task = Task(recipe, choice, strategy(recipe.strategy), train, parts.validation, lambda: (sides[0], sides[1]))
            relay = Relay(Silent(), after_step=after_step, after_epoch=after_epoch)
            fitted = training.train(task, TrainingFolder(Path(folder)), relay)
    except StopTraining as error:
        if error is heard.raised:
            raise
        watcher.note(f"no short {called} of {choice.record.name}: an epoch takes too long")
        return None
    except Exception as error:
        heard.raise_again()
        if not isinstance(error, CrossroadsError) and not is_failure(error):
            raise
        LOGGER.exception("no short %s of %s", called, choice.record.name)
        said = str(error).partition("\n")[0][:200] or type(error).__name__
        watcher.warning(f"no short {called} of {choice.record.name}: {said}")
        return None
    history = fitted.history
    if fitted.stopped:
        watcher.note(f"the short {called} of {choice.record.name} ended after {len(history)} of {epochs} epochs: its time was over")
    return _short(recipe, size, history, float(np.median(each[1:] or each)), sides[0], sides[1], ended=fitted.stopped)


def _reports_steps(ticks: Sequence[float]) -> bool:
    """Whether what lies between the steps of an epoch is known; other backends than TensorFlow tell of a step before it is done."""
    return len(ticks) > 1 and keras_backend() == "tensorflow"


def _seconds_per_image(record: EpochRecord, ticks: Sequence[float], images: int, validated: int) -> float:
    """From the first step of an epoch to the last: what comes after is validation, and a checkpoint."""
    if not _reports_steps(ticks):
        return record.seconds / (images + VALIDATING * validated)
    return (ticks[-1] - ticks[0]) / (len(ticks) - 1) * len(ticks) / images


def _short(
    recipe: Recipe, size: int, history: Sequence[EpochRecord], each: float, train: Loaded, held_out: Loaded, *, ended: bool
) -> ShortTraining:
    from crossroads.training.batches import STEPS_PER_EXECUTION, steps_per_epoch  # loads Keras

    seconds = [epoch.seconds for epoch in history]
    usual = float(np.median(seconds[1:])) if len(seconds) > 1 else each * len(train.dataset)
    accuracy, groups = history[-1].validation_accuracy, held_out.dataset.groups
    worth = len(held_out.dataset) if groups is None else effective_count(groups)
    known = Estimate(accuracy, *wilson_interval(accuracy * worth, worth))
    n, name = len(train.dataset), strategy(recipe.strategy).name
    together = steps_per_epoch(n, recipe.batch_size or n) % STEPS_PER_EXECUTION == 0
    rise = None if ended else rise_of([epoch.validation_accuracy for epoch in history], worth)
    return ShortTraining(
        name, str(recipe.backbone), size, n, len(history), known, max(0.0, seconds[0] - usual), each, together, rise
    )


def rise_of(accuracies: Sequence[float], images: float) -> LearningGain | None:
    """From about half the epochs to the last ones, for each doubling of the epochs, in log odds.

    The rate of learning falls meanwhile, as it does at the end of a longer training: what that adds is in the figure. Both ends are
    scored on the same images, most of which are right or wrong at both: their errors are taken to be alike by half. A half is
    added to the counts of right and wrong images.

    Args:
        accuracies: Of each epoch, on the images held out.
        images: Their effective number.
    """
    epochs = len(accuracies)
    if epochs < TELLING:
        return None
    half, around, last = epochs // 2, epochs // 10, max(1, epochs // 5)
    right = images * np.array(accuracies) + 0.5
    wrong = images + 1 - right
    odds, variances, numbers = np.log(right / wrong), 1 / right + 1 / wrong, np.arange(1, epochs + 1)
    ends = [slice(half - 1 - around, half + around), slice(-last, None)]
    before, after = (float(odds[end].mean()) for end in ends)
    doublings = math.log2(numbers[ends[1]].mean() / numbers[ends[0]].mean())
    error = math.sqrt(float(np.mean([variances[end].mean() for end in ends])))
    return LearningGain((after - before) / doublings, error / doublings)


def allowed(seconds: float, budget: float | None) -> float:
    """Returns the seconds of a short training: at most a fraction of the budget."""
    return seconds if budget is None else min(seconds, SHARE * budget)


def _divided(dataset: Dataset, seed: int) -> Splits | None:
    """The rows of classes that have two images at least, or two groups, in two parts; None where there are no two such classes."""
    units = np.arange(len(dataset)) if dataset.groups is None else dataset.groups
    several = [label for label in range(len(dataset.classes)) if len(np.unique(units[dataset.labels == label])) > 1]
    if len(several) < 2:
        return None
    found = compact(dataset.select(np.isin(dataset.labels, several)))
    try:
        return split(replace(found, splits=None), validation=HELD_OUT, test=0.0, seed=seed)
    except SplitError:  # groups of several classes that bind them
        return None
