"""Fingerprints: their statistics, their hashes, and the search for near duplicates."""

from __future__ import annotations

import numpy as np
import pytest

from crossroads.data import perceptual_hash
from crossroads.data.perceptual_hash import Fingerprints, fingerprint, near_duplicates


def noise(n: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3), np.uint8)
    return coarse.repeat(4, 1).repeat(4, 2)


def test_statistics_are_those_of_the_pixels() -> None:
    pixels = noise(5)
    got = fingerprint(pixels)
    values = pixels.astype(float)
    np.testing.assert_allclose(got.means, values.mean((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(got.stds, values.std((1, 2, 3)), rtol=1e-3)
    np.testing.assert_allclose(got.channel_stds, np.sqrt(values.var((1, 2)).mean(1)), rtol=1e-3)
    grey = values @ (0.299, 0.587, 0.114)
    np.testing.assert_allclose(got.thumbnails, grey.reshape(5, 16, 2, 16, 2).mean((2, 4)), atol=0.51)


def test_hashes_do_not_depend_on_brightness_and_contrast() -> None:
    pixels = noise(50) // 2
    brighter = fingerprint((pixels * 1.5 + 40).astype(np.uint8))
    assert np.bitwise_count(fingerprint(pixels).hashes ^ brighter.hashes).max() <= 4


def test_fingerprints_are_concatenated_and_selected_by_row() -> None:
    pixels = noise(20)
    whole, parts = (
        fingerprint(pixels),
        Fingerprints.concatenate([fingerprint(pixels[:0]), fingerprint(pixels[:7]), fingerprint(pixels[7:])]),
    )
    np.testing.assert_array_equal(whole.hashes, parts.hashes)
    np.testing.assert_array_equal(whole.select(np.array([3, 1])).thumbnails, whole.thumbnails[[3, 1]])


def test_nearly_all_pairs_are_found_that_comparing_all_images_would_find() -> None:
    base = noise(300)
    rng = np.random.default_rng(1)
    copies = np.clip(base[:120].astype(int) + rng.integers(-3, 4, base[:120].shape), 0, 255).astype(np.uint8)
    made = fingerprint(np.concatenate([base, copies]))
    pairs, complete = near_duplicates(made)
    one, other = np.triu_indices(420, 1)
    close = np.bitwise_count(made.hashes[one] ^ made.hashes[other]) <= 6
    every = np.stack([one[close], other[close]], 1)
    expected = {tuple(pair) for pair in every[perceptual_hash._same_picture(made.thumbnails, every)].tolist()}
    got = {tuple(pair) for pair in pairs.tolist()}
    assert complete
    assert got <= expected
    assert len(got) >= 0.95 * len(expected) >= 0.95 * 110
    assert (pairs[:, 0] < pairs[:, 1]).all()


def test_a_list_of_pairs_that_was_cut_is_marked_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual_hash, "MAX_PAIRS", 100)
    pairs, complete = near_duplicates(fingerprint(noise(1).repeat(200, 0)))
    assert (len(pairs), complete) == (100, False)


def test_few_or_no_images_have_no_pairs() -> None:
    for n in (0, 1, 2):
        pairs, complete = near_duplicates(fingerprint(noise(n)))
        assert (pairs.shape, complete) == ((0, 2), True)
