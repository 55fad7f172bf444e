"""Chooses the backbones to consider: those that the user names, or the default and those with weights in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crossroads.errors import RecipeError, WeightsError, option, without_effect
from crossroads.networks.catalog import CATALOG, PRETRAINED_DEFAULT
from crossroads.networks.construct import Choice, choose
from crossroads.networks.weights.store import describe
from crossroads.progress import Note, Watcher

MOST = 3
"""Largest number of backbones that are considered if the user names none: the default, and the cheapest in the cache."""


@dataclass(frozen=True, slots=True)
class CandidateBackbone:
    """A backbone to consider.

    Attributes:
        choice: The backbone.
        weights: Its weights, as a recipe names them.
        named: Whether the user named it.
    """

    choice: Choice
    weights: str
    named: bool


def candidate_backbones(
    backbones: Sequence[object], weights: Sequence[str | None], watcher: Watcher, *, own: bool = False
) -> tuple[CandidateBackbone, ...]:
    """Returns the backbones to consider, without those whose weights are not available; a note names them.

    Args:
        backbones: Names, files, functions or Keras models; empty for the default and those with weights in the cache.
        weights: One for each of them, one for all, or none for their ImageNet weights.
        watcher: Receives progress and notes.
        own: Whether a network of the user's own counts as pretrained if no weights are named. The network itself does not show it.

    Raises:
        RecipeError: The number of weights does not match that of the backbones.
        BackboneError: No such backbone.
    """
    if not backbones:
        if any(name is not None for name in weights):
            hint = f"add {option('backbone')} {_backbone_of(weights)}"
            raise without_effect("weights", weights[0], "without a backbone", hint)
        return tuple(backbone for backbone in _defaults() if _available(backbone, watcher))
    candidates = []
    for backbone, named_weights in zip(backbones, _weights_of_each(weights, len(backbones)), strict=True):
        choice = choose(backbone, watcher.progress)
        if chosen := named_weights or _default_weights(choice, own):
            candidates.append(CandidateBackbone(choice, chosen, named=True))
        elif own:
            name = choice.record.name
            text = f"{name} is left out: it has no pretrained weights, and no weight file was given"
            watcher.warning(Note(text, "no-pretrained-weights", backbone=name))
    return tuple(candidates)


def _weights_of_each(weights: Sequence[str | None], backbones: int) -> list[str | None]:
    """Returns the weights that the user named for each backbone. None means the default weights."""
    if len(weights) not in (0, 1, backbones):
        raise RecipeError(
            f"{option('weights')} must be given once for all backbones, or once for each",
            code="weights-per-backbone",
            field="weights",
            received=f"{len(weights)} weights for {backbones} backbones",
            hint="give one value, or one for each backbone",
        )
    return list(weights) if len(weights) == backbones else list(weights or (None,)) * backbones


def _default_weights(choice: Choice, own: bool) -> str | None:
    if choice.graph is not None:
        return "own"
    if choice.own is not None:
        return "own" if own else None
    return "imagenet" if choice.record.pretrained is not None else None


def _available(backbone: CandidateBackbone, watcher: Watcher) -> bool:
    """Returns whether the weights of a default backbone are available. If not, the watcher receives what is missing."""
    from crossroads.networks.weights.download import Unreachable
    from crossroads.networks.weights.store import obtain

    name = backbone.choice.record.name

    def progress(_: str, done: int, total: int) -> None:
        watcher.progress(f"downloading {name}", done, total or done)

    try:
        obtain(backbone.choice.record, progress=progress, note=watcher.note)
    except WeightsError as error:
        reason = str(error)
        if isinstance(error.__cause__, Unreachable):
            reason = (
                f"the ImageNet weights of {name} are not in the cache and could not be downloaded ({error.__cause__}); "
                "`crossroads weights list` shows what to download"
            )
        watcher.warning(Note(f"{name} is left out: {reason}", "weights-unavailable", backbone=name, reason=reason))
        return False
    return True


def _defaults() -> tuple[CandidateBackbone, ...]:
    """Returns the default backbone, whose weights are always installed, and the cheapest others with weights in the cache.

    Other installed weights do not count: they are those of larger versions of the default, which cost much and differ little.
    """
    cached = {name for file in describe(CATALOG) if file.size is not None and file.package is None for name in file.backbones}
    cheapest = sorted((record for record in CATALOG if record.name in cached), key=lambda record: record.multiply_adds)
    names = (PRETRAINED_DEFAULT, *(record.name for record in cheapest[: MOST - 1]))
    return tuple(CandidateBackbone(choose(name), "imagenet", named=False) for name in names)


def _backbone_of(weights: Sequence[str | None]) -> str:
    """Returns the backbone that a known file of weights belongs to, or NAME."""
    files = {Path(file).name for file in weights if file is not None}
    return next((row.backbones[0] for row in describe() if row.file in files), "NAME")
