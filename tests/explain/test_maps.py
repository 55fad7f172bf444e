"""Covers heat maps: exact ones sum to the score, and the others find what decides."""

import numpy as np
import pytest
from explained import brightness, fitted_head, frozen, images, patched, peaks, random_head, saved

from crossroads.errors import DataError
from crossroads.explain import Explainer, overlay
from crossroads.explain.maps import cells
from crossroads.inference import Graph
from refusals import refused
from tiny_graphs import SIZE, convnet, vit


def centred(scores):
    return scores - scores.mean(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def photos():
    return images(5)


@pytest.mark.parametrize("pooling", ["average", "average-2", "average-3"])
def test_an_exact_map_sums_to_the_score_without_the_bias(tmp_path, photos, pooling):
    part = frozen(convnet(), tmp_path, pooling)
    (head,) = random_head(part.shape[0])
    explainer = Explainer(saved(tmp_path / "run", part, (head,)))
    scores = centred(Graph.of(part.model)(photos).reshape(5, -1) @ head.kernel)
    found = explainer.evidence(photos, np.full(5, 2))
    assert explainer.method == "cam"
    assert found[0].shape == (8, 8)
    np.testing.assert_allclose([each.sum() for each in found], scores[:, 2], atol=1e-4)


def test_an_exact_map_is_the_feature_map_weighted_by_the_head(tmp_path, photos):
    part = frozen(convnet(), tmp_path)
    (head,) = random_head(part.shape[0])
    features = frozen(convnet(), tmp_path, None)
    maps = Graph.of(features.model)(photos)  # (n, 8, 8, 12)
    explainer = Explainer(saved(tmp_path / "run", part, (head,)))
    for found, each in zip(explainer.evidence(photos, np.zeros(5, int)), maps, strict=True):
        np.testing.assert_allclose(found, each @ centred(head.kernel)[:, 0] / 64, atol=1e-4)


def test_reciprocam_is_the_exact_map_about_its_mean_where_the_rest_is_linear(tmp_path, photos):
    part = frozen(convnet(), tmp_path)
    run = saved(tmp_path / "run", part, random_head(part.shape[0]))
    exact, other = Explainer(run), Explainer(run, method="reciprocam")
    for cam, found in zip(exact.evidence(photos), other.evidence(photos), strict=True):
        np.testing.assert_allclose(found, cam - cam.mean(), atol=1e-4)
    np.testing.assert_allclose(exact.maps(photos), other.maps(photos), atol=1e-3)


@pytest.mark.parametrize("method", [None, "reciprocam", "occlusion"])
def test_each_method_finds_a_planted_patch(tmp_path, method):
    part = brightness()
    found, corners = patched(6)
    head = fitted_head(part, found, np.full_like(found, 100))
    explainer = Explainer(saved(tmp_path / "run", part, head), method=method)
    maps = explainer.maps(found, np.ones(6, int))
    np.testing.assert_array_equal(peaks(maps), corners)
    assert maps.shape == (6, SIZE, SIZE)
    assert maps.dtype == np.float32
    assert (maps.min(), maps.max()) == (0, 1)


def test_a_hidden_layer_in_the_head_makes_the_rest_nonlinear(tmp_path, photos):
    part = frozen(convnet(), tmp_path)
    run = saved(tmp_path / "run", part, random_head(part.shape[0], hidden=6))
    assert Explainer(run).method == "reciprocam"
    assert Explainer(run).maps(photos).max() == 1
    with refused("method-not-possible", DataError, field="method"):
        Explainer(run, method="cam")


def test_averaged_tokens_give_an_exact_map_of_the_patches(tmp_path, photos):
    part = frozen(vit(class_token=False), tmp_path)
    (head,) = random_head(part.shape[0])
    explainer = Explainer(saved(tmp_path / "run", part, (head,)))
    scores = centred(Graph.of(part.model)(photos) @ head.kernel)[:, 0]
    found = explainer.evidence(photos, np.zeros(5, int))
    assert (explainer.method, found[0].shape) == ("cam", (4, 4))
    np.testing.assert_allclose([each.sum() for each in found], scores, atol=1e-4)


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("pooling", ["class-token", "class-and-average"])
def test_a_class_token_is_explained_before_its_last_attention(tmp_path, registers, pooling):
    part = frozen(vit(registers=registers, width=32), tmp_path, pooling)
    seen, _ = patched(200, seed=1)
    head = fitted_head(part, seen, images(200) // 12 + 90)
    explainer = Explainer(saved(tmp_path / "run", part, head))
    found, corners = patched(40)
    hits = (peaks(explainer.maps(found, np.ones(40, int))) == corners).all(axis=1).mean()
    assert explainer.method == "reciprocam"
    assert hits > 0.25  # by chance 1 in 16; random weights mix the tokens of all patches


def test_the_class_decides_the_map(tmp_path, photos):
    part = frozen(convnet(), tmp_path)
    explainer = Explainer(saved(tmp_path / "run", part, random_head(part.shape[0])))
    probable = explainer.predictor.probabilities(photos).argmax(axis=1)
    np.testing.assert_array_equal(explainer.maps(photos), explainer.maps(photos, probable))
    assert np.abs(explainer.maps(photos) - explainer.maps(photos, (probable + 1) % 3)).max() > 0.1
    assert explainer.maps(photos[:0]).shape == (0, SIZE, SIZE)
    for wrong in (np.full(5, 3), np.full(5, -1), np.zeros(4, int), np.zeros(5)):
        with refused("unknown-class", DataError, field="classes"):
            explainer.maps(photos, wrong)
    with refused("other-shape", DataError):
        explainer.maps(photos[:, :8])


def test_cells_divide_a_fine_map_into_blocks():
    masks, counts = cells((40, 9))
    assert counts == (16, 9)
    np.testing.assert_array_equal(masks.sum(axis=0), np.ones((40, 9)))
    assert set(masks.sum(axis=(1, 2))) <= {2, 3}


def test_an_overlay_is_brighter_where_the_map_is():
    grey = np.full((4, 6, 3), 128, np.uint8)
    heat = np.zeros((4, 6), np.float32)
    heat[:, 3:] = 1
    drawn = np.asarray(overlay(grey, heat)).astype(int)
    assert drawn.shape == (4, 6, 3)
    assert drawn[:, 3:].sum() > 2 * drawn[:, :3].sum()
