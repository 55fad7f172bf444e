"""Lists the candidates for a set of images: each strategy with its backbone, expected accuracy, time and memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from crossroads.advice.backbone_evidence import BackboneEvidence, FrozenProbe
from crossroads.advice.candidate_backbones import CandidateBackbone
from crossroads.advice.cost import (
    FROZEN_OVERHEAD,
    OVERHEAD,
    TRACE,
    Machine,
    epoch_seconds,
    format_seconds,
    forward_seconds,
    head_seconds,
    step_fraction,
    step_seconds,
    whole_step_seconds,
)
from crossroads.advice.estimate import DIGITS, Estimate
from crossroads.advice.expectation import Base, Setting, expected, with_epochs
from crossroads.advice.short_training import ShortTraining
from crossroads.advice.size import Curve
from crossroads.errors import RecipeError, install
from crossroads.networks.catalog import DEFAULT_FROM_SCRATCH, Backbone, backbone
from crossroads.networks.memory import MULTIPLY_ADDS_PER_ACTIVATION, frozen_mb, part_mb
from crossroads.plain import to_plain
from crossroads.progress import Note, Watcher
from crossroads.recipe import Recipe, StrategyName
from crossroads.strategies import STRATEGIES, drop_unused_options, needs_keras, resolve_recipe, strategy

DISTINCT = ("strategy", "backbone", "weights", "cut", "pooling", "image_size", "epochs")
"""Fields of the recipe in which candidates differ."""

EXPECTED = ("bases", "accuracy", "seconds", "epoch_seconds", "memory_mb", "obstacle")
"""Fields of a candidate that hold its expected results."""

TIE = 0.005
"""Half a point of expected accuracy: candidates within it are tied, and the cheaper one comes first."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One strategy with its backbone and options.

    Attributes:
        recipe: The resolved recipe, as `fit` would run it.
        bases: The measurements that the expected accuracy is based on.
        accuracy: Expected accuracy on new images.
        seconds: Expected time of the whole run if only the sample's features are in the cache.
        epoch_seconds: Expected time per epoch; 0 for a solved head.
        memory_mb: Expected peak memory, to within about a fifth. A large batch is split so that it fits, down to parts of 8 images.
        obstacle: Why the candidate is not possible, such as a budget that is too small; None if it is possible.
        fits: Whether it fits into memory.
        unshortened: The candidate with its usual number of epochs, if the budget allows only fewer; otherwise None.
    """

    recipe: Recipe
    bases: tuple[Base, ...]
    accuracy: Estimate
    seconds: float
    epoch_seconds: float
    memory_mb: float
    obstacle: Note | None = None
    fits: bool = True
    unshortened: Candidate | None = None

    @property
    def name(self) -> str:
        """Strategy and backbone."""
        return f"{self.recipe.strategy}, {self.recipe.backbone}"

    @property
    def shortened(self) -> str:
        """How many of the usual epochs the budget allows; "" if it allows all."""
        return f"{self.recipe.epochs} of {self.unshortened.recipe.epochs} epochs" if self.unshortened else ""

    def least_seconds(self, *, may_shorten: bool) -> float:
        """Returns the expected time with one epoch if the training may be shortened, otherwise with all epochs."""
        epochs = self.recipe.epochs
        return self.seconds - (epochs - 1) * self.epoch_seconds if may_shorten and epochs else self.seconds

    def to_json(self) -> dict[str, object]:
        """Returns plain values: the choices that distinguish the candidate, and its expected results."""
        recipe = {name: getattr(self.recipe, name) for name in DISTINCT}
        usual = {"usual_epochs": (self.unshortened or self).recipe.epochs}
        return to_plain({**recipe, **usual, **{name: getattr(self, name) for name in EXPECTED}}, DIGITS)


@dataclass(frozen=True, slots=True, eq=False)
class AdviceContext:
    """What all candidates for one set of images have in common.

    Attributes:
        asked: The requested recipe, without its limits.
        images: Number of training images.
        classes: Number of classes.
        images_per_class: Effective images per class.
        slope: What doubling the images adds to a probe, in log odds.
        median_side: Median of the shorter sides of the images, in pixels.
        machine: The speed of this machine.
        all_cached: Whether the features of every image are in the cache, and not only those of the sample.
        memory_mb: The most memory that the process may use; None if unknown.
    """

    asked: Recipe
    images: int
    classes: int
    images_per_class: float
    slope: float
    median_side: float
    machine: Machine
    all_cached: bool = False
    memory_mb: float | None = None

    @property
    def setting(self) -> Setting:
        """The values that affect the expected accuracy."""
        return Setting(self.images, self.images_per_class, self.slope)

    @property
    def validation_images(self) -> float:
        """About how many validation images there are, from the fractions of the recipe."""
        validation = self.asked.validation
        return self.images * validation / (1 - validation - self.asked.test_fraction)


def backbone_candidates(
    evidence: BackboneEvidence,
    curves: Mapping[StrategyName, Curve],
    short: ShortTraining | None,
    context: AdviceContext,
    watcher: Watcher,
) -> Iterator[Candidate]:
    """Yields the candidates with one backbone.

    Args:
        evidence: The backbone.
        curves: The learning curve of the best probe of each frozen strategy.
        short: A short warm start; None if there was none.
        context: What all candidates have in common.
        watcher: Receives a note on each strategy that an option rules out.
    """
    probes = {probe.strategy: probe for probe in evidence.frozen_probes}
    pretrained = evidence.recipe.weights != "none"
    for record in STRATEGIES:
        trainable = pretrained and evidence.choice.record.trainable
        if record.start == "random" or (not record.frozen and not trainable):
            continue
        probe = probes.get("early-features" if record.keeps == "early" else "feature-extraction")
        if probe is None:
            continue
        try:
            recipe = _recipe(evidence, probe, record.name, context)
        except RecipeError as error:  # an option without an effect on this strategy
            name = evidence.choice.record.name
            text = f"{record.name} with {name} is left out: {error}"
            watcher.note(Note(text, "candidate-left-out", strategy=record.name, backbone=name, reason=str(error)))
            continue
        bases = [Base("probe", curves[probe.strategy].here)]
        if not record.frozen and not record.tuned:
            bases = _warm_start_bases(curves, short, recipe, context)
        accuracy = expected(record.name, bases, context.setting)
        seconds, per_epoch = _seconds(evidence, probe, recipe, short, context)
        memory = _memory_mb(evidence, probe, recipe, context)
        yield Candidate(recipe, tuple(bases), accuracy, seconds, per_epoch, memory)


def _memory_mb(evidence: BackboneEvidence, probe: FrozenProbe, recipe: Recipe, context: AdviceContext) -> float:
    """Returns the peak memory in MiB of a candidate: that of its frozen features, or of its training if that needs more."""
    cut, record = probe.cut, strategy(recipe.strategy)
    frozen = frozen_mb(cut.parameters, cut.activations, keras=evidence.choice.graph_needs_keras(evidence.recipe.weights))
    if record.frozen:
        return frozen
    # The network above `freeze_to` is smaller than all of it, so this is an upper limit.
    trained = part_mb(
        recipe.batch_size or 1,
        cut.parameters,
        cut.activations,
        train_batchnorm=not record.tuned or bool(recipe.train_batchnorm),
        limit_mb=context.memory_mb,
    )
    return max(frozen, trained)


def _warm_start_bases(
    curves: Mapping[StrategyName, Curve], short: ShortTraining | None, recipe: Recipe, context: AdviceContext
) -> list[Base]:
    """Returns the best probe at any cut, and the short warm start if there was one."""
    best = max((curve.here for curve in curves.values()), key=lambda accuracy: accuracy.value)
    return [Base("probe", best), *([] if short is None else [_short_base(short, recipe, context)])]


def from_scratch_candidate(short: ShortTraining | None, context: AdviceContext, pixels: Estimate, *, alone: bool) -> Candidate:
    """Returns the candidate that trains the small network from random weights.

    Args:
        short: Its short training; None if there was none.
        context: What all candidates have in common.
        pixels: Accuracy of a probe on raw pixels. A probe on pretrained features says less about a network that learns from these
            images alone.
        alone: Whether there is no pretrained backbone.
    """
    record = backbone(DEFAULT_FROM_SCRATCH)
    size = scratch_size(context.asked, context.median_side, alone=alone)
    asked = replace(context.asked, backbone=record.name, weights=None, image_size=size)
    asked = drop_unused_options(asked, strategy("from-scratch"))
    recipe = resolve_recipe(asked, record, images=context.images, image_size=size, side=context.median_side)
    bases = [Base("probe", pixels), *([] if short is None else [_short_base(short, recipe, context)])]
    accuracy = expected("from-scratch", bases, context.setting)
    cost = record.multiply_adds_at(size)
    per_image, start = _step_and_start(short, recipe, context) or (
        step_seconds(cost, context.machine, depthwise=False),
        context.machine.crowding * TRACE,
    )
    epoch = epoch_seconds(per_image, context.images, context.validation_images)
    seconds = context.machine.crowding * OVERHEAD + start + epoch * (recipe.epochs or 0)
    activations = cost / MULTIPLY_ADDS_PER_ACTIVATION
    memory = part_mb(recipe.batch_size or 1, record.parameters, activations, train_batchnorm=True, limit_mb=context.memory_mb)
    return Candidate(recipe, tuple(bases), accuracy, seconds, epoch, memory)


def require_trainable(asked: Recipe, backbones: Sequence[CandidateBackbone], median_side: float) -> None:
    """Raises `RecipeError` if an option rules out every strategy that trains, before anything is measured.

    A graph from a file is never trained; for it, every frozen strategy must be ruled out.
    """
    networks: list[tuple[Backbone, str | None]] = [(each.choice.record, each.weights) for each in backbones]
    errors = []
    for known, weights in networks or [(backbone(DEFAULT_FROM_SCRATCH), None)]:
        start = "random" if weights is None else "pretrained"
        for record in (record for record in STRATEGIES if record.frozen != known.trainable and record.start == start):
            try:
                plain = drop_unused_options(replace(asked, backbone=known.name, weights=weights), record)
                resolve_recipe(plain, known, images=100, image_size=known.reference_size, side=median_side)
            except RecipeError as error:
                errors.append(error)
            else:
                return
    raise errors[0]


def scratch_size(asked: Recipe, median_side: float, *, alone: bool) -> int:
    """Returns the side in pixels for the small network: the requested one if it is in its range or no other network is used."""
    record = backbone(DEFAULT_FROM_SCRATCH)
    if asked.image_size is not None and (alone or asked.image_size <= record.sizes[-1]):
        return max(record.limits[0], asked.image_size)
    return record.size_for(median_side)


def rank(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Returns the candidates by expected accuracy, the cheaper first within `TIE`, those with an obstacle last.

    A tie is counted from the best that is left: of 0.800, 0.797 and 0.794 the second may be first, but not the third.
    """
    left = sorted(candidates, key=lambda candidate: (bool(candidate.obstacle), -candidate.accuracy.value))
    ranked: list[Candidate] = []
    while left:
        top = left[0]
        tied = [
            candidate
            for candidate in left
            if bool(candidate.obstacle) == bool(top.obstacle) and top.accuracy.value - candidate.accuracy.value <= TIE
        ]
        cheapest = min(tied, key=lambda candidate: candidate.seconds)
        ranked.append(cheapest)
        left.remove(cheapest)
    return tuple(ranked)


def apply_limits(
    candidate: Candidate, budget: float | None, memory_limit_mb: float | None, *, may_shorten: bool = True
) -> Candidate:
    """Returns the candidate with as many epochs as a budget allows, or with an obstacle.

    Args:
        candidate: The candidate with its usual number of epochs.
        budget: Budget of the run in seconds; None if there is none.
        memory_limit_mb: The most memory that the process may use; None if unknown.
        may_shorten: Whether it may have fewer epochs. It may not if the user set their number.
    """
    if memory_limit_mb is not None and candidate.memory_mb > memory_limit_mb:
        return replace(candidate, obstacle=memory_obstacle(candidate.memory_mb, memory_limit_mb), fits=False)
    if budget is None or candidate.seconds <= budget:
        return candidate
    usual, per_epoch = candidate.recipe.epochs, candidate.epoch_seconds
    # 100 s with 8 epochs of 10 s each, and a budget of 69 s: 3.1 epochs are too many, which leaves 4.
    epochs = math.floor(usual - (candidate.seconds - budget) / per_epoch) if usual and per_epoch else 0
    if not may_shorten or not usual or epochs < 1:
        text = f"takes about {format_seconds(candidate.seconds)} s, and the budget is {format_seconds(budget)} s"
        return replace(candidate, obstacle=Note(text, "over-budget", seconds=round(candidate.seconds, 1), budget=budget))
    return replace(
        candidate,
        recipe=replace(candidate.recipe, epochs=epochs),
        accuracy=with_epochs(strategy(candidate.recipe.strategy).name, candidate.accuracy, epochs / usual),
        seconds=candidate.seconds - (usual - epochs) * per_epoch,
        unshortened=candidate,
    )


def require_solved(candidate: Candidate) -> Candidate:
    """Returns the candidate, with an obstacle if it is trained by gradient descent, for which Keras must be installed."""
    if not needs_keras(candidate.recipe):
        return candidate
    return replace(candidate, obstacle=Note(f"needs the extra train: {install('train')}", "missing-extra"))


def memory_obstacle(needed_mb: float, free_mb: float) -> Note:
    """Returns the obstacle of too little memory.

    Args:
        needed_mb: Expected peak memory of the process.
        free_mb: The most that it may use.
    """
    text = f"takes about {needed_mb:,.0f} MB of memory, and {free_mb:,.0f} MB may be used"
    return Note(text, "over-memory", needed_mb=round(needed_mb), free_mb=round(free_mb))


def _short_base(short: ShortTraining, recipe: Recipe, context: AdviceContext) -> Base:
    passes = (recipe.epochs or 0) * context.images
    return Base("short training", short.accuracy, max(0.0, math.log2(passes / short.passes)), short.learning_gain)


def _recipe(evidence: BackboneEvidence, probe: FrozenProbe, name: StrategyName, context: AdviceContext) -> Recipe:
    return recipe_of(evidence, probe, name, context.asked, context.images, context.median_side)


def recipe_of(
    evidence: BackboneEvidence, probe: FrozenProbe, name: StrategyName, asked: Recipe, images: int, median_side: float
) -> Recipe:
    """Returns the resolved recipe of a strategy with a backbone.

    Args:
        evidence: The backbone.
        probe: Its early cut and pooling are used by a strategy that keeps only early layers.
        name: The strategy.
        asked: The requested recipe.
        images: Number of training images.
        median_side: Median of the shorter sides of the images, in pixels.

    Raises:
        RecipeError: A requested option has no effect on this strategy.
    """
    record, base, size = strategy(name), evidence.recipe, evidence.profile.image_size
    wanted = replace(asked, backbone=base.backbone, weights=base.weights, image_size=size, strategy=name)
    if record.keeps == "early":
        wanted = replace(wanted, cut=probe.cut.name, pooling=probe.pooling)
    wanted = drop_unused_options(wanted, record)
    return resolve_recipe(wanted, evidence.choice.record, images=images, image_size=size, side=median_side)


def _seconds(
    evidence: BackboneEvidence, probe: FrozenProbe, recipe: Recipe, short: ShortTraining | None, context: AdviceContext
) -> tuple[float, float]:
    """Returns the expected seconds of a whole run and of one epoch."""
    record, cost = strategy(recipe.strategy), probe.cut.multiply_adds
    crowding = context.machine.crowding
    seconds, epoch = crowding * (FROZEN_OVERHEAD if record.frozen else OVERHEAD), 0.0
    if record.frozen or record.tuned:
        missing = 0.0 if context.all_cached else context.images + context.validation_images - len(evidence.dataset)
        seconds += missing * (forward_seconds(cost, context.machine) + evidence.decode_seconds)
        seconds += head_seconds(context.images, probe.features.shape[1], context.classes, context.machine)
    if not record.frozen:
        per_image, start = step_seconds(cost, context.machine, depthwise=evidence.body.depthwise), crowding * TRACE
        if measured := _step_and_start(short, recipe, context):  # up to the end of the kept backbone
            per_image, start = measured[0] * step_fraction(probe.cut, evidence.body.end), measured[1]
        epoch = epoch_seconds(per_image, context.images, context.validation_images)
        seconds += start + context.images * evidence.decode_seconds + (recipe.epochs or 0) * epoch
    return seconds, epoch


def _step_and_start(short: ShortTraining | None, recipe: Recipe, context: AdviceContext) -> tuple[float, float] | None:
    """Returns the seconds per image in a step and those before the first step; None if no short training measured them."""
    if short is None or not short.seconds_per_image:
        return None
    per_image = whole_step_seconds(short.seconds_per_image, short.grouped_steps, context.images, recipe.batch_size or 1)
    return per_image, short.start_seconds
