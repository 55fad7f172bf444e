"""Covers cross-validation on few images: honest although the best of many heads is chosen, in whole groups, equal to refitting."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from crossroads.heads import crossvalidate
from crossroads.heads.crossvalidate import FOLDS, MAX_ROWS, PENALTIES, cross_validate
from crossroads.heads.folds import deal, joined
from crossroads.heads.solve import loss_and_accuracy, solve_with


def clouds(n, d=20, classes=3, apart=0.6, seed=0):
    centres = np.random.default_rng(7).normal(0, apart, (classes, d))
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return (centres[labels] + rng.normal(size=(n, d))).astype(np.float32), labels


def accuracy(found, labels):
    return float((found.probabilities.argmax(axis=1) == labels)[found.held_out].mean())


def test_random_labels_are_predicted_by_chance_although_the_best_of_many_heads_is_chosen():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    found = [cross_validate(rng.normal(size=(60, 200)).astype(np.float32), labels, 2) for _ in range(12)]
    assert 0.42 < np.mean([accuracy(one, labels) for one in found]) < 0.56


def test_the_accuracy_is_that_of_new_images():
    gaps = []
    for seed in range(6):
        features, labels = clouds(90, seed=seed)
        found = cross_validate(features, labels, 3)
        head = solve_with(found.kind, found.penalty, features, labels, 3, groups=deal(labels, count=10))
        gaps.append(accuracy(found, labels) - loss_and_accuracy(*clouds(3000, seed=100 + seed), *head)[1])
    assert abs(np.mean(gaps)) < 0.04


def test_frames_of_one_object_do_not_predict_each_other():
    rng = np.random.default_rng(1)
    objects, groups = rng.normal(size=(20, 30)), np.repeat(np.arange(20), 5)
    features = (objects[groups] + rng.normal(size=(100, 30)) * 0.01).astype(np.float32)
    labels = (np.arange(20) % 2)[groups]  # the class of an object says nothing of its look
    assert accuracy(cross_validate(features, labels, 2), labels) > 0.95
    assert accuracy(cross_validate(features, labels, 2, groups=groups), labels) < 0.75


def test_ridge_regression_without_folds_equals_a_fit_to_the_others(monkeypatch):
    """The one penalty is chosen in any case, and logistic regression is left out, so the probabilities are those of the fits."""
    monkeypatch.setattr(crossvalidate, "PENALTIES", (0.05,))
    monkeypatch.setattr(crossvalidate._Logistic, "loss", lambda *_: np.inf)
    monkeypatch.setattr(crossvalidate, "MAX_REPEATS", 1)
    features, labels = clouds(60)
    found = cross_validate(features, labels, 3)
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.maximum(spread, np.median(spread)) / np.sqrt(features.shape[1])
    fold = deal(labels, count=FOLDS, draw=1)
    for number in range(FOLDS):
        out = fold == number
        model = Ridge(alpha=0.05 * 60).fit(scaled[~out], np.eye(3)[labels[~out]])
        expected = model.predict(scaled[out])
        given = np.log(found.probabilities[out])
        given -= given.mean(axis=1, keepdims=True)
        expected -= expected.mean(axis=1, keepdims=True)
        factor = (given * expected).sum() / (expected**2).sum()  # the temperature
        np.testing.assert_allclose(given, factor * expected, atol=0.02)


def test_the_only_image_of_a_class_is_always_trained_on():
    features, labels = clouds(31)
    labels = np.append(labels[:-1], 3)
    found = cross_validate(features, labels, 4)
    assert found.held_out.tolist() == [True] * 30 + [False]
    assert not found.probabilities[-1].any()
    np.testing.assert_allclose(found.probabilities[:-1].sum(axis=1), 1, atol=1e-5)


def test_the_same_images_give_the_same_result():
    first, second = (cross_validate(*clouds(40), 3) for _ in range(2))
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    assert first.candidates == second.candidates


def test_every_candidate_is_reported_and_the_best_is_chosen():
    found = cross_validate(*clouds(60), 3)
    assert sum(one.kind == "ridge" for one in found.candidates) == len(PENALTIES)
    best = min(found.candidates, key=lambda one: one.held_out_loss)
    assert (found.kind, found.penalty) == (best.kind, best.penalty)


def test_row_weights_count_as_repeated_rows():
    features, labels = clouds(30)
    twice = np.concatenate([np.arange(30), np.arange(10)])
    weights = np.where(np.arange(30) < 10, 2.0, 1.0)
    repeated = cross_validate(features[twice], labels[twice], 3, groups=twice)
    weighted = cross_validate(features, labels, 3, weights=weights)
    assert weighted.folds == repeated.folds
    assert weighted.probabilities.shape == (30, 3)


@pytest.mark.parametrize(
    ("labels", "groups"),
    [
        (np.arange(MAX_ROWS + 1) % 2, None),  # too many rows
        (np.zeros(20, int), None),  # one class
        (np.arange(20) % 2, np.arange(20) % 2),  # each class is one group
        (np.arange(4) // 2, np.array([0, 0, 1, 1])),
    ],
)
def test_what_cannot_be_cross_validated_has_no_result(labels, groups):
    assert cross_validate(np.random.default_rng(0).normal(size=(len(labels), 3)), labels, 2, groups=groups) is None


def test_rows_that_share_anything_are_joined_in_chains():
    assert joined(np.array([0, 0, 1, 2]), np.array([5, 6, 6, 7])).tolist() == [0, 0, 0, 1]
    assert joined(np.array([3, 1, 3])).tolist() == [0, 1, 0]


def test_draws_differ_and_keep_groups_whole():
    labels, groups = np.repeat(np.arange(4), 60), np.arange(240) // 3
    first, second = (deal(labels, groups, count=5, draw=draw) for draw in (1, 2))
    assert (first != second).any()
    for fold in (first, second):
        assert all(len(set(fold[groups == group])) == 1 for group in range(80))
        assert (np.array([np.bincount(fold[labels == label], minlength=5) for label in range(4)]) == 12).all()
