"""Finds, reads and assigns the weights that the field `weights` names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from crossroads.errors import WeightsError, option
from crossroads.networks.catalog import CATALOG, Backbone
from crossroads.networks.network import Parts
from crossroads.networks.records import PREPROCESSINGS
from crossroads.networks.weights.assign import Assignment, assign_weights
from crossroads.networks.weights.read import read_weights
from crossroads.networks.weights.store import Stages, obtain, recognise
from crossroads.progress import Note

IMAGENET = "imagenet"


def load_pretrained(parts: Parts, record: Backbone, weights: str, progress: Stages | None = None) -> Assignment:
    """Gives a backbone its pretrained weights, in place.

    Args:
        parts: The backbone, as `record` built it.
        record: Its record.
        weights: ``imagenet``, or the path of a file.
        progress: Called during a download.

    Raises:
        WeightsError: The file is not available, cannot be read, or belongs to another network. Nothing is assigned.
    """
    if weights == IMAGENET:
        notes: list[Note] = []
        path = obtain(record, progress=progress, note=notes.append)
        fitted = assign_weights(parts.backbone, read_weights(path))
        return replace(fitted, notes=(*notes, *fitted.notes))
    path = Path(weights).expanduser()
    file = read_weights(path)
    known = recognise(path)
    if known is not None and known != record.pretrained:
        raise WeightsError(
            f"the weights must be those of {record.name}",
            code="weights-of-another-backbone",
            field="weights",
            received=f"{path.name}, which is {known.address}",
            hint=f"set {option('backbone')} to {next(other.name for other in CATALOG if other.pretrained == known)}",
        )
    own = not record.builder  # the user decides how such a network scales pixels
    if known is None and file.layout == "torch" and record.scaling != "torch" and not own:
        sibling = f"{record.name}-torchvision"
        known_sibling = any(other.name == sibling for other in CATALOG)
        hint = f"set {option('backbone')} to {sibling}" if known_sibling else "give weights made for Keras"
        raise WeightsError(
            f"weights from PyTorch expect {PREPROCESSINGS['torch']}, and {record.name} has {record.preprocessing}",
            code="weights-preprocessing",
            field="weights",
            received=path.name,
            hint=hint,
        )
    return assign_weights(parts.backbone, file)
