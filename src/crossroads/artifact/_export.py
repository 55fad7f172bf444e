"""The Keras side of an artifact: saving and loading without code, the inference graph, and the check that both agree."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads._runtime.machine import full_float32
from crossroads.artifact._manifest import open_verified
from crossroads.errors import ArtifactError
from crossroads.inference import Graph
from crossroads.networks.export import convert_elsewhere, exports_here, to_openvino

FEW = 8
"""Images that Keras computes at a time: layer by layer it holds every map of all of them."""

TOLERANCE = 1e-3
"""Largest difference of a probability between the Keras model and the graph. Rounding alone moved one by 2e-4, on images of little
contrast (three hundred photographs, a network trained to the end on them); a wrong step of the export moves it by far more."""

ROUNDING = 6e-8
"""Relative rounding error of a weight."""

ALLOWANCE = 10
"""Largest allowed multiple of the difference that rounding errors of the weights make in Keras, where that exceeds `TOLERANCE`.

Some networks amplify rounding errors, above all those with random weights."""


def load_model(folder: str | PathLike[str]) -> Any:
    """The Keras model of a finished artifact: uint8 images (n, size, size, 3) in, float32 probabilities (n, k) out.

    It is loaded in Keras' safe mode, so a file that asks for code to be run is refused.

    Raises:
        ArtifactError: The folder is no artifact, was changed, or its model asks for code to be run.
    """
    return _load(open_verified(folder).folder / "model.keras")


def check_model(model: Any, size: int, classes: int) -> None:
    """Refuses a model that is not images in, probabilities out, or that holds code of its own. Cheap: nothing is computed.

    Args:
        model: A Keras model.
        size: Side in pixels of the square images that it must take.
        classes: How many probabilities it must give.

    Raises:
        ArtifactError: Another signature, or at any depth a Lambda layer or one that is not Keras' own.
    """
    import keras

    found = [(tensor.dtype, tuple(tensor.shape)) for tensor in (*model.inputs, *model.outputs)]
    if found != [("uint8", (None, size, size, 3)), ("float32", (None, classes))]:
        raise ArtifactError(
            f"a model must map uint8 (None, {size}, {size}, 3) to float32 (None, {classes})",
            received=", ".join(f"{dtype} {shape}" for dtype, shape in found),
        )
    for layer in model._flatten_layers():
        kind = type(layer)
        if kind.__module__.split(".")[0] not in ("keras", "crossroads"):
            raise ArtifactError(
                "the layers of an artifact must be Keras' own, so that it loads anywhere",
                received=f"{layer.name!r} of {kind.__module__}.{kind.__qualname__}",
                hint="use a Keras layer instead",
            )
        if isinstance(layer, keras.layers.Lambda):
            raise ArtifactError(
                "an artifact must hold nothing that executes",
                received=f"the Lambda layer {layer.name!r}",
                hint="use a Keras layer instead",
            )


def save(model: Any, folder: Path) -> None:
    """Writes ``model.keras``, ``model.xml`` and ``model.bin``. The graph is made from the file, not from the model in memory."""
    import keras

    saved = folder / "model.keras"
    # A model built anew over the same layers carries no optimizer: its state would triple the file.
    keras.Model(model.input, model.output, name=model.name).save(saved)
    graph = folder / "model.xml"
    if exports_here():
        to_openvino(_load(saved), graph)
    else:
        convert_elsewhere(saved, graph)


def check_parity(model: Any, graph_path: Path, images: NDArray[np.uint8]) -> dict[str, Any]:
    """Compares the Keras model in memory with the graph on the disk, and so all the steps between: save, load, export, compile.

    Labels must be equal. Where Keras itself gives the graph's label a probability within the tolerance of its best one, the two are
    a tie, which rounding may settle either way; it is counted and allowed. The tolerance is `TOLERANCE`, or more for a network that
    amplifies rounding; see `ALLOWANCE`.

    Args:
        images: uint8 (n, size, size, 3), n > 0, best held out from training.

    Returns:
        n, tolerance, largest difference, number of ties: for ``crossroads.json``.

    Raises:
        ArtifactError: A probability that differs by more than the tolerance or is no number, another label, or no images.
    """
    if len(images) == 0:
        raise ArtifactError("the check of the inference graph needs at least one image", received="none")
    ours, theirs = computed(model, images), Graph(graph_path)(images)
    if not np.isfinite(ours).all():
        raise ArtifactError(
            "a model's probabilities must be finite", received="NaN or infinity", hint="train with a lower learning rate"
        )
    difference = np.nan_to_num(np.abs(ours - theirs).max(axis=1), nan=np.inf)
    worst, tolerance = int(difference.argmax()), TOLERANCE
    if difference[worst] > TOLERANCE:
        moved = float(np.nan_to_num(np.abs(rounded_otherwise(model, images) - ours)).max())
        tolerance = max(TOLERANCE, ALLOWANCE * moved)
    if difference[worst] > tolerance:
        raise ArtifactError(
            f"the inference graph must agree with the Keras model within {tolerance:g}",
            received=f"a probability that differs by {difference[worst]:.3g} on image {worst} of {len(images)}",
            hint="report this with your backbone and the versions of keras and openvino",
        )
    rows = np.arange(len(images))
    label, graph_label = ours.argmax(axis=1), theirs.argmax(axis=1)
    lead = ours[rows, label] - ours[rows, graph_label]
    if lead.max() > tolerance:
        row = int(lead.argmax())
        raise ArtifactError(
            "the inference graph must give the same labels as the Keras model",
            received=f"class {graph_label[row]} in place of {label[row]} on image {row} of {len(images)}",
            hint="report this with your backbone and the versions of keras and openvino",
        )
    ties = int((label != graph_label).sum())
    return {"n": len(images), "tolerance": tolerance, "max_difference": float(difference[worst]), "ties": ties}


def _load(path: Path) -> Any:
    import keras

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError) as error:
        # Keras wraps the cause in a page about custom layers.
        said = str(error).split("Exception encountered: ")[-1].strip()[:300]
        raise ArtifactError(f"{path} must be a Keras model without code of its own", received=said) from error


def computed(model: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What Keras computes, layer by layer, float32 (n, k)."""
    import keras

    with full_float32():
        parts = [model(images[start : start + FEW], training=False) for start in range(0, len(images), FEW)]
        return np.concatenate([keras.ops.convert_to_numpy(part) for part in parts]).astype(np.float32)


def rounded_otherwise(model: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What Keras computes once each weight is changed by a rounding error, float32 (n, k). The weights are restored."""
    weights, rng = model.get_weights(), np.random.default_rng(0)
    try:
        model.set_weights([(w * (1 + ROUNDING * rng.standard_normal(w.shape))).astype(w.dtype) for w in weights])
        return computed(model, images)
    finally:
        model.set_weights(weights)
