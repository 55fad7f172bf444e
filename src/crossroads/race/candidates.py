"""Chooses the candidates of a race from the advice."""

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
from crossroads.advice.evidence import Advice
from crossroads.advice.recommend import recommend
from crossroads.data.loading import digests_of
from crossroads.data.partition import Partition
from crossroads.errors import ArtifactError
from crossroads.networks.catalog import DEFAULT_FROM_SCRATCH
from crossroads.progress import Note, Watcher
from crossroads.race.records import Plan, RaceCandidate
from crossroads.run.task import Tasks
from crossroads.run.train import rehearse
from crossroads.strategies import strategy
from crossroads.training.checkpoint import combined_identity

BUDGET = 600.0
"""Seconds for the choice of a strategy and its training if the user sets no budget: ten minutes."""


def choose_candidates(partition: Partition, own: Any, watcher: Watcher) -> Plan:
    """Chooses the candidates of a race from the advice; none if there is nothing to choose and training from scratch remains.

    Args:
        partition: Its training images are measured.
        own: A network of the user's own as an object, or None.
        watcher: Receives progress and warnings.
    """
    recipe = partition.recipe
    named = own if own is not None else recipe.backbone
    weights = (recipe.weights,) if recipe.weights else ()
    backbones = () if recipe.weights == "none" else candidate_backbones(() if named is None else (named,), weights, watcher)
    if not backbones:
        usual = named in (None, DEFAULT_FROM_SCRATCH)
        if named is None:
            watcher.note(Note("nothing pretrained to choose from: training from scratch", "nothing-pretrained"))
        elif recipe.budget is not None and not usual:
            text = f"{recipe.backbone} trains from scratch. The budget cannot shorten that; set the number of epochs"
            watcher.warning(Note(text, "budget-does-not-shorten", backbone=recipe.backbone))
        if not usual or recipe.budget is None:  # nothing to measure, or no limit to measure it for
            return Plan((), BUDGET, 0.0, {})
    budget = recipe.budget or BUDGET
    advice = recommend(partition.train, partition.median_side, backbones, replace(recipe, budget=budget), watcher)
    chosen = _possible(advice, recipe.epochs is None, watcher)
    # The race shortens runs by what it measures. The expected seconds are a CPU's: on a GPU nothing is known before a first run.
    complete = [candidate.unshortened or candidate for candidate in chosen]
    candidates = tuple(
        RaceCandidate(one.recipe, one.accuracy, 0.0, 0.0, recipe.epochs is None)
        if has_gpu()
        else RaceCandidate(one.recipe, one.accuracy, one.seconds, one.epoch_seconds, recipe.epochs is None)
        for one in complete
    )
    return Plan(candidates, budget, advice.evidence.seconds, advice.to_json())


def _possible(advice: Advice, may_shorten: bool, watcher: Watcher) -> list[Candidate]:
    """Returns the candidates without an obstacle, and one head on frozen features if memory holds it, whatever the budget."""
    possible = [candidate for candidate in advice.ranked if not candidate.obstacle]
    frozen = [candidate for candidate in advice.ranked if strategy(candidate.recipe.strategy).frozen]
    fitting = [candidate for candidate in frozen if candidate.fits]
    first: list[Candidate] = []
    if not possible:
        first = [max(fitting or frozen or list(advice.ranked), key=lambda candidate: candidate.accuracy.value)]
        limit, seconds = "budget" if first[0].fits else "memory", first[0].least_seconds(may_shorten=may_shorten)
        text = f"the {limit} is too small for any candidate; {first[0].name} is trained anyway, in about {seconds:,.0f} s"
        watcher.warning(Note(text, "limit-too-small", limit=limit, **_names(first[0]), seconds=round(seconds, 1)))
    elif not any(candidate in frozen for candidate in possible):
        first = fitting[:1]
    for candidate in advice.ranked:
        if candidate.obstacle and candidate not in first:
            text = f"{candidate.name} is left out: it {candidate.obstacle}"
            watcher.note(Note(text, "candidate-left-out", **_names(candidate), reason=candidate.obstacle))
        elif candidate.obstacle and possible:
            text = f"{candidate.name} gives the first answer, although it {candidate.obstacle}"
            watcher.note(Note(text, "first-answer-over-limit", **_names(candidate), reason=candidate.obstacle))
        elif candidate.unshortened:
            left = apply_limits(candidate.unshortened, (advice.budget or BUDGET) - advice.evidence.seconds, None)
            if left.shortened:
                text = f"{candidate.name}: the rest of the budget has room for about {left.shortened}"
                watcher.note(Note(text, "epochs-limited", **_names(candidate), epochs=left.recipe.epochs))
    return possible + first


def _names(candidate: Candidate) -> dict[str, object]:
    return {"strategy": candidate.recipe.strategy, "backbone": candidate.recipe.backbone}


def convertible(plan: Plan, partition: Partition, tasks: Tasks, watcher: Watcher) -> Plan:
    """Returns the plan without the candidates whose networks cannot become an artifact. The watcher receives each reason.

    Raises:
        ArtifactError: None of them can.
    """
    errors: dict[tuple[object, ...], ArtifactError | None] = {}
    kept: list[RaceCandidate] = []
    for candidate in plan.candidates:
        recipe = candidate.recipe
        network = (recipe.backbone, recipe.image_size, recipe.cut, recipe.pooling, recipe.head == "mlp")
        if network not in errors:
            try:
                rehearse(tasks.choice(recipe), int(recipe.image_size or 0), len(partition.train.classes), recipe)
                errors[network] = None
            except ArtifactError as error:
                errors[network] = error
        if reason := errors[network]:
            text = f"{recipe.strategy} of {recipe.backbone} is left out: {reason}"
            names = {"strategy": recipe.strategy, "backbone": recipe.backbone}
            watcher.note(Note(text, "candidate-left-out", **names, reason=str(reason)))
        else:
            kept.append(candidate)
    if plan.candidates and not kept:
        raise next(error for error in errors.values() if error)
    return replace(plan, candidates=tuple(kept))


def identity_of(partition: Partition) -> str:
    """Returns a digest of the images that a race uses, their labels and groups, and the version of the program."""
    hasher = hashlib.blake2b(json.dumps(partition.train.classes).encode(), digest_size=16)
    for part in (partition.train, partition.validation):
        hasher.update(digests_of(part).tobytes())
        hasher.update(np.ascontiguousarray(part.labels).tobytes())
        hasher.update(b"" if part.groups is None else np.ascontiguousarray(part.groups).tobytes())
    return combined_identity({"images or labels": hasher.hexdigest(), "versions": __version__})
