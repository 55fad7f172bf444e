"""Trains one classifier: a head on frozen features alone, or layers of the backbone in Keras."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossroads import artifact
from crossroads._runtime.keras_setup import LOADING, load_keras
from crossroads._runtime.process import release_memory
from crossroads.errors import DataError, option
from crossroads.features.bodies import body_of
from crossroads.features.lookup import Lookup
from crossroads.networks.construct import Choice, build
from crossroads.networks.memory import MULTIPLY_ADDS_PER_ACTIVATION, frozen_mb, over_memory
from crossroads.progress import EpochRecord, Note, Watcher, stage
from crossroads.recipe import Recipe
from crossroads.run.frozen import SOLVING, train_head
from crossroads.run.metrics import BackboneMetrics, FeatureMetrics, PhaseMetrics, TrainingMetrics
from crossroads.run.results import (
    CheckpointFolder,
    ImageLog,
    TrainingResult,
    UsedImages,
    correct_if_few,
    identity_of,
    images_of,
    is_few,
    labelled,
    phase_metrics,
    rank,
    refuse_idle_pooling,
)
from crossroads.run.task import Task
from crossroads.strategies import Phase, Solve, plan_phases
from crossroads.training.batches import LabelledData, inference_batch_size

if TYPE_CHECKING:
    from crossroads.networks.cut import Cut
    from crossroads.networks.network import Network


CHECKING = "checking that the network can be saved"
"""The stage that makes a graph of a network with a head before it is trained."""


def train(task: Task, folder: CheckpointFolder, watcher: Watcher) -> TrainingResult:
    """Trains as the recipe of a task specifies. Continues from the newest checkpoint, if there is one. Raises `CrossroadsError`."""
    if task.strategy.frozen:
        _require_memory(task)
        return train_head(task, folder, watcher)
    with stage(watcher.progress, LOADING):  # only here, so that mistakes in the data or the options are reported without waiting
        load_keras()
    return _Training(task, folder, watcher).run()


def rehearse(
    choice: Choice,
    size: int,
    classes: int,
    recipe: Recipe | None = None,
    *,
    seed: int = 0,
    progress: Callable[[str, int, int], object] | None = None,
) -> None:
    """Checks, with random weights and before an image is decoded, that a backbone with a head can become an artifact.

    Args:
        choice: The backbone.
        size: Side of the images in pixels.
        classes: Number of classes.
        recipe: The resolved recipe, with the cut and the head of the network; None for the whole backbone and a linear head.
        seed: Seed of the weights.
        progress: The method `progress` of a watcher, or None for no report.

    Raises:
        ArtifactError: The network cannot become an artifact.
    """
    with stage(progress, LOADING):
        load_keras()
    from crossroads.networks.network import Layout, assemble, head_layers, seeded

    with stage(progress, CHECKING):
        built = build(choice, size, weights=None, cut=recipe.cut if recipe else None, seed=seed)
        with seeded(seed):
            head = head_layers(recipe.head if recipe else None, classes)
            layout = Layout(built.keep, None, (recipe.pooling if recipe else None) or "average")
            network = assemble(built.parts, size, head, layout)
        artifact.rehearse(network.ship(), size, classes)


def _stage_of(phase: Solve | Phase, task: Task) -> str:
    return SOLVING if isinstance(phase, Solve) else f"training {task.choice.record.name}"


def _require_memory(task: Task) -> None:
    """Raises `TrainingError` if the frozen features of a backbone need more memory than the user allows."""
    record, limit_mb = task.choice.record, task.memory_mb
    if limit_mb is None:
        return
    values = record.multiply_adds_at(int(task.recipe.image_size or 0)) / MULTIPLY_ADDS_PER_ACTIVATION
    needed = frozen_mb(record.parameters, values, keras=task.choice.graph_needs_keras(task.recipe.weights))
    if needed > limit_mb:
        raise over_memory(needed, limit_mb, f"a smaller {option('image_size')} or {option('backbone')}")


class _Prepared(NamedTuple):
    """A network with the images as it takes them: pixels, or the features of its frozen part."""

    network: Network
    train: LabelledData
    validation: LabelledData
    used: tuple[UsedImages, UsedImages]


class _Training:
    """A training. Its networks, one per phase, share a backbone and a head."""

    def __init__(self, task: Task, folder: CheckpointFolder, watcher: Watcher) -> None:
        from crossroads.networks.network import head_layers, seeded
        from crossroads.training.parts import with_parts

        self._task, self._folder, self._watcher = task, folder, watcher
        recipe = task.recipe
        self._size = int(recipe.image_size or 0)
        with stage(watcher.progress, f"building {task.choice.record.name}"):
            self._built = build(
                task.choice,
                self._size,
                weights=recipe.weights,
                cut=recipe.cut,
                freeze_to=recipe.freeze_to,
                seed=recipe.seed,
                progress=watcher.progress,
            )
        refuse_idle_pooling(task, self._built.keep)
        self._notes: list[str] = list(self._built.notes)
        for note in self._notes:
            watcher.warning(note)
        classes = len(task.train.classes)
        with seeded(recipe.seed):
            self._head = head_layers(recipe.head, classes, tuned=task.strategy.tuned)
            network = self._network(None)  # builds the head
        if recipe.freeze_to is None:
            with_parts(plan_phases(recipe)[-1], network.trained, task.memory_mb)  # refuses a training that is too large
        with stage(watcher.progress, CHECKING):
            artifact.rehearse(network.ship(), self._size, classes)  # before images are decoded, not after training
        self._pixels = task.decode()
        release_memory()  # what the check of the graph and the decoding leave
        self._images = ImageLog(watcher)
        self._features: dict[str, FeatureMetrics] = {}

    def run(self) -> TrainingResult:
        """Runs every phase. A phase that does not beat the one before it on validation leaves the weights as they were."""
        from crossroads.training.parts import with_parts
        from crossroads.training.phases import run_phase

        history: list[EpochRecord] = []
        phases: list[PhaseMetrics] = []
        stopped = False
        for number, planned in enumerate(plan_phases(self._task.recipe, images=len(self._task.train))):
            prepared = self._prepare(planned)
            network = prepared.network
            phase = with_parts(planned, network.trained, self._task.memory_mb)
            before = [np.array(variable) for variable in network.trained.variables] if phases else []
            identity = f"{identity_of(self._task, prepared.used, self._built.function)}; phase: {number}"
            if isinstance(phase, Phase) and phase.parts > 1:
                identity += f"; parts of a batch: {phase.parts}"
            checkpoints = self._folder.checkpoints(number)
            with stage(self._watcher.progress, _stage_of(phase, self._task)):
                trained = run_phase(network, phase, prepared.train, prepared.validation, checkpoints, identity, self._watcher)
            metrics = phase_metrics(phase, trained)
            if phases and rank(metrics) <= max(map(rank, phases)):
                for variable, value in zip(network.trained.variables, before, strict=True):
                    variable.assign(value)
                self._note_kept_head(phases[-1], metrics)
            history += trained.history
            phases.append(metrics)
            stopped = stopped or trained.ended
        kept = max(phases, key=rank)
        return TrainingResult(
            network.ship(),
            tuple(history),
            *prepared.used,
            (*self._notes, *self._images.notes),
            TrainingMetrics(kept, tuple(phases), self._backbone_metrics(kept)),
            kept.validation_accuracy,
            kept.validation_loss,
            validation_correct=self._correct(prepared),
            stopped=stopped,
            improved=kept is phases[-1],
        )

    def _correct(self, prepared: _Prepared) -> NDArray[np.bool_] | None:
        """Returns which validation images the kept weights classify correctly; None unless they are few."""
        data, dataset = prepared.validation, prepared.used[1].dataset
        if not is_few(len(dataset), dataset.groups):
            return None
        step, logits = inference_batch_size(data.inputs), prepared.network.trained
        batches = (np.asarray(data.inputs[first : first + step], np.float32) for first in range(0, len(data), step))
        return correct_if_few(np.concatenate([logits.predict_on_batch(batch) for batch in batches]), dataset)

    def _note_kept_head(self, head: PhaseMetrics, tuned: PhaseMetrics) -> None:
        note = Note(
            "finetuning did not beat the head on frozen features; the weights of the head are kept",
            "head-kept",
            head_accuracy=head.validation_accuracy,
            finetuned_accuracy=tuned.validation_accuracy,
        )
        self._notes.append(note)
        self._watcher.note(note)

    def _network(self, freeze: Cut | None) -> Network:
        from crossroads.networks.network import Layout, assemble

        layout = Layout(self._built.keep, freeze, self._task.recipe.pooling or "average")
        return assemble(self._built.parts, self._size, self._head, layout)

    def _prepare(self, phase: Solve | Phase) -> _Prepared:
        """Builds the network of a phase, and decodes its images or extracts their features."""
        freeze = self._built.keep if phase.name == "head" else self._built.freeze
        network = self._network(freeze)
        return self._prepare_pixels(network) if freeze is None else self._prepare_features(network, freeze, phase)

    def _prepare_pixels(self, network: Network) -> _Prepared:
        if self._pixels is None:
            raise DataError("training on pixels needs decoded images", code="images-not-decoded", received="none")
        train, validation = self._pixels
        used = self._images.use(*(UsedImages(part.dataset, part.digests, part.refusals, part.pixels) for part in self._pixels))
        return _Prepared(network, labelled(used[0], train.pixels), labelled(used[1], validation.pixels), used)

    def _prepare_features(self, network: Network, cut: Cut, phase: Solve | Phase) -> _Prepared:
        """Extracts the features of a cut, or reads them from the cache."""
        from crossroads.heads.standardize import moments
        from crossroads.networks.network import standardise, standardises

        recipe, started, is_head = self._task.recipe, time.perf_counter(), phase.name == "head"
        body = body_of(self._task.choice, self._size, recipe.weights, recipe.seed, self._watcher.progress)
        frozen = body.until(body.find(cut.name), (recipe.pooling or "average") if is_head else None)
        # The head that finetuning begins with is trained on the images as they are; the augmented views are for finetuning.
        views = 1 if is_head else recipe.views or 1
        lookup = Lookup(frozen, self._task.choice.record.name, recipe, cut.name, self._watcher)
        augmentation = recipe.augmentation if views > 1 else None
        train = lookup.features(self._task.train, "features of train", views=views, augmentation=augmentation)
        validation = lookup.features(self._task.validation, "features of validation")
        used = self._images.use(images_of(train), images_of(validation))
        self._features[cut.name] = FeatureMetrics(
            shape=frozen.shape,
            views=views,
            seconds=round(time.perf_counter() - started, 3),
            computed=train.computed + validation.computed,
            runs_on=lookup.runs_on,
        )
        if is_head and standardises(self._head):
            standardise(self._head, *moments(train.features, np.ones(len(train.features))))
        return _Prepared(network, labelled(used[0], train.features, views), labelled(used[1], validation.features), used)

    def _backbone_metrics(self, kept: PhaseMetrics) -> BackboneMetrics | None:
        built = self._built
        if self._task.strategy.start == "random":
            return None
        frozen = built.keep if kept.name == "head" else built.freeze
        weights = (built.weights or {"from": "none"}) | {"digest": built.digest}
        return BackboneMetrics(weights, built.keep, None if frozen is None else frozen.name, self._features)
