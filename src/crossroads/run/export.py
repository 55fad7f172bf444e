"""Exports the classifier of an artifact to a file that other programs read."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from crossroads import artifact
from crossroads._runtime.keras_setup import load_keras
from crossroads.errors import ArtifactError, option
from crossroads.inference import Graph, stored_model
from crossroads.networks.agreement import difference
from crossroads.networks.body import Dense, head_of
from crossroads.networks.construct import OBJECT, build, choose, is_graph
from crossroads.recipe import Recipe

CHECKED = 8
"""Random images on which the exported model is compared with the graph of the artifact."""


def export_keras(folder: str | PathLike[str], out: str | PathLike[str], backbone: Any = None) -> Path:
    """Writes the classifier of an artifact as a ``.keras`` file: uint8 (n, size, size, 3) in, float32 (n, k) probabilities out.

    The artifact of a trained network has this file already. For a frozen backbone it is built again from the backbone, its weights
    and the head, and compared with the graph of the artifact.

    Args:
        folder: A finished artifact.
        out: Path of the new file, which ends in ``.keras``.
        backbone: The network that was passed to ``fit`` as an object; None for others.

    Returns:
        The path of the file.

    Raises:
        CrossroadsError: The folder is not an artifact, its backbone is the graph of a file, the weights of the backbone are not
            available, or the model differs from the graph. No file is left behind.
    """
    manifest, target = artifact.open_verified(folder), Path(out)
    if target.suffix != ".keras" or target.exists():
        raise ArtifactError(
            f"{option('out')} must be a new file that ends in .keras",
            code="export-target",
            field="out",
            received=str(target),
            hint="choose another name",
        )
    load_keras()
    model = keras_model(manifest, backbone)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}")
    try:
        model.save(partial.with_suffix(".partial.keras"))
        partial.with_suffix(".partial.keras").replace(target)
    finally:
        partial.with_suffix(".partial.keras").unlink(missing_ok=True)
    return target


def keras_model(manifest: artifact.Manifest, backbone: Any = None) -> Any:
    """Returns the Keras model of an artifact, built again if the backbone stayed frozen. Keras must be loaded.

    Args:
        manifest: The manifest of a verified artifact.
        backbone: The network that was passed to ``fit`` as an object; None for others.

    Raises:
        CrossroadsError: As for `export_keras`.
    """
    return artifact.load_model(manifest.folder) if artifact.KERAS in manifest.files else _rebuilt(manifest, backbone)


def _rebuilt(manifest: artifact.Manifest, backbone: Any) -> Any:
    """Returns the Keras model of an artifact whose backbone stayed frozen."""
    from crossroads.networks.network import Layout, assemble

    recipe = Recipe.from_mapping(dict(manifest.facts["recipe"]))
    if is_graph(str(recipe.backbone)):
        raise ArtifactError(
            "a classifier on the graph of a file has no Keras model",
            code="no-keras-model",
            received=str(recipe.backbone),
            hint=f"export it with {option('format')} openvino",
        )
    choice = choose(backbone if backbone is not None and str(recipe.backbone).startswith(OBJECT) else recipe.backbone)
    size = manifest.resize.size
    built = build(choice, size, weights=recipe.weights, cut=recipe.cut, seed=recipe.seed)
    head = _layers(head_of(stored_model(manifest.folder / "model.xml")))
    network = assemble(built.parts, size, head, Layout(built.keep, None, recipe.pooling or "average"))
    return _agreeing(network.ship(), manifest)


def _layers(head: tuple[Dense, ...]) -> tuple[Any, ...]:
    """Returns the layers of a head with their weights."""
    from keras import layers

    made: list[Any] = []
    for number, dense in enumerate(head):
        if number:
            made.append(layers.ReLU(name="head_relu"))
        last = number == len(head) - 1
        layer = layers.Dense(dense.kernel.shape[1], name="head" if last else "head_hidden")
        layer.build((None, dense.kernel.shape[0]))
        layer.set_weights([dense.kernel, dense.bias])
        made.append(layer)
    return tuple(made)


def _agreeing(model: Any, manifest: artifact.Manifest) -> Any:
    """Returns the model. Raises `ArtifactError` if its results differ from those of the artifact's graph."""
    size = manifest.resize.size
    images = np.random.default_rng(0).integers(0, 256, (CHECKED, size, size, 3), dtype=np.uint8)
    apart = difference(Graph(manifest.folder / "model.xml")(images), model, images, artifact.TOLERANCE)
    if apart is not None:
        raise ArtifactError(
            f"the exported model must agree with the artifact within {artifact.TOLERANCE:g}",
            code="export-disagrees",
            received=f"probabilities of random images that differ by {apart:.3g}",
            hint="use the weights and the version of Crossroads that the artifact was trained with",
        )
    return model
