"""What one backbone sees in a sample of the images: its depth profile, and probes on the features that a strategy would use."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crossroads.advice.profile import Profile, depth_rows, probed, similarity, spread
from crossroads.advice.sample import merge_duplicates
from crossroads.data.dataset import Dataset
from crossroads.data.loading import load_all, refusal_notes
from crossroads.features.lookup import Lookup, resize_of
from crossroads.heads.probe import probe
from crossroads.progress import Watcher
from crossroads.recipe import PoolingName, Recipe, StrategyName

if TYPE_CHECKING:
    import keras

    from crossroads.features.extract import Extraction
    from crossroads.networks.construct import Built, Choice
    from crossroads.networks.cuts import Cut

CALIBRATION_IMAGES = 64
"""Images for the BatchNorm statistics of the random control and for timing the reading."""

WIDEST = 16_384
"""Features of a grid that are probed: the inner products of more take longer than all the rest."""

GRIDS: tuple[PoolingName, ...] = ("average-4", "average-3", "average-2")

EARLY_CUTS = 2
"""Early cuts that are probed on a grid at least: the best by averages, and the one before it. On a grid an earlier one is often
best, since the grid keeps where things are: on GTSRB averages peak at conv_pw_8 of MobileNet and grids of 4 x 4 at conv_pw_6."""


@dataclass(frozen=True, slots=True, eq=False)
class FrozenProbe:
    """One way to use the backbone as it is, probed on the sample.

    Attributes:
        strategy: Feature extraction or early features.
        cut: Where the backbone ends.
        pooling: How its map becomes a vector.
        correct: bool (s,), which images of the sample were right when they were left out.
        features: Float (s, d).
    """

    strategy: StrategyName
    cut: Cut
    pooling: PoolingName
    correct: NDArray[np.bool_]
    features: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class BackboneEvidence:
    """What one backbone sees.

    Attributes:
        choice: The backbone.
        recipe: Resolved for feature extraction: image size, resize, weights.
        built: The backbone with its weights, whole.
        profile: Depth by depth.
        ways: The best feature extraction and the best early features, the better one first.
        dataset: The rows of the sample that became images; those that are equal are in one group.
        digests: uint8 (s, 16), of these.
        refused: How many rows did not become images.
        end: Float (s, d), the averages at the end.
        depthwise: Whether it has depthwise convolutions, which train slowly on a CPU.
        decode_seconds: That reading one image took, at the size that the backbone takes.
    """

    choice: Choice
    recipe: Recipe
    built: Built
    profile: Profile
    ways: tuple[FrozenProbe, ...]
    dataset: Dataset
    digests: NDArray[np.uint8]
    refused: int
    end: NDArray[np.float32]
    depthwise: bool
    decode_seconds: float


def see(dataset: Dataset, choice: Choice, recipe: Recipe, watcher: Watcher) -> BackboneEvidence:
    """Look at a sample through one backbone. Features come from the cache, and go there.

    Args:
        dataset: The sample.
        choice: The backbone.
        recipe: Resolved for feature extraction with it.
        watcher: Receives progress and notes.

    Raises:
        CrossroadsError: No weights, no readable image.
    """
    from crossroads.networks.construct import build
    from crossroads.networks.cost import has_depthwise
    from crossroads.networks.cuts import cuts
    from crossroads.networks.network import averages, calibrate_batchnorm

    name, size = choice.record.name, resize_of(recipe).size
    built = build(choice, size, weights=recipe.weights, seed=recipe.seed, progress=watcher.progress)
    for note in built.notes:
        watcher.warning(note)
    reach = [cut for cut in cuts(built.parts.backbone) if cut.multiply_adds <= built.keep.multiply_adds]
    chosen = spread(tuple(reach))
    key = f"averages of {', '.join(cut.name for cut in chosen)}"
    stage = f"features of the sample, {name}"
    got = extracted(dataset, averages(built.parts, size, chosen), choice, recipe, key, watcher, stage)
    for note in refusal_notes("the sample", got.refusals):
        watcher.warning(note)
    found = replace(got.dataset, groups=merge_duplicates(got.dataset.groups, got.digests))
    widths = tuple(cut.channels for cut in chosen)
    accuracies = probed(got.features, widths, found.labels, found.groups)
    rows = np.linspace(0, len(found) - 1, min(CALIBRATION_IMAGES, len(found))).astype(np.int64)
    began = time.perf_counter()
    some = load_all(found.select(rows), resize_of(recipe)).pixels
    decode_seconds = (time.perf_counter() - began) / len(rows)
    controls = None
    if recipe.weights != "none":
        random = build(choice, size, weights=None, seed=recipe.seed)
        calibrate_batchnorm(random.parts, some)
        control = extracted(
            found, averages(random.parts, size, chosen), choice, recipe, f"random {key}", watcher, f"{stage}, random control"
        )
        controls = probed(control.features, widths, found.labels, found.groups)
    depths = [cut.depth for cut in chosen]
    similar = None if controls is None else similarity(accuracies, controls, depths, found.groups, recipe.seed)
    profile = Profile(name, size, len(found), depth_rows(chosen, accuracies, controls, found.groups), similar)
    whole = np.asarray(got.features[:], np.float32)
    end = np.ascontiguousarray(whole[:, -widths[-1] :])
    refused, depthwise = len(got.refusals), has_depthwise(built.parts.backbone)
    seen = BackboneEvidence(choice, recipe, built, profile, (), found, got.digests, refused, end, depthwise, decode_seconds)
    at_end = FrozenProbe("feature-extraction", built.keep, "average", accuracies[-1], end)
    early = _early(seen, chosen, accuracies, watcher)
    ways = sorted([at_end, *early], key=lambda way: -float(way.correct.mean()))
    best = {way.strategy: way for way in reversed(ways)}  # the others' features are let go
    return replace(seen, ways=tuple(best[way.strategy] for way in ways if best[way.strategy] is way))


def extracted(
    dataset: Dataset, frozen: keras.Model, choice: Choice, recipe: Recipe, cut: str, watcher: Watcher, stage: str
) -> Extraction:
    """Returns the features of a data set, from the cache or computed. The watcher receives warnings."""
    lookup = Lookup(frozen, choice.record, recipe, cut, watcher)
    found = lookup.features(dataset, stage)
    if lookup.note:
        watcher.warning(lookup.note)
    return found


def _early(
    seen: BackboneEvidence, chosen: tuple[Cut, ...], accuracies: list[NDArray[np.bool_]], watcher: Watcher
) -> list[FrozenProbe]:
    """Probes on grids, from the best cut by averages towards the input for as long as they get better; `EARLY_CUTS` at least."""
    maps = [index for index, cut in enumerate(chosen[:-1]) if (cut.side or 0) >= 2]
    if not maps:
        return []
    best = max(maps, key=lambda index: (float(accuracies[index].mean()), -index))
    found: list[FrozenProbe] = []
    for index in reversed([index for index in maps if index <= best]):
        found.append(_on_grid(seen, chosen[index], watcher))
        if len(found) >= EARLY_CUTS and found[-1].correct.mean() <= found[-2].correct.mean():
            break
    return found


def _on_grid(seen: BackboneEvidence, cut: Cut, watcher: Watcher) -> FrozenProbe:
    from crossroads.networks.network import frozen_part

    pooling: PoolingName = next((grid for grid in GRIDS if cut.channels * int(grid[-1]) ** 2 <= WIDEST), "average")
    recipe = replace(seen.recipe, pooling=pooling, cut=cut.name)
    model = frozen_part(seen.built.parts, seen.profile.image_size, cut, pooling)
    stage = f"features of the sample, {seen.profile.backbone} to {cut.name}"
    got = extracted(seen.dataset, model, seen.choice, recipe, cut.name, watcher, stage)
    features = np.asarray(got.features[:], np.float32)
    result = probe(features, seen.dataset.labels, seen.dataset.groups)
    return FrozenProbe("early-features", cut, pooling, result.correct, features)
