"""Chooses the candidates of a race from the advice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from crossroads import __version__
from crossroads._runtime.machine import has_gpu
from crossroads.advice.candidate_backbones import CandidateBackbone, candidate_backbones
from crossroads.advice.candidates import Candidate, apply_limits
from crossroads.advice.evidence import Advice
from crossroads.advice.recommend import recommend
from crossroads.data.loading import digests_of
from crossroads.data.partition import Partition
from crossroads.errors import ArtifactError
from crossroads.networks.catalog import DEFAULT_FROM_SCRATCH
from crossroads.progress import Note, Watcher
from crossroads.race import messages
from crossroads.race.first import FirstAnswer
from crossroads.race.records import Plan, RaceCandidate
from crossroads.recipe import Recipe
from crossroads.run.clock import Clock
from crossroads.run.task import Tasks
from crossroads.run.train import rehearse
from crossroads.strategies import strategy
from crossroads.training.checkpoint import combined_identity

BUDGET = 600.0
"""Seconds for the choice of a strategy and its training if the user sets no budget: ten minutes."""


def considered(recipe: Recipe, own: object, watcher: Watcher) -> tuple[CandidateBackbone, ...]:
    """Returns the pretrained backbones to consider.

    Args:
        recipe: What the user asked for.
        own: A network of the user's own as an object, or None.
        watcher: Receives progress and notes.
    """
    named = own if own is not None else recipe.backbone
    weights = (recipe.weights,) if recipe.weights else ()
    return () if recipe.weights == "none" else candidate_backbones(() if named is None else (named,), weights, watcher)


def choose_candidates(
    partition: Partition,
    backbones: Sequence[CandidateBackbone],
    own: object,
    clock: Clock,
    watcher: Watcher,
    first: FirstAnswer | None = None,
) -> Plan:
    """Chooses the candidates of a race from the advice; none if training from scratch is all that remains.

    Args:
        partition: Its training images are measured.
        backbones: The pretrained backbones to consider.
        own: A network of the user's own as an object, or None.
        clock: The time of the run.
        watcher: Receives progress and warnings.
        first: The first answer, which is a candidate in any case; None if there is none.
    """
    recipe = partition.recipe
    budget, may_shorten = clock.budget or BUDGET, recipe.epochs is None
    if not backbones and not _budget_shortens(recipe, own if own is not None else recipe.backbone, watcher):
        return Plan((), budget, 0.0, {})
    left = min(clock.left, budget)
    evidence = None if first is None else first.evidence
    advice = recommend(partition.train, partition.median_side, backbones, replace(recipe, budget=left), watcher, evidence)
    chosen = _possible(advice, left, may_shorten, watcher, first)
    candidates = tuple(_race_candidate(candidate, may_shorten) for candidate in chosen)
    return Plan(candidates, budget, clock.spent, advice.to_json())


def _budget_shortens(recipe: Recipe, named: object, watcher: Watcher) -> bool:
    """Returns whether a race is of use without a pretrained backbone: only if it fits the small network into a budget."""
    if named is None:
        watcher.note(Note("no pretrained network is available, so the network is trained from scratch", "nothing-pretrained"))
    elif recipe.budget is not None and named != DEFAULT_FROM_SCRATCH:
        text = f"{recipe.backbone} is trained from scratch. The budget cannot shorten that; set the number of epochs"
        watcher.warning(Note(text, "budget-does-not-shorten", backbone=recipe.backbone))
    return recipe.budget is not None and named in (None, DEFAULT_FROM_SCRATCH)


def _race_candidate(candidate: Candidate, may_shorten: bool) -> RaceCandidate:
    """Returns the candidate with its usual epochs: the race shortens runs by what it measures."""
    usual = candidate.unshortened or candidate
    # The expected seconds are those of a CPU. On a GPU nothing is known before a first run.
    seconds, epoch_seconds = (0.0, 0.0) if has_gpu() else (usual.seconds, usual.epoch_seconds)
    return RaceCandidate(usual.recipe, usual.accuracy, seconds, epoch_seconds, may_shorten)


def _possible(advice: Advice, budget: float, may_shorten: bool, watcher: Watcher, answer: FirstAnswer | None) -> list[Candidate]:
    """Returns the candidates without an obstacle, and the head that gave or gives the first answer."""
    possible = [each for each in advice.ranked if not each.obstacle or (answer is not None and each.recipe == answer.recipe)]
    first = _first_answer(advice.ranked, possible)
    if first is not None:
        if possible:
            watcher.note(messages.first_answer(first))
        else:
            watcher.warning(messages.limit_too_small(first, may_shorten=may_shorten))
    for candidate in advice.ranked:
        if candidate.obstacle and candidate is not first:
            watcher.note(messages.left_out(candidate.recipe, f"it {candidate.obstacle}"))
        elif candidate.unshortened:
            shortened = apply_limits(candidate.unshortened, budget - advice.evidence.seconds, None)
            if shortened.shortened:
                watcher.note(messages.epochs_limited(shortened))
    return possible if first is None else [*possible, first]


def _first_answer(ranked: Sequence[Candidate], possible: Sequence[Candidate]) -> Candidate | None:
    """Returns a candidate that runs even though it exceeds a limit. Returns None if a head on frozen features is possible anyway.

    It is the first head that memory holds. If nothing is possible, it is the most accurate of these heads, of all heads, or of all
    candidates.
    """
    if any(_is_frozen(candidate) for candidate in possible):
        return None
    heads = [candidate for candidate in ranked if _is_frozen(candidate)]
    fitting = [candidate for candidate in heads if candidate.fits]
    if possible:
        return next(iter(fitting), None)
    return max(fitting or heads or ranked, key=lambda candidate: candidate.accuracy.value)


def _is_frozen(candidate: Candidate) -> bool:
    return strategy(candidate.recipe.strategy).frozen


def convertible(plan: Plan, partition: Partition, tasks: Tasks, watcher: Watcher) -> Plan:
    """Returns the plan without the candidates whose networks cannot become an artifact. The watcher receives each reason.

    Raises:
        ArtifactError: No candidate can become an artifact.
    """
    errors: dict[tuple[object, ...], ArtifactError | None] = {}
    kept: list[RaceCandidate] = []
    for candidate in plan.candidates:
        recipe = candidate.recipe
        network = (
            strategy(recipe.strategy).frozen,
            recipe.backbone,
            recipe.image_size,
            recipe.cut,
            recipe.pooling,
            recipe.head == "mlp",
        )
        if network not in errors:
            try:
                if not strategy(recipe.strategy).frozen:  # the graph of a frozen backbone exists already
                    choice, size = tasks.choice(recipe), int(recipe.image_size or 0)
                    rehearse(choice, size, len(partition.train.classes), recipe, progress=watcher.progress)
                errors[network] = None
            except ArtifactError as error:
                errors[network] = error
        if reason := errors[network]:
            watcher.note(messages.left_out(recipe, str(reason)))
        else:
            kept.append(candidate)
    if plan.candidates and not kept:
        raise next(error for error in errors.values() if error)
    return replace(plan, candidates=tuple(kept))


def identity_of(partition: Partition) -> str:
    """Returns a digest of the images, labels and groups that a race uses, and of the version of the program."""
    hasher = hashlib.blake2b(json.dumps(partition.train.classes).encode(), digest_size=16)
    for part in (partition.train, partition.validation):
        hasher.update(digests_of(part).tobytes())
        hasher.update(np.ascontiguousarray(part.labels).tobytes())
        hasher.update(b"" if part.groups is None else np.ascontiguousarray(part.groups).tobytes())
    return combined_identity({"images or labels": hasher.hexdigest(), "versions": __version__})
