"""Solves the final head on frozen features: chooses its kind and penalty, measures the head, and solves it.

Many validation images choose the head and measure it. If there are few, the training and validation images are cross-validated
together instead. On a handful of images, luck decides which of many penalties is best, and how accurate it seems.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads.evaluation import CLIP
from crossroads.features.arrays import Indexable, Stacked
from crossroads.heads import solve as heads
from crossroads.heads.crossvalidate import MAX_ROWS, CrossValidation, cross_validate
from crossroads.heads.folds import deal, joined
from crossroads.heads.probe import FOLDS as TEMPERATURE_FOLDS
from crossroads.heads.standardize import DEVIATION_FLOOR, read_chunks
from crossroads.networks.body import Dense, probabilities_of
from crossroads.progress import EpochRecord, StopTraining, Watcher
from crossroads.run.results import is_few
from crossroads.strategies import Solve
from crossroads.training.batches import LabelledData, class_weights
from crossroads.training.checkpoint import Checkpoints, TrainingState
from crossroads.training.solving import PhaseResult

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The features that a head is solved on.

    Attributes:
        train: Training images, in one or more views.
        validation: Validation images.
        digests: Digests of the training images and then the validation images, uint8 (n, 16). Equal images have equal
            digests.
        classes: Number of classes.
    """

    train: LabelledData
    validation: LabelledData
    digests: NDArray[np.uint8]
    classes: int

    @property
    def features(self) -> Indexable:
        """All rows: those of the training images, view by view, then those of the validation images."""
        return Stacked(self.train.inputs, self.validation.inputs)

    @property
    def labels(self) -> NDArray[np.int32]:
        """The label of each row."""
        return np.concatenate([self.train_labels, self.validation.labels])

    @property
    def train_labels(self) -> NDArray[np.int32]:
        """The label of each row of the training images."""
        return np.tile(self.train.labels, self.train.views)

    @property
    def plain(self) -> NDArray[np.int64]:
        """The rows of the images without augmentation, in the order of `digests`."""
        n, m = len(self.train), len(self.validation)
        return np.concatenate([np.arange(n), self.train.views * n + np.arange(m)])

    def units(self) -> NDArray[np.int64]:
        """Returns a number for each row. Rows of one group, of equal images or of views of one image have the same number."""
        columns = [np.unique(self.digests, axis=0, return_inverse=True)[1].reshape(-1)]
        if self.train.groups is not None and self.validation.groups is not None:
            columns.append(np.concatenate([self.train.groups, self.validation.groups]))
        units = joined(*columns)
        n = len(self.train)
        return np.concatenate([np.tile(units[:n], self.train.views), units[n:]])

    def weights(self, kind: str) -> NDArray[np.float64]:
        """Returns the weight of each row. The one view of a validation image weighs as much as all views of a training image."""
        views = np.concatenate([np.ones(len(self.train_labels)), np.full(len(self.validation), float(self.train.views))])
        of_class = class_weights(np.concatenate([self.train.labels, self.validation.labels]), self.classes, kind)
        return views if of_class is None else views * of_class[self.labels]


@dataclass(frozen=True, slots=True, eq=False)
class SolvedHead:
    """The final head of a frozen backbone.

    Attributes:
        result: The only epoch, with its scores.
        layers: The head, which takes features that are not standardised.
        probabilities: Float32 (m, k). Each row is computed by heads that were not solved on its image. The rows are all images of
            the pool after a cross-validation, otherwise the validation images.
        held_out: bool (m,), the images that have such probabilities. A cross-validation never leaves out the only image of a class.
        cross_validated: ``folds`` and ``repeats``; None if the scores are those on the validation images.
        refitted: Whether the head was solved on training and validation images together.
    """

    result: PhaseResult
    layers: tuple[Dense, ...]
    probabilities: Floats
    held_out: NDArray[np.bool_]
    cross_validated: Mapping[str, int] | None
    refitted: bool


def solve_final_head(
    phase: Solve, pool: Pool, refit: bool, checkpoints: Checkpoints, identity: str, watcher: Watcher
) -> SolvedHead:
    """Solves the final head, or loads it from the checkpoint.

    Args:
        phase: The phase.
        pool: The images.
        refit: Whether the head is solved on training and validation images together, after kind and penalty are chosen.
        checkpoints: The checkpoints of this phase alone.
        identity: Digest of data, splits, recipe and network; a checkpoint with another identity is refused.
        watcher: Receives the one epoch.

    Raises:
        TrainingError: The head cannot be solved.
    """
    state = checkpoints.load_for(identity)
    if state is None:
        started = time.perf_counter()
        chosen = _chosen(phase, pool)
        solved = _refitted(chosen, phase, pool) if refit else _on_train(chosen, phase, pool)
        loss, _ = heads.loss_and_accuracy(pool.train.inputs, pool.train_labels, *solved)
        record = EpochRecord(phase.name, 1, time.perf_counter() - started, 0.0, loss, *chosen.loss_and_accuracy)
        state = TrainingState(identity, (record,), 1, chosen.facts | {"refitted": refit})
        checkpoints.save(state, [*solved, chosen.probabilities, chosen.held_out])
        with suppress(StopTraining):  # the phase has no further epochs
            watcher.epoch(record, 1)
    kernel, bias, probabilities, held_out = (np.asarray(array) for array in checkpoints.arrays(1))
    return SolvedHead(
        PhaseResult(state.history, state.best, state.facts),
        (Dense(kernel.astype(np.float32), bias.astype(np.float32)),),
        probabilities.astype(np.float32),
        held_out.astype(bool),
        state.facts["cross_validated"],
        bool(state.facts["refitted"]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Chosen:
    """The chosen kind and penalty, with their scores. `head` is solved on the training images; None after a cross-validation."""

    kind: heads.Kind
    penalty: float
    candidates: tuple[heads.HeadCandidate, ...]
    probabilities: Floats
    held_out: NDArray[np.bool_]
    loss_and_accuracy: tuple[float, float]
    cross_validated: dict[str, int] | None
    head: tuple[Floats, Floats] | None

    @property
    def facts(self) -> dict[str, Any]:
        """The choice as plain JSON values."""
        tried = [asdict(candidate) for candidate in self.candidates]
        return {"kind": self.kind, "penalty": self.penalty, "tried": tried, "cross_validated": self.cross_validated}


def _chosen(phase: Solve, pool: Pool) -> _Chosen:
    """Chooses kind and penalty: by cross-validation if that is possible and validation is small, otherwise on validation."""
    validation = pool.validation
    if is_few(len(validation), validation.groups) and len(pool.labels) <= MAX_ROWS:
        weights = pool.weights(phase.class_weights)
        found = cross_validate(pool.features, pool.labels, pool.classes, groups=pool.units(), weights=weights)
        if found is not None:
            return _by_folds(found, pool)
    train = pool.train
    weights_of_classes = class_weights(train.labels, pool.classes, phase.class_weights)
    head = heads.solve(
        train.inputs, pool.train_labels, validation.inputs, validation.labels, pool.classes,
        groups=_groups(pool), weights=weights_of_classes,
    )  # fmt: skip
    return _Chosen(
        head.kind,
        head.penalty,
        head.candidates,
        _probabilities(validation.inputs, head.kernel, head.bias),
        np.ones(len(validation), bool),
        (head.validation_loss, head.validation_accuracy),
        None,
        (head.kernel, head.bias),
    )


def _by_folds(found: CrossValidation, pool: Pool) -> _Chosen:
    probabilities, held_out, labels = found.probabilities[pool.plain], found.held_out[pool.plain], pool.labels[pool.plain]
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    loss = float(-np.log(np.clip(true[held_out], CLIP, 1.0)).mean())
    accuracy = float((probabilities.argmax(axis=1) == labels)[held_out].mean())
    repeated = {"folds": found.folds, "repeats": found.repeats}
    return _Chosen(found.kind, found.penalty, found.candidates, probabilities, held_out, (loss, accuracy), repeated, None)


def _on_train(chosen: _Chosen, phase: Solve, pool: Pool) -> tuple[Floats, Floats]:
    """Returns the head that is solved on the training images alone."""
    return chosen.head or _solved_with(chosen, phase, pool, pool.train.inputs, len(pool.train_labels))


def _refitted(chosen: _Chosen, phase: Solve, pool: Pool) -> tuple[Floats, Floats]:
    """Returns the head that is solved on training and validation images."""
    return _solved_with(chosen, phase, pool, pool.features, len(pool.labels))


def _solved_with(chosen: _Chosen, phase: Solve, pool: Pool, features: Indexable, rows: int) -> tuple[Floats, Floats]:
    """Returns the head of the chosen kind and penalty on the first rows of the pool."""
    labels, groups, weights = pool.labels[:rows], pool.units()[:rows], pool.weights(phase.class_weights)[:rows]
    if few := chosen.cross_validated is not None:
        # Few images are left out in folds. If one image were left out alone, its class would have one image fewer than the others.
        groups = deal(labels, groups, count=TEMPERATURE_FOLDS)
    floor = DEVIATION_FLOOR if few else 0.0
    classes = pool.classes
    return heads.solve_with(chosen.kind, chosen.penalty, features, labels, classes, groups=groups, weights=weights, floor=floor)


def _groups(pool: Pool) -> NDArray[np.integer] | None:
    """Returns the groups of the training rows. All views of an image are left out together, because they predict each other."""
    groups = pool.train.groups
    if groups is None and pool.train.views > 1:
        groups = np.arange(len(pool.train))
    return None if groups is None else np.tile(groups, pool.train.views)


def _probabilities(features: Indexable, kernel: Floats, bias: Floats) -> Floats:
    head = (Dense(kernel, bias),)
    return np.concatenate([probabilities_of(chunk, head) for _, chunk in read_chunks(features)])
