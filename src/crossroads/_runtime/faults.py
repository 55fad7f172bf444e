"""Distinguishes failures of a backend or the machine from bugs in this package, which must be reported."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = str(Path(__file__).parents[1]) + os.sep
"""The prefix of the path of every file in this package."""

_BACKENDS = ("jax", "jaxlib", "keras", "nncf", "openvino", "tensorflow", "torch")
"""Packages with exceptions of their own, such as `tensorflow.errors.OpError`, which derives directly from Exception."""

_BUGS = (RecursionError, NotImplementedError)
"""Subclasses of RuntimeError that only a bug raises."""


def is_failure(error: BaseException) -> bool:
    """Returns whether a backend or the machine failed, so that the program can continue without the failed step.

    Failures are a lack of memory, errors of the operating system, and errors that a backend raises: its own classes, RuntimeError,
    and the ValueError of a graph that cannot be built. Anything else, such as a TypeError or a KeyError, is a bug in this package.
    So are RecursionError and NotImplementedError, although both derive from RuntimeError, and a ValueError that this package
    raises. Every exception of OpenVINO's converter counts as a failure, because it is written in Python and raises all kinds.
    """
    of_machine = isinstance(error, MemoryError | OSError | RuntimeError) and not isinstance(error, _BUGS)
    if of_machine or _root(type(error).__module__) in _BACKENDS:
        return True
    file, module = _raised_in(error)
    return (isinstance(error, ValueError) and not file.startswith(PACKAGE)) or _root(module) == "openvino"


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error means that memory ran out. Each backend reports this in a different way."""
    of_backend = isinstance(error, RuntimeError) or _root(type(error).__module__) in _BACKENDS
    named = f"{type(error).__name__} {error}"  # ResourceExhaustedError of TensorFlow, RESOURCE_EXHAUSTED of JAX
    return isinstance(error, MemoryError) or (of_backend and ("ResourceExhausted" in named or "RESOURCE_EXHAUSTED" in named))


def _root(module: str) -> str:
    return module.partition(".")[0]


def _raised_in(error: BaseException) -> tuple[str, str]:
    """Returns the file and the module in which an exception was raised."""
    trace = error.__traceback__
    if trace is None:
        return "", ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename, str(trace.tb_frame.f_globals.get("__name__", ""))
