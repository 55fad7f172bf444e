"""Changes settings of the whole process for the time of a run, and restores them.

`process_settings` makes these changes:

- Warnings of libraries that the caller turned into errors are shown instead, because such an error could end a run of hours.
  Filters for `CrossroadsWarning` stay as they are.
- Environment variables set TensorFlow's log level and its oneDNN kernels, unless the user has set them. ``TF_USE_LEGACY_KERAS`` is
  removed if the old Keras is not installed.
- The logger ``tensorflow`` reports errors only.
- The C library keeps freed memory for later allocations.

When the outermost call returns or raises, all of this is restored, together with the variables and warning filters that libraries
added when they were imported. Three shorter changes are restored where they are made: file descriptor 2 in `without_chatter`,
``openvino_telemetry`` of `sys.modules` in `crossroads.inference`, and `exec` of an OpenVINO module in `crossroads.networks.export`.

What cannot be restored:

- TensorFlow reads its variables once, when it is loaded.
- Random numbers of TensorFlow and Keras continue from the seed of the run. Those of Python and NumPy are restored.
- The C library does not report its settings, so they cannot be put back. Instead it gets the settings that it reaches by itself in
  a process that uses large arrays.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import logging
import mmap
import os
import platform
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any

from crossroads.errors import CrossroadsWarning

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_LEGACY = "TF_USE_LEGACY_KERAS"
_LIBRARY_PREFIXES = ("TF", "TPU_", "KMP_", "KERAS_", "HDF5_", "ENABLE_RUNTIME_UPTIME_TELEMETRY", "JAX_", "XLA_")
"""Prefixes of the variables that Keras and the libraries below it set when they are imported. All others belong to the caller."""


@contextmanager
def process_settings() -> Iterator[None]:
    """Changes the settings of the process inside the context. Contexts may overlap; the last one to end restores the settings."""
    with _filters.held(), _settings.held():
        yield


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Shows warnings of libraries that filters would turn into errors. Without such filters it changes nothing."""
    if not _filters.holders and not any(action == "error" for action, *_ in warnings.filters):
        yield
        return
    with _filters.held():
        yield


class _Shared:
    """A change of the process that several threads can share. The first thread makes it, and the last one undoes it."""

    def __init__(self, change: Callable[[], AbstractContextManager[None]]) -> None:
        self._change, self._made = change, ExitStack()
        self._lock = threading.Lock()
        self.holders = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:
            if self.holders == 0:
                self._made.enter_context(self._change())
            self.holders += 1
        try:
            yield
        finally:
            with self._lock:
                self.holders -= 1
                if self.holders == 0:
                    self._made.close()


@contextmanager
def _errors_as_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filters[:] = [soft for kept in warnings.filters for soft in _replacement_filters(*kept)]  # type: ignore[index]
        yield


def _replacement_filters(action: str, message: object, category: Any, *place: object) -> list[tuple[object, ...]]:
    """Returns the filters that replace one filter. An error stays an error for `CrossroadsWarning` only."""
    if action != "error":
        return [(action, message, category, *place)]
    ours = [("error", message, CrossroadsWarning, *place)] if issubclass(CrossroadsWarning, category) else []
    return [*ours, ("default", message, category, *place)]


@contextmanager
def _all_settings() -> Iterator[None]:
    with _environment(), _logger(), _memory():
        yield


_filters, _settings = _Shared(_errors_as_warnings), _Shared(_all_settings)


_loaded_here = False
"""Whether TensorFlow was loaded inside `process_settings`."""


@contextmanager
def _environment() -> Iterator[None]:
    global _loaded_here
    before = {name: value for name, value in os.environ.items() if name.startswith(_LIBRARY_PREFIXES)}
    absent = "tensorflow" not in sys.modules
    if absent or _loaded_here:  # otherwise the caller loaded TensorFlow, and the variables describe how
        use_onednn()
        os.environ.setdefault(_LOG_LEVEL, "2")  # from warnings up; what the user set stays
    if _LEGACY in os.environ and importlib.util.find_spec("tf_keras") is None:
        del os.environ[_LEGACY]  # OpenVINO's converter accesses `tf.keras`, which would then fail
    try:
        yield
    finally:
        _loaded_here = _loaded_here or (absent and "tensorflow" in sys.modules)
        for name in [name for name in os.environ if name.startswith(_LIBRARY_PREFIXES) and name not in before]:
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _logger() -> Iterator[None]:
    # TensorFlow warns when a function is traced again, which every new network in the process causes.
    logger = logging.getLogger("tensorflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _memory() -> Iterator[None]:
    before = _kept
    keep_freed_memory()
    try:
        yield
    finally:
        if not before:
            _release_freed_memory()


def use_onednn() -> None:
    """Makes TensorFlow train with oneDNN on every x86 processor, if it is not loaded yet and the user has not decided otherwise.

    By default it does so only on processors with AVX512_VNNI. On other processors a training step took 1.1 to 2.4 times as long
    with TensorFlow's own kernels (`python -m benchmarks onednn`).
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault(ONEDNN, "1")


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # parameters of mallopt(3)
_MOST_MMAP_THRESHOLD = 2**25  # the largest that the C library accepts, and where its adaptation ends
_kept = False


def keep_freed_memory() -> bool:
    """Keeps freed memory for reuse. Returns whether this took effect, which needs the GNU C library.

    TensorFlow frees its activations after each training step and allocates them again in the next one. By default, the system
    takes the pages back and clears them each time. Training MobileNet on 960 images (96 px, batches of 32) took 24 s of CPU time
    with this setting and 29 to 32 s without.
    """
    global _kept
    _kept = _mallopt({_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**28, _MMAP_THRESHOLD: _MOST_MMAP_THRESHOLD})
    return _kept


def release_memory() -> None:
    """Frees what is in reference cycles, such as Keras models, and returns freed memory to the system where the C library can.

    It is called between the stages of a run, because the next stage may need memory of another kind: after the first answer on
    1,000 photographs of 224 px, the process shrinks from 560 to 230 MB.
    """
    gc.collect()
    _trim()


def release_pages(array: object) -> None:
    """Removes the pages of a memory-mapped array from this process. Its values stay in the file. Another array is left alone."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        with suppress(OSError, ValueError):
            mapped.madvise(mmap.MADV_DONTNEED)


def _trim() -> None:
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def _release_freed_memory() -> None:
    global _kept
    # Setting a threshold ends its adaptation, so each gets the value at which adaptation ends: mallopt(3), M_MMAP_THRESHOLD.
    _mallopt({_TRIM_THRESHOLD: 2 * _MOST_MMAP_THRESHOLD, _TOP_PAD: 2**17, _MMAP_THRESHOLD: _MOST_MMAP_THRESHOLD})
    if _kept:
        _trim()
    _kept = False


def _mallopt(values: dict[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all([mallopt(key, value) for key, value in values.items()])  # noqa: C419 - sets all, whatever one returns


_CHATTER = ("absl::InitializeLog", "oneDNN custom operations are on", "cpu_feature_guard", "To enable the following instructions")


@contextmanager
def without_chatter() -> Iterator[None]:
    """Filters TensorFlow's start-up notices from the standard error stream. TensorFlow has no setting for that.

    File descriptor 2 points to a temporary file in the meantime.
    """
    with ExitStack() as undo:
        with suppress(OSError, ValueError, AttributeError):  # no such stream, or no space for a temporary file
            _divert(undo)
        yield


def _divert(undo: ExitStack) -> None:
    stream = sys.__stderr__.fileno()  # type: ignore[union-attr]
    captured = undo.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    sys.__stderr__.flush()  # type: ignore[union-attr]
    original = os.dup(stream)
    os.dup2(captured.fileno(), stream)

    def put_back() -> None:
        sys.__stderr__.flush()  # type: ignore[union-attr]
        os.dup2(original, stream)
        os.close(original)
        captured.seek(0)
        for line in captured.read().decode(errors="replace").splitlines():
            if not any(word in line for word in _CHATTER):
                print(line, file=sys.stderr)

    undo.callback(put_back)
