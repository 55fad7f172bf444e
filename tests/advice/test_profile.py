"""The depth profile and the similarity that is drawn from it, on profiles whose answer is known."""

import numpy as np
import pytest

from crossroads.advice.profile import similarity, spread
from crossroads.networks.cuts import Cut

DEPTHS = (0.2, 0.4, 0.6, 0.8, 1.0)


def right(accuracies, n=2000, seed=0):
    """What probes of these accuracies get right: images differ in how hard they are, as images do."""
    hard = np.random.default_rng(seed).random(n)
    return [hard < accuracy for accuracy in accuracies]


def found(pretrained, random, n=2000):
    return similarity(right(pretrained, n), right(random, n, seed=1), DEPTHS, None, 0)


def test_images_that_every_layer_tells_better_are_similar():
    photos = found((0.55, 0.65, 0.75, 0.85, 0.95), (0.5, 0.55, 0.6, 0.6, 0.55))
    assert photos.peak > 0.95
    assert photos.kept == pytest.approx(1.0, abs=0.01)
    assert photos.value.value > 0.8
    assert photos.value.low <= photos.value.value <= photos.value.high


def test_images_whose_classes_the_last_layers_lose_are_different():
    signs = found((0.3, 0.6, 0.8, 0.76, 0.7), (0.15, 0.18, 0.18, 0.15, 0.1))
    assert signs.peak == pytest.approx(0.6, abs=0.05)
    assert 0.4 < signs.kept < 0.75  # odds of 7:3 where there were 4:1
    assert signs.value.value < 0.5


def test_pretraining_that_adds_nothing_shows_no_similarity():
    assert found((0.5, 0.6, 0.7, 0.7, 0.7), (0.5, 0.6, 0.7, 0.7, 0.7)).value.value < 0.1


def test_a_maximum_among_equals_is_no_loss():
    """Five depths that differ by chance alone: the best of them must not count as better than the end."""
    rng = np.random.default_rng(2)
    flat = [rng.random(300) < 0.8 for _ in DEPTHS]
    assert similarity(flat, right((0.3,) * 5, 300), DEPTHS, None, 0).kept > 0.85


def exactly(*wrong, n=900):
    """What probes get right that are wrong on so many images, on others at each depth."""
    return [~np.isin(np.arange(n), (50 * place + np.arange(count)) % n) for place, count in enumerate(wrong)]


def test_a_handful_of_images_decides_nothing_if_all_are_classified():
    random = exactly(300, 320, 310, 330, 340)
    alike, fewer = (similarity(exactly(300, 90, 2, 4, end), random, DEPTHS, None, 0).value for end in (2, 8))
    assert alike.value > 0.85
    assert fewer.value == pytest.approx(alike.value, abs=0.05)
    assert fewer.low > 0.7


def test_where_random_weights_tell_everything_too_nothing_is_known():
    both = exactly(9, 5, 2, 1, 3)
    known = similarity(both, both, DEPTHS, None, 0).value
    assert (known.low, known.high) == (0.0, 1.0)


def test_few_images_leave_a_wide_interval():
    few, many = (found((0.4, 0.5, 0.6, 0.62, 0.6), (0.3,) * 5, n) for n in (60, 4000))
    assert few.value.high - few.value.low > 3 * (many.value.high - many.value.low)


def test_cuts_are_spread_over_the_depth_with_both_ends():
    known = tuple(Cut(f"c{i}", i, (i + 1) / 30, (4, 4, 8), i, i, i) for i in range(30))
    chosen = spread(known)
    assert len(chosen) == 8
    assert (chosen[0], chosen[-1]) == (known[0], known[-1])
    assert spread(known[:5]) == known[:5]
