"""``python -m crossroads.artifact._convert model.keras model.xml``: the export, in a process whose Keras runs on TensorFlow."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def export(model: Any, graph: str) -> None:
    """Writes `graph` and its ``.bin`` from a Keras model on TensorFlow."""
    with _without_exec():
        model.export(graph, format="openvino", verbose=False)


def main(saved: str, graph: str) -> None:
    """Writes `graph` and its ``.bin`` from the Keras file `saved`, which is loaded in safe mode."""
    from crossroads.inference import runtime

    runtime()
    import keras

    export(keras.saving.load_model(saved, compile=False, safe_mode=True), graph)


@contextmanager
def _without_exec() -> Iterator[None]:
    """Lets OpenVINO (2026.4 at least) export on Python 3.13.

    It asks for TensorFlow's version with ``exec("import tensorflow")`` and ``exec("del tensorflow")``. Since PEP 667 the second
    does not see what the first bound, and raises NameError. Neither is needed, TensorFlow being loaded: its `exec` does nothing
    meanwhile.
    """
    asker: Any = importlib.import_module("openvino.frontend.tensorflow.utils")
    asker.exec = lambda _: None
    try:
        yield
    finally:
        del asker.exec


if __name__ == "__main__":
    main(*sys.argv[1:])
