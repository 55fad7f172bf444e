"""Checks before training that a network can become an artifact: exports it with its initial weights."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads.artifact._export import check_model
from crossroads.errors import ArtifactError
from crossroads.inference import runtime
from crossroads.networks.agreement import difference
from crossroads.networks.export import converted, exports_here, gist, structure_digest, to_openvino

REHEARSED = 3
"""Images on which a rehearsal compares the graph with Keras."""

REHEARSAL_TOLERANCE = 1e-3
"""Largest difference of a score in a rehearsal, as a fraction of the largest score."""

_rehearsed: set[str] = set()
"""Digests of structures that passed."""


def rehearse(model: Any, size: int, classes: int) -> None:
    """Makes an inference graph of a model before training, and compares it with Keras.

    A structure that passed in this process is not tried again. Nothing is written to the run.

    Args:
        model: A Keras model with any weights.
        size: Side in pixels of the square images that it must take.
        classes: How many probabilities it must give.

    Raises:
        ArtifactError: `check_model` refuses the model; its saved form does not load in safe mode; it cannot be converted; or its
            graph computes different scores.
    """
    check_model(model, size, classes)
    structure = structure_digest(model)
    if structure in _rehearsed:
        return
    scores = _without_softmax(model)
    images = np.random.default_rng(0).integers(0, 256, (REHEARSED, size, size, 3), dtype=np.uint8)
    _require_same_scores(scores, _results(_reloaded(scores), images), images)
    _rehearsed.add(structure)


def _without_softmax(model: Any) -> Any:
    """Returns the model without its softmax.

    With random weights, the probabilities are nearly equal, so rounding would hide differences between them.
    """
    import keras

    last = model.layers[-1]
    return keras.Model(model.input, last.input) if isinstance(last, keras.layers.Softmax) else model


def _reloaded(model: Any) -> Any:
    """Returns the model after saving and loading it in memory."""
    import keras

    try:
        copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model), safe_mode=True)
        copy.set_weights(model.get_weights())
        for layer in copy._flatten_layers():
            if hasattr(layer, "finalize_state"):  # Normalization and similar layers derive values from their weights
                layer.finalize_state()
    except MemoryError:
        raise
    except Exception as error:  # in layers of any kind
        raise ArtifactError(
            "a network must load again once it is saved",
            code="network-does-not-reload",
            received=f"{type(error).__name__}: {gist(error)}"[:300],
            hint="build it from other layers",
        ) from error
    return copy


def _results(model: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Runs the inference graph of a model and returns its output, float32 (n, k)."""
    with TemporaryDirectory(prefix="crossroads-", ignore_cleanup_errors=True) as folder:
        if exports_here():
            graph = converted(model)
        else:
            to_openvino(model, Path(folder) / "model.xml")
            graph = runtime().Core().read_model(Path(folder) / "model.xml")
        try:
            compiled = runtime().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            return np.array(compiled(images)[0], np.float32)
        except RuntimeError as error:
            raise ArtifactError(
                "the inference graph of a network must run on a CPU",
                code="graph-does-not-run",
                received=gist(error)[:300],
                hint="build it from other layers",
            ) from error


def _require_same_scores(model: Any, scores: NDArray[np.float32], images: NDArray[np.uint8]) -> None:
    """Raises `ArtifactError` if the scores of a graph and its model differ by more than rounding explains."""
    apart = difference(scores, model, images, REHEARSAL_TOLERANCE)
    if apart is not None:
        raise ArtifactError(
            f"the inference graph must agree with the Keras model within {REHEARSAL_TOLERANCE:g} of the largest score",
            code="graph-disagrees",
            received=f"{model.name!r}, whose scores of random images differ by {apart:.3g}",
            hint="build the network from other layers, or report it with the versions of keras and openvino",
        )
