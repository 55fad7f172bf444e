"""What differs between operating systems."""

from __future__ import annotations

import ctypes
import importlib.metadata
import logging
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def peak_memory_mb() -> float | None:
    """Largest resident memory of this process so far, in MiB (2**20 bytes); None where the system does not tell.

    On Linux from ``VmHWM`` of proc(5): the figure of getrusage(2) outlives exec, so it starts at what the calling program used.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


_CONTAINERS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Of control groups, version 2 and 1: the limit, what is taken, and how much of that are files which the system can let go."""


def available_memory_mb() -> float | None:
    """Memory that a process may still take without swapping, in MiB; None where the system does not tell.

    Linux: the least of what the machine has (proc(5)) and what a container leaves.
    """
    found = []
    with suppress(OSError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) / 2**10 for line in lines if line.startswith("MemAvailable:")]
    for folder, limit, taken, files in _CONTAINERS:
        with suppress(OSError, ValueError, KeyError):  # none, or "max"
            here = Path(folder)
            kept = dict(line.split() for line in (here / "memory.stat").read_text().splitlines())
            free = int((here / limit).read_text()) - int((here / taken).read_text()) + int(kept[files])
            found.append(max(0, free) / 2**20)
    return min(found, default=None)


def usable_processors(most: int) -> int:
    """The number of processors that this process may use, at most `most`."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, most))


def keras_backend() -> str:
    """The Keras backend that is, or would be, loaded; asked without loading it."""
    keras = sys.modules.get("keras")
    if keras is not None:
        return str(keras.backend.backend())
    return os.environ.get("KERAS_BACKEND", "tensorflow")


def library_versions() -> dict[str, str]:
    """The versions that decide the bits of a training: of what decodes images and of what computes."""
    backend = keras_backend()
    distributions = ("pillow", "numpy", "keras", *(("tensorflow", "tensorflow-cpu") if backend == "tensorflow" else (backend,)))
    versions = {"backend": backend}
    for name in distributions:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    if backend == "tensorflow":
        versions["onednn"] = os.environ.get(_ONEDNN, "as TensorFlow has it")
    return versions


_CHATTER = ("absl::InitializeLog", "oneDNN custom operations are on", "cpu_feature_guard", "To enable the following instructions")


@contextmanager
def without_chatter() -> Iterator[None]:
    """Keep TensorFlow's start-up notices off the standard error stream; no setting of its own does. All else is passed on."""
    try:
        stream = sys.__stderr__.fileno() if sys.__stderr__ is not None else None
    except (OSError, ValueError):
        stream = None
    if stream is None:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(stream)
    with tempfile.TemporaryFile() as told:
        os.dup2(told.fileno(), stream)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, stream)
            os.close(kept)
            told.seek(0)
            for line in told.read().decode(errors="replace").splitlines():
                if not any(word in line for word in _CHATTER):
                    print(line, file=sys.stderr)


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # parameters of mallopt(3)


def keep_freed_memory() -> bool:
    """Keep what is freed in this process for what is allocated next. Whether it took effect: it does with the GNU C library.

    TensorFlow frees the maps of each training step and takes them again in the next one; each time the system hands out the same
    pages, cleared. Training MobileNet at 96 px in batches of 32 took 24 s of processor time for 960 images so, against 29 to 32 s.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    largest = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**28, _MMAP_THRESHOLD: 2**25}  # the last is the most it takes
    return all([mallopt(key, value) for key, value in largest.items()])  # noqa: C419 (all are set, whatever one says)


_ONEDNN = "TF_ENABLE_ONEDNN_OPTS"


def use_onednn() -> None:
    """Let TensorFlow, where it is not loaded yet, train with oneDNN on every x86 processor; a setting of the user's own stays.

    By itself it does so only on processors with the instructions of neural networks (AVX512_VNNI and later). Without them its usual
    kernels took 1.1 to 2.4 times as long for a training step (`python -m benchmarks onednn`).
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault(_ONEDNN, "1")


def load_keras() -> None:
    """Load Keras and its backend, quietly."""
    if "keras" in sys.modules:
        return
    keep_freed_memory()
    use_onednn()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # from warnings up; what the user set stays
    with without_chatter():
        import keras

        keras.ops.ones(1)  # TensorFlow speaks again at the first operation
    # Of functions that are traced anew for each network, which is what several networks in one process are.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def has_gpu() -> bool:
    """Whether Keras computes on a GPU."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    if keras.backend.backend() == "jax":
        import jax

        return str(jax.default_backend()) != "cpu"
    return False


@contextmanager
def full_float32() -> Iterator[None]:
    """Inside, products of float32 are such on a GPU too, where they are by default rounded to 10 bits (TF32)."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        with jax.default_matmul_precision("highest"):
            yield
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        before = tf.config.experimental.tensor_float_32_execution_enabled()
        tf.config.experimental.enable_tensor_float_32_execution(False)
        try:
            yield
        finally:
            tf.config.experimental.enable_tensor_float_32_execution(before)
    else:
        yield
