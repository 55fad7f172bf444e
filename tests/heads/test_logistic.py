"""Logistic regression by scaled directions finds scikit-learn's minimum, and goes on from where it is."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from crossroads.heads import _logistic
from crossroads.heads._logistic import logistic, loss_and_slope


def coordinates(n=400, r=12, classes=4, seed=0):
    """Directions of falling spread, 1 to a thirtieth, that tell the classes in part; float32 (n, r) and integers (n,)."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % classes
    rows = rng.normal(size=(n, r)) + np.random.default_rng(9).normal(0, 0.7, (classes, r))[codes]
    rows = (rows - rows.mean(axis=0)) * np.logspace(0, -1.5, r)
    return rows.astype(np.float32), codes


def solved(rows, codes, penalty, weights=None, start=None):
    weights = np.ones(len(rows)) if weights is None else weights
    classes = codes.max() + 1
    start = (np.zeros((0, classes)), np.zeros(classes)) if start is None else start
    return logistic(rows, codes, weights, weights @ rows.astype(float) ** 2, penalty, start)


def likely(scores):
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("penalty", [1e-1, 1e-3, 1e-5])
def test_it_is_scikit_learns_minimum(classes, penalty):
    rows, codes = coordinates(classes=classes)
    weights = np.where(codes == 0, 3.0, 1.0)
    kernel, bias = solved(rows, codes, penalty, weights)
    model = LogisticRegression(C=1 / (penalty * weights.sum()), tol=1e-9, max_iter=100_000)
    expected = model.fit(rows.astype(float), codes, sample_weight=weights).predict_proba(rows)
    np.testing.assert_allclose(likely(rows @ kernel + bias), expected, atol=2e-3)


def test_blocks_and_threads_change_nothing_that_matters(monkeypatch):
    rows, codes = coordinates()
    kernel, bias = solved(rows, codes, 1e-3)
    monkeypatch.setattr(_logistic, "BLOCK", 64)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(_logistic, "usable_processors", lambda _, threads=threads: threads)
        found.append(solved(rows, codes, 1e-3))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
    np.testing.assert_allclose(likely(rows @ found[0][0] + found[0][1]), likely(rows @ kernel + bias), atol=1e-3)


def test_it_goes_on_from_where_it_is_with_directions_that_are_new(monkeypatch):
    rows, codes = coordinates()
    rows[:, 5:] *= 1e-3  # which say nothing
    few = solved(rows[:, :5], codes, 1e-3)
    monkeypatch.setattr(_logistic, "STEPS", 1)
    kernel, bias = solved(rows, codes, 1e-3, start=few)
    cold, _ = solved(rows, codes, 1e-3)
    assert np.abs(kernel[:5] - few[0]).max() < 0.05 * np.abs(cold[:5] - few[0]).max()
    np.testing.assert_allclose(bias, few[1], atol=1e-2)


def exactly(rows, codes, weights, kernel, bias):
    """Loss and slope in float64, as written in books."""
    probabilities = likely(rows.astype(np.float64) @ kernel + bias)
    rest = np.eye(len(bias))[codes]
    slope = weights[:, None] * (probabilities - rest)
    scores = rows.astype(np.float64) @ kernel + bias
    loss = weights @ (np.log(np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)) + scores.max(axis=1))
    return loss - weights @ scores[np.arange(len(rows)), codes], np.concatenate([rows.T @ slope, slope.sum(axis=0, keepdims=True)])


@pytest.mark.parametrize("sureness", [0.0, 1.0, 5.0])
def test_loss_and_slope_are_those_of_the_formula(sureness):
    rows, codes = coordinates()
    weights = np.random.default_rng(1).uniform(0.5, 2, len(rows))
    kernel = sureness * np.random.default_rng(2).normal(size=(12, 4)).astype(np.float32)
    bias = np.array([0.1, -0.2, 0.3, 0.0], np.float32)
    loss, slope = loss_and_slope(rows, codes, weights, kernel, bias)
    expected = exactly(rows, codes, weights, kernel, bias)
    assert loss == pytest.approx(expected[0], rel=1e-5)
    np.testing.assert_allclose(slope, expected[1], rtol=1e-3, atol=1e-3)


def test_images_that_are_sure_leave_no_subnormal_number_and_none_is_lost():
    """Scores 95 apart have probabilities of 1e-42, which a processor handles slowly; 17 apart what rounding takes from one."""
    codes = np.arange(300) % 3
    rows = np.eye(3, dtype=np.float32)[codes]
    for apart in (95.0, 300.0):
        _, slope = loss_and_slope(rows, codes, np.ones(300), apart * np.eye(3, dtype=np.float32), np.zeros(3, np.float32))
        assert (np.abs(slope[:-1]) > np.finfo(np.float32).tiny).all()
        assert np.abs(slope).max() < 1e-9
    loss, slope = loss_and_slope(rows, codes, np.ones(300), 17 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32))
    assert loss == pytest.approx(300 * 2 * np.exp(-17.0), rel=1e-3)
    np.testing.assert_allclose(slope.sum(axis=1), 0, atol=1e-9)
