"""Finds the first answer of a run: the better head on frozen features, saved and tested before anything else is tried."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from crossroads.advice.backbone_evidence import BackboneEvidence, end_lookup, grid_lookup, seconds_per_image
from crossroads.advice.candidate_backbones import CandidateBackbone
from crossroads.advice.candidates import recipe_of, require_trainable
from crossroads.advice.estimate import Estimate, estimate_accuracy
from crossroads.advice.recommend import Request, convertible, feature_recipe, probe
from crossroads.data.partition import Partition
from crossroads.errors import RecipeError
from crossroads.features.lookup import SinglePass
from crossroads.progress import Watcher
from crossroads.race.affordable import affordable_fraction, part_of
from crossroads.race.records import CandidateRun, RaceCandidate
from crossroads.race.running import completed
from crossroads.recipe import Recipe
from crossroads.recipe.memory import memory_limit_mb
from crossroads.run.best import BestSoFar
from crossroads.run.clock import Clock
from crossroads.run.folder import RunFolder
from crossroads.run.task import Tasks, refuse_unsafe_flip
from crossroads.run.train import train

NAME = "candidate-first"
"""Folder of its checkpoint."""


@dataclass(frozen=True, slots=True, eq=False)
class FirstAnswer:
    """The first answer. Its artifact is saved.

    Attributes:
        recipe: What was trained.
        run: Its result.
        accuracy: The accuracy of its probe.
        evidence: The probes of its backbone, without a random control.
        others: The other frozen strategies. Their features are in the cache, so each of their heads takes seconds.
        complete: Whether every image was used. If not, the budget is spent.
    """

    recipe: Recipe
    run: CandidateRun
    accuracy: Estimate
    evidence: BackboneEvidence
    others: tuple[RaceCandidate, ...]
    complete: bool

    @property
    def candidate(self) -> RaceCandidate:
        """The answer as a candidate of the race."""
        return RaceCandidate(self.recipe, self.accuracy, self.run.seconds)


def first_answer(
    partition: Partition,
    backbone: CandidateBackbone,
    tasks_of: Callable[[Partition], Tasks],
    folder: RunFolder,
    best: BestSoFar,
    clock: Clock,
    watcher: Watcher,
) -> FirstAnswer | None:
    """Trains and saves the better of the heads on the end and on an early cut of a backbone.

    If the budget is too short for all images, a random part of each split is used, and a warning says so.

    Args:
        partition: The images.
        backbone: The backbone.
        tasks_of: Makes the tasks for a partition.
        folder: Holds the checkpoint.
        best: Saves the answer.
        clock: The time of the run.
        watcher: Receives progress and warnings.

    Returns:
        The answer; None if the backbone cannot be measured, or if the requested options exclude every frozen strategy.

    Raises:
        CrossroadsError: No image can be read, or an option rules out every strategy.
    """
    asked, began = partition.recipe.without_limits(), time.perf_counter()
    request = Request(partition.train, partition.median_side, asked, None, memory_limit_mb(partition.recipe.memory), watcher)
    require_trainable(asked, [backbone], partition.median_side)
    if not convertible(request, [backbone]):
        return None
    refuse_unsafe_flip(asked, partition.train)
    recipe = feature_recipe(request, backbone)
    fraction = affordable_fraction(partition, clock, lambda: seconds_per_image(partition.train, backbone.choice, recipe, watcher))
    used, best.test_images = part_of(partition, fraction, clock.budget, watcher)
    evidence = probe(replace(request, train=used.train), backbone)
    if evidence is None:
        return None
    heads = tuple(_heads(evidence, used, asked))
    if not heads:
        return None
    chosen, *others = heads
    _extract(evidence, used, watcher)
    task = tasks_of(used).task_for(chosen.recipe)
    fitted = train(task, folder.candidate_run(NAME), watcher)
    best.save(NAME, task, fitted)
    run = completed(CandidateRun(NAME, 0, None, None, True, time.perf_counter() - began), fitted)
    return FirstAnswer(chosen.recipe, run, chosen.accuracy, evidence, tuple(others), used is partition)


def _heads(evidence: BackboneEvidence, partition: Partition, asked: Recipe) -> Iterator[RaceCandidate]:
    """Yields the frozen strategies that the requested options allow, the better probe first."""
    for each in evidence.frozen_probes:
        with suppress(RecipeError):  # an option has no effect on this strategy; the advice says so
            recipe = recipe_of(evidence, each, each.strategy, asked, len(partition.train), partition.median_side)
            yield RaceCandidate(recipe, estimate_accuracy(each.correct, evidence.dataset.groups), 0.0)


def _extract(evidence: BackboneEvidence, partition: Partition, watcher: Watcher) -> None:
    """Computes the features of all images for both frozen strategies, in one pass."""
    body, choice, recipe = evidence.body, evidence.choice, evidence.recipe
    early = [each.cut for each in evidence.frozen_probes if each.strategy == "early-features"]
    lookups = [end_lookup(body, choice, recipe, watcher), *(grid_lookup(body, choice, recipe, cut, watcher) for cut in early)]
    single = SinglePass(body, lookups)
    single.fill(partition.train, "features of train")
    single.fill(partition.validation, "features of validation")
