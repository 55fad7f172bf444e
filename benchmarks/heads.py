"""Logistic regression on cached features: ours against scikit-learn's, each to convergence, and the difference of the losses."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from benchmarks import features
from benchmarks._measure import SHARED, Row, Settings, alternate, fresh, seconds_of
from benchmarks.runs import BACKBONES, WEIGHTS

PENALTIES = (1e-6, 1e-8)
"""A usual penalty for such features, and a weak one with which most images are confident."""


def head(settings: Settings) -> Iterator[Row]:
    images = settings.size(9_000, 500)
    for penalty in PENALTIES:
        ours, alone, theirs, apart = fresh("benchmarks.heads:compare", images, penalty, settings.runs).value
        title = f"head, {images:,} signs, SqueezeNet, penalty {penalty:g}"
        yield Row(title, "s", tuple(ours), "scikit-learn", tuple(theirs))
        yield Row(f"{title}, in one thread", "s", tuple(alone), "scikit-learn", tuple(theirs))
        yield Row(f"{title}, loss above scikit-learn's", "nats", (apart,))


def compare(images: int, penalty: float, runs: int) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], float]:
    """Returns the seconds of ours, of ours in one thread, and of theirs, measured alternately on principal coordinates, and by how
    much our penalized loss is higher."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    from crossroads.heads import _logistic
    from crossroads.heads._principal import principal_components

    rows, labels = _sign_features(images)
    classes, codes = np.unique(labels, return_inverse=True)
    weights = np.ones(images)
    components = principal_components(rows, weights)
    unit = np.float32(np.sqrt(components.standardizer.width))
    start = np.zeros((0, len(classes))), np.zeros(len(classes))
    scaled = components.coordinates * unit
    # Features of unit variance, for which scikit-learn's tolerance is meant, and one thread.
    model = LogisticRegression(C=1 / (penalty * images * float(unit) ** 2), tol=1e-5, max_iter=1000)
    solutions: dict[str, Any] = {}

    def ours() -> None:
        solutions["ours"] = _logistic.logistic(components.coordinates, codes, weights, components.spread, penalty, start)

    def alone() -> None:
        with mock.patch.object(_logistic, "usable_processors", return_value=1):
            ours()

    def theirs() -> None:
        with threadpool_limits(limits=1):
            model.fit(scaled, codes)
        solutions["theirs"] = model.coef_.T * unit, model.intercept_

    seconds = alternate(runs, lambda: seconds_of(ours), lambda: seconds_of(alone), lambda: seconds_of(theirs))
    our_loss, their_loss = (_loss(components.coordinates, codes, penalty, *solutions[name]) for name in ("ours", "theirs"))
    return seconds[0], seconds[1], seconds[2], our_loss - their_loss


def _sign_features(images: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Returns the average-pooled features of signs at the end of SqueezeNet with ImageNet weights, at 96 px, and their classes."""
    import crossroads

    signs = crossroads.read(SHARED / "gtsrb_train_32px.tar.xz")
    some = signs.select(np.sort(np.random.default_rng(0).permutation(len(signs))[:images]))
    network = BACKBONES["SqueezeNet"]
    with tempfile.TemporaryDirectory(prefix="crossroads-bench-") as folder:
        os.environ["CROSSROADS_CACHE"] = folder
        extraction = features.at_the_end(some, network["backbone"], str(WEIGHTS / network["weights"]), 96, 32.0)
        return np.array(extraction.features[:], np.float32), extraction.dataset.labels.astype(np.int64)


def _loss(
    rows: NDArray[np.float32], labels: NDArray[np.int64], penalty: float, kernel: NDArray[np.float64], bias: NDArray[np.float64]
) -> float:
    from scipy.special import log_softmax

    likely = log_softmax(rows.astype(np.float64) @ kernel + bias, axis=1)[np.arange(len(labels)), labels]
    return float(-likely.mean() + penalty / 2 * (kernel**2).sum())
