"""Fingerprints keep enough of an image to know it again."""

from __future__ import annotations

import numpy as np
import pytest

from crossroads.data import perceptual_hash as sketches
from crossroads.data.perceptual_hash import Fingerprints, near_pairs, sketch


def noise(n: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3), np.uint8)
    return coarse.repeat(4, 1).repeat(4, 2)


def test_figures_are_those_of_the_pixels() -> None:
    pixels = noise(5)
    got = sketch(pixels)
    values = pixels.astype(float)
    np.testing.assert_allclose(got.means, values.mean((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(got.spreads, values.std((1, 2, 3)), rtol=1e-3)
    np.testing.assert_allclose(got.spreads_within, np.sqrt(values.var((1, 2)).mean(1)), rtol=1e-3)
    grey = values @ (0.299, 0.587, 0.114)
    np.testing.assert_allclose(got.thumbs, grey.reshape(5, 16, 2, 16, 2).mean((2, 4)), atol=0.51)


def test_hashes_do_not_depend_on_brightness_and_contrast() -> None:
    pixels = noise(50) // 2
    brighter = sketch((pixels * 1.5 + 40).astype(np.uint8))
    assert np.bitwise_count(sketch(pixels).hashes ^ brighter.hashes).max() <= 4


def test_sketches_are_joined_and_selected_by_row() -> None:
    pixels = noise(20)
    whole, parts = sketch(pixels), Fingerprints.joined([sketch(pixels[:0]), sketch(pixels[:7]), sketch(pixels[7:])])
    np.testing.assert_array_equal(whole.hashes, parts.hashes)
    np.testing.assert_array_equal(whole.select(np.array([3, 1])).thumbs, whole.thumbs[[3, 1]])


def test_pairs_are_those_that_comparing_all_would_find() -> None:
    base = noise(300)
    rng = np.random.default_rng(1)
    copies = np.clip(base[:120].astype(int) + rng.integers(-3, 4, base[:120].shape), 0, 255).astype(np.uint8)
    made = sketch(np.concatenate([base, copies]))
    pairs, complete = near_pairs(made)
    one, other = np.triu_indices(420, 1)
    close = np.bitwise_count(made.hashes[one] ^ made.hashes[other]) <= 6
    every = np.stack([one[close], other[close]], 1)
    expected = {tuple(pair) for pair in every[sketches._same(made.thumbs, every)].tolist()}
    got = {tuple(pair) for pair in pairs.tolist()}
    assert complete
    assert got <= expected
    assert len(got) >= 0.95 * len(expected) >= 0.95 * 110
    assert (pairs[:, 0] < pairs[:, 1]).all()


def test_the_list_of_pairs_is_bounded_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketches, "MAX_PAIRS", 100)
    pairs, complete = near_pairs(sketch(noise(1).repeat(200, 0)))
    assert (len(pairs), complete) == (100, False)


def test_few_or_no_images_have_no_pairs() -> None:
    for n in (0, 1, 2):
        pairs, complete = near_pairs(sketch(noise(n)))
        assert (pairs.shape, complete) == ((0, 2), True)
