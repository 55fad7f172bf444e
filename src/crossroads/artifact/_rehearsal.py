"""Whether a network can become an artifact, found out before it is trained: the export is tried with the weights it starts from."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads.artifact._export import check_model, computed, rounded_otherwise
from crossroads.errors import ArtifactError
from crossroads.inference import runtime
from crossroads.networks.export import converted, gist, structure_digest, to_openvino

REHEARSED = 3
"""Images that a rehearsal is held against Keras on."""

REHEARSAL_TOLERANCE = 1e-3
"""Largest difference of a score in a rehearsal, as a fraction of the largest score."""

ALLOWANCE = 100
"""How many times as far from Keras a graph may be in a rehearsal as Keras is from itself where it rounds otherwise."""

_rehearsed: set[str] = set()
"""Digests of the structures that have passed."""


def rehearse(model: Any, size: int, classes: int) -> None:
    """Makes an inference graph of a model that is still to be trained, and holds it against Keras: so it is known before the work.

    A model whose layers are those of one that has passed in this process is not tried again. Nothing is written.

    Args:
        model: A Keras model with any weights.
        size: Side in pixels of the square images that it must take.
        classes: How many probabilities it must give.

    Raises:
        ArtifactError: `check_model` refuses it; it does not load in safe mode once it is saved; it cannot become a graph; or its
            graph computes something else.
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
    """The scores in place of the probabilities, in which rounding would hide what random weights compute."""
    import keras

    last = model.layers[-1]
    return keras.Model(model.input, last.input) if isinstance(last, keras.layers.Softmax) else model


def _reloaded(model: Any) -> Any:
    """The model as it comes back from a file, without the way over the disk."""
    import keras

    try:
        copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model), safe_mode=True)
        copy.set_weights(model.get_weights())
        for layer in copy._flatten_layers():
            if hasattr(layer, "finalize_state"):  # Normalization and its like compute with what follows from their weights
                layer.finalize_state()
    except MemoryError:
        raise
    except Exception as error:  # in layers of any kind
        raise ArtifactError(
            "a network must load again once it is saved",
            received=f"{type(error).__name__}: {gist(error)}"[:300],
            mend="build it from other layers",
        ) from error
    return copy


def _results(model: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the inference graph of a model computes, float32 (n, k)."""
    import keras

    with TemporaryDirectory(prefix="crossroads-", ignore_cleanup_errors=True) as folder:
        if keras.backend.backend() == "tensorflow":
            graph = converted(model)
        else:
            to_openvino(model, Path(folder) / "model.xml")
            graph = runtime().Core().read_model(Path(folder) / "model.xml")
        try:
            compiled = runtime().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            return np.array(compiled(images)[0], np.float32)
        except RuntimeError as error:
            raise ArtifactError(
                "the inference graph of a network must run on a CPU", received=gist(error)[:300], mend="build it from other layers"
            ) from error


def _require_same_scores(model: Any, found: NDArray[np.float32], images: NDArray[np.uint8]) -> None:
    """Raises `ArtifactError` where a graph's scores are not those of its model, by more than rounding explains.

    Random weights may let signals grow from layer to layer until rounding decides.
    """
    expected = computed(model, images)
    difference = _relative(found, expected)
    if difference <= REHEARSAL_TOLERANCE:
        return
    if difference > ALLOWANCE * _relative(rounded_otherwise(model, images), expected):
        raise ArtifactError(
            f"the inference graph must agree with the Keras model within {REHEARSAL_TOLERANCE:g} of the largest score",
            received=f"{model.name!r}, whose scores of random images differ by {difference:.3g}",
            mend="build the network from other layers, or report it with the versions of keras and openvino",
        )


def _relative(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference as a fraction of the largest score; infinite where one side alone is no number."""
    if not np.array_equal(np.isfinite(found), np.isfinite(expected)):
        return float("inf")
    numbers = np.isfinite(expected)
    largest = np.abs(expected[numbers]).max(initial=0)
    return float(np.abs(found - expected)[numbers].max(initial=0) / max(largest, 1e-30))
