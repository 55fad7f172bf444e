"""Reads ``preprocessor_config.json``, in which repositories of models say what they expect of their images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from crossroads.errors import BackboneError, option
from crossroads.networks.graphs.preprocessing import CONFIG, Preprocessing, folders_of
from crossroads.networks.scaling import Channels, Scaling
from crossroads.recipe import ResampleName, ResizeMode

_RESAMPLES: tuple[ResampleName, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Filters in the order of Pillow's numbers."""

_APPLIED = (
    *("do_resize", "size", "default_to_square", "resample", "do_center_crop", "crop_size", "crop_pct"),
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "do_flip_channel_order"),
)
_NEUTRAL = (
    *("image_processor_type", "feature_extractor_type", "processor_class", "_valid_processor_keys"),
    *("do_convert_rgb", "data_format", "input_data_format", "return_tensors", "device", "disable_grouping"),
)
"""Keys that change no image here: every image is RGB, and the graph says how its input is laid out."""

_WARPED_FROM = 384
"""Side in pixels from which a ``crop_pct`` means that the whole image is squashed, as ConvNeXt's image processor does."""


class _Geometry(NamedTuple):
    """How images become square.

    Attributes:
        size: Side in pixels; None if not stated.
        resize: The mode; None if not stated.
        crop_fraction: What it keeps; None if not stated.
        not_applied: Settings that cannot be applied.
    """

    size: int | None
    resize: ResizeMode | None
    crop_fraction: float | None
    not_applied: tuple[str, ...] = ()


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
    except (ValueError, TypeError, KeyError, OSError, RecursionError) as error:
        raise BackboneError(
            f"{CONFIG} must describe how images are resized and scaled",
            code="invalid-preprocessor-config",
            field="preprocessing",
            received=f"{error}"[:200],
            hint=f"correct it, or remove it and use {option('preprocessing')}",
        ) from error


def from_config(config: Mapping[str, Any]) -> Preprocessing:
    """Returns the preprocessing that a configuration of Hugging Face's image processors describes.

    Raises:
        ValueError: A value is not what the image processors accept, or asks for padding.
        KeyError: A value is missing.
        TypeError: A value has another type.
    """
    geometry = _geometry(config)
    others = (key for key, value in config.items() if key not in (*_APPLIED, *_NEUTRAL) and value not in (None, False))
    return Preprocessing(
        _scaling(config),
        geometry.size,
        geometry.resize,
        geometry.crop_fraction,
        _resample(config.get("resample")),
        CONFIG,
        (*geometry.not_applied, *sorted(others)),
    )


def _scaling(config: Mapping[str, Any]) -> Scaling:
    factor = float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
    mean, deviation = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if config.get("do_normalize", "image_mean" in config):
        mean, deviation = _channels(config["image_mean"]), _channels(config["image_std"])
    if min(deviation) <= 0:
        raise ValueError(f"image_std {deviation}")
    return Scaling(factor, mean, deviation, bgr=bool(config.get("do_flip_channel_order", False)))


def _channels(values: Any) -> Channels:
    if isinstance(values, int | float):
        values = [values] * 3
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _resample(number: Any) -> ResampleName | None:
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(_RESAMPLES):
        raise ValueError(f"resample {number!r}, and Pillow's filters are 0 to {len(_RESAMPLES) - 1}")
    return _RESAMPLES[number]


def _geometry(config: Mapping[str, Any]) -> _Geometry:
    cropped = _square(config["crop_size"], "crop_size") if config.get("do_center_crop") and config.get("crop_size") else None
    if not config.get("do_resize", True) or config.get("size") is None:
        refused = () if config.get("do_resize", True) else ("do_resize",)  # images of any size go into one network
        return _Geometry(cropped, None if cropped is None else "crop", None if cropped is None else 1.0, refused)
    side, squashed, unused = _edge(config["size"], config.get("default_to_square", cropped is None))
    fraction = config.get("crop_pct")
    if fraction is not None:
        if isinstance(fraction, bool) or not 0 < fraction <= 1:
            raise ValueError(f"crop_pct {fraction!r}")
        if cropped is None and side >= _WARPED_FROM:
            return _Geometry(side, "squash", 1.0, unused)
        return _Geometry(cropped or side, "crop", float(fraction), unused)
    if cropped is not None:
        if cropped > side:
            raise ValueError(f"crop_size {cropped} of images of {side} px; padding is not supported")
        return _Geometry(cropped, "squash" if squashed else "crop", cropped / side, unused)
    return _Geometry(side, "squash" if squashed else "crop", 1.0, unused if squashed else (*unused, "shortest_edge without a crop"))


def _edge(size: Any, to_square: object) -> tuple[int, bool, tuple[str, ...]]:
    """Returns the side that images are resized to, whether both sides become it, and what is not applied.

    Args:
        size: A number, a height and width, or the shortest edge.
        to_square: Whether a number is both sides rather than the shortest edge.
    """
    if isinstance(size, dict) and size.get("shortest_edge") is not None:
        return _square(size["shortest_edge"], "size"), False, ("longest_edge",) if size.get("longest_edge") else ()
    return _square(size, "size"), bool(to_square) or isinstance(size, dict | list), ()


def _square(size: Any, key: str) -> int:
    """Returns the side of a square from a number, or from a height and width."""
    if isinstance(size, dict):
        sides = {int(size[each]) for each in ("height", "width") if size.get(each) is not None}
    else:
        sides = {int(each) for each in size} if isinstance(size, list) else {int(size)}
    if len(sides) != 1 or min(sides) < 1:
        raise ValueError(f"{key} {size!r}, and images are square")
    return sides.pop()
