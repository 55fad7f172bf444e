"""Plans a strategy that the user named so that it fits into the budget."""

from __future__ import annotations

import math

from crossroads._runtime.machine import has_gpu
from crossroads.advice.backbone_evidence import decode_seconds, seconds_of_pass
from crossroads.advice.cost import OVERHEAD, TRACE, Machine, epoch_seconds, forward_seconds, measure_machine, step_seconds
from crossroads.advice.estimate import Estimate
from crossroads.data.partition import Partition
from crossroads.errors import RecipeError, option
from crossroads.features.bodies import body_of
from crossroads.features.lookup import Lookup, SinglePass, resize_of
from crossroads.networks.graphs import Stated
from crossroads.progress import Silent, Watcher
from crossroads.race.affordable import affordable_fraction
from crossroads.race.records import Plan, RaceCandidate
from crossroads.run.clock import Clock
from crossroads.run.task import Task, Tasks

UNKNOWN = Estimate(0.5, 0.01, 0.99)
"""The accuracy of a candidate of which nothing is known."""


def named_plan(partition: Partition, tasks: Tasks, budget: float, clock: Clock, watcher: Watcher) -> Plan:
    """Returns a plan with the strategy that the user named as its only candidate, and nothing known of its accuracy.

    If the network stays frozen and there is no time for all images, the plan has a fraction of them.

    Args:
        partition: The images, and the recipe that names the strategy.
        tasks: Resolves the recipe.
        budget: The budget in seconds.
        clock: The time of the run.
        watcher: Receives progress.

    Raises:
        RecipeError: There is no time for one epoch, or for all epochs if the user set their number.
    """
    task = tasks.task_for(partition.recipe.without_limits())
    if task.strategy.frozen:
        views = task.recipe.views or 1
        fraction = affordable_fraction(partition, clock, lambda: _seconds_per_image(task, watcher), views)
        return Plan((RaceCandidate(task.recipe, UNKNOWN, 0.0, estimated=False),), budget, clock.spent, {}, fraction)
    if has_gpu():  # nothing is known of its speed
        return Plan((RaceCandidate(task.recipe, UNKNOWN, 0.0, estimated=False),), budget, clock.spent, {})
    candidate = _trained(task, measure_machine(), shortens=partition.recipe.epochs is None)
    _require_time(candidate, budget, clock)
    return Plan((candidate,), budget, clock.spent, {})


def scoring_seconds(partition: Partition, task: Task) -> float:
    """Returns the expected seconds to score a trained network on the validation and the test images."""
    images = len(task.validation) + (0 if partition.test is None else partition.test.n)
    machine = measure_machine()
    return machine.crowding * images * (_forward(task, machine) + decode_seconds(task.train, task.recipe))


def _trained(task: Task, machine: Machine, *, shortens: bool) -> RaceCandidate:
    """Returns a candidate that is trained, with its expected seconds on a CPU."""
    recipe, images, validation = task.recipe, len(task.train), len(task.validation)
    epoch = epoch_seconds(step_seconds(_multiply_adds(task), machine, depthwise=True), images, validation)
    fixed = machine.crowding * (OVERHEAD + TRACE) + (images + validation) * decode_seconds(task.train, recipe)
    if task.strategy.tuned:  # its head is solved first, on the features of all images
        fixed += (images + validation) * _forward(task, machine)
    return RaceCandidate(recipe, UNKNOWN, fixed + (recipe.epochs or 1) * epoch, epoch, shortens, estimated=False)


def _require_time(candidate: RaceCandidate, budget: float, clock: Clock) -> None:
    """Raises `RecipeError` if a candidate is not expected to end in time."""
    epochs = candidate.recipe.epochs or 1
    least = candidate.seconds if not candidate.shortens else candidate.seconds - (epochs - 1) * candidate.epoch_seconds
    if least <= clock.left:
        return
    needed = 10 * math.ceil((clock.spent + least) / 10)
    amount = "one epoch" if candidate.shortens or epochs == 1 else f"{epochs} epochs"
    raise RecipeError(
        f"{amount} of {candidate.recipe.strategy} with {candidate.recipe.backbone} must fit into {option('budget')}",
        code="budget-too-short",
        field="budget",
        received=f"{budget:g} s, and about {needed:,} s are needed",
        hint=f"set at least {needed} s, or leave out {option('strategy')} to get the best result within this time",
    )


def _seconds_per_image(task: Task, watcher: Watcher) -> float | None:
    """Returns the seconds to read an image and to compute its features; None if most of the features are in the cache."""
    recipe = task.recipe
    body = body_of(task.choice, int(recipe.image_size or 0), recipe.weights, recipe.seed, watcher.progress, Stated.of(recipe))
    keep = body.find(recipe.cut)
    lookup = Lookup(body.until(keep, recipe.pooling or "average"), task.choice.record.name, recipe, keep.name, Silent())
    return seconds_of_pass(SinglePass(body, [lookup]), task.train, recipe.seed, watcher)


def _forward(task: Task, machine: Machine) -> float:
    return forward_seconds(_multiply_adds(task), machine)


def _multiply_adds(task: Task) -> int:
    return task.choice.record.multiply_adds_at(resize_of(task.recipe).size)
