"""Runs an exported file with the runtime that it is made for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import missing_extra
from crossroads.inference import Graph, read_model

BATCH = 16
"""Images that are computed at a time."""

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""From images, uint8 (n, size, size, 3), to probabilities, float32 (n, k)."""


def open_openvino(path: Path) -> Run:
    """Opens an ``.xml`` file with OpenVINO."""
    return Graph.of(read_model(path))


def open_onnx(path: Path) -> Run:
    """Opens an ``.onnx`` file with ONNX Runtime."""
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_extra("checking an ONNX file", "onnxruntime", "export") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return _in_batches(lambda batch: session.run(None, {session.get_inputs()[0].name: batch})[0])


def open_litert(path: Path) -> Run:
    """Opens a ``.tflite`` file with LiteRT, which computes one image at a time."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise missing_extra("checking a LiteRT file", "ai-edge-litert", "export") from error
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    given, found = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        results = []
        for image in images:
            interpreter.set_tensor(given, image[None])
            interpreter.invoke()
            results.append(interpreter.get_tensor(found))
        return np.concatenate(results)

    return run


def open_keras(path: Path) -> Run:
    """Opens a ``.keras`` file with Keras in safe mode."""
    import keras

    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    return _in_batches(model.predict_on_batch)


def open_saved_model(path: Path) -> Run:
    """Opens a SavedModel with TensorFlow."""
    import tensorflow

    loaded = tensorflow.saved_model.load(str(path))
    return _in_batches(lambda batch: loaded.serve(batch).numpy())


def _in_batches(run: Callable[[NDArray[np.uint8]], Any]) -> Run:
    return lambda images: np.concatenate(
        [np.asarray(run(images[start : start + BATCH]), np.float32) for start in range(0, len(images), BATCH)]
    )
