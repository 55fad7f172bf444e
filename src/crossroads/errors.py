"""Defines the errors that a user can cause, with their facts as data."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

# These Unicode noncharacters enclose the name of an option in a message. Text from a user does not contain them.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"


def option(name: str) -> str:
    """Marks the name of a recipe field or an argument in a message. The command line spells it as an option: ``--batch-size``."""
    return f"{_OPEN}{name}{_CLOSE}"


class CrossroadsError(Exception):
    """A mistake that the user can fix.

    Args:
        rule: What must hold or what went wrong, as a short sentence without a full stop.
        code: Name of the rule in kebab-case, such as ``unknown-label``. It stays the same when the wording changes.
        field: The recipe field or argument at fault; None if the mistake lies elsewhere.
        received: The value that broke the rule.
        hint: What to do about it, as a short sentence without a full stop.
        source: The file that `field` was read from; None for an argument or an option.

    The message reads ``rule; received X; hint``. The command line prints it without a traceback and exits with code 2.
    """

    exit_code = 2

    def __init__(
        self,
        rule: str,
        *,
        code: str = "",
        field: str | None = None,
        received: object = None,
        hint: str | None = None,
        source: str | None = None,
    ) -> None:
        self.code, self.field, self.received, self.source = code, field, received, source
        self._rule, self._hint = rule, hint
        super().__init__(self.text())

    @property
    def rule(self) -> str:
        """The rule that was broken, or what went wrong."""
        return _spelled(self._rule, str)

    @property
    def hint(self) -> str | None:
        """What to do about it."""
        return None if self._hint is None else _spelled(self._hint, str)

    def text(self, spell: Callable[[str], str] = str) -> str:
        """Returns the message.

        Args:
            spell: Converts the name of a field or an argument to the spelling that the reader uses, such as that of the command
                line. Names from a file keep their spelling.
        """
        parts = [self._rule if self.source is None else f"{self.source}: {self._rule}"]
        if self.received is not None:
            parts.append(f"received {self.received}")
        if self._hint is not None:
            parts.append(self._hint)
        return _spelled("; ".join(parts), spell if self.source is None else str)

    def from_source(self, source: str) -> CrossroadsError:
        """Returns the same error for a field that was read from a file."""
        return type(self)(self._rule, code=self.code, field=self.field, received=self.received, hint=self._hint, source=source)


def _spelled(text: str, spell: Callable[[str], str]) -> str:
    """Returns a message with each marked name spelled."""
    before, *marked = text.split(_OPEN)
    return before + "".join(spell(name) + rest for name, _, rest in (part.partition(_CLOSE) for part in marked))


class CrossroadsWarning(UserWarning):
    """A warning about the data, the weights or the scores, such as test images that were used in training."""


class DataError(CrossroadsError):
    """The labelled images cannot be read: their layout or labels are wrong, or a file is broken or hostile."""


class ImageRefused(CrossroadsError):
    """The error for a source that cannot be read as an image. `rule` is the reason, such as that the file is truncated.

    Attributes:
        name: Name of the source if a predictor refused it; otherwise empty.
    """

    name: str = ""


class SplitError(CrossroadsError):
    """The data cannot be split as requested, for example because a class has a single group."""


class SealedTestError(CrossroadsError):
    """The test split was read before the final evaluation."""


class RecipeError(CrossroadsError):
    """An option is unknown, has the wrong type, is out of range, or has no effect."""


class BackboneError(CrossroadsError):
    """The error for an unknown backbone, or for one that does not accept the image size."""


class WeightsError(BackboneError):
    """Pretrained weights are not available, cannot be read, or belong to another network."""


class FeatureError(CrossroadsError):
    """Features cannot be cached: the cache limit is too small, or the cache folder is not writable."""


class TrainingError(CrossroadsError):
    """Training cannot start or continue: the run is finished, the checkpoint has another recipe, or the loss is not finite."""


class ArtifactError(CrossroadsError):
    """A folder is not an artifact, is incomplete, was changed after it was written, or disagrees with its own model."""


class SetupError(CrossroadsError):
    """Keras or TensorFlow cannot train with its current installation or settings."""


class MissingExtraError(CrossroadsError):
    """An optional dependency is not installed."""


def without_effect(name: str, received: object, context: str, hint: str = "leave it out") -> RecipeError:
    """Returns the error about an option that has no effect in a context, such as ``with frozen features``."""
    return RecipeError(
        f"{option(name)} has no effect {context}", code="option-without-effect", field=name, received=received, hint=hint
    )


def not_writable(path: object, error: OSError, hint: str) -> TrainingError:
    """Returns the error about a run folder in which a file cannot be written."""
    received = f"{path} ({error.strerror})"
    return TrainingError(f"{option('out')} must be writable", code="out-not-writable", field="out", received=received, hint=hint)


def unknown(kind: str, name: object, known: Iterable[str]) -> BackboneError:
    """Returns the error about a name of a kind, such as ``pooling``, that no option of that name has."""
    return BackboneError(
        f"the {kind} is unknown",
        code=f"unknown-{kind}",
        field=kind,
        received=repr(name),
        hint=did_you_mean(str(name), tuple(known)),
    )


def missing_extra(purpose: str, package: str, extra: str) -> MissingExtraError:
    """Returns the error about a package of an extra that is needed but not installed."""
    return MissingExtraError(f"{purpose} needs {package}", code="missing-extra", received="no such package", hint=install(extra))


def install(extra: str) -> str:
    """Returns the command that installs an extra."""
    return f"pip install '.[{extra}]' in the checkout"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Returns the member of `known` whose spelling is closest to `name`; None if none is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns the hint for an unknown `name`: the nearest known one, or the list of all if none is close."""
    names = list(known)
    best = nearest(name, names)
    if best is not None:
        return f"did you mean {best!r}?"
    shown = ", ".join(map(repr, names[:12])) + (", …" if len(names) > 12 else "")
    return f"use one of {shown}"
