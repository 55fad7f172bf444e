"""Defines the metrics of a run as records. `RunMetrics.to_json` is the one form of ``metrics.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crossroads.data.loading import Refusal
from crossroads.evaluation import Evaluation
from crossroads.plain import to_plain

if TYPE_CHECKING:
    from crossroads.networks.cuts import Cut


@dataclass(frozen=True, slots=True)
class PhaseMetrics:
    """One phase of training.

    Attributes:
        name: ``head``, ``tune`` or ``train``.
        epochs: Epochs that were trained.
        best_epoch: The epoch whose weights were kept, counted from 1.
        seconds: Time of all epochs.
        validation_accuracy: Accuracy on the validation images after the best epoch.
        validation_loss: Mean cross-entropy on the validation images after the best epoch, in nats.
        head: The kind and the penalty of a solved head, and all penalties that were tried; None if the head was not solved.
        batch_parts: Parts into which each batch was split to save memory; None if none was split.
    """

    name: str
    epochs: int
    best_epoch: int
    seconds: float
    validation_accuracy: float
    validation_loss: float
    head: Mapping[str, Any] | None = None
    batch_parts: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON."""
        values = to_plain(self)
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class FeatureMetrics:
    """The features of one cut.

    Attributes:
        shape: Shape of one image's features.
        views: Versions of each training image.
        seconds: Time to compute and load them.
        computed: Versions of images that were not in the cache.
        runs_on: What computed them, such as ``openvino``; ``the cache`` if none were computed.
    """

    shape: tuple[int, ...]
    views: int
    seconds: float
    computed: int
    runs_on: str


@dataclass(frozen=True, slots=True)
class BackboneMetrics:
    """The pretrained part of a network.

    Attributes:
        weights: Where the weights come from, with a digest.
        cut: Where the backbone is cut.
        frozen_to: Name of the cut up to which it is frozen; None if all of it was trained.
        features: Features by the name of their cut.
    """

    weights: Mapping[str, Any]
    cut: Cut
    frozen_to: str | None
    features: Mapping[str, FeatureMetrics]

    def to_json(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON."""
        cut = {"name": self.cut.name, "index": self.cut.index, "depth": round(self.cut.depth, 4)}
        return to_plain(self) | {"cut": cut}


@dataclass(frozen=True, slots=True)
class TrainingMetrics:
    """One training.

    Attributes:
        kept: The phase whose weights were kept.
        phases: All phases, in their order.
        backbone: The pretrained part; None if training started from random weights.
        fitted_on: The splits that the final weights were fitted to.
    """

    kept: PhaseMetrics
    phases: tuple[PhaseMetrics, ...]
    backbone: BackboneMetrics | None
    fitted_on: tuple[str, ...] = ("train",)

    def to_json(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON."""
        return {
            "epochs": self.kept.epochs,
            "best_epoch": self.kept.best_epoch,
            "kept_phase": self.kept.name,
            "phases": [phase.to_json() for phase in self.phases],
            "fitted_on": list(self.fitted_on),
            **({} if self.backbone is None else self.backbone.to_json()),
        }


@dataclass(frozen=True, slots=True, eq=False)
class ValidationMetrics:
    """The evaluation that choices are based on.

    Attributes:
        evaluation: The scores of the validation images; of training and validation images together if they were cross-validated.
        cross_validated: ``folds`` and ``repeats`` of the cross-validation; None for the scores of the validation images.
    """

    evaluation: Evaluation
    cross_validated: Mapping[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON."""
        return self.evaluation.to_json() | {"cross_validated": None if self.cross_validated is None else dict(self.cross_validated)}


@dataclass(frozen=True, slots=True, eq=False)
class TestMetrics:
    """The final evaluation.

    Attributes:
        evaluation: The scores of the test images.
        seen_by_weights: Test images that the weights, if they come from an artifact, were trained on or chosen by.
        digest: Digest of the test images and their labels.
        effective: Effective number of the images, if they are grouped; otherwise their number.
    """

    evaluation: Evaluation
    seen_by_weights: int
    digest: str
    effective: float

    @property
    def is_small(self) -> bool:
        """Whether the test images are too few for the accuracy to say much."""
        return self.effective < FEW_TEST_IMAGES

    def to_json(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON."""
        return self.evaluation.to_json() | {"seen_by_weights": self.seen_by_weights, "digest": self.digest}


@dataclass(frozen=True, slots=True)
class Headline:
    """The one accuracy that a run reports first.

    Attributes:
        accuracy: The accuracy.
        interval: Its 95 % interval.
        images: Number of images that it was measured on.
        source: ``test``, ``cross-validation``, or ``validation`` if there is neither.
    """

    accuracy: float
    interval: tuple[float, float]
    images: int
    source: str

    def to_json(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON."""
        return to_plain(self)


FEW_TEST_IMAGES = 30
"""Test images (their effective number, if they are grouped) below which a cross-validated accuracy is reported first. With 30
images the 95 % interval of an accuracy of 0.9 has a width of 0.22."""


def headline(validation: ValidationMetrics, test: TestMetrics | None) -> Headline:
    """Returns the accuracy to report first: that of the test, unless its images are few and there is a cross-validated one."""
    crossed = validation.cross_validated is not None
    if test is None or (crossed and test.is_small):
        scored, source = validation.evaluation, "cross-validation" if crossed else "validation"
    else:
        scored, source = test.evaluation, "test"
    return Headline(scored.accuracy, scored.accuracy_interval, scored.n, source)


_SOURCES = {
    "test": "on {} test images",
    "cross-validation": "cross-validated on {} images",
    "validation": "on {} validation images",
}


def headline_text(figure: Mapping[str, Any]) -> str:
    """Returns the ``headline`` of ``metrics.json`` in words: the accuracy, its interval and what it rests on."""
    low, high = figure["interval"]
    return f"{figure['accuracy']:.4f} ({low:.4f} to {high:.4f}, 95 %) {_SOURCES[figure['source']].format(figure['images'])}"


@dataclass(frozen=True, slots=True, eq=False)
class RunMetrics:
    """What a run measured.

    Attributes:
        backbone: Name of the backbone.
        strategy: Name of the strategy.
        seconds: Time of the whole run, over all processes that worked on it.
        peak_memory_mb: Peak memory of the last process; None if the system does not report it.
        training: The training.
        validation: The evaluation on the validation images, or by cross-validation.
        test: The evaluation on the test images; None without a test.
        refused: The images that could not be read, by split.
        notes: What the user should know about the data, the training and the scores.
        warnings: Every warning of the run.
        selection: How the strategy was chosen: ``asked``, ``advice`` and ``race``; empty if the user named it.
    """

    backbone: str
    strategy: str
    seconds: float
    peak_memory_mb: float | None
    training: TrainingMetrics
    validation: ValidationMetrics
    test: TestMetrics | None
    refused: Mapping[str, tuple[Refusal, ...]]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    selection: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the content of ``metrics.json``. The fields of `training` and `selection` stand beside the others."""
        values: dict[str, Any] = {}
        for name, value in to_plain(self).items():
            if name == "training":
                values["headline"] = headline(self.validation, self.test).to_json()
            values.update(value if name in ("training", "selection") else {name: value})
        values["refused"] = [{"split": split, **one} for split, refused in values["refused"].items() for one in refused]
        return values | {"notes": list(self.notes), "warnings": list(self.warnings)}  # they keep their codes
