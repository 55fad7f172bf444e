"""Runs graphs with OpenVINO: in float32, in batches, and without telemetry. No other module does so."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import ArtifactError

BATCH = 32
"""Largest number of images per request.

On 2 cores, a three-layer CNN at 32 px runs 10,400 images/s with batches of 32, 9,400 with 16, 6,600 with 64 and 4,800 with 128. The
activations of a larger batch do not fit in the processor's cache.
"""

BATCH_PIXELS = 5 * 224 * 224
"""Largest number of pixels per request, which limits the batches of large images.

The activations of EfficientNet-Lite0 at 224 px take 18 MB per image and request. The process takes 315 MB with batches of 8 and 758
MB with batches of 32, which are no faster.
"""

_TELEMETRY = "openvino_telemetry"
_importing = threading.Lock()
_compiling = threading.Lock()
"""Held while a graph is read or compiled. When several threads compiled different graphs at once, one process in 700 crashed with a
segmentation fault (OpenVINO 2026.4)."""


def runtime() -> Any:
    """Returns the module `openvino`. Always import it through this function.

    `import openvino` sends a report to an analytics server and writes an identifier to the user's home. If the package
    `openvino_telemetry` cannot be imported, it uses a stub instead. That package is therefore hidden during this import only.
    """
    return without_telemetry("openvino")


def without_telemetry(name: str) -> Any:
    """Imports the module `name` of OpenVINO or one of its tools without telemetry. Threads may call this at the same time."""
    with _importing:
        if name in sys.modules or _TELEMETRY in sys.modules:
            module = importlib.import_module(name)
        else:
            sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
            try:
                module = importlib.import_module(name)
            finally:
                del sys.modules[_TELEMETRY]
        _fill_type_tables()
        return module


def operations() -> Any:
    """Returns the module of the operations that graphs are built from."""
    return without_telemetry("openvino.opset13")


def read_model(path: Path) -> Any:
    """Returns the OpenVINO model of a file, while no other graph is read or compiled. Raises `RuntimeError` if it has none.

    The weights are copied. OpenVINO would otherwise map the file into memory, and overwriting the file would change the model.
    """
    with _compiling:
        core = runtime().Core()
        core.set_property({"ENABLE_MMAP": False})
        return core.read_model(str(path))


def evaluate(model: Any, images: NDArray[Any], batch: int | None = None) -> list[NDArray[Any]]:
    """Returns every output of an OpenVINO model, computed once in float32.

    Args:
        model: The model. It has one input.
        images: Values of the input, (n, ...).
        batch: Number of rows to compute at a time; None for all.
    """
    with _compiling:
        compiled = runtime().Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request, results = compiled.create_infer_request(), []
    for start in range(0, len(images), batch or len(images)):
        request.infer({0: np.ascontiguousarray(images[start : start + (batch or len(images))])})
        results.append([np.array(request.get_output_tensor(number).data) for number in range(len(model.outputs))])
    return [np.concatenate(parts) if len(parts) > 1 else parts[0] for parts in zip(*results, strict=True)]


@cache
def _fill_type_tables() -> None:
    """Makes OpenVINO's Python module fill its two tables of element types while no other thread can use them.

    Otherwise they can deadlock (OpenVINO 2026.4). Each table is a static variable of a C++ function, filled by the first call under
    the compiler's guard. While it fills a table, pybind11 looks up NumPy's C interface and releases Python's lock (the GIL) for
    a moment. A second thread then takes the GIL, calls the same function and waits at the guard without releasing the GIL, while
    the first one waits for the GIL. No Python code runs again in that process. `Tensor.data`, which every request reads and writes,
    uses one table; `Tensor(array)` uses the other. With 24 threads this happened in 8 of 60 process starts
    (`python -m benchmarks threads`).
    """
    tensor = importlib.import_module("openvino").Tensor(np.zeros(1, np.uint8))
    _ = tensor.data


def stored_model(path: Path) -> Any:
    """Returns the OpenVINO model of a file that Crossroads wrote. Raises `ArtifactError` if OpenVINO cannot read it."""
    try:
        return read_model(path)
    except RuntimeError as error:
        raise ArtifactError(
            f"{path} must be an OpenVINO graph", code="not-a-graph", received=_last_line(error), hint="write the artifact again"
        ) from error


class Graph:
    """A graph from uint8 images (n, size, size, 3) to float32 results (n, ...), such as probabilities (n, k), any n.

    It is compiled twice, each on first use: for few images with all threads on one request, and for many with parallel requests.
    Threads may share it, since no request serves two calls at a time. A forked process compiles it again. A pickle holds the
    absolute path.

    Args:
        path: The ``.xml`` file; its ``.bin`` is beside it.
        threads: CPU threads to use, None for all.

    Raises:
        ArtifactError: OpenVINO cannot read the file.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self._begin(stored_model(path), path.absolute(), threads)

    @classmethod
    def of(cls, model: Any) -> Graph:
        """Returns the graph of an OpenVINO model in memory. It cannot be pickled."""
        graph = cls.__new__(cls)
        graph._begin(model, None, None)
        return graph

    def _begin(self, model: Any, path: Path | None, threads: int | None) -> None:
        self._model, self._path, self.threads = model, path, threads
        self._idle_for_few: list[Any] = []
        self._idle_for_many: list[Any] = []
        count = model.inputs[0].get_partial_shape()[0]
        self._fixed = count.get_length() if count.is_static else None  # the only batch size of the graph, if it is fixed
        _graphs.add(self)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._path is None:
            raise TypeError("a graph in memory cannot be pickled")
        return partial(Graph, threads=self.threads), (self._path,)

    def _drop_compiled(self) -> None:
        """Drops the compiled graphs in a forked process: they need the threads of the parent.

        They are never freed, not even at exit. Freeing them would wait for those threads, or end in a segmentation fault.
        """
        compiled = [self.__dict__.pop(name, None) for name in ("_for_few", "_for_many")]
        ctypes.pythonapi.Py_IncRef(ctypes.py_object((compiled, self._idle_for_few, self._idle_for_many)))
        self._idle_for_few, self._idle_for_many = [], []

    @property
    def model(self) -> Any:
        """The OpenVINO model. Only clones of it may be changed."""
        return self._model

    @property
    def signature(self) -> tuple[str, str]:
        """Input and output in OpenVINO's notation, such as ``u8[?,32,32,3]`` and ``f32[?,43]``."""
        return _notation(self._model.inputs), _notation(self._model.outputs)

    @property
    def batch(self) -> int:
        """The usual number of images per request; 1 for a graph that takes one image at a time."""
        if self._fixed == 1:
            return 1
        height, width = (self._model.inputs[0].get_partial_shape()[axis] for axis in (1, 2))
        if height.is_dynamic or width.is_dynamic:
            return BATCH
        return max(1, min(BATCH, BATCH_PIXELS // int(height.get_length() * width.get_length())))

    def __call__(self, images: NDArray[np.uint8], *, batch: int | None = None) -> NDArray[np.float32]:
        """Computes the results, float32 (n, ...), of images, uint8 (n, size, size, 3). The batch size affects only the speed."""
        batch = batch or self.batch
        if 0 < len(images) <= batch and self._fixed in (None, len(images)):
            return self._run_few(images)
        return self.run((images[start : start + batch] for start in range(0, len(images), batch)), len(images))

    def beside_others(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Computes the results of one batch on a part of the threads, for callers of which several compute at the same time.

        At most `parallel` calls run at a time, and the others wait.
        """
        parts = [self._infer("_for_many", self._idle_for_many, batch) for batch in self._of_fixed_size([images])]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @property
    def parallel(self) -> int:
        """The number of batches that `beside_others` computes at a time."""
        return int(self._compiled_once("_for_many").get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    def _run_few(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._infer("_for_few", self._idle_for_few, images)

    def _infer(self, name: str, idle: list[Any], images: NDArray[np.uint8]) -> NDArray[np.float32]:
        # Calling the compiled model itself would use one request for all threads, and they would overwrite each other's results.
        compiled = self._compiled_once(name)
        try:
            request = idle.pop()  # atomic, so that no other thread takes the same one
        except IndexError:
            request = compiled.create_infer_request()
        request.infer({0: np.ascontiguousarray(images)})
        result = np.array(request.get_output_tensor(0).data, dtype=np.float32)
        idle.append(request)
        return result

    def run(self, batches: Iterable[NDArray[np.uint8]], most: int) -> NDArray[np.float32]:
        """Computes the results of batches, float32 (n, ...). New batches are prepared while earlier ones are computed.

        Args:
            batches: uint8 (b, size, size, 3) each.
            most: An upper limit of the number of images.
        """
        out = np.empty((most, *self.shape), np.float32)
        done = 0
        for values in self.stream(batches):
            out[done : done + len(values)] = values
            done += len(values)
        return out[:done]

    def stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yields the results, float32 (b, ...), in order. A few batches are in memory at a time.

        Args:
            batches: uint8 (b, size, size, 3) each. New batches are prepared while earlier ones are computed.
        """
        with self.pipeline() as running:
            for images in self._of_fixed_size(batches):
                ready = running.collect() if running.full else None
                running.submit(images)
                if ready is not None:
                    yield ready
            while running:
                yield running.collect()

    def pipeline(self) -> Pipeline:
        """Returns parallel requests of the graph, to which batches can be given one by one."""
        return Pipeline(self._compiled_once("_for_many"), self._requests)

    def _of_fixed_size(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Yields the same images in batches that the graph takes."""
        if self._fixed not in (None, 1):
            raise ArtifactError(
                "an inference graph must take any number of images, or one at a time",
                code="fixed-batch",
                received=f"batches of {self._fixed}",
                hint="write the artifact again",
            )
        for images in batches:
            yield from [images] if self._fixed is None else (image[None] for image in images)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result of one image."""
        return tuple(dimension.get_length() for dimension in list(self._model.outputs[0].get_partial_shape())[1:])

    @property
    def _requests(self) -> int:
        # One more than OpenVINO can run at a time, so that none is idle while the caller takes a result.
        return self.parallel + 1

    def _compiled_once(self, name: str) -> Any:
        """Returns a compiled graph. Waits for other graphs only if it is not compiled yet."""
        if name not in self.__dict__:
            with _compiling:
                return getattr(self, name)
        return self.__dict__[name]

    @cached_property
    def _for_few(self) -> Any:
        return self._compiled("LATENCY")

    @cached_property
    def _for_many(self) -> Any:
        return self._compiled("THROUGHPUT")

    def _compiled(self, hint: str) -> Any:
        return runtime().Core().compile_model(self._model, "CPU", _config(hint, self.threads))


class Pipeline:
    """Computes several batches at the same time. It must be closed as a context manager, and one thread uses it.

    Args:
        compiled: The compiled graph.
        most: Number of batches that are computed at a time.
    """

    # OpenVINO's AsyncInferQueue is not used, since a graph that is dropped right after its last batch hangs (OpenVINO 2026.4):
    # the destructor holds Python's lock and waits for a thread whose callback waits for that lock.

    def __init__(self, compiled: Any, most: int) -> None:
        self.most = most
        self._idle = [compiled.create_infer_request() for _ in range(most)]
        self._running: deque[Any] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for request in self._running:
            request.wait()

    def __len__(self) -> int:
        """Returns the number of batches that are not collected yet."""
        return len(self._running)

    @property
    def full(self) -> bool:
        """Whether results must be collected before another batch can be submitted."""
        return not self._idle

    def submit(self, images: NDArray[np.uint8]) -> None:
        """Begins to compute one batch, uint8 (b, size, size, 3)."""
        request = self._idle.pop()
        request.start_async({0: np.ascontiguousarray(images)})
        self._running.append(request)

    def collect(self) -> NDArray[np.float32]:
        """Waits for the batch that was submitted first, and returns its results, float32 (b, ...)."""
        request = self._running.popleft()
        request.wait()
        values = np.array(request.get_output_tensor(0).data, np.float32)
        self._idle.append(request)
        return values


class Part:
    """A part of a graph, with one input and any number of outputs. It is compiled on first use, and threads may share it.

    Args:
        model: The OpenVINO model.
        threads: CPU threads to use, None for all.
    """

    def __init__(self, model: Any, *, threads: int | None = None) -> None:
        self._model, self._threads = model, threads
        _graphs.add(self)

    def __call__(self, values: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Computes every output, float32 (n, ...), of values (n, ...) of the input."""
        request = self._compiled().create_infer_request()
        request.infer({0: np.ascontiguousarray(values)})
        return [np.array(request.get_output_tensor(number).data, np.float32) for number in range(len(self._model.outputs))]

    def _compiled(self) -> Any:
        if "_once" not in self.__dict__:
            with _compiling:
                return self._once
        return self._once

    @cached_property
    def _once(self) -> Any:
        return runtime().Core().compile_model(self._model, "CPU", _config("LATENCY", self._threads))

    def _drop_compiled(self) -> None:
        """Drops the compiled graph in a forked process without freeing it, as `Graph` does."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object([self.__dict__.pop("_once", None)]))


def _config(hint: str, threads: int | None) -> dict[str, str | int]:
    # By default a CPU with bfloat16 units computes in bfloat16, which changes probabilities in the third digit.
    config: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": hint}
    return config if threads is None else config | {"INFERENCE_NUM_THREADS": threads}


_graphs: weakref.WeakSet[Graph | Part] = weakref.WeakSet()


def _after_fork() -> None:
    """Replaces the locks and drops the compiled graphs in a forked process, which has a single thread."""
    global _importing, _compiling
    _importing, _compiling = threading.Lock(), threading.Lock()
    for graph in list(_graphs):
        graph._drop_compiled()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


def _notation(tensors: Iterable[Any]) -> str:
    return ",".join(f"{tensor.get_element_type().get_type_name()}{tensor.get_partial_shape()}" for tensor in tensors)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
