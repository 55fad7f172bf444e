"""What is known about a backbone, as records that are read without loading Keras."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

from crossroads.errors import BackboneError
from crossroads.recipe import Augmentation, OptimizerName, ScheduleName

if TYPE_CHECKING:
    from crossroads.networks.network import Parts

MANY = 10_000
"""Training images from which on the larger of a backbone's two batch sizes is taken."""

PREPROCESSINGS = {
    "none": "none, the network scales by itself",
    "tf": "x / 127.5 - 1",
    "torch": "x / 255, minus ImageNet's mean, by its standard deviation, for each channel",
    "caffe": "RGB to BGR, minus 103.939, 116.779, 123.68",
    "bvlc": "RGB to BGR, minus 104.007, 116.669, 122.679",
    "centre": "x / 255 - 0.5",
    "each": "x / 255, then each image to mean 0 and variance 1",
}
"""What is done to a uint8 RGB image first, in words. `preprocessing.layers_of` has the layers."""


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
class Pretrained:
    """Where the weights of a backbone that was trained on ImageNet come from.

    Attributes:
        file: Name in the cache: as its publisher names it.
        address: Where it is downloaded from, over https.
        digest: ``md5:`` or ``sha256:`` and hexadecimal digits, of which ``sha256:`` may have the first eight alone, as PyTorch puts
            them into file names; empty where the publisher names none: such a file is used unverified, and the
            user is told when it is downloaded.
        licence: SPDX name of the licence of the weights, or its own words where it has none.
    """

    file: str
    address: str
    digest: str
    licence: str

    @property
    def verified(self) -> bool:
        """Whether a download can be checked."""
        return bool(self.digest)


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network without its head.

    Attributes:
        name: What the user writes.
        summary: One line for the list.
        builder: ``module:function`` that takes the image side in pixels and returns `Parts`: preprocessing and backbone.
        sizes: The image sides that a size is chosen from, in pixels, where the user names none.
        limits: Smallest and largest image side that it accepts, in pixels.
        scaling: What the model does to a uint8 RGB image first: a key of `PREPROCESSINGS`. It is part of every saved model.
        licence: Licence of the weights or, where there are none, of the code.
        year: Of publication.
        source: Where the design comes from.
        defaults: How to train it from random weights.
        reference_size: Image side in pixels that the pretrained weights were trained at or, where there are none, the usual one.
        parameters: Numbers in its weights, without a head, at `reference_size`.
        multiply_adds: Of one image at `reference_size`, without a head.
        pretrained: Its ImageNet weights, or None where there are none.
        application: Its name in ``keras.applications``, which the builder then takes first, with `scaling`; None for the others.
    """

    name: str
    summary: str
    builder: str
    sizes: tuple[int, ...]
    limits: tuple[int, int]
    scaling: str
    licence: str
    year: int
    source: str
    defaults: Defaults
    reference_size: int
    parameters: int
    multiply_adds: int
    pretrained: Pretrained | None = None
    application: str | None = None

    @property
    def preprocessing(self) -> str:
        """What the model does to a uint8 RGB image first, in words."""
        return PREPROCESSINGS[self.scaling]

    def build(self, size: int) -> Parts:
        """Preprocessing and backbone for square images of side `size` pixels, with random weights. Loads Keras."""
        self.check_size(size)
        module, _, function = self.builder.partition(":")
        make = cast("Callable[..., Parts]", getattr(importlib.import_module(module), function))
        return make(size) if self.application is None else make(self.application, self.scaling, size)

    def check_size(self, size: int) -> None:
        """Raises `BackboneError` where images of side `size` pixels are too small, or too large for this network."""
        low, high = self.limits
        if not low <= size <= high:
            raise BackboneError(
                f"{self.name} takes images of {low} to {high} px",
                received=f"{size} px",
                hint=f"use --image-size {min(max(size, low), high)}, or another backbone",
            )

    def to_json(self) -> dict[str, Any]:
        """The record as plain values."""
        return asdict(self) | {"preprocessing": self.preprocessing}

    def size_for(self, side: float) -> int:
        """The member of `sizes` for images of median side `side` pixels: the smallest that loses little, else the largest."""
        return next((size for size in self.sizes if side <= size * 1.25), self.sizes[-1])
