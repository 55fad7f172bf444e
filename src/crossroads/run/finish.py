"""The proof of a run: what was trained is saved, loaded again as its users will load it, and scored.

The test is unsealed here and nowhere else: to score it, and to tell whether the images of a finished run are still the same.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads import artifact
from crossroads._runtime.machine import peak_memory_mb
from crossroads.data.images import Resize
from crossroads.data.loading import digests_of, load_all, refusal_notes
from crossroads.data.partition import BIASED, Partition, count_seen
from crossroads.data.splits import split_digest
from crossroads.errors import DataError
from crossroads.features.lookup import resize_of
from crossroads.predictor import Predictor, score, score_pixels
from crossroads.progress import Relay, Watcher
from crossroads.run.folder import RunFolder
from crossroads.run.task import Task
from crossroads.run.train import Fitted, Side
from crossroads.training.checkpoint import history_csv

PARITY_IMAGES = (64, 256)
"""Least and most validation images on which model and graph are compared: the most up to `PARITY_SIZE` pixels, fewer above, since
Keras computes them layer by layer."""

PARITY_SIZE = 112


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run. It stands for its folder wherever a path is taken, as in ``crossroads.load(run)``.

    Attributes:
        artifact: The folder.
        metrics: What was measured, as in ``metrics.json``: backbone, strategy, seconds, peak_memory_mb, validation, test, …
    """

    artifact: Path
    metrics: dict[str, Any]

    def __fspath__(self) -> str:
        return os.fspath(self.artifact)

    @property
    def seen_in_training(self) -> int | None:
        """Test images that are also in train or validation; None without a test."""
        test = self.metrics["test"]
        return None if test is None else int(test["seen_in_training"])

    @property
    def refused(self) -> list[dict[str, str]]:
        """The images that could not be read, each with its ``split``, ``name`` and ``reason``."""
        return list(self.metrics["refused"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user was warned of."""
        return tuple(self.metrics["warnings"])

    def to_json(self) -> dict[str, Any]:
        """The metrics with the folder and `seen_in_training`, for a program to read."""
        return {"artifact": str(self.artifact), "seen_in_training": self.seen_in_training, **self.metrics}


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What was trained and is to be tested.

    Attributes:
        task: What for.
        fitted: What came of it.
        facts: More for ``metrics.json``, such as the advice and the race.
    """

    task: Task
    fitted: Fitted
    facts: dict[str, Any] = field(default_factory=dict)


def save_and_test(partition: Partition, trained: Outcome, folder: RunFolder, started: float, watcher: Relay) -> Run:
    """Save what was trained, score what was saved, and leave the artifact with its scores.

    Args:
        partition: The images; their test is unsealed once, here.
        trained: What was trained on them.
        folder: Where the artifact goes.
        started: When this process began with the run, on the clock of `time.perf_counter`.
        watcher: Receives progress and warnings; the artifact keeps all that it has received by then.

    Raises:
        CrossroadsError: The artifact cannot be written, or its graph disagrees with its model; there is none then.
    """
    task, fitted = trained.task, trained.fitted
    before = artifact.seen_by_weights(task.recipe.weights)
    contents = artifact.Contents(
        model=fitted.model,
        classes=partition.train.classes,
        resize=resize_of(task.recipe),
        recipe=task.recipe,
        history=history_csv(fitted.history),
        seen=np.concatenate([_seen(fitted), before]),
        data=_data_facts(partition, fitted),
        parity_images=_spread(fitted.validation, resize_of(task.recipe)),
    )
    with artifact.draft(folder.path, contents) as draft:
        # What is scored is what was saved, as it will be loaded.
        predictor = Predictor.load(draft.path)
        validation = _validation(predictor, fitted, before, watcher)
        scores = {"validation": validation, **_test(predictor, partition, fitted, before, validation["warnings"], watcher)}
        cost = {"seconds": round(folder.spent + time.perf_counter() - started, 3), "peak_memory_mb": peak_memory_mb()}
        metrics = {
            "backbone": task.choice.record.name,
            "strategy": task.strategy.name,
            **cost,
            **fitted.facts,
            **scores,
            "warnings": list(watcher.warnings),
            **trained.facts,
        }
        draft.finish(metrics)
    return Run(folder.path, metrics)


def require_same_images(partition: Partition, facts: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Raises `DataError` where the images or labels of a side are not those that a finished run has, wherever they lie now.

    Args:
        partition: The images; their test, which that run has scored, is unsealed to compare its digest.
        facts: What the artifact says of its data.
        metrics: Of the run.
    """
    known = {name: facts["splits"][name]["digest"] for name in ("train", "validation")}
    sides = {"train": partition.train, "validation": partition.validation}
    if partition.test is not None:
        known["test"], sides["test"] = (metrics["test"] or {}).get("digest"), partition.test.unseal()
    for name, rows in sides.items():
        refused = {row["name"].removeprefix(facts["origin"]) for row in metrics["refused"] if row["split"] == name}
        kept = rows.select([row for row in range(len(rows)) if rows.name(row).removeprefix(rows.origin) not in refused])
        if split_digest(digests_of(kept), kept.labels, kept.classes) != known[name]:
            raise DataError(
                f"the {name} images or labels differ from those of the finished run",
                received=kept.origin,
                hint="choose another --out",
            )


def _spread(side: Side, resize: Resize) -> NDArray[np.uint8]:
    """Images from all over, since those of one class often stand together."""
    least, most = PARITY_IMAGES
    count = max(least, min(most, most * PARITY_SIZE**2 // resize.size**2, len(side.dataset)))
    rows = np.linspace(0, len(side.dataset) - 1, min(count, len(side.dataset))).astype(np.int64)
    return load_all(side.dataset.select(rows), resize).pixels if side.pixels is None else side.pixels[rows]


def _validation(predictor: Predictor, fitted: Fitted, before: NDArray[np.uint8], watcher: Watcher) -> dict[str, Any]:
    """Scores of what chose, with a warning where it says too little of new images."""
    side = fitted.validation
    if side.pixels is None:
        evaluation = score(predictor, side.dataset, True, watcher, stage="validating")[1]
    else:
        evaluation = score_pixels(predictor, side.pixels, side.dataset)
    seen = count_seen(side.digests, fitted.train.digests)
    warnings = _seen_by_validation(seen, len(side.dataset), count_seen(side.digests, before))
    for warning in warnings:
        watcher.warning(warning)
    return replace(evaluation, seen_in_training=seen, refused=side.refusals, warnings=tuple(warnings)).to_json()


def _test(
    predictor: Predictor,
    partition: Partition,
    fitted: Fitted,
    before: NDArray[np.uint8],
    of_validation: list[str],
    watcher: Watcher,
) -> dict[str, Any]:
    """The final evaluation, with the notes of the run."""
    refusals = {"train": fitted.train.refusals, "validation": fitted.validation.refusals}
    notes = [*partition.notes, *fitted.notes, *of_validation]
    facts: dict[str, Any] = {"test": None}
    if partition.test is not None:
        scored, evaluation = score(predictor, partition.test.unseal(), partition.recipe.strict, watcher)
        refusals["test"] = scored.refusals
        seen = count_seen(scored.digests, _seen(fitted))
        warnings: list[str] = list(refusal_notes("the test", scored.refusals))
        if seen:
            warnings.append(f"{seen} of {len(scored.dataset)} test images are also in train or validation; {BIASED}")
        learned = count_seen(scored.digests, before)
        if learned:
            warnings.append(f"{learned} of {len(scored.dataset)} test images are {artifact.SEEN_BY_WEIGHTS}; {BIASED}")
        for warning in warnings:
            watcher.warning(warning)
        notes += warnings
        digest = split_digest(scored.digests, scored.dataset.labels, partition.train.classes)
        evaluation = replace(evaluation, seen_in_training=seen, warnings=tuple(warnings))
        facts = {"test": evaluation.to_json() | {"seen_by_weights": learned, "digest": digest}}
    return facts | {
        "refused": [{"split": side, **refusal.to_json()} for side, refused in refusals.items() for refusal in refused],
        "notes": notes,
    }


def _seen_by_validation(seen: int, n: int, learned: int) -> list[str]:
    """A sentence where validation, which chooses, has images of train, or images that the weights have learned from."""
    of_all, said = f"of {n} validation images are", []
    if seen:
        said.append(f"{seen} {of_all} also in train and say nothing of new ones; `crossroads audit` lists them")
    if learned:
        said.append(f"{learned} {of_all} {artifact.SEEN_BY_WEIGHTS}, and say nothing of new ones")
    return said


def _seen(fitted: Fitted) -> NDArray[np.uint8]:
    """Digests of what was trained on, then of what it was chosen by, uint8 (n, 16)."""
    return np.concatenate([fitted.train.digests, fitted.validation.digests])


def _data_facts(partition: Partition, fitted: Fitted) -> dict[str, Any]:
    """What the artifact says of its data. The test's digest stands with its scores, when it has been scored."""
    sides = {"train": fitted.train, "validation": fitted.validation}
    splits: dict[str, Any] = {
        name: {"n": len(side.dataset), "digest": split_digest(side.digests, side.dataset.labels, partition.train.classes)}
        for name, side in sides.items()
    }
    if partition.test is not None:
        splits["test"] = {"n": partition.test.n}
    labels = np.concatenate([side.dataset.labels for side in sides.values()])
    return {
        "origin": fitted.train.dataset.origin,
        "n": len(labels),
        "digest": split_digest(_seen(fitted), labels, partition.train.classes),
        "splits": splits,
    }
