"""Runs a race: asks for the next action, trains, records the result, and keeps what does best on validation.

Every run has checkpoints of its own, and a row in ``race.json`` once it has ended. The next action follows from the rows, so an
interrupted race plays its decisions again from them and continues.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from crossroads._runtime.faults import is_failure
from crossroads._runtime.process import release_memory
from crossroads.errors import CrossroadsError, DataError, RecipeError
from crossroads.evaluation import effective_count
from crossroads.progress import EpochRecord, Relay, StopTraining, StopWithinEpoch, Watcher, stage
from crossroads.race import messages
from crossroads.race.decisions import Results, Run, Skip, next_actions
from crossroads.race.kfold import affordable_folds, correct_out_of_fold, cross_validate_training, judged_by_folds
from crossroads.race.posterior import expected_after
from crossroads.race.records import CandidateRun, Plan, RaceReport, RunRow, keep_state, stored_state
from crossroads.recipe import Recipe
from crossroads.run.folder import RunFolder
from crossroads.run.results import HeldOut, TrainingResult
from crossroads.run.task import Task
from crossroads.run.train import train
from crossroads.strategies import strategy

LOGGER = logging.getLogger(__name__)

LATE = 0.05
"""Fraction of the budget by which an epoch may exceed it. Stopping in the middle of an epoch loses the epoch. The command must end
within 1.1 times the budget and 15 s, and what is left of that is for restoring, exporting and scoring on a busy machine."""


class Keeper(Protocol):
    """Saves the best result so far. `run.best.BestSoFar` is one."""

    kept: str
    """Name of the run whose model is saved; "" if there is none."""

    def save(self, name: str, task: Task, fitted: TrainingResult) -> None:
        """Replaces what is saved by the result of a run."""
        ...

    def seconds_to_save(self, *, frozen: bool) -> float:
        """Returns the seconds that saving a result is expected to take."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class RaceResult:
    """The outcome of a race. The keeper has saved the winner.

    Attributes:
        results: Every run.
        report: The race as ``metrics.json`` holds it.
        skipped: The last decision not to run a candidate, by its index in the plan.
    """

    results: Results
    report: RaceReport
    skipped: Mapping[int, Skip]


def race(plan: Plan, task_of: Callable[[Recipe], Task], folder: RunFolder, keeper: Keeper, watcher: Watcher) -> RaceResult:
    """Runs a race. A run that is better than all before it is saved as soon as it ends.

    Ctrl-C ends it and keeps the best finished candidate, if there is one. A candidate that fails is abandoned, and the log has the
    traceback. A run that exceeds the budget ends with its epoch, or without it once the epoch is late by a twentieth of the budget.
    If it is the only answer, even a part of its first epoch counts. With very few validation images, the best training is compared
    with the best head by a cross-validation, if there is time for it. The race fails only if all candidates fail. An exception of
    the watcher (other than `StopTraining`) or a bug ends the race, which can be resumed.

    Args:
        plan: The candidates.
        task_of: Returns the task of a candidate's recipe.
        folder: Holds the checkpoints and results of the runs.
        keeper: Saves the best result so far.
        watcher: Receives progress and warnings.

    Raises:
        CrossroadsError: No candidate can be trained.
    """
    return _Race(plan, task_of, folder, keeper, watcher).run()


class _Race:
    def __init__(self, plan: Plan, task_of: Callable[[Recipe], Task], folder: RunFolder, keeper: Keeper, watcher: Watcher) -> None:
        self._task_of, self._folder, self._keeper, self._watcher = task_of, folder, keeper, watcher
        self._path = folder.scratch / "race.json"
        self._state = stored_state(self._path)
        # A failure may have had a cause that has passed, such as a full disk. It is tried again.
        self._state.runs = {name: run for name, run in self._state.runs.items() if not run.failed or run.out_of_time}
        self._results = Results(plan)
        self._skipped: dict[int, Skip] = {}
        self._folds: dict[str, HeldOut] = {}
        self._seconds_of_folds = 0.0

    def run(self) -> RaceResult:
        plan, stopped = self._results.plan, False
        if len(plan.candidates) > 1:
            self._watcher.note(messages.started(plan))
        try:
            running = True
            while running:
                running = False
                actions = next_actions(plan, self._results.runs)
                self._note_skipped([action for action in actions if isinstance(action, Skip)])
                for action in actions:
                    if isinstance(action, Run):
                        self._results = replace(self._results, runs=(*self._results.runs, self._run(action)))
                        running = True
            self._cross_validate()
        except KeyboardInterrupt:
            if not self._results.answers():
                raise
            stopped = True
            self._watcher.note(messages.stopped())
        return self._finished(stopped)

    def _note_skipped(self, skipped: Sequence[Skip]) -> None:
        """Says why candidates do not run, those with one reason together. A rung that is left out matters only to the log."""
        for reason in dict.fromkeys(skip.reason for skip in skipped):
            note = messages.skipped(self._results, [skip for skip in skipped if skip.reason == reason])
            if reason in ("no-first-rung", "no-time-in-first-rung"):
                LOGGER.debug("%s", note)
            else:
                self._watcher.note(note)
        self._skipped |= {skip.candidate: skip for skip in skipped}

    def _cross_validate(self) -> None:
        """With very few validation images, compares the best training with the best head on folds, if there is time for it."""
        results = self._results
        run = results.contender()
        if run is None:
            return
        candidate, relay = results.candidate(run.candidate), Relay(self._watcher)
        reserve = partial(self._keeper.seconds_to_save, frozen=False)
        left = results.left
        count = affordable_folds(run.seconds, left - reserve())
        if not count:
            self._watcher.note(messages.without_folds(results, run, messages.NO_TIME))
            return
        self._watcher.note(messages.folds_started(results, run, count))
        began, reason = time.perf_counter(), messages.NO_TIME
        try:
            task = self._task_of(replace(candidate.recipe, epochs=run.planned))
            found = cross_validate_training(task, count, self._folder, run.name, time_limit(relay, left, reserve=reserve))
        except Exception as error:
            relay.raise_again()
            if not isinstance(error, StopTraining | CrossroadsError) and not is_failure(error):
                raise
            LOGGER.info("the cross-validation of %s ended", run.name, exc_info=error)
            found = None
            reason = messages.NO_TIME if isinstance(error, StopTraining) else _first_line(error)
        self._seconds_of_folds = time.perf_counter() - began
        if found is None:
            self._watcher.note(messages.without_folds(results, run, reason))
            return
        self._folds[run.name] = found.held_out
        judged = judged_by_folds(run, found)
        self._results = replace(results, runs=tuple(judged if each is run else each for each in results.runs))
        self._watcher.note(messages.folds_compared(self._results, judged, self._results.best_head()))

    def _run(self, action: Run) -> CandidateRun:
        """Returns the stored result of a run, or trains it, from its checkpoints if it has some, and stores its result."""
        number = 1 + sum(run.candidate == action.candidate for run in self._results.runs)
        name = f"candidate-{action.candidate:02d}-run-{number}"
        if name in self._state.runs:
            return self._state.runs[name]
        # A run that was begun keeps its epochs, because its checkpoints belong to a schedule of this length.
        epochs = self._state.begun.setdefault(name, action.epochs)
        keep_state(self._state, self._path)
        self._watcher.note(messages.run_started(self._results, action.candidate, epochs, name))
        with stage(self._watcher.progress, f"trying {self._results.candidate(action.candidate).recipe.strategy}"):
            run = self._train(name, replace(action, epochs=epochs))
        release_memory()  # the networks of the run
        run = replace(run, seconds=round(run.seconds, 3), epoch_seconds=round(run.epoch_seconds, 4))
        self._state.runs[name] = run
        keep_state(self._state, self._path)
        return run

    def _train(self, name: str, action: Run) -> CandidateRun:
        candidate, budget = self._results.candidate(action.candidate), self._results.plan.budget
        recipe = replace(candidate.recipe, epochs=action.epochs)
        place, relay, began = self._folder.candidate_run(name), Relay(self._watcher), time.perf_counter()
        try:
            earlier = place.spent  # by a process that was killed
            left = (action.until or budget) - self._results.spent - earlier
            reserve = partial(self._keeper.seconds_to_save, frozen=strategy(recipe.strategy).frozen)
            limit = time_limit(relay, left, LATE * budget, reserve=reserve, needed=action.needed)
            task = self._task_of(recipe)
            fitted = train(task, place, limit)
        except (RecipeError, DataError):  # a mistake of the user, which every candidate would repeat
            raise
        except Exception as error:
            relay.raise_again()
            return self._abandoned(name, action, error, time.perf_counter() - began)
        seconds = earlier + time.perf_counter() - began
        run = completed(
            CandidateRun(name, action.candidate, action.epochs, action.epochs, recipe == candidate.recipe, seconds), fitted
        )
        if fitted.stopped:
            self._watcher.note(messages.ended_early(candidate, run))
        results = replace(self._results, runs=(*self._results.runs, run))
        if run in results.answers() and results.winner() is run:
            self._keeper.save(name, task, fitted)
        return replace(run, seconds=earlier + time.perf_counter() - began)

    def _abandoned(self, name: str, action: Run, error: Exception, seconds: float) -> CandidateRun:
        """Returns the run with the reason for its failure. Raises the error if it is a bug, or if no candidate is left."""
        out_of_time = isinstance(error, StopTraining)
        if not out_of_time and not isinstance(error, CrossroadsError) and not is_failure(error):
            raise error
        if action.needed and action.last_chance:
            self._watcher.warning(messages.none_trained())
            raise error
        candidate, epochs = self._results.candidate(action.candidate), None if action.epochs is None else 0
        reason = messages.OUT_OF_TIME if out_of_time else _first_line(error)
        run = CandidateRun(name, action.candidate, action.epochs, epochs, False, seconds, failed=reason, out_of_time=out_of_time)
        if out_of_time:
            self._watcher.note(messages.abandoned(candidate, run))
        else:
            LOGGER.error("%s of %s was abandoned", candidate.recipe.strategy, candidate.recipe.backbone, exc_info=error)
            self._watcher.warning(messages.abandoned(candidate, run))
        return run

    def _finished(self, stopped: bool) -> RaceResult:
        results = self._results
        winner = results.winner()
        held_out = self._folds.get(winner.name)
        if self._keeper.kept != winner.name or held_out is not None:  # load its checkpoints
            recipe = results.candidate(winner.candidate).recipe
            task = self._task_of(recipe if winner.planned is None else replace(recipe, epochs=winner.planned))
            fitted = train(task, self._folder.candidate_run(winner.name), self._watcher)
            self._keeper.save(winner.name, task, fitted if held_out is None else replace(fitted, held_out=held_out))
        why = messages.won(results)
        several = len(results.plan.candidates) > 1
        if several:
            self._watcher.note(why)
        if several and results.spent > (1 + LATE) * results.plan.budget:
            self._watcher.note(messages.over_budget(results))
        rows = tuple(_row(results, run, won=run is winner) for run in results.runs)
        spent = results.spent + self._seconds_of_folds
        return RaceResult(results, RaceReport(results.plan.budget, spent, stopped, rows, why), self._skipped)


def _row(results: Results, run: CandidateRun, *, won: bool) -> RunRow:
    candidate = results.candidate(run.candidate)
    return RunRow(
        strategy=str(candidate.recipe.strategy),
        backbone=str(candidate.recipe.backbone),
        epochs=run.epochs,
        usual_epochs=candidate.recipe.epochs,
        whole=run.whole,
        seconds=run.seconds,
        expected=expected_after(candidate, run.epochs or candidate.recipe.epochs, ()) if candidate.estimated else None,
        validation_accuracy=run.validation_accuracy,
        validation_loss=run.validation_loss,
        posterior=results.posterior(run) if candidate.estimated and not run.failed else None,
        failed=run.failed or None,
        won=won,
        images=run.images,
        improved=run.improved,
    )


def time_limit(
    watcher: Watcher, seconds: float, late: float = 0.0, *, reserve: Callable[[], float] = lambda: 0.0, needed: bool = False
) -> Relay:
    """Returns a watcher that ends a run after an epoch once its time is over, and anywhere else `late` seconds later.

    Args:
        watcher: Receives the progress.
        seconds: Seconds for the run and for saving it.
        late: Seconds by which an epoch may exceed them.
        reserve: Returns the seconds for saving. It is asked again and again, because the machine may become busy meanwhile.
        needed: Whether the run must have a result. Its images are then always read, and a part of its first epoch is enough.
    """
    end = time.perf_counter() + seconds

    def is_over(after: float = 0.0) -> bool:
        return time.perf_counter() + reserve() > end + after

    def after_epoch(record: EpochRecord, total: int) -> None:
        if record.epoch < total and is_over():
            raise StopTraining

    def after_step(epoch: int, done: int, total: int) -> None:
        if not is_over(late):
            return
        if needed and epoch == 1 and done < total:
            watcher.warning(messages.epoch_shortened(done, total))
        raise StopWithinEpoch if needed else StopTraining

    def after_progress() -> None:
        if not needed and is_over(late):
            raise StopTraining

    return Relay(watcher, after_progress=after_progress, after_step=after_step, after_epoch=after_epoch)


def completed(run: CandidateRun, fitted: TrainingResult) -> CandidateRun:
    """Returns a run with its validation scores and the seconds of its epochs."""
    scored = fitted.validation if fitted.held_out is None else fitted.held_out.images
    dataset = scored.dataset
    images = len(dataset) if dataset.groups is None else effective_count(dataset.groups)
    accuracy, loss = fitted.validation_accuracy, fitted.validation_loss
    run = replace(run, validation_accuracy=accuracy, validation_loss=loss, images=images, improved=fitted.improved)
    if fitted.held_out is not None and fitted.held_out.cross_validated:
        crossed = correct_out_of_fold(fitted.held_out, fitted.train.dataset, fitted.validation.dataset)
        run = replace(run, crossed=crossed)
    if fitted.validation_correct is not None:
        run = replace(run, correct="".join("01"[int(one)] for one in fitted.validation_correct))
    if run.planned is None:
        return run
    last_phase = [record for record in fitted.history if record.phase == fitted.history[-1].phase]
    run = replace(run, epoch_seconds=_typical_seconds(last_phase))
    return replace(run, epochs=len(last_phase), whole=False) if fitted.stopped else run


def _typical_seconds(records: Sequence[EpochRecord]) -> float:
    """Returns the median seconds of an epoch. The first, which also builds the graph, counts only if it is alone."""
    return float(np.median([record.seconds for record in records[1:] or records]))


def _first_line(error: Exception) -> str:
    """Returns the reason of a failure in one line."""
    if isinstance(error, CrossroadsError):
        return str(error)
    line = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line[:300]}"
