"""The catalog of backbones: one record each, read without loading Keras."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

from crossroads.errors import BackboneError, did_you_mean
from crossroads.recipe import Augmentation, OptimizerName, ScheduleName

if TYPE_CHECKING:
    from crossroads.networks.network import Parts


MANY = 10_000
"""Training images from which on the larger of a backbone's two batch sizes is taken."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """How a backbone is best trained from random weights; every one is also an option of the recipe.

    Attributes:
        batch_size: Images a step, for fewer than 10,000 images and for more: larger batches are faster, and many steps are left.
        optimizer: Adam or AdamW.
        learning_rate: Peak of the schedule.
        schedule: Course of the learning rate.
        weight_decay: Decoupled, for AdamW.
        label_smoothing: Share of the target spread over all classes.
        augment: Whether images are moved unless the user says otherwise.
        augmentation: How far they are moved.
        passes: Images seen in a whole training that `epochs` is chosen for, where the user names no number of epochs.
        epochs: Least and most epochs that are so chosen.
    """

    batch_size: tuple[int, int]
    optimizer: OptimizerName
    learning_rate: float
    schedule: ScheduleName
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    augment: bool = False
    augmentation: Augmentation = field(default_factory=Augmentation)
    passes: int = 350_000
    epochs: tuple[int, int] = (10, 100)

    def batch_size_for(self, n: int) -> int:
        """Images a step for `n` training images."""
        return self.batch_size[n >= MANY]

    def epochs_for(self, n: int) -> int:
        """Epochs for `n` training images: about `passes` images in all, within `epochs`."""
        low, high = self.epochs
        return max(low, min(high, round(self.passes / max(n, 1))))


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network without its head.

    Attributes:
        name: What the user writes.
        summary: One line for the list.
        builder: ``module:function`` that takes the image side in pixels and returns `Parts`: preprocessing and backbone.
        sizes: The image sides that a size is chosen from, in pixels, where the user names none.
        limits: Smallest and largest image side that it accepts, in pixels.
        preprocessing: What the model does to a uint8 RGB image first, in words. It is part of every saved model.
        licence: Licence of the weights or, where there are none, of the code.
        year: Of publication.
        source: Where the design comes from.
        defaults: How to train it from random weights.
    """

    name: str
    summary: str
    builder: str
    sizes: tuple[int, ...]
    limits: tuple[int, int]
    preprocessing: str
    licence: str
    year: int
    source: str
    defaults: Defaults

    def build(self, size: int) -> Parts:
        """Preprocessing and backbone for square images of side `size` pixels, with random weights. Loads Keras."""
        self.check_size(size)
        module, _, function = self.builder.partition(":")
        return cast("Callable[[int], Parts]", getattr(importlib.import_module(module), function))(size)

    def check_size(self, size: int) -> None:
        """Raises `BackboneError` where images of side `size` pixels are too small, or too large for this network."""
        low, high = self.limits
        if not low <= size <= high:
            raise BackboneError(
                f"{self.name} takes images of {low} to {high} px",
                received=f"{size} px",
                mend=f"use --image-size {min(max(size, low), high)}, or another backbone",
            )

    def to_json(self) -> dict[str, Any]:
        """The record as plain values."""
        return asdict(self)

    def size_for(self, side: float) -> int:
        """The member of `sizes` for images of median side `side` pixels: the smallest that loses little, else the largest."""
        return next((size for size in self.sizes if side <= size * 1.25), self.sizes[-1])


CATALOG: tuple[Backbone, ...] = (
    Backbone(
        name="small-cnn",
        summary="small BatchNorm network for images of 32 to 64 px, the default from scratch",
        builder="crossroads.networks.small:build",
        sizes=(32, 48, 64),
        limits=(16, 512),
        preprocessing="x / 255, then each image to mean 0 and variance 1",
        licence="Apache-2.0",
        year=2026,
        source="this project, docs/benchmarks.md",
        defaults=Defaults(
            batch_size=(64, 64),
            optimizer="adamw",
            learning_rate=4e-3,
            schedule="one-cycle",
            weight_decay=0.02,
            label_smoothing=0.05,
            augment=True,
            augmentation=Augmentation(shift=0.1, rotation=12, zoom=0.15, shear=8),
            passes=280_000,
            epochs=(8, 100),
        ),
    ),
    Backbone(
        name="quiz-cnn",
        summary="one convolution and two dense layers, the first network of the notes",
        builder="crossroads.networks.quiz:build",
        sizes=(32,),
        limits=(8, 256),
        preprocessing="x / 255 - 0.5",
        licence="Apache-2.0",
        year=2017,
        source="the Keras quiz of the notes",
        defaults=Defaults(
            batch_size=(32, 128), optimizer="adam", learning_rate=1e-3, schedule="constant", passes=400_000, epochs=(10, 20)
        ),
    ),
)

DEFAULT_FROM_SCRATCH = "small-cnn"


def backbone(name: str) -> Backbone:
    """The record called `name`. Raises `BackboneError` that names the nearest known one."""
    for record in CATALOG:
        if record.name == name:
            return record
    raise BackboneError("no such backbone", received=repr(name), mend=did_you_mean(name, [record.name for record in CATALOG]))
