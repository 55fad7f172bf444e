"""Finds the preprocessing that a graph expects, from a file beside it or from its name."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossroads.errors import BackboneError, option, unknown
from crossroads.inference import operations
from crossroads.networks.records import PREPROCESSINGS
from crossroads.networks.scaling import SCALINGS, Channels, Scaling

CONFIG = "preprocessor_config.json"
COMMIT = re.compile("[0-9a-f]{40}")
"""The full hash of a commit."""

PREPROCESSED = "crossroads_preprocessed"
"""Name of the node whose output is the scaled image."""

_RESAMPLES = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's numbers of its filters."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What a graph expects of its images.

    Attributes:
        scaling: What happens to the pixels.
        size: Side of the images in pixels; None if not known.
        crop: Side of the central crop, as a fraction of the shorter side; 1 for the whole.
        resample: Name of the filter for resizing; None if not known.
        origin: Where this was found: the name of a file or of a preprocessing.
    """

    scaling: Scaling
    size: int | None = None
    crop: float = 1.0
    resample: str | None = None
    origin: str = ""


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


def found_beside(path: Path) -> Preprocessing | None:
    """Returns the preprocessing of the configuration beside a graph, or above a folder ``onnx``, as in repositories of models.

    Raises:
        BackboneError: The configuration is damaged or asks for what is not supported.
    """
    file = next((folder / CONFIG for folder in folders_of(path) if (folder / CONFIG).is_file()), None)
    if file is None:
        return None
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("no object")
        return from_config(config)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise BackboneError(
            f"{CONFIG} must describe how images are resized and scaled",
            code="invalid-preprocessor-config",
            field="preprocessing",
            received=f"{error}"[:200],
            hint=f"correct it, or use {option('preprocessing')}",
        ) from error


def folders_of(path: Path) -> list[Path]:
    """Returns the folders where files that describe a graph are looked for."""
    folder = path.absolute().parent
    above = [folder.parent] if folder.name in ("onnx", "openvino", "tflite") else []
    for root in folder.parents:  # a repository in the cache of the hub: snapshots/COMMIT
        if root.parent.name == "snapshots" and COMMIT.fullmatch(root.name):
            above = [root]
    return [folder, *above]


def from_config(config: dict[str, Any]) -> Preprocessing:
    """Returns the preprocessing that a configuration of Hugging Face's image processors describes.

    Raises:
        ValueError: A value is not what the image processors accept.
        KeyError: A value is missing.
        TypeError: A value has another type.
    """
    factor = float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
    mean, deviation = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if config.get("do_normalize", "image_mean" in config):
        mean, deviation = _channels(config["image_mean"]), _channels(config["image_std"])
    if min(deviation) <= 0:
        raise ValueError(f"image_std {deviation}")
    scaling = Scaling(factor, mean, deviation, bgr=bool(config.get("do_flip_channel_order", False)))
    resized = _side(config["size"]) if config.get("do_resize", True) and "size" in config else None
    cropped = _side(config["crop_size"]) if config.get("do_center_crop") and config.get("crop_size") else None
    crop = cropped / resized if cropped and resized and cropped < resized else 1.0
    if cropped is None and isinstance(config.get("crop_pct"), int | float) and 0 < config["crop_pct"] <= 1:
        crop = float(config["crop_pct"])
    filter_ = config.get("resample")
    if filter_ is not None and (not isinstance(filter_, int) or not 0 <= filter_ < len(_RESAMPLES)):
        raise ValueError(f"resample {filter_!r}")
    return Preprocessing(scaling, cropped or resized, crop, None if filter_ is None else _RESAMPLES[filter_], CONFIG)


def _channels(values: Any) -> Channels:
    if isinstance(values, int | float):
        values = [values] * 3
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _side(size: Any) -> int:
    """Returns the side of square images from a number, a height and width, or a shortest edge."""
    if isinstance(size, dict):
        sides = {int(size[key]) for key in ("height", "width", "shortest_edge") if size.get(key) is not None}
    else:
        sides = {int(each) for each in size} if isinstance(size, list) else {int(size)}
    if len(sides) != 1 or min(sides) < 1:
        raise ValueError(f"size {size!r}, and images are square")
    return sides.pop()


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
