"""Trains a network briefly on a part of the sample and scores it on the rest, to predict the accuracy of the whole training."""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from crossroads._runtime.faults import is_failure
from crossroads._runtime.keras_setup import can_train, keras_backend
from crossroads.advice.cost import VALIDATING
from crossroads.advice.estimate import Estimate
from crossroads.advice.expectation import LearningGain
from crossroads.advice.sample import compact, random_part
from crossroads.data.dataset import Dataset
from crossroads.data.loading import Loaded, load_all
from crossroads.data.splits import Splits, split
from crossroads.errors import CrossroadsError, SplitError
from crossroads.evaluation import effective_count, wilson_interval
from crossroads.features.lookup import resize_of
from crossroads.networks.construct import Choice
from crossroads.progress import EpochRecord, Note, Relay, Silent, StopTraining, Uncounted, Watcher
from crossroads.recipe import Recipe, StrategyName
from crossroads.run.folder import TrainingFolder
from crossroads.run.task import Task
from crossroads.run.train import train
from crossroads.strategies import resolve_recipe, strategy

LOGGER = logging.getLogger(__name__)

HELD_OUT = 0.2

EPOCHS_FOR_GAIN = 4
"""Smallest number of epochs that shows a learning gain. In the first ones BatchNorm settles and training finds its direction."""

BUDGET_FRACTION = 0.1
"""Fraction of a budget that a short training may be planned for."""

GRACE = 20.0
"""Number of seconds after its limit at which a short training is abandoned, even if its first epoch is not finished."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The limits of a short training.

    Attributes:
        passes: Images that it sees, each counted once per epoch.
        epochs: Smallest and largest number. If the smallest means too many passes, it trains on fewer images.
        seconds: Time limit. One epoch is finished in any case.
        images: Smallest number of images. It is never less than twice the number of classes.
        memory_mb: The most memory that the process may use; None if unknown.
    """

    passes: int
    epochs: tuple[int, int]
    seconds: float
    images: int = 1
    memory_mb: float | None = None


@dataclass(frozen=True, slots=True)
class ShortTraining:
    """The result of a short training on at most four fifths of the sample, scored on the rest.

    Attributes:
        strategy: The strategy.
        backbone: The network.
        image_size: Side of the images in pixels.
        images: Number of training images.
        epochs: Finished epochs.
        accuracy: Validation accuracy after the last epoch.
        start_seconds: Extra time of the first epoch, compared with the others.
        seconds_per_image: Time per image and epoch, without validation; 0 if the only epoch does not show it.
        grouped_steps: Whether Keras ran several steps in one call, as it does if there are many.
        learning_gain: Increase in accuracy from doubling the epochs at the end; None if there were too few epochs or time ran out.
    """

    strategy: StrategyName
    backbone: str
    image_size: int
    images: int
    epochs: int
    accuracy: Estimate
    start_seconds: float
    seconds_per_image: float
    grouped_steps: bool = False
    learning_gain: LearningGain | None = None

    @property
    def passes(self) -> int:
        """Images that it saw, each counted once per epoch."""
        return self.images * self.epochs


@dataclass(slots=True)
class _Timer:
    """Times the steps of a training, and stops it at its time limit.

    Attributes:
        images: Number of training images.
        validation_images: Number of validation images.
        end: When the time is over, on the clock of `time.perf_counter`.
        ticks: When each step of the current epoch ended.
        per_image: Seconds per image in the steps of each finished epoch; 0 if unknown.
        done: Batches of the current epoch that have ended.
    """

    images: int
    validation_images: int
    end: float
    ticks: list[float] = field(default_factory=list)
    per_image: list[float] = field(default_factory=list)
    done: int = 0

    def step(self, _epoch: int, done: int, total: int) -> None:
        """Receives the end of a step. The time limit does not end a validation, which is short."""
        if done == self.done == total:
            return
        self.done = done
        self.ticks.append(time.perf_counter())
        if self.ticks[-1] - self.end > (0 if self.per_image else GRACE):
            raise StopTraining

    def epoch(self, record: EpochRecord) -> None:
        """Receives the end of an epoch. The duration of the first one includes tracing, so that only its steps show the time."""
        known = bool(self.per_image) or _reports_steps(self.ticks)
        per_image = _seconds_per_image(record, self.ticks, self.images, self.validation_images) if known else 0.0
        self.per_image.append(per_image)
        self.ticks.clear()
        self.done = 0

    @property
    def usual(self) -> float:
        """The median over all epochs but the first. If there is only one epoch, its value."""
        return float(np.median(self.per_image[1:] or self.per_image))


class _Stages(Silent):
    """Forwards the stages of a training that cannot be counted, such as loading TensorFlow, and nothing else."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def progress(self, stage: str, done: int, total: int) -> None:
        """Forwards it."""
        if isinstance(stage, Uncounted):
            self._watcher.progress(stage, done, total)


def run_short_training(dataset: Dataset, choice: Choice, asked: Recipe, limit: Limit, watcher: Watcher) -> ShortTraining | None:
    """Trains for a short time; returns None if fewer than two classes have an image to hold out, or if there are too few images.

    If training fails or its first epoch takes too long, the watcher receives a note and the result is None. A bug is raised.

    Args:
        dataset: The sample. Equal images are in one group.
        choice: The backbone.
        asked: Strategy, image size and other options, without epochs.
        limit: When to stop.
        watcher: Receives progress and warnings. An exception that it raises ends the training.
    """
    if not can_train():
        return None
    parts = _split(dataset, asked.seed)
    images = None if parts is None else _training_images(parts.train, limit, asked.seed)
    if parts is None or images is None:
        return None
    epochs = max(limit.epochs[0], min(limit.epochs[1], round(limit.passes / len(images))))
    size, network = int(asked.image_size or 0), choice.record.name
    recipe = resolve_recipe(replace(asked, epochs=epochs), choice.record, images=len(images), image_size=size)
    record = strategy(recipe.strategy)
    kind = "training" if record.start == "random" else record.name.replace("-", " ")
    about = {"strategy": record.name, "backbone": network}
    watcher.note(_start_note(f"{kind} of {network}", about, epochs, len(images)))
    relay = Relay(watcher)
    timer = _Timer(len(images), len(parts.validation), time.perf_counter() + limit.seconds)

    def after_epoch(done: EpochRecord, total: int) -> None:
        timer.epoch(done)
        relay.progress(f"a short {kind}", done.epoch * len(images), total * len(images))

    try:
        relay.progress(f"a short {kind}", 0, epochs * len(images))
        shown, held_out = (load_all(part, resize_of(recipe)) for part in (images, parts.validation))
        task = Task(recipe, choice, record, images, parts.validation, lambda: (shown, held_out), limit.memory_mb)
        with tempfile.TemporaryDirectory(prefix="crossroads-") as folder:
            trained = train(
                task, TrainingFolder(Path(folder)), Relay(_Stages(relay), after_step=timer.step, after_epoch=after_epoch)
            )
    except Exception as error:
        _report_failure(error, relay, f"{kind} of {network}", about)
        return None
    if trained.stopped:
        seen = len(trained.history) * len(images)
        relay.progress(f"a short {kind}", seen, seen)  # the stage ends
        watcher.note(_stopped_note(f"{kind} of {network}", about, len(trained.history), epochs))
    return _result(recipe, trained.history, timer.usual, shown, held_out, stopped=trained.stopped)


def _report_failure(error: Exception, relay: Relay, training: str, about: dict[str, str]) -> None:
    """Sends a note on why there is no short training. Raises the error again if it is a bug or comes from the watcher."""
    relay.raise_again()
    if error is relay.raised:
        raise error
    if isinstance(error, StopTraining):
        relay.note(Note(f"no short {training}: one epoch takes too long", "short-training-too-slow", **about))
        return
    if not isinstance(error, CrossroadsError) and not is_failure(error):
        raise error
    LOGGER.error("no short %s", training, exc_info=error)
    reason = str(error).partition("\n")[0][:200] or type(error).__name__
    relay.warning(Note(f"no short {training}: {reason}", "short-training-failed", **about, reason=reason))


def _start_note(training: str, about: dict[str, str], epochs: int, images: int) -> Note:
    text = f"evidence: a short {training}, {epochs} epochs on {images} images"
    return Note(text, "short-training", **about, epochs=epochs, images=images)


def _stopped_note(training: str, about: dict[str, str], epochs: int, planned: int) -> Note:
    text = f"the short {training} ended after {epochs} of {planned} epochs because it ran out of time"
    return Note(text, "short-training-stopped", **about, epochs=epochs, planned=planned)


def _training_images(images: Dataset, limit: Limit, seed: int) -> Dataset | None:
    """Returns the images to train on, all or a part; None if they are too few."""
    least = limit.epochs[0]
    if min(limit.passes / least, len(images)) < max(limit.images, 2 * len(images.classes)):
        return None
    if limit.passes >= least * len(images):
        return images
    fraction = limit.passes / (least * len(images))
    return images.select(random_part(images.labels, images.groups, fraction, np.random.default_rng([seed, 12])))


def _reports_steps(ticks: Sequence[float]) -> bool:
    """Returns whether the times between steps are reliable. Backends other than TensorFlow report a step before it has finished."""
    return len(ticks) > 1 and keras_backend() == "tensorflow"


def _seconds_per_image(record: EpochRecord, ticks: Sequence[float], images: int, validation_images: int) -> float:
    """Returns the time per image from the first step of an epoch to the last, because validation and a checkpoint follow."""
    if not _reports_steps(ticks):
        return record.seconds / (images + VALIDATING * validation_images)
    return (ticks[-1] - ticks[0]) / (len(ticks) - 1) * len(ticks) / images


def _result(
    recipe: Recipe, history: Sequence[EpochRecord], per_image: float, shown: Loaded, held_out: Loaded, *, stopped: bool
) -> ShortTraining:
    from crossroads.training.batches import STEPS_PER_EXECUTION, steps_per_epoch  # loads Keras

    images, seconds = len(shown.dataset), [epoch.seconds for epoch in history]
    usual = float(np.median(seconds[1:])) if len(seconds) > 1 else per_image * images
    accuracy, groups = history[-1].validation_accuracy, held_out.dataset.groups
    effective = len(held_out.dataset) if groups is None else effective_count(groups)
    return ShortTraining(
        strategy(recipe.strategy).name,
        str(recipe.backbone),
        int(recipe.image_size or 0),
        images,
        len(history),
        Estimate(accuracy, *wilson_interval(accuracy * effective, effective)),
        start_seconds=max(0.0, seconds[0] - usual),
        seconds_per_image=per_image,
        grouped_steps=steps_per_epoch(images, recipe.batch_size or images) % STEPS_PER_EXECUTION == 0,
        learning_gain=None if stopped else learning_gain([epoch.validation_accuracy for epoch in history], effective),
    )


def learning_gain(accuracies: Sequence[float], images: float) -> LearningGain | None:
    """Returns the gain per doubling of the epochs, in log odds, from about half the epochs to the last ones.

    The learning rate falls meanwhile, as it does at the end of a longer training, and the gain includes that. A half is added
    to the counts of correct and wrong images.

    Args:
        accuracies: Validation accuracy of each epoch.
        images: Effective number of validation images.
    """
    epochs = len(accuracies)
    if epochs < EPOCHS_FOR_GAIN:
        return None
    # With 10 epochs, 4 to 6 are compared with 9 and 10: log2(9.5 / 5) = 0.93 doublings.
    half, around, last = epochs // 2, epochs // 10, max(1, epochs // 5)
    right = images * np.array(accuracies) + 0.5
    wrong = images + 1 - right
    odds, variances, numbers = np.log(right / wrong), 1 / right + 1 / wrong, np.arange(1, epochs + 1)
    ends = [slice(half - 1 - around, half + around), slice(-last, None)]
    before, after = (float(odds[end].mean()) for end in ends)
    doublings = math.log2(numbers[ends[1]].mean() / numbers[ends[0]].mean())
    # Both ends are scored on the same images, so their errors are correlated. With a correlation of a half, the variance of the
    # difference, v + v - 2 x v / 2, is that of one end.
    error = math.sqrt(float(np.mean([variances[end].mean() for end in ends])))
    return LearningGain((after - before) / doublings, error / doublings)


def limit_by_budget(seconds: float, budget: float | None) -> float:
    """Returns the seconds of a short training: at most a fraction of the budget."""
    return seconds if budget is None else min(seconds, BUDGET_FRACTION * budget)


def _split(dataset: Dataset, seed: int) -> Splits | None:
    """Splits the classes with at least two images or groups into two parts; None if there are fewer than two such classes."""
    units = np.arange(len(dataset)) if dataset.groups is None else dataset.groups
    several = [label for label in range(len(dataset.classes)) if len(np.unique(units[dataset.labels == label])) > 1]
    if len(several) < 2:
        return None
    kept = compact(dataset.select(np.isin(dataset.labels, several)))
    try:
        return split(replace(kept, splits=None), validation=HELD_OUT, test=0.0, seed=seed)
    except SplitError:  # groups that contain several classes
        return None
