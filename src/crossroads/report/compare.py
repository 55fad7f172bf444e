"""Puts runs side by side. Runs with the same sealed test are compared image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads import artifact
from crossroads.artifact import Predictions
from crossroads.errors import ArtifactError
from crossroads.evaluation import Interval, Z, paired_difference
from crossroads.files.text import printable
from crossroads.plain import to_plain


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One run of a comparison.

    Attributes:
        run: The folder.
        strategy: Its strategy.
        backbone: Its backbone.
        classes: Number of classes.
        source: Where the accuracy comes from: ``test``, ``cross-validation`` or ``validation``.
        images: Number of images that it was measured on.
        accuracy: The accuracy.
        interval: Its 95 % interval.
        balanced_accuracy: The balanced accuracy on the same images.
        seconds: Time of the run.
        megabytes: Size of the inference graph.
        test: Digest of the test images and their labels; None without a test.
    """

    run: str
    strategy: str
    backbone: str
    classes: int
    source: str
    images: int
    accuracy: float
    interval: Interval
    balanced_accuracy: float
    seconds: float
    megabytes: float
    test: str | None


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between a run and the first one on the same test images.

    Attributes:
        run: The folder of the run.
        images: Number of test images.
        difference: Its accuracy minus that of the first run.
        interval: The 95 % interval of the difference.
        better: Images that only this run classifies correctly.
        worse: Images that only the first run classifies correctly.
    """

    run: str
    images: int
    difference: float
    interval: Interval
    better: int
    worse: int

    @property
    def certain(self) -> bool:
        """Whether the interval does not include 0."""
        return not self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: The runs. The others are compared with the first.
        differences: The difference of each other run with the same test; None for one whose test differs or is not stored.
    """

    runs: tuple[ComparedRun, ...]
    differences: tuple[Difference | None, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON."""
        return to_plain(self)

    def conclusions(self) -> list[str]:
        """Returns one sentence for each run but the first."""
        first = self.runs[0]
        return [
            _paired(difference, first) if difference is not None else _unpaired(run, first)
            for run, difference in zip(self.runs[1:], self.differences, strict=True)
        ]


def compare_runs(folders: Sequence[str | PathLike[str]]) -> Comparison:
    """Compares finished artifacts. Raises `ArtifactError` if there are fewer than two, or if one is not an artifact."""
    if len(folders) < 2:
        raise ArtifactError(
            "a comparison needs at least two runs",
            code="too-few-runs",
            field="runs",
            received=len(folders),
            hint="name two folders that fit wrote",
        )
    runs = tuple(map(_compared, folders))
    tests = [_tested(folder) for folder in folders]
    differences = (_difference(run, test, runs[0], tests[0]) for run, test in zip(runs[1:], tests[1:], strict=True))
    return Comparison(runs, tuple(differences))


def aligned(one: Predictions, other: Predictions) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Returns rows of both in an order in which their images and labels are equal; None if they differ."""
    keys = [np.column_stack([each.digests, each.labels.astype(">i4").view(np.uint8).reshape(-1, 4)]) for each in (one, other)]
    orders = [np.lexsort(key.T[::-1]) for key in keys]
    first, second = (key[order] for key, order in zip(keys, orders, strict=True))
    return (orders[0], orders[1]) if first.shape == second.shape and np.array_equal(first, second) else None


def _compared(folder: str | PathLike[str]) -> ComparedRun:
    manifest, metrics = artifact.open_verified(folder, only=()), artifact.read_metrics(folder)
    source = metrics.get("headline", {}).get("source", "validation" if metrics["test"] is None else "test")
    scores = metrics["test" if source == "test" else "validation"]
    low, high = scores["accuracy_interval"]
    return ComparedRun(
        printable(str(manifest.folder)),
        manifest.strategy,
        manifest.backbone,
        len(manifest.classes),
        source,
        scores["n"],
        scores["accuracy"],
        (low, high),
        scores["balanced_accuracy"],
        metrics["seconds"],
        round(sum(manifest.files[name]["bytes"] for name in artifact.GRAPH) / 1e6, 2),
        None if metrics["test"] is None else str(metrics["test"]["digest"]),
    )


def _tested(folder: str | PathLike[str]) -> Predictions | None:
    held_out = artifact.read_held_out(folder)
    return None if held_out is None else held_out.test


def _difference(run: ComparedRun, test: Predictions | None, first: ComparedRun, other: Predictions | None) -> Difference | None:
    """Returns the difference of a run and the first one; None if their tests differ or are not stored."""
    if test is None or other is None or run.test != first.test:
        return None
    rows = aligned(test, other)
    if rows is None:
        return None
    mine, its = test.correct[rows[0]], other.correct[rows[1]]
    difference, error = paired_difference(mine, its, None if test.groups is None else test.groups[rows[0]])
    interval = max(-1.0, difference - Z * error), min(1.0, difference + Z * error)
    return Difference(run.run, len(mine), difference, interval, int((mine & ~its).sum()), int((its & ~mine).sum()))


def _paired(difference: Difference, first: ComparedRun) -> str:
    low, high = (100 * limit for limit in difference.interval)
    points = 100 * difference.difference
    figures = f"{points:+.1f} points (95 % interval: {low:+.1f} to {high:+.1f}) on the same {difference.images:,} test images"
    counts = (
        f"it is right on {difference.better} images where the first is wrong, and wrong on {difference.worse} where it is right"
    )
    if not difference.better and not difference.worse:
        return f"{difference.run} and {first.run} are right on the same images of the {difference.images:,} test images"
    if difference.certain:
        return f"{difference.run} is {'better' if points > 0 else 'worse'} than {first.run}: {figures}; {counts}"
    return f"{difference.run} and {first.run} may be equally good: {figures}; {counts}"


def _unpaired(run: ComparedRun, first: ComparedRun) -> str:
    same = run.test is not None and run.test == first.test
    why = "the predictions of one of them are not stored" if same else "they were not tested on the same images"
    low, high = max(run.interval[0], first.interval[0]), min(run.interval[1], first.interval[1])
    overlap = "their intervals overlap" if low <= high else "their intervals do not overlap"
    return f"{run.run} and {first.run} can only be compared by their intervals, because {why}: {overlap}"
