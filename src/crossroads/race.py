"""The race: what was advised is tried within a budget, the surest first, and what does best on validation is kept.

The first to run is the best head on frozen features, which takes seconds. Those that train the network then run for a quarter of
their epochs, and the better half of them to their end (successive halving: Jamieson and Talwalkar 2016,
https://arxiv.org/abs/1502.07943). Every trial has checkpoints of its own and a line in ``race.json`` once it is done, so a race
that was killed goes on where it stopped. Libraries for such searches (Optuna, Ray Tune) look for numbers in a space; here a
handful of known candidates takes turns.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from crossroads.advice.estimate import Estimate
from crossroads.errors import TrainingError
from crossroads.fitting import Fitted, Task, carry_out
from crossroads.recipe import Recipe
from crossroads.run_folder import RunFolder
from crossroads.strategies import strategy
from crossroads.training.checkpoint import write_atomically
from crossroads.training.watch import Watcher

SHORT = 4
"""Share of the epochs of a first turn: one in so many."""

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
        validation_accuracy: Reached.
        validation_loss: In nats.
        images: Validation images, groups where there are any.
        seconds: Taken.
    """

    name: str
    entrant: int
    epochs: int | None
    whole: bool
    validation_accuracy: float
    validation_loss: float
    images: int
    seconds: float


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

    Ctrl-C ends it: the best so far is kept, if there is one.

    Args:
        plan: Whom to race.
        task_of: From a candidate's recipe to what is to be carried out.
        folder: Holds a trial's checkpoints and what was reached.
        watcher: Is told what goes on.

    Raises:
        CrossroadsError: A candidate cannot be trained.
    """
    return _Race(plan, task_of, folder, watcher).run()


class _Race:
    def __init__(self, plan: Plan, task_of: Callable[[Recipe], Task], folder: RunFolder, watcher: Watcher) -> None:
        self._plan, self._task_of, self._folder, self._watcher = plan, task_of, folder, watcher
        self._kept = folder.scratch / "race.json"
        self._trials = self._stored()
        self._best: tuple[str, Task, Fitted] | None = None
        self._stopped = False

    def run(self) -> Raced:
        entrants = self._plan.entrants
        frozen = [i for i, one in enumerate(entrants) if strategy(one.recipe.strategy).frozen]
        trained = [i for i in range(len(entrants)) if i not in frozen]
        order = frozen or trained[:1]
        self._say()
        try:
            self._try(order[0], whole=True, needed=True)
            for index in order[1:]:
                self._try(index, whole=True)
            rest = [index for index in trained if index not in order]
            self._halved(rest)
        except KeyboardInterrupt:
            if not self._trials:
                raise
            self._stopped = True
            self._watcher.note("stopped: the best so far is kept")
        return self._ended()

    def _halved(self, rest: list[int]) -> None:
        """A quarter of the epochs each, then the better half to their end."""
        alone = [index for index in rest if self._worth_trying(index)]
        if len(alone) > 1:
            until = self._spent() + (self._plan.budget - self._spent()) / 2  # the other half is for those that go on
            for index in alone:
                self._try(index, whole=False, until=until)
        tried = {trial.entrant: trial for trial in self._trials if not trial.whole}
        left = [index for index in alone if index in tried or len(alone) == 1]
        left.sort(key=lambda index: -tried[index].validation_accuracy if index in tried else 0.0)
        places = math.ceil(len(left) / 2)
        for index in left:
            places -= places > 0 and self._try(index, whole=True)

    def _say(self) -> None:
        names = ", ".join(f"{one.recipe.strategy} of {one.recipe.backbone}" for one in self._plan.entrants)
        self._watcher.note(f"a race within {self._plan.budget:,.0f} s, Ctrl-C keeps the best so far: {names}")

    def _spent(self) -> float:
        return self._plan.spent + sum(trial.seconds for trial in self._trials)

    def _worth_trying(self, index: int) -> bool:
        """Whether more can be hoped of a candidate than is believed of the best so far."""
        hoped = self._plan.entrants[index].accuracy.high
        return not self._trials or hoped > self._belief(self._winner()) + WORTH_TRYING

    def _try(self, index: int, *, whole: bool, needed: bool = False, until: float | None = None) -> bool:
        """Run a candidate, unless there is no hope for it or no time until then; whether it has now been run."""
        entrant = self._plan.entrants[index]
        epochs = entrant.recipe.epochs
        short = None if epochs is None else max(1, round(epochs / SHORT))
        if not whole and (short is None or short == epochs):
            whole = True
        name = f"trial-{index:02d}-{'whole' if whole else 'short'}"
        if any(trial.name == name for trial in self._trials):
            return True
        recipe = entrant.recipe if whole else replace(entrant.recipe, epochs=short)
        expected = self._expected_seconds(index, recipe)
        left = (until or self._plan.budget) - self._spent()
        if not needed and (expected > left or not self._worth_trying(index)):
            if expected > left:
                said = f"about {expected:,.0f} s, and {max(0, left):,.0f} are left"
                self._watcher.note(f"{recipe.strategy} of {recipe.backbone} is not tried: it takes {said}")
            return False
        began = time.perf_counter()
        part = "" if whole else f", {recipe.epochs} of {epochs} epochs"
        self._watcher.note(f"trying {recipe.strategy} of {recipe.backbone}{part}: {entrant.accuracy.value:.3f} expected")
        task = self._task_of(recipe)
        fitted = carry_out(task, self._folder.trial(name), self._watcher)
        reached = fitted.reached
        groups = fitted.validation.dataset.groups
        images = len(fitted.validation.dataset) if groups is None else len(np.unique(groups))
        seconds = time.perf_counter() - began
        trial = Trial(name, index, recipe.epochs, whole, reached["accuracy"], reached["loss"], images, round(seconds, 3))
        self._trials.append(trial)
        self._keep()
        if self._winner().name == name:
            self._best = (name, task, fitted)
        return True

    def _expected_seconds(self, index: int, recipe: Recipe) -> float:
        """From a short turn where there was one, else from the advice."""
        entrant, epochs = self._plan.entrants[index], recipe.epochs
        for trial in self._trials:
            if trial.entrant == index and trial.epochs and epochs:
                return trial.seconds * (0.2 + 0.8 * epochs / trial.epochs)
        if epochs and entrant.recipe.epochs:
            return entrant.seconds * (0.2 + 0.8 * epochs / entrant.recipe.epochs)
        return entrant.seconds

    def _winner(self) -> Trial:
        """Of those that do no worse on validation than the first, the one that most can be said for."""
        first = self._trials[0]
        no_worse = [trial for trial in self._trials if trial.validation_accuracy >= first.validation_accuracy]
        return max(no_worse, key=lambda trial: (self._belief(trial), -trial.validation_loss))

    def _belief(self, trial: Trial) -> float:
        return believed(self._plan.entrants[trial.entrant].accuracy, trial.validation_accuracy, trial.images)

    def _ended(self) -> Raced:
        winner = self._winner()
        recipe = replace(self._plan.entrants[winner.entrant].recipe, epochs=winner.epochs)
        if self._best is None or self._best[0] != winner.name:
            task = self._task_of(recipe)
            self._best = (winner.name, task, carry_out(task, self._folder.trial(winner.name), self._watcher))
        _, task, fitted = self._best
        why = self._why(winner)
        self._watcher.note(why)
        rows = [
            {
                **{key: value for key, value in asdict(trial).items() if key not in ("name", "entrant")},
                "strategy": self._plan.entrants[trial.entrant].recipe.strategy,
                "backbone": self._plan.entrants[trial.entrant].recipe.backbone,
                "expected": self._plan.entrants[trial.entrant].accuracy.to_json(),
                "believed": round(self._belief(trial), 4),
                "won": trial is winner,
            }
            for trial in self._trials
        ]
        facts = {
            "budget": self._plan.budget,
            "seconds": round(self._spent(), 1),
            "stopped": self._stopped,
            "trials": rows,
            "why": why,
        }
        return Raced(task, fitted, facts)

    def _why(self, winner: Trial) -> str:
        entrant = self._plan.entrants[winner.entrant]
        words = (
            f"{entrant.recipe.strategy} of {entrant.recipe.backbone} won: {winner.validation_accuracy:.4f} on validation where "
            f"{entrant.accuracy.value:.3f} was expected"
        )
        others = sorted((trial for trial in self._trials if trial.entrant != winner.entrant), key=self._belief, reverse=True)
        if not others:
            return f"{words}; nothing else was tried"
        second = self._plan.entrants[others[0].entrant].recipe
        return (
            f"{words}, together {self._belief(winner):.3f}; the next best, {second.strategy} of {second.backbone}, had "
            f"{others[0].validation_accuracy:.4f}, together {self._belief(others[0]):.3f}"
        )

    def _stored(self) -> list[Trial]:
        if not self._kept.is_file():
            return []
        try:
            return [Trial(**row) for row in json.loads(self._kept.read_text(encoding="utf-8"))]
        except (ValueError, TypeError) as error:
            raise TrainingError(
                "the unfinished run is damaged", received=str(self._kept), mend="start again in another folder"
            ) from error

    def _keep(self) -> None:
        try:
            write_atomically(self._kept, json.dumps([asdict(trial) for trial in self._trials], indent=1).encode())
        except OSError as error:
            raise TrainingError(
                "--out must be writable", received=f"{self._kept} ({error.strerror})", mend="make room there and add --resume"
            ) from error


def believed(expected: Estimate, accuracy: float, images: int) -> float:
    """What is believed of a candidate's accuracy: what was expected and what validation says, each weighed by how sure it is.

    Both are taken as normal in log odds: the expectation with the width of its interval, the validation with the variance of a
    share of `images`, half an image added to right and wrong (Agresti 2013, section 3.1): few images are believed little.
    """
    prior, low, high = (_logit(min(max(value, 1e-4), 1 - 1e-4)) for value in expected)
    prior_variance = max(((high - low) / 3.92) ** 2, 1e-6)
    right, wrong = accuracy * images + 0.5, (1 - accuracy) * images + 0.5
    seen, seen_variance = math.log(right / wrong), 1 / right + 1 / wrong
    middle = (prior / prior_variance + seen / seen_variance) / (1 / prior_variance + 1 / seen_variance)
    return 1 / (1 + math.exp(-middle))


def stored_plan(path: Path) -> Plan | None:
    """The plan of a race that was begun, None where there is none. Raises `TrainingError` where it is damaged."""
    with suppress(FileNotFoundError):
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            entrants = tuple(
                Entrant(Recipe.from_mapping(row["recipe"], str(path)), Estimate(*row["accuracy"]), row["seconds"])
                for row in value["entrants"]
            )
            return Plan(entrants, value["budget"], value["spent"], value["advice"])
        except (ValueError, TypeError, KeyError) as error:
            raise TrainingError(
                "the unfinished run is damaged", received=str(path), mend="start again in another folder"
            ) from error
    return None


def keep_plan(plan: Plan, path: Path) -> None:
    """Write a plan for `stored_plan`."""
    entrants = [
        {"recipe": one.recipe.to_mapping(), "accuracy": list(one.accuracy), "seconds": one.seconds} for one in plan.entrants
    ]
    value = {"entrants": entrants, "budget": plan.budget, "spent": plan.spent, "advice": plan.advice}
    write_atomically(path, json.dumps(value).encode())


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
