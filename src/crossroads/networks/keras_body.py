"""Builds the inference graph of a Keras backbone, with an output at each of its cuts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from crossroads.errors import ArtifactError
from crossroads.inference import Graph
from crossroads.networks.agreement import difference
from crossroads.networks.body import Body, Layout, Tap
from crossroads.networks.construct import Built
from crossroads.networks.cut import Cut
from crossroads.networks.cuts import possible_cuts, until
from crossroads.networks.export import to_openvino
from crossroads.networks.network import Parts, prepared

TOLERANCE = 1e-3
"""Largest difference between graph and Keras, relative to the largest feature."""

CHECKED = 3
"""Random images on which they are compared."""


def write_body(built: Built, size: int, path: Path) -> tuple[Tap, ...]:
    """Writes the graph of a backbone, an ``.xml`` file and a ``.bin`` file, and returns its taps.

    Args:
        built: The backbone, not cut.
        size: Side of the images in pixels.
        path: Path of the ``.xml`` file, in an existing folder.

    Raises:
        ArtifactError: The backbone cannot be converted, or its graph computes something else.
    """
    parts = built.parts
    cuts = possible_cuts(parts.backbone)
    to_openvino(_whole(parts, size, [until(parts.backbone, cut).output for cut in cuts]), path)
    return tuple(_tap(cut, parts.prefix) for cut in cuts)


def _tap(cut: Cut, prefix: int) -> Tap:
    layouts: tuple[Layout, ...] = ("NC", "NTC", "NHWC")
    layout = layouts[len(cut.shape) - 1]
    return Tap(cut, layout, prefix if layout == "NTC" else 0)


def require_agreement(body: Body, parts: Parts) -> None:
    """Raises `ArtifactError` if a graph does not compute the same features as the backbone that it was made from."""
    images = np.random.default_rng(0).integers(0, 256, (CHECKED, body.size, body.size, 3), dtype=np.uint8)
    features = Graph.of(body.until(body.taps[-1].cut, None).model)(images)
    apart = difference(features, _whole(parts, body.size, [parts.backbone.output]), images, TOLERANCE)
    if apart is not None:
        raise ArtifactError(
            f"the inference graph of a backbone must agree with Keras within {TOLERANCE:g} of the largest feature",
            code="graph-disagrees",
            field="backbone",
            received=f"{body.name!r}, whose features of random images differ by {apart:.3g}",
            hint="build the network from other layers, or report it with the versions of keras and openvino",
        )


def _whole(parts: Parts, size: int, outputs: list[Any]) -> keras.Model:
    images = keras.Input((size, size, 3), dtype="uint8", name="images")
    return keras.Model(images, prepared(parts, images, keras.Model(parts.backbone.input, outputs, name="taps")), name="body")
