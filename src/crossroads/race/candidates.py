"""Which candidates race, from the advice."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np

from crossroads import __version__
from crossroads._runtime.machine import has_gpu
from crossroads.advice.candidate_backbones import candidate_backbones
from crossroads.advice.candidates import Candidate, apply_limits
from crossroads.advice.recommend import recommend
from crossroads.data.loading import digests_of
from crossroads.data.partition import Partition
from crossroads.errors import ArtifactError
from crossroads.networks.catalog import DEFAULT_FROM_SCRATCH
from crossroads.progress import Watcher
from crossroads.race.records import Plan, RaceCandidate
from crossroads.run.task import Tasks
from crossroads.run.train import rehearse
from crossroads.strategies import strategy
from crossroads.training.checkpoint import combined_identity

BUDGET = 600.0
"""Seconds that the choice of a strategy and its training may take where the user names no budget: ten minutes."""


def choose_candidates(partition: Partition, own: Any, watcher: Watcher) -> Plan:
    """Which candidates to race: those without an obstacle, and always a head on frozen features if memory holds them."""
    recipe = partition.recipe
    named = own if own is not None else recipe.backbone
    weights = (recipe.weights,) if recipe.weights else ()
    offers = () if recipe.weights == "none" else candidate_backbones(() if named is None else (named,), weights, watcher)
    if not offers:
        usual = named in (None, DEFAULT_FROM_SCRATCH)
        if named is None:
            watcher.note("nothing pretrained to choose from: training from scratch")
        elif recipe.budget is not None and not usual:
            watcher.warning(f"{recipe.backbone} trains from scratch; the budget cannot shorten that, use --epochs")
        if not usual or recipe.budget is None:  # nothing to measure, or no limit to measure it for
            return Plan((), BUDGET, 0.0, {})
    budget = recipe.budget or BUDGET
    advice = recommend(partition.train, partition.median_side, offers, replace(recipe, budget=budget), watcher)
    free = [one for one in advice.ranked if not one.obstacle]
    frozen = [one for one in advice.ranked if strategy(one.recipe.strategy).frozen]
    held = [one for one in frozen if one.fits]
    first: list[Candidate] = []
    if not free:
        first = [max(held or frozen or list(advice.ranked), key=lambda one: one.accuracy.value)]
        small = "budget" if first[0].fits else "memory"
        least = first[0].seconds_of_least(shortens=recipe.epochs is None)
        watcher.warning(f"the {small} is too small for anything; {first[0].name} is trained all the same, in about {least:,.0f} s")
    elif not any(one in frozen for one in free):
        first = held[:1]
    for one in advice.ranked:
        if one.obstacle and one not in first:
            watcher.note(f"{one.name} is left out: it {one.obstacle}")
        elif one.obstacle and free:
            watcher.note(f"{one.name} is the first answer all the same, though it {one.obstacle}")
        elif one.unshortened and (left := apply_limits(one.unshortened, budget - advice.evidence.seconds, None)).shortened:
            watcher.note(f"{one.name}: what is left of the budget has room for about {left.shortened}")
    free += first
    # The race shortens by what it measures. The seconds are a CPU's: on a GPU nothing is known of them before a first turn.
    whole = [one.unshortened or one for one in free]
    times = [(0.0, 0.0) if has_gpu() else (one.seconds, one.epoch_seconds) for one in whole]
    candidates = tuple(
        RaceCandidate(one.recipe, one.accuracy, *seconds, shortens=recipe.epochs is None)
        for one, seconds in zip(whole, times, strict=True)
    )
    return Plan(candidates, budget, advice.evidence.seconds, advice.to_json())


def convertible(plan: Plan, partition: Partition, tasks: Tasks, watcher: Watcher) -> Plan:
    """The plan without the candidates whose networks cannot become an artifact. The watcher receives the reason for each.

    Raises:
        ArtifactError: None can.
    """
    refused: dict[tuple[object, ...], ArtifactError | None] = {}
    kept: list[RaceCandidate] = []
    for one in plan.candidates:
        recipe = one.recipe
        network = (recipe.backbone, recipe.image_size, recipe.cut, recipe.pooling, recipe.head == "mlp")
        if network not in refused:
            try:
                rehearse(tasks.choice(recipe), int(recipe.image_size or 0), len(partition.train.classes), recipe)
                refused[network] = None
            except ArtifactError as error:
                refused[network] = error
        if why := refused[network]:
            watcher.note(f"{recipe.strategy} of {recipe.backbone} is left out: {why}")
        else:
            kept.append(one)
    if plan.candidates and not kept:
        raise next(why for why in refused.values() if why)
    return replace(plan, candidates=tuple(kept))


def identity_of(partition: Partition) -> str:
    """Digest of the images that a race is run on, their labels and groups, and the version; reads those that have no digest."""
    hasher = hashlib.blake2b(json.dumps(partition.train.classes).encode(), digest_size=16)
    for side in (partition.train, partition.validation):
        hasher.update(digests_of(side).tobytes())
        hasher.update(np.ascontiguousarray(side.labels).tobytes())
        hasher.update(b"" if side.groups is None else np.ascontiguousarray(side.groups).tobytes())
    return combined_identity({"images or labels": hasher.hexdigest(), "versions": __version__})
