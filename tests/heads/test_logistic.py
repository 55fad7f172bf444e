"""Covers logistic regression with scaled directions: it finds scikit-learn's minimum and supports warm starts."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from crossroads.heads import _logistic
from crossroads.heads._logistic import logistic, loss_and_gradient


def clouds(n=400, r=12, classes=4, seed=0):
    """Returns overlapping clouds whose spread falls from 1 to 1/30: float32 (n, r) and integers (n,)."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % classes
    coordinates = rng.normal(size=(n, r)) + np.random.default_rng(9).normal(0, 0.7, (classes, r))[codes]
    coordinates = (coordinates - coordinates.mean(axis=0)) * np.logspace(0, -1.5, r)
    return coordinates.astype(np.float32), codes


def fit(coordinates, codes, penalty, weights=None, start=None):
    weights = np.ones(len(coordinates)) if weights is None else weights
    classes = codes.max() + 1
    start = (np.zeros((0, classes)), np.zeros(classes)) if start is None else start
    return logistic(coordinates, codes, weights, weights @ coordinates.astype(float) ** 2, penalty, start)


def softmax(scores):
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("penalty", [1e-1, 1e-3, 1e-5])
def test_it_finds_the_minimum_of_scikit_learn(classes, penalty):
    coordinates, codes = clouds(classes=classes)
    weights = np.where(codes == 0, 3.0, 1.0)
    kernel, bias = fit(coordinates, codes, penalty, weights)
    model = LogisticRegression(C=1 / (penalty * weights.sum()), tol=1e-9, max_iter=100_000)
    expected = model.fit(coordinates.astype(float), codes, sample_weight=weights).predict_proba(coordinates)
    np.testing.assert_allclose(softmax(coordinates @ kernel + bias), expected, atol=2e-3)


def test_the_number_of_threads_changes_no_bit_and_the_block_size_hardly_anything(monkeypatch):
    coordinates, codes = clouds()
    kernel, bias = fit(coordinates, codes, 1e-3)
    monkeypatch.setattr(_logistic, "BLOCK_SIZE", 64)
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(_logistic, "usable_processors", lambda _, threads=threads: threads)
        results.append(fit(coordinates, codes, 1e-3))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])
    np.testing.assert_allclose(
        softmax(coordinates @ results[0][0] + results[0][1]), softmax(coordinates @ kernel + bias), atol=1e-3
    )


def test_a_warm_start_may_add_directions(monkeypatch):
    coordinates, codes = clouds()
    coordinates[:, 5:] *= 1e-3  # without information
    few = fit(coordinates[:, :5], codes, 1e-3)
    monkeypatch.setattr(_logistic, "MAX_STEPS", 1)
    kernel, bias = fit(coordinates, codes, 1e-3, start=few)
    cold, _ = fit(coordinates, codes, 1e-3)
    assert np.abs(kernel[:5] - few[0]).max() < 0.05 * np.abs(cold[:5] - few[0]).max()
    np.testing.assert_allclose(bias, few[1], atol=1e-2)


def textbook(coordinates, codes, weights, kernel, bias):
    """Returns loss and gradient in float64 by the textbook formula."""
    scores = coordinates.astype(np.float64) @ kernel + bias
    errors = weights[:, None] * (softmax(scores) - np.eye(len(bias))[codes])
    peak = scores.max(axis=1)
    loss = weights @ (np.log(np.exp(scores - peak[:, None]).sum(axis=1)) + peak - scores[np.arange(len(codes)), codes])
    return loss, np.concatenate([coordinates.T @ errors, errors.sum(axis=0, keepdims=True)])


@pytest.mark.parametrize("confidence", [0.0, 1.0, 5.0])
def test_loss_and_gradient_follow_the_formula(confidence):
    coordinates, codes = clouds()
    weights = np.random.default_rng(1).uniform(0.5, 2, len(coordinates))
    kernel = confidence * np.random.default_rng(2).normal(size=(12, 4)).astype(np.float32)
    bias = np.array([0.1, -0.2, 0.3, 0.0], np.float32)
    loss, gradient = loss_and_gradient(coordinates, codes, weights, kernel, bias)
    expected = textbook(coordinates, codes, weights, kernel, bias)
    assert loss == pytest.approx(expected[0], rel=1e-5)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-3, atol=1e-3)


def test_confident_images_give_neither_subnormal_numbers_nor_rounding_to_zero():
    """If scores differ by 95, probabilities are 1e-42, which is subnormal. If they differ by 17, 1 - p is rounding error."""
    codes = np.arange(300) % 3
    coordinates = np.eye(3, dtype=np.float32)[codes]
    for apart in (95.0, 300.0):
        kernel = apart * np.eye(3, dtype=np.float32)
        _, gradient = loss_and_gradient(coordinates, codes, np.ones(300), kernel, np.zeros(3, np.float32))
        assert (np.abs(gradient[:-1]) > np.finfo(np.float32).tiny).all()
        assert np.abs(gradient).max() < 1e-9
    kernel = 17 * np.eye(3, dtype=np.float32)
    loss, gradient = loss_and_gradient(coordinates, codes, np.ones(300), kernel, np.zeros(3, np.float32))
    assert loss == pytest.approx(300 * 2 * np.exp(-17.0), rel=1e-3)
    np.testing.assert_allclose(gradient.sum(axis=1), 0, atol=1e-9)
