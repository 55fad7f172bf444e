"""Runs the forward pass of a frozen part: its inference graph on a CPU, or Keras on a GPU."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads._runtime.machine import full_float32, has_gpu
from crossroads.inference import Graph
from crossroads.networks.body import Frozen

BATCHES = (8, 16, 32)
"""Batch sizes that are measured on the first images. The best depends on the network, the image size and the processor's caches."""

MEASURE_SECONDS = 0.15
"""Minimum time for which each batch size is measured."""

SLOW_SECONDS = 2e-3
"""Seconds per image from which batch sizes are not measured: measuring runs 672 images and gains little for a slow network. On 2
cores AlexNet at 227 px takes 9.2, 8.7 and 8.6 ms of processor time per image in batches of 8, 16 and 32, and ResNet50 at 224 px
takes 34 to 35 ms in each."""

GPU_BATCH = 128
"""Batch size of Keras on a GPU."""


class Engine:
    """Runs a frozen part on images. Its graph is compiled and measured when the first images arrive.

    Args:
        frozen: The frozen part.

    Attributes:
        runs_on: ``openvino`` or ``keras``; "" before the first images.
        batch_size: 0 before the first images.
    """

    def __init__(self, frozen: Frozen) -> None:
        self._frozen = frozen
        self._graph: Graph | None = None
        self.runs_on = ""
        self.batch_size = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the features of one image."""
        return self._frozen.shape

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns features float32 (n, ...) of images uint8 (n, size, size, 3)."""
        if not len(images):
            return np.empty((0, *self.shape), np.float32)
        return np.concatenate(list(self.stream([images])))

    def stream(self, chunks: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yields the features of images in order, computed while later images are decoded, with bounded memory.

        Args:
            chunks: uint8 (c, size, size, 3) each, with any c.

        Yields:
            float32 (b, ...); b is not the size of a chunk.
        """
        source = iter(chunks)
        first = next((chunk for chunk in source if len(chunk)), None)
        if first is None:
            return
        if not self.runs_on:
            self._prepare(first)
        batches = _batches(chain([first], source), self.batch_size)
        results = map(self._by_keras, batches) if self._graph is None else self._graph.stream(batches)
        yield from (features.reshape(len(features), *self.shape) for features in results)

    def _prepare(self, images: NDArray[np.uint8]) -> None:
        """Chooses what runs the frozen part, and its batch size."""
        if self._frozen.keras_model is not None and has_gpu():
            self.runs_on, self.batch_size = "keras", GPU_BATCH
            return
        self._graph = Graph.of(self._frozen.model)
        self.batch_size = self._frozen.batch or _fastest(self._graph, images)
        self.runs_on = "openvino"

    def _by_keras(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the features of images, padded to a whole batch: JAX compiles again for each number of images."""
        missing = max(0, self.batch_size - len(images))
        padded = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)]) if missing else images
        with full_float32():  # as in the artifact's graph
            return np.asarray(self._keras_model.predict_on_batch(padded), np.float32)[: len(images)]

    @cached_property
    def _keras_model(self) -> Any:
        assert self._frozen.keras_model is not None
        return self._frozen.keras_model()


def _batches(chunks: Iterable[NDArray[np.uint8]], size: int) -> Iterator[NDArray[np.uint8]]:
    """Yields the same images in batches of `size`; the last one may be smaller."""
    pending: list[NDArray[np.uint8]] = []
    count = 0
    for chunk in chunks:
        start = 0
        if count:
            start = min(size - count, len(chunk))
            pending.append(chunk[:start])
            count += start
            if count < size:
                continue
            yield np.concatenate(pending)
            pending, count = [], 0
        while start + size <= len(chunk):
            yield chunk[start : start + size]
            start += size
        if start < len(chunk):
            pending, count = [chunk[start:]], len(chunk) - start
    if count:
        yield np.concatenate(pending)


def _fastest(graph: Graph, images: NDArray[np.uint8]) -> int:
    """Returns the batch size with the most images per second, each measured after a warm-up.

    A slow network gets the default batch size without a measurement.
    """
    tiled = np.concatenate([images] * -(-BATCHES[-1] // len(images)))[: BATCHES[-1]]
    smallest = tiled[: BATCHES[0]]
    for _ in graph.stream([smallest] * 2):
        pass
    started = time.perf_counter()
    done = sum(len(features) for features in graph.stream([smallest] * 2))
    if time.perf_counter() - started > SLOW_SECONDS * done:
        return graph.batch
    rates = {}
    for size in BATCHES:
        batch, done = tiled[:size], 0
        for _ in graph.stream([batch] * 4):
            pass
        started = time.perf_counter()
        while (spent := time.perf_counter() - started) < MEASURE_SECONDS:
            done += sum(len(features) for features in graph.stream([batch] * 8))
        rates[size] = done / spent
    return max(rates, key=lambda size: rates[size])
