"""Assembles networks from preprocessing, a backbone kept up to a cut, and a head. Training and inference share the layers."""

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
"""Smallest standard deviation that a head divides a feature by, as a fraction of the median deviation."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Preprocessing and backbone, as a builder returns them.

    Attributes:
        preprocessing: Layers without weights that turn float32 images in [0, 255] into the backbone's input, in order.
        backbone: Preprocessed images (n, size, size, 3) in, features out.
        prefix: Number of tokens before those of the image, if the features are tokens: a class token, then register tokens.
    """

    preprocessing: tuple[keras.Layer, ...]
    backbone: keras.Model
    prefix: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """The end of a backbone, the end of its frozen part, and the pooling of its output.

    Attributes:
        keep: Last cut of the backbone that is kept; None for all of it.
        freeze: Last cut of the frozen part, at or before `keep`; None if nothing is frozen.
        pooling: Turns the last map, or its tokens, into a vector.
    """

    keep: Cut | None = None
    freeze: Cut | None = None
    pooling: PoolingName = "average"


@dataclass(frozen=True, slots=True)
class Network:
    """One network as three models that share every layer and weight.

    Attributes:
        frozen: uint8 (n, size, size, 3) in, float32 features out, which are cached; None if nothing is frozen.
        trained: Features in, or float32 (n, size, size, 3) in [0, 255] if nothing is frozen; float32 (n, k) scores out. This part
            is trained.
        size: Side of the images in pixels.
        blocks: The layers with weights of `trained`, in groups from its input to the head, which is the last group.
        shipped: uint8 images in, probabilities out, with the standardisation of the head folded into its dense layer. `ship`
            returns it up to date.
        on_features: Whether `trained` takes features.
        folding: Layers for folding: standardisation, the dense layer after it, and the dense layer of `shipped` that replaces both;
            None if the head does not standardise.
    """

    frozen: keras.Model | None
    trained: keras.Model
    size: int
    blocks: tuple[tuple[keras.Layer, ...], ...]
    shipped: keras.Model
    on_features: bool
    folding: tuple[keras.Layer, keras.Layer, keras.Layer] | None

    def ship(self) -> keras.Model:
        """Returns the model to save, up to date: uint8 (n, size, size, 3) RGB in, float32 (n, k) probabilities out."""
        if self.folding is not None:
            statistics, dense, both = self.folding
            kernel, bias = folded(statistics, np.asarray(dense.kernel), np.asarray(dense.bias))
            both.kernel.assign(kernel)
            both.bias.assign(bias)
        return self.shipped


def head_layers(kind: HeadName | None, classes: int, *, tuned: bool = False) -> tuple[keras.Layer, ...]:
    """Returns the layers from features to scores; the last is a dense layer called ``head``.

    ``linear`` and None are one dense layer. ``sgd`` is the same, initialised with a truncated normal of deviation 0.01 and zero
    bias. ``mlp`` standardises features by fixed statistics, then applies dense, ReLU, dropout and dense.

    Args:
        kind: Kind of head.
        classes: Number of classes.
        tuned: Whether a solved ``linear`` head is then trained together with the backbone. It standardises its features too,
            because Adam takes equally large steps for every weight: on SqueezeNet's features, whose deviations are about 80, one
            step would undo the solution.
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
    statistics: layers.BatchNormalization, kernel: NDArray[np.floating], bias: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turns kernel (d, k) and bias (k,) for standardised features into those for raw features."""
    mean, deviation = _moments(statistics)
    kernel = kernel.astype(np.float64) / deviation[:, None]
    return kernel, bias.astype(np.float64) - mean @ kernel


def unfolded(
    statistics: layers.BatchNormalization, kernel: NDArray[np.floating], bias: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Reverses `folded`: turns kernel (d, k) and bias (k,) for raw features into those for standardised features."""
    mean, deviation = _moments(statistics)
    kernel = kernel.astype(np.float64)
    return kernel * deviation[:, None], bias.astype(np.float64) + mean @ kernel


def _moments(standardise: layers.BatchNormalization) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean, variance = (np.asarray(v, np.float64) for v in (standardise.moving_mean, standardise.moving_variance))
    return mean, np.sqrt(variance + standardise.epsilon)


def standardises(head: tuple[keras.Layer, ...]) -> bool:
    """Returns whether a head standardises its features."""
    return isinstance(head[0], layers.BatchNormalization)


def standardise(head: tuple[keras.Layer, ...], mean: NDArray[np.floating], deviation: NDArray[np.floating]) -> None:
    """Sets the mean and deviation, (d,) each, by which a head standardises its features.

    A deviation below a tenth of the median is raised to it. A feature that is almost always 0 may become active while the layers
    below are trained; divided by its tiny deviation it would then dominate all others.
    """
    moving = deviation[deviation > 0]
    least = LEAST_DEVIATION * float(np.median(moving)) if len(moving) else 1.0
    head[0].moving_mean.assign(mean)
    head[0].moving_variance.assign(np.maximum(deviation, least) ** 2)


def assemble(parts: Parts, size: int, head: tuple[keras.Layer, ...], layout: Layout | None = None) -> Network:
    """Puts a head on a backbone. Networks with the same parts and head share their weights, even if their frozen parts differ.

    Args:
        parts: Preprocessing and backbone.
        size: Side of the images in pixels.
        head: Layers from `head_layers`.
        layout: Where to cut and to freeze. None for the whole backbone with nothing frozen.
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
        x = pool(above(x), layout.pooling, parts.prefix)
    vector = x
    for layer in head:
        x = layer(x)
    trained = keras.Model(start, x, name="network")
    whole, folding = trained, None
    if standardises(head):
        # Standardisation is not shipped as a layer: OpenVINO 2026.4 scales a flattened map of SqueezeNet in the wrong order.
        folding = (head[0], head[1], layers.Dense(head[1].units, name=head[1].name))
        for layer in (folding[2], *head[2:]):
            vector = layer(vector)
        whole = keras.Model(start, vector, name="network")
    features = layers.Rescaling(1.0, name="to_float")(images) if below is None else below(images)
    probabilities = layers.Softmax(name="probabilities")(whole(features))
    inner = () if above is None else blocks(above)
    top = tuple(layer for layer in head if layer.weights)
    shipped = keras.Model(images, probabilities, name="crossroads")
    return Network(frozen, trained, size, (*inner, top), shipped, below is not None, folding)


def assemble_head(width: int, head: tuple[keras.Layer, ...]) -> Network:
    """Returns a network that is a head alone, on features float32 (n, width)."""
    require_usable_keras()
    features = keras.Input((width,), dtype="float32", name="features")
    x = features
    for layer in head:
        x = layer(x)
    trained = keras.Model(features, x, name="network")
    top = tuple(layer for layer in head if layer.weights)
    return Network(None, trained, 0, (top,), trained, on_features=True, folding=None)


def dense_layers(head: tuple[keras.Layer, ...]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Returns kernel (d, k) and bias (k,) of each dense layer of a head, with the standardisation folded into the first one."""
    dense = [layer for layer in head if isinstance(layer, layers.Dense)]
    weights = [(np.asarray(layer.kernel), np.asarray(layer.bias)) for layer in dense]
    if standardises(head):
        weights[0] = folded(head[0], *weights[0])
    return [(kernel.astype(np.float32), bias.astype(np.float32)) for kernel, bias in weights]


def frozen_part(parts: Parts, size: int, cut: Cut, pooling: PoolingName | None) -> keras.Model:
    """Returns the backbone up to a cut: uint8 (n, size, size, 3) in, float32 (n, d) features out, or the map if pooling is None."""
    last = until(parts.backbone, cut)
    if pooling is not None:
        last = keras.Model(last.input, pool(last.output, pooling, parts.prefix), name="kept")
    images = keras.Input((size, size, 3), dtype="uint8", name="images")
    return keras.Model(images, prepared(parts, images, last), name="frozen")


def calibrate_batchnorm(parts: Parts, images: NDArray[np.uint8]) -> None:
    """Sets the statistics of every BatchNorm layer from images, uint8 (n, size, size, 3), as one batch."""
    x: Any = images.astype(np.float32)
    for layer in parts.preprocessing:
        x = layer(x)
    with momentum_at_most(0.0, batchnorms(parts.backbone)):  # the batch's own, not a moving average
        parts.backbone(x, training=True)


def batchnorms(model: keras.Model) -> list[layers.BatchNormalization]:
    """Returns every BatchNorm layer of a model, including those inside other layers."""
    return [layer for layer in all_layers(model) if isinstance(layer, layers.BatchNormalization)]


def all_layers(model: keras.Model) -> list[keras.Layer]:
    """Returns every layer of a model, including those inside other layers. Keras has no public function for this."""
    return list(model._flatten_layers(include_self=False, recursive=True))


@contextmanager
def momentum_at_most(most: float, norms: Sequence[layers.BatchNormalization]) -> Iterator[None]:
    """Caps the momentum of BatchNorm layers inside the context."""
    before = [layer.momentum for layer in norms]
    try:
        for layer in norms:
            layer.momentum = min(layer.momentum, most)
        yield
    finally:
        for layer, momentum in zip(norms, before, strict=True):
            layer.momentum = momentum


def prepared(parts: Parts, images: Any, model: keras.Model) -> Any:
    """Preprocesses uint8 images and calls a model on them."""
    x = layers.Rescaling(1.0, name="to_float")(images)
    for layer in parts.preprocessing:
        x = layer(x)
    return model(x)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Makes initial weights and dropout depend on `seed` alone inside the context. Restores Python's and NumPy's generators."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
