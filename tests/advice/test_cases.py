"""The four cases, from size and similarity."""

import pytest

from crossroads.advice.cases import LARGE, SIMILAR, TITLES, case_of
from crossroads.advice.estimate import Estimate
from crossroads.advice.profile import Depth, Profile, Similarity
from crossroads.errors import TrainingError

KNOWN = Estimate(0.5, 0.45, 0.55)


def profile(similarity, low=None, high=None, random=0.4):
    value = Estimate(similarity, similarity if low is None else low, similarity if high is None else high)
    depths = (Depth("end", 1.0, KNOWN, Estimate(random, random, random)),)
    return Profile("mobilenet", 96, 500, depths, Similarity(value, 1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("of_a_class", "similarity", "number", "does"),
    [
        (LARGE - 1, SIMILAR, 1, "feature extraction"),
        (LARGE - 1, SIMILAR - 0.01, 2, "early features"),
        (LARGE, SIMILAR, 3, "finetuning"),
        (LARGE, SIMILAR - 0.01, 4, "from scratch"),
    ],
)
def test_each_quarter_of_the_plane_is_a_case(of_a_class, similarity, number, does):
    case = case_of(of_a_class, profile(similarity))
    assert (case.number, case.title) == (number, TITLES[number])
    assert does in case.title
    assert case.doubt == ""


@pytest.mark.parametrize(("of_a_class", "size"), [(0.5, 0.0), (1, 0.0), (100, 0.5), (10_000, 1.0), (10**7, 1.0)])
def test_size_is_on_an_axis_of_decades(of_a_class, size):
    assert case_of(of_a_class, profile(0.7)).size == pytest.approx(size)


def test_an_interval_that_crosses_the_border_is_a_doubt():
    assert case_of(10, profile(0.6, low=0.5, high=0.7)).doubt == "the interval leaves it open"
    assert case_of(10, profile(0.6, low=0.56, high=0.7)).doubt == ""


def test_random_weights_that_do_as_well_are_a_doubt():
    assert case_of(10, profile(0.1, random=0.99)).doubt.startswith("random weights tell the classes nearly as well")


def test_no_case_is_drawn_from_a_network_without_pretrained_weights():
    with pytest.raises(TrainingError, match="random control"):
        case_of(10, Profile("small-cnn", 32, 500, (Depth("end", 1.0, KNOWN, None),), None))
