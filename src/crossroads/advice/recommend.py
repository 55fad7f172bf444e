"""Measures evidence on a sample of the training images, and ranks the candidates by their expected results."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from crossroads import artifact
from crossroads._runtime.keras_setup import can_train
from crossroads._runtime.machine import has_gpu
from crossroads.advice.backbone_evidence import BackboneEvidence, probe_backbone, with_decode_seconds, with_random_control
from crossroads.advice.baselines import Baselines, measure_baselines
from crossroads.advice.candidate_backbones import CandidateBackbone
from crossroads.advice.candidates import (
    AdviceContext,
    Candidate,
    apply_limits,
    backbone_candidates,
    from_scratch_candidate,
    memory_obstacle,
    rank,
    require_solved,
    require_trainable,
    scratch_size,
)
from crossroads.advice.cases import case_of
from crossroads.advice.cost import Machine, measure_machine
from crossroads.advice.evidence import Advice, Evidence
from crossroads.advice.reasons import reasons_for
from crossroads.advice.sample import MOST_CLASSES, compact, sample
from crossroads.advice.short_training import ShortTraining
from crossroads.advice.size import USUAL_SLOPE, Curve, Size, effective_images, learning_curve, measure_size
from crossroads.advice.warm_start import short_warm_start
from crossroads.data.dataset import Dataset
from crossroads.data.kept_files import keep_files
from crossroads.data.loading import Refusal, sample_notes
from crossroads.data.partition import count_seen
from crossroads.errors import ArtifactError, BackboneError
from crossroads.features.bodies import body_of
from crossroads.networks.catalog import Backbone
from crossroads.networks.graphs import Stated
from crossroads.networks.memory import MULTIPLY_ADDS_PER_ACTIVATION, frozen_mb
from crossroads.progress import Note, Relay, Watcher, stage
from crossroads.recipe import Recipe, StrategyName
from crossroads.recipe.memory import memory_limit_mb
from crossroads.run.task import refuse_unsafe_flip
from crossroads.strategies import drop_unused_options, resolve_recipe, strategy

SAMPLE = 2_000
"""Images that evidence is measured on. An accuracy of 0.9 is then known to 1.3 points, and MobileNet at 96 px takes 2 s."""

HEAVY, HEAVY_SAMPLE = 2e9, 600
"""A backbone with at least this many multiply-adds per image is measured on a smaller sample, of this size.

ResNet50 at 224 px, for example, processes only 45 images per second.
"""

TIME_FOR_EVIDENCE = 150.0
"""Seconds that must be left after a first answer for the random control and for short trainings, which take 20 to 50 s."""

Curves = Mapping[StrategyName, Curve]
"""The learning curve of the best probe of each frozen strategy."""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What advice is asked for.

    Attributes:
        train: The training images. No others are read.
        median_side: Median of their shorter sides, in pixels.
        asked: The requested recipe without its limits. Its options apply to every candidate that uses them.
        budget: Budget in seconds; None if there is none.
        memory_mb: The most memory that the process may use; None if unknown.
        watcher: Receives progress and notes.
        first: A backbone that is probed already, without its random control; None if there is none.
    """

    train: Dataset
    median_side: float
    asked: Recipe
    budget: float | None
    memory_mb: float | None
    watcher: Watcher
    first: BackboneEvidence | None = None

    @property
    def in_full(self) -> bool:
        """Returns whether the random control and the short trainings are worth their time.

        If there is an answer and little time is left, training itself says more.
        """
        return self.first is None or self.budget is None or self.budget >= TIME_FOR_EVIDENCE

    @property
    def classes(self) -> int:
        """Number of classes that occur."""
        return int((self.train.counts() > 0).sum())

    def size_for(self, record: Backbone) -> int:
        """Returns the side in pixels of the images for a backbone."""
        return self.asked.image_size or record.size_for(self.median_side)


def recommend(
    train: Dataset,
    median_side: float,
    backbones: Sequence[CandidateBackbone],
    asked: Recipe,
    watcher: Watcher,
    first: BackboneEvidence | None = None,
) -> Advice:
    """Measures the evidence and ranks the candidates.

    Args:
        train: The training images. No others are read.
        median_side: Median of their shorter sides, in pixels.
        backbones: The pretrained backbones to consider; none to consider only training from scratch.
        asked: The requested recipe. Its options apply to every candidate that uses them.
        watcher: Receives progress and notes.
        first: One of the backbones if it is probed already, and its features of all images are in the cache.

    Raises:
        CrossroadsError: No image can be read; named weights are missing; the only named backbone cannot become an artifact; a flip
            changes what the images show.
    """
    began = time.perf_counter()
    notes: list[str] = []
    relay = Relay(watcher, after_note=notes.append)
    limit_mb = memory_limit_mb(asked.memory)
    train = keep_files(train)  # the sample is read for the probes, the baselines, the random control and the short trainings
    request = Request(train, median_side, asked.without_limits(), asked.budget, limit_mb, relay, first)
    require_trainable(request.asked, backbones, median_side)
    backbones = convertible(request, backbones)
    with stage(relay.progress, "checking the images"):
        about_samples = sample_notes(train)
        if first is None:  # otherwise it was checked before the first answer; the check decodes every training image
            refuse_unsafe_flip(request.asked, train)
    for note in about_samples:
        relay.warning(note)
    machine = measure_machine()
    measured = [result for each in backbones if (result := _measure(request, each)) is not None]
    with stage(relay.progress, "measuring the baselines"):
        baselines, refused = _baselines(request, alone=not measured)
    with stage(relay.progress, "measuring learning curves"):
        size = _size(train, max(measured, key=lambda each: each.frozen_probes[0].accuracy, default=None))
        known = [(each, _curves(each, size, request)) for each in measured]
        known.sort(key=lambda pair: -_best(pair[1]).here.value)
    warm_start, candidates = _candidates(request, known, size, baselines, machine)
    limit = None if has_gpu() else request.budget  # the seconds are those of a CPU, and rule out nothing on a GPU
    may_shorten = request.asked.epochs is None
    limited = [apply_limits(each, limit, request.memory_mb, may_shorten=may_shorten) for each in candidates]
    ranked = rank(limited if can_train() else [require_solved(each) for each in limited])
    curve = _best(known[0][1]) if known else None
    profiles = tuple(each.profile for each, _ in known)
    evidence = Evidence(size, profiles, curve, baselines, warm_start, time.perf_counter() - began)
    leading = evidence.leading_profile
    case = None if leading is None else case_of(size.effective_per_class, leading)
    reasons = tuple(reasons_for(evidence, case, ranked, request.budget))
    return Advice(case, ranked, reasons, evidence, request.budget, tuple(notes), relay.warnings, refused)


def _candidates(
    request: Request, known: Sequence[tuple[BackboneEvidence, Curves]], size: Size, baselines: Baselines, machine: Machine
) -> tuple[ShortTraining | None, list[Candidate]]:
    """Returns a short warm start of the best pretrained backbone, and all candidates."""
    curve = _best(known[0][1]) if known else None
    slope = USUAL_SLOPE if curve is None else curve.slope
    context = AdviceContext(
        request.asked,
        len(request.train),
        request.classes,
        size.effective_per_class,
        slope,
        request.median_side,
        machine,
        all_cached=request.first is not None,
        memory_mb=request.memory_mb,
    )
    # Only one, because a warm start takes longer than all other measurements.
    leader = next((each for each, _ in known if each.recipe.weights != "none" and each.choice.record.trainable), None)
    warm_start = None
    if leader is not None and request.in_full:
        warm_start = short_warm_start(leader, request.asked, machine, request.budget, request.memory_mb, request.watcher)
    candidates = [
        candidate
        for each, curves in known
        for candidate in backbone_candidates(each, curves, warm_start if each is leader else None, context, request.watcher)
    ]
    scratch = from_scratch_candidate(baselines.small_network, context, baselines.pixels, alone=not known)
    return warm_start, [*candidates, scratch]


def convertible(request: Request, backbones: Sequence[CandidateBackbone]) -> tuple[CandidateBackbone, ...]:
    """Returns the backbones that can become an inference graph. Those that `_measure` leaves out are not tried.

    Raises:
        ArtifactError: The user named only one backbone, and it cannot become an inference graph.
    """
    kept = []
    for backbone in backbones:
        record = backbone.choice.record
        size = request.size_for(record)
        try:
            if _obstacle(backbone, size, request.memory_mb) is None:
                progress = request.watcher.progress
                body_of(backbone.choice, size, backbone.weights, request.asked.seed, progress, Stated.of(request.asked))
        except ArtifactError as error:
            if backbone.named and len(backbones) == 1:
                raise
            request.watcher.note(_left_out(record, str(error)))
        else:
            kept.append(backbone)
    return tuple(kept)


def _left_out(record: Backbone, reason: str) -> Note:
    return Note(f"{record.name} is left out: {reason}", "backbone-left-out", backbone=record.name, reason=reason)


def _obstacle(backbone: CandidateBackbone, size: int, limit_mb: float | None) -> str | None:
    """Returns why a backbone cannot be measured: the image size, or too little memory; None if it can."""
    record = backbone.choice.record
    try:
        record.check_size(size)
    except BackboneError as error:
        return str(error)
    activations = record.multiply_adds_at(size) / MULTIPLY_ADDS_PER_ACTIVATION
    needed = frozen_mb(record.parameters, activations, keras=backbone.choice.graph_needs_keras(backbone.weights))
    return f"it {memory_obstacle(needed, limit_mb)}" if limit_mb is not None and needed > limit_mb else None


def _measure(request: Request, backbone: CandidateBackbone) -> BackboneEvidence | None:
    """Returns the evidence on a backbone with its random control; None, with a note, if it cannot be measured.

    Raises:
        BackboneError: A named backbone does not accept the image size.
    """
    first = request.first
    probed = first if first is not None and first.choice.record.name == backbone.choice.record.name else probe(request, backbone)
    if probed is None:
        return None
    return with_random_control(probed, request.watcher) if request.in_full else with_decode_seconds(probed)


def probe(request: Request, backbone: CandidateBackbone) -> BackboneEvidence | None:
    """Probes a backbone on a sample; None, with a note, if it does not fit into memory or does not accept the image size.

    Raises:
        BackboneError: A named backbone does not accept the image size.
    """
    record, train = backbone.choice.record, request.train
    size = request.size_for(record)
    if backbone.named:
        record.check_size(size)
    if (obstacle := _obstacle(backbone, size, request.memory_mb)) is not None:
        request.watcher.note(_left_out(record, obstacle))
        return None
    recipe = feature_recipe(request, backbone)
    indices = sample(train, SAMPLE if record.multiply_adds_at(size) < HEAVY else HEAVY_SAMPLE, request.asked.seed)
    evidence = probe_backbone(compact(train.select(indices)), backbone.choice, recipe, request.watcher)
    images, seen = len(evidence.digests), count_seen(evidence.digests, artifact.seen_by_weights(recipe.weights))
    if seen:
        text = (
            f"{seen} of {images} training images that {record.name} is measured on are {artifact.SEEN_BY_WEIGHTS}: "
            "the evidence is optimistically biased"
        )
        request.watcher.warning(Note(text, "sample-seen-by-weights", backbone=record.name, seen=seen, images=images))
    return evidence


def feature_recipe(request: Request, backbone: CandidateBackbone) -> Recipe:
    """Returns the recipe of feature extraction with a backbone."""
    record, size = backbone.choice.record, request.size_for(backbone.choice.record)
    wanted = replace(request.asked, backbone=record.name, weights=backbone.weights, image_size=size, strategy="feature-extraction")
    plain = drop_unused_options(wanted, strategy("feature-extraction"))
    return resolve_recipe(plain, record, images=len(request.train), image_size=size, side=request.median_side)


def _baselines(request: Request, *, alone: bool) -> tuple[Baselines, tuple[Refusal, ...]]:
    """Measures the baselines on a separate sample. Also returns the refused images of the sample.

    Args:
        request: The request.
        alone: Whether there is no pretrained backbone.
    """
    train, asked, watcher = request.train, request.asked, request.watcher
    if request.classes > MOST_CLASSES:
        text = (
            f"the evidence is measured on {MOST_CLASSES} of the {request.classes:,} classes, which are easier to tell apart than "
            "all of them"
        )
        watcher.note(Note(text, "classes-sampled", sampled=MOST_CLASSES, classes=request.classes))
    images = compact(train.select(sample(train, SAMPLE, asked.seed)))
    size, majority = scratch_size(asked, request.median_side, alone=alone), float(train.counts().max() / len(train))
    budget = request.budget if request.in_full else 0.0
    baselines, refused = measure_baselines(images, asked, size, majority, budget, watcher)
    if baselines.small_network is None:
        text = "the small network had no short training, so the expected accuracy from scratch is based on a probe"
        watcher.note(Note(text, "no-short-training"))
    return baselines, refused


def _size(train: Dataset, best: BackboneEvidence | None) -> Size:
    """Measures the size of the data set with the features of the best backbone, if there is one."""
    if best is None:
        return measure_size(train, None, np.zeros((len(train), 0), np.float32), train.labels, train.groups)
    return measure_size(train, best.digests, best.end_features, best.dataset.labels, best.dataset.groups, best.refused)


def _curves(evidence: BackboneEvidence, size: Size, request: Request) -> Curves:
    """Returns the learning curve of each frozen probe, extrapolated to all training images of the sampled classes."""
    sampled = evidence.dataset
    if size.groups is None or sampled.groups is None:
        effective = float(len(np.unique(evidence.digests, axis=0)))
    else:
        effective = effective_images(sampled.groups, size.group_correlation)
    times = max(1.0, size.effective * len(sampled.classes) / request.classes / max(1.0, effective))
    return {
        each.strategy: learning_curve(each.features, sampled.labels, sampled.groups, times, request.asked.seed, each.correct)
        for each in evidence.frozen_probes
    }


def _best(curves: Curves) -> Curve:
    return max(curves.values(), key=lambda curve: curve.here.value)
