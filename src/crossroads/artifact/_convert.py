"""``python -m crossroads.artifact._convert model.keras model.xml``: the export, in a process whose Keras runs on TensorFlow."""

from __future__ import annotations

import sys


def main(saved: str, graph: str) -> None:
    """Writes `graph` and its ``.bin`` from the Keras file `saved`, which is loaded in safe mode."""
    from crossroads.inference import runtime

    runtime()
    import keras

    keras.saving.load_model(saved, compile=False, safe_mode=True).export(graph, format="openvino", verbose=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
