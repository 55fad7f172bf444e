"""Measures the evidence on one backbone: its depth profile on a sample, and probes on the features of frozen strategies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crossroads.advice.profile import Profile, depth_records, probe_depths, similarity, spread_cuts
from crossroads.advice.sample import merge_duplicates
from crossroads.data.dataset import Dataset
from crossroads.data.loading import load_all, refusal_notes
from crossroads.errors import DataError
from crossroads.evaluation import effective_count
from crossroads.features.bodies import body_of
from crossroads.features.extract import Extraction
from crossroads.features.lookup import Lookup, SinglePass, resize_of
from crossroads.heads.probe import Probe, loss_margin, probe
from crossroads.networks.body import Body
from crossroads.networks.construct import Choice
from crossroads.networks.cut import Cut
from crossroads.networks.graphs import Stated, random_control
from crossroads.progress import Note, Silent, Watcher, stage
from crossroads.recipe import PoolingName, Recipe, StrategyName
from crossroads.run.scaling import note_on_scaling

CALIBRATION_IMAGES = 64
"""Images for the BatchNorm statistics of the random control and for timing the decoder."""

WIDEST = 16_384
"""Largest number of grid features that are probed. The inner products of more would take longer than everything else."""

GRIDS: tuple[PoolingName, ...] = ("average-4", "average-3", "average-2")

EARLY_CUTS = 2
"""Smallest number of early cuts that are probed on a grid: the best one by averages, and the one before it.

A grid keeps positions, so an earlier cut is often best. On GTSRB, averages are best at conv_pw_8 of MobileNet, and grids of 4 x 4
at conv_pw_6.
"""


@dataclass(frozen=True, slots=True, eq=False)
class FrozenProbe:
    """A probe on the features of one frozen strategy.

    Attributes:
        strategy: Feature extraction or early features.
        cut: The end of the backbone.
        pooling: How its feature map becomes a vector.
        correct: bool (s,), which images of the sample are classified correctly when they are left out.
        loss: `Probe.loss`, which compares probes.
        features: Float (s, d).
    """

    strategy: StrategyName
    cut: Cut
    pooling: PoolingName
    correct: NDArray[np.bool_]
    loss: float
    features: NDArray[np.float32]

    @property
    def accuracy(self) -> float:
        """The fraction that is correct."""
        return float(self.correct.mean())


@dataclass(frozen=True, slots=True, eq=False)
class BackboneEvidence:
    """Measurements with one backbone.

    Attributes:
        choice: The backbone.
        recipe: The recipe, resolved for feature extraction (image size, resize and weights).
        body: The backbone with its weights as an inference graph.
        profile: The depth profile.
        frozen_probes: The best probe of each frozen strategy. Early features come first if their loss is clearly lower.
        dataset: The readable rows of the sample. Equal images are in one group.
        digests: uint8 (s, 16), the digests of these images.
        refused: Number of unreadable images.
        end_features: Float (s, d), the averages of the feature maps at the end of the backbone.
        cuts: The cuts of the profile.
        correct: For each of these cuts, bool (s,): whether its probe classifies each image correctly when the image is left out.
        decode_seconds: Time per image to read and resize it; 0 until it is measured with the random control.
    """

    choice: Choice
    recipe: Recipe
    body: Body
    profile: Profile
    frozen_probes: tuple[FrozenProbe, ...]
    dataset: Dataset
    digests: NDArray[np.uint8]
    refused: int
    end_features: NDArray[np.float32]
    cuts: tuple[Cut, ...]
    correct: tuple[NDArray[np.bool_], ...]
    decode_seconds: float = 0.0


def probe_backbone(dataset: Dataset, choice: Choice, recipe: Recipe, watcher: Watcher) -> BackboneEvidence:
    """Probes a backbone at several depths, in one pass over a sample. Its features are read from the cache and written to it.

    Args:
        dataset: The sample.
        choice: The backbone.
        recipe: The recipe, resolved for feature extraction with this backbone.
        watcher: Receives progress and notes.

    Raises:
        CrossroadsError: The weights are missing, or no image can be read.
    """
    size = resize_of(recipe).size
    body = body_of(choice, size, recipe.weights, recipe.seed, watcher.progress, Stated.of(recipe))
    for note in body.notes:
        watcher.warning(note)
    chosen = spread_cuts(body.cuts)
    widths = tuple(cut.channels for cut in chosen)
    extraction = _sample_features(dataset, body, choice, recipe, chosen, watcher)
    for note in refusal_notes("the sample", extraction.refusals):
        watcher.warning(note)
    if extraction.computed and (doubt := note_on_scaling(body, extraction.dataset, recipe)) is not None:
        watcher.warning(doubt)
    groups = merge_duplicates(extraction.dataset.groups, extraction.digests)
    readable = replace(extraction.dataset, digests=extraction.digests, groups=groups)
    name = choice.record.name
    with stage(watcher.progress, f"probing {name}"):
        probes = probe_depths(extraction.features, widths, readable.labels, readable.groups)
    correct = tuple(each.correct for each in probes)
    depths = depth_records(chosen, list(correct), None, readable.groups)
    evidence = BackboneEvidence(
        choice,
        recipe,
        body,
        Profile(name, size, len(readable), depths, None, recipe.weights != "none"),
        frozen_probes=(),
        dataset=readable,
        digests=extraction.digests,
        refused=len(extraction.refusals),
        end_features=np.ascontiguousarray(np.asarray(extraction.features[:], np.float32)[:, -widths[-1] :]),
        cuts=chosen,
        correct=correct,
    )
    with stage(watcher.progress, f"probing the early layers of {name}"):
        return replace(evidence, frozen_probes=_best_probes(evidence, chosen, probes, watcher))


PACE_IMAGES, PACE_STEP, PACE_SECONDS = (16, 96), 16, 2.0
"""Images after which the pace is measured, and until which. It is measured in steps, and ends with a step after this many seconds,
because 96 images took 13 of 20 s on a busy machine. The first images also pay for the compilation of the graph."""


def seconds_per_image(dataset: Dataset, choice: Choice, recipe: Recipe, watcher: Watcher) -> float | None:
    """Returns the seconds to read an image and to compute its features; None if most of the features are in the cache.

    Args:
        dataset: The images; the time is measured on some of them, whose features are then in the cache.
        choice: The backbone.
        recipe: Resolved for feature extraction with it.
        watcher: Receives progress and notes.
    """
    body = body_of(choice, resize_of(recipe).size, recipe.weights, recipe.seed, watcher.progress, Stated.of(recipe))
    return seconds_of_pass(sample_pass(body, choice, recipe, Silent()), dataset, recipe.seed, watcher)


def seconds_of_pass(sampling: SinglePass, dataset: Dataset, seed: int, watcher: Watcher) -> float | None:
    """Returns the seconds per image of a pass over some of the images; None if most of their features are in the cache."""
    rows = np.random.default_rng([seed, 23]).permutation(len(dataset))[: PACE_IMAGES[1]]
    pace, first = "measuring the pace", PACE_IMAGES[0]
    computed, total = 0, 0
    try:
        sampling.fill(dataset.select(rows[:first]), pace)
        began = time.perf_counter()
        while first < len(rows) and time.perf_counter() - began < PACE_SECONDS:
            some = rows[first : first + PACE_STEP]
            computed += sampling.fill(dataset.select(some), pace).computed
            total, first = total + len(some), first + PACE_STEP
            watcher.progress(pace, min(first, len(rows) - 1), len(rows))
    except DataError:  # none of these few images can be read
        return None
    watcher.progress(pace, first, first)
    return None if 2 * computed < total or not computed else (time.perf_counter() - began) / computed


def with_decode_seconds(evidence: BackboneEvidence) -> BackboneEvidence:
    """Returns the evidence with the time to read images, but without the random control, which takes another pass."""
    return replace(evidence, decode_seconds=decode_seconds(evidence.dataset, evidence.recipe))


def with_random_control(evidence: BackboneEvidence, watcher: Watcher) -> BackboneEvidence:
    """Returns the evidence with the time to read images, and with the random control and the similarity in its profile.

    Without pretrained weights, or for a quantised network, there is neither.
    """
    recipe, readable, cuts = evidence.recipe, evidence.dataset, evidence.cuts
    pixels, decode_seconds = _time_decoding(readable, recipe)
    controls = None
    if recipe.weights != "none":
        controls = _random_control(evidence, pixels, watcher)
    profile = evidence.profile
    if controls is not None:
        similar = similarity(evidence.correct, controls, [cut.depth for cut in cuts], readable.groups, recipe.seed)
        depths = depth_records(cuts, list(evidence.correct), controls, readable.groups)
        profile = replace(profile, depths=depths, similarity=similar)
    return replace(evidence, profile=profile, decode_seconds=decode_seconds)


def _sample_features(
    dataset: Dataset, body: Body, choice: Choice, recipe: Recipe, chosen: tuple[Cut, ...], watcher: Watcher
) -> Extraction:
    """Returns the averages at the chosen cuts. The same pass computes what the heads on the end and on each early cut use."""
    name = f"features of the sample, {choice.record.name}"
    stored = sample_pass(body, choice, recipe, watcher).fill(dataset, name)
    known = replace(stored.dataset, digests=stored.digests)
    extraction = _averages(body, choice, recipe, chosen, watcher).features(known, name)
    return replace(extraction, refusals=stored.refusals, computed=stored.computed)


def sample_pass(body: Body, choice: Choice, recipe: Recipe, watcher: Watcher) -> SinglePass:
    """Returns the pass that computes the features of a sample at all depths of the profile."""
    chosen = spread_cuts(body.cuts)
    grids = [grid_lookup(body, choice, recipe, cut, watcher) for cut in _early(chosen)]
    averages = _averages(body, choice, recipe, chosen, watcher)
    return SinglePass(body, [averages, end_lookup(body, choice, recipe, watcher), *grids])


def end_lookup(body: Body, choice: Choice, recipe: Recipe, watcher: Watcher) -> Lookup:
    """Returns the lookup of the features that a head on the end of a backbone uses."""
    return Lookup(body.until(body.end, "average"), choice.record.name, recipe, body.end.name, watcher)


def _averages(body: Body, choice: Choice, recipe: Recipe, cuts: Sequence[Cut], watcher: Watcher, of: str = "") -> Lookup:
    """Returns the lookup of the averages at several cuts; `of` distinguishes the random control."""
    key = f"{of}averages of {', '.join(cut.name for cut in cuts)}"
    return Lookup(body.averages(cuts), choice.record.name, recipe, key, watcher)


def _early(cuts: Sequence[Cut]) -> list[Cut]:
    """Returns the cuts before the end that have a map."""
    return [cut for cut in cuts[:-1] if (cut.side or 0) >= 2]


def _grid_of(cut: Cut) -> PoolingName:
    """Returns the finest grid that is probed at a cut."""
    return next((grid for grid in GRIDS if cut.channels * int(grid[-1]) ** 2 <= WIDEST), "average")


def grid_lookup(body: Body, choice: Choice, recipe: Recipe, cut: Cut, watcher: Watcher) -> Lookup:
    """Returns the lookup of the features that a head on an early cut uses."""
    pooling = _grid_of(cut)
    gridded = replace(recipe, pooling=pooling, cut=cut.name)
    return Lookup(body.until(cut, pooling), choice.record.name, gridded, cut.name, watcher)


def _time_decoding(dataset: Dataset, recipe: Recipe) -> tuple[NDArray[np.uint8], float]:
    """Returns some images of the data set, evenly spread, and the time per image to read them."""
    indices = np.linspace(0, len(dataset) - 1, min(CALIBRATION_IMAGES, len(dataset))).astype(np.int64)
    began = time.perf_counter()
    pixels = load_all(dataset.select(indices), resize_of(recipe)).pixels
    return pixels, (time.perf_counter() - began) / len(indices)


def decode_seconds(dataset: Dataset, recipe: Recipe) -> float:
    """Returns the seconds per image to read and resize images, measured on some of them."""
    return _time_decoding(dataset, recipe)[1]


def _random_control(evidence: BackboneEvidence, pixels: NDArray[np.uint8], watcher: Watcher) -> list[NDArray[np.bool_]] | None:
    """Returns the results of the probes on the same network with random weights, whose outputs are normalised on `pixels`.

    The weights of a quantised network cannot be drawn anew. The result is then None, and the watcher receives a note.
    """
    choice, recipe, dataset, cuts = evidence.choice, evidence.recipe, evidence.dataset, evidence.cuts
    name = choice.record.name
    with stage(watcher.progress, f"building {name} with random weights"):
        control = random_control(evidence.body, pixels, recipe.seed)
    if control is None:
        text = f"{name} is quantised, so its depth profile has no random control and the similarity is unknown"
        watcher.note(Note(text, "no-random-control", backbone=name))
        return None
    features = f"features of the sample, {name}, random control"
    extraction = _averages(control, choice, recipe, cuts, watcher, "random ").features(dataset, features)
    with stage(watcher.progress, f"probing {name} with random weights"):
        probes = probe_depths(extraction.features, tuple(cut.channels for cut in cuts), dataset.labels, dataset.groups)
    return [each.correct for each in probes]


def _best_probes(
    evidence: BackboneEvidence, chosen: tuple[Cut, ...], probes: Sequence[Probe], watcher: Watcher
) -> tuple[FrozenProbe, ...]:
    """Returns the best probe of each frozen strategy, the better one first."""
    end = probes[-1]
    at_end = FrozenProbe("feature-extraction", evidence.body.end, "average", end.correct, end.loss, evidence.end_features)
    early = _early_probes(evidence, chosen, probes, watcher)
    if not early:
        return (at_end,)
    best, groups = min(early, key=lambda each: (each.loss, each.cut.multiply_adds)), evidence.dataset.groups
    images = float(len(end.correct)) if groups is None else effective_count(groups)
    return (best, at_end) if best.loss < at_end.loss - loss_margin(images) else (at_end, best)


def _early_probes(
    evidence: BackboneEvidence, chosen: tuple[Cut, ...], by_averages: Sequence[Probe], watcher: Watcher
) -> list[FrozenProbe]:
    """Returns probes on grids, from the best cut by averages towards the input until the loss rises, at least `EARLY_CUTS`."""
    maps = [chosen.index(cut) for cut in _early(chosen)]
    if not maps:
        return []
    best = min(maps, key=lambda index: (by_averages[index].loss, index))
    probes: list[FrozenProbe] = []
    for index in reversed([index for index in maps if index <= best]):
        probes.append(_grid_probe(evidence, chosen[index], watcher))
        if len(probes) >= EARLY_CUTS and probes[-1].loss >= probes[-2].loss:
            break
    return probes


def _grid_probe(evidence: BackboneEvidence, cut: Cut, watcher: Watcher) -> FrozenProbe:
    lookup = grid_lookup(evidence.body, evidence.choice, evidence.recipe, cut, watcher)
    extraction = lookup.features(evidence.dataset, f"features of the sample, {evidence.profile.backbone} to {cut.name}")
    features = np.asarray(extraction.features[:], np.float32)
    result = probe(features, evidence.dataset.labels, evidence.dataset.groups)
    return FrozenProbe("early-features", cut, _grid_of(cut), result.correct, result.loss, features)
