"""Trains a head on frozen features. Keras is loaded only for a head that is trained by gradient descent."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossroads._runtime.keras_setup import LOADING, load_keras
from crossroads.features.arrays import StoredFeatures
from crossroads.features.bodies import body_of
from crossroads.features.lookup import Lookup
from crossroads.heads.standardize import moments, read_chunks
from crossroads.networks.body import Body, Dense, Frozen, GraphModel
from crossroads.networks.cut import Cut
from crossroads.networks.graphs import Stated, note_on_origin
from crossroads.progress import Note, Watcher, stage
from crossroads.run.metrics import BackboneMetrics, FeatureMetrics, TrainingMetrics
from crossroads.run.results import (
    CheckpointFolder,
    HeldOut,
    ImageLog,
    TrainingResult,
    UsedImages,
    correct_if_few,
    identity_of,
    images_of,
    is_few,
    labelled,
    phase_metrics,
    refuse_idle_pooling,
    together,
)
from crossroads.run.scaling import note_on_scaling
from crossroads.run.solved import Pool, solve_final_head
from crossroads.run.task import Task
from crossroads.strategies import Phase, Solve, plan_phases
from crossroads.training.batches import LabelledData
from crossroads.training.checkpoint import Checkpoints
from crossroads.training.solving import PhaseResult

SOLVING = "solving the head"
"""The stage in which a linear head is solved."""

FITTED_ON_TRAIN, FITTED_ON_BOTH = ("train",), ("train", "validation")


class _Inputs(NamedTuple):
    """What a head is trained with."""

    classes: int
    train: LabelledData
    validation: LabelledData
    checkpoints: Checkpoints
    identity: str
    watcher: Watcher


class _Head(NamedTuple):
    """A trained or solved head. A field that is None is derived from the probabilities of the head on the validation images."""

    result: PhaseResult
    layers: tuple[Dense, ...]
    held_out: HeldOut | None = None
    correct: NDArray[np.bool_] | None = None
    refitted: bool = False


def train_head(task: Task, folder: CheckpointFolder, watcher: Watcher) -> TrainingResult:
    """Trains the head of a strategy whose backbone is frozen.

    Args:
        task: The task; its strategy has one phase.
        folder: Holds the checkpoints.
        watcher: Receives progress and warnings.

    Returns:
        The result, whose model is an inference graph.

    Raises:
        CrossroadsError: The backbone or its weights are not available, no image can be read, or the head cannot be trained.
    """
    recipe = task.recipe
    body = body_of(task.choice, int(recipe.image_size or 0), recipe.weights, recipe.seed, watcher.progress, Stated.of(recipe))
    keep = body.find(recipe.cut)
    refuse_idle_pooling(task, keep)
    known = list(body.notes)
    if task.choice.graph is not None and (unknown := _note_on_origin(body)) is not None:
        known.append(unknown)
    for note in known:
        watcher.warning(note)
    task.decode()  # decodes nothing; checks the images
    found = _extracted(task, body, keep, watcher)
    used = found.used
    (phase,) = plan_phases(recipe, images=len(task.train))
    inputs = _Inputs(
        len(task.train.classes),
        labelled(used[0], found.train, recipe.views or 1),
        labelled(used[1], found.validation),
        folder.checkpoints(0),
        f"{identity_of(task, used, body.digest)}; phase: 0",
        watcher,
    )
    if isinstance(phase, Solve):
        head = _solved(phase, inputs, used, refit=recipe.refit is not False)
    else:
        head = _trained(phase, inputs, task)
    metrics = phase_metrics(phase, head.result)
    weights = body.weights or {"from": "none", "digest": body.digest}
    model = GraphModel(found.frozen, head.layers)
    probabilities = np.concatenate([model.probabilities(chunk) for _, chunk in read_chunks(found.validation)])
    cut = BackboneMetrics(weights, keep, keep.name, {keep.name: found.metrics})
    return TrainingResult(
        model,
        head.result.history,
        *used,
        (*known, *found.notes),
        TrainingMetrics(metrics, (metrics,), cut, FITTED_ON_BOTH if head.refitted else FITTED_ON_TRAIN),
        metrics.validation_accuracy,
        metrics.validation_loss,
        probabilities,
        head.held_out,
        head.correct if head.correct is not None else correct_if_few(probabilities, used[1].dataset),
        features=found.train,
        stopped=head.result.ended,
    )


class _Extracted(NamedTuple):
    """The features of the training and validation images, and the part that computed them."""

    frozen: Frozen
    used: tuple[UsedImages, UsedImages]
    train: StoredFeatures
    validation: StoredFeatures
    notes: tuple[str, ...]
    metrics: FeatureMetrics


def _extracted(task: Task, body: Body, keep: Cut, watcher: Watcher) -> _Extracted:
    """Computes the features at a cut, or reads them from the cache."""
    recipe, started, views = task.recipe, time.perf_counter(), task.recipe.views or 1
    frozen = body.until(keep, recipe.pooling or "average")
    lookup, images = Lookup(frozen, task.choice.record.name, recipe, keep.name, watcher), ImageLog(watcher)
    augmentation = recipe.augmentation if views > 1 else None
    train = lookup.features(task.train, "features of train", views=views, augmentation=augmentation)
    validation = lookup.features(task.validation, "features of validation")
    used = images.use(images_of(train), images_of(validation))
    notes = list(images.notes)
    if train.computed and (doubt := note_on_scaling(body, train.dataset, recipe)) is not None:
        watcher.warning(doubt)
        notes.append(doubt)
    metrics = FeatureMetrics(
        shape=frozen.shape,
        views=views,
        seconds=round(time.perf_counter() - started, 3),
        computed=train.computed + validation.computed,
        runs_on=lookup.runs_on,
    )
    return _Extracted(frozen, used, train.features, validation.features, tuple(notes), metrics)


def _note_on_origin(body: Body) -> Note | None:
    about = body.weights or {}
    return note_on_origin(str(about.get("from")), about.get("licence"), about.get("source"))


def _solved(phase: Solve, inputs: _Inputs, used: tuple[UsedImages, UsedImages], *, refit: bool) -> _Head:
    """Solves a linear head, and returns it with the predictions that its scores are computed from."""
    digests = np.concatenate([images.digests for images in used])
    pool = Pool(inputs.train, inputs.validation, digests, inputs.classes)
    with stage(inputs.watcher.progress, SOLVING):
        head = solve_final_head(phase, pool, refit, *inputs[3:])
    labels = inputs.validation.labels
    if head.cross_validated is None:
        held_out = HeldOut(used[1], head.probabilities)
    else:
        held_out = HeldOut(together(*used, head.held_out), head.probabilities[head.held_out], head.cross_validated)
        inputs.watcher.note(_cross_validated_note(held_out))
    own = head.probabilities[-len(labels) :]  # the validation images come last
    correct = own.argmax(axis=1) == labels if is_few(len(labels), inputs.validation.groups) else None
    return _Head(head.result, head.layers, held_out, correct, head.refitted)


def _trained(phase: Phase, inputs: _Inputs, task: Task) -> _Head:
    """Trains a head by gradient descent, in Keras."""
    with stage(inputs.watcher.progress, LOADING):
        load_keras()
    from crossroads.networks.network import assemble_head, dense_layers, head_layers, seeded, standardise, standardises
    from crossroads.training.phases import run_phase

    train = inputs.train
    with seeded(task.recipe.seed):
        layers = head_layers(task.recipe.head, inputs.classes)
        network = assemble_head(train.inputs.shape[1], layers)
    if standardises(layers):
        standardise(layers, *moments(train.inputs, np.ones(train.inputs.shape[0])))
    with stage(inputs.watcher.progress, f"training the {phase.name}"):
        result = run_phase(network, phase, *inputs[1:])
    return _Head(result, tuple(Dense(kernel, bias) for kernel, bias in dense_layers(layers)))


def _cross_validated_note(held_out: HeldOut) -> Note:
    """Returns the note on why the validation scores are cross-validated."""
    folds, repeats = (held_out.cross_validated or {}).values()
    images = len(held_out.images.dataset)
    drawn = "" if repeats == 1 else f", drawn {repeats} times"
    text = f"validation is small, so the head was chosen and measured by cross-validation of {images} images ({folds} folds{drawn})"
    return Note(text, "cross-validated", images=images, folds=folds, repeats=repeats)
