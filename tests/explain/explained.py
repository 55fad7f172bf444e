"""Artifacts of tiny frozen graphs, and images with a bright patch."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from crossroads import artifact
from crossroads.artifact import Parity
from crossroads.data.images import Resize
from crossroads.inference import Graph, operations, runtime
from crossroads.networks.body import Dense, Frozen, GraphModel
from crossroads.networks.graphs import read_graph
from tiny_artifact import contents
from tiny_graphs import SIZE, written


def images(n, seed=0):
    """Returns random images, uint8 (n, SIZE, SIZE, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


def patched(n, side=4, seed=0):
    """Returns grey images with noise and a white patch, and the top left corner of each patch, at multiples of its side."""
    random = np.random.default_rng(seed)
    found = random.integers(90, 110, (n, SIZE, SIZE, 3)).astype(np.uint8)
    corners = random.integers(0, SIZE // side, (n, 2)) * side
    for image, (top, left) in zip(found, corners, strict=True):
        image[top : top + side, left : left + side] = 255
    return found, corners


def peaks(maps, side=4):
    """Returns the top left corner of the square of each map with the largest sum."""
    n, size, _ = maps.shape
    sums = maps.reshape(n, size // side, side, size // side, side).sum(axis=(2, 4)).reshape(n, -1)
    return np.stack(np.divmod(sums.argmax(axis=1), size // side), axis=1) * side


def frozen(model, tmp_path, pooling="average"):
    """Returns the frozen part of a graph up to its end."""
    body = read_graph(written(model, tmp_path / "net.xml"), preprocessing="tf")
    return body.until(body.end, pooling)


def brightness():
    """Returns a frozen part that computes the mean of each channel."""
    ops = operations()
    pixels = ops.parameter([-1, SIZE, SIZE, 3], np.uint8, name="images")
    scaled = ops.multiply(ops.convert(pixels, "f32"), ops.constant(np.float32(1 / 255)))
    mean = ops.reduce_mean(scaled, ops.constant(np.array([1, 2], np.int64)), False)
    return Frozen(runtime().Model([mean.output(0)], [pixels], "brightness"), (3,), "brightness")


def random_head(width, classes=3, hidden=None, seed=0):
    """Returns a head with random weights."""
    random = np.random.default_rng(seed)
    widths = (width, *([hidden] if hidden else []), classes)
    return tuple(
        Dense(random.normal(0, 1, (one, two)).astype(np.float32), random.normal(0, 1, two).astype(np.float32))
        for one, two in pairwise(widths)
    )


def fitted_head(part, with_patch, without):
    """Returns a linear head that tells images with a patch (class 1) from those without."""
    features = Graph.of(part.model)(np.concatenate([with_patch, without])).reshape(len(with_patch) + len(without), -1)
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
    rows = (features - mean) / scale
    signs = np.where(np.arange(len(rows)) < len(with_patch), 1.0, -1.0)
    weights = np.linalg.solve(rows.T @ rows + 0.1 * np.eye(rows.shape[1]), rows.T @ signs) / scale
    kernel = np.stack([-weights, weights], axis=1)
    return (Dense(kernel.astype(np.float32), (-mean @ kernel).astype(np.float32)),)


def saved(folder, part, head, neighbours=None):
    """Writes an artifact and returns its folder."""
    classes = tuple(f"class {number}" for number in range(len(head[-1].bias)))
    whole = contents(GraphModel(part, head), classes=classes, resize=Resize(SIZE), parity=Parity(images(4)))
    with artifact.draft(folder, whole) as unfinished:
        unfinished.finish({}, neighbours=neighbours)
    return folder
