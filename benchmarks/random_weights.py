"""Random weights that leave signals at a usual size in every layer, so that a benchmark needs no download."""

from __future__ import annotations

from typing import Any

import numpy as np


def calibrate(preprocessing: Any, backbone: Any, images: np.ndarray) -> None:
    """Bring a backbone's signals on images, uint8 (n, size, size, 3), to mean 0 and deviation 1 in front of each non-linearity.

    Left as they are, random weights shrink signals layer by layer, down to numbers so small that a processor slows on them, and
    features tell nothing apart. Where the backbone has BatchNorm, its statistics are taken from the images; where it has none,
    kernels and biases are set layer by layer (Mishkin and Matas 2016, https://arxiv.org/abs/1511.06422).
    """
    import keras

    signals = np.asarray(images, np.float32)
    for layer in preprocessing:
        signals = layer(signals)
    norms = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if norms:
        for layer in norms:
            layer.momentum = 0.0
        backbone(signals, training=True)
        return
    rng = np.random.default_rng(0)
    for layer in backbone.layers:
        if not isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            continue
        kernel = rng.normal(0, 1, layer.kernel.shape).astype(np.float32)
        layer.set_weights([kernel / np.sqrt(kernel[..., 0].size), np.zeros(kernel.shape[-1], np.float32)])
        found = np.asarray(keras.Model(backbone.input, layer.output)(signals))
        axes = tuple(range(found.ndim - 1))
        mean, deviation = found.mean(axis=axes), found.std(axis=axes) + 1e-6
        layer.set_weights([layer.get_weights()[0] / deviation, -mean / deviation])


def frozen_network(backbone: str, size: int) -> Any:
    """The `Network` of a backbone that is frozen as a whole, ends in an average, and has calibrated random weights."""
    from crossroads.networks import catalog
    from crossroads.networks.cuts import cuts
    from crossroads.networks.network import Layout, assemble, head_layers, seeded

    with seeded(0):
        parts = catalog.backbone(backbone).build(size)
        calibrate(parts.preprocessing, parts.backbone, random_images(16, size))
        end = cuts(parts.backbone)[-1]
        return assemble(parts, size, head_layers("linear", 10), Layout(end, end))


def as_frozen(model: Any) -> Any:
    """Returns a Keras model, uint8 images in and features out, as the `Frozen` that the engine runs."""
    from crossroads.networks.body import Frozen
    from crossroads.networks.export import converted, function_digest

    return Frozen(converted(model), tuple(model.output_shape[1:]), function_digest(model), None, lambda: model)


def random_images(n: int, size: int) -> np.ndarray:
    """uint8 (n, size, size, 3), every pixel drawn alone."""
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
