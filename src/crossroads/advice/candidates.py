"""Everything that could be trained for a set of images: with what, what it is expected to reach, and what it will cost here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crossroads.advice.backbone_evidence import BackboneEvidence, FrozenProbe
from crossroads.advice.candidate_backbones import CandidateBackbone
from crossroads.advice.cost import (
    MULTIPLY_ADDS_PER_ACTIVATION,
    OVERHEAD,
    TRACE,
    Machine,
    epoch_seconds,
    format_seconds,
    forward_seconds,
    head_seconds,
    measured_step,
    memory_mb,
    step_fraction,
    step_seconds,
)
from crossroads.advice.estimate import Estimate
from crossroads.advice.expectation import Base, Setting, expected, with_epochs
from crossroads.advice.short_training import ShortTraining
from crossroads.advice.size import Curve
from crossroads.errors import RecipeError
from crossroads.networks.catalog import DEFAULT_FROM_SCRATCH, Backbone, backbone
from crossroads.progress import Watcher
from crossroads.recipe import Recipe, StrategyName
from crossroads.strategies import STRATEGIES, drop_unused_options, resolve_recipe, strategy

TIE = 0.005
"""Accuracy by which a candidate must be expected to do better than a cheaper one to be put before it: half a point."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to train.

    Attributes:
        recipe: Resolved: what `fit` would do.
        bases: What the expectation rests on.
        accuracy: Expected on new images.
        seconds: Expected of the whole run, with nothing in the cache but the sample.
        epoch_seconds: Expected of one of its epochs; 0 for a head that is solved.
        memory_mb: Expected at its peak, to about a fifth.
        obstacle: Why it cannot be taken, such as a budget too small; "" where nothing stands in the way.
        fits: Whether memory holds it.
        unshortened: The candidate with all the epochs that `fit` takes without a budget, where a budget has room for fewer.
    """

    recipe: Recipe
    bases: tuple[Base, ...]
    accuracy: Estimate
    seconds: float
    epoch_seconds: float
    memory_mb: float
    obstacle: str = ""
    fits: bool = True
    unshortened: Candidate | None = None

    @property
    def name(self) -> str:
        """Strategy and backbone."""
        return f"{self.recipe.strategy}, {self.recipe.backbone}"

    @property
    def shortened(self) -> str:
        """How many of its epochs the budget has room for; "" where it has for all."""
        return f"{self.recipe.epochs} of {self.unshortened.recipe.epochs} epochs" if self.unshortened else ""

    def seconds_of_least(self, *, shortens: bool) -> float:
        """Seconds with one epoch, where it may be shortened; else as they are."""
        epochs = self.recipe.epochs
        return self.seconds - (epochs - 1) * self.epoch_seconds if shortens and epochs else self.seconds

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        recipe = self.recipe
        return {
            "strategy": recipe.strategy,
            "backbone": recipe.backbone,
            "weights": recipe.weights,
            "cut": recipe.cut,
            "pooling": recipe.pooling,
            "image_size": recipe.image_size,
            "epochs": recipe.epochs,
            "usual_epochs": (self.unshortened or self).recipe.epochs,
            "bases": [base.to_json() for base in self.bases],
            "accuracy": self.accuracy.to_json(),
            "seconds": round(self.seconds, 1),
            "memory_mb": round(self.memory_mb),
            "obstacle": self.obstacle or None,
        }


@dataclass(frozen=True, slots=True, eq=False)
class AdviceContext:
    """What all candidates of one set of images share.

    Attributes:
        asked: What the user asked for, without a budget.
        images: Training images.
        classes: Their number.
        images_per_class: Effective ones.
        slope: What twice the images add to a probe, in log odds.
        side: Median of the shorter sides, in pixels.
        machine: What this machine does.
    """

    asked: Recipe
    images: int
    classes: int
    images_per_class: float
    slope: float
    side: float
    machine: Machine

    @property
    def setting(self) -> Setting:
        """What expectations know of it."""
        return Setting(self.images, self.images_per_class, self.slope)

    @property
    def validation_images(self) -> float:
        """How many the shares that were asked for come to; where the data bring a validation of their own, about as many."""
        held = self.asked.validation
        return self.images * held / (1 - held - self.asked.test_fraction)


def backbone_candidates(
    seen: BackboneEvidence, curves: dict[StrategyName, Curve], short: ShortTraining | None, ground: AdviceContext, watcher: Watcher
) -> Iterator[Candidate]:
    """The candidates that a backbone that was looked at gives.

    Args:
        seen: What it sees.
        curves: The learning curve of its best way of each frozen strategy.
        short: Its short warm start, where one was made.
        ground: What all share.
        watcher: Receives a note on each strategy that an option rules out.
    """
    ways = {way.strategy: way for way in reversed(seen.ways)}
    pretrained = seen.recipe.weights != "none"
    for record in STRATEGIES:
        if record.start == "random" or (not record.frozen and not pretrained):
            continue
        way = ways.get("early-features" if record.keeps == "early" else "feature-extraction")
        if way is None:
            continue
        try:
            recipe = _recipe(seen, way, record.name, ground)
        except RecipeError as error:  # an option that would do nothing here; `require_trainable` has seen that it does with another
            watcher.note(f"{record.name} of {seen.choice.record.name} is left out: {error}")
            continue
        warm = not (record.frozen or record.tuned)
        here = max((curve.here for curve in curves.values()), key=lambda one: one.value) if warm else curves[way.strategy].here
        bases = [Base("probe", here), *([_from_short(short, recipe, ground)] if warm and short is not None else [])]
        accuracy = expected(record.name, bases, ground.setting)
        seconds, each = _seconds(seen, way, recipe, short, ground)
        yield Candidate(recipe, tuple(bases), accuracy, seconds, each, _memory(way, recipe))


def from_scratch_candidate(
    short: ShortTraining | None, ground: AdviceContext, probed: Estimate | None, pixels: Estimate
) -> Candidate:
    """Training the small network from random weights.

    Args:
        short: Of it, where one was made.
        ground: What all candidates share.
        probed: What the best probe of pretrained features reaches with all images; None where there is none.
        pixels: What a probe on raw pixels reaches: it stands in where nothing else is known.
    """
    record = backbone(DEFAULT_FROM_SCRATCH)
    size = scratch_size(ground.asked, ground.side, alone=probed is None)
    asked = replace(ground.asked, backbone=record.name, weights=None, image_size=size)
    asked = drop_unused_options(asked, strategy("from-scratch"))
    recipe = resolve_recipe(asked, record, images=ground.images, image_size=size, side=ground.side)
    bases = [Base("probe", probed)] if probed is not None else []
    if short is not None:
        bases.append(_from_short(short, recipe, ground))
    bases = bases or [Base("probe", pixels)]
    accuracy = expected("from-scratch", bases, ground.setting)
    cost = int(record.multiply_adds * (size / record.reference_size) ** 2)
    each, start = step_seconds(cost, ground.machine, depthwise=False), TRACE
    if short is not None and short.seconds_per_image:
        each, start = _measured(short, recipe, ground), short.start_seconds
    epoch = epoch_seconds(each, ground.images, ground.validation_images)
    seconds = OVERHEAD + start + epoch * (recipe.epochs or 0)
    memory = memory_mb(record.parameters, cost / MULTIPLY_ADDS_PER_ACTIVATION, recipe.batch_size or 0, trained=True)
    return Candidate(recipe, tuple(bases), accuracy, seconds, epoch, memory)


def require_trainable(asked: Recipe, offers: Sequence[CandidateBackbone], side: float) -> None:
    """Raises `RecipeError` where an option stands in the way of every strategy that trains, before anything is measured."""
    first: RecipeError | None = None
    chosen: list[tuple[Backbone, str | None]] = [(offer.choice.record, offer.weights) for offer in offers]
    chosen = chosen or [(backbone(DEFAULT_FROM_SCRATCH), None)]
    for known, weights in chosen:
        for record in STRATEGIES:
            if record.frozen or (record.start == "random") != (weights is None):
                continue
            try:
                plain = drop_unused_options(replace(asked, backbone=known.name, weights=weights), record)
                resolve_recipe(plain, known, images=100, image_size=known.reference_size, side=side)
            except RecipeError as error:
                first = first or error
            else:
                return
    if first is not None:
        raise first


def scratch_size(asked: Recipe, side: float, *, alone: bool) -> int:
    """Side in pixels for the small network: the one asked for where it is of that kind, or there is no other; else what suits."""
    record = backbone(DEFAULT_FROM_SCRATCH)
    if asked.image_size is not None and (alone or asked.image_size <= record.sizes[-1]):
        return max(record.limits[0], asked.image_size)
    return record.size_for(side)


def rank(candidates: list[Candidate]) -> tuple[Candidate, ...]:
    """The best first: by expected accuracy, the cheaper of two that are within `TIE`; those with an obstacle come last."""
    left = sorted(candidates, key=lambda one: (bool(one.obstacle), -one.accuracy.value))
    found: list[Candidate] = []
    while left:
        top = left[0]
        near = [one for one in left if bool(one.obstacle) == bool(top.obstacle) and top.accuracy.value - one.accuracy.value <= TIE]
        chosen = min(near, key=lambda one: one.seconds)
        found.append(chosen)
        left.remove(chosen)
    return tuple(found)


def apply_limits(candidate: Candidate, budget: float | None, memory_limit_mb: float | None, *, shortens: bool = True) -> Candidate:
    """The candidate as a budget in seconds and the machine's memory allow it: with fewer epochs, or with an obstacle.

    Args:
        candidate: With all its epochs.
        budget: Of one run; None for any time.
        memory_limit_mb: What is free; None where it is not known.
        shortens: Whether its epochs may be fewer, as where the user named no number.
    """
    if memory_limit_mb is not None and candidate.memory_mb > memory_limit_mb:
        said = f"takes about {candidate.memory_mb:,.0f} MB of memory, and {memory_limit_mb:,.0f} are free"
        return replace(candidate, obstacle=said, fits=False)
    if budget is not None and candidate.seconds > budget:
        usual, each = candidate.recipe.epochs, candidate.epoch_seconds
        epochs = math.floor(usual - (candidate.seconds - budget) / each) if usual and each else 0
        if shortens and usual and epochs >= 1:
            accuracy = with_epochs(strategy(candidate.recipe.strategy).name, candidate.accuracy, epochs / usual)
            seconds = candidate.seconds - (usual - epochs) * each
            recipe = replace(candidate.recipe, epochs=epochs)
            return replace(candidate, recipe=recipe, accuracy=accuracy, seconds=seconds, unshortened=candidate)
        return replace(
            candidate, obstacle=f"takes about {format_seconds(candidate.seconds)} s, and the budget is {format_seconds(budget)} s"
        )
    return candidate


def _from_short(short: ShortTraining, recipe: Recipe, ground: AdviceContext) -> Base:
    whole = (recipe.epochs or 0) * ground.images
    return Base("short training", short.accuracy, max(0.0, math.log2(whole / short.passes)), short.rise)


def _recipe(seen: BackboneEvidence, way: FrozenProbe, name: StrategyName, ground: AdviceContext) -> Recipe:
    record, known = strategy(name), seen.choice.record
    asked = replace(
        ground.asked, backbone=seen.recipe.backbone, weights=seen.recipe.weights, image_size=seen.profile.image_size, strategy=name
    )
    if record.keeps == "early":
        asked = replace(asked, cut=way.cut.name, pooling=way.pooling)
    asked = drop_unused_options(asked, record)
    return resolve_recipe(asked, known, images=ground.images, image_size=seen.profile.image_size, side=ground.side)


def _seconds(
    seen: BackboneEvidence, way: FrozenProbe, recipe: Recipe, short: ShortTraining | None, ground: AdviceContext
) -> tuple[float, float]:
    """Of a whole run, and of one epoch: features of all images but the sample's, a head, the steps of those that train."""
    record, cost = strategy(recipe.strategy), way.cut.multiply_adds
    seconds, epoch = OVERHEAD, 0.0
    if record.frozen or record.tuned:
        known = len(seen.dataset) if way.strategy == "early-features" else 0  # whose features are in the cache as they are
        missing = ground.images + ground.validation_images - known
        seconds += missing * (forward_seconds(cost, ground.machine) + seen.decode_seconds)
        seconds += head_seconds(ground.images, way.features.shape[1], ground.classes, ground.machine)
    if not record.frozen:
        each, start = step_seconds(cost, ground.machine, depthwise=seen.depthwise), TRACE
        if short is not None and short.seconds_per_image:  # measured, for all that the backbone keeps
            each, start = _measured(short, recipe, ground) * step_fraction(way.cut, seen.built.keep), short.start_seconds
        epoch = epoch_seconds(each, ground.images, ground.validation_images)
        seconds += start + ground.images * seen.decode_seconds + (recipe.epochs or 0) * epoch
    return seconds, epoch


def _measured(short: ShortTraining, recipe: Recipe, ground: AdviceContext) -> float:
    """Seconds of an image in the steps of a training that a short one stands for."""
    return measured_step(short.seconds_per_image, short.together, ground.images, recipe.batch_size or 1)


def _memory(way: FrozenProbe, recipe: Recipe) -> float:
    trained = not strategy(recipe.strategy).frozen
    return memory_mb(way.cut.parameters, way.cut.activations, recipe.batch_size or 32, trained=trained)
