"""The composition root: labelled images in, a tested artifact out. The only module that knows every stage."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from crossroads import artifact
from crossroads._platform import peak_memory_mb
from crossroads.data.audit import flip_is_safe
from crossroads.data.dataset import Dataset
from crossroads.data.images import Resize
from crossroads.data.labels import align
from crossroads.data.loading import Loaded, Refusal, load_all, sizes
from crossroads.data.readers import Source, read
from crossroads.data.splits import Locked, Splits, split, split_digest
from crossroads.errors import DataError, RecipeError
from crossroads.evaluation import Evaluation, evaluate
from crossroads.networks.catalog import Backbone, backbone
from crossroads.predictor import Predictor
from crossroads.recipe import Recipe
from crossroads.run_folder import RunFolder
from crossroads.strategies import Strategy, plan, resolve, strategy
from crossroads.training.watch import Silent, Watcher

PARITY_IMAGES = 256


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Attributes:
        artifact: The folder.
        metrics: What was measured, as in ``metrics.json``: backbone, strategy, seconds, peak_memory_mb, validation, test, …
    """

    artifact: Path
    metrics: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The metrics with the folder, for a program to read."""
        return {"artifact": str(self.artifact), **self.metrics}


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Everything that training needs, with nothing of the test but its name and number."""

    recipe: Recipe
    backbone: Backbone
    strategy: Strategy
    train: Loaded
    validation: Loaded
    test: Locked | None
    notes: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in their order."""
        return self.train.dataset.classes


def fit(
    data: Source | None = None,
    *,
    out: str | Path,
    test: Source | None = None,
    recipe: Recipe | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
    **options: Any,
) -> Run:
    """Train a classifier on labelled images, test it, and leave one artifact.

    Args:
        data: Labelled images in any form that `read` takes; None for the recipe's own.
        out: A new folder for the artifact.
        test: A separate test set; nothing reads it before the final evaluation.
        recipe: Every choice; None for the defaults.
        resume: Go on with an unfinished run in `out`. A finished one is returned as it is.
        watcher: Is told what goes on.
        **options: Fields of `Recipe` that replace those of `recipe`.

    Returns:
        The finished run.

    Raises:
        CrossroadsError: A mistake that the user can mend; nothing is left half written.
    """
    started = time.perf_counter()
    watcher = watcher or Silent()
    folder = RunFolder(out)
    if folder.finished and resume:
        return Run(folder.path, artifact.read_metrics(folder.path))
    artifact.refuse_finished(folder.path)
    recipe = _asked(recipe or Recipe(), data, test, options)
    strategy(recipe.strategy)
    recipe = folder.begin(recipe, resume=resume)
    try:
        with folder.held():
            prepared = prepare(
                data if data is not None else recipe.data, test if test is not None else recipe.test, recipe, watcher
            )
            run = _train_and_test(prepared, folder, started, watcher)
        folder.clear()
    except BaseException:
        folder.abandon()
        raise
    return run


def prepare(data: Source | None, test: Source | None, recipe: Recipe, watcher: Watcher) -> Prepared:
    """Read, split and decode; the test stays locked. Raises as `fit` does."""
    if data is None:
        raise DataError("there must be labelled images", mend="give DATA, or `data` in the recipe")
    dataset = read(data)
    if len(dataset.classes) < 2:
        raise DataError(
            f"{dataset.origin}: a classifier needs at least two classes",
            received=f"{len(dataset.classes)} ({', '.join(dataset.classes)})",
            mend="add images of another class",
        )
    locked = None if test is None else align(read(test), dataset.classes)
    parts = split(dataset, validation=recipe.validation, test=recipe.test_share, seed=recipe.seed, locked_test=locked)
    record = strategy(recipe.strategy)
    chosen = backbone(recipe.backbone or record.default_backbone)
    size = recipe.image_size or chosen.size_for(sizes(parts.train, seed=recipe.seed).median)
    resolved = resolve(recipe, chosen, images=len(parts.train), image_size=size)
    chosen.check_size(size)
    train = load_all(
        parts.train, size, strict=recipe.strict, progress=lambda done, total: watcher.progress("decoding", done, total)
    )
    validation = load_all(
        parts.validation,
        size,
        strict=recipe.strict,
        progress=lambda done, total: watcher.progress("decoding validation", done, total),
    )
    _require_every_class(train)
    _refuse_flip(resolved, train)
    notes = (*dataset.notes, *(() if locked is None else locked.notes), *parts.notes, *_refusal_notes(train, validation))
    for note in notes:
        watcher.note(note)
    return Prepared(resolved, chosen, record, train, validation, parts.test, notes)


def evaluate_run(run: str | Path, data: Source, *, strict: bool = False) -> Evaluation:
    """Score a finished artifact on labelled images that are brought to its classes by name."""
    predictor = Predictor.load(run)
    return _score(predictor, align(read(data), predictor.classes), strict=strict)[0]


def _train_and_test(prepared: Prepared, folder: RunFolder, started: float, watcher: Watcher) -> Run:
    # Keras is loaded here and not before, so that a mistake in the data or the options is told at once.
    from crossroads.networks.network import assemble, seeded
    from crossroads.training.batches import Labelled
    from crossroads.training.checkpoint import history_csv
    from crossroads.training.loop import train

    recipe = prepared.recipe
    with seeded(recipe.seed):
        network = assemble(prepared.backbone.build(_known(recipe.image_size)), _known(recipe.image_size), len(prepared.classes))
    (phase,) = plan(recipe)
    trained = train(
        network,
        phase,
        Labelled(prepared.train.pixels, prepared.train.dataset.labels),
        Labelled(prepared.validation.pixels, prepared.validation.dataset.labels),
        folder.checkpoints,
        _identity(prepared),
        watcher,
    )
    contents = artifact.Contents(
        model=network.inference,
        classes=prepared.classes,
        resize=Resize(_known(recipe.image_size)),
        recipe=recipe,
        history=history_csv(trained.history),
        data=_data_facts(prepared),
        parity_images=prepared.validation.pixels[:PARITY_IMAGES],
    )
    with artifact.draft(folder.path, contents) as draft:
        predictor = Predictor.load(draft.path)
        validation = _score_loaded(predictor, prepared.validation)
        test, refused = (None, ()) if prepared.test is None else _score(predictor, prepared.test.unlock(), strict=recipe.strict)
        metrics = {
            "backbone": prepared.backbone.name,
            "strategy": prepared.strategy.name,
            "seconds": round(time.perf_counter() - started, 3),
            "peak_memory_mb": peak_memory_mb(),
            "epochs": len(trained.history),
            "best_epoch": trained.best,
            "validation": validation.to_json(),
            "test": None if test is None else test.to_json(),
            "refused": [f"{r.name}: {r.reason}" for r in (*prepared.train.refusals, *prepared.validation.refusals, *refused)],
            "notes": list(prepared.notes),
        }
        draft.finish(metrics)
    return Run(folder.path, metrics)
