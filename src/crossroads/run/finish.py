"""Finishes a run: saves the trained model, loads it again as users will load it, and scores it.

Only this module opens the sealed test: to score it, to check that a finished run has the same images, and to show them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads import artifact
from crossroads._runtime.machine import peak_memory_mb
from crossroads._runtime.process import release_memory
from crossroads.data.dataset import Dataset
from crossroads.data.images import Resize
from crossroads.data.loading import digests_of, load_all, refusal_notes
from crossroads.data.partition import BIASED, Partition, count_seen
from crossroads.data.splits import split_digest
from crossroads.display import Shown
from crossroads.errors import DataError, option
from crossroads.evaluation import effective_count, widened
from crossroads.features.lookup import resize_of
from crossroads.files.text import plural
from crossroads.predictor import Predictor, Scored, score, score_probabilities
from crossroads.progress import Note, Relay, Watcher, stage
from crossroads.run.clock import Clock
from crossroads.run.folder import RunFolder
from crossroads.run.metrics import RunMetrics, TestMetrics, ValidationMetrics, headline_text
from crossroads.run.neighbours import neighbours_of
from crossroads.run.results import TrainingResult
from crossroads.run.task import Task
from crossroads.training.checkpoint import history_csv

PARITY_IMAGES = (64, 256)
"""Fewest and most validation images on which model and graph are compared. Above `PARITY_SIZE` pixels there are fewer, since Keras
computes them layer by layer: 256 at 112 pixels, 64 from 224 pixels on."""

PARITY_SIZE = 112


@dataclass(frozen=True, slots=True)
class Run(Shown):
    """A finished run. It can be passed in place of the path of its folder, as in ``crossroads.load(run)``.

    Attributes:
        artifact: The folder.
        metrics: The content of ``metrics.json``: backbone, strategy, seconds, peak_memory_mb, validation, test, …
    """

    artifact: Path
    metrics: dict[str, Any]

    def __fspath__(self) -> str:
        return os.fspath(self.artifact)

    def __repr__(self) -> str:
        """Returns the strategy, the backbone and the accuracy, and on a second line why they were chosen, if that needs words."""
        metrics = self.metrics
        text = f"{metrics['strategy']} of {metrics['backbone']}, accuracy {headline_text(metrics['headline'])}"
        choice = metrics.get("choice")
        return f"Run({os.fspath(self.artifact)!r}: {text})" + (f"\n{choice['text']}" if choice else "")

    @property
    def seen_in_training(self) -> int | None:
        """The number of test images that are also in train or validation; None without a test."""
        test = self.metrics["test"]
        return None if test is None else int(test["seen_in_training"])

    @property
    def refused(self) -> list[dict[str, str]]:
        """The images that could not be read, each with its ``split``, ``name`` and ``reason``."""
        return list(self.metrics["refused"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of the run."""
        return tuple(self.metrics["warnings"])

    def to_json(self) -> dict[str, Any]:
        """Returns the metrics with the folder and `seen_in_training`, for programs to read."""
        return {"artifact": str(self.artifact), "seen_in_training": self.seen_in_training, **self.metrics}


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A finished training, to be saved and tested.

    Attributes:
        task: The task.
        training: Its result.
        selection: How the strategy was chosen, for ``metrics.json``; empty if the user named it.
        test_images: Number of test images to score, drawn at random; None for all.
    """

    task: Task
    training: TrainingResult
    selection: Mapping[str, Any] = field(default_factory=dict)
    test_images: int | None = None


def save_and_test(partition: Partition, outcome: Outcome, folder: RunFolder, clock: Clock, watcher: Relay) -> Run:
    """Saves a trained model, scores the saved model, and finishes the artifact with its scores.

    An interim artifact of the same run, if there is one, is replaced as a whole.

    Args:
        partition: The images. This is the only place that unseals their test to score it.
        outcome: The training.
        folder: The folder of the artifact.
        clock: The time of the run.
        watcher: Receives progress and warnings. The artifact stores the warnings up to the end of the test.

    Raises:
        CrossroadsError: The artifact cannot be written, or its graph disagrees with its model. No artifact is left behind.
    """
    release_memory()  # what training leaves, because the export needs memory too
    task, training = outcome.task, outcome.training
    learned = artifact.seen_by_weights(task.recipe.weights)
    with ExitStack() as stack:
        with stage(watcher.progress, "saving the artifact"):
            contents = _contents(partition, outcome, learned)
            draft = stack.enter_context(artifact.draft(folder.path, contents, replaces=not folder.finished))
            release_memory()
            predictor = Predictor.load(draft.path)  # scores what was saved, loaded as users will load it
        validation, held_out = _validate(predictor, training, learned, watcher)
        scored, test = _test(predictor, partition, outcome, learned, watcher)
        few = () if test is None else tuple(_few_test_images(validation, test))
        if not outcome.selection.get("interim"):  # otherwise `BestSoFar.finish` says it once, of the result that is kept
            for note in few:
                watcher.warning(note)
        refused = {"train": training.train.refusals, "validation": training.validation.refusals}
        neighbours = neighbours_of(training, predictor, task.recipe, watcher)
        metrics = RunMetrics(
            backbone=task.choice.record.name,
            strategy=task.strategy.name,
            seconds=round(clock.spent, 3),
            peak_memory_mb=peak_memory_mb(),
            training=training.metrics,
            validation=validation,
            test=test,
            refused=refused if scored is None else refused | {"test": scored.refusals},
            notes=(*partition.notes, *training.notes, *validation.evaluation.warnings, *_warnings_of(test), *few),
            warnings=watcher.warnings,
            selection=outcome.selection,
        ).to_json()
        tested = None if scored is None else artifact.predictions_of(scored.dataset, scored.digests, scored.probabilities)
        draft.finish(metrics, artifact.HeldOut(tested, held_out), neighbours)
    return Run(folder.path, metrics)


def _contents(partition: Partition, outcome: Outcome, learned: NDArray[np.uint8]) -> artifact.Contents:
    """Returns what the artifact holds. `learned` are the digests of the images that the weights have seen, uint8 (n, 16)."""
    training, resize = outcome.training, resize_of(outcome.task.recipe)
    return artifact.Contents(
        model=training.model,
        classes=partition.train.classes,
        resize=resize,
        recipe=outcome.task.recipe,
        history=history_csv(training.history),
        seen=np.concatenate([_seen(training), learned]),
        data=_data_facts(partition, training),
        parity=_parity(training, resize),
        pretrained=None if training.metrics.backbone is None else training.metrics.backbone.weights,
    )


def scored_images(partition: Partition) -> tuple[Dataset, ...]:
    """Returns the data sets with the images that the scores of a finished run are computed from, the test among them."""
    tested = () if partition.test is None else (partition.test.unseal(),)
    return (*tested, partition.train, partition.validation)


def require_same_images(partition: Partition, data: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    """Raises `DataError` if images or labels differ from those of a finished run. Their files may have moved.

    Args:
        partition: The images. Their test, which that run has scored, is unsealed to compare its digest.
        data: The ``data`` of the artifact's manifest.
        metrics: The metrics of the run.
    """
    digests = {name: data["splits"][name]["digest"] for name in ("train", "validation")}
    splits = {"train": partition.train, "validation": partition.validation}
    if partition.test is not None:
        digests["test"], splits["test"] = (metrics["test"] or {}).get("digest"), partition.test.unseal()
    for split, dataset in splits.items():
        # Names are compared without the folder that they were read from.
        refused = {row["name"].removeprefix(data["origin"]) for row in metrics["refused"] if row["split"] == split}
        rows = [row for row in range(len(dataset)) if dataset.name(row).removeprefix(dataset.origin) not in refused]
        used = dataset.select(rows)
        if split_digest(digests_of(used), used.labels, used.classes) != digests[split]:
            raise DataError(
                f"the {split} images or labels differ from those of the finished run",
                code="other-images",
                field="data",
                received=used.origin,
                hint=f"choose another {option('out')}",
            )


def _parity(training: TrainingResult, resize: Resize) -> artifact.Parity:
    """Returns evenly spaced validation images for the parity check, because neighbours often have the same class."""
    least, most = PARITY_IMAGES
    images = training.validation
    count = max(least, min(most, most * PARITY_SIZE**2 // resize.size**2, len(images.dataset)))
    rows = np.linspace(0, len(images.dataset) - 1, min(count, len(images.dataset))).astype(np.int64)
    pixels = load_all(images.dataset.select(rows), resize).pixels if images.pixels is None else images.pixels[rows]
    return artifact.Parity(pixels, None if training.probabilities is None else training.probabilities[rows])


def _validate(
    predictor: Predictor, training: TrainingResult, learned: NDArray[np.uint8], watcher: Watcher
) -> tuple[ValidationMetrics, artifact.Predictions]:
    """Scores the validation images, or the images that were cross-validated. The parity check has compared the model itself."""
    held_out = training.held_out
    images = training.validation if held_out is None else held_out.images
    crossed = None if held_out is None else held_out.cross_validated
    probabilities = _validation_probabilities(predictor, training, watcher)
    evaluation = score_probabilities(probabilities, images.dataset)
    seen = 0 if crossed else count_seen(images.digests, training.train.digests)  # equal images are left out together
    notes = tuple(_validation_notes(seen, count_seen(images.digests, learned), len(images.dataset)))
    for note in notes:
        watcher.warning(note)
    if crossed:
        evaluation = widened(evaluation)
    scored = replace(evaluation, seen_in_training=seen, refused=training.validation.refusals, warnings=notes)
    return ValidationMetrics(scored, crossed), artifact.predictions_of(images.dataset, images.digests, probabilities)


def _validation_probabilities(predictor: Predictor, training: TrainingResult, watcher: Watcher) -> NDArray[np.float32]:
    """Returns the probabilities that the validation scores are computed from, float32 (n, k)."""
    if training.held_out is not None:
        return training.held_out.probabilities
    if training.probabilities is not None:
        return training.probabilities
    if training.validation.pixels is not None:
        return predictor.probabilities(training.validation.pixels)
    return predictor.probabilities_of(
        training.validation.dataset, strict=True, progress=partial(watcher.progress, "validating")
    ).probabilities


def _test(
    predictor: Predictor, partition: Partition, outcome: Outcome, learned: NDArray[np.uint8], watcher: Watcher
) -> tuple[Scored, TestMetrics] | tuple[None, None]:
    """Scores the test images, if there is a test."""
    if partition.test is None:
        return None, None
    images, fewer = _drawn(partition.test.unseal(), outcome.test_images, partition.recipe.seed)
    scored, evaluation = score(predictor, images, partition.recipe.strict, watcher)
    seen, by_weights = count_seen(scored.digests, _seen(outcome.training)), count_seen(scored.digests, learned)
    notes = (*fewer, *refusal_notes("the test", scored.refusals), *_test_notes(seen, by_weights, len(scored.dataset)))
    for note in notes:
        watcher.warning(note)
    digest = split_digest(scored.digests, scored.dataset.labels, partition.train.classes)
    groups = scored.dataset.groups
    effective = float(len(scored.dataset)) if groups is None else effective_count(groups)
    return scored, TestMetrics(replace(evaluation, seen_in_training=seen, warnings=notes), by_weights, digest, effective)


def _warnings_of(test: TestMetrics | None) -> tuple[str, ...]:
    return () if test is None else test.evaluation.warnings


def _few_test_images(validation: ValidationMetrics, test: TestMetrics) -> Iterator[Note]:
    """Yields a note on how little a small test says, and on what is reported first instead."""
    if not test.is_small:
        return
    scored, other = test.evaluation, validation.evaluation
    low, high = scored.accuracy_interval
    in_groups = "" if scored.groups is None else f" of {plural(scored.groups, 'group')}"
    text = (
        f"{plural(scored.n, 'test image')}{in_groups} can tell little: an accuracy of {scored.accuracy:.2f} on so few can mean "
        f"anything from {low:.2f} to {high:.2f} on new images"
    )
    facts = {"images": scored.n, "accuracy": scored.accuracy, "interval": [low, high]}
    if validation.cross_validated is None:
        yield Note(f"{text}; evaluate the artifact on more", "few-test-images", **facts)
        return
    text += f"; the accuracy of {other.accuracy:.4f}, cross-validated on the {other.n} other images, says more"
    yield Note(text, "few-test-images", **facts, cross_validated=other.accuracy)


def _drawn(test: Dataset, count: int | None, seed: int) -> tuple[Dataset, tuple[Note, ...]]:
    """Returns the test images to score, with a note if they are a random part of all."""
    if count is None or count >= len(test):
        return test, ()
    rows = np.sort(np.random.default_rng([seed, 29]).choice(len(test), count, replace=False))
    text = f"the budget was enough for {count:,} of {len(test):,} test images, drawn at random; `crossroads evaluate` scores all"
    return test.select(rows), (Note(text, "part-of-test", images=count, total=len(test)),)


def _validation_notes(seen: int, by_weights: int, total: int) -> Iterator[Note]:
    """Yields notes on validation images that training or the weights have seen. A choice should not be based on such images."""
    images = f"of {total} validation images are"
    if seen:
        text = f"{seen} {images} also in train, so they say nothing about new images; `crossroads audit` lists them"
        yield Note(text, "validation-seen-in-training", images=seen, total=total)
    if by_weights:
        text = f"{by_weights} {images} {artifact.SEEN_BY_WEIGHTS}, so they say nothing about new images"
        yield Note(text, "validation-seen-by-weights", images=by_weights, total=total)


def _test_notes(seen: int, by_weights: int, total: int) -> Iterator[Note]:
    """Yields notes on test images that training or the weights have seen."""
    images = f"of {total} test images are"
    if seen:
        yield Note(f"{seen} {images} also in train or validation; {BIASED}", "test-seen-in-training", images=seen, total=total)
    if by_weights:
        text = f"{by_weights} {images} {artifact.SEEN_BY_WEIGHTS}; {BIASED}"
        yield Note(text, "test-seen-by-weights", images=by_weights, total=total)


def _seen(training: TrainingResult) -> NDArray[np.uint8]:
    """Returns the digests of the training images, then of the validation images, uint8 (n, 16)."""
    return np.concatenate([training.train.digests, training.validation.digests])


def _data_facts(partition: Partition, training: TrainingResult) -> dict[str, Any]:
    """Returns the ``data`` of the manifest. The digest of the test is in the metrics, because the test is scored later."""
    used = {"train": training.train, "validation": training.validation}
    splits: dict[str, Any] = {
        name: {"n": len(images.dataset), "digest": split_digest(images.digests, images.dataset.labels, partition.train.classes)}
        for name, images in used.items()
    }
    if partition.test is not None:
        splits["test"] = {"n": partition.test.n}
    labels = np.concatenate([images.dataset.labels for images in used.values()])
    return {
        "origin": training.train.dataset.origin,
        "n": len(labels),
        "digest": split_digest(_seen(training), labels, partition.train.classes),
        "splits": splits,
        "fitted_on": list(training.metrics.fitted_on),
    }
