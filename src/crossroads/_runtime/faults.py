"""Which exceptions are failures of a backend or of the machine, and which are bugs in this package and must surface."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = str(Path(__file__).parents[1]) + os.sep
"""What the path of every file of this package starts with."""

_BACKENDS = ("jax", "jaxlib", "keras", "nncf", "openvino", "tensorflow", "torch")
"""Packages that define exceptions of their own, such as `tensorflow.errors.OpError`, a subclass of Exception alone."""

_BUGS = (RecursionError, NotImplementedError)
"""Kinds of RuntimeError that only wrong code raises."""


def is_failure(error: BaseException) -> bool:
    """Whether a backend or the machine failed, so that the work can go on without what failed.

    Failures are a lack of memory, errors of the operating system, and errors that a backend raises: its own kinds, RuntimeError,
    and the ValueError of a graph that cannot be built. Anything else, such as a TypeError or a KeyError, is a bug in this package.
    So are RecursionError and NotImplementedError, although both are kinds of RuntimeError, and a ValueError that this package
    raises. OpenVINO's converter is an exception: it is written in Python and raises exceptions of all kinds.
    """
    of_machine = isinstance(error, MemoryError | OSError | RuntimeError) and not isinstance(error, _BUGS)
    if of_machine or _root(type(error).__module__) in _BACKENDS:
        return True
    file, module = _raised_in(error)
    return (isinstance(error, ValueError) and not file.startswith(PACKAGE)) or _root(module) == "openvino"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means out of memory; each backend reports it differently."""
    of_backend = isinstance(error, RuntimeError) or _root(type(error).__module__) in _BACKENDS
    named = f"{type(error).__name__} {error}"  # ResourceExhaustedError of TensorFlow, RESOURCE_EXHAUSTED of JAX
    return isinstance(error, MemoryError) or (of_backend and ("ResourceExhausted" in named or "RESOURCE_EXHAUSTED" in named))


def _root(module: str) -> str:
    return module.partition(".")[0]


def _raised_in(error: BaseException) -> tuple[str, str]:
    """The file and the module in which an exception was raised."""
    trace = error.__traceback__
    if trace is None:
        return "", ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename, str(trace.tb_frame.f_globals.get("__name__", ""))
