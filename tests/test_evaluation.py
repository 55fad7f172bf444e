"""Covers scores, which equal hand counts and scikit-learn's, and intervals, which equal published ones and cover the truth."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from crossroads import evaluation
from crossroads.data.loading import Refusal
from crossroads.errors import DataError
from crossroads.evaluation import CROSS_VALIDATION_VARIANCE, Evaluation, evaluate, paired_difference, widened, wilson_interval
from refusals import refused


def confident(labels, k, confidence=0.9):
    """Returns probabilities whose most probable class is `labels`."""
    p = np.full((len(labels), k), (1 - confidence) / (k - 1))
    p[np.arange(len(labels)), labels] = confidence
    return p


def drawn(seed, n=200, k=6):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(k, 0.5), n), rng.integers(0, k, n), [f"c{i}" for i in range(k)]


@pytest.mark.parametrize("seed", range(3))
def test_figures_agree_with_scikit_learn(seed):
    p, y, classes = drawn(seed)
    e = evaluate(p, y, classes)
    guess = p.argmax(axis=1)
    assert e.accuracy == pytest.approx(metrics.accuracy_score(y, guess))
    assert e.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(y, guess))
    assert e.loss == pytest.approx(metrics.log_loss(y, np.clip(p, 1e-7, 1), labels=range(6)), rel=1e-4)
    assert np.array_equal(e.confusion_matrix, metrics.confusion_matrix(y, guess, labels=range(6)))
    expected = metrics.precision_recall_fscore_support(y, guess, labels=range(6))
    for ours, theirs in zip(zip(*[s[1:] for s in e.per_class], strict=True), expected, strict=True):
        assert ours == pytest.approx(tuple(theirs))
    for k in (3, 5):
        assert e.top_k[k] == pytest.approx(metrics.top_k_accuracy_score(y, p, k=k, labels=range(6)))
    assert e.top_k[1] == e.accuracy


def test_top_k_is_left_out_for_k_not_below_the_number_of_classes():
    p, y, _ = drawn(0, k=3)
    assert list(evaluate(p, y, "abc").top_k) == [1]
    assert list(evaluate(p, y, "abc", top=(2, 3, 99)).top_k) == [2]


def test_a_tie_goes_to_the_first_class_and_top_1_agrees():
    e = evaluate(np.full((4, 4), 0.25), [0, 1, 2, 3], "abcd", top=(1, 2, 3))
    assert e.accuracy == 0.25
    assert e.top_k == {1: 0.25, 2: 0.5, 3: 0.75}


def test_loss_of_an_impossible_truth_is_clipped():
    assert evaluate([[1.0, 0.0]], [1], "ab").loss == pytest.approx(-np.log(1e-7))


def test_calibration_error_by_hand():
    # 8 of ten images are right at confidence 0.95, and 5 of ten at 0.55: (10*|.8-.95| + 10*|.5-.55|) / 20.
    truth = np.array([0] * 8 + [1] * 2 + [0] * 5 + [1] * 5)
    p = np.concatenate([confident(np.zeros(10, int), 2, 0.95), confident(np.zeros(10, int), 2, 0.55)])
    assert evaluate(p, truth, "ab").expected_calibration_error == pytest.approx(0.1)


def test_calibration_error_is_zero_for_certain_and_correct_predictions():
    assert evaluate(np.eye(3), [0, 1, 2], "abc").expected_calibration_error == 0.0


def test_a_class_without_images_has_no_scores_and_does_not_count_in_balanced_accuracy():
    e = evaluate(confident([0, 1, 2], 3), [0, 1, 1], ["a", "b", "never"])
    assert e.per_class[2] == ("never", None, None, None, 0)
    assert e.balanced_accuracy == 0.75
    assert e.per_class[1].recall == 0.5
    assert e.untested_classes == tuple(e.to_json()["untested_classes"]) == ("never",)
    assert evaluate(confident([0, 1], 2), [0, 1], "ab").untested_classes == ()


def test_an_evaluation_is_read_from_its_json():
    e = evaluate(confident([0, 1, 0], 3), [0, 1, 1], ["a", "b", "never"], groups=[0, 1, 1])
    e = replace(e, refused=(Refusal(4, "x.png", "no image"),), warnings=("few images",))
    again = Evaluation.from_json(json.loads(json.dumps(e.to_json())))
    assert again.to_json() == e.to_json()
    assert (again.per_class, again.mistakes, again.top_k) == (e.per_class, e.mistakes, e.top_k)
    assert not again.confusion_matrix.flags.writeable


def test_class_that_is_never_predicted_has_no_precision():
    score = evaluate(confident([0, 0], 2), [0, 1], "ab").per_class[1]
    assert (score.precision, score.recall, score.f1) == (None, 0.0, 0.0)


def test_mistakes_come_most_confident_first_with_names():
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.99, 0.01]])
    e = evaluate(p, [1, 1, 1, 0], ["no", "yes"], names=["a.png", "b.png", "c.png", "d.png"])
    assert e.mistakes == (("a.png", "yes", "no", 0.9), ("b.png", "yes", "no", 0.6))
    assert evaluate(p, [1, 1, 1, 0], ["no", "yes"]).mistakes[0].name == "row 0"


def test_at_most_twenty_mistakes_are_listed():
    assert len(evaluate(confident(np.zeros(50, int), 2), np.ones(50, int), "ab").mistakes) == evaluation.MAX_MISTAKES


def test_wilson_limits_are_the_published_ones():
    # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@given(n=st.integers(1, 10_000), proportion=st.floats(0, 1))
def test_wilson_contains_the_proportion_and_stays_in_bounds(n, proportion):
    hits = round(proportion * n)
    low, high = wilson_interval(hits, n)
    assert 0 <= low <= hits / n <= high <= 1
    assert high > low


def test_independent_images_take_wilson_and_say_so():
    e = evaluate(confident([0] * 20, 2), [0] * 20, "ab")
    assert e.interval_method == "wilson"
    assert e.accuracy_interval == wilson_interval(20, 20)


def test_balanced_accuracy_without_a_mistake_is_not_certain():
    y = np.repeat(np.arange(4), 25)
    low, high = evaluate(confident(y, 4), y, "abcd").balanced_accuracy_interval
    assert high == 1.0
    assert wilson_interval(25, 25)[0] < low < 0.99


def test_balanced_interval_of_one_class_is_wilson():
    y = np.zeros(40, int)
    guess = y.copy()
    guess[:7] = 1
    e = evaluate(confident(guess, 2), y, "ab")
    assert e.balanced_accuracy_interval == pytest.approx(e.accuracy_interval)


def frames(groups, size, wrong_groups, k=4):
    """Returns `groups` signs of `size` frames each. All frames of `wrong_groups` of them are misclassified."""
    group = np.repeat(np.arange(groups), size)
    y = group % k
    guess = np.where(group < wrong_groups, (y + 1) % k, y)
    return confident(guess, k), y, group


def test_bootstrap_over_groups_is_wider_than_wilson_over_frames():
    p, y, group = frames(100, 30, 12)
    grouped, plain = evaluate(p, y, "abcd", groups=group), evaluate(p, y, "abcd")
    assert grouped.interval_method == "group bootstrap"
    assert (grouped.n, grouped.groups, plain.groups) == (3000, 100, None)
    width = np.diff(grouped.accuracy_interval).item()
    assert width > 3 * np.diff(plain.accuracy_interval).item()
    # Whole groups are right or wrong here, so the truth is a binomial over 100 signs.
    assert grouped.accuracy_interval == pytest.approx(wilson_interval(88, 100), abs=0.02)
    assert grouped.balanced_accuracy_interval == pytest.approx(wilson_interval(88, 100), abs=0.03)


def test_bootstrap_is_the_same_each_time_and_for_any_numbering_of_groups():
    p, y, group = frames(60, 5, 9)
    first, again, renamed = (evaluate(p, y, "abcd", groups=g) for g in (group, group, group * 7 + 1000))
    assert first.accuracy_interval == again.accuracy_interval == renamed.accuracy_interval
    assert first.balanced_accuracy_interval == again.balanced_accuracy_interval == renamed.balanced_accuracy_interval


def test_bootstrap_in_pieces_equals_bootstrap_at_once(monkeypatch):
    p, y, group = frames(60, 5, 9)
    whole = evaluate(p, y, "abcd", groups=group)
    monkeypatch.setattr(evaluation, "_CHUNK", 500)
    assert evaluate(p, y, "abcd", groups=group).accuracy_interval == whole.accuracy_interval


def test_bootstrap_by_counts_equals_bootstrap_by_rows(monkeypatch):
    p, y, group = frames(12, 3, 6)
    correct = p.argmax(axis=1) == y
    monkeypatch.setattr(evaluation, "RESAMPLES", 50)
    plain, even = evaluation._bootstrap(group, y, correct, 12)
    draws = np.random.default_rng(evaluation.BOOTSTRAP_SEED).integers(0, 12, (50, 12))
    for got_plain, got_even, draw in zip(plain, even, draws, strict=True):
        rows = np.concatenate([np.flatnonzero(group == g) for g in draw])
        assert got_plain == pytest.approx(correct[rows].mean())
        assert got_even == pytest.approx(np.mean([correct[rows][y[rows] == c].mean() for c in np.unique(y[rows])]))


@pytest.mark.parametrize(("groups", "wrong"), [(40, 0), (40, 40), (40, 2), (4, 2), (1, 0)])
def test_groups_count_as_images_if_there_are_too_few_for_a_bootstrap(groups, wrong):
    p, y, group = frames(groups, 30, wrong)
    e = evaluate(p, y, "abcd", groups=group)
    assert e.interval_method == "wilson over groups"
    assert e.accuracy_interval == pytest.approx(wilson_interval(groups - wrong, groups))
    low, high = e.balanced_accuracy_interval
    assert low <= e.balanced_accuracy <= high
    assert high - low > 0.05


def test_grouped_interval_covers_the_truth_about_as_often_as_it_says():
    rng, truth, hits = np.random.default_rng(5), 0.85, 0
    for _ in range(100):
        rate = rng.beta(truth * 2, (1 - truth) * 2, 60)  # every sign has its own difficulty
        right = rng.random((60, 10)) < rate[:, None]
        guess = np.where(right.ravel(), 0, 1)
        low, high = evaluate(confident(guess, 2), np.zeros(600, int), "ab", groups=np.repeat(np.arange(60), 10)).accuracy_interval
        hits += low <= truth <= high
    assert 88 <= hits <= 100


@pytest.mark.parametrize(
    ("sizes", "truth"), [([1000, *[1] * 8], 0.5), ([200, 100, 50, 20, 10, 5, 5, 5, 5], 0.7), ([1000, 200, *[1] * 12], 0.5)]
)
def test_intervals_cover_the_truth_where_groups_are_of_unequal_sizes(sizes, truth):
    rng, group = np.random.default_rng(6), np.repeat(np.arange(len(sizes)), sizes)
    hits = np.zeros(2)
    for _ in range(200):
        guess = np.where(rng.random(len(sizes)) < truth, 0, 1)[group]  # a sign is right or wrong in all its frames
        e = evaluate(confident(guess, 2), np.zeros(len(group), int), "ab", groups=group)
        assert e.interval_method == "wilson over groups"
        hits += [low <= truth <= high for low, high in (e.accuracy_interval, e.balanced_accuracy_interval)]
    assert (hits >= 180).all()


def test_groups_count_by_their_effective_number_in_all_and_in_each_class():
    group = np.repeat(np.arange(5), [30, 10, 20, 20, 40])
    y = (group > 1).astype(int)
    e = evaluate(confident(y, 2), y, "ab", groups=group)
    assert e.accuracy_interval == pytest.approx(wilson_interval(n := 120**2 / (900 + 100 + 400 + 400 + 1600), n))
    first, second = (1 - wilson_interval(n, n)[0] for n in (40**2 / 1000, 80**2 / 2400))
    assert e.balanced_accuracy_interval == pytest.approx((1 - np.hypot(first, second) / 2, 1))


def test_classes_with_common_groups_are_not_independent():
    group, y = np.repeat(np.arange(6), 8), np.tile(np.arange(4), 12)
    e = evaluate(confident(y, 4), y, "abcd", groups=group)
    assert e.balanced_accuracy_interval == pytest.approx(wilson_interval(6, 6)), "six groups, however many classes they hold"


def test_json_has_no_nan_and_the_summary_has_five_keys():
    p, y, classes = drawn(1)
    y[y == 5] = 0
    e = evaluate(p, y, classes, groups=np.arange(len(y)) // 4)
    values = json.loads(json.dumps(e.to_json(), allow_nan=False))
    assert list(e.summary()) == ["n", "accuracy", "accuracy_interval", "balanced_accuracy", "loss"]
    assert values["accuracy_interval"] == list(e.accuracy_interval)
    assert values["per_class"][5] == {"name": "c5", "precision": None, "recall": None, "f1": None, "support": 0}
    assert np.array_equal(values["confusion_matrix"], e.confusion_matrix)
    assert {"top_k", "mistakes", "expected_calibration_error", "interval_method", "groups", "classes"} <= values.keys()


def test_an_evaluation_cannot_be_changed():
    e = evaluate(np.eye(2), [0, 1], "ab")
    with pytest.raises(AttributeError):
        e.accuracy = 1.0
    with pytest.raises(ValueError, match="read-only"):
        e.confusion_matrix[0, 0] = 9


@pytest.mark.parametrize(
    ("p", "y", "more", "code", "received"),
    [
        (np.empty((0, 2)), [], {}, "no-images", "none"),
        (np.eye(2)[0], [0], {}, "other-shape", "(2,)"),
        (np.eye(3), [0, 1, 2], {}, "other-shape", "(3, 3)"),
        ([[np.nan, 1.0]], [0], {}, "not-probabilities", "[nan, 1.0] in row 0"),
        ([[0.5, 0.5], [0.9, 0.9]], [0, 1], {}, "not-probabilities", "[0.9, 0.9] in row 1"),
        ([[1.5, -0.5]], [0], {}, "not-probabilities", "[1.5, -0.5] in row 0"),
        (np.eye(2), [0], {}, "other-shape", "(1,)"),
        (np.eye(2), [0, 2], {}, "out-of-range", "2 in row 1"),
        (np.eye(2), [-1, 0], {}, "out-of-range", "-1 in row 0"),
        (np.eye(2), [0.0, 1.0], {}, "not-integers", "float64"),
        (np.eye(2), [0, 1], {"names": ["one"]}, "other-shape", "(1,)"),
        (np.eye(2), [0, 1], {"groups": [1]}, "other-shape", "(1,)"),
    ],
)
def test_bad_input_is_refused(p, y, more, code, received):
    with refused(code, DataError) as error:
        evaluate(p, y, "ab", **more)
    assert str(error.value.received) == received


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(2, 9), st.booleans())
def test_every_interval_holds_its_estimate(seed, n, k, grouped):
    rng = np.random.default_rng(seed)
    p, y = rng.dirichlet(np.full(k, 0.3), n), rng.integers(0, k, n)
    e = evaluate(p, y, [str(i) for i in range(k)], groups=rng.integers(0, 30, n) if grouped else None)
    for (low, high), value in ((e.accuracy_interval, e.accuracy), (e.balanced_accuracy_interval, e.balanced_accuracy)):
        assert 0 <= low <= value + 1e-12
        assert value - 1e-12 <= high <= 1
    assert e.confusion_matrix.sum() == n
    assert 0 <= e.expected_calibration_error <= 1


def test_a_paired_difference_has_the_error_of_mcnemar():
    """Of 40 images 3 are right with the first alone and 1 with the second alone: b - c = 2, and the error is the root of b + c."""
    first, second = np.ones(40, bool), np.ones(40, bool)
    first[0], second[1:4] = False, False
    assert paired_difference(first, second) == pytest.approx((0.05, 0.05))
    assert paired_difference(second, first) == pytest.approx((-0.05, 0.05))
    assert paired_difference(first, first) == (0.0, 0.0)


def test_a_paired_difference_counts_groups_as_one():
    first = np.ones(30, bool)
    second, groups = first.copy(), np.arange(30) // 3
    second[:6] = False  # two groups
    assert paired_difference(first, second, groups) == pytest.approx((0.2, np.sqrt(18) / 30))
    assert paired_difference(first, second)[1] == pytest.approx(np.sqrt(6) / 30)


def test_cross_validated_intervals_are_wider_and_stay_in_range():
    y = np.arange(40) % 2
    p = np.eye(2)[np.where(np.arange(40) < 4, 1 - y, y)]
    plain = evaluate(p, y, "ab")
    wider = widened(plain)
    ratio = np.subtract(*wider.accuracy_interval) / np.subtract(*plain.accuracy_interval)
    assert ratio == pytest.approx(np.sqrt(CROSS_VALIDATION_VARIANCE))
    assert wider.interval_method == "wilson, cross-validated"
    assert widened(evaluate(np.eye(2)[y], y, "ab")).accuracy_interval[1] == 1.0
