"""Puts stages, times and accuracies into words for people."""

from __future__ import annotations

import re

_IMAGES = {
    "features of train": "computing features of {} training images",
    "features of validation": "computing features of {} validation images",
    "decoding train": "reading {} training images",
    "decoding validation": "reading {} validation images",
    "testing": "testing on {} images",
    "validating": "validating on {} images",
    "checking": "checking {} images",
    "predicting": "predicting {} images",
    "comparing images": "comparing {} images",
}
"""The stages that count images, by their names."""

_SAMPLE = re.compile(r"features of the sample, (.*)")


def in_words(stage: str, total: int) -> str:
    """Returns what goes on in a stage, such as ``computing features of 640 training images``.

    Args:
        stage: The name of the stage, as a watcher receives it.
        total: Number of images in it; not used if the stage counts something else.
    """
    if stage in _IMAGES:
        return _IMAGES[stage].format(f"{total:,}")
    if (match := _SAMPLE.fullmatch(stage)) is not None:
        return f"computing features of {total:,} images with {match[1]}"
    return "downloading weights" if stage == "weights" else stage


def in_bytes(stage: str) -> bool:
    """Returns whether the parts of a stage are bytes."""
    return stage == "weights" or stage.startswith("downloading")


def clock(seconds: float) -> str:
    """Returns a time as a clock shows it: ``0:07``, ``12:05`` or ``1:02:05``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def duration(seconds: float) -> str:
    """Returns a time in words: ``5.2 s``, ``2 min 41 s`` or ``1 h 2 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def interval(limits: tuple[float, float] | list[float], digits: int = 4) -> str:
    """Returns a 95 % interval: ``0.9287 to 0.9712``."""
    low, high = limits
    return f"{low:.{digits}f} to {high:.{digits}f}"
