"""Decides what a race does next. Everything here is a function of the plan and the runs so far; nothing reads a clock or a file.

1. The candidates whose network stays frozen run first. Each takes seconds. The first of them always runs, so every budget gives an
   answer.
2. In the first rung, every other candidate runs for a quarter of its epochs, within half of the time that is left.
3. In the second rung, the better half runs again, for all epochs or as many as the budget allows (successive halving: Jamieson and
   Talwalkar 2016, https://arxiv.org/abs/1502.07943).

Even a short run has a complete learning-rate schedule, so a run of the first rung can win too. Libraries for such searches (Optuna,
Ray Tune) sample a space of parameters. Here, a handful of known candidates compete.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from crossroads.advice.candidates import TIE
from crossroads.advice.estimate import Estimate
from crossroads.heads.probe import loss_margin
from crossroads.race.comparing import VERY_FEW, beats, clearly_beats
from crossroads.race.posterior import affordable_epochs, expected_after, planned_seconds, posterior_of_run
from crossroads.race.records import CandidateRun, Plan, RaceCandidate
from crossroads.strategies import strategy

REDUCTION_FACTOR = 4
"""Number of epochs of a whole run, divided by that of a run of the first rung."""

AGAIN = 2
"""A candidate that proves faster than expected runs again if there is time for this many times its epochs."""

MIN_GAIN = 0.005
"""A candidate is skipped unless the upper limit of its expected accuracy exceeds the best posterior so far by more than this."""

SkipReason = Literal["no-gain", "budget-spent", "too-slow", "too-few-epochs", "outranked", "no-time-in-first-rung", "no-first-rung"]


@dataclass(frozen=True, slots=True)
class Run:
    """The decision to run a candidate.

    Attributes:
        candidate: Its index in the plan.
        epochs: Epochs to train; None for a solved head.
        until: Seconds since the start of the race after which the run ends; None for the whole budget.
        needed: Whether there is no answer yet, so that the run may exceed the budget.
        last_chance: Whether no other candidate is left if this one fails.
    """

    candidate: int
    epochs: int | None
    until: float | None = None
    needed: bool = False
    last_chance: bool = False


@dataclass(frozen=True, slots=True)
class Skip:
    """The decision not to run a candidate now.

    Attributes:
        candidate: Its index in the plan.
        reason: Why the candidate is skipped.
        epochs: Smallest number of epochs that it would need; None for a solved head.
        seconds: Seconds that these epochs would take.
        available: Seconds that are available for these epochs.
        reachable: Upper limit of its expected accuracy.
    """

    candidate: int
    reason: SkipReason
    epochs: int | None = None
    seconds: float = 0.0
    available: float = 0.0
    reachable: float = 0.0


@dataclass(frozen=True, slots=True)
class Stop:
    """End the race."""


Action = Run | Skip | Stop


@dataclass(frozen=True, slots=True)
class Results:
    """A plan with its runs so far, in their order."""

    plan: Plan
    runs: tuple[CandidateRun, ...] = ()

    @property
    def spent(self) -> float:
        """Seconds of the advice and of all runs."""
        return self.plan.spent + sum(run.seconds for run in self.runs)

    @property
    def left(self) -> float:
        """Seconds of the budget that are left; negative once it is exceeded."""
        return self.plan.budget - self.spent

    def candidate(self, index: int) -> RaceCandidate:
        """Returns a candidate of the plan."""
        return self.plan.candidates[index]

    def successes(self, index: int) -> list[CandidateRun]:
        """Returns the runs of a candidate that did not fail."""
        return [run for run in self.runs if run.candidate == index and not run.failed]

    def failed(self, index: int) -> bool:
        """Returns whether a run of a candidate failed. It is not run again in this process: it would fail for the same reason."""
        return any(run.candidate == index and run.failed for run in self.runs)

    def has_whole_run(self, index: int) -> bool:
        """Returns whether a candidate ran with all epochs of its recipe."""
        return any(run.whole for run in self.successes(index))

    def answers(self) -> list[CandidateRun]:
        """Returns the runs that may win. A run with fewer epochs than the user named is an answer only if there is no other."""
        done = [run for run in self.runs if not run.failed]
        return [run for run in done if run.whole or self.candidate(run.candidate).shortens] or done

    def posterior(self, run: CandidateRun) -> float:
        """Returns the posterior accuracy of a run."""
        return posterior_of_run(self.candidate(run.candidate), run).value

    def winner(self) -> CandidateRun:
        """Returns the answer with the highest posterior: the first frozen head, or one that does better on validation.

        A cheaper answer within `TIE` that is no worse on validation comes first. With few validation images, a training must also
        beat the best frozen head on the same images, by more than the standard error. If both are cross-validated, these are all
        training and validation images.
        """
        answers = self.answers()
        heads = self._heads()
        if heads:
            first, best = heads[0], self.best_head()
            trained = [run for run in answers if run not in heads and clearly_beats(run, best, first)]
            return self._best([best, *trained])
        first = answers[0]
        return self._best([first, *(run for run in answers if run is not first and beats(run, first))])

    def best_head(self) -> CandidateRun:
        """Returns the best run of a frozen network. There must be one.

        With few validation images, it is the one with the lowest loss, which tells more than the number of mistakes. Early features
        must be better by `loss_margin`. Otherwise, it does no worse on validation than the first.
        """
        first, *others = self._heads()
        if all(run.correct for run in (first, *others)):
            return min((first, *others), key=self._handicapped_loss)
        return self._best([first, *(run for run in others if beats(run, first))])

    def contender(self) -> CandidateRun | None:
        """Returns the training that a cross-validation would compare with the best head; None if there is none.

        There is one only if validation is very small and the head is cross-validated. It is the best training that had all its
        epochs, and it is right on at least as many validation images as the head.
        """
        trained = [run for run in self.answers() if run.improved and run.planned is not None and run.epochs == run.planned]
        trained = [run for run in trained if not _is_frozen(self.candidate(run.candidate)) and 0 < run.images < VERY_FEW]
        if not self._heads() or not trained:
            return None
        head, best = self.best_head(), max(trained, key=self._merit)
        comparable = bool(head.crossed) and len(best.correct) == len(head.correct) > 0
        return best if comparable and best.correct.count("1") >= head.correct.count("1") else None

    def _heads(self) -> list[CandidateRun]:
        return [run for run in self.answers() if _is_frozen(self.candidate(run.candidate))]

    def _best(self, runs: Sequence[CandidateRun]) -> CandidateRun:
        """Returns the run with the highest posterior, or the cheapest one within `TIE` of it that is no worse on validation."""
        top = max(runs, key=self._merit)
        tied = [run for run in runs if self.posterior(top) - self.posterior(run) <= TIE and run.accuracy >= top.accuracy]
        return min(tied, key=self._cost)

    def is_cheaper(self, run: CandidateRun, other: CandidateRun) -> bool:
        """Returns whether a run is cheaper than another."""
        return self._cost(run) < self._cost(other)

    def _cost(self, run: CandidateRun) -> tuple[bool, float]:
        """Returns a sort key: a solved head is cheaper than a training.

        Heads are compared by their expected seconds, because the run of a head may have found its features in the cache.
        """
        candidate = self.candidate(run.candidate)
        frozen = _is_frozen(candidate)
        return not frozen, candidate.seconds if frozen else run.seconds

    def _handicapped_loss(self, run: CandidateRun) -> float:
        loss = math.inf if run.validation_loss is None else run.validation_loss
        early = strategy(self.candidate(run.candidate).recipe.strategy).keeps == "early"
        return loss + (loss_margin(run.images) if early else 0.0)

    def _merit(self, run: CandidateRun) -> tuple[float, float]:
        return self.posterior(run), -(run.validation_loss or 0.0)

    def room(self, index: int) -> int:
        """Returns the epochs that fit into the rest of the budget. They must be an answer and exceed earlier runs; otherwise 0."""
        candidate, runs = self.candidate(index), self.successes(index)
        epochs = affordable_epochs(candidate, self.left, runs)
        more = epochs > max((run.epochs or 0 for run in runs), default=0)
        return epochs if more and (candidate.shortens or epochs == candidate.recipe.epochs) else 0

    def expected(self, index: int, epochs: int | None) -> Estimate:
        """Returns the expected accuracy of another run."""
        return expected_after(self.candidate(index), epochs, self.successes(index))

    def can_win(self, index: int, epochs: int | None) -> bool:
        """Returns whether another run could beat the best so far."""
        return not self.answers() or self.expected(index, epochs).high > self.posterior(self.winner()) + MIN_GAIN


def next_actions(plan: Plan, runs: Sequence[CandidateRun]) -> tuple[Action, ...]:
    """Returns the candidates that are skipped after the last run, and then the next run, or the end of the race.

    The race is replayed from its beginning with the known results. An interrupted race therefore continues as it would have
    continued without the interruption.
    """
    race = _race(plan)
    actions: list[Action] = list(_until_run(race, None))
    for run in runs:
        actions = list(_until_run(race, run))
    return tuple(actions)


Decisions = Generator[Run | Skip, CandidateRun | None, Results]
"""Yields actions, receives the result of each `Run`, and returns all results."""


def _until_run(race: Decisions, result: CandidateRun | None) -> Iterator[Action]:
    """Yields the skips up to the next run, and that run."""
    try:
        action = race.send(result)
        while isinstance(action, Skip):
            yield action
            action = next(race)
        yield action
    except StopIteration:
        yield Stop()


def _race(plan: Plan) -> Decisions:
    """Yields the decisions of a race from its beginning."""
    frozen = [index for index, candidate in enumerate(plan.candidates) if _is_frozen(candidate)]
    trained = [index for index in range(len(plan.candidates)) if index not in frozen]
    results = Results(plan)
    for index in frozen:
        results = yield from _frozen_head(results, index, last_chance=index == frozen[-1] and not trained)
    while trained and not results.answers():  # every head failed, or there is none
        index, *trained = trained
        epochs = results.room(index) or _fewest_epochs(plan.candidates[index])
        results = yield from _run(results, Run(index, epochs, needed=True, last_chance=not trained))
        if not trained and not results.has_whole_run(index):
            trained = [index]  # the only candidate may run again if it proved faster than expected
            break
    return (yield from _halving(results, trained))


def _fewest_epochs(candidate: RaceCandidate) -> int | None:
    return 1 if candidate.shortens else candidate.recipe.epochs


def _run(results: Results, action: Run) -> Decisions:
    run = yield action
    if run is None:  # pragma: no cover
        raise ValueError("a Run is answered with its result")
    return replace(results, runs=(*results.runs, run))


def _frozen_head(results: Results, index: int, *, last_chance: bool) -> Decisions:
    """Runs the first head even if there is no time, and a further one only if it can win and there is time for it."""
    seconds = results.candidate(index).seconds
    if not results.answers():
        return (yield from _run(results, Run(index, None, needed=True, last_chance=last_chance)))
    if not results.can_win(index, None):
        yield Skip(index, "no-gain", reachable=results.expected(index, None).high)
    elif results.left <= 0:
        yield Skip(index, "budget-spent")
    elif seconds > results.left:
        yield Skip(index, "too-slow", None, seconds, results.left)
    else:
        return (yield from _run(results, Run(index, None)))
    return results


@dataclass(frozen=True, slots=True)
class _Standing:
    """The state of a race after the frozen heads are solved.

    Attributes:
        results: The results so far.
        remaining: Indices of the candidates that may still run.
        places: How many of them may still run in the second rung.
    """

    results: Results
    remaining: tuple[int, ...]
    places: int

    def without(self, index: int, *, places: int = 0) -> _Standing:
        """Returns the standing after removing a candidate and the places that it took."""
        return replace(self, remaining=tuple(one for one in self.remaining if one != index), places=self.places - places)


Moves = Generator[Run | Skip, CandidateRun | None, _Standing]
"""Yields actions like `Decisions`, and returns the standing after them."""


def _halving(results: Results, trained: Sequence[int]) -> Decisions:
    """Runs the first rung, then the better half of the candidates to their end or for as long as there is time."""
    standing = yield from _start(results, trained)
    first_rung_due = True
    while standing.remaining and standing.places:
        if first_rung_due and len(standing.remaining) > 1:
            skip = _no_first_rung(standing.results, standing.remaining)
            if skip is None:
                first_rung_due = False
                standing = yield from _first_rung(standing)
                continue
            yield skip
        standing = yield from _second_rung(standing)
        # If the candidate that made the first rung pointless failed, the others have a first rung now.
        first_rung_due = first_rung_due and not any(map(standing.results.successes, trained))
    yield from (Skip(index, "outranked") for index in standing.remaining if not standing.results.successes(index))
    return standing.results


def _start(results: Results, trained: Sequence[int]) -> Moves:
    """Removes the candidates that cannot run, and keeps places for half of the others."""
    obstacles = {index: _obstacle(results, index) for index in trained}
    yield from (skip for skip in obstacles.values() if skip)
    remaining = tuple(index for index, skip in obstacles.items() if not skip)
    return _Standing(results, remaining, math.ceil(len(remaining) / 2))


def _second_rung(standing: _Standing) -> Moves:
    """Runs the most promising candidate for as many epochs as there is time for. It is removed unless it should run again."""
    results = standing.results
    index = _most_promising(results, standing.remaining)
    if results.has_whole_run(index):  # in the first rung
        return standing.without(index, places=1)
    if skip := _obstacle(results, index):
        yield skip
        return standing.without(index)
    results = yield from _run(results, Run(index, results.room(index)))
    standing = replace(standing, results=results)
    if results.failed(index):
        return standing.without(index)
    # One that proved faster than expected may run again before its place goes to another. For example, it was planned with
    # 2 epochs of 25 s, which took 1 s each; with 60 s left it can have all 8.
    runs_again = results.room(index) >= AGAIN * (results.successes(index)[-1].epochs or 1)
    return standing if runs_again else standing.without(index, places=1)


def _first_rung(standing: _Standing) -> Moves:
    """Runs each candidate for a quarter of its epochs, or as many as its part of half of the time allows. Failures are removed.

    Example: 53 s are left, so the rung has 26 s. The first of three candidates may use 26 / 3 = 9 s, less than an epoch of 14 s,
    and is skipped. The second may use 26 / 2 = 13 s and is skipped too. The third has all 26 s, and runs one epoch.
    """
    results, remaining = standing.results, standing.remaining
    end = _first_rung_end(results)
    for place, index in enumerate(remaining):
        seconds = (end - results.spent) / (len(remaining) - place)
        if epochs := _first_rung_epochs(results.candidate(index), seconds):
            results = yield from _run(results, Run(index, epochs, until=end))
        else:
            yield _one_epoch(results, index, "no-time-in-first-rung", seconds)
    return replace(standing, results=results, remaining=tuple(index for index in remaining if not results.failed(index)))


def _first_rung_end(results: Results) -> float:
    """Returns when the first rung ends, in seconds since the start. The second rung gets half of the time that is left."""
    return (results.spent + results.plan.budget) / 2


def _first_rung_epochs(candidate: RaceCandidate, seconds: float) -> int:
    """Returns a quarter of the epochs, or as many as the seconds allow."""
    return min(max(1, round((candidate.recipe.epochs or 1) / REDUCTION_FACTOR)), affordable_epochs(candidate, seconds, ()))


def _no_first_rung(results: Results, remaining: Sequence[int]) -> Skip | None:
    """Returns why the first rung is left out: it would have no time for the most promising candidate.

    The runs of the others would then tell nothing about that candidate, and use up its time.
    """
    top, left = _most_promising(results, remaining), _first_rung_end(results) - results.spent
    for place, index in enumerate(remaining):
        candidate, seconds = results.candidate(index), left / (len(remaining) - place)
        epochs = _first_rung_epochs(candidate, seconds)
        if index == top:
            return None if epochs else _one_epoch(results, top, "no-first-rung", seconds)
        left -= planned_seconds(candidate, epochs, ()) if epochs else 0.0
    return None


def _one_epoch(results: Results, index: int, reason: SkipReason, seconds: float) -> Skip:
    return Skip(index, reason, 1, planned_seconds(results.candidate(index), 1, ()), max(0.0, seconds))


def _most_promising(results: Results, remaining: Sequence[int]) -> int:
    """Returns the candidate of the highest expected accuracy, or a quicker one within `TIE` that leaves it time for its epochs.

    Example: `finetune` is expected to reach 0.902 in 110 s, `from-scratch` 0.900 in 80 s. With 300 s left `from-scratch` runs
    first, since 220 s are enough for `finetune` after it. With 150 s left `finetune` runs.
    """
    room = {index: results.room(index) for index in remaining}
    values = {index: results.expected(index, room[index]).value if room[index] else 0.0 for index in remaining}
    seconds = {index: planned_seconds(results.candidate(index), room[index], results.successes(index)) for index in remaining}
    top = max(remaining, key=values.__getitem__)

    def leaves_room(index: int) -> bool:
        left = results.left - seconds[index]
        return affordable_epochs(results.candidate(top), left, results.successes(top)) >= room[top]

    tied = [index for index in remaining if index != top and values[top] - values[index] <= TIE and leaves_room(index)]
    return min([top, *tied], key=seconds.__getitem__)


def _obstacle(results: Results, index: int) -> Skip | None:
    """Returns the decision to skip a candidate if it has no time for more epochs or cannot win; otherwise None."""
    candidate, epochs, runs = results.candidate(index), results.room(index), results.successes(index)
    if not epochs:
        more = 1 + max((run.epochs or 0 for run in runs), default=0)
        wanted = (more if candidate.shortens else candidate.recipe.epochs) or 1
        return Skip(index, "too-few-epochs", wanted, planned_seconds(candidate, wanted, runs), max(0.0, results.left))
    if not results.can_win(index, epochs):
        return Skip(index, "no-gain", epochs, reachable=results.expected(index, epochs).high)
    return None


def _is_frozen(candidate: RaceCandidate) -> bool:
    return strategy(candidate.recipe.strategy).frozen
