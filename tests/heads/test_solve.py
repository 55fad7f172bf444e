"""Covers solved heads: leaving out in closed form equals refitting, and the folded head predicts the same."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_info

from crossroads.errors import TrainingError
from crossroads.heads import _logistic, _principal, large_ridge, standardize
from crossroads.heads import solve as heads
from crossroads.heads._principal import PrincipalComponents
from crossroads.heads._ridge import RidgeProblem, held_out_scores, inverse_temperature
from crossroads.heads.solve import loss_and_accuracy, solve
from refusals import refused


def clouds(n, d=12, classes=3, seed=0, apart=1.0):
    """Returns overlapping clouds with features of very different scales, one of them constant: float32 (n, d) and labels."""
    centres = np.random.default_rng(9).normal(0, apart, (classes, d))
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    features = centres[labels] + rng.normal(0, 1, (n, d))
    features = features * np.logspace(-2, 2, d) + np.linspace(-30, 30, d)
    features[:, -1] = 5.0
    return features.astype(np.float32), labels.astype(np.int32)


class Lazy:
    """Features that support only slices, and record the longest slice."""

    def __init__(self, values):
        self._values, self.most = values, 0

    @property
    def shape(self):
        return self._values.shape

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        self.most = max(self.most, rows.stop - rows.start)
        return self._values[rows]


def standardizer(x):
    """Standardises features as `solve` documents it, and drops constant ones."""
    varying = x.std(axis=0) > 1e-6
    mean, scale = x[:, varying].mean(axis=0, dtype=np.float64), x[:, varying].std(axis=0, dtype=np.float64)
    return lambda rows: (rows[:, varying] - mean) / scale / np.sqrt(varying.sum())


def softmax(scores):
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def problem_of(z, y, weights, groups):
    """Returns the problem of coordinates and targets whose weighted means are zero."""
    spread = (weights[:, None] * z.astype(float) ** 2).sum(axis=0)
    components = PrincipalComponents(z, spread, standardizer=None, axes=None, features=None, weights=weights)
    return RidgeProblem(components, None, groups, y, None, z.T @ (weights[:, None] * y))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([None, 1, 2, 3, 7, 13]), st.booleans())
def test_held_out_scores_equal_those_of_a_fit_without_the_group(seed, size, weighted):
    rng = np.random.default_rng(seed)
    n, r, k, penalty = 26, 5, 3, 0.7
    weights = rng.uniform(0.2, 3, n) if weighted else np.ones(n)
    z = rng.normal(size=(n, r))
    z -= weights @ z / weights.sum()
    _, axes = np.linalg.eigh((z * weights[:, None]).T @ z)
    z = (z @ axes).astype(np.float32)
    y = rng.normal(size=(n, k))
    y -= weights @ y / weights.sum()
    groups = None if size is None else rng.permutation(n) // size
    found = held_out_scores(problem_of(z, y, weights, groups), penalty)
    codes = np.arange(n) if groups is None else groups
    for group in np.unique(codes):
        out = codes == group
        refit = Ridge(alpha=penalty).fit(z[~out], y[~out], sample_weight=weights[~out])
        np.testing.assert_allclose(found[out], refit.predict(z[out]), atol=2e-4)


def test_a_single_group_counts_as_no_groups():
    z = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    z -= z.mean(axis=0)
    y = np.random.default_rng(1).normal(size=(20, 2))
    together, apart = (problem_of(z, y - y.mean(axis=0), np.ones(20), groups) for groups in (np.zeros(20, int), None))
    np.testing.assert_array_equal(held_out_scores(together, 1.0), held_out_scores(apart, 1.0))


@given(st.floats(0.05, 200), st.floats(0.01, 500))
def test_the_temperature_is_found_from_any_start(true, start):
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 1 / true, (4000, 4))
    labels = (softmax(true * scores).cumsum(axis=1) < rng.uniform(size=(4000, 1))).sum(axis=1).clip(0, 3)
    found, loss = inverse_temperature(scores, labels, np.ones(4000), start=start)
    assert found == pytest.approx(true, rel=0.1)
    for other in (0.97, 1.03):
        worse = -np.log(softmax(found * other * scores)[np.arange(4000), labels]).mean()
        assert loss <= worse


def test_the_temperature_of_scores_that_are_never_wrong_or_never_right_is_bounded():
    rows = np.eye(3)[np.arange(30) % 3]
    right, _ = inverse_temperature(rows, np.arange(30) % 3, np.ones(30))
    wrong, _ = inverse_temperature(rows, (np.arange(30) + 1) % 3, np.ones(30))
    assert 10 < right <= 1e4
    assert 0 < wrong < 0.1


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("n", [240, 9])  # more images than features, and fewer
def test_a_logistic_head_equals_scikit_learn_on_standardized_features(monkeypatch, classes, n):
    x, y = clouds(n, classes=classes)
    v, w = clouds(90, classes=classes, seed=1)
    monkeypatch.setattr(heads, "RIDGE_PENALTIES", (0.05,))
    monkeypatch.setattr(heads, "LOGISTIC_STEPS", (1.0,))
    head = next(h for h in solved(x, y, v, w, classes) if h.kind == "logistic")
    assert head.penalty == 0.05
    scaled = standardizer(x)
    model = LogisticRegression(C=1 / (0.05 * n), tol=1e-8, max_iter=10_000).fit(scaled(x), y)
    np.testing.assert_allclose(softmax(v @ head.kernel + head.bias), model.predict_proba(scaled(v)), atol=3e-3)


def solved(*arguments, **options):
    """Returns the best head of each kind."""
    kept = []
    original = heads._choose
    heads._choose = lambda solutions, *rest: kept.append(solutions) or original(solutions, *rest)
    try:
        solve(*arguments, **options)
    finally:
        heads._choose = original
    return [original([solution], [], heads._Validation(*arguments[2:4])) for solution in kept[0]]


@pytest.mark.parametrize("n", [240, 9])
def test_a_ridge_head_equals_scikit_learn_up_to_a_temperature(n):
    x, y = clouds(n)
    v, w = clouds(90, seed=1)
    head = next(h for h in solved(x, y, v, w, 3) if h.kind == "ridge")
    scaled = standardizer(x)
    model = Ridge(alpha=head.penalty * n).fit(scaled(x), np.eye(3)[y])
    expected, found = model.predict(scaled(v)), v @ head.kernel + head.bias
    # Softmax ignores a constant added to a row, so scores are compared relative to their mean and up to one temperature.
    expected, found = (rows - rows.mean(axis=1, keepdims=True) for rows in (expected, found))
    factor = (found * expected).sum() / (expected**2).sum()
    np.testing.assert_allclose(found, factor * expected, atol=2e-3 * np.abs(found).max())


def test_the_best_candidate_on_validation_is_returned_with_its_metrics():
    x, y = clouds(300, apart=0.6)
    v, w = clouds(150, seed=1, apart=0.6)
    head = solve(x, y, v, w, 3)
    measured = [t for t in head.candidates if t.validation_accuracy is not None]
    best = max(measured, key=lambda t: (t.validation_accuracy, -t.validation_loss))
    assert (head.kind, head.penalty, head.validation_accuracy) == (best.kind, best.penalty, best.validation_accuracy)
    assert loss_and_accuracy(v, w, head.kernel, head.bias) == pytest.approx((head.validation_loss, head.validation_accuracy))
    probabilities = softmax(v @ head.kernel + head.bias)
    assert head.validation_accuracy == (probabilities.argmax(axis=1) == w).mean()
    assert head.validation_loss == pytest.approx(-np.log(probabilities[np.arange(150), w]).mean(), rel=1e-4)
    assert {t.kind for t in head.candidates} == {"ridge", "logistic"}
    assert head.kernel.dtype == head.bias.dtype == np.float32
    assert head.kernel.shape == (12, 3)


def test_groups_are_left_out_together():
    """There are thirty frames of each object. Leaving out single frames gives a perfect score, leaving out objects does not."""
    rng = np.random.default_rng(0)
    tracks, frames, d = 24, 30, 60
    labels = (np.arange(tracks) % 3).repeat(frames)
    objects = rng.normal(0, 2, (tracks, d)) + np.eye(3, d)[np.arange(tracks) % 3] * 2
    x = (objects.repeat(frames, axis=0) + rng.normal(0, 0.1, (tracks * frames, d))).astype(np.float32)
    groups = np.arange(tracks).repeat(frames)
    single, grouped = (
        {t.penalty: t.held_out_loss for t in solve(x, labels, x, labels, 3, groups=g).candidates if t.kind == "ridge"}
        for g in (None, groups)
    )
    assert min(single.values()) < 0.1
    assert min(grouped.values()) > 0.9


def test_a_class_weight_equals_repeating_the_images(monkeypatch):
    monkeypatch.setattr(heads, "RIDGE_PENALTIES", (0.01,))  # copies of an image predict each other if one is left out
    x, y = clouds(60, apart=0.5)
    v, w = clouds(60, seed=1)
    weighted = solved(x, y, v, w, 3, weights=np.array([3.0, 1.0, 1.0]))
    repeated = np.concatenate([x, x[y == 0], x[y == 0]])
    plain = solved(repeated, np.concatenate([y, np.zeros(40, np.int32)]), v, w, 3)
    for a, b in zip(weighted[:3], plain[:3], strict=True):
        np.testing.assert_allclose(softmax(v @ a.kernel + a.bias), softmax(v @ b.kernel + b.bias), atol=5e-3)


def test_a_class_without_images_gets_a_low_probability():
    x, y = clouds(60)
    head = solve(x, y * 2, x, y * 2, 6)
    probabilities = softmax(x @ head.kernel + head.bias)
    assert probabilities[:, [1, 3, 5]].max() <= 1 / 61
    assert head.validation_accuracy > 0.8
    alone = solve(x, np.full(60, 2), x, np.full(60, 2), 4)
    assert alone.validation_accuracy == 1
    assert alone.validation_loss < 1e-6


def test_constant_features_give_the_class_frequencies():
    x, y = np.ones((40, 5), np.float32), (np.arange(40) % 4 == 0).astype(np.int32)
    head = solve(x, y, x, y, 2)
    np.testing.assert_allclose(softmax(x @ head.kernel + head.bias)[0], [0.75, 0.25], atol=0.1)


def test_one_image_per_class_is_enough():
    x, y = clouds(3)
    assert solve(x, y, x, y, 3).validation_accuracy == 1


def test_features_are_read_in_bounded_slices(monkeypatch):
    monkeypatch.setattr(standardize, "CHUNK_BYTES", 64 * 8 * 12)
    x, y = clouds(3000)
    lazy, plain = solve(Lazy(x), y, Lazy(x[:90]), y[:90], 3), solve(x, y, x[:90], y[:90], 3)
    np.testing.assert_array_equal(lazy.kernel, plain.kernel)
    features = Lazy(x)
    list(standardize.read_chunks(features))
    assert features.most == 64


def test_without_memory_for_coordinates_a_direction_of_little_spread_still_counts(monkeypatch):
    """The small difference of two correlated features separates the classes; it is the last principal axis."""
    rng = np.random.default_rng(0)
    y = np.arange(600) % 2
    both = rng.normal(0, 3, 600)
    x = np.stack([both + 0.2 * y, both - 0.2 * y, *rng.normal(0, 1, (10, 600))], axis=1).astype(np.float32)
    monkeypatch.setattr(_principal, "COORDINATES_LIMIT", 600 * 4 * 5)
    monkeypatch.setattr(large_ridge, "COORDINATES_LIMIT", 600 * 4 * 5)
    with refused("head-exceeds-memory", TrainingError, received="600 x 12 features"):
        _principal.principal_components(x, np.ones(600))
    monkeypatch.setattr(_principal, "COORDINATES_LIMIT", 1 << 30)
    monkeypatch.setattr(large_ridge, "SAMPLE_SIZE", 100)
    assert solve(x, y, x, y, 2).validation_accuracy == 1.0


def test_the_sample_has_every_class_even_if_groups_are_large(monkeypatch):
    monkeypatch.setattr(large_ridge, "SAMPLE_SIZE", 50)
    groups = np.repeat(np.arange(20), 30)  # four groups per class; two groups would fill the sample
    codes = groups % 5
    rows = large_ridge._sample_indices(codes, groups)
    assert set(codes[rows]) == set(range(5))
    assert all((np.isin(np.flatnonzero(groups == group), rows)).all() for group in np.unique(groups[rows]))
    assert len(rows) == 5 * 30
    assert len(large_ridge._sample_indices(codes, None)) == 50


def test_the_solver_does_not_import_keras():
    code = "import sys, crossroads.heads.solve; print('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "False"


def test_many_features_of_few_images_need_no_matrix_of_all_features():
    x = np.random.default_rng(0).normal(size=(30, 8192)).astype(np.float32)
    y = np.arange(30) % 3
    tracemalloc.start()
    solve(x, y, x, y, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8192 * 8192 * 8 / 8


def test_inner_products_of_images_do_not_hold_all_features(monkeypatch):
    n, d = 200, 20_000
    x = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    monkeypatch.setattr(standardize, "CHUNK_BYTES", 10 * 8 * d)
    monkeypatch.setattr(_principal, "BLOCK_BYTES", 20 * 8 * d)
    tracemalloc.start()
    found = _principal.principal_components(x, np.ones(n))
    found.fold(np.ones((found.coordinates.shape[1], 3)), np.zeros(3))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * d * 8 / 2


@pytest.mark.parametrize("shape", [(50, 70), (70, 50)])
def test_features_that_need_too_much_memory_are_refused(monkeypatch, shape):
    monkeypatch.setattr(_principal, "PRODUCTS_LIMIT", 4 * 8 * 50 * 50 - 1)
    x, y = np.random.default_rng(0).normal(size=shape).astype(np.float32), np.arange(shape[0]) % 3
    with refused("head-exceeds-memory", TrainingError, received=f"{shape[0]} x {shape[1]} features"):
        solve(x, y, x, y, 3)


def test_features_are_refused_before_they_are_read():
    class Unread:
        shape = (20_000, 62_720)

    with refused("head-exceeds-memory", TrainingError, received="20000 x 62720 features"):
        _principal.principal_components(Unread(), np.ones(20_000))


@pytest.mark.parametrize("d", [40, 400])
def test_float32_axes_give_the_same_probabilities(monkeypatch, d):
    x, y = decaying(150, d)
    v, _ = decaying(60, d, seed=1)
    monkeypatch.setattr(_principal, "BLOCK_BYTES", 40 * 4 * d)
    monkeypatch.setattr(standardize, "CHUNK_BYTES", 11 * 8 * d)
    converge(monkeypatch)
    weights = np.array([1.0, 2.0, 0.5])
    double = solved(x, y, v, y[:60], 3, weights=weights)
    monkeypatch.setattr(_principal, "FLOAT64_SIZE", 0)
    single = solved(x, y, v, y[:60], 3, weights=weights)
    assert [h.kind for h in single] == [h.kind for h in double]
    for a, b in zip(double, single, strict=True):
        np.testing.assert_allclose(softmax(v @ a.kernel + a.bias), softmax(v @ b.kernel + b.bias), atol=1e-3)


def converge(monkeypatch):
    """Uses strong penalties and iterates to convergence. With weak penalties, rounding would decide when to stop."""
    monkeypatch.setattr(heads, "RIDGE_PENALTIES", (1e-2,))
    monkeypatch.setattr(heads, "LOGISTIC_STEPS", (1.0, 0.1))
    monkeypatch.setattr(heads, "PATIENCE", 9)
    monkeypatch.setattr(_logistic, "GRADIENT_TOLERANCE", 1e-7)


def decaying(n, d, seed=0):
    """Returns three clouds with spreads 1, 1/2, 1/3, ... along the axes, as in the features of a network."""
    fixed = np.random.default_rng(9)
    rotation, centres = np.linalg.qr(fixed.normal(size=(d, d)))[0], fixed.normal(0, 0.5, (3, d))
    labels = np.arange(n) % 3
    spread = np.sqrt(1 / np.arange(1, d + 1))
    rows = (np.random.default_rng(seed).normal(size=(n, d)) + centres[labels]) * spread
    return (rows @ rotation).astype(np.float32), labels


def test_the_axes_are_computed_in_one_thread(monkeypatch):
    pools = []
    original = scipy.linalg.eigh
    monkeypatch.setattr(scipy.linalg, "eigh", lambda *a, **o: pools.extend(threadpool_info()) or original(*a, **o))
    _principal.principal_components(decaying(30, 5)[0], np.ones(30))
    assert {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"} == {1}


def test_directions_left_out_of_logistic_regression_change_no_probability(monkeypatch):
    x, y = decaying(150, 200)
    x = x @ (x.T @ x)  # a steeper fall
    v, w = x[100:], y[100:]
    converge(monkeypatch)
    widths = []
    original = heads.logistic
    monkeypatch.setattr(heads, "logistic", lambda z, *a: widths.append(z.shape[1]) or original(z, *a))
    few = solved(x[:100], y[:100], v, w, 3)
    assert widths[0] < 99
    assert widths == sorted(widths)
    monkeypatch.setattr(heads, "UNSEEN", 0.0)
    every = solved(x[:100], y[:100], v, w, 3)
    for a, b in zip(few, every, strict=True):
        np.testing.assert_allclose(softmax(v @ a.kernel + a.bias), softmax(v @ b.kernel + b.bias), atol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(bad):
    x, y = clouds(30)
    x[17, 3] = bad
    with refused("features-not-finite", TrainingError):
        solve(x, y, x[:3], y[:3], 3)


def test_the_features_are_not_modified():
    x, y = clouds(30)
    doubles = x.astype(np.float64)
    head = solve(doubles, y, doubles, y, 3)
    np.testing.assert_array_equal(doubles, x)
    np.testing.assert_allclose(head.kernel, solve(x, y, x, y, 3).kernel, rtol=1e-4, atol=1e-6)


def test_no_validation_images_are_refused():
    x, y = clouds(30)
    with refused("no-training-images", TrainingError):
        solve(x, y, x[:0], y[:0], 3)


def test_the_solution_is_deterministic():
    x, y = clouds(120)
    a, b = (solve(x, y, x, y, 3) for _ in range(2))
    np.testing.assert_array_equal(a.kernel, b.kernel)
    np.testing.assert_array_equal(a.bias, b.bias)


def many_features(n=60, d=40, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return (rng.normal(size=(classes, d))[labels] * 0.4 + rng.normal(size=(n, d))).astype(np.float32), labels


@pytest.mark.parametrize("groups", [None, np.arange(60) // 4], ids=["alone", "in groups"])
def test_the_large_solver_equals_the_small_one(groups, monkeypatch):
    """If the sample is all images, the Cholesky factor and the principal axes give the same head and held-out loss."""
    x, y = many_features()
    held_out, truth = many_features(seed=1)
    few = heads.solve(x, y, held_out, truth, 3, groups=groups)
    by_axes = next(row for row in few.candidates if row.kind == "ridge" and row.validation_loss is not None)
    monkeypatch.setattr(large_ridge, "MIN_SIZE", 10)
    large = heads.solve(x, y, held_out, truth, 3, groups=groups)
    assert large.kind == "ridge"
    assert large.penalty == by_axes.penalty
    assert large.validation_loss == pytest.approx(by_axes.validation_loss, rel=1e-3)
    by_factor = next(row for row in large.candidates if row.penalty == large.penalty)
    assert by_factor.held_out_loss == pytest.approx(by_axes.held_out_loss, rel=1e-3)


def test_the_large_solver_samples_whole_groups(monkeypatch):
    x, y = many_features()
    monkeypatch.setattr(large_ridge, "MIN_SIZE", 10)
    monkeypatch.setattr(large_ridge, "SAMPLE_SIZE", 30)
    groups = np.arange(60) // 4
    rows = large_ridge._sample_indices(y, groups)
    assert 20 <= len(rows) <= 30
    assert all(np.isin(np.flatnonzero(groups == group), rows).all() for group in groups[rows])
    head = heads.solve(x, y, x, y, 3, groups=groups)
    assert head.validation_accuracy > 0.6


@pytest.mark.parametrize(
    ("accuracies", "count"),
    [
        ([0.4, 0.4, 0.9, 0.9], 2),  # two in a row were no better than ridge
        ([0.6, 0.4, 0.9, 0.9], 2),  # one was better, the next was not
        ([0.4, 0.6, 0.4, 0.9], 3),
        ([0.6, 0.7, 0.8, 0.9], 4),
    ],
)
def test_the_path_ends_once_weaker_penalties_are_no_better(monkeypatch, accuracies, count):
    x, y = clouds(60)
    found = iter([0.5, *accuracies, *[0.0] * 9])  # of ridge, then of each penalty
    monkeypatch.setattr(heads, "loss_and_accuracy", lambda *_: (1 - (value := next(found)), value))
    assert sum(row.kind == "logistic" for row in solve(x, y, x, y, 3).candidates) == count
