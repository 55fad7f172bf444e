"""Cross-validates a training: with very few images, a candidate is trained on folds to learn how accurate it is on new images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import Dataset
from crossroads.data.loading import Loaded, load_all
from crossroads.evaluation import effective_count
from crossroads.features.lookup import resize_of
from crossroads.heads.folds import deal, divisible, joined
from crossroads.predictor import score_probabilities
from crossroads.progress import Note, Watcher
from crossroads.race.records import CandidateRun
from crossroads.run.folder import RunFolder
from crossroads.run.results import HeldOut, TrainingResult, UsedImages, together
from crossroads.run.task import Task
from crossroads.run.train import train
from crossroads.training.batches import inference_batch_size

FOLDS = (5, 4, 3)
"""Numbers of folds, the best first. More folds leave more images to train on, and take longer."""


@dataclass(frozen=True, slots=True, eq=False)
class FoldPredictions:
    """Predictions of images by networks that were trained without them.

    Attributes:
        held_out: The predictions.
        correct: Whether each image is classified correctly, as `correct_out_of_fold` returns it.
    """

    held_out: HeldOut
    correct: str


def affordable_folds(seconds_per_training: float, left: float) -> int:
    """Returns the largest number of folds whose trainings end in time; 0 if there is no time for the smallest."""
    return next((count for count in FOLDS if count * seconds_per_training <= left), 0)


def cross_validate_training(task: Task, count: int, folder: RunFolder, name: str, watcher: Watcher) -> FoldPredictions | None:
    """Trains once without each fold of the training and validation images, and predicts the images of that fold.

    Each training has as many epochs as the task, and the remaining validation images choose its best epoch. The images that are
    predicted therefore have no influence on the network that predicts them.

    Args:
        task: The training.
        count: Number of folds.
        folder: The folder of the run.
        name: The name of the training, with which those of its checkpoints begin.
        watcher: Receives progress, and ends the trainings with `StopTraining`.

    Returns:
        The predictions; None if the images do not fill the folds, or if the watcher ended a training early.

    Raises:
        CrossroadsError: A training fails.
        StopTraining: The watcher raised it before the first epoch of a training.
    """
    resize = resize_of(task.recipe)
    decoded = task.decode()
    parts = decoded or (load_all(task.train, resize), load_all(task.validation, resize))
    fold = deal_images(*parts, count)
    if fold is None:
        return None
    predicted = np.zeros((len(fold), len(task.train.classes)), np.float32)
    for number in range(count):
        watcher.note(_note(number, count))
        kept = _parts(parts, fold != number)
        pixels = partial(_same, kept if decoded else None)
        part = replace(task, train=kept[0].dataset, validation=kept[1].dataset, decode=pixels)
        fitted = train(part, folder.candidate_run(f"{name}-fold-{count}-{number}"), watcher)
        if fitted.stopped:
            return None
        left_out = np.concatenate([each.pixels for each in _parts(parts, fold == number)])
        predicted[fold == number] = np.concatenate(list(_predictions(fitted, left_out)))
    used = [UsedImages(part.dataset, part.digests, part.refusals, None) for part in parts]
    chosen = fold >= 0
    held_out = HeldOut(together(used[0], used[1], chosen), predicted[chosen], {"folds": count, "repeats": 1})
    return FoldPredictions(held_out, correct_out_of_fold(held_out, parts[0].dataset, parts[1].dataset))


def deal_images(train: Loaded, validation: Loaded, count: int) -> NDArray[np.int64] | None:
    """Returns the fold of each training and then each validation image, int64 (n + m,), and -1 for one that is never left out.

    Each fold has its part of both splits and of every class. Groups and equal images stay in one fold. An image is never left
    out if its class has no others in training. Returns None if a training would have no validation images.
    """
    n, m = len(train.dataset), len(validation.dataset)
    labels = np.concatenate([train.dataset.labels, validation.dataset.labels]).astype(np.int64)
    columns = [np.unique(np.concatenate([train.digests, validation.digests]), axis=0, return_inverse=True)[1].reshape(-1)]
    if train.dataset.groups is not None and validation.dataset.groups is not None:
        columns.append(np.concatenate([train.dataset.groups, validation.dataset.groups]))
    units = joined(*columns)
    dealt = np.concatenate([divisible(units[:n], labels[:n]), np.ones(m, bool)])
    dealt &= ~np.isin(units, units[~dealt])
    fold = np.full(n + m, -1, np.int64)
    strata = 2 * labels + (np.arange(n + m) >= n)
    fold[dealt] = deal(strata[dealt], units[dealt], count=count)
    filled = all(np.any(fold[n:] != number) and np.any(fold == number) for number in range(count))
    return fold if filled else None


def judged_by_folds(run: CandidateRun, found: FoldPredictions) -> CandidateRun:
    """Returns a run with its cross-validated scores in place of those on the validation images."""
    dataset = found.held_out.images.dataset
    scored = score_probabilities(found.held_out.probabilities, dataset)
    images = float(len(dataset)) if dataset.groups is None else effective_count(dataset.groups)
    return replace(run, validation_accuracy=scored.accuracy, validation_loss=scored.loss, images=images, crossed=found.correct)


def correct_out_of_fold(held_out: HeldOut, train: Dataset, validation: Dataset) -> str:
    """Returns "1" or "0" for each training and then each validation image: whether it is classified correctly out of its fold.

    An image that was never left out has "-".
    """
    dataset = held_out.images.dataset
    correct = held_out.probabilities.argmax(axis=1) == dataset.labels
    known = dict(zip(dataset.indices.tolist(), correct.tolist(), strict=True))
    rows = np.concatenate([train.indices, validation.indices])
    return "".join("01"[known[row]] if row in known else "-" for row in rows.tolist())


def _same(pixels: tuple[Loaded, Loaded] | None) -> tuple[Loaded, Loaded] | None:
    return pixels


def _parts(parts: tuple[Loaded, Loaded], chosen: NDArray[np.bool_]) -> tuple[Loaded, Loaded]:
    """Returns the chosen images of training and validation."""
    n = len(parts[0].dataset)
    first, second = (
        Loaded(part.dataset.select(rows), part.pixels[rows], part.digests[rows], ())
        for part, rows in zip(parts, (chosen[:n], chosen[n:]), strict=True)
    )
    return first, second


def _predictions(fitted: TrainingResult, pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
    """Yields the probabilities of batches of images."""
    model: Any = fitted.model  # of Keras, because layers were trained
    step = inference_batch_size(pixels)
    for first in range(0, len(pixels), step):
        yield np.asarray(model.predict_on_batch(pixels[first : first + step]))


def _note(number: int, count: int) -> Note:
    return Note(f"training without fold {number + 1} of {count}", "fold-started", fold=number + 1, folds=count)
