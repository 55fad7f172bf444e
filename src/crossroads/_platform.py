"""What differs between operating systems."""

from __future__ import annotations

import os
import sys


def peak_memory_mb() -> float | None:
    """Largest resident memory of this process so far, in MiB (2**20 bytes); None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def keras_backend() -> str:
    """The Keras backend that is, or would be, loaded; asked without loading it."""
    keras = sys.modules.get("keras")
    if keras is not None:
        return str(keras.backend.backend())
    return os.environ.get("KERAS_BACKEND", "tensorflow")
