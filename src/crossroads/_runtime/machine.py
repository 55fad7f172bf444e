"""Reports facts about the machine: memory, processors, GPUs and temporary folders."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def peak_memory_mb() -> float | None:
    """Returns the peak resident memory of this process in MiB (2**20 bytes); None if the system does not report it.

    On Linux it is read from ``VmHWM`` of proc(5), because the figure of getrusage(2) outlives exec and includes the calling
    program.
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
"""Control groups, versions 2 and 1. Each has a folder and the names of its figures: the limit, the memory in use, and the part of
it that is reclaimable file cache."""


def available_memory_mb() -> float | None:
    """Returns the memory that a process may still use without swapping, in MiB; None if the system does not report it.

    On Linux it is the smaller of the memory that the machine has available (proc(5)) and that the limit of a container leaves.
    """
    available = []
    with suppress(OSError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        available += [int(line.split()[1]) / 2**10 for line in lines if line.startswith("MemAvailable:")]
    for folder, limit, used, cached in _CONTAINERS:
        with suppress(OSError, ValueError, KeyError):  # no control group, or "max" for no limit
            here = Path(folder)
            statistics = dict(line.split() for line in (here / "memory.stat").read_text().splitlines())
            free = int((here / limit).read_text()) - int((here / used).read_text()) + int(statistics[cached])
            available.append(max(0, free) / 2**20)
    return min(available, default=None)


def total_memory_mb() -> float | None:
    """Returns the memory of this machine or, if smaller, the limit of its container, in MiB; None if it is unknown."""
    total = []
    with suppress(OSError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        total += [int(line.split()[1]) / 2**10 for line in lines if line.startswith("MemTotal:")]
    if not total and hasattr(os, "sysconf"):
        with suppress(OSError, ValueError):
            total.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20)
    for folder, limit, _, _ in _CONTAINERS:
        with suppress(OSError, ValueError):  # no control group, or "max" for no limit
            total.append(int((Path(folder) / limit).read_text()) / 2**20)
    return min(total, default=None)


def resident_memory_mb() -> float:
    """Returns the memory that this process uses now, in MiB; 0 if the system does not report it."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 2**10
    return 0.0


class TemporaryFolder:
    """A folder that is removed with this object or at exit. `tempfile.TemporaryDirectory` would issue a warning then.

    Attributes:
        path: The folder.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="crossroads-"))
        # On Windows the file of a graph stays open while a predictor lives.
        self._remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def keep(self) -> None:
        """Keeps the folder."""
        self._remove.detach()


def usable_processors(most: int) -> int:
    """Returns the number of processors that this process may use, at most `most`."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, most))


_ACCELERATORS = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd", "/dev/accel0")
"""Device files of GPUs and TPUs on Linux: NVIDIA's, Windows' (in WSL), AMD's and Google's."""


def crowding() -> float:
    """Returns how many times longer work takes because processes outnumber the cores: the load per core, at least 1.

    It is 1 where the system does not report the load.
    """
    if not hasattr(os, "getloadavg"):
        return 1.0
    return max(1.0, os.getloadavg()[0] / usable_processors(sys.maxsize))


def has_gpu() -> bool:
    """Returns whether Keras computes on a GPU. Keras is not loaded on a machine that shows no sign of one."""
    if "keras" not in sys.modules and sys.platform == "linux" and not any(map(os.path.exists, _ACCELERATORS)):
        return False
    if importlib.util.find_spec("keras") is None:
        return False
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
    """Makes a GPU multiply float32 in full precision inside the context. By default it rounds to 10 bits (TF32)."""
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
