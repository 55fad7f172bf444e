"""How many images there are, what they are worth, and the learning curve."""

import numpy as np
import pytest

from crossroads.advice.estimate import Estimate, from_log_odds
from crossroads.advice.size import SLOPES, USUAL_SLOPE, curve_of, effective_images, fitted, likeness, size_of, slope_of
from crossroads.evaluation import wilson_interval
from rows import dataset


def test_frames_that_are_the_same_count_once_and_those_that_are_not_all():
    groups = np.repeat(np.arange(50), 10)
    assert effective_images(groups, 1.0) == pytest.approx(50)
    assert effective_images(groups, 0.0) == pytest.approx(500)
    assert 50 < effective_images(groups, 0.3) < 200
    assert effective_images(None, None, 77) == 77


@pytest.mark.parametrize(("noise", "expected"), [(0.01, 1.0), (1.0, 0.5), (100.0, 0.0)])
def test_likeness_is_the_fraction_of_variance_that_a_group_has_in_common(noise, expected):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), 4)
    labels = groups % 2
    x = rng.normal(size=(200, 8))[groups] + labels[:, None] * 5 + rng.normal(size=(800, 8)) * noise
    assert likeness(x.astype(np.float32), labels, groups) == pytest.approx(expected, abs=0.08)


def test_a_sample_with_one_image_a_group_cannot_tell_and_frames_count_as_the_same():
    assert likeness(np.random.default_rng(0).normal(size=(9, 3)), np.zeros(9, int), np.arange(9)) is None
    assert effective_images(np.arange(9) // 3, None) == pytest.approx(3)


def test_images_that_repeat_others_are_not_counted_twice():
    found = dataset([0, 1] * 20)
    digests = np.repeat(np.arange(20, dtype=np.uint8)[:, None], 16, axis=1)
    size = size_of(found, np.concatenate([digests, digests]), np.zeros((40, 2), np.float32), found.labels, None)
    assert size.repeated == pytest.approx(0.5)
    assert size.effective == pytest.approx(20)
    assert (size.images, size.classes, size.smallest, size.effective_per_class) == (40, 2, 20, 10)


def test_images_that_could_not_be_read_do_not_make_others_look_repeated():
    found = dataset([0, 1] * 20)
    digests = np.repeat(np.arange(38, dtype=np.uint8)[:, None], 16, axis=1)
    digests[1] = digests[0]
    size = size_of(found, digests, np.zeros((38, 2), np.float32), found.labels[:38], None, refused=2)
    assert size.repeated == pytest.approx(1 / 38)


def test_a_sample_of_many_images_tells_how_many_repeat_others():
    """50,000 images, each of them twice: of 2,000 only some forty meet their control, and that is enough."""
    rows = np.random.default_rng(0).permutation(50_000)[:2000] // 2
    digests = np.zeros((2000, 16), np.uint8)
    digests[:, :8] = rows.astype(np.int64)[:, None].view(np.uint8)
    found = size_of(dataset([0, 1] * 25_000), digests, np.zeros((2000, 2), np.float32), np.zeros(2000, int), None)
    assert found.repeated == pytest.approx(0.5, abs=0.1)


def points(law, sizes=(250, 500, 1000, 2000)):
    return tuple((n, Estimate(1 - law(n), *wilson_interval((1 - law(n)) * n, n))) for n in sizes)


@pytest.mark.parametrize(
    "law", [lambda n: 3 * n**-0.5, lambda n: 0.1 + 8 * n**-0.7, lambda n: 0.25 + 0 * n], ids=["falls", "falls to a floor", "stays"]
)
def test_a_law_is_carried_on(law):
    curve = fitted(points(law), 4000, np.random.default_rng(0))
    assert curve.here.low <= 1 - law(4000) <= curve.here.high
    assert curve.twice.low <= 1 - law(8000) <= curve.twice.high
    assert curve.here.value == pytest.approx(1 - law(4000), abs=0.02)
    assert curve.here.high - curve.here.low < 0.12


def test_a_probe_gets_better_with_more_images():
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 6
    x = (rng.normal(size=(6, 40)) * 0.35)[labels] + rng.normal(size=(600, 40))
    curve = curve_of(x.astype(np.float32), labels, None, 2.0, 0)
    sizes, values = zip(*((n, found.value) for n, found in curve.points), strict=True)
    assert sizes[-1] == 540  # nine tenths of them, since a probe leaves out a tenth
    assert values[-1] > values[0] + 0.05
    assert curve.twice.value >= curve.here.value >= values[-1] - 0.05
    assert curve.gain == pytest.approx(curve.twice.value - curve.here.value)


def measured(*values):
    """Points of a learning curve at 100 images, 200, 400 and so on."""
    return tuple((100 * 2**i, Estimate(value, value, value)) for i, value in enumerate(values))


def test_the_slope_is_what_twice_the_images_add_in_log_odds():
    assert slope_of(measured(*(from_log_odds(0.3 + 0.4 * i) for i in range(4)))) == pytest.approx(0.4)
    assert slope_of(measured(0.5)) == USUAL_SLOPE  # one point has none


def test_a_slope_of_a_few_scattered_points_promises_nothing_beyond_its_limits():
    assert (slope_of(measured(0.9, 0.8)), slope_of(measured(0.1, 0.9))) == SLOPES
    assert slope_of(measured(1.0, 1.0, 1.0)) == pytest.approx(np.log(2), abs=0.01)  # errors too few to be seen may halve
