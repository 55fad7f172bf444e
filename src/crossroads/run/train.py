"""One training: frozen features through the cache, then each phase that the strategy plans."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from crossroads import __version__, artifact
from crossroads._runtime.keras_setup import library_versions, load_keras
from crossroads.data.dataset import Dataset
from crossroads.data.loading import Loaded, Refusal, refusal_notes
from crossroads.errors import DataError, option, without_effect
from crossroads.features.lookup import Lookup
from crossroads.networks.construct import Choice, build
from crossroads.progress import EpochRecord, Note, Watcher
from crossroads.recipe import Recipe
from crossroads.run.metrics import BackboneMetrics, FeatureMetrics, PhaseMetrics, TrainingMetrics
from crossroads.run.task import Task
from crossroads.strategies import Phase, Solve, plan_phases
from crossroads.training.checkpoint import Checkpoints, combined_identity

if TYPE_CHECKING:
    import keras

    from crossroads.networks.cuts import Cut
    from crossroads.networks.network import Network
    from crossroads.training.batches import LabelledData
    from crossroads.training.loop import PhaseResult


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
class TrainingResult:
    """The result of a training.

    Attributes:
        model: A Keras model, uint8 images (n, size, size, 3) in, float32 probabilities (n, k) out.
        history: One record per epoch, over all phases.
        train: The training images.
        validation: The validation images.
        notes: Notes for the user.
        metrics: Metrics of the phases and the backbone.
        validation_accuracy: Accuracy on the validation images of the weights that are kept.
        validation_loss: Their mean cross-entropy on the validation images, in nats.
        stopped: Whether the watcher raised `StopTraining` before the last epoch.
        improved: Whether the last phase beat the one before it. If not, its weights are those that it began with.
    """

    model: keras.Model
    history: tuple[EpochRecord, ...]
    train: UsedImages
    validation: UsedImages
    notes: tuple[str, ...]
    metrics: TrainingMetrics
    validation_accuracy: float
    validation_loss: float
    stopped: bool = False
    improved: bool = True


class CheckpointFolder(Protocol):
    """A folder for the checkpoints of a training."""

    def checkpoints(self, phase: int) -> Checkpoints:
        """Returns the checkpoints of one phase, counted from 0."""
        ...


def train(task: Task, folder: CheckpointFolder, watcher: Watcher) -> TrainingResult:
    """Trains as the recipe of a task says, from the newest checkpoint if there is one. Raises `CrossroadsError`."""
    load_keras()  # only now, so that mistakes in the data or the options are reported without waiting for Keras
    return _Training(task, folder, watcher).run()


def rehearse(choice: Choice, size: int, classes: int, recipe: Recipe | None = None, *, seed: int = 0) -> None:
    """Checks, with random weights and before an image is decoded, that a backbone with a head can become an artifact.

    Args:
        choice: The backbone.
        size: Side of the images in pixels.
        classes: Number of classes.
        recipe: Resolved, with the cut and the head of the network; None for the whole backbone and a linear head.
        seed: Seed of the weights.

    Raises:
        ArtifactError: The network cannot become an artifact.
    """
    load_keras()
    from crossroads.networks.network import Layout, assemble, head_layers, seeded

    built = build(choice, size, weights=None, cut=recipe.cut if recipe else None, seed=seed)
    with seeded(seed):
        head = head_layers(recipe.head if recipe else None, classes)
        layout = Layout(built.keep, None, (recipe.pooling if recipe else None) or "average")
        network = assemble(built.parts, size, head, layout)
    artifact.rehearse(network.ship(), size, classes)


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

        self._task, self._folder, self._watcher = task, folder, watcher
        recipe = task.recipe
        self._size = int(recipe.image_size or 0)
        self._built = build(
            task.choice,
            self._size,
            weights=recipe.weights,
            cut=recipe.cut,
            freeze_to=recipe.freeze_to,
            seed=recipe.seed,
            progress=watcher.progress,
        )
        self._refuse_unused_pooling()
        self._notes: list[str] = []
        for note in self._built.notes:
            self._warn(note)
        classes = len(task.train.classes)
        with seeded(recipe.seed):
            self._head = head_layers(recipe.head, classes, tuned=task.strategy.tuned)
            network = self._network(None)  # builds the head
        artifact.rehearse(network.ship(), self._size, classes)  # before images are decoded, not after training
        self._pixels = task.decode()
        self._used: tuple[UsedImages, UsedImages] | None = None
        self._features: dict[str, FeatureMetrics] = {}

    def run(self) -> TrainingResult:
        """Runs every phase. A phase that does not beat the one before it on validation leaves the weights as they were."""
        from crossroads.training.phases import run_phase

        history: list[EpochRecord] = []
        phases: list[PhaseMetrics] = []
        stopped = False
        for number, phase in enumerate(plan_phases(self._task.recipe, images=len(self._task.train))):
            prepared = self._prepare(phase)
            network = prepared.network
            before = [np.array(variable) for variable in network.trained.variables] if phases else []
            identity = f"{self._identity(prepared.used)}; phase: {number}"
            checkpoints = self._folder.checkpoints(number)
            trained = run_phase(network, phase, prepared.train, prepared.validation, checkpoints, identity, self._watcher)
            metrics = _phase_metrics(phase, trained)
            if phases and _rank(metrics) <= max(map(_rank, phases)):
                for variable, value in zip(network.trained.variables, before, strict=True):
                    variable.assign(value)
                self._note_kept_head(phases[-1], metrics)
            history += trained.history
            phases.append(metrics)
            stopped = stopped or trained.ended
        kept = max(phases, key=_rank)
        return TrainingResult(
            network.ship(),
            tuple(history),
            *prepared.used,
            tuple(self._notes),
            TrainingMetrics(kept, tuple(phases), self._backbone_metrics(kept)),
            kept.validation_accuracy,
            kept.validation_loss,
            stopped,
            improved=kept is phases[-1],
        )

    def _refuse_unused_pooling(self) -> None:
        default = "average-4" if self._task.strategy.keeps == "early" else "average"
        if len(self._built.keep.shape) == 1 and self._task.recipe.pooling not in (None, default):
            context = f"with a backbone that ends in a vector, such as {self._task.choice.record.name}"
            hint = f"leave it out, or choose an earlier {option('cut')}"
            raise without_effect("pooling", repr(self._task.recipe.pooling), context, hint)

    def _warn(self, note: str) -> None:
        self._notes.append(note)
        self._watcher.warning(note)

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
        if network.frozen is None or freeze is None:
            return self._prepare_pixels(network)
        return self._prepare_features(network, network.frozen, freeze.name, phase)

    def _prepare_pixels(self, network: Network) -> _Prepared:
        if self._pixels is None:
            raise DataError(
                "training on pixels needs decoded images",
                code="images-not-decoded",
                received="none",
                hint="call Task.decode first",
            )
        train, validation = self._pixels
        used = self._same_images(*(UsedImages(part.dataset, part.digests, part.refusals, part.pixels) for part in self._pixels))
        return _Prepared(network, _labelled(used[0], train.pixels), _labelled(used[1], validation.pixels), used)

    def _prepare_features(self, network: Network, frozen: keras.Model, cut: str, phase: Solve | Phase) -> _Prepared:
        """Extracts the features of a cut, or reads them from the cache."""
        from crossroads.heads.standardize import moments
        from crossroads.networks.network import standardise, standardises

        recipe, started = self._task.recipe, time.perf_counter()
        # The head before finetuning is trained on the images themselves; the augmented views are for finetuning only.
        views = 1 if phase.name == "head" and self._task.strategy.tuned else recipe.views or 1
        lookup = Lookup(frozen, self._task.choice.record, recipe, cut, self._watcher)
        augmentation = recipe.augmentation if views > 1 else None
        train = lookup.features(self._task.train, "features of train", views=views, augmentation=augmentation)
        validation = lookup.features(self._task.validation, "features of validation")
        if lookup.note:
            self._warn(lookup.note)
        used = self._same_images(*(UsedImages(part.dataset, part.digests, part.refusals, None) for part in (train, validation)))
        self._features[cut] = FeatureMetrics(
            shape=tuple(frozen.output_shape[1:]),
            views=views,
            seconds=round(time.perf_counter() - started, 3),
            computed=train.computed + validation.computed,
            runs_on=lookup.runs_on,
        )
        if phase.name == "head" and standardises(self._head):
            standardise(self._head, *moments(train.features, np.ones(len(train.features))))
        return _Prepared(network, _labelled(used[0], train.features, views), _labelled(used[1], validation.features), used)

    def _same_images(self, train: UsedImages, validation: UsedImages) -> tuple[UsedImages, UsedImages]:
        """Returns the images of the first phase. Raises `DataError` if a later phase reads others."""
        if self._used is None:
            _require_all_classes(train.dataset)
            for name, images in (("train", train), ("validation", validation)):
                for note in refusal_notes(name, images.refusals):
                    self._warn(note)
            self._used = (train, validation)
        for first, again in zip(self._used, (train, validation), strict=True):
            _require_same(first, again)
        return self._used

    def _identity(self, used: tuple[UsedImages, UsedImages]) -> str:
        """Returns digests of what a resumed run must share: data row by row, recipe, network, weights, versions."""
        recipe = {key: value for key, value in self._task.recipe.to_mapping().items() if key not in ("data", "test")}
        rows = [array.tobytes() for images in used for array in (images.digests, images.dataset.labels)]
        return combined_identity(
            {
                "images or labels": _digest(used[0].dataset.classes, *rows),
                "recipe": _digest(recipe),
                "network or weights": _digest(self._built.function),
                "versions": _digest([__version__, library_versions()]),
            }
        )

    def _backbone_metrics(self, kept: PhaseMetrics) -> BackboneMetrics | None:
        built = self._built
        if self._task.strategy.start == "random":
            return None
        frozen = built.keep if kept.name == "head" else built.freeze
        weights = (built.weights or {"from": "none"}) | {"digest": built.digest}
        return BackboneMetrics(weights, built.keep, None if frozen is None else frozen.name, self._features)


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
    """Raises `DataError` if images were read twice (for two cuts, or for features and pixels) and differ."""
    if not np.array_equal(first.digests, again.digests):
        raise DataError(
            f"{first.dataset.origin}: images must not change during a run",
            code="images-changed",
            received=f"{len(first.digests)} images at first, and {len(again.digests)} or others later",
            hint="start again when no program changes them any more",
        )


def _labelled(images: UsedImages, inputs: Any, views: int = 1) -> LabelledData:
    """Returns pixels or features with their labels and groups."""
    from crossroads.training.batches import LabelledData

    return LabelledData(inputs, images.dataset.labels, views, images.dataset.groups)


def _rank(phase: PhaseMetrics) -> tuple[float, float]:
    """Returns a sort key by validation accuracy, then by validation loss; the best phase has the largest key."""
    return phase.validation_accuracy, -phase.validation_loss


def _phase_metrics(phase: Solve | Phase, trained: PhaseResult) -> PhaseMetrics:
    best = trained.history[trained.best - 1]
    return PhaseMetrics(
        name=phase.name,
        epochs=len(trained.history),
        best_epoch=trained.best,
        seconds=round(sum(record.seconds for record in trained.history), 3),
        validation_accuracy=best.validation_accuracy,
        validation_loss=best.validation_loss,
        head=trained.head,
    )
