"""Solved heads: what is left out in closed form is what refitting gives, and the folded head predicts what was solved."""

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
from crossroads.heads import _logistic, _principal
from crossroads.heads import large_ridge as many
from crossroads.heads import solve as heads
from crossroads.heads._ridge import held_out_scores, temperature
from crossroads.heads.solve import measure, solve


def clouds(n, d=12, classes=3, seed=0, apart=1.0):
    """Overlapping clouds with features of very different scales, one of them constant; float32 (n, d) and labels."""
    centres = np.random.default_rng(9).normal(0, apart, (classes, d))
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    features = centres[labels] + rng.normal(0, 1, (n, d))
    features = features * np.logspace(-2, 2, d) + np.linspace(-30, 30, d)
    features[:, -1] = 5.0
    return features.astype(np.float32), labels.astype(np.int32)


class Lazy:
    """Features that can be asked for slices only, and that say how many rows were asked for at most."""

    def __init__(self, values):
        self._values, self.most = values, 0

    @property
    def shape(self):
        return self._values.shape

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        self.most = max(self.most, rows.stop - rows.start)
        return self._values[rows]


def standardiser(x):
    """What turns features as `solve` says it does, without those that are constant."""
    varying = x.std(axis=0) > 1e-6
    mean, scale = x[:, varying].mean(axis=0, dtype=np.float64), x[:, varying].std(axis=0, dtype=np.float64)
    return lambda rows: (rows[:, varying] - mean) / scale / np.sqrt(varying.sum())


def softmax(scores):
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([None, 1, 2, 3, 7, 13]), st.booleans())
def test_scores_left_out_are_those_of_a_fit_without_the_group(seed, size, weighted):
    rng = np.random.default_rng(seed)
    n, r, k, penalty = 26, 5, 3, 0.7
    weights = rng.uniform(0.2, 3, n) if weighted else np.ones(n)
    z = rng.normal(size=(n, r))
    z -= weights @ z / weights.sum()
    _, axes = np.linalg.eigh((z * weights[:, None]).T @ z)
    z = (z @ axes).astype(np.float32)
    y = rng.normal(size=(n, k))
    y -= weights @ y / weights.sum()
    spread = (weights[:, None] * z.astype(float) ** 2).sum(axis=0)
    groups = None if size is None else rng.permutation(n) // size
    found = held_out_scores(z, y, spread, penalty, z.T @ (weights[:, None] * y), weights, groups)
    codes = np.arange(n) if groups is None else groups
    for group in np.unique(codes):
        out = codes == group
        refit = Ridge(alpha=penalty).fit(z[~out], y[~out], sample_weight=weights[~out])
        np.testing.assert_allclose(found[out], refit.predict(z[out]), atol=2e-4)


def test_one_group_for_all_is_as_none():
    z = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    z -= z.mean(axis=0)
    y = np.random.default_rng(1).normal(size=(20, 2))
    arguments = (z, y - y.mean(axis=0), (z.astype(float) ** 2).sum(axis=0), 1.0, z.T @ y, np.ones(20))
    np.testing.assert_array_equal(held_out_scores(*arguments, np.zeros(20, int)), held_out_scores(*arguments, None))


@given(st.floats(0.05, 200), st.floats(0.01, 500))
def test_the_temperature_is_found_from_anywhere(true, start):
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 1 / true, (4000, 4))
    labels = (softmax(true * scores).cumsum(axis=1) < rng.uniform(size=(4000, 1))).sum(axis=1).clip(0, 3)
    found, loss = temperature(scores, labels, np.ones(4000), start=start)
    assert found == pytest.approx(true, rel=0.1)
    for other in (0.97, 1.03):
        worse = -np.log(softmax(found * other * scores)[np.arange(4000), labels]).mean()
        assert loss <= worse


def test_the_temperature_of_scores_that_are_never_wrong_or_never_right_is_bounded():
    rows = np.eye(3)[np.arange(30) % 3]
    right, _ = temperature(rows, np.arange(30) % 3, np.ones(30))
    wrong, _ = temperature(rows, (np.arange(30) + 1) % 3, np.ones(30))
    assert 10 < right <= 1e4
    assert 0 < wrong < 0.1


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("n", [240, 9])  # more images than features, and fewer
def test_a_logistic_head_is_scikit_learns_on_standardised_features(monkeypatch, classes, n):
    x, y = clouds(n, classes=classes)
    v, w = clouds(90, classes=classes, seed=1)
    monkeypatch.setattr(heads, "RIDGE_PENALTIES", (0.05,))
    monkeypatch.setattr(heads, "LOGISTIC_STEPS", (1.0,))
    head = next(h for h in solved(x, y, v, w, classes) if h.kind == "logistic")
    assert head.penalty == 0.05
    turn = standardiser(x)
    model = LogisticRegression(C=1 / (0.05 * n), tol=1e-8, max_iter=10_000).fit(turn(x), y)
    np.testing.assert_allclose(softmax(v @ head.kernel + head.bias), model.predict_proba(turn(v)), atol=3e-3)


def solved(*arguments, **options):
    """The best head of each kind."""
    kept = []
    original = heads._best
    heads._best = lambda candidates, *rest: kept.append(candidates) or original(candidates, *rest)
    try:
        solve(*arguments, **options)
    finally:
        heads._best = original
    return [original([c], arguments[2], arguments[3]) for c in kept[0] if c[1] is not None]


@pytest.mark.parametrize("n", [240, 9])
def test_a_ridge_head_decides_as_ridge_regression_does(n):
    x, y = clouds(n)
    v, w = clouds(90, seed=1)
    head = next(h for h in solved(x, y, v, w, 3) if h.kind == "ridge")
    turn = standardiser(x)
    model = Ridge(alpha=head.penalty * n).fit(turn(x), np.eye(3)[y])
    expected, found = model.predict(turn(v)), v @ head.kernel + head.bias
    # A softmax does not see what is added to a row: differences to the mean, and one temperature for all.
    expected, found = (rows - rows.mean(axis=1, keepdims=True) for rows in (expected, found))
    sharpness = (found * expected).sum() / (expected**2).sum()
    np.testing.assert_allclose(found, sharpness * expected, atol=2e-3 * np.abs(found).max())


def test_the_head_is_the_best_that_was_tried_and_its_figures_are_those_of_what_it_returns():
    x, y = clouds(300, apart=0.6)
    v, w = clouds(150, seed=1, apart=0.6)
    head = solve(x, y, v, w, 3)
    measured = [t for t in head.tried if t.validation_accuracy is not None]
    best = max(measured, key=lambda t: (t.validation_accuracy, -t.validation_loss))
    assert (head.kind, head.penalty, head.validation_accuracy) == (best.kind, best.penalty, best.validation_accuracy)
    assert measure(v, w, head.kernel, head.bias) == pytest.approx((head.validation_loss, head.validation_accuracy))
    probabilities = softmax(v @ head.kernel + head.bias)
    assert head.validation_accuracy == (probabilities.argmax(axis=1) == w).mean()
    assert head.validation_loss == pytest.approx(-np.log(probabilities[np.arange(150), w]).mean(), rel=1e-4)
    assert {t.kind for t in head.tried} == {"ridge", "logistic"}
    assert head.kernel.dtype == head.bias.dtype == np.float32
    assert head.kernel.shape == (12, 3)


def test_frames_of_one_object_are_left_out_together():
    """Thirty frames of few objects, which say nothing of others: image by image they look solved, object by object they do not."""
    rng = np.random.default_rng(0)
    tracks, frames, d = 24, 30, 60
    labels = (np.arange(tracks) % 3).repeat(frames)
    objects = rng.normal(0, 2, (tracks, d)) + np.eye(3, d)[np.arange(tracks) % 3] * 2
    x = (objects.repeat(frames, axis=0) + rng.normal(0, 0.1, (tracks * frames, d))).astype(np.float32)
    groups = np.arange(tracks).repeat(frames)
    single, grouped = (
        {t.penalty: t.held_out_loss for t in solve(x, labels, x, labels, 3, groups=g).tried if t.kind == "ridge"}
        for g in (None, groups)
    )
    assert min(single.values()) < 0.1
    assert min(grouped.values()) > 0.9


def test_class_weights_are_as_repeating_the_images(monkeypatch):
    monkeypatch.setattr(heads, "RIDGE_PENALTIES", (0.01,))  # repeated images tell of each other when one is left out
    x, y = clouds(60, apart=0.5)
    v, w = clouds(60, seed=1)
    weighted = solved(x, y, v, w, 3, weights=np.array([3.0, 1.0, 1.0]))
    repeated = np.concatenate([x, x[y == 0], x[y == 0]])
    plain = solved(repeated, np.concatenate([y, np.zeros(40, np.int32)]), v, w, 3)
    for a, b in zip(weighted[:3], plain[:3], strict=True):
        np.testing.assert_allclose(softmax(v @ a.kernel + a.bias), softmax(v @ b.kernel + b.bias), atol=5e-3)


def test_a_class_without_images_is_never_likely():
    x, y = clouds(60)
    head = solve(x, y * 2, x, y * 2, 6)
    probabilities = softmax(x @ head.kernel + head.bias)
    assert probabilities[:, [1, 3, 5]].max() <= 1 / 61
    assert head.validation_accuracy > 0.8
    alone = solve(x, np.full(60, 2), x, np.full(60, 2), 4)
    assert alone.validation_accuracy == 1
    assert alone.validation_loss < 1e-6


def test_features_that_are_all_alike_give_the_shares_of_the_classes():
    x, y = np.ones((40, 5), np.float32), (np.arange(40) % 4 == 0).astype(np.int32)
    head = solve(x, y, x, y, 2)
    np.testing.assert_allclose(softmax(x @ head.kernel + head.bias)[0], [0.75, 0.25], atol=0.1)


def test_one_image_a_class_is_enough():
    x, y = clouds(3)
    assert solve(x, y, x, y, 3).validation_accuracy == 1


def test_features_are_read_in_slices_and_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(_principal, "CHUNK", 64 * 8 * 12)
    x, y = clouds(3000)
    lazy, plain = solve(Lazy(x), y, Lazy(x[:90]), y[:90], 3), solve(x, y, x[:90], y[:90], 3)
    np.testing.assert_array_equal(lazy.kernel, plain.kernel)
    features = Lazy(x)
    list(_principal.chunks(features))
    assert features.most == 64


def test_where_memory_does_not_hold_the_turned_features_a_direction_of_little_spread_still_counts(monkeypatch):
    """Two features that go together tell the classes by their small difference, which is the last of the principal axes."""
    rng = np.random.default_rng(0)
    y = np.arange(600) % 2
    both = rng.normal(0, 3, 600)
    x = np.stack([both + 0.2 * y, both - 0.2 * y, *rng.normal(0, 1, (10, 600))], axis=1).astype(np.float32)
    monkeypatch.setattr(_principal, "MEMORY", 600 * 4 * 5)
    monkeypatch.setattr(many, "MEMORY", 600 * 4 * 5)
    with pytest.raises(TrainingError, match="received 600 x 12 features"):
        _principal.principal_components(x, np.ones(600))
    monkeypatch.setattr(_principal, "MEMORY", 1 << 30)
    monkeypatch.setattr(many, "SAMPLE_SIZE", 100)
    assert solve(x, y, x, y, 2).validation_accuracy == 1.0


def test_the_part_that_chooses_the_penalty_has_every_class_also_where_groups_are_large(monkeypatch):
    monkeypatch.setattr(many, "SAMPLE_SIZE", 50)
    groups = np.repeat(np.arange(20), 30)  # four groups a class, two of which would make the part
    codes = groups % 5
    rows = many._some(codes, groups)
    assert set(codes[rows]) == set(range(5))
    assert all((np.isin(np.flatnonzero(groups == group), rows)).all() for group in np.unique(groups[rows]))
    assert len(rows) == 5 * 30
    assert len(many._some(codes, None)) == 50


def test_the_solver_needs_no_keras():
    code = "import sys, crossroads.heads.solve; print('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "False"


def test_many_features_of_few_images_take_memory_for_the_images_only():
    x = np.random.default_rng(0).normal(size=(30, 8192)).astype(np.float32)
    y = np.arange(30) % 3
    tracemalloc.start()
    solve(x, y, x, y, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8192 * 8192 * 8 / 8


def test_comparing_images_takes_memory_for_their_inner_products_and_not_for_all_features(monkeypatch):
    n, d = 200, 20_000
    x = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    monkeypatch.setattr(_principal, "CHUNK", 10 * 8 * d)
    monkeypatch.setattr(_principal, "BLOCK", 20 * 8 * d)
    tracemalloc.start()
    found = _principal.principal_components(x, np.ones(n))
    found.folded(np.ones((found.coordinates.shape[1], 3)), np.zeros(3))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * d * 8 / 2


@pytest.mark.parametrize("shape", [(50, 70), (70, 50)])
def test_features_that_would_take_too_much_memory_are_refused(monkeypatch, shape):
    monkeypatch.setattr(_principal, "LIMIT", 4 * 8 * 50 * 50 - 1)
    x, y = np.random.default_rng(0).normal(size=shape).astype(np.float32), np.arange(shape[0]) % 3
    with pytest.raises(TrainingError, match=rf"received {shape[0]} x {shape[1]} features; use --pooling average, or a cut"):
        solve(x, y, x, y, 3)


def test_twenty_thousand_flattened_maps_are_refused_before_they_are_read():
    class Unread:
        shape = (20_000, 62_720)

    with pytest.raises(TrainingError, match=r"solved in 4 GiB.*received 20000 x 62720 features"):
        _principal.principal_components(Unread(), np.ones(20_000))


@pytest.mark.parametrize("d", [40, 400])
def test_many_images_and_features_are_turned_in_single_precision_to_the_same_probabilities(monkeypatch, d):
    x, y = decaying(150, d)
    v, _ = decaying(60, d, seed=1)
    monkeypatch.setattr(_principal, "BLOCK", 40 * 4 * d)
    monkeypatch.setattr(_principal, "CHUNK", 11 * 8 * d)
    settle(monkeypatch)
    weights = np.array([1.0, 2.0, 0.5])
    double = solved(x, y, v, y[:60], 3, weights=weights)
    monkeypatch.setattr(_principal, "PRECISE", 0)
    single = solved(x, y, v, y[:60], 3, weights=weights)
    assert [h.kind for h in single] == [h.kind for h in double]
    for a, b in zip(double, single, strict=True):
        np.testing.assert_allclose(softmax(v @ a.kernel + a.bias), softmax(v @ b.kernel + b.bias), atol=1e-3)


def settle(monkeypatch):
    """Penalties that settle the minimum, and steps until it is reached: weak ones leave where to stop to rounding."""
    monkeypatch.setattr(heads, "RIDGE_PENALTIES", (1e-2,))
    monkeypatch.setattr(heads, "LOGISTIC_STEPS", (1.0, 0.1))
    monkeypatch.setattr(heads, "PATIENCE", 9)
    monkeypatch.setattr(_logistic, "FLAT", 1e-7)


def decaying(n, d, seed=0):
    """Three clouds in directions of spread 1, 1/2, 1/3, ...: as those of a network's features, few say almost all."""
    fixed = np.random.default_rng(9)
    turn, centres = np.linalg.qr(fixed.normal(size=(d, d)))[0], fixed.normal(0, 0.5, (3, d))
    labels = np.arange(n) % 3
    spread = np.sqrt(1 / np.arange(1, d + 1))
    rows = (np.random.default_rng(seed).normal(size=(n, d)) + centres[labels]) * spread
    return (rows @ turn).astype(np.float32), labels


def test_the_axes_are_found_in_one_thread(monkeypatch):
    pools = []
    original = scipy.linalg.eigh
    monkeypatch.setattr(scipy.linalg, "eigh", lambda *a, **o: pools.extend(threadpool_info()) or original(*a, **o))
    _principal.principal_components(decaying(30, 5)[0], np.ones(30))
    assert {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"} == {1}


def test_directions_that_logistic_regression_does_not_see_change_no_probability(monkeypatch):
    x, y = decaying(150, 400)
    x = x @ (x.T @ x)  # a steeper fall
    v, w = x[100:], y[100:]
    settle(monkeypatch)
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
    with pytest.raises(TrainingError, match="features must be finite"):
        solve(x, y, x[:3], y[:3], 3)


def test_the_features_are_left_as_they_are():
    x, y = clouds(30)
    doubles = x.astype(np.float64)
    head = solve(doubles, y, doubles, y, 3)
    np.testing.assert_array_equal(doubles, x)
    np.testing.assert_allclose(head.kernel, solve(x, y, x, y, 3).kernel, rtol=1e-4, atol=1e-6)


def test_no_image_is_refused():
    x, y = clouds(30)
    with pytest.raises(TrainingError, match="30 and 0 of them"):
        solve(x, y, x[:0], y[:0], 3)


def test_the_same_images_give_the_same_bits():
    x, y = clouds(120)
    a, b = (solve(x, y, x, y, 3) for _ in range(2))
    np.testing.assert_array_equal(a.kernel, b.kernel)
    np.testing.assert_array_equal(a.bias, b.bias)


def many_features(n=60, d=40, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return (rng.normal(size=(classes, d))[labels] * 0.4 + rng.normal(size=(n, d))).astype(np.float32), labels


@pytest.mark.parametrize("groups", [None, np.arange(60) // 4], ids=["alone", "in groups"])
def test_many_images_of_many_features_are_solved_as_few_are(groups, monkeypatch):
    """Where the part is all images, the Cholesky factor and the principal axes give one head and one held-out loss."""
    x, y = many_features()
    held_out, truth = many_features(seed=1)
    few = heads.solve(x, y, held_out, truth, 3, groups=groups)
    by_axes = next(row for row in few.tried if row.kind == "ridge" and row.validation_loss is not None)
    monkeypatch.setattr(many, "FEWEST", 10)
    by_many = heads.solve(x, y, held_out, truth, 3, groups=groups)
    assert by_many.kind == "ridge"
    assert by_many.penalty == by_axes.penalty
    assert by_many.validation_loss == pytest.approx(by_axes.validation_loss, rel=1e-3)
    by_factor = next(row for row in by_many.tried if row.penalty == by_many.penalty)
    assert by_factor.held_out_loss == pytest.approx(by_axes.held_out_loss, rel=1e-3)


def test_the_penalty_of_many_images_is_chosen_on_whole_groups(monkeypatch):
    x, y = many_features()
    monkeypatch.setattr(many, "FEWEST", 10)
    monkeypatch.setattr(many, "SAMPLE_SIZE", 30)
    groups = np.arange(60) // 4
    rows = many._some(y, groups)
    assert 20 <= len(rows) <= 30
    assert all(np.isin(np.flatnonzero(groups == group), rows).all() for group in groups[rows])
    head = heads.solve(x, y, x, y, 3, groups=groups)
    assert head.validation_accuracy > 0.6


@pytest.mark.parametrize(
    ("accuracies", "tried"),
    [
        ([0.4, 0.4, 0.9, 0.9], 2),  # none did better than ridge, twice in a row
        ([0.6, 0.4, 0.9, 0.9], 2),  # one did, and the next did not
        ([0.4, 0.6, 0.4, 0.9], 3),
        ([0.6, 0.7, 0.8, 0.9], 4),
    ],
)
def test_weaker_penalties_are_tried_for_as_long_as_they_do_better(monkeypatch, accuracies, tried):
    x, y = clouds(60)
    found = iter([0.5, *accuracies, *[0.0] * 9])  # of ridge, and of each penalty
    monkeypatch.setattr(heads, "measure", lambda *_: (1 - (value := next(found)), value))
    assert sum(row.kind == "logistic" for row in solve(x, y, x, y, 3).tried) == tried
