"""Defines the result of a training, and the checks that every training makes of its images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crossroads import __version__
from crossroads._runtime.keras_setup import library_versions
from crossroads.data.dataset import Dataset
from crossroads.data.loading import Loaded, Refusal, refusal_notes
from crossroads.errors import DataError, option, without_effect
from crossroads.evaluation import effective_count
from crossroads.features.arrays import Indexable
from crossroads.features.extract import Extraction
from crossroads.networks.body import GraphModel
from crossroads.networks.cut import Cut
from crossroads.progress import EpochRecord, Watcher
from crossroads.run.metrics import PhaseMetrics, TrainingMetrics
from crossroads.run.task import Task
from crossroads.strategies import Phase, Solve
from crossroads.training.batches import LabelledData
from crossroads.training.checkpoint import Checkpoints, combined_identity
from crossroads.training.solving import PhaseResult

if TYPE_CHECKING:
    import keras


FEW = 200
"""Validation images (their effective number, if they are grouped) below which training and validation are cross-validated. An
accuracy of 0.9 on 200 images has a standard error of 2 points."""


@dataclass(frozen=True, slots=True, eq=False)
class UsedImages:
    """The training or validation images that a training used.

    Attributes:
        dataset: The rows that became images.
        digests: Digests of the decoded files, uint8 (n, 16).
        refusals: The rows that did not become images.
        pixels: uint8 (n, size, size, 3), or None if only features were needed.
    """

    dataset: Dataset
    digests: NDArray[np.uint8]
    refusals: tuple[Refusal, ...]
    pixels: NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Predictions by heads that were not solved on the predicted images. The validation scores of a run are computed from them.

    Attributes:
        images: The images.
        probabilities: Their probabilities, float32 (n, k).
        cross_validated: ``folds`` and ``repeats``, if the images are those of training and validation together; None if they are
            the validation images.
    """

    images: UsedImages
    probabilities: NDArray[np.float32]
    cross_validated: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TrainingResult:
    """The result of a training.

    Attributes:
        model: uint8 images (n, size, size, 3) in, float32 probabilities (n, k) out: a Keras model, or a graph if only a head was
            trained.
        history: One record per epoch, over all phases.
        train: The training images.
        validation: The validation images.
        notes: Notes for the user.
        metrics: Metrics of the phases and the backbone.
        validation_accuracy: Accuracy of the kept weights on the validation images, or the cross-validated accuracy.
        validation_loss: Mean cross-entropy on the same images, in nats.
        probabilities: Probabilities of the validation images by `model`, float32 (n, k), computed from their features; None if the
            model must compute them.
        held_out: The predictions that the validation scores are computed from; None if they are those of `model` on the validation
            images.
        validation_correct: bool (n,), whether each validation image is classified correctly by weights that were not fitted to it;
            None if there are so many that nothing is compared image by image.
        features: Features of the training images, float32 (n, d), if the backbone is frozen; otherwise None. Rows after these may
            hold further views of the same images.
        stopped: Whether the watcher raised `StopTraining` before the last epoch.
        improved: Whether the last phase beat the one before it. If not, its weights are those that it began with.
    """

    model: keras.Model | GraphModel
    history: tuple[EpochRecord, ...]
    train: UsedImages
    validation: UsedImages
    notes: tuple[str, ...]
    metrics: TrainingMetrics
    validation_accuracy: float
    validation_loss: float
    probabilities: NDArray[np.float32] | None = None
    held_out: HeldOut | None = None
    validation_correct: NDArray[np.bool_] | None = None
    features: Indexable | None = None
    stopped: bool = False
    improved: bool = True


class CheckpointFolder(Protocol):
    """A folder for the checkpoints of a training."""

    def checkpoints(self, phase: int) -> Checkpoints:
        """Returns the checkpoints of one phase, counted from 0."""
        ...


class ImageLog:
    """The images of a training. They are checked after the first phase reads them, and must be the same in later phases.

    Args:
        watcher: Receives notes on refused images.

    Attributes:
        notes: The notes.
    """

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._used: tuple[UsedImages, UsedImages] | None = None
        self.notes: list[str] = []

    def use(self, train: UsedImages, validation: UsedImages) -> tuple[UsedImages, UsedImages]:
        """Records the images of the first phase and returns them. Checks that later phases read the same ones.

        Raises:
            DataError: A class has no readable training image, or images have changed.
        """
        if self._used is None:
            _require_all_classes(train.dataset)
            for name, images in (("train", train), ("validation", validation)):
                for note in refusal_notes(name, images.refusals):
                    self.notes.append(note)
                    self._watcher.warning(note)
            self._used = (train, validation)
        for first, again in zip(self._used, (train, validation), strict=True):
            _require_same(first, again)
        return self._used


def is_few(images: int, groups: NDArray[np.integer] | None) -> bool:
    """Returns whether so many validation images, in these groups, are too few to choose by."""
    return (images if groups is None else effective_count(groups)) < FEW


def correct_if_few(scores: NDArray[np.floating], validation: Dataset) -> NDArray[np.bool_] | None:
    """Returns which validation images have the highest score for their class, bool (n,); None unless they are few."""
    if not is_few(len(validation), validation.groups):
        return None
    correct: NDArray[np.bool_] = scores.argmax(axis=1) == validation.labels
    return correct


def images_of(extraction: Extraction) -> UsedImages:
    """Returns the images whose features were extracted."""
    return UsedImages(extraction.dataset, extraction.digests, extraction.refusals, None)


def together(train: UsedImages, validation: UsedImages, chosen: NDArray[np.bool_]) -> UsedImages:
    """Returns the images of training and then validation that are chosen, bool (n + m,), as one set. Both are of one data set."""
    first, second = train.dataset, validation.dataset
    columns = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])
        for name in ("indices", "labels", "groups", "splits", "digests")
        if getattr(first, name) is not None and getattr(second, name) is not None
    }
    dropped: dict[str, Any] = {name: columns.get(name) for name in ("groups", "splits", "digests")}
    dataset = replace(first, **columns | dropped)
    return UsedImages(
        dataset.select(np.flatnonzero(chosen)),
        np.concatenate([train.digests, validation.digests])[chosen],
        (*train.refusals, *validation.refusals),
        None,
    )


def identity_of(task: Task, used: tuple[UsedImages, UsedImages], function: str) -> str:
    """Returns digests of everything that a resumed run must have in common: data, recipe, network, weights and versions."""
    recipe = {key: value for key, value in task.recipe.to_mapping().items() if key not in ("data", "test")}
    rows = [array.tobytes() for images in used for array in (images.digests, images.dataset.labels)]
    return combined_identity(
        {
            "images or labels": _digest(used[0].dataset.classes, *rows),
            "recipe": _digest(recipe),
            "network or weights": _digest(function),
            "versions": _digest([__version__, library_versions()]),
        }
    )


def refuse_idle_pooling(task: Task, keep: Cut) -> None:
    """Raises `RecipeError` if a pooling is set, and the backbone ends in a vector."""
    default = "average-4" if task.strategy.keeps == "early" else "average"
    if len(keep.shape) == 1 and task.recipe.pooling not in (None, default):
        context = f"with a backbone that ends in a vector, such as {task.choice.record.name}"
        hint = f"leave it out, or choose an earlier {option('cut')}"
        raise without_effect("pooling", repr(task.recipe.pooling), context, hint)


def _digest(value: object, *rows: bytes) -> str:
    hasher = hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16)
    for row in rows:
        hasher.update(row)
    return hasher.hexdigest()


def _require_all_classes(train: Dataset) -> None:
    """Raises `DataError` if a class has no training image that could be read."""
    empty = [train.classes[label] for label in np.flatnonzero(train.counts() == 0)]
    if empty:
        raise DataError(
            f"{train.origin}: each class needs a readable training image",
            code="class-without-readable-image",
            received=f"none of {', '.join(map(repr, empty[:5]))}{' and others' if len(empty) > 5 else ''}",
            hint="add images, or leave the class out",
        )


def _require_same(first: UsedImages, again: UsedImages | Loaded) -> None:
    """Raises `DataError` if images that were read twice, for two cuts or for features and pixels, differ."""
    if not np.array_equal(first.digests, again.digests):
        raise DataError(
            f"{first.dataset.origin}: images must not change during a run",
            code="images-changed",
            received=f"{len(first.digests)} images at first and {len(again.digests)} later, or others",
            hint="start again once nothing changes them",
        )


def labelled(images: UsedImages, inputs: Any, views: int = 1) -> LabelledData:
    """Pixels or features with their labels and groups."""
    return LabelledData(inputs, images.dataset.labels, views, images.dataset.groups)


def rank(phase: PhaseMetrics) -> tuple[float, float]:
    """Returns the sort key of a phase: validation accuracy, then negative validation loss. The best phase has the largest key."""
    return phase.validation_accuracy, -phase.validation_loss


def phase_metrics(phase: Solve | Phase, trained: PhaseResult) -> PhaseMetrics:
    """Returns the metrics of a phase."""
    best = trained.history[trained.best - 1]
    return PhaseMetrics(
        name=phase.name,
        epochs=len(trained.history),
        best_epoch=trained.best,
        seconds=round(sum(record.seconds for record in trained.history), 3),
        validation_accuracy=best.validation_accuracy,
        validation_loss=best.validation_loss,
        head=trained.head,
        batch_parts=phase.parts if isinstance(phase, Phase) and phase.parts > 1 else None,
    )
