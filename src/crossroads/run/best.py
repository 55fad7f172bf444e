"""Keeps the best result so far of a run as its artifact, which is always saved, tested and valid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossroads import artifact
from crossroads._runtime.machine import crowding, peak_memory_mb
from crossroads.data.partition import Partition
from crossroads.progress import Note, Relay
from crossroads.run.clock import Clock
from crossroads.run.finish import Outcome, Run, save_and_test
from crossroads.run.folder import RunFolder
from crossroads.run.results import TrainingResult
from crossroads.run.task import Task

KERAS_SECONDS = 10.0
"""Extra seconds to convert a trained Keras model to a graph and compare the two. A frozen network needs neither."""


class BestSoFar:
    """Saves the best result so far.

    Args:
        partition: The images.
        folder: Holds the artifact.
        clock: The time of the run.
        watcher: Receives progress and warnings.

    Attributes:
        kept: Name of the training whose model is saved; "" if there is none.
        test_images: Number of test images to score; None for all.
    """

    def __init__(self, partition: Partition, folder: RunFolder, clock: Clock, watcher: Relay) -> None:
        self._partition, self._folder, self._clock, self._watcher = partition, folder, clock, watcher
        self._seconds = 0.0
        self._about_test: tuple[str, ...] = ()
        self.kept = folder.kept
        self.test_images: int | None = None

    def save(self, name: str, task: Task, fitted: TrainingResult) -> None:
        """Replaces the whole artifact with another result.

        Args:
            name: The name of the training.
            task: The task.
            fitted: Its result.

        Raises:
            CrossroadsError: The artifact cannot be written, or its graph disagrees with its model. The previous artifact
                is kept.
        """
        began = self._clock.now()
        outcome = Outcome(task, fitted, {"interim": True, "candidate": name}, self.test_images)
        run = save_and_test(self._partition, outcome, self._folder, self._clock, self._watcher)
        self._seconds = max(self._seconds, self._clock.now() - began - (0.0 if task.strategy.frozen else self._keras_seconds()))
        self.kept = name
        self._about_test = tuple(note for note in run.metrics["notes"] if getattr(note, "code", "") == "few-test-images")
        validation, budget = run.metrics["validation"], self._clock.budget
        accuracy, kind = validation["accuracy"], "cross-validated" if validation.get("cross_validated") else "validation"
        # If training did not improve on the head that it began with, this head is what was saved.
        credited = task.strategy.name if fitted.improved else f"the first head of {task.strategy.name}"
        self._watcher.note(
            Note(
                f"saved: {credited} of {task.choice.record.name}, {kind} accuracy {accuracy:.3f}, after "
                f"{self._clock.spent:.0f} s" + ("" if budget is None else f" of {budget:.0f} s"),
                "artifact-saved",
                strategy=task.strategy.name,
                backbone=task.choice.record.name,
                improved=fitted.improved,
                accuracy=accuracy,
                seconds=round(self._clock.spent, 1),
            )
        )

    def rename(self, name: str) -> None:
        """Renames the training whose model is saved."""
        self.kept = name
        artifact.amend(self._folder.path, artifact.read_metrics(self._folder.path) | {"candidate": name})

    def expect(self, seconds: float) -> None:
        """Sets the seconds that scoring a result is expected to take, as long as none has been saved."""
        self._seconds = max(self._seconds, seconds)

    def seconds_to_save(self, *, frozen: bool) -> float:
        """Returns the expected seconds to save and test another result, judged by the slowest one so far."""
        return self._seconds + (0.0 if frozen else self._keras_seconds())

    @staticmethod
    def _keras_seconds() -> float:
        return crowding() * KERAS_SECONDS

    def finish(self, selection: Mapping[str, Any]) -> Run:
        """Marks the artifact as final, and adds to its metrics how the strategy was chosen."""
        for note in self._about_test:
            self._watcher.warning(note)
        metrics = artifact.read_metrics(self._folder.path)
        metrics = {name: value for name, value in metrics.items() if name not in ("interim", "candidate")}
        metrics |= {
            "seconds": round(self._clock.spent, 3),
            "peak_memory_mb": peak_memory_mb(),
            "warnings": list(self._watcher.warnings),
            **selection,
        }
        artifact.amend(self._folder.path, metrics)
        return Run(self._folder.path, metrics)
