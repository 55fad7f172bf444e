"""The fast forward pass of a frozen part: an OpenVINO graph on a CPU, verified against Keras; Keras itself on a GPU."""

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
from crossroads.progress import Note

LOGGER = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Largest difference between graph and Keras on the first images, relative to the largest feature."""

BATCHES = (8, 16, 32)
"""Batch sizes whose speed is measured on the first images. The best depends on network, image size and the processor's caches."""

MEASURE_SECONDS = 0.15
"""Minimum time for which each batch size is measured."""

SLOW_SECONDS = 2e-3
"""If an image takes longer than this many seconds, batch sizes are not measured, since measuring runs 672 images and gains little
for a slow network. On 2 cores AlexNet at 227 px takes 9.2, 8.7 and 8.6 ms of CPU time per image in batches of 8, 16 and 32, and
ResNet50 at 224 px takes 34 to 35 ms in each."""

GPU_BATCH = 128
"""Batch size of Keras on a GPU."""

VERIFIED_IMAGES = 8
"""Images on which the graph is compared with Keras."""


class Engine:
    """Runs a frozen model on images.

    The graph is made, verified and measured when the first images arrive.

    Args:
        model: A Keras model, uint8 (n, size, size, 3) in, float32 (n, ...) out.
        graphs: Folder that caches graphs, by the digest of what they compute; None for no cache.

    Attributes:
        runs_on: ``openvino`` or ``keras``; "" before the first images.
        batch_size: 0 before the first images.
        note: A note for the user, such as that the graph differs and Keras runs instead; None if there is nothing to report.
    """

    def __init__(
        self,
        model: Any,
        *,
        graphs: Path | None = None,
    ) -> None:
        self._model, self._graphs = model, graphs
        self._graph: Graph | None = None
        self._folder: TemporaryFolder | None = None
        self.runs_on = ""
        self.batch_size = 0
        self.note: Note | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the features of one image."""
        return tuple(self._model.output_shape[1:])

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
        if self._graph is not None:
            yield from (features.reshape(len(features), *self.shape) for features in self._graph.stream(batches))
        else:
            yield from (self._by_keras(batch, self.batch_size) for batch in batches)

    def _prepare(self, images: NDArray[np.uint8]) -> None:
        """Chooses what runs the model, and its batch size."""
        self.runs_on, self.batch_size = "keras", BATCHES[-1]
        if has_gpu():
            self.batch_size = GPU_BATCH
            return
        try:
            graph = self._verified(images[:VERIFIED_IMAGES])
        except Exception as error:
            # Keras can run a model that cannot be converted.
            if not (isinstance(error, CrossroadsError) or is_failure(error)):
                raise
            LOGGER.exception("no inference graph could be made")
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
            text = f"Keras runs the frozen part, more slowly: it could not be converted to an inference graph: {reason}"
            self.note = Note(text, "inference-graph-failed", reason=reason)
            return
        if graph is not None:
            self.runs_on, self._graph = "openvino", graph
            self.batch_size = _fastest(graph, images)

    def _verified(self, images: NDArray[np.uint8]) -> Graph | None:
        """Returns the graph if it agrees with Keras. A cached graph that is unreadable or differs is replaced."""
        expected = self._by_keras(images)
        worst, refused = 0.0, None
        for fresh in (False, True) if self._cached_path is not None and self._cached_path.exists() else (True,):
            if not fresh and self._cached_path is not None:
                refused = _file_identity(self._cached_path)
            try:
                graph = self._open(fresh=fresh, refused=refused)
                features = graph(images).reshape(expected.shape)
            except (ArtifactError, RuntimeError, ValueError, OSError):  # ValueError: results of another shape
                if fresh:
                    raise
                LOGGER.warning("a cached inference graph cannot be used and is replaced", exc_info=True)
                continue
            worst = float(np.abs(features - expected).max() / max(float(np.abs(expected).max()), 1e-30))
            if worst <= TOLERANCE:
                return graph
        text = (
            f"Keras runs the frozen part, more slowly: the inference graph's features differ by {worst:.2g} of the largest; "
            f"the tolerance is {TOLERANCE:g}"
        )
        self.note = Note(text, "inference-graph-differs", difference=worst, tolerance=TOLERANCE)
        return None

    @cached_property
    def _cached_path(self) -> Path | None:
        """The path of the graph in the cache, whether or not it exists; None without a cache."""
        if self._graphs is None:
            return None
        return self._graphs / function_digest(self._model) / "model.xml"

    def _open(self, *, fresh: bool, refused: _FileIdentity | None) -> Graph:
        """Opens the graph; a `fresh` one is made first, and replaces the cached graph `refused`."""
        path = self._cached_path
        if path is None:
            self._folder = TemporaryFolder()
            path = self._folder.path / "model.xml"
            self._make(path)
            return Graph(path)
        if fresh:
            self._make_in_cache(path.parent, refused)
        with contextlib.suppress(OSError):  # the cache may be read-only
            os.utime(path.parent)  # marks it as used
        return Graph(path)

    def _make_in_cache(self, home: Path, refused: _FileIdentity | None) -> None:
        """Makes the graph in the folder `home`, atomically."""
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
        """Returns the features of images. Pads the batch to `size` images, since JAX compiles again for each batch size."""
        missing = max(0, size - len(images))
        padded = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)]) if missing else images
        with full_float32():  # as in the artifact's graph
            return np.asarray(self._compiled.predict_on_batch(padded), np.float32)[: len(images)]

    @cached_property
    def _compiled(self) -> Any:
        """A model of the same layers, so that the caller's model is not compiled for prediction."""
        import keras

        return keras.Model(self._model.inputs, self._model.outputs[0])


def _unflattened(model: Any) -> Any:
    """Returns the model without a Flatten layer at its end, also inside a nested model; the engine flattens its results.

    OpenVINO (2026.4) confuses the order of a map that is flattened last if the channels of the images were reversed: for SqueezeNet
    the differences were as large as the features. The map itself agrees to 1e-6.
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

    A slow network gets the middle one without measuring.
    """
    tiled = np.concatenate([images] * -(-BATCHES[-1] // len(images)))[: BATCHES[-1]]
    smallest = tiled[: BATCHES[0]]
    for _ in graph.stream([smallest] * 2):
        pass
    started = time.perf_counter()
    done = sum(len(features) for features in graph.stream([smallest] * 2))
    if time.perf_counter() - started > SLOW_SECONDS * done:
        return BATCHES[len(BATCHES) // 2]
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


_FileIdentity = tuple[int, int]
"""Inode and modification time."""


def _file_identity(path: Path) -> _FileIdentity | None:
    """Distinguishes the file at `path` from one that replaces it; None if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _replace(made: Path, home: Path, refused: _FileIdentity | None) -> None:
    """Moves a finished graph to `home`, replacing the graph `refused`. A graph that another process put there meanwhile stays.

    Raises:
        FeatureError: The folder cannot be written.
    """
    if (present := _file_identity(home / "model.xml")) is not None and present != refused:
        return
    try:
        if home.exists():
            home.rename(made.with_name("refused"))
        made.rename(home)
    except OSError as error:
        if not (home / "model.xml").exists():
            raise unwritable(home, error) from error
