"""The recommendation: evidence gathered on a sample, and candidates in the order of what is expected of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from crossroads import artifact
from crossroads._runtime.keras_setup import load_keras
from crossroads._runtime.machine import available_memory_mb, has_gpu
from crossroads.advice.backbone_evidence import BackboneEvidence, see
from crossroads.advice.baselines import measure_baselines
from crossroads.advice.candidate_backbones import CandidateBackbone
from crossroads.advice.candidates import (
    AdviceContext,
    apply_limits,
    backbone_candidates,
    from_scratch_candidate,
    rank,
    require_trainable,
    scratch_size,
)
from crossroads.advice.cases import case_of
from crossroads.advice.cost import MULTIPLY_ADDS_PER_ACTIVATION, measured_machine, memory_mb
from crossroads.advice.evidence import Advice, Evidence
from crossroads.advice.reasons import reasons_for
from crossroads.advice.sample import MOST_CLASSES, compact, sample
from crossroads.advice.size import USUAL_SLOPE, Curve, Size, curve_of, effective_images, size_of
from crossroads.advice.warm_start import short_warm_start
from crossroads.data.dataset import Dataset
from crossroads.data.loading import sample_notes
from crossroads.data.partition import count_seen
from crossroads.errors import ArtifactError, BackboneError
from crossroads.networks.catalog import Backbone
from crossroads.progress import Relay, Watcher
from crossroads.recipe import Recipe, StrategyName
from crossroads.run.task import refuse_unsafe_flip
from crossroads.run.train import rehearse
from crossroads.strategies import drop_unused_options, resolve_recipe, strategy

SAMPLE = 2_000
"""Images that evidence is measured on: an accuracy of 0.9 is then known to 1.3 points, and MobileNet at 96 px sees them in 2 s."""

HEAVY, HEAVY_SAMPLE = 2e9, 600
"""Multiply-adds of an image from which on fewer are looked at: ResNet50 at 224 px sees 45 in a second."""


def recommend(train: Dataset, side: float, offers: Sequence[CandidateBackbone], asked: Recipe, watcher: Watcher) -> Advice:
    """Measure, and recommend.

    Args:
        train: Training images; nothing else is looked at.
        side: Median of their shorter sides, in pixels.
        offers: The pretrained backbones to consider; none for training from scratch alone.
        asked: What the user asked for; options that hold for every strategy go into every candidate.
        watcher: Receives progress and notes.

    Raises:
        CrossroadsError: No image can be read; weights that the user named are not there; the only backbone that the user named
            cannot become an artifact; a flip that changes what the images show.
    """
    memory = available_memory_mb()  # before Keras is loaded, which `memory_mb` counts
    asked, budget = replace(asked, budget=None), asked.budget
    began = time.perf_counter()
    told: list[str] = []
    watcher = Relay(watcher, after_note=told.append)
    require_trainable(asked, offers, side)
    load_keras()
    offers = _able(offers, train, asked, side, memory, watcher)
    for note in sample_notes(train):
        watcher.warning(note)
    refuse_unsafe_flip(asked, train)
    machine = measured_machine()
    counts = train.counts()
    classes = int((counts > 0).sum())
    seen = [found for offer in offers if (found := _looked_at(train, offer, asked, side, memory, watcher)) is not None]
    if classes > MOST_CLASSES:
        watcher.note(
            f"the evidence is drawn from {MOST_CLASSES} of the {classes:,} classes, which are easier to distinguish than all"
        )
    rows = sample(train, SAMPLE, asked.seed)
    part = compact(train.select(rows))
    level = measure_baselines(
        part, asked, scratch_size(asked, side, alone=not seen), float(counts.max() / len(train)), budget, watcher
    )
    if level.short is None:
        watcher.note("no class has images enough for a short training: what is expected from scratch rests on a probe")
    size = _size(train, max(seen, key=lambda one: float(one.ways[0].correct.mean()), default=None))
    known = [(one, _curves(one, size, classes, asked.seed)) for one in seen]
    known.sort(key=lambda pair: -max(curve.here.value for curve in pair[1].values()))
    curve = max(known[0][1].values(), key=lambda one: one.here.value) if known else None
    slope = USUAL_SLOPE if curve is None else curve.slope
    ground = AdviceContext(asked, len(train), classes, size.effective_per_class, slope, side, machine)
    # Of the backbone that sees most alone: a warm start takes longer than all else that is measured.
    leader = next((found for found, _ in known if found.recipe.weights != "none"), None)
    warm = None if leader is None else short_warm_start(leader, asked, machine, budget, memory, watcher)
    candidates = [
        one
        for found, curves in known
        for one in backbone_candidates(found, curves, warm if found is leader else None, ground, watcher)
    ]
    candidates.append(from_scratch_candidate(level.short, ground, None if curve is None else curve.here, level.pixels))
    # The seconds are a CPU's: on a GPU they forbid nothing.
    limit = None if has_gpu() else budget
    order = rank([apply_limits(one, limit, memory, shortens=asked.epochs is None) for one in candidates])
    evidence = Evidence(size, tuple(one.profile for one, _ in known), curve, level, warm, time.perf_counter() - began)
    leading = next((profile for profile in evidence.profiles if profile.similarity is not None), None)
    case = case_of(size.effective_per_class, leading) if leading is not None else None
    reasons = tuple(reasons_for(evidence, leading, case, order, budget))
    return Advice(case, order, reasons, evidence, budget, tuple(told), watcher.warnings, level.refused)


def _able(
    offers: Sequence[CandidateBackbone], train: Dataset, asked: Recipe, side: float, memory: float | None, watcher: Watcher
) -> tuple[CandidateBackbone, ...]:
    """The offers whose networks can become an artifact, tried with random weights; what `_looked_at` leaves out is not tried.

    Raises:
        ArtifactError: The only backbone that the user named cannot become one.
    """
    found = []
    for offer in offers:
        record = offer.choice.record
        size = asked.image_size or record.size_for(side)
        try:
            if not _obstacle(record, size, memory):
                rehearse(offer.choice, size, len(train.classes), seed=asked.seed)
        except ArtifactError as error:
            if offer.named and len(offers) == 1:
                raise
            watcher.note(f"{record.name} is left out: {error}")
        else:
            found.append(offer)
    return tuple(found)


def _obstacle(record: Backbone, size: int, memory: float | None) -> str:
    """Why a backbone is not looked at: images of another size, or too little memory; "" where nothing stands in the way."""
    try:
        record.check_size(size)
    except BackboneError as error:
        return str(error)
    cost = record.multiply_adds * (size / record.reference_size) ** 2
    need = memory_mb(record.parameters, cost / MULTIPLY_ADDS_PER_ACTIVATION, 1, trained=False)
    return f"it takes about {need:,.0f} MB of memory, and {memory:,.0f} are free" if memory is not None and need > memory else ""


def _looked_at(
    train: Dataset, offer: CandidateBackbone, asked: Recipe, side: float, memory: float | None, watcher: Watcher
) -> BackboneEvidence | None:
    """What a backbone sees; None, and a note, where memory would not hold it or, unless it was named, the size does not fit."""
    record = offer.choice.record
    size = asked.image_size or record.size_for(side)
    if offer.named:
        record.check_size(size)
    if obstacle := _obstacle(record, size, memory):
        watcher.note(f"{record.name} is left out: {obstacle}")
        return None
    cost = record.multiply_adds * (size / record.reference_size) ** 2
    wanted = replace(asked, backbone=record.name, weights=offer.weights, image_size=size, strategy="feature-extraction")
    plain = drop_unused_options(wanted, strategy("feature-extraction"))
    recipe = resolve_recipe(plain, record, images=len(train), image_size=size, side=side)
    rows = sample(train, SAMPLE if cost < HEAVY else HEAVY_SAMPLE, asked.seed)
    seen = see(compact(train.select(rows)), offer.choice, recipe, watcher)
    learned = count_seen(seen.digests, artifact.seen_by_weights(recipe.weights))
    if learned:
        watcher.warning(
            f"{learned} of {len(seen.digests)} training images that {record.name} is measured on are {artifact.SEEN_BY_WEIGHTS}: "
            "the evidence is optimistically biased"
        )
    return seen


def _size(train: Dataset, best: BackboneEvidence | None) -> Size:
    """From the features of the best backbone; from the rows alone where none was looked at."""
    if best is None:
        return size_of(train, None, np.zeros((len(train), 0), np.float32), train.labels, train.groups)
    return size_of(train, best.digests, best.end, best.dataset.labels, best.dataset.groups, best.refused)


def _curves(seen: BackboneEvidence, size: Size, classes: int, seed: int) -> dict[StrategyName, Curve]:
    """The learning curve of each way, carried on to all training images of the classes that were drawn."""
    data = seen.dataset
    alone = size.groups is None
    here = float(len(np.unique(seen.digests, axis=0))) if alone else effective_images(data.groups, size.within)
    times = max(1.0, size.effective * len(data.classes) / classes / max(1.0, here))
    return {way.strategy: curve_of(way.features, data.labels, data.groups, times, seed, way.correct) for way in seen.ways}
