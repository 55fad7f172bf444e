"""Finds where the features of a graph end: before its classifier."""

from __future__ import annotations

import math

from crossroads.networks.graphs.nodes import SOFTMAXES, Key, Node, Nodes

NUMBERS_OF_CLASSES = (1000, 1001)
"""ImageNet's classes, without and with a background."""

HIDDEN_STATE_FROM = 0.9
"""A map or a sequence of tokens is preferred to a vector with this fraction of the kernels below it, since it can be pooled in any
way: ``last_hidden_state`` rather than ``pooler_output``."""

_LINEAR = ("Add", "Subtract", "Multiply", "Divide", "FakeQuantize", "Convert")
_ACTIVATIONS = ("Relu", "Clamp", "Elu", "HSwish", "HardSigmoid", "Swish", "Gelu", "Mish", "PRelu")


def features_end(graph: Nodes, outputs: list[Key]) -> Key:
    """Returns the tensor of the last features, before the classifier.

    Of several outputs, the one with the most kernels below it counts. A map or a sequence of tokens is preferred to a vector if
    nearly as many are below it.
    """
    producers = {key: node for node in graph.nodes for key in node.outputs}
    passed: dict[Key, int] = {graph.source: 0}
    for node in graph.nodes:
        longest = max(passed[key] for key in node.data) + node.step.kernel
        passed.update(dict.fromkeys(node.outputs, longest))
    ends = list(dict.fromkeys(without_classifier(producers, key) for key in outputs if key in passed))
    deepest = max(passed[key] for key in ends)
    near = [key for key in ends if passed[key] >= HIDDEN_STATE_FROM * deepest]
    many = [key for key in near if key in producers and _positions(producers[key]) > 1]
    return max(many or near, key=lambda key: passed[key])


def without_classifier(producers: dict[Key, Node], output: Key) -> Key:
    """Returns the input of the classifier that ends in an output; the output itself if it does not.

    A classifier is the last kernel if a softmax follows; or if it computes a vector and only its bias follows; or if it computes a
    map with ImageNet's number of channels that is then averaged, as in SqueezeNet. So a linear projection at the end, such as
    CLIP's, counts as one. The features before it are as good for a new head.
    """
    key, end, kinds, softmax = output, output, set(), False
    while (node := producers.get(key)) is not None and not node.step.kernel:
        if len(node.step.inputs) != 1:
            return end
        if node.kind in SOFTMAXES:
            softmax, end = True, node.data[0]
        elif not node.step.passive:
            kinds.add(node.kind)
        key = node.data[0]
    if node is None:
        return end
    averaged = _positions(node) > 1
    allowed = {*_LINEAR, *(_ACTIVATIONS if averaged else ())}
    if softmax or (kinds <= allowed and (not averaged or (_channels(node) in NUMBERS_OF_CLASSES and key != output))):
        return node.data[0]
    return end


def _positions(node: Node) -> int:
    """Returns the number of positions or tokens of an output for one image."""
    shape = node.shape
    if len(shape) == 4 and node.kind != "MatMul":
        return min(math.prod(shape[2:]), math.prod(shape[1:3]))  # NCHW or NHWC
    return math.prod(shape[1:-1])


def _channels(node: Node) -> int:
    return node.shape[1] if node.kind != "MatMul" else node.shape[-1]
