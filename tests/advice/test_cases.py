"""The four cases and the doubts about them."""

import pytest

from crossroads.advice.cases import LARGE, SIMILAR, TITLES, case_of
from crossroads.advice.estimate import Estimate
from crossroads.advice.profile import Depth, Profile, Similarity
from crossroads.errors import TrainingError
from refusals import refused

KNOWN = Estimate(0.5, 0.45, 0.55)


def profile(similarity, low=None, high=None, random=0.4):
    value = Estimate(similarity, similarity if low is None else low, similarity if high is None else high)
    depths = (Depth("end", 1.0, KNOWN, Estimate(random, random, random)),)
    return Profile("mobilenet", 96, 500, depths, Similarity(value, 1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("images_per_class", "similarity", "number", "strategy"),
    [
        (LARGE - 1, SIMILAR, 1, "feature extraction"),
        (LARGE - 1, SIMILAR - 0.01, 2, "early features"),
        (LARGE, SIMILAR, 3, "finetuning"),
        (LARGE, SIMILAR - 0.01, 4, "from scratch"),
    ],
)
def test_each_quadrant_of_size_and_similarity_is_a_case(images_per_class, similarity, number, strategy):
    case = case_of(images_per_class, profile(similarity))
    assert (case.number, case.title) == (number, TITLES[number])
    assert strategy in case.title
    assert case.doubt is None


@pytest.mark.parametrize(("images_per_class", "size"), [(0.5, 0.0), (1, 0.0), (100, 0.5), (10_000, 1.0), (10**7, 1.0)])
def test_size_is_measured_in_decades(images_per_class, size):
    assert case_of(images_per_class, profile(0.7)).size == pytest.approx(size)


def test_an_interval_that_includes_the_limit_is_a_doubt():
    assert case_of(10, profile(0.6, low=0.5, high=0.7)).doubt.code == "similarity-uncertain"
    assert case_of(10, profile(0.6, low=0.56, high=0.7)).doubt is None


def test_an_equally_accurate_random_control_is_a_doubt():
    assert case_of(10, profile(0.1, random=0.99)).doubt.code == "random-control-saturated"


def test_a_case_needs_pretrained_weights():
    with refused("no-random-control", TrainingError, received="small-cnn"):
        case_of(10, Profile("small-cnn", 32, 500, (Depth("end", 1.0, KNOWN, None),), None))
