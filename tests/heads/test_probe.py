"""Covers probes: cross-validated ridge regression in closed form, stratified folds, whole groups."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from crossroads.errors import TrainingError
from crossroads.heads.folds import deal
from crossroads.heads.probe import FOLDS, probe
from refusals import refused


def test_it_is_ridge_regression_on_the_other_folds():
    rng = np.random.default_rng(0)
    y = np.arange(40) % 3
    x = (rng.normal(size=(3, 6)) * 0.6)[y] + rng.normal(size=(40, 6))
    result = probe(x, y)
    deviation = np.maximum(x.std(axis=0), np.median(x.std(axis=0)))
    standardized = (x - x.mean(axis=0)) / deviation / np.sqrt(x.shape[1])
    fold, correct = deal(y, count=FOLDS), np.zeros(40, bool)
    for out in range(FOLDS):
        model = Ridge(alpha=result.penalty * len(y)).fit(standardized[fold != out], np.eye(3)[y[fold != out]])
        correct[fold == out] = model.predict(standardized[fold == out]).argmax(axis=1) == y[fold == out]
    assert result.correct.tolist() == correct.tolist()
    assert result.accuracy == pytest.approx(np.mean(correct))


def test_images_of_one_group_do_not_predict_each_other():
    rng = np.random.default_rng(1)
    objects = rng.normal(size=(20, 30))  # the frames of an object are alike, and its class is random
    groups = np.repeat(np.arange(20), 5)
    x, y = objects[groups] + rng.normal(size=(100, 30)) * 0.01, (np.arange(20) % 2)[groups]
    assert probe(x, y).accuracy > 0.95
    assert probe(x, y, groups).accuracy < 0.75


def test_constant_features_predict_no_better_than_the_largest_class():
    labels = np.array([0] * 8 + [1] * 4)
    assert probe(np.ones((12, 5)), labels).accuracy <= 8 / 12


def test_folds_are_stratified_and_keep_groups_whole():
    labels, groups = np.repeat(np.arange(4), 60), np.arange(240) // 3
    fold = deal(labels, groups, count=FOLDS)
    assert all(len(set(fold[groups == group])) == 1 for group in range(80))
    counts = np.array([np.bincount(fold[labels == label], minlength=FOLDS) for label in range(4)])
    assert (counts == 6).all()


def test_noise_reaches_chance_with_few_images_per_class():
    rng = np.random.default_rng(0)
    accuracies = [probe(rng.normal(size=(100, 30)), np.arange(100) % 10).accuracy for _ in range(10)]
    assert 0.06 < np.mean(accuracies) < 0.14  # leaving out single images would give 0.03


def test_a_single_class_is_always_correct():
    assert probe(np.ones((3, 5)), np.zeros(3, int)).accuracy == 1


def test_a_probe_without_images_is_refused():
    with refused("no-training-images", TrainingError):
        probe(np.ones((0, 5)), np.zeros(0, int))
