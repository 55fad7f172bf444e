"""The race: what was advised is tried within a budget, the surest first, and what does best on validation is kept.

The first to run is the best head on frozen features, which takes seconds. Those that train the network then run for a quarter of
their epochs, and the better half of them to their end (successive halving: Jamieson and Talwalkar 2016,
https://arxiv.org/abs/1502.07943). Every trial has checkpoints of its own and a line in ``race.json`` once it is done, so a race
that was killed goes on with the next one. Libraries for such searches (Optuna, Ray Tune) look for numbers in a space; here a
handful of known candidates takes turns.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from crossroads.advice.estimate import Estimate, from_log_odds, log_odds
from crossroads.errors import CrossroadsError, TrainingError
from crossroads.fitting import Fitted, Task, carry_out
from crossroads.recipe import Recipe
from crossroads.run_folder import RunFolder
from crossroads.strategies import strategy
from crossroads.training.checkpoint import EpochRecord, write_atomically
from crossroads.training.watch import Relay, Watcher

SHORT = 4
"""Share of the epochs of a first turn: one in so many."""

FIXED = 0.2
"""Share of a run's seconds that does not grow with its epochs, such as building networks."""

LATE = 0.1
"""Share of the budget that an epoch may go on beyond it: its work is lost where it is broken off."""

WORTH_TRYING = 0.005
"""Accuracy by which the upper end of what is expected of a candidate must beat the best so far for it to be tried."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """A candidate as it enters.

    Attributes:
        recipe: Resolved.
        accuracy: Expected.
        seconds: Expected of the whole run.
    """

    recipe: Recipe
    accuracy: Estimate
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What a race goes by; kept in its folder, so that it is the same when the race is taken up.

    Attributes:
        entrants: In the order of the advice, without those that cannot be taken.
        budget: Seconds.
        spent: Seconds that the advice took.
        advice: What was measured and advised, as plain JSON values.
    """

    entrants: tuple[Entrant, ...]
    budget: float
    spent: float
    advice: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a candidate, for a part of its epochs or to its end.

    Attributes:
        name: Of its folder.
        entrant: Place of the candidate in the plan.
        epochs: Of the part that trains; None for a solved head.
        whole: Whether this was all that the candidate plans.
        seconds: Taken.
        validation_accuracy: Reached; None where it failed.
        validation_loss: In nats, likewise.
        images: Validation images, groups where there are any.
        failed: Why there is nothing to show for it; "" where there is.
    """

    name: str
    entrant: int
    epochs: int | None
    whole: bool
    seconds: float
    validation_accuracy: float | None = None
    validation_loss: float | None = None
    images: int = 0
    failed: str = ""

    @property
    def accuracy(self) -> float:
        """Reached; 0 where it failed."""
        return self.validation_accuracy or 0.0


@dataclass(frozen=True, slots=True)
class _State:
    """What was decided and done so far; a race that is taken up decides nothing anew, unless a trial failed.

    Attributes:
        trials: In their order.
        short: Who has a short turn; None before that is decided.
        until: When short turns end, in seconds of the race.
        finalists: Who may run to the end, the best first; None before that is decided.
    """

    trials: tuple[Trial, ...] = ()
    short: tuple[int, ...] | None = None
    until: float = 0.0
    finalists: tuple[int, ...] | None = None


OUT_OF_TIME = "the budget was spent before its end"


class _OutOfTime(Exception):
    """A trial took much longer than was expected, and the budget is spent."""


def _in_words(error: Exception) -> str:
    """Why a trial is given up."""
    if isinstance(error, _OutOfTime):
        return OUT_OF_TIME
    if isinstance(error, CrossroadsError):
        return str(error)
    said = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said[:300]}"


def _clocked(watcher: Watcher, seconds: float, late: float) -> Relay:
    """A watcher that ends a trial: after an epoch once its time is over and epochs are left, within one `late` seconds later."""
    end = time.perf_counter() + seconds

    def between(record: EpochRecord, total: int) -> None:
        if record.epoch < total and time.perf_counter() > end:
            raise _OutOfTime

    def within() -> None:
        if time.perf_counter() > end + late:
            raise _OutOfTime

    return Relay(watcher, after_step=within, after_epoch=between)


@dataclass(frozen=True, slots=True, eq=False)
class Raced:
    """How a race ended.

    Attributes:
        task: What the winner was trained for.
        fitted: The winner.
        facts: For ``metrics.json``: budget, every trial, the winner, and why it won.
    """

    task: Task
    fitted: Fitted
    facts: dict[str, Any]


def race(plan: Plan, task_of: Callable[[Recipe], Task], folder: RunFolder, watcher: Watcher) -> Raced:
    """Run the race.

    Ctrl-C ends it: the best so far is kept, if there is one. A candidate that fails is given up, and so is one that is at work when
    the budget is spent, at the end of its epoch or a tenth of the budget later. Only if all fail the race does.

    Args:
        plan: Whom to race.
        task_of: From a candidate's recipe to what is to be carried out.
        folder: Holds a trial's checkpoints and what was reached.
        watcher: Is told what goes on.

    Raises:
        CrossroadsError: No candidate can be trained.
    """
    return _Race(plan, task_of, folder, watcher).run()


class _Race:
    def __init__(self, plan: Plan, task_of: Callable[[Recipe], Task], folder: RunFolder, watcher: Watcher) -> None:
        self._plan, self._task_of, self._folder, self._watcher = plan, task_of, folder, watcher
        self._kept = folder.scratch / "race.json"
        self._state = self._stored()
        self._best: tuple[str, Task, Fitted] | None = None
        self._stopped = False

    def run(self) -> Raced:
        entrants = self._plan.entrants
        frozen = [i for i, one in enumerate(entrants) if strategy(one.recipe.strategy).frozen]
        trained = [i for i in range(len(entrants)) if i not in frozen]
        first, rest = (frozen, trained) if frozen else (trained[:1], trained[1:])
        self._say()
        try:
            for index in first:
                self._try(index, whole=True, needed=not self._whole(), alone=index == first[-1] and not rest)
            while rest and not self._whole():  # the first answer has to come from another
                self._try(rest[0], whole=True, needed=True, alone=len(rest) == 1)
                rest = rest[1:]
            self._halved(rest)
        except KeyboardInterrupt:
            if not self._whole():
                raise
            self._stopped = True
            self._watcher.note("stopped: the best so far is kept; it is now tested and saved, which takes some seconds")
        return self._ended()

    def _halved(self, rest: list[int]) -> None:
        """A quarter of the epochs each, then the better half to their end."""
        if self._state.short is None:
            hopeful = tuple(index for index in rest if self._worth_trying(index))
            until = self._spent() + (self._plan.budget - self._spent()) / 2  # the other half is for those that go on
            self._keep(replace(self._state, short=hopeful, until=until))
        short = self._state.short or ()
        if len(short) > 1:
            for index in short:
                self._try(index, whole=False, until=self._state.until)
        if self._state.finalists is None:
            tried = {trial.entrant: trial.accuracy for trial in self._state.trials if not trial.failed}
            left = sorted((index for index in short if index in tried or len(short) == 1), key=lambda index: -tried.get(index, 0))
            self._keep(replace(self._state, finalists=tuple(left)))
        left = list(self._state.finalists or ())
        places = math.ceil(len(left) / 2)
        for index in left:
            if places and self._try(index, whole=True):
                places -= 1

    def _say(self) -> None:
        names = ", ".join(f"{one.recipe.strategy} of {one.recipe.backbone}" for one in self._plan.entrants)
        self._watcher.note(f"a race within {self._plan.budget:,.0f} s, Ctrl-C keeps the best so far: {names}")

    def _spent(self) -> float:
        return self._plan.spent + sum(trial.seconds for trial in self._state.trials)

    def _whole(self) -> list[Trial]:
        """The trials that are something to show: run to their end."""
        return [trial for trial in self._state.trials if trial.whole and not trial.failed]

    def _worth_trying(self, index: int) -> bool:
        """Whether more can be hoped of a candidate than is believed of the best so far."""
        hoped = self._plan.entrants[index].accuracy.high
        return not self._whole() or hoped > self._belief(self._winner()) + WORTH_TRYING

    def _try(self, index: int, *, whole: bool, needed: bool = False, alone: bool = False, until: float | None = None) -> bool:
        """Run a candidate, unless there is no hope for it or no time until then; whether it has now been run.

        One that is `needed`, since there is nothing to show yet, runs whatever the time; its error is the race's if it is `alone`.
        """
        entrant = self._plan.entrants[index]
        epochs = entrant.recipe.epochs
        short = None if epochs is None else max(1, round(epochs / SHORT))
        whole = whole or short is None or short == epochs
        name = f"trial-{index:02d}-{'whole' if whole else 'short'}"
        before = next((trial for trial in self._state.trials if trial.name == name), None)
        if before is not None:
            return not before.failed
        recipe = entrant.recipe if whole else replace(entrant.recipe, epochs=short)
        called = f"{recipe.strategy} of {recipe.backbone}"
        expected, left = self._expected_seconds(index, recipe), (until or self._plan.budget) - self._spent()
        if not needed and (expected > left or not self._worth_trying(index)):
            share = "" if until is None else " for short turns"
            why = f"it takes about {expected:,.0f} s, and {max(0, left):,.0f} are left{share}"
            if not self._worth_trying(index):
                why = f"{entrant.accuracy.high:.3f} at most is to be hoped for, and the best so far is believed to reach no less"
            self._watcher.note(f"{called} is not tried: {why}")
            return False
        part = "" if whole else f", {recipe.epochs} of {epochs} epochs"
        self._watcher.note(f"trying {called}{part}: {entrant.accuracy.value:.3f} expected")
        began = time.perf_counter()
        budget = self._plan.budget
        watcher = self._watcher if needed else _clocked(self._watcher, budget - self._spent(), LATE * budget)
        blank = Trial(name, index, recipe.epochs, whole, 0.0)
        try:
            task = self._task_of(recipe)
            fitted = carry_out(task, self._folder.trial(name), watcher)
        except Exception as error:  # backends raise all kinds, such as for want of memory, and what was reached must not be lost
            if needed and alone:
                self._watcher.note("no candidate could be trained; what the advice measured is kept, and --resume tries them again")
                raise
            why = _in_words(error)
            self._watcher.note(f"{called} is given up: {why}")
            self._add(replace(blank, seconds=time.perf_counter() - began, failed=why))
            return False
        self._add(_reached(blank, fitted, time.perf_counter() - began))
        if whole and self._winner().name == name:
            self._best = (name, task, fitted)
        return True

    def _expected_seconds(self, index: int, recipe: Recipe) -> float:
        """From a short turn where there was one, else from the advice."""
        entrant, epochs = self._plan.entrants[index], recipe.epochs
        known = [(entrant.seconds, entrant.recipe.epochs)]
        known += [(trial.seconds, trial.epochs) for trial in self._state.trials if trial.entrant == index]
        seconds, of = known[-1]
        return seconds * (FIXED + (1 - FIXED) * epochs / of) if epochs and of else seconds

    def _winner(self) -> Trial:
        """Of those that do no worse on validation than the first answer, the one that most can be said for."""
        whole = self._whole()
        heads = (trial for trial in whole if strategy(self._plan.entrants[trial.entrant].recipe.strategy).frozen)
        first = next(heads, whole[0])
        no_worse = [trial for trial in whole if trial.accuracy >= first.accuracy]
        return max(no_worse, key=lambda trial: (self._belief(trial), -(trial.validation_loss or 0.0)))

    def _belief(self, trial: Trial) -> float:
        return believed(self._plan.entrants[trial.entrant].accuracy, trial.accuracy, trial.images)

    def _ended(self) -> Raced:
        winner = self._winner()
        if self._best is None or self._best[0] != winner.name:
            task = self._task_of(self._plan.entrants[winner.entrant].recipe)
            self._best = (winner.name, task, carry_out(task, self._folder.trial(winner.name), self._watcher))
        _, task, fitted = self._best
        why = self._why(winner)
        self._watcher.note(why)
        facts = {
            "budget": self._plan.budget,
            "seconds": round(self._spent(), 1),
            "stopped": self._stopped,
            "trials": [self._row(trial) | {"won": trial is winner} for trial in self._state.trials],
            "why": why,
        }
        return Raced(task, fitted, facts)

    def _row(self, trial: Trial) -> dict[str, Any]:
        """A trial for ``metrics.json``."""
        entrant = self._plan.entrants[trial.entrant]
        return {
            "strategy": entrant.recipe.strategy,
            "backbone": entrant.recipe.backbone,
            "epochs": trial.epochs,
            "whole": trial.whole,
            "seconds": trial.seconds,
            "expected": entrant.accuracy.to_json(),
            "validation_accuracy": trial.validation_accuracy,
            "validation_loss": trial.validation_loss,
            "believed": round(self._belief(trial), 4) if trial.whole and not trial.failed else None,
            "failed": trial.failed or None,
        }

    def _why(self, winner: Trial) -> str:
        entrant = self._plan.entrants[winner.entrant]
        words = (
            f"{entrant.recipe.strategy} of {entrant.recipe.backbone} won: {winner.accuracy:.4f} on validation where "
            f"{entrant.accuracy.value:.3f} was expected{self._given_up()}"
        )
        others = sorted((trial for trial in self._whole() if trial is not winner), key=self._belief, reverse=True)
        if not others:
            return f"{words}; nothing else was run to its end"
        second = self._plan.entrants[others[0].entrant].recipe
        return (
            f"{words}, together {self._belief(winner):.3f}; the next best, {second.strategy} of {second.backbone}, had "
            f"{others[0].accuracy:.4f}, together {self._belief(others[0]):.3f}"
        )

    def _given_up(self) -> str:
        """Whose trial failed, for what other reason than time."""
        failed = [trial for trial in self._state.trials if trial.failed not in ("", OUT_OF_TIME)]
        named = dict.fromkeys(self._plan.entrants[trial.entrant].recipe.strategy for trial in failed)
        return f" ({', '.join(named)} failed)" if named else ""

    def _add(self, trial: Trial) -> None:
        rounded = replace(trial, seconds=round(trial.seconds, 3))
        self._keep(replace(self._state, trials=(*self._state.trials, rounded)))

    def _stored(self) -> _State:
        value = _read(self._kept)
        if value is None:
            return _State()
        try:
            trials = tuple(Trial(**row) for row in value["trials"])
            # What failed may have failed for a reason that has passed, such as a full disk: it is tried again.
            kept = tuple(trial for trial in trials if trial.failed in ("", OUT_OF_TIME))
            if len(kept) < len(trials):
                return _State(kept)
            short, finalists = (None if value[key] is None else tuple(value[key]) for key in ("short", "finalists"))
            return _State(kept, short, float(value["until"]), finalists)
        except (TypeError, KeyError) as error:
            raise _damaged(self._kept) from error

    def _keep(self, state: _State) -> None:
        self._state = state
        _write(self._kept, asdict(state))


def _reached(blank: Trial, fitted: Fitted, seconds: float) -> Trial:
    """A trial with what it reached. Epochs of a part that was killed count as well: their seconds are in the history."""
    dataset = fitted.validation.dataset
    images = len(dataset) if dataset.groups is None else len(np.unique(dataset.groups))
    taken = max(seconds, sum(record.seconds for record in fitted.history))
    accuracy, loss = fitted.reached["accuracy"], fitted.reached["loss"]
    return replace(blank, seconds=taken, validation_accuracy=accuracy, validation_loss=loss, images=images)


def believed(expected: Estimate, accuracy: float, images: int) -> float:
    """What is believed of a candidate's accuracy: what was expected and what validation says, each weighed by how sure it is.

    Both are taken as normal in log odds: the expectation with the width of its interval, the validation with the variance of a
    share of `images`, half an image added to right and wrong (Agresti 2013, section 3.1): few images are believed little.
    """
    prior, low, high = (log_odds(value, 1e-4) for value in expected)
    prior_variance = max(((high - low) / 3.92) ** 2, 1e-6)
    right, wrong = accuracy * images + 0.5, (1 - accuracy) * images + 0.5
    seen, seen_variance = math.log(right / wrong), 1 / right + 1 / wrong
    middle = (prior / prior_variance + seen / seen_variance) / (1 / prior_variance + 1 / seen_variance)
    return from_log_odds(middle)


def stored_plan(path: Path, identity: str) -> Plan | None:
    """The plan of a race that was begun; None where there is none.

    Args:
        path: Where it is kept.
        identity: Of the data and the program; a plan of another is refused.

    Raises:
        TrainingError: It is damaged, or was made for other images or by another version.
    """
    value = _read(path)
    if value is None:
        return None
    try:
        before = value["identity"]
        entrants = tuple(
            Entrant(Recipe.from_mapping(row["recipe"], str(path)), Estimate(*row["accuracy"]), row["seconds"])
            for row in value["entrants"]
        )
        plan = Plan(entrants, value["budget"], value["spent"], value["advice"])
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(path) from error
    if before != identity:
        raise TrainingError(
            "a race is resumed on the images and with the version it was started with",
            received=str(path.parent.parent),
            mend="start again in another folder",
        )
    return plan


def keep_plan(plan: Plan, path: Path, identity: str) -> None:
    """Write a plan for `stored_plan`. Raises `TrainingError` where it cannot be written."""
    entrants = [
        {"recipe": one.recipe.to_mapping(), "accuracy": list(one.accuracy), "seconds": one.seconds} for one in plan.entrants
    ]
    known = {"budget": plan.budget, "spent": plan.spent, "advice": plan.advice}
    _write(path, {"identity": identity, "entrants": entrants, **known})


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON object that `_write` wrote; None where there is no file. Raises `TrainingError`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    if not isinstance(value, dict):
        raise _damaged(path)
    return value


def _write(path: Path, value: dict[str, Any]) -> None:
    try:
        write_atomically(path, json.dumps(value, indent=1).encode())
    except OSError as error:
        raise TrainingError(
            "--out must be writable", received=f"{path} ({error.strerror})", mend="make room there and add --resume"
        ) from error


def _damaged(path: Path) -> TrainingError:
    return TrainingError("the unfinished run is damaged", received=str(path), mend="start again in another folder")
