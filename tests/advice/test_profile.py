"""The similarity of depth profiles with a known answer, and the cuts of a profile."""

import numpy as np
import pytest

from crossroads.advice.profile import similarity, spread_cuts
from crossroads.networks.cuts import Cut

DEPTHS = (0.2, 0.4, 0.6, 0.8, 1.0)


def right(accuracies, n=2000, seed=0):
    """Returns which images probes of these accuracies classify correctly. Images differ in difficulty."""
    difficulty = np.random.default_rng(seed).random(n)
    return [difficulty < accuracy for accuracy in accuracies]


def measured(pretrained, random, n=2000):
    return similarity(right(pretrained, n), right(random, n, seed=1), DEPTHS, None, 0)


def test_accuracy_that_rises_up_to_the_end_means_similar():
    photos = measured((0.55, 0.65, 0.75, 0.85, 0.95), (0.5, 0.55, 0.6, 0.6, 0.55))
    assert photos.peak > 0.95
    assert photos.kept == pytest.approx(1.0, abs=0.01)
    assert photos.value.value > 0.8
    assert photos.value.low <= photos.value.value <= photos.value.high


def test_accuracy_that_falls_in_the_last_layers_means_different():
    signs = measured((0.3, 0.6, 0.8, 0.76, 0.7), (0.15, 0.18, 0.18, 0.15, 0.1))
    assert signs.peak == pytest.approx(0.6, abs=0.05)
    assert 0.4 < signs.kept < 0.75  # the odds fall from 4:1 to 7:3
    assert signs.value.value < 0.5


def test_pretraining_that_adds_nothing_means_no_similarity():
    assert measured((0.5, 0.6, 0.7, 0.7, 0.7), (0.5, 0.6, 0.7, 0.7, 0.7)).value.value < 0.1


def test_the_best_of_equal_depths_does_not_count_as_better_than_the_end():
    rng = np.random.default_rng(2)
    flat = [rng.random(300) < 0.8 for _ in DEPTHS]
    assert similarity(flat, right((0.3,) * 5, 300), DEPTHS, None, 0).kept > 0.85


def exactly(*wrong, n=900):
    """Returns which images probes classify correctly that are wrong on these numbers of images, on others at each depth."""
    return [~np.isin(np.arange(n), (50 * place + np.arange(count)) % n) for place, count in enumerate(wrong)]


def test_a_handful_of_images_does_not_decide_if_nearly_all_are_correct():
    random = exactly(300, 320, 310, 330, 340)
    equal, falling = (similarity(exactly(300, 90, 2, 4, end), random, DEPTHS, None, 0).value for end in (2, 8))
    assert equal.value > 0.85
    assert falling.value == pytest.approx(equal.value, abs=0.05)
    assert falling.low > 0.7


def test_the_similarity_is_unknown_if_random_weights_do_as_well():
    both = exactly(9, 5, 2, 1, 3)
    value = similarity(both, both, DEPTHS, None, 0).value
    assert (value.low, value.high) == (0.0, 1.0)


def test_few_images_give_a_wide_interval():
    few, many = (measured((0.4, 0.5, 0.6, 0.62, 0.6), (0.3,) * 5, n) for n in (60, 4000))
    assert few.value.high - few.value.low > 3 * (many.value.high - many.value.low)


def test_cuts_are_spread_over_the_depth_and_include_both_ends():
    known = tuple(Cut(f"c{i}", i, (i + 1) / 30, (4, 4, 8), i, i, i) for i in range(30))
    chosen = spread_cuts(known)
    assert len(chosen) == 8
    assert (chosen[0], chosen[-1]) == (known[0], known[-1])
    assert spread_cuts(known[:5]) == known[:5]
