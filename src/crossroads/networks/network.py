"""A network: preprocessing, a backbone kept up to a cut, and a head on top, sharing layers between training and inference."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from crossroads._runtime.keras_setup import require_usable_keras
from crossroads.networks.cuts import Cut, between, blocks, cuts, until
from crossroads.networks.pooling import pool
from crossroads.recipe import HeadName, PoolingName

MLP_WIDTH = 256
MLP_DROPOUT = 0.3

LEAST_DEVIATION = 0.1
"""Of a feature that a head standardises, as a share of the median."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a backbone's builder returns.

    Attributes:
        preprocessing: Layers from float32 images in [0, 255] to what the backbone takes, in order; no weights.
        backbone: Preprocessed images (n, size, size, 3) in, features out.
    """

    preprocessing: tuple[keras.Layer, ...]
    backbone: keras.Model


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a backbone ends, where its frozen part ends, and what stands on top.

    Attributes:
        keep: The cut at which the backbone ends; None for its end.
        freeze: The cut up to which it is frozen, at or before `keep`; None where nothing is.
        pooling: How its last map becomes a vector.
    """

    keep: Cut | None = None
    freeze: Cut | None = None
    pooling: PoolingName = "average"


@dataclass(frozen=True, slots=True)
class Network:
    """One network seen from three sides that share every layer and weight.

    Attributes:
        frozen: uint8 (n, size, size, 3) in, float32 features out, which are cached; None where nothing is frozen.
        trained: Features in or, where nothing is frozen, float32 (n, size, size, 3) in [0, 255]; float32 (n, k) scores out. What
            training works on.
        size: Side of the images in pixels.
        blocks: The layers with weights of `trained`, in groups from its input to the head, which is the last group.
        shipped: What `ship` returns, as it was last; a head's standardisation is folded in.
        folding: The layers that it is brought up to date by: standardisation, the dense layer behind it, and the dense layer of
            `shipped` that does both; None where a head does not standardise.
    """

    frozen: keras.Model | None
    trained: keras.Model
    size: int
    blocks: tuple[tuple[keras.Layer, ...], ...]
    shipped: keras.Model
    folding: tuple[keras.Layer, keras.Layer, keras.Layer] | None

    def ship(self) -> keras.Model:
        """uint8 (n, size, size, 3) RGB in, float32 (n, k) probabilities out: `shipped`, brought up to date. What is saved."""
        if self.folding is not None:
            figures, dense, both = self.folding
            kernel, bias = folded(figures, np.asarray(dense.kernel), np.asarray(dense.bias))
            both.kernel.assign(kernel)
            both.bias.assign(bias)
        return self.shipped


def head_layers(kind: HeadName | None, classes: int, *, tuned: bool = False) -> tuple[keras.Layer, ...]:
    """The layers from a vector of features to scores for `classes` classes; the last is a dense layer called ``head``.

    ``linear`` and None: one dense layer. ``sgd``: the same with the notes' first weights, a truncated normal of deviation 0.01 and
    zero bias. ``mlp``: features are standardised by fixed figures, then dense, ReLU, dropout.

    Args:
        kind: As above.
        classes: Scores.
        tuned: Whether a ``linear`` head is trained on with the backbone after it was solved. Then it stands on standardised
            features too: a step of Adam is as large for each weight, and on SqueezeNet's features, whose deviations are about 80,
            one such step undoes what was solved.
    """
    if kind == "sgd":
        return (layers.Dense(classes, kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.01), name="head"),)
    standardise = layers.BatchNormalization(center=False, scale=False, epsilon=1e-6, name="head_standardise")
    standardise.trainable = False
    if kind == "mlp":
        hidden = layers.Dense(MLP_WIDTH, name="head_hidden")
        return (
            standardise,
            hidden,
            layers.ReLU(name="head_relu"),
            layers.Dropout(MLP_DROPOUT, name="head_drop"),
            layers.Dense(classes, name="head"),
        )
    dense = layers.Dense(classes, name="head")
    return (standardise, dense) if tuned else (dense,)


def folded(
    figures: layers.BatchNormalization, kernel: NDArray[np.floating], bias: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Kernel (d, k) and bias (k,) on standardised features, as those on features as they come."""
    mean, deviation = _figures(figures)
    kernel = kernel.astype(np.float64) / deviation[:, None]
    return kernel, bias.astype(np.float64) - mean @ kernel


def unfolded(
    figures: layers.BatchNormalization, kernel: NDArray[np.floating], bias: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What `folded` takes back: kernel (d, k) and bias (k,) on features as they come, as those on standardised ones."""
    mean, deviation = _figures(figures)
    kernel = kernel.astype(np.float64)
    return kernel * deviation[:, None], bias.astype(np.float64) + mean @ kernel


def _figures(standardise: layers.BatchNormalization) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean, variance = (np.asarray(v, np.float64) for v in (standardise.moving_mean, standardise.moving_variance))
    return mean, np.sqrt(variance + standardise.epsilon)


def standardises(head: tuple[keras.Layer, ...]) -> bool:
    """Whether a head wants the figures of its features."""
    return isinstance(head[0], layers.BatchNormalization)


def standardise(head: tuple[keras.Layer, ...], mean: NDArray[np.floating], deviation: NDArray[np.floating]) -> None:
    """Give a head that `standardises` the mean and deviation of its features, (d,) each.

    A deviation counts as a tenth of the median at least, of those that are not 0: a feature that was nearly always 0 may begin to
    speak while what is below it is trained, and divided by next to nothing it would drown all others.
    """
    moving = deviation[deviation > 0]
    least = LEAST_DEVIATION * float(np.median(moving)) if len(moving) else 1.0
    head[0].moving_mean.assign(mean)
    head[0].moving_variance.assign(np.maximum(deviation, least) ** 2)


def assemble(parts: Parts, size: int, head: tuple[keras.Layer, ...], layout: Layout | None = None) -> Network:
    """A backbone with a head on top. Networks of the same parts and head share their weights, wherever each is frozen.

    Args:
        parts: Preprocessing and backbone.
        size: Side of the images in pixels.
        head: What `head_layers` returns.
        layout: Where to cut and to freeze.
    """
    require_usable_keras()
    layout = layout or Layout()
    kept = parts.backbone if layout.keep is None else until(parts.backbone, layout.keep)
    images = keras.Input((size, size, 3), dtype="uint8", name="images")
    frozen, below, above = None, None, kept
    if layout.freeze is not None:
        keep = layout.keep or cuts(parts.backbone)[-1]
        whole = keep.name == layout.freeze.name
        frozen = frozen_part(parts, size, layout.freeze, layout.pooling if whole else None)
        above = None if whole else between(parts.backbone, layout.freeze, keep)
        below = frozen
    start = keras.Input((size, size, 3), dtype="float32", name="pixels") if below is None else keras.Input(below.output_shape[1:])
    x = start
    if below is None:
        for layer in parts.preprocessing:
            x = layer(x)
    if above is not None:
        x = pool(above(x), layout.pooling)
    vector = x
    for layer in head:
        x = layer(x)
    trained = keras.Model(start, x, name="network")
    whole, folding = trained, None
    if standardises(head):
        # Not shipped as two layers: OpenVINO 2026.4 scales a flattened map of SqueezeNet in another order than it flattens it.
        folding = (head[0], head[1], layers.Dense(head[1].units, name=head[1].name))
        for layer in (folding[2], *head[2:]):
            vector = layer(vector)
        whole = keras.Model(start, vector, name="network")
    features = layers.Rescaling(1.0, name="to_float")(images) if below is None else below(images)
    probabilities = layers.Softmax(name="probabilities")(whole(features))
    inner = () if above is None else blocks(above)
    top = tuple(layer for layer in head if layer.weights)
    return Network(frozen, trained, size, (*inner, top), keras.Model(images, probabilities, name="crossroads"), folding)


def frozen_part(parts: Parts, size: int, cut: Cut, pooling: PoolingName | None) -> keras.Model:
    """The backbone up to a cut: uint8 (n, size, size, 3) in, float32 (n, d) features out; with pooling None the map of the cut."""
    last = until(parts.backbone, cut)
    if pooling is not None:
        last = keras.Model(last.input, pool(last.output, pooling), name="kept")
    images = keras.Input((size, size, 3), dtype="uint8", name="images")
    return keras.Model(images, _prepared(parts, images, last), name="frozen")


def averages(parts: Parts, size: int, chosen: Sequence[Cut]) -> keras.Model:
    """The averages of the maps at several cuts in one pass: uint8 (n, size, size, 3) in, float32 (n, d) out, cut after cut."""
    inner = parts.backbone
    maps = [until(inner, cut).output for cut in chosen]
    ends = [x if len(x.shape) == 2 else layers.GlobalAveragePooling2D(name=f"average_{i}")(x) for i, x in enumerate(maps)]
    joined = ends[0] if len(ends) == 1 else layers.Concatenate(name="averages")(ends)
    images = keras.Input((size, size, 3), dtype="uint8", name="images")
    return keras.Model(images, _prepared(parts, images, keras.Model(inner.input, joined, name="kept")), name="frozen")


def calibrate_batchnorm(parts: Parts, images: NDArray[np.uint8]) -> None:
    """Give every BatchNorm layer of a backbone the statistics of images, uint8 (n, size, size, 3), as one batch."""
    x: Any = images.astype(np.float32)
    for layer in parts.preprocessing:
        x = layer(x)
    with momentum_at_most(0.0, batchnorms(parts.backbone)):  # the batch's own, not a moving average
        parts.backbone(x, training=True)


def batchnorms(model: keras.Model) -> list[layers.BatchNormalization]:
    """Every BatchNorm layer of a model, those inside other layers too."""
    return [layer for layer in all_layers(model) if isinstance(layer, layers.BatchNormalization)]


def all_layers(model: keras.Model) -> list[keras.Layer]:
    """Every layer of a model, those inside other layers too: nothing public reaches them."""
    return list(model._flatten_layers(include_self=False, recursive=True))


@contextmanager
def momentum_at_most(most: float, norms: Sequence[layers.BatchNormalization]) -> Iterator[None]:
    """Inside, the moving statistics of BatchNorm layers follow at least as fast as by a momentum; then each has its own again."""
    before = [layer.momentum for layer in norms]
    try:
        for layer in norms:
            layer.momentum = min(layer.momentum, most)
        yield
    finally:
        for layer, momentum in zip(norms, before, strict=True):
            layer.momentum = momentum


def _prepared(parts: Parts, images: Any, model: keras.Model) -> Any:
    x = layers.Rescaling(1.0, name="to_float")(images)
    for layer in parts.preprocessing:
        x = layer(x)
    return model(x)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """First weights and dropout depend on `seed` alone inside; Python's and NumPy's own generators are put back after."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
