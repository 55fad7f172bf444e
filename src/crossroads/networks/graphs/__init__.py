"""Reads inference graphs (ONNX, TFLite and OpenVINO) as backbones that stay frozen. Keras is not needed."""

from crossroads.networks.graphs.random_control import random_control
from crossroads.networks.graphs.read import GraphFile, cuts_of_graph, describe, read_graph, require_preprocessing
from crossroads.networks.graphs.scaling_probe import probe_scalings

__all__ = ["GraphFile", "cuts_of_graph", "describe", "probe_scalings", "random_control", "read_graph", "require_preprocessing"]
