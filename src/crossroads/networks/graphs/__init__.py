"""Reads inference graphs (ONNX, TFLite and OpenVINO) as backbones that stay frozen. Keras is not needed."""

from crossroads.networks.graphs.random_control import random_control
from crossroads.networks.graphs.read import GraphFile, Stated, cuts_of_graph, describe, read_graph, require_preprocessing
from crossroads.networks.graphs.scaling_probe import probe_scalings
from crossroads.networks.graphs.sources import note_on_origin

__all__ = [
    "GraphFile",
    "Stated",
    "cuts_of_graph",
    "describe",
    "note_on_origin",
    "probe_scalings",
    "random_control",
    "read_graph",
    "require_preprocessing",
]
