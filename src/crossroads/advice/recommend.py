"""The recommendation: evidence gathered on a sample, and candidates in the order of what is expected of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from crossroads._platform import available_memory_mb, load_keras
from crossroads.advice.candidates import Ground, from_scratch, of_backbone, ranked, scratch_size, within
from crossroads.advice.cases import case_of
from crossroads.advice.cost import measured_machine, memory_mb
from crossroads.advice.evidence import Advice, Evidence
from crossroads.advice.frozen import Seen, see
from crossroads.advice.level import level_of
from crossroads.advice.offers import Offer
from crossroads.advice.reasons import reasons_for
from crossroads.advice.sample import MOST_CLASSES, compact, sample
from crossroads.advice.size import Curve, Size, curve_of, size_of, worth
from crossroads.data.dataset import Dataset
from crossroads.data.loading import sizes
from crossroads.recipe import Recipe, StrategyName
from crossroads.strategies import relevant, resolve, strategy
from crossroads.training.watch import Watcher

SAMPLE = 2_000
"""Images that evidence is measured on: an accuracy of 0.9 is then known to 1.3 points, and MobileNet at 96 px sees them in 2 s."""

HEAVY, HEAVY_SAMPLE = 2e9, 600
"""Multiply-adds of an image from which on fewer are looked at: ResNet50 at 224 px sees 45 in a second."""


def recommend(train: Dataset, offers: Sequence[Offer], asked: Recipe, watcher: Watcher) -> Advice:
    """Measure, and recommend.

    Args:
        train: Training images; nothing else is looked at.
        offers: The pretrained backbones to consider; none for training from scratch alone.
        asked: What the user asked for; options that hold for every strategy go into every candidate.
        watcher: Is told what goes on.

    Raises:
        CrossroadsError: No image can be read; weights that the user named are not there.
    """
    load_keras()
    began = time.perf_counter()
    told: list[str] = []

    def tell(note: str) -> None:
        told.append(note)
        watcher.note(note)

    side = float(sizes(train, seed=asked.seed).median)
    memory, machine = available_memory_mb(), measured_machine()
    seen: list[Seen] = []
    for offer in offers:
        found = _looked_at(train, offer, asked, side, memory, watcher, tell)
        if found is not None:
            seen.append(found)
    seen.sort(key=lambda one: -float(one.ways[0].correct.mean()))
    rows = sample(train, SAMPLE, asked.seed)
    classes = len(np.unique(train.labels))
    if classes > MOST_CLASSES:
        tell(f"the evidence is drawn from {MOST_CLASSES} of the {classes:,} classes, which are told apart more easily than all")
    part = compact(train.select(rows))
    level = level_of(part, asked, scratch_size(asked, side), watcher)
    size = _size(train, seen, rows)
    ground = Ground(asked, len(train), classes, size.effective_of_a_class, side, machine, level.decode_seconds)
    curves = [_curves(one, size, asked.seed) for one in seen]
    candidates = [one for found, known in zip(seen, curves, strict=True) for one in of_backbone(found, known, ground)]
    base = max((one.accuracy for one in candidates), key=lambda found: found.value, default=level.pixels)
    candidates.append(from_scratch(level.short, ground, base))
    order = ranked([within(one, asked.budget, memory) for one in candidates])
    curve = max(curves[0].values(), key=lambda one: one.here.value) if curves else None
    evidence = Evidence(size, tuple(one.profile for one in seen), curve, level, time.perf_counter() - began)
    similar = seen[0].profile.similarity if seen else None
    case = None if similar is None else case_of(size.effective_of_a_class, similar.value, seen[0].profile.random)
    reasons = tuple(reasons_for(evidence, case, order, asked.budget))
    return Advice(case, order, reasons, evidence, asked.budget, tuple(told))


def _looked_at(
    train: Dataset, offer: Offer, asked: Recipe, side: float, memory: float | None, watcher: Watcher, tell: Any
) -> Seen | None:
    """What a backbone sees; None, and a note, where memory would not hold it."""
    record = offer.choice.record
    size = asked.image_size or record.size_for(side)
    record.check_size(size)
    cost = record.multiply_adds * (size / record.reference_size) ** 2
    need = memory_mb(record.parameters, int(cost), 1, trained=False)
    if memory is not None and need > memory:
        tell(f"{record.name} is left out: it takes about {need:,.0f} MB of memory, and {memory:,.0f} are free")
        return None
    wanted = replace(asked, backbone=record.name, weights=offer.weights, image_size=size, strategy="feature-extraction")
    plain = relevant(wanted, strategy("feature-extraction"))
    recipe = resolve(plain, record, images=len(train), image_size=size, side=side)
    rows = sample(train, SAMPLE if cost < HEAVY else HEAVY_SAMPLE, asked.seed)
    return see(compact(train.select(rows)), offer.choice, recipe, watcher)


def _size(train: Dataset, seen: list[Seen], rows: Any) -> Size:
    """From the features of the best backbone; from the rows alone where none was looked at."""
    if not seen:
        empty = np.zeros((len(rows), 1), np.float32)
        return size_of(train, None, empty, train.labels[rows], None if train.groups is None else train.groups[rows])
    best = seen[0]
    return size_of(train, best.digests, best.end, best.dataset.labels, best.dataset.groups)


def _curves(seen: Seen, size: Size, seed: int) -> dict[StrategyName, Curve]:
    """The learning curve of the best way of each frozen strategy, carried on to all training images."""
    found: dict[StrategyName, Curve] = {}
    data = seen.dataset
    times = max(1.0, size.effective / max(1.0, worth(data.groups, size.within, len(data))))
    for way in seen.ways:
        if way.strategy not in found:
            found[way.strategy] = curve_of(way.features, data.labels, data.groups, times, seed, way.correct)
    return found
