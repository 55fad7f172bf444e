"""What a strategy plans, carried out: frozen features through the cache, then each phase of training."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crossroads import __version__, artifact
from crossroads._runtime.keras_setup import library_versions, load_keras
from crossroads.data.dataset import Dataset
from crossroads.data.loading import Loaded, Refusal, load_all, refusal_notes
from crossroads.errors import DataError, RecipeError
from crossroads.features.lookup import Lookup, resize_of
from crossroads.networks.construct import Choice, build
from crossroads.progress import EpochRecord, Watcher
from crossroads.recipe import Recipe
from crossroads.run.task import Task
from crossroads.strategies import Phase, Solve, plan
from crossroads.training.checkpoint import Checkpoints, combined_identity

if TYPE_CHECKING:
    import keras

    from crossroads.features.arrays import StoredFeatures
    from crossroads.networks.cuts import Cut
    from crossroads.networks.network import Network
    from crossroads.training.batches import LabelledData
    from crossroads.training.loop import PhaseResult


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """Training or validation images as they were read.

    Attributes:
        dataset: The rows that became images.
        digests: uint8 (n, 16), of what was decoded.
        refusals: The other rows.
        pixels: uint8 (n, size, size, 3), or None where only features were needed.
    """

    dataset: Dataset
    digests: NDArray[np.uint8]
    refusals: tuple[Refusal, ...]
    pixels: NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What training leaves.

    Attributes:
        model: uint8 images (n, size, size, 3) in, float32 probabilities (n, k) out.
        history: One record an epoch, over all phases.
        train: What was trained on.
        validation: What chose.
        notes: What the user was told.
        facts: For ``metrics.json``: epochs, best_epoch, and what the backbone, the features and the head were.
        reached: Accuracy and loss on validation, of the weights that are kept.
        ended: Whether the watcher had enough before the last epoch.
        improved: Whether the last phase did better than the one before; if not, the weights are those of the head it began with.
    """

    model: keras.Model
    history: tuple[EpochRecord, ...]
    train: Side
    validation: Side
    notes: tuple[str, ...]
    facts: dict[str, Any]
    reached: dict[str, float]
    ended: bool = False
    improved: bool = True


class Place(Protocol):
    """Where a training keeps its checkpoints."""

    def checkpoints(self, phase: int) -> Checkpoints:
        """The checkpoints of one phase, counted from 0."""
        ...


def train(task: Task, folder: Place, watcher: Watcher) -> Fitted:
    """Train as the recipe says, from the newest checkpoint where there is one. Raises `CrossroadsError`."""
    # Keras is loaded here and not before, so that a mistake in the data or the options is told at once.
    load_keras()
    return _Run(task, folder, watcher).result()


def rehearse(choice: Choice, size: int, classes: int, recipe: Recipe | None = None, *, seed: int = 0) -> None:
    """Find out whether a backbone with a head can become an artifact, with random weights and before an image is decoded.

    Args:
        choice: The backbone.
        size: Side of the images in pixels.
        classes: Of the images.
        recipe: Resolved: where the backbone is cut and what stands on it; None for all of it and a linear head.
        seed: Decides the weights.

    Raises:
        ArtifactError: It cannot, and why.
    """
    load_keras()
    from crossroads.networks.network import Layout, assemble, head_layers, seeded

    built = build(choice, size, weights=None, cut=recipe.cut if recipe else None, seed=seed)
    with seeded(seed):
        head = head_layers(recipe.head if recipe else None, classes)
        layout = Layout(built.keep, None, (recipe.pooling if recipe else None) or "average")
        network = assemble(built.parts, size, head, layout)
    artifact.rehearse(network.ship(), size, classes)


class _Run:
    """One training: its networks over one backbone and one head, and the two sides as each network takes them."""

    def __init__(self, task: Task, folder: Place, watcher: Watcher) -> None:
        from crossroads.networks.network import head_layers, seeded

        self._task, self._folder, self._watcher = task, folder, watcher
        recipe = task.recipe
        self._size = int(recipe.image_size or 0)
        self._classes = len(task.train.classes)
        self._built = build(
            task.choice,
            self._size,
            weights=recipe.weights,
            cut=recipe.cut,
            freeze_to=recipe.freeze_to,
            seed=recipe.seed,
            progress=watcher.progress,
        )
        self._refuse_idle_pooling()
        self._notes: list[str] = []
        for note in self._built.notes:
            self._tell(note)
        with seeded(recipe.seed):
            self._head = head_layers(recipe.head, self._classes, tuned=task.strategy.tuned)
            self._last = self._network(None)  # builds the head
        artifact.rehearse(self._last.ship(), self._size, self._classes)  # before the work, not after it
        self._pixels = task.images()
        self._sides: tuple[Side, Side] | None = None
        self._features: dict[str, Any] = {}

    def result(self) -> Fitted:
        """Every phase in turn; what the head alone reached is kept where finetuning does not beat it."""
        from crossroads.training.phases import run_phase

        history: list[EpochRecord] = []
        summary: list[dict[str, Any]] = []
        best: tuple[tuple[float, float], int] | None = None
        network, ended = self._last, False
        for number, phase in enumerate(plan(self._task.recipe, images=len(self._task.train))):
            network, data, validation = self._prepared(phase)
            weights = [np.array(v) for v in network.trained.variables] if best else []
            identity = f"{self._identity()}; phase: {number}"
            checkpoints = self._folder.checkpoints(number)
            trained = run_phase(network, phase, data, validation, checkpoints, identity, self._watcher)
            top = trained.history[trained.best - 1]
            history += trained.history
            ended = ended or trained.ended
            score = (top.validation_accuracy, -top.validation_loss)
            summary.append(_summary(phase, trained))
            if best is None or score > best[0]:
                best = (score, number)
            else:
                for variable, value in zip(network.trained.variables, weights, strict=True):
                    variable.assign(value)
                kept = "finetuning did not beat the head on frozen features, whose weights are kept"
                self._notes.append(kept)
                self._watcher.note(kept)
        chosen = summary[best[1]] if best else {}
        train, validation_side = self._require_sides()
        facts = {
            "epochs": chosen["epochs"],
            "best_epoch": chosen["best_epoch"],
            "phases": summary,
            **self._facts(chosen.get("name")),
        }
        accuracy, loss = best[0] if best else (0.0, 0.0)
        reached = {"accuracy": accuracy, "loss": -loss}
        notes, improved = tuple(self._notes), best is None or best[1] == len(summary) - 1
        return Fitted(network.ship(), tuple(history), train, validation_side, notes, facts, reached, ended, improved)

    def _refuse_idle_pooling(self) -> None:
        usual = "average-4" if self._task.strategy.keeps == "early" else "average"
        if len(self._built.keep.shape) == 1 and self._task.recipe.pooling not in (None, usual):
            raise RecipeError(
                f"pooling does nothing where the backbone ends in a vector, as {self._task.choice.record.name} does",
                received=repr(self._task.recipe.pooling),
                hint="leave it out, or choose an earlier --cut",
            )

    def _tell(self, note: str) -> None:
        self._notes.append(note)
        self._watcher.warning(note)

    def _network(self, freeze: Cut | None) -> Network:
        from crossroads.networks.network import Layout, assemble

        layout = Layout(self._built.keep, freeze, self._task.recipe.pooling or "average")
        return assemble(self._built.parts, self._size, self._head, layout)

    def _prepared(self, phase: Solve | Phase) -> tuple[Network, LabelledData, LabelledData]:
        """The network of a phase with the images as it takes them."""
        from crossroads.heads.standardize import moments
        from crossroads.networks.network import standardise, standardises

        freeze = self._built.keep if phase.name == "head" else self._built.freeze
        network = self._network(freeze)
        if network.frozen is None or freeze is None:
            pixels = self._pixels
            if pixels is None:
                raise DataError("training on pixels needs decoded images", received="none")
            self._sides = self._sides or self._checked(*(Side(p.dataset, p.digests, p.refusals, p.pixels) for p in pixels))
            for side, read in zip(self._sides, pixels, strict=True):
                _require_same(side, read)
            (train, validation), (seen, unseen) = self._sides, pixels
            return network, _labelled(train, seen.pixels), _labelled(validation, unseen.pixels)
        alone = phase.name == "head" and self._task.strategy.tuned  # on images as they are; the views are for finetuning
        views = 1 if alone else self._task.recipe.views or 1
        (train, rows), (validation, held_out) = self._extracted(network.frozen, freeze.name, views)
        if phase.name == "head" and standardises(self._head):
            standardise(self._head, *moments(rows, np.ones(len(rows))))
        return network, _labelled(train, rows, views), _labelled(validation, held_out)

    def _extracted(
        self, frozen: keras.Model, cut: str, views: int
    ) -> tuple[tuple[Side, StoredFeatures], tuple[Side, StoredFeatures]]:
        """Features of both sides, from the cache where they are there."""
        recipe, began = self._task.recipe, time.perf_counter()
        lookup = Lookup(frozen, self._task.choice.record, recipe, cut, self._watcher, self._some())
        augmentation = recipe.augmentation if views > 1 else None
        seen = lookup.features(self._task.train, "features of train", views=views, augmentation=augmentation)
        unseen = lookup.features(self._task.validation, "features of validation")
        if lookup.note:
            self._tell(lookup.note)
        train, validation = (Side(got.dataset, got.digests, got.refusals, None) for got in (seen, unseen))
        if self._sides is None:
            self._sides = self._checked(train, validation)
        for side, read in zip(self._sides, (train, validation), strict=True):
            _require_same(side, read)
        self._features[cut] = {
            "shape": list(frozen.output_shape[1:]),
            "views": views,
            "seconds": round(time.perf_counter() - began, 3),
            "computed": seen.computed + unseen.computed,
            "runs_on": lookup.runs_on,
        }
        return (train, seen.features), (validation, unseen.features)

    def _some(self) -> NDArray[np.uint8] | None:
        """Training images to calibrate int8 on."""
        from crossroads.features.engine import CALIBRATION_IMAGES

        if self._task.recipe.precision != "int8":
            return None
        rows = np.random.default_rng(self._task.recipe.seed).permutation(len(self._task.train))[:CALIBRATION_IMAGES]
        return load_all(self._task.train.select(np.sort(rows)), resize_of(self._task.recipe)).pixels

    def _checked(self, train: Side, validation: Side) -> tuple[Side, Side]:
        """Both sides, once each has what it needs; the user is told of refusals."""
        empty = [train.dataset.classes[label] for label in np.flatnonzero(train.dataset.counts() == 0)]
        if empty:
            raise DataError(
                f"{train.dataset.origin}: each class needs a readable training image",
                received=f"none of {', '.join(map(repr, empty[:5]))}{' and others' if len(empty) > 5 else ''}",
                hint="add images, or leave the class out",
            )
        for name, side in (("train", train), ("validation", validation)):
            for note in refusal_notes(name, side.refusals):
                self._tell(note)
        return train, validation

    def _require_sides(self) -> tuple[Side, Side]:
        if self._sides is None:
            raise DataError("a plan has at least one phase", received="none")
        return self._sides

    def _identity(self) -> str:
        """Digests of all that must stay the same when a run is resumed: the data row by row, recipe, network, weights, versions."""
        sides = self._require_sides()
        recipe = {key: value for key, value in self._task.recipe.to_mapping().items() if key not in ("data", "test")}
        rows = [array.tobytes() for side in sides for array in (side.digests, side.dataset.labels)]
        return combined_identity(
            {
                "images or labels": _digest(sides[0].dataset.classes, *rows),
                "recipe": _digest(recipe),
                "network or weights": _digest(self._built.function),
                "versions": _digest([__version__, library_versions()]),
            }
        )

    def _facts(self, chosen: str | None) -> dict[str, Any]:
        """What the backbone and the features were; `chosen` is the phase whose weights are kept."""
        built = self._built
        if self._task.strategy.start == "random":
            return {}
        frozen = built.keep if chosen == "head" else built.freeze
        return {
            "weights": (built.weights or {"from": "none"}) | {"digest": built.digest},
            "cut": {"name": built.keep.name, "index": built.keep.index, "depth": round(built.keep.depth, 4)},
            "frozen_to": None if frozen is None else frozen.name,
            "features": self._features,
        }


def _digest(known: object, *rows: bytes) -> str:
    hasher = hashlib.blake2b(json.dumps(known, sort_keys=True).encode(), digest_size=16)
    for row in rows:
        hasher.update(row)
    return hasher.hexdigest()


def _require_same(side: Side, read: Side | Loaded) -> None:
    """Raises `DataError` where images that were read twice, for the features of two cuts or for pixels, are not the same."""
    if not np.array_equal(side.digests, read.digests):
        raise DataError(
            f"{side.dataset.origin}: images must stay as they are while a run goes on",
            received=f"{len(side.digests)} images at first and {len(read.digests)} later, or others",
            hint="start again once nothing changes them",
        )


def _labelled(side: Side, inputs: Any, views: int = 1) -> LabelledData:
    """A side as training takes it."""
    from crossroads.training.batches import LabelledData

    return LabelledData(inputs, side.dataset.labels, views, side.dataset.groups)


def _summary(phase: Solve | Phase, trained: PhaseResult) -> dict[str, Any]:
    """One phase, for ``metrics.json``; a solved head with every candidate."""
    top = trained.history[trained.best - 1]
    return {
        "name": phase.name,
        "epochs": len(trained.history),
        "best_epoch": trained.best,
        "seconds": round(sum(record.seconds for record in trained.history), 3),
        "validation_accuracy": top.validation_accuracy,
        "validation_loss": top.validation_loss,
    } | ({} if trained.head is None else {"head": trained.head})
