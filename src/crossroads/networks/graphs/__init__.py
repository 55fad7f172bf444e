"""Inference graphs of files as backbones that stay frozen: ONNX, TFLite and OpenVINO. Keras is not needed."""

from crossroads.networks.graphs.random_control import random_control
from crossroads.networks.graphs.read import GraphFile, describe, read_graph

__all__ = ["GraphFile", "describe", "random_control", "read_graph"]
