"""The inference graph of EfficientNet-Lite that is built without Keras, against the Keras network."""

import numpy as np
import pytest

from crossroads.features.bodies import body_of
from crossroads.inference import Graph
from crossroads.networks.construct import build, choose
from crossroads.networks.cuts import possible_cuts
from crossroads.networks.network import frozen_part


@pytest.mark.parametrize(("number", "size"), [(0, 64), pytest.param(2, 96, marks=pytest.mark.slow)])
def test_graph_has_the_cuts_and_the_features_of_the_keras_network(number, size):
    choice = choose(f"efficientnet-lite{number}")
    body = body_of(choice, size, "imagenet")
    parts = build(choice, size, weights="imagenet").parts
    cuts = possible_cuts(parts.backbone)
    assert [tap.cut for tap in body.taps] == list(cuts)
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    for cut, pooling in ((cuts[3], None), (body.find("0.5"), "average-3"), (body.end, "average")):
        expected = np.asarray(frozen_part(parts, size, cut, pooling)(images))
        features = Graph.of(body.until(cut, pooling).model)(images).reshape(expected.shape)
        assert np.abs(features - expected).max() <= 1e-4 * np.abs(expected).max()


def test_an_odd_size_is_padded_as_in_keras():
    choice, size = choose("efficientnet-lite0"), 75
    body, parts = body_of(choice, size, "imagenet"), build(choice, size, weights="imagenet").parts
    images = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    expected = np.asarray(frozen_part(parts, size, body.end, "average")(images))
    assert np.abs(Graph.of(body.until(body.end, "average").model)(images) - expected).max() <= 1e-4 * np.abs(expected).max()
