"""The race: what was advised is tried within a budget, the surest first, and what does best on validation is kept.

The first to run is the best head on frozen features, which takes seconds. Those that train the network then run for a quarter of
their epochs, and the better half of them again, for all of their epochs or as many as the budget has room for (successive halving:
Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943). Each run has a whole schedule, however short, so what a short one
reached is an answer too. Libraries for such searches (Optuna, Ray Tune) look for numbers in a space; here a handful of known
candidates takes turns.

Every trial has checkpoints of its own and a line in ``race.json`` once it is done. What is run next follows from what was run, so a
race that was killed is played again from those lines and goes on.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crossroads._runtime.faults import is_failure
from crossroads.advice.candidates import TIE
from crossroads.advice.cost import format_seconds
from crossroads.advice.estimate import Estimate
from crossroads.errors import CrossroadsError, RecipeError
from crossroads.evaluation import effective_count
from crossroads.progress import EpochRecord, Relay, StopTraining, Watcher
from crossroads.race.posterior import epochs_within, expected_after, planned_seconds, posterior_of_run
from crossroads.race.records import OUT_OF_TIME, CandidateRun, Plan, RaceCandidate, keep_done, stored_done
from crossroads.recipe import Recipe
from crossroads.run.folder import RunFolder
from crossroads.run.task import Task
from crossroads.run.train import TrainingResult, train
from crossroads.strategies import strategy

LOGGER = logging.getLogger(__name__)

ONE_EPOCH = "one epoch, start and end included,"
"""What the seconds of the shortest training are those of, in words."""

REDUCTION_FACTOR = 4
"""Share of the epochs of a first turn: one in so many."""

LATE = 0.1
"""Share of the budget that an epoch may go on beyond it: its work is lost where it is broken off."""

AGAIN = 2
"""How many times its epochs a candidate must have room for to be run again, where it took less time than was thought."""

WORTH_TRYING = 0.005
"""Accuracy by which the upper end of what is expected of a candidate must beat the best so far for it to be tried."""


def _in_words(error: Exception) -> str:
    """Why a trial was abandoned."""
    if isinstance(error, StopTraining):
        return OUT_OF_TIME
    if isinstance(error, CrossroadsError):
        return str(error)
    said = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said[:300]}"


def _clocked(watcher: Watcher, seconds: float, late: float) -> Relay:
    """A watcher that ends a trial: after an epoch once its time is over and epochs are left, anywhere else `late` seconds later."""
    end = time.perf_counter() + seconds

    def between(record: EpochRecord, total: int) -> None:
        if record.epoch < total and time.perf_counter() > end:
            raise StopTraining

    def within() -> None:
        if time.perf_counter() > end + late:
            raise StopTraining

    return Relay(watcher, after_progress=within, after_step=within, after_epoch=between)


@dataclass(frozen=True, slots=True, eq=False)
class Raced:
    """How a race ended.

    Attributes:
        task: What the winner was trained for.
        fitted: The winner.
        facts: For ``metrics.json``: budget, every trial, the winner, and why it won.
    """

    task: Task
    fitted: TrainingResult
    facts: dict[str, Any]


def race(plan: Plan, task_of: Callable[[Recipe], Task], folder: RunFolder, watcher: Watcher) -> Raced:
    """Run the race.

    Ctrl-C ends it: the best finished candidate is kept, if there is one. A candidate that fails is abandoned, and the log has
    its traceback. One that is running when the budget is spent ends with its epoch, or a tenth of the budget later with the one
    before. The race fails only if all candidates do. An exception from the watcher (other than `StopTraining`) or a bug ends the
    race; it can be resumed.

    Args:
        plan: Which candidates to race.
        task_of: From a candidate's recipe to what is to be carried out.
        folder: Holds a trial's checkpoints and what was reached.
        watcher: Receives progress and warnings.

    Raises:
        CrossroadsError: No candidate can be trained.
    """
    return _Race(plan, task_of, folder, watcher).run()


class _Race:
    def __init__(self, plan: Plan, task_of: Callable[[Recipe], Task], folder: RunFolder, watcher: Watcher) -> None:
        self._plan, self._task_of, self._folder, self._watcher = plan, task_of, folder, watcher
        self._kept = folder.scratch / "race.json"
        done = stored_done(self._kept)
        # What failed may have failed for a reason that has passed, such as a full disk: it is tried again.
        self._done = replace(done, trials={name: trial for name, trial in done.trials.items() if trial.failed in ("", OUT_OF_TIME)})
        self._trials: tuple[CandidateRun, ...] = ()
        self._best: tuple[str, Task, TrainingResult] | None = None
        self._stopped = False

    def run(self) -> Raced:
        candidates = self._plan.candidates
        frozen = [i for i, one in enumerate(candidates) if strategy(one.recipe.strategy).frozen]
        trained = [i for i in range(len(candidates)) if i not in frozen]
        names = ", ".join(f"{_called(one.recipe)} {one.accuracy.value:.3f}" for one in candidates)
        budget = format_seconds(self._plan.budget)
        self._watcher.note(f"a race within {budget} s, Ctrl-C keeps the best finished candidate; expected with all epochs: {names}")
        try:
            for index in frozen:
                self._head(index, alone=index == frozen[-1] and not trained)
            while trained and not self._answers():  # the first answer has to come from another
                index, *trained = trained
                least = 1 if candidates[index].shortens else candidates[index].recipe.epochs
                self._try(index, self._room_for(index) or least, needed=True, alone=not trained)
                if not trained and not any(trial.whole for trial in self._of(index)):
                    trained = [index]  # which may go on, where it took less time than was thought
                    break
            self._halved(trained)
        except KeyboardInterrupt:
            if not self._answers():
                raise
            self._stopped = True
            self._watcher.note("stopped: the best finished candidate is kept; it is now tested and saved, which takes some seconds")
        return self._ended()

    def _head(self, index: int, *, alone: bool) -> None:
        """A head on frozen features: the first one whatever the time, a further one if there are hope and time for it."""
        candidate, left = self._candidate(index), self._plan.budget - self._spent()
        if not self._answers():
            self._try(index, None, needed=True, alone=alone)
        elif not self._hoped_for(index, None):
            self._leave(index, self._no_hope(index, None))
        elif left <= 0:
            self._leave(index, "the budget is spent")
        elif candidate.seconds > left:
            self._leave(index, f"it takes about {candidate.seconds:,.0f} s, and {left:,.0f} are left")
        else:
            self._try(index, None)

    def _halved(self, trained: list[int]) -> None:
        """A quarter of the epochs each, then the better half to their end, or for as long as there is time."""
        left = [index for index in trained if self._may_run(index)]
        places = math.ceil(len(left) / 2)
        turns_due = True
        while left and places:
            if turns_due and len(left) > 1 and self._worth_short_turns(left):
                turns_due = False
                self._short_turns(left)
                left = [index for index in left if not self._failed(index)]
                continue
            index = self._most_hopeful(left)
            if any(trial.whole for trial in self._of(index)):  # it has so few epochs that its short turn was all
                places -= 1
                left.remove(index)
            elif not self._may_run(index):
                left.remove(index)
            else:
                self._try(index, self._room_for(index))
                # One that took less time than was thought may go on, if that is worth it, before its place is filled.
                if self._failed(index):
                    left.remove(index)
                    continue  # what is left has its short turns now, if it was for this one that it had none
                turns_due = False
                if self._room_for(index) < AGAIN * (self._of(index)[-1].epochs or 1):
                    left.remove(index)
                    places -= 1
        for index in left:
            if not self._of(index):
                self._leave(index, "those of which more is expected had their turns")

    def _short_turns(self, hopeful: list[int]) -> None:
        until = self._half_time()
        for place, index in enumerate(hopeful):
            self._short_turn(index, until, (until - self._spent()) / (len(hopeful) - place))

    def _half_time(self) -> float:
        """When short turns end: the other half is for those that go on."""
        return (self._spent() + self._plan.budget) / 2

    def _worth_short_turns(self, hopeful: list[int]) -> bool:
        """Whether the most hopeful would have one: if not, those of the others tell nothing of it, and take its time."""
        top, left = self._most_hopeful(hopeful), self._half_time() - self._spent()
        for place, index in enumerate(hopeful):
            share = left / (len(hopeful) - place)
            epochs = self._short_epochs(index, share)
            if index == top:
                break
            left -= planned_seconds(self._candidate(index), epochs, ()) if epochs else 0.0
        if not epochs:
            self._watcher.note(
                f"no short turns: {_called(self._candidate(top).recipe)}, of which most is expected with the time that is left, "
                f"would have none, since {self._no_epoch(top, share)}"
            )
        return bool(epochs)

    def _most_hopeful(self, left: list[int]) -> int:
        """Whose accuracy is expected to be highest; before it one within `TIE` of it that leaves it its epochs."""
        room = {index: self._room_for(index) for index in left}
        values = {index: self._expected(index, room[index]).value for index in left}
        takes = {index: planned_seconds(self._candidate(index), room[index], self._of(index)) for index in left}
        top, time_left = max(left, key=values.__getitem__), self._plan.budget - self._spent()
        near = [index for index in left if values[top] - values[index] <= TIE and index != top]
        kept = [i for i in near if epochs_within(self._candidate(top), time_left - takes[i], self._of(top)) >= room[top]]
        return min([top, *kept], key=takes.__getitem__)

    def _may_run(self, index: int) -> bool:
        """Whether there are time and hope for a candidate; if not, the user is told."""
        candidate, epochs, had = self._candidate(index), self._room_for(index), self._of(index)
        if not epochs:
            wanted = 1 + max((trial.epochs or 0 for trial in had), default=0) if candidate.shortens else candidate.recipe.epochs
            more = ONE_EPOCH if wanted == 1 else f"{wanted} epochs"
            takes, left = planned_seconds(candidate, wanted or 1, had), max(0, self._plan.budget - self._spent())
            self._leave(index, f"{more} would take about {takes:,.0f} s, and {left:,.0f} are left")
        elif not self._hoped_for(index, epochs):
            self._leave(index, self._no_hope(index, epochs))
        else:
            return True
        return False

    def _leave(self, index: int, why: str) -> None:
        more = "continued" if self._of(index) else "tried"
        self._watcher.note(f"{_called(self._candidate(index).recipe)} is not {more}: {why}")

    def _no_hope(self, index: int, epochs: int | None) -> str:
        high = expected_after(self._candidate(index), epochs, self._of(index)).high
        return f"{high:.3f} at most is to be hoped for, and the best so far is believed to reach no less"

    def _short_turn(self, index: int, until: float, share: float) -> None:
        """A quarter of the epochs, or as many as its share of the time has room for; it ends where all short turns do."""
        candidate = self._candidate(index)
        epochs = self._short_epochs(index, share)
        if epochs:
            self._try(index, epochs, until=until)
        else:
            self._watcher.note(f"{_called(candidate.recipe)} has no short turn: {self._no_epoch(index, share)}")

    def _no_epoch(self, index: int, share: float) -> str:
        takes = planned_seconds(self._candidate(index), 1, ())
        return f"{ONE_EPOCH} would take about {takes:,.0f} s, and its share of the time is {max(0, share):,.0f} s"

    def _short_epochs(self, index: int, share: float) -> int:
        """A quarter of the epochs, or as many as a share of the time has room for."""
        candidate = self._candidate(index)
        return min(max(1, round((candidate.recipe.epochs or 1) / REDUCTION_FACTOR)), epochs_within(candidate, share, ()))

    def _room_for(self, index: int) -> int:
        """How many epochs the budget has room for; 0 where that is no answer, or no more than there was."""
        candidate, had = self._candidate(index), [trial.epochs or 0 for trial in self._of(index)]
        most = epochs_within(candidate, self._plan.budget - self._spent(), self._of(index))
        return most if most > max(had, default=0) and (candidate.shortens or most == candidate.recipe.epochs) else 0

    def _candidate(self, index: int) -> RaceCandidate:
        return self._plan.candidates[index]

    def _of(self, index: int) -> list[CandidateRun]:
        """What came of a candidate so far."""
        return [trial for trial in self._trials if trial.candidate == index and not trial.failed]

    def _failed(self, index: int) -> bool:
        """Whether a trial of a candidate failed: it is not run again, with more epochs, for the same end."""
        return any(trial.candidate == index and trial.failed for trial in self._trials)

    def _expected(self, index: int, epochs: int) -> Estimate:
        """The accuracy that a candidate would reach with so many epochs; nothing without any."""
        return expected_after(self._candidate(index), epochs, self._of(index)) if epochs else Estimate(0.0, 0.0, 0.0)

    def _spent(self) -> float:
        return self._plan.spent + sum(trial.seconds for trial in self._trials)

    def _answers(self) -> list[CandidateRun]:
        """The trials that are something to show."""
        done = (trial for trial in self._trials if not trial.failed)
        return [trial for trial in done if trial.whole or self._candidate(trial.candidate).shortens]

    def _hoped_for(self, index: int, epochs: int | None) -> bool:
        """Whether more can be hoped of a candidate than is believed of the best so far."""
        hoped = expected_after(self._candidate(index), epochs, self._of(index)).high
        return not self._answers() or hoped > self._belief(self._winner()) + WORTH_TRYING

    def _try(
        self, index: int, epochs: int | None, *, needed: bool = False, alone: bool = False, until: float | None = None
    ) -> None:
        """Run a candidate for some epochs, unless this turn of it is over already.

        One that is `needed`, since there is nothing to show yet, runs whatever the time; its error is the race's if it is `alone`.
        """
        candidate = self._candidate(index)
        called, usual = _called(candidate.recipe), candidate.recipe.epochs
        name = f"candidate-{index:02d}-run-{1 + sum(trial.candidate == index for trial in self._trials)}"
        if name in self._done.trials:
            self._trials = (*self._trials, self._done.trials[name])
            return
        epochs = self._done.begun.setdefault(name, epochs)
        keep_done(self._done, self._kept)
        recipe = candidate.recipe if epochs == usual else replace(candidate.recipe, epochs=epochs)
        part = "" if epochs == usual else f", {epochs} of {usual} epochs"
        self._watcher.note(f"trying {called}{part}: {expected_after(candidate, epochs, self._of(index)).value:.3f} expected")
        place, began, budget, heard = self._folder.candidate_run(name), time.perf_counter(), self._plan.budget, Relay(self._watcher)
        try:
            earlier = place.spent  # of a part that was killed
            left = (until or budget) - self._spent() - earlier
            watcher = heard if needed else _clocked(heard, left, LATE * budget)
            task = self._task_of(recipe)
            fitted = train(task, place, watcher)
        except RecipeError:  # the user's, and the same for every candidate that trains
            raise
        except Exception as error:
            heard.raise_again()
            if not isinstance(error, CrossroadsError | StopTraining) and not is_failure(error):
                raise
            if needed and alone:
                self._watcher.warning(
                    "no candidate could be trained; what the advice measured is kept, and --resume tries them again"
                )
                raise
            why = _in_words(error)
            if isinstance(error, StopTraining):
                self._watcher.note(f"{called} was abandoned: {why}")
            else:
                LOGGER.exception("%s was abandoned", called)
                self._watcher.warning(f"{called} was abandoned: {why}")
            had = None if epochs is None else 0
            self._add(CandidateRun(name, index, epochs, had, False, time.perf_counter() - began, failed=why))
            return
        seconds = earlier + time.perf_counter() - began
        trial = self._add(_reached(CandidateRun(name, index, epochs, epochs, epochs == usual, seconds), fitted))
        if fitted.stopped:
            self._watcher.note(f"{called} ends after {trial.epochs} of {epochs} epochs: its time is over")
        if trial in self._answers() and self._winner().name == name:
            self._best = (name, task, fitted)

    def _winner(self) -> CandidateRun:
        """Of those that do no worse on validation than the first answer, the one that most can be said for.

        A training that kept the head it began with says nothing that a head, which takes a moment, does not say.
        """
        answers = self._answers()
        heads = (trial for trial in answers if strategy(self._candidate(trial.candidate).recipe.strategy).frozen)
        first = next(heads, answers[0])
        no_worse = [trial for trial in answers if trial is first or self._beats(trial, first)]
        return max(no_worse, key=lambda trial: (self._belief(trial), -(trial.validation_loss or 0.0)))

    @staticmethod
    def _beats(trial: CandidateRun, first: CandidateRun) -> bool:
        return trial.accuracy > first.accuracy or (trial.accuracy == first.accuracy and trial.improved)

    def _belief(self, trial: CandidateRun) -> float:
        return posterior_of_run(self._candidate(trial.candidate), trial).value

    def _ended(self) -> Raced:
        winner = self._winner()
        if self._best is None or self._best[0] != winner.name:
            recipe = self._candidate(winner.candidate).recipe
            task = self._task_of(recipe if winner.planned is None else replace(recipe, epochs=winner.planned))
            self._best = (winner.name, task, train(task, self._folder.candidate_run(winner.name), self._watcher))
        _, task, fitted = self._best
        why = self._why(winner)
        self._watcher.note(why)
        spent, budget = self._spent(), self._plan.budget
        if spent > (1 + LATE) * budget:
            self._watcher.note(
                f"all of it took {format_seconds(spent)} s, and the budget was {format_seconds(budget)} s: the evidence took "
                f"{format_seconds(self._plan.spent)} s, and the first answer comes whatever the budget"
            )
        facts = {
            "budget": self._plan.budget,
            "seconds": round(self._spent(), 1),
            "stopped": self._stopped,
            "runs": [self._row(trial) | {"won": trial is winner} for trial in self._trials],
            "why": why,
        }
        return Raced(task, fitted, facts)

    def _row(self, trial: CandidateRun) -> dict[str, Any]:
        """A trial for ``metrics.json``."""
        candidate = self._candidate(trial.candidate)
        return {
            "strategy": candidate.recipe.strategy,
            "backbone": candidate.recipe.backbone,
            "epochs": trial.epochs,
            "usual_epochs": candidate.recipe.epochs,
            "whole": trial.whole,
            "seconds": trial.seconds,
            "expected": expected_after(candidate, trial.epochs or candidate.recipe.epochs, ()).to_json(),
            "validation_accuracy": trial.validation_accuracy,
            "validation_loss": trial.validation_loss,
            "posterior": None if trial.failed else round(self._belief(trial), 4),
            "failed": trial.failed or None,
        }

    def _why(self, winner: CandidateRun) -> str:
        candidate = self._candidate(winner.candidate)
        expected = expected_after(candidate, winner.epochs, ()).value
        words = (
            f"{_called(candidate.recipe)} won{_part(winner, candidate)}: {winner.accuracy:.4f} on validation where "
            f"{expected:.3f} was expected{self._given_up()}"
        )
        others = [trial for trial in self._answers() if trial.candidate != winner.candidate]
        if not others:
            return f"{words}; nothing else gave an answer"
        second = max(others, key=self._belief)
        of = self._candidate(second.candidate)
        apart = abs(winner.accuracy - second.accuracy) * winner.images
        close = f"; less than one of {winner.images:,.0f} validation images lies between them" if apart < 1 else ""
        return (
            f"{words}, which together speak for {self._belief(winner):.3f}; the next best, {_called(of.recipe)}"
            f"{_part(second, of)}, had {second.accuracy:.4f}, together for {self._belief(second):.3f}{close}"
        )

    def _given_up(self) -> str:
        """Whose trial failed, for what other reason than time."""
        failed = [trial for trial in self._trials if trial.failed not in ("", OUT_OF_TIME)]
        named = dict.fromkeys(self._candidate(trial.candidate).recipe.strategy for trial in failed)
        return f" ({', '.join(named)} failed)" if named else ""

    def _add(self, trial: CandidateRun) -> CandidateRun:
        rounded = replace(trial, seconds=round(trial.seconds, 3), epoch_seconds=round(trial.epoch_seconds, 4))
        self._trials = (*self._trials, rounded)
        self._done.trials[rounded.name] = rounded
        keep_done(self._done, self._kept)
        return rounded


def _called(recipe: Recipe) -> str:
    return f"{recipe.strategy} of {recipe.backbone}"


def _part(trial: CandidateRun, candidate: RaceCandidate) -> str:
    """How much of its epochs a trial had, where not all."""
    return "" if trial.epochs == candidate.recipe.epochs else f" with {trial.epochs} of {candidate.recipe.epochs} epochs"


def _reached(blank: CandidateRun, fitted: TrainingResult) -> CandidateRun:
    """A trial with what it reached."""
    dataset = fitted.validation.dataset
    images = len(dataset) if dataset.groups is None else effective_count(dataset.groups)
    accuracy, loss = fitted.validation_accuracy, fitted.validation_loss
    reached = replace(blank, validation_accuracy=accuracy, validation_loss=loss, images=images, improved=fitted.improved)
    if blank.planned is None:
        return reached
    last = [record for record in fitted.history if record.phase == fitted.history[-1].phase]
    reached = replace(reached, epoch_seconds=_usual(last))
    return replace(reached, epochs=len(last), whole=False) if fitted.stopped else reached


def _usual(records: Sequence[EpochRecord]) -> float:
    """Seconds of an epoch; the first one, which also builds its graph, stands for itself where there is no other."""
    return float(np.median([record.seconds for record in records[1:] or records]))
