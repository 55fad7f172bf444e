"""The size in independent images, and the learning curve."""

import numpy as np
import pytest

from crossroads.advice.estimate import Estimate, from_log_odds
from crossroads.advice.size import (
    SLOPES,
    USUAL_SLOPE,
    CurvePoint,
    effective_images,
    fit_curve,
    intraclass_correlation,
    learning_curve,
    measure_size,
    slope_of,
)
from crossroads.evaluation import wilson_interval
from rows import dataset


def test_equal_frames_count_once_and_independent_ones_each():
    groups = np.repeat(np.arange(50), 10)
    assert effective_images(groups, 1.0) == pytest.approx(50)
    assert effective_images(groups, 0.0) == pytest.approx(500)
    assert 50 < effective_images(groups, 0.3) < 200


@pytest.mark.parametrize(("noise", "expected"), [(0.01, 1.0), (1.0, 0.5), (100.0, 0.0)])
def test_the_correlation_is_the_fraction_of_variance_between_groups(noise, expected):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), 4)
    labels = groups % 2
    x = rng.normal(size=(200, 8))[groups] + labels[:, None] * 5 + rng.normal(size=(800, 8)) * noise
    assert intraclass_correlation(x.astype(np.float32), labels, groups) == pytest.approx(expected, abs=0.08)


def test_a_group_counts_once_if_the_sample_has_one_image_per_group():
    assert intraclass_correlation(np.random.default_rng(0).normal(size=(9, 3)), np.zeros(9, int), np.arange(9)) is None
    assert effective_images(np.arange(9) // 3, None) == pytest.approx(3)


def test_copies_are_not_counted():
    images = dataset([0, 1] * 20)
    digests = np.repeat(np.arange(20, dtype=np.uint8)[:, None], 16, axis=1)
    size = measure_size(images, np.concatenate([digests, digests]), np.zeros((40, 2), np.float32), images.labels, None)
    assert size.repeated == pytest.approx(0.5)
    assert size.effective == pytest.approx(20)
    assert (size.images, size.classes, size.smallest_class, size.effective_per_class) == (40, 2, 20, 10)


def test_unreadable_images_do_not_count_as_copies():
    images = dataset([0, 1] * 20)
    digests = np.repeat(np.arange(38, dtype=np.uint8)[:, None], 16, axis=1)
    digests[1] = digests[0]
    size = measure_size(images, digests, np.zeros((38, 2), np.float32), images.labels[:38], None, refused=2)
    assert size.repeated == pytest.approx(1 / 38)


def test_a_sample_shows_how_many_images_are_copies():
    """Each of 25,000 images occurs twice. A sample of 2,000 has about forty pairs, which is enough."""
    images = np.random.default_rng(0).permutation(50_000)[:2000] // 2
    digests = np.zeros((2000, 16), np.uint8)
    digests[:, :8] = images.astype(np.int64)[:, None].view(np.uint8)
    size = measure_size(dataset([0, 1] * 25_000), digests, np.zeros((2000, 2), np.float32), np.zeros(2000, int), None)
    assert size.repeated == pytest.approx(0.5, abs=0.1)


def points(law, sizes=(250, 500, 1000, 2000)):
    return tuple(CurvePoint(n, Estimate(1 - law(n), *wilson_interval((1 - law(n)) * n, n))) for n in sizes)


@pytest.mark.parametrize(
    "law", [lambda n: 3 * n**-0.5, lambda n: 0.1 + 8 * n**-0.7, lambda n: 0.25 + 0 * n], ids=["falls", "falls to a floor", "stays"]
)
def test_a_law_is_extrapolated(law):
    curve = fit_curve(points(law), 4000, np.random.default_rng(0))
    assert curve.here.low <= 1 - law(4000) <= curve.here.high
    assert curve.twice.low <= 1 - law(8000) <= curve.twice.high
    assert curve.here.value == pytest.approx(1 - law(4000), abs=0.02)
    assert curve.here.high - curve.here.low < 0.12


def test_a_probe_improves_with_more_images():
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 6
    x = (rng.normal(size=(6, 40)) * 0.35)[labels] + rng.normal(size=(600, 40))
    curve = learning_curve(x.astype(np.float32), labels, None, 2.0, 0)
    sizes, values = zip(*((n, accuracy.value) for n, accuracy in curve.points), strict=True)
    assert sizes[-1] == 540  # nine tenths, because a probe leaves out a tenth
    assert values[-1] > values[0] + 0.05
    assert curve.twice.value >= curve.here.value >= values[-1] - 0.05
    assert curve.gain == pytest.approx(curve.twice.value - curve.here.value)


def measured(*values):
    """Returns points of a learning curve at 100 images, 200, 400 and so on."""
    return tuple(CurvePoint(100 * 2**i, Estimate(value, value, value)) for i, value in enumerate(values))


def test_the_slope_is_the_gain_per_doubling_in_log_odds():
    assert slope_of(measured(*(from_log_odds(0.3 + 0.4 * i) for i in range(4)))) == pytest.approx(0.4)
    assert slope_of(measured(0.5)) == USUAL_SLOPE  # one point has no slope


def test_the_slope_is_limited():
    assert (slope_of(measured(0.9, 0.8)), slope_of(measured(0.1, 0.9))) == SLOPES
    assert slope_of(measured(1.0, 1.0, 1.0)) == pytest.approx(np.log(2), abs=0.01)  # unmeasurable errors may halve
