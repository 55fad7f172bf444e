"""Trains within a budget: saves a first answer within seconds, then trains whatever may improve on it while time is left."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from crossroads._runtime.keras_setup import can_train
from crossroads._runtime.machine import has_gpu
from crossroads._runtime.process import release_memory
from crossroads.advice.candidate_backbones import CandidateBackbone
from crossroads.advice.cost import OVERHEAD, TRACE, measure_machine, step_seconds
from crossroads.advice.estimate import DIGITS
from crossroads.data.partition import Partition
from crossroads.errors import DataError
from crossroads.plain import to_plain
from crossroads.progress import Note, Relay, StopTraining, Watcher, stage
from crossroads.race import messages
from crossroads.race.affordable import part_of
from crossroads.race.candidates import BUDGET, choose_candidates, considered, convertible, identity_of
from crossroads.race.choice import Ended, explain_choice
from crossroads.race.first import FirstAnswer, first_answer
from crossroads.race.named import named_plan, scoring_seconds
from crossroads.race.records import Plan, RaceState, keep_plan, keep_state, stored_plan
from crossroads.race.running import race, time_limit
from crossroads.run.best import BestSoFar
from crossroads.run.clock import Clock
from crossroads.run.finish import Run
from crossroads.run.folder import RunFolder
from crossroads.run.task import Tasks
from crossroads.run.train import train
from crossroads.strategies import drop_unused_options, strategy

LOGGER = logging.getLogger(__name__)


def fit_within_budget(partition: Partition, own: object, folder: RunFolder, clock: Clock, watcher: Relay) -> Run:
    """Trains the strategy that the advice and a race choose, or the named one with as many epochs as the budget allows.

    From the first answer on, the folder holds a valid artifact, which only better results replace. Ctrl-C or the end of the budget
    ends the run, and the best result so far is kept.

    Args:
        partition: The images, and the recipe with its budget.
        own: A network of the user's own as an object, or None.
        folder: The folder of the run.
        clock: The time of the run.
        watcher: Receives progress and warnings.

    Raises:
        CrossroadsError: Nothing can be trained.
    """
    return _Anytime(partition, own, folder, clock, watcher).run()


DETAILS = ("short-training", "short-training-stopped", "short-training-too-slow", "no-short-training", "epochs-limited")
"""Codes of notes on how the evidence is measured. After a first answer they tell the user nothing that a stage does not tell."""


class _Essential(Relay):
    """Forwards everything but the notes on details, which the log receives."""

    def note(self, text: str) -> None:
        """Forwards or logs the note."""
        if isinstance(text, Note) and text.code in DETAILS:
            LOGGER.debug("%s", text)
        else:
            super().note(text)


class _Anytime:
    def __init__(self, partition: Partition, own: object, folder: RunFolder, clock: Clock, watcher: Relay) -> None:
        self._partition, self._own, self._folder, self._clock, self._watcher = partition, own, folder, clock, watcher
        self._tasks = self._tasks_of(partition)
        self._best = BestSoFar(partition, folder, clock, watcher)
        self._first_is_final: Note | None = None
        self._asked = {"asked": partition.recipe.to_mapping()}

    def run(self) -> Run:
        recipe = self._partition.recipe
        plan = stored_plan(self._folder.plan, identity_of(self._partition)) if self._folder.plan.exists() else None
        if plan is not None:
            plan = plan.at(recipe.data, recipe.test)
        else:
            plan = self._plan()
            # The identity needs the digests of the images. Before the first answer, every file would be read only to compute them.
            keep_plan(plan, self._folder.plan, identity_of(self._partition))
        if not plan.candidates:
            return self._from_scratch()
        self._prepare(plan)
        try:
            raced = race(plan, self._tasks.task_for, self._folder, self._best, self._watcher)
            choice = explain_choice(Ended(raced.results, raced.skipped, raced.report.stopped, self._first_is_final))
        except DataError:
            self._folder.plan.unlink(missing_ok=True)  # the plan was made for images that must change
            raise
        advice = {"advice": plan.advice} if plan.advice else {}
        explained = {"choice": None if choice is None else {"code": choice.code, "text": str(choice), **choice.figures}}
        return self._best.finish({**self._asked, **advice, "race": to_plain(raced.report, DIGITS), **explained})

    def _plan(self) -> Plan:
        """Returns the plan of the race. A first answer, if there is one, counts as its first finished run."""
        recipe = self._partition.recipe
        if recipe.strategy != "auto":
            return named_plan(self._partition, self._tasks, self._clock.budget or BUDGET, self._clock, self._watcher)
        backbones = considered(recipe, self._own, self._watcher)
        if not backbones:
            return self._advised(backbones, None)
        first = first_answer(self._partition, backbones[0], self._tasks_of, self._folder, self._best, self._clock, self._watcher)
        if first is None:
            return self._advised(backbones, None)
        release_memory()
        plan = Plan((), self._clock.budget or BUDGET, 0.0, {})
        if self._can_improve(first):
            plan = self._improvements(backbones, first) or plan
        elif first.complete:
            plan = replace(plan, candidates=(first.candidate, *first.others))
        release_memory()  # the evidence
        return self._with_first(plan, first)

    def _prepare(self, plan: Plan) -> None:
        """Takes the part of the images that a plan uses, and estimates how long a named strategy takes to be scored."""
        if plan.fraction < 1.0:
            used, self._best.test_images = part_of(self._partition, plan.fraction, plan.budget, self._watcher)
            self._tasks = self._tasks_of(used)
        task = self._tasks.task_for(plan.candidates[0].recipe)
        if self._partition.recipe.strategy != "auto" and not task.strategy.frozen:
            self._best.expect(scoring_seconds(self._partition, task))

    def _advised(self, backbones: Sequence[CandidateBackbone], first: FirstAnswer | None) -> Plan:
        """Returns the plan that the advice recommends. After a first answer, the advice must end within the budget."""
        watcher: Watcher = self._watcher
        if first is not None:
            watcher = _Essential(time_limit(self._watcher, self._clock.left))
        plan = choose_candidates(self._partition, backbones, self._own, self._clock, watcher, first)
        # After a first answer, a network that cannot become an artifact is found when its turn comes, and the answer is kept.
        return plan if first is not None else convertible(plan, self._partition, self._tasks, watcher)

    def _improvements(self, backbones: Sequence[CandidateBackbone], first: FirstAnswer) -> Plan | None:
        """Returns the plan after a first answer; None if Ctrl-C or the end of the budget comes first."""
        try:
            if self._clock.left <= 0:
                raise StopTraining
            with stage(self._watcher.progress, "comparing the strategies"):
                return self._advised(backbones, first)
        except KeyboardInterrupt:
            self._note_final(messages.stopped())
        except StopTraining:
            self._note_final(messages.no_time(self._clock.budget))
        return None

    def _note_final(self, note: Note) -> None:
        """Says why nothing is tried after the first answer."""
        self._first_is_final = note
        self._watcher.note(note)

    def _with_first(self, plan: Plan, first: FirstAnswer) -> Plan:
        """Returns the plan with the first answer among its candidates, and records the result as a finished run of the race."""
        # It comes first, so that no other head is compared with nothing and replaces a better answer.
        own = next((candidate for candidate in plan.candidates if candidate.recipe == first.recipe), first.candidate)
        others = [candidate for candidate in plan.candidates if candidate.recipe != first.recipe]
        plan = replace(plan, candidates=(own, *others))
        name = "candidate-00-run-1"
        state = RaceState({name: replace(first.run, name=name, candidate=0)}, {name: None})
        keep_state(state, self._folder.scratch / "race.json")
        self._best.rename(name)
        return replace(plan, spent=self._clock.spent - first.run.seconds)

    def _can_improve(self, first: FirstAnswer) -> bool:
        """Returns whether an epoch of finetuning is possible. If Keras or the time for it is missing, a note says so."""
        if not first.complete:
            return False
        if not can_train():
            self._note_final(messages.cannot_train())
            return False
        if has_gpu():
            return True
        cheapest = min(each.cut.multiply_adds for each in first.evidence.frozen_probes)
        machine = measure_machine()
        per_image = step_seconds(cheapest, machine, depthwise=first.evidence.body.depthwise)
        needed = machine.crowding * (OVERHEAD + TRACE) + per_image * len(self._partition.train)
        if needed > self._clock.left:
            self._note_final(messages.no_time_to_train(needed, self._clock.left))
            return False
        return True

    def _from_scratch(self) -> Run:
        recipe = drop_unused_options(self._partition.recipe, strategy("from-scratch")).without_limits()
        task = self._tasks.task_for(recipe)
        self._best.save("from-scratch", task, train(task, self._folder, self._watcher))
        return self._best.finish(self._asked)

    def _tasks_of(self, partition: Partition) -> Tasks:
        return Tasks(partition, self._folder.scratch, self._own, self._watcher)
