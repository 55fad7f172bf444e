"""What differs between operating systems."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import weakref
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


class TemporaryFolder:
    """A folder that goes when nothing refers to this object any more, or at exit. `tempfile.TemporaryDirectory` warns of that.

    Attributes:
        path: Where it lies.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="crossroads-"))
        # On Windows the file of a graph stays open while a predictor lives.
        self._goes = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def keep(self) -> None:
        """Leave the folder where it is."""
        self._goes.detach()


def usable_processors(most: int) -> int:
    """The number of processors that this process may use, at most `most`."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, most))


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
