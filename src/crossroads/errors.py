"""Every failure a user can cause, as one small family: the rule, the value received, the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CrossroadsError(Exception):
    """A mistake that the user can mend.

    Args:
        rule: What must hold, as a short sentence without a full stop.
        received: The value that broke the rule, as it was given.
        mend: What to do about it, as a short sentence without a full stop.

    The message reads ``rule; received X; mend``. The command line prints it without a traceback and exits with 2.
    """

    exit_code = 2

    def __init__(self, rule: str, *, received: object = None, mend: str | None = None) -> None:
        self.rule = rule
        self.received = received
        self.mend = mend
        parts = [rule]
        if received is not None:
            parts.append(f"received {received}")
        if mend is not None:
            parts.append(mend)
        super().__init__("; ".join(parts))


class CrossroadsWarning(UserWarning):
    """Something that the user should know about the data, the weights or the scores, such as test images that were trained on."""


class DataError(CrossroadsError):
    """The labelled images cannot be read as given: layout, labels, a hostile or broken file."""


class ImageRefused(CrossroadsError):
    """One source did not become an image. `rule` is the reason: truncated, not an image, too many pixels, zero-sized.

    Attributes:
        name: What the source is called, where a predictor refused it; else "".
    """

    name: str = ""


class SplitError(CrossroadsError):
    """The data cannot be split as asked, such as a class with a single group."""


class LockedError(CrossroadsError):
    """The test split was touched before the final evaluation."""


class RecipeError(CrossroadsError):
    """An option is unknown, has the wrong type, is out of range, or would do nothing."""


class BackboneError(CrossroadsError):
    """No such backbone, or one that does not accept this image size."""


class WeightsError(BackboneError):
    """Pretrained weights are not to be had, cannot be read, or are not those of the network."""


class FeatureError(CrossroadsError):
    """Features cannot be kept: they need more room than the cache may take, or its folder cannot be written."""


class TrainingError(CrossroadsError):
    """Training cannot start or go on: a finished run, a checkpoint of another recipe, a loss that is not finite."""


class ArtifactError(CrossroadsError):
    """A folder is not an artifact, is incomplete, was changed after it was written, or disagrees with its own model."""


class SetupError(CrossroadsError):
    """Keras or TensorFlow, as they are installed and set up here, cannot do the work."""


class MissingExtraError(CrossroadsError):
    """A feature needs an optional dependency that is not installed."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The member of `known` that is spelt most like `name`, or None where nothing is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A mend for an unknown `name`: the nearest known one, or the list of all where nothing is close."""
    names = list(known)
    best = nearest(name, names)
    if best is not None:
        return f"did you mean {best!r}?"
    shown = ", ".join(map(repr, names[:12])) + (", …" if len(names) > 12 else "")
    return f"use one of {shown}"
