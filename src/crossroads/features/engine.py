"""The fast forward pass of a frozen part: an OpenVINO graph on a CPU, checked against Keras; Keras itself on a GPU."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads._runtime.faults import is_failure
from crossroads._runtime.machine import TemporaryFolder, full_float32, has_gpu
from crossroads.errors import ArtifactError, CrossroadsError
from crossroads.features.store import unwritable
from crossroads.inference import Graph
from crossroads.networks.export import function_digest, to_openvino

LOGGER = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Largest difference between graph and Keras on the first images, as a share of the largest feature."""

BATCHES = (8, 16, 32)
"""Images a request that are tried on the first images. Which is best hangs on the network, the image size and the caches."""

MEASURE_SECONDS = 0.15
"""Least time that each of them is measured for."""

HEAVY = 2e-3
"""Seconds an image from which on nothing is tried: a trial of all three runs 672 images, and gains little where each takes long.
On 2 cores AlexNet at 227 px takes 9.2, 8.7 and 8.6 ms of processor time an image in batches of 8, 16 and 32, and ResNet50 at 224 px
34 to 35 ms in each."""

GPU_BATCH = 128
"""Images a call of Keras on a GPU."""

CHECKED = 8
"""Images that are compared with Keras."""


class Engine:
    """Runs a frozen model on images.

    The graph is made, checked and measured when the first images come.

    Args:
        model: A Keras model, uint8 (n, size, size, 3) in, float32 (n, ...) out.
        threads: CPU threads to use, None for all.
        graphs: Folder in which graphs are kept from run to run, by what they compute; None to keep none.

    Attributes:
        runs_on: ``openvino`` or ``keras``; "" before the first images.
        batch: Images a request; 0 before the first images.
        note: What the user should know, such as that the graph disagreed and Keras runs; else "".
    """

    def __init__(
        self,
        model: Any,
        *,
        threads: int | None = None,
        graphs: Path | None = None,
    ) -> None:
        self._model, self._threads, self._graphs = model, threads, graphs
        self._graph: Graph | None = None
        self._folder: TemporaryFolder | None = None
        self.runs_on = ""
        self.batch_size = 0
        self.note = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the features of one image."""
        return tuple(self._model.output_shape[1:])

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features float32 (n, ...) of images uint8 (n, size, size, 3)."""
        if not len(images):
            return np.empty((0, *self.shape), np.float32)
        return np.concatenate(list(self.stream([images])))

    def stream(self, chunks: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Features of images, in order, computed while later images are made; a bounded number is in memory at a time.

        Args:
            chunks: uint8 (c, size, size, 3) each, of any c.

        Yields:
            float32 (b, ...), of another number of images than came in a chunk.
        """
        source = iter(chunks)
        first = next((chunk for chunk in source if len(chunk)), None)
        if first is None:
            return
        if not self.runs_on:
            self._prepare(first)
        batches = _batches(chain([first], source), self.batch_size)
        if self._graph is not None:
            yield from (found.reshape(len(found), *self.shape) for found in self._graph.stream(batches))
        else:
            yield from (self._by_keras(batch, self.batch_size) for batch in batches)

    def _prepare(self, images: NDArray[np.uint8]) -> None:
        self.runs_on, self.batch_size = "keras", BATCHES[-1]
        if has_gpu():
            self.batch_size = GPU_BATCH
            return
        try:
            graph = self._checked(images[:CHECKED])
        except Exception as error:
            # Keras can run what cannot be converted, and needs no cache of graphs.
            if not (isinstance(error, CrossroadsError) or is_failure(error)):
                raise
            LOGGER.exception("no inference graph could be made")
            said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            self.note = f"Keras runs the frozen part, more slowly, since no inference graph could be made of it: {said[:300]}"
            return
        if graph is not None:
            self.runs_on, self._graph = "openvino", graph
            self.batch_size = _fastest(graph, images)

    def _checked(self, images: NDArray[np.uint8]) -> Graph | None:
        """The graph, if it agrees with Keras; a kept one that cannot be read or does not agree is made anew."""
        expected = self._by_keras(images)
        worst, refused = 0.0, None
        for fresh in (False, True) if self._kept is not None and self._kept.exists() else (True,):
            if not fresh and self._kept is not None:
                refused = _mark(self._kept)  # should it turn out so
            try:
                graph = self._opened(fresh=fresh, refused=refused)
                found = graph(images).reshape(expected.shape)
            except (ArtifactError, RuntimeError, ValueError, OSError):  # ValueError: results of another shape
                if fresh:
                    raise
                LOGGER.warning("a kept inference graph cannot be used and is made anew", exc_info=True)
                continue
            worst = float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-30))
            if worst <= TOLERANCE:
                return graph
        self.note = (
            f"Keras runs the frozen part, more slowly: the inference graph's features differ by {worst:.2g} of the largest, "
            f"and {TOLERANCE:g} is allowed"
        )
        return None

    @cached_property
    def _kept(self) -> Path | None:
        """Where the graph is kept, whether or not it is there yet; None where none are."""
        if self._graphs is None:
            return None
        return self._graphs / function_digest(self._model) / "model.xml"

    def _opened(self, *, fresh: bool, refused: _Mark | None) -> Graph:
        path = self._kept
        if path is None:
            self._folder = TemporaryFolder()
            path = self._folder.path / "model.xml"
            self._make(path)
            return Graph(path, threads=self._threads)
        if fresh:
            self._keep(path.parent, refused)
        with contextlib.suppress(OSError):  # the cache may be there to be read alone
            os.utime(path.parent)  # it was used
        return Graph(path, threads=self._threads)

    def _keep(self, home: Path, refused: _Mark | None) -> None:
        """Make the graph in the folder `home`, whole or not at all."""
        try:
            home.parent.mkdir(parents=True, exist_ok=True)
            folder = TemporaryDirectory(dir=home.parent, prefix=".partial-", ignore_cleanup_errors=True)
        except OSError as error:
            raise unwritable(home.parent, error) from error
        with folder:
            made = Path(folder.name) / "made"
            made.mkdir()
            self._make(made / "model.xml")
            _replace(made, home, refused)

    def _make(self, path: Path) -> None:
        to_openvino(_unflattened(self._model), path)

    def _by_keras(self, images: NDArray[np.uint8], size: int = 0) -> NDArray[np.float32]:
        """Features of images that are filled up to `size`: JAX compiles anew for each number of images."""
        missing = max(0, size - len(images))
        filled = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)]) if missing else images
        with full_float32():  # as in the graph that is shipped
            return np.asarray(self._compiled.predict_on_batch(filled), np.float32)[: len(images)]

    @cached_property
    def _compiled(self) -> Any:
        """The same layers as a model of its own, so that nothing of the caller's is set up for prediction."""
        import keras

        return keras.Model(self._model.inputs, self._model.outputs[0])


def _unflattened(model: Any) -> Any:
    """The model without a Flatten at its end, in a model nested there too; its results are flattened here.

    OpenVINO (2026.4) mistakes the order of a map that is flattened last behind images whose channels were turned round: of
    SqueezeNet's maps the largest differences were as large as the features. The same map as it is agrees to 1e-6.
    """
    import keras

    layer, node, _ = model.outputs[0]._keras_history
    start = layer._inbound_nodes[node].input_tensors[0]
    if isinstance(layer, keras.layers.Flatten):
        return keras.Model(model.inputs[0], start)
    if isinstance(layer, keras.Model):
        inner = _unflattened(layer)
        return model if inner is layer else keras.Model(model.inputs[0], inner(start))
    return model


def _batches(chunks: Iterable[NDArray[np.uint8]], size: int) -> Iterator[NDArray[np.uint8]]:
    """The same images in batches of `size`, the last one smaller."""
    left: list[NDArray[np.uint8]] = []
    held = 0
    for chunk in chunks:
        start = 0
        if held:
            start = min(size - held, len(chunk))
            left.append(chunk[:start])
            held += start
            if held < size:
                continue
            yield np.concatenate(left)
            left, held = [], 0
        while start + size <= len(chunk):
            yield chunk[start : start + size]
            start += size
        if start < len(chunk):
            left, held = [chunk[start:]], len(chunk) - start
    if held:
        yield np.concatenate(left)


def _fastest(graph: Graph, images: NDArray[np.uint8]) -> int:
    """The batch size that runs most images a second, each measured after a first round that does not count.

    The middle one, untried, where an image takes long.
    """
    tiled = np.concatenate([images] * -(-BATCHES[-1] // len(images)))[: BATCHES[-1]]
    least = tiled[: BATCHES[0]]
    for _ in graph.stream([least] * 2):
        pass
    started = time.perf_counter()
    done = sum(len(found) for found in graph.stream([least] * 2))
    if time.perf_counter() - started > HEAVY * done:
        return BATCHES[len(BATCHES) // 2]
    rates = {}
    for size in BATCHES:
        batch, done = tiled[:size], 0
        for _ in graph.stream([batch] * 4):
            pass
        started = time.perf_counter()
        while (spent := time.perf_counter() - started) < MEASURE_SECONDS:
            done += sum(len(found) for found in graph.stream([batch] * 8))
        rates[size] = done / spent
    return max(rates, key=lambda size: rates[size])


_Mark = tuple[int, int]
"""Tells one graph from another in its place."""


def _mark(path: Path) -> _Mark | None:
    """Of the graph at `path`, None where none is."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _replace(made: Path, home: Path, refused: _Mark | None) -> None:
    """Put a finished graph in its place, unless another process was faster: its graph stays. The refused one goes.

    Raises:
        FeatureError: The folder cannot be written.
    """
    if (found := _mark(home / "model.xml")) is not None and found != refused:
        return
    try:
        if home.exists():
            home.rename(made.with_name("refused"))
        made.rename(home)
    except OSError as error:
        if not (home / "model.xml").exists():
            raise unwritable(home, error) from error
