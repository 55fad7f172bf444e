"""Finds the preprocessing that a graph expects, from a file beside it or from its name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossroads.errors import BackboneError, option, unknown
from crossroads.inference import operations
from crossroads.networks.records import PREPROCESSINGS
from crossroads.networks.scaling import SCALINGS, Scaling
from crossroads.recipe import ResampleName, ResizeMode

CONFIG = "preprocessor_config.json"
COMMIT = re.compile("[0-9a-f]{40}")
"""The full hash of a commit."""

PREPROCESSED = "crossroads_preprocessed"
"""Name of the node whose output is the scaled image."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What a graph expects of its images.

    Attributes:
        scaling: What happens to the pixels.
        size: Side of the images in pixels; None if not known.
        resize: How images become square; None if not known.
        crop_fraction: The fraction of an image that `resize` keeps; None if not known.
        resample: Name of the filter for resizing; None if not known.
        origin: Where this was found: the name of a file or of a preprocessing.
        not_applied: Settings in that file that are not applied.
    """

    scaling: Scaling
    size: int | None = None
    resize: ResizeMode | None = None
    crop_fraction: float | None = None
    resample: ResampleName | None = None
    origin: str = ""
    not_applied: tuple[str, ...] = ()


def named(name: str) -> Preprocessing:
    """Returns the preprocessing with a name of `PREPROCESSINGS`.

    Raises:
        BackboneError: The name is unknown.
    """
    if name not in SCALINGS:
        raise unknown("preprocessing", name, SCALINGS)
    return Preprocessing(SCALINGS[name], origin=name)


def required(file: str) -> BackboneError:
    """Returns the error about a graph without known preprocessing, with the choices."""
    choices = "; ".join(f"{name}: {words}" for name, words in PREPROCESSINGS.items())
    return BackboneError(
        f"the preprocessing of a graph must be known: {option('preprocessing')}, or {CONFIG} beside it",
        code="preprocessing-needed",
        field="preprocessing",
        received=f"{file} without it",
        hint=f"choose one of {choices}",
    )


def folders_of(path: Path) -> list[Path]:
    """Returns the folders where files that describe a graph are looked for."""
    folder = path.absolute().parent
    above = [folder.parent] if folder.name in ("onnx", "openvino", "tflite") else []
    for root in folder.parents:  # a repository in the cache of the hub: snapshots/COMMIT
        if root.parent.name == "snapshots" and COMMIT.fullmatch(root.name):
            above = [root]
    return [folder, *above]


def scaled(images: Any, scaling: Scaling) -> Any:
    """Returns the OpenVINO output of scaled images, float32 (n, size, size, 3), from uint8 ones of the same shape in RGB."""
    ops = operations()
    x = ops.convert(images, "f32")
    if scaling.bgr:
        channels = ops.split(x, ops.constant(np.array(3, np.int64)), 3)
        x = ops.concat([channels.output(number) for number in (2, 1, 0)], 3)
    x = ops.multiply(x, ops.constant(np.array([[[scaling.scale]]], np.float32)))
    x = ops.add(x, ops.constant(np.array([[[scaling.offset]]], np.float32)))
    if scaling.each:
        x = ops.mvn(x, ops.constant(np.array([1, 2, 3], np.int64)), True, 1e-3, "INSIDE_SQRT")
    x.set_friendly_name(PREPROCESSED)
    return x.output(0)
