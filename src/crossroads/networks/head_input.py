"""Finds the features in the graph of a classifier: what its head receives."""

from __future__ import annotations

from typing import Any

from crossroads.inference import runtime


def until_head(model: Any) -> Any | None:
    """Returns the part of a classifier from images to the features, (n, d), as a new OpenVINO model.

    The features are the input of the head of a frozen backbone, or otherwise that of the last dense layer. Returns None if there
    is no dense layer.

    Args:
        model: An OpenVINO model from uint8 (n, size, size, 3) to probabilities (n, k). It is not changed.
    """
    part = model.clone()
    layers = [node for node in part.get_ordered_ops() if node.get_type_name() == "MatMul" and _is_dense(node)]
    heads = [node for node in layers if node.input_value(1).get_node().get_friendly_name() == "head_0_kernel"]
    if not layers:
        return None
    node = heads[0] if heads else layers[-1]
    return runtime().Model([node.input_value(0)], part.get_parameters(), "features")


def _is_dense(node: Any) -> bool:
    """Returns whether a matrix product multiplies rows (n, d) with constant weights."""
    weights = node.input_value(1).get_node()
    if weights.get_type_name() == "Convert":
        weights = weights.input_value(0).get_node()
    return weights.get_type_name() == "Constant" and len(node.input_value(0).get_partial_shape()) == 2
