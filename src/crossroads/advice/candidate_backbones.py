"""Which pretrained backbones are considered: those that the user names, or those whose weights are here, or the usual one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossroads.errors import RecipeError, WeightsError, option
from crossroads.networks.catalog import CATALOG, PRETRAINED_DEFAULT
from crossroads.networks.construct import Choice, choose
from crossroads.networks.weights.store import describe
from crossroads.progress import Watcher

MOST = 3
"""Backbones that are looked at where the user names none: the cheapest of those whose weights are in the cache."""


@dataclass(frozen=True, slots=True)
class CandidateBackbone:
    """A backbone that is to be considered.

    Attributes:
        choice: The backbone.
        weights: As a recipe names them.
        named: Whether the user named it.
    """

    choice: Choice
    weights: str
    named: bool


def candidate_backbones(
    backbones: Sequence[Any], weights: Sequence[str | None], watcher: Watcher, *, own: bool = False
) -> tuple[CandidateBackbone, ...]:
    """Returns the backbones to consider; none, with a note, if no pretrained one is available.

    Args:
        backbones: Names, files, functions or Keras models; none for those whose weights are here.
        weights: One for each of them, or one for all, or none for their ImageNet weights.
        watcher: Receives progress and notes.
        own: Whether a network of the user's own counts as pretrained where no weights are named: nothing tells whether it is.

    Raises:
        RecipeError: Another number of weights than of backbones.
        BackboneError: No such backbone.
    """
    if not backbones:
        if any(name is not None for name in weights):
            raise RecipeError(
                f"{option('weights')} has no effect without a backbone",
                code="weights-without-backbone",
                field="weights",
                received=weights[0],
                hint=f"add {option('backbone')} {_whose(weights)}",
            )
        return tuple(offer for offer in _here() if _obtained(offer, watcher))
    if len(weights) not in (0, 1, len(backbones)):
        raise RecipeError(
            f"{option('weights')} must be given once for all backbones, or once for each",
            code="weights-per-backbone",
            field="weights",
            received=f"{len(weights)} of them for {len(backbones)} backbones",
        )
    each = list(weights) * len(backbones) if len(weights) == 1 else list(weights) or [None] * len(backbones)
    found = []
    for named, files in zip(backbones, each, strict=True):
        choice = choose(named)
        usual = _usual(choice, own)
        if files is None and usual is None:
            if own:
                watcher.warning(f"{choice.record.name} has no pretrained weights, and is not considered; name some with --weights")
            continue
        found.append(CandidateBackbone(choice, files or str(usual), named=True))
    return tuple(found)


def _usual(choice: Choice, own: bool) -> str | None:
    if choice.own is not None:
        return "own" if own else None
    return "imagenet" if choice.record.pretrained is not None else None


def _obtained(offer: CandidateBackbone, watcher: Watcher) -> bool:
    """Whether the weights of a default backbone are available now. If not, the watcher receives what is missing."""
    from crossroads.networks.weights.download import Unreachable
    from crossroads.networks.weights.store import obtain

    def progress(done: int, total: int | None) -> None:
        watcher.progress(f"downloading {offer.choice.record.name}", done, total or done)

    try:
        obtain(offer.choice.record, progress=progress, note=watcher.note)
    except WeightsError as error:
        name = offer.choice.record.name
        if isinstance(error.__cause__, Unreachable):
            why = (
                f"the ImageNet weights of {name} are not here and could not be fetched ({error.__cause__}); "
                "`crossroads weights list` shows what to download"
            )
        else:
            why = str(error)
        watcher.warning(f"no pretrained network is considered: {why}")
        return False
    return True


def _here() -> tuple[CandidateBackbone, ...]:
    """Those of the catalog whose weights are in the cache, else the one that is downloaded by default."""
    names = {name for stored in describe(CATALOG) if stored.size is not None for name in stored.backbones}
    known = sorted((record for record in CATALOG if record.name in names), key=lambda record: record.multiply_adds)
    chosen = [record.name for record in known[:MOST]] or [PRETRAINED_DEFAULT]
    return tuple(CandidateBackbone(choose(name), "imagenet", named=False) for name in chosen)


def _whose(weights: Sequence[str | None]) -> str:
    """The backbone that a file of weights is of, by the name of the file; else NAME."""
    names = {Path(file).name for file in weights if file is not None}
    return next((row.backbones[0] for row in describe() if row.file in names), "NAME")
