"""A probe tells what features know, from images that were left out."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from crossroads.errors import TrainingError
from crossroads.heads.probe import FOLDS, folds, probe


def blobs(n=60, d=6, classes=3, apart=2.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return (rng.normal(size=(classes, d)) * apart)[labels] + rng.normal(size=(n, d)), labels


def test_it_is_ridge_regression_on_the_images_of_other_folds():
    x, y = blobs(40, apart=0.6)
    found = probe(x, y)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0) / np.sqrt(x.shape[1])
    fold, right = folds(y), np.zeros(40, bool)
    for out in range(FOLDS):
        model = Ridge(alpha=found.penalty * len(y)).fit(scaled[fold != out], np.eye(3)[y[fold != out]])
        right[fold == out] = model.predict(scaled[fold == out]).argmax(axis=1) == y[fold == out]
    assert found.correct.tolist() == right.tolist()
    assert found.accuracy == pytest.approx(np.mean(right))


def test_images_of_a_group_do_not_tell_each_other():
    rng = np.random.default_rng(1)
    objects = rng.normal(size=(20, 30))  # each object is alike in its frames, and its class is a matter of chance
    groups = np.repeat(np.arange(20), 5)
    x, y = objects[groups] + rng.normal(size=(100, 30)) * 0.01, (np.arange(20) % 2)[groups]
    assert probe(x, y).accuracy > 0.95
    assert probe(x, y, groups).accuracy < 0.75


def test_features_without_spread_know_no_more_than_the_largest_class():
    labels = np.array([0] * 8 + [1] * 4)
    assert probe(np.ones((12, 5)), labels).accuracy <= 8 / 12


def test_folds_hold_each_class_evenly_and_groups_whole():
    labels, groups = np.repeat(np.arange(4), 60), np.arange(240) // 3
    fold = folds(labels, groups)
    assert all(len(set(fold[groups == group])) == 1 for group in range(80))
    counts = np.array([np.bincount(fold[labels == label], minlength=FOLDS) for label in range(4)])
    assert (counts == 6).all()


def test_chance_is_chance_for_few_images_of_a_class():
    rng = np.random.default_rng(0)
    found = [probe(rng.normal(size=(100, 30)), np.arange(100) % 10).accuracy for _ in range(10)]
    assert 0.06 < np.mean(found) < 0.14  # leaving out single images would give 0.03


def test_one_class_is_always_right():
    assert probe(np.ones((3, 5)), np.zeros(3, int)).accuracy == 1


def test_nothing_to_probe_is_told():
    with pytest.raises(TrainingError, match="a probe needs images; received none"):
        probe(np.ones((0, 5)), np.zeros(0, int))
