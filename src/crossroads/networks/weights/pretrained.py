"""A backbone with pretrained weights: what `--weights` names, found, read and fitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from crossroads.errors import WeightsError
from crossroads.networks.catalog import CATALOG, Backbone
from crossroads.networks.network import Parts
from crossroads.networks.records import PREPROCESSINGS
from crossroads.networks.weights.assign import Assignment, assign_weights
from crossroads.networks.weights.read import read_weights
from crossroads.networks.weights.store import obtain, recognise

IMAGENET = "imagenet"
Progress = Callable[[str, int, int], None]
"""Called with ``weights``, the bytes that are here, and the bytes of the whole file, 0 where the server does not say."""


def load_pretrained(parts: Parts, record: Backbone, weights: str, progress: Progress | None = None) -> Assignment:
    """Give a backbone its pretrained weights, in place.

    Args:
        parts: The backbone, as `record` built it.
        record: Its record.
        weights: ``imagenet``, or the path of a file.
        progress: Told how much is here while a file is fetched.

    Raises:
        WeightsError: The file is not to be had, cannot be read, or is of another network. Nothing is assigned.
    """
    if weights == IMAGENET:
        told = None if progress is None else lambda here, total: progress("weights", here, total or 0)
        notes: list[str] = []
        path = obtain(record, progress=told, note=notes.append)
        fitted = assign_weights(parts.backbone, read_weights(path))
        return replace(fitted, notes=(*notes, *fitted.notes))
    path = Path(weights).expanduser()
    file = read_weights(path)
    known = recognise(path)
    if known is not None and known != record.pretrained:
        raise WeightsError(
            f"the weights must be those of {record.name}",
            received=f"{path.name}, which is {known.address}",
            hint=f"use --backbone {next(other.name for other in CATALOG if other.pretrained == known)}",
        )
    own = not record.builder  # what such a network does to pixels is its owner's business
    if file.layout == "torch" and record.scaling != "torch" and not own:
        twin = f"{record.name}-torchvision"
        hint = f"use --backbone {twin}" if any(other.name == twin for other in CATALOG) else "give weights made for Keras"
        raise WeightsError(
            f"weights from PyTorch expect {PREPROCESSINGS['torch']}, and {record.name} has {record.preprocessing}",
            received=path.name,
            hint=hint,
        )
    return assign_weights(parts.backbone, file)
