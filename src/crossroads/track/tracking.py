"""Decides what of a run is logged, and when. Keeps a tracker that fails away from the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from crossroads.errors import RecipeError, did_you_mean
from crossroads.progress import EpochRecord, Note, Relay, stage
from crossroads.recipe import Recipe
from crossroads.run.finish import Run
from crossroads.run.folder import RunFolder
from crossroads.track.facts import epoch_figures, result_of, set_parameters
from crossroads.track.tracker import Outcome, Tracker

LOGGER = logging.getLogger(__name__)

TRACKERS = ("tensorboard", "mlflow")

_ABANDONED = ("run-failed", "run-out-of-time")
"""Codes of the notes that a candidate has no result."""


def require_known(name: str | None) -> None:
    """Raises `RecipeError` if no tracker has this name. None is no tracker."""
    if name is not None and name not in TRACKERS:
        raise RecipeError(
            "the tracker is unknown",
            code="unknown-tracker",
            field="track",
            received=repr(name),
            hint=did_you_mean(str(name), TRACKERS),
        )


def connect(name: str, folder: RunFolder) -> Tracker:
    """Returns a tracker by its name.

    Args:
        name: One of `TRACKERS`.
        folder: The folder of the run.

    Raises:
        RecipeError: The name is unknown.
        MissingExtraError: Its library is not installed.
        TrainingError: Its database or server cannot be opened.
    """
    require_known(name)
    if name == "tensorboard":
        from crossroads.track.tensorboard import TensorBoard

        return TensorBoard(folder.event_files)
    from crossroads.track.mlflow import MLflow

    return MLflow(folder.scratch / "tracking.json", folder.path.resolve().name)


@contextmanager
def tracked(name: str | None, folder: RunFolder, recipe: Recipe, watcher: Relay) -> Iterator[Tracking]:
    """Logs a run from its begin to its end.

    Args:
        name: One of `TRACKERS`; None to log nothing.
        folder: The folder of the run.
        recipe: The recipe of the run.
        watcher: Receives progress and warnings.

    Yields:
        The tracking. The run must report to its `watcher`.

    Raises:
        CrossroadsError: The tracker is not available. Nothing has begun.
    """
    if name is None:
        yield Tracking(None, "", watcher)
        return
    with stage(watcher.progress, f"connecting to {name}"):
        tracking = Tracking(connect(name, folder), name, watcher)
        tracking.begin(recipe)
    try:
        yield tracking
    except BaseException as error:
        tracking.close("stopped" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    tracking.close("finished")


class Tracking:
    """Logs one run.

    Args:
        tracker: Where to log it; None for nowhere.
        name: Name of the tracker.
        watcher: Receives progress and warnings.

    Attributes:
        watcher: Forwards to `watcher`, and logs what is reported.
    """

    def __init__(self, tracker: Tracker | None, name: str, watcher: Relay) -> None:
        self._tracker, self._name = tracker, name
        self._in_candidate = self._in_folds = False
        self.watcher = watcher if tracker is None else Relay(watcher, after_note=self._note, after_epoch=self._epoch)

    def begin(self, recipe: Recipe) -> None:
        """Logs the fields of the recipe that the user set."""
        self._try(lambda tracker: tracker.begin(set_parameters(recipe)))

    def finish(self, run: Run) -> Run:
        """Logs the result of the run. Returns the run."""
        self._end_candidate("finished")
        self._try(lambda tracker: tracker.finish(result_of(run)))
        return run

    def close(self, outcome: Outcome) -> None:
        """Ends the run."""
        self._end_candidate(outcome)
        self._try(lambda tracker: tracker.close(outcome))
        self._tracker = None

    def _note(self, text: str) -> None:
        """Begins or ends a candidate if a note says so."""
        if not isinstance(text, Note):
            return
        if text.code == "run-started":
            self._end_candidate("finished")
            facts: dict[str, Any] = {name: text.figures[name] for name in ("strategy", "backbone", "epochs")}
            given = {name: value for name, value in facts.items() if value is not None}
            self._try(lambda tracker: tracker.begin_candidate(text.figures["run"], given))
            self._in_candidate, self._in_folds = True, False
        elif text.code in _ABANDONED:
            self._end_candidate("failed")
        elif text.code == "folds-started":
            self._in_folds = True

    def _epoch(self, record: EpochRecord, total: int) -> None:
        """Logs an epoch. Those of a cross-validation are left out, because every fold would have the same steps."""
        if not self._in_folds:
            self._try(lambda tracker: tracker.epoch(epoch_figures(record), record.epoch))

    def _end_candidate(self, outcome: Outcome) -> None:
        if self._in_candidate:
            self._in_candidate = False
            self._try(lambda tracker: tracker.end_candidate(outcome))

    def _try(self, log: Callable[[Tracker], object]) -> None:
        """Logs something. The first failure of the tracker is a warning, and nothing more is logged."""
        tracker = self._tracker
        if tracker is None:
            return
        try:
            log(tracker)
        except Exception as error:  # of any kind: no tracker may spoil a run
            self._tracker = None
            LOGGER.info("%s failed", self._name, exc_info=error)
            reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
            text = f"{self._name} failed, so the rest of the run is not logged there: {reason}"
            self.watcher.warning(Note(text, "tracker-failed", tracker=self._name, reason=reason))
