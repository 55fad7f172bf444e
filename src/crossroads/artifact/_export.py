"""Saves and loads the Keras model of an artifact without code, exports it to an inference graph, and compares the two."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads.artifact._files import KERAS
from crossroads.artifact._manifest import open_verified
from crossroads.errors import ArtifactError, option
from crossroads.inference import Graph, runtime
from crossroads.networks._named import require_keras_hub
from crossroads.networks.agreement import computed, rounded_otherwise
from crossroads.networks.body import GraphModel
from crossroads.networks.export import convert_elsewhere, exports_here, to_openvino

TOLERANCE = 1e-3
"""Largest allowed difference of a probability between the Keras model and the graph. Rounding alone caused at most 2e-4, on 300
photographs of little contrast and a network that was fully trained on them. A wrong export causes far more."""

ALLOWANCE = 10
"""The allowed difference is at least this many times the one that rounding errors of the weights cause in Keras.

Some networks amplify rounding errors, above all those with random weights."""


def load_model(folder: str | PathLike[str]) -> Any:
    """Loads the Keras model of a finished artifact: uint8 images (n, size, size, 3) in, float32 probabilities (n, k) out.

    Keras loads it in safe mode, which refuses files that run code.

    Raises:
        ArtifactError: The folder is not an artifact, was changed, has no Keras model, or its model runs code.
        BackboneError: Its model has layers of KerasHub, which is not installed.
    """
    manifest = open_verified(folder)
    if KERAS not in manifest.files:
        raise ArtifactError(
            "the artifact of a frozen backbone has no Keras model",
            code="no-keras-model",
            received=str(folder),
            hint=f"run `crossroads export {folder} {option('out')} model.keras`",
        )
    return _load(manifest.folder / KERAS)


def check_model(model: Any, size: int, classes: int) -> None:
    """Refuses a model that does not map images to probabilities, or that contains code of its own. The model is not run.

    Args:
        model: A Keras model.
        size: Side in pixels of its square input images.
        classes: Number of its probabilities.

    Raises:
        ArtifactError: It has another signature, or at any depth a Lambda layer or a layer of neither Keras nor KerasHub.
    """
    import keras

    signature = [(tensor.dtype, tuple(tensor.shape)) for tensor in (*model.inputs, *model.outputs)]
    if signature != [("uint8", (None, size, size, 3)), ("float32", (None, classes))]:
        raise ArtifactError(
            f"a model must map uint8 (None, {size}, {size}, 3) to float32 (None, {classes})",
            code="other-signature",
            received=", ".join(f"{dtype} {shape}" for dtype, shape in signature),
            hint="include its preprocessing, and end it with a softmax over the classes",
        )
    for layer in model._flatten_layers():
        kind = type(layer)
        if kind.__module__.split(".")[0] not in ("keras", "keras_hub", "crossroads"):
            raise ArtifactError(
                "the layers of an artifact must be part of Keras or KerasHub, so that it loads anywhere",
                code="custom-layer",
                received=f"{layer.name!r} of {kind.__module__}.{kind.__qualname__}",
                hint="use a Keras layer instead",
            )
        if isinstance(layer, keras.layers.Lambda):
            raise ArtifactError(
                "an artifact must contain no code",
                code="lambda-layer",
                received=f"the Lambda layer {layer.name!r}",
                hint="use a Keras layer instead",
            )


def save(model: Any, folder: Path) -> None:
    """Writes ``model.xml`` and ``model.bin``; for a Keras model also ``model.keras``, from which the graph is then exported."""
    if isinstance(model, GraphModel):
        runtime().serialize(model.graph(), str(folder / "model.xml"))
        return
    import keras

    saved = folder / KERAS
    # A new model over the same layers has no optimizer, whose state would triple the size of the file.
    keras.Model(model.input, model.output, name=model.name).save(saved)
    graph = folder / "model.xml"
    if exports_here():
        to_openvino(_load(saved), graph)
    else:
        convert_elsewhere(saved, graph)


@dataclass(frozen=True, slots=True, eq=False)
class Parity:
    """Images on which a model and its graph are compared.

    Attributes:
        images: uint8 (n, size, size, 3), n > 0. Preferably, these are not training images.
        probabilities: The probabilities of the model, float32 (n, k); None if they are not known.
    """

    images: NDArray[np.uint8]
    probabilities: NDArray[np.float32] | None = None


def check_parity(model: Any, graph_path: Path, parity: Parity) -> dict[str, Any]:
    """Compares the model in memory with the graph on the disk, and so checks saving, loading, export and compilation.

    A frozen part is computed by its own graph, and its head by NumPy.

    Probabilities must agree within `TOLERANCE`, or within more for a network that amplifies rounding (see `ALLOWANCE`). Labels must
    be equal, except for ties: if Keras gives the graph's label a probability within the tolerance of its best one, rounding decides
    between the two.

    Args:
        model: A Keras model, or a frozen part with a head.
        graph_path: The ``.xml`` file of the graph.
        parity: The images.

    Returns:
        n, tolerance, largest difference and number of ties, for ``crossroads.json``.

    Raises:
        ArtifactError: A probability differs by more than the tolerance or is not finite, a label differs, or there are no images.
    """
    images = parity.images
    if len(images) == 0:
        raise ArtifactError(
            "the check of the inference graph needs at least one image",
            code="no-parity-images",
            received="none",
            hint="add validation images",
        )
    ours = _probabilities(model, images) if parity.probabilities is None else parity.probabilities
    theirs = Graph(graph_path)(images)
    if not np.isfinite(ours).all():
        raise ArtifactError(
            "the probabilities of a model must be finite",
            code="probabilities-not-finite",
            received="NaN or infinity",
            hint=f"train with a lower {option('learning_rate')}",
        )
    difference = np.nan_to_num(np.abs(ours - theirs).max(axis=1), nan=np.inf)
    worst, tolerance = int(difference.argmax()), TOLERANCE
    if difference[worst] > TOLERANCE and not isinstance(model, GraphModel):
        moved = float(np.nan_to_num(np.abs(rounded_otherwise(model, images) - ours)).max())
        tolerance = max(TOLERANCE, ALLOWANCE * moved)
    if difference[worst] > tolerance:
        raise ArtifactError(
            f"the inference graph must agree with the model within {tolerance:g}",
            code="graph-disagrees",
            received=f"a probability that differs by {difference[worst]:.3g} on image {worst} of {len(images)}",
            hint="report this with your backbone and the versions of keras and openvino",
        )
    rows = np.arange(len(images))
    label, graph_label = ours.argmax(axis=1), theirs.argmax(axis=1)
    lead = ours[rows, label] - ours[rows, graph_label]
    if lead.max() > tolerance:
        row = int(lead.argmax())
        raise ArtifactError(
            "the inference graph must give the same labels as the model",
            code="graph-labels-differ",
            received=f"class {graph_label[row]} in place of {label[row]} on image {row} of {len(images)}",
            hint="report this with your backbone and the versions of keras and openvino",
        )
    ties = int((label != graph_label).sum())
    return {"n": len(images), "tolerance": tolerance, "max_difference": float(difference[worst]), "ties": ties}


def _probabilities(model: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    if not isinstance(model, GraphModel):
        return computed(model, images)
    features = Graph.of(model.frozen.model)(images).reshape(len(images), -1)
    return model.probabilities(features)


def _load(path: Path) -> Any:
    import keras

    from crossroads.networks import hub_layer  # noqa: F401 - makes its class known to Keras

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError) as error:
        if "keras_hub" in str(error):
            require_keras_hub()
        # Keras wraps the cause in a long text about custom layers.
        reason = str(error).split("Exception encountered: ")[-1].strip()[:300]
        raise ArtifactError(
            f"{path} must be a Keras model without code of its own",
            code="unsafe-model",
            received=reason,
            hint="do not trust this artifact; train it again",
        ) from error
