"""Measures the evidence on one backbone: its depth profile on a sample, and probes on the features of frozen strategies."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crossroads.advice.profile import Profile, depth_records, probe_depths, similarity, spread_cuts
from crossroads.advice.sample import merge_duplicates
from crossroads.data.dataset import Dataset
from crossroads.data.loading import load_all, refusal_notes
from crossroads.features.bodies import body_of
from crossroads.features.extract import Extraction
from crossroads.features.lookup import Lookup, resize_of
from crossroads.heads.probe import probe
from crossroads.networks.body import Body, Frozen
from crossroads.networks.construct import Choice
from crossroads.networks.cut import Cut
from crossroads.networks.graphs import random_control
from crossroads.progress import Note, Watcher
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
        features: Float (s, d).
    """

    strategy: StrategyName
    cut: Cut
    pooling: PoolingName
    correct: NDArray[np.bool_]
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
        frozen_probes: The best probe of each frozen strategy, the more accurate one first.
        dataset: The readable rows of the sample. Equal images are in one group.
        digests: uint8 (s, 16), the digests of these images.
        refused: Number of unreadable images.
        end_features: Float (s, d), the averages of the feature maps at the end of the backbone.
        decode_seconds: Time per image to read and resize it.
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
    decode_seconds: float


def measure_backbone(dataset: Dataset, choice: Choice, recipe: Recipe, watcher: Watcher) -> BackboneEvidence:
    """Measures a backbone on a sample. Its features are read from the cache and written to it.

    Args:
        dataset: The sample.
        choice: The backbone.
        recipe: The recipe, resolved for feature extraction with this backbone.
        watcher: Receives progress and notes.

    Raises:
        CrossroadsError: The weights are missing, or no image can be read.
    """
    size = resize_of(recipe).size
    body = body_of(choice, size, recipe.weights, recipe.seed, watcher.progress, recipe.preprocessing)
    for note in body.notes:
        watcher.warning(note)
    chosen = spread_cuts(body.cuts)
    widths = tuple(cut.channels for cut in chosen)
    key, stage = f"averages of {', '.join(cut.name for cut in chosen)}", f"features of the sample, {choice.record.name}"
    extraction = extracted(dataset, body.averages(chosen), choice, recipe, key, watcher, stage)
    for note in refusal_notes("the sample", extraction.refusals):
        watcher.warning(note)
    if extraction.computed and (doubt := note_on_scaling(body, extraction.dataset, recipe)) is not None:
        watcher.warning(doubt)
    readable = replace(extraction.dataset, groups=merge_duplicates(extraction.dataset.groups, extraction.digests))
    accuracies = probe_depths(extraction.features, widths, readable.labels, readable.groups)
    pixels, decode_seconds = _time_decoding(readable, recipe)
    controls = similar = None
    if recipe.weights != "none":
        controls = _random_control(readable, body, choice, recipe, chosen, pixels, watcher)
    if controls is not None:
        similar = similarity(accuracies, controls, [cut.depth for cut in chosen], readable.groups, recipe.seed)
    evidence = BackboneEvidence(
        choice,
        recipe,
        body,
        Profile(
            choice.record.name,
            size,
            len(readable),
            depth_records(chosen, accuracies, controls, readable.groups),
            similar,
            recipe.weights != "none",
        ),
        frozen_probes=(),
        dataset=readable,
        digests=extraction.digests,
        refused=len(extraction.refusals),
        end_features=np.ascontiguousarray(np.asarray(extraction.features[:], np.float32)[:, -widths[-1] :]),
        decode_seconds=decode_seconds,
    )
    return replace(evidence, frozen_probes=_best_probes(evidence, chosen, accuracies, watcher))


def extracted(
    dataset: Dataset, frozen: Frozen, choice: Choice, recipe: Recipe, cut: str, watcher: Watcher, stage: str
) -> Extraction:
    """Returns the features of a data set, from the cache or computed."""
    return Lookup(frozen, choice.record.name, recipe, cut, watcher).features(dataset, stage)


def _time_decoding(dataset: Dataset, recipe: Recipe) -> tuple[NDArray[np.uint8], float]:
    """Returns some images of the data set, evenly spread, and the time per image to read them."""
    indices = np.linspace(0, len(dataset) - 1, min(CALIBRATION_IMAGES, len(dataset))).astype(np.int64)
    began = time.perf_counter()
    pixels = load_all(dataset.select(indices), resize_of(recipe)).pixels
    return pixels, (time.perf_counter() - began) / len(indices)


def _random_control(
    dataset: Dataset,
    body: Body,
    choice: Choice,
    recipe: Recipe,
    chosen: tuple[Cut, ...],
    pixels: NDArray[np.uint8],
    watcher: Watcher,
) -> list[NDArray[np.bool_]] | None:
    """Returns the results of the probes on the same network with random weights, whose outputs are normalised on `pixels`.

    The weights of a quantised network cannot be drawn anew. The result is then None, and the watcher receives a note.
    """
    control = random_control(body, pixels, recipe.seed)
    if control is None:
        name = choice.record.name
        text = f"{name} is quantised, so its depth profile has no random control and the similarity is unknown"
        watcher.note(Note(text, "no-random-control", backbone=name))
        return None
    key = f"random averages of {', '.join(cut.name for cut in chosen)}"
    stage = f"features of the sample, {choice.record.name}, random control"
    extraction = extracted(dataset, control.averages(chosen), choice, recipe, key, watcher, stage)
    return probe_depths(extraction.features, tuple(cut.channels for cut in chosen), dataset.labels, dataset.groups)


def _best_probes(
    evidence: BackboneEvidence, chosen: tuple[Cut, ...], accuracies: list[NDArray[np.bool_]], watcher: Watcher
) -> tuple[FrozenProbe, ...]:
    """Returns the best probe of each frozen strategy, the more accurate one first."""
    at_end = FrozenProbe("feature-extraction", evidence.body.end, "average", accuracies[-1], evidence.end_features)
    early = _early_probes(evidence, chosen, accuracies, watcher)
    best = [at_end, *([max(early, key=lambda each: each.accuracy)] if early else [])]
    return tuple(sorted(best, key=lambda each: -each.accuracy))


def _early_probes(
    evidence: BackboneEvidence, chosen: tuple[Cut, ...], accuracies: list[NDArray[np.bool_]], watcher: Watcher
) -> list[FrozenProbe]:
    """Returns probes on grids, from the best cut by averages towards the input until the accuracy falls, at least `EARLY_CUTS`."""
    maps = [index for index, cut in enumerate(chosen[:-1]) if (cut.side or 0) >= 2]
    if not maps:
        return []
    best = max(maps, key=lambda index: (float(accuracies[index].mean()), -index))
    probes: list[FrozenProbe] = []
    for index in reversed([index for index in maps if index <= best]):
        probes.append(_grid_probe(evidence, chosen[index], watcher))
        if len(probes) >= EARLY_CUTS and probes[-1].accuracy <= probes[-2].accuracy:
            break
    return probes


def _grid_probe(evidence: BackboneEvidence, cut: Cut, watcher: Watcher) -> FrozenProbe:
    pooling: PoolingName = next((grid for grid in GRIDS if cut.channels * int(grid[-1]) ** 2 <= WIDEST), "average")
    recipe = replace(evidence.recipe, pooling=pooling, cut=cut.name)
    frozen = evidence.body.until(cut, pooling)
    stage = f"features of the sample, {evidence.profile.backbone} to {cut.name}"
    extraction = extracted(evidence.dataset, frozen, evidence.choice, recipe, cut.name, watcher, stage)
    features = np.asarray(extraction.features[:], np.float32)
    result = probe(features, evidence.dataset.labels, evidence.dataset.groups)
    return FrozenProbe("early-features", cut, pooling, result.correct, features)
