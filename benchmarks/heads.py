"""Logistic regression on cached features: ours beside scikit-learn's, each to its own end, and how far the ends lie apart."""

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
"""One that such features want, and one that makes most images sure."""


def head(settings: Settings) -> Iterator[Row]:
    images = settings.size(9_000, 500)
    for penalty in PENALTIES:
        ours, alone, theirs, apart = fresh("benchmarks.heads:sides", images, penalty, settings.runs).value
        title = f"head, {images:,} signs, SqueezeNet, penalty {penalty:g}"
        yield Row(title, "s", tuple(ours), "scikit-learn", tuple(theirs))
        yield Row(f"{title}, in one thread", "s", tuple(alone), "scikit-learn", tuple(theirs))
        yield Row(f"{title}, loss above scikit-learn's", "nats", (apart,))


def sides(images: int, penalty: float, runs: int) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], float]:
    """Seconds of ours, of ours in one thread, and of theirs, in turns, on principal coordinates, as a head has them; and by how
    much our penalised loss is more."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    from crossroads.heads import _logistic
    from crossroads.heads._principal import principal_components

    rows, labels = _of_signs(images)
    classes, codes = np.unique(labels, return_inverse=True)
    weights = np.ones(images)
    turn = principal_components(rows, weights)
    unit = np.float32(np.sqrt(turn.standard.width))
    start = np.zeros((0, len(classes))), np.zeros(len(classes))
    scaled = turn.coordinates * unit
    # What Crossroads had before: features of unit variance, in which scikit-learn's slope has a scale, and one thread.
    model = LogisticRegression(C=1 / (penalty * images * float(unit) ** 2), tol=1e-5, max_iter=1000)
    found: dict[str, Any] = {}

    def ours() -> None:
        found["ours"] = _logistic.logistic(turn.coordinates, codes, weights, turn.spread, penalty, start)

    def alone() -> None:
        with mock.patch.object(_logistic, "usable_processors", return_value=1):
            ours()

    def theirs() -> None:
        with threadpool_limits(limits=1):
            model.fit(scaled, codes)
        found["theirs"] = model.coef_.T * unit, model.intercept_

    seconds = alternate(runs, lambda: seconds_of(ours), lambda: seconds_of(alone), lambda: seconds_of(theirs))
    more, least = (_loss(turn.coordinates, codes, penalty, *found[side]) for side in ("ours", "theirs"))
    return seconds[0], seconds[1], seconds[2], more - least


def _of_signs(images: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Averages at the end of SqueezeNet with its ImageNet weights, at 96 px, of so many signs, and their classes."""
    import crossroads

    signs = crossroads.read(SHARED / "gtsrb_train_32px.tar.xz")
    some = signs.select(np.sort(np.random.default_rng(0).permutation(len(signs))[:images]))
    network = BACKBONES["SqueezeNet"]
    with tempfile.TemporaryDirectory(prefix="crossroads-bench-") as folder:
        os.environ["CROSSROADS_CACHE"] = folder
        found = features.at_the_end(some, network["backbone"], str(WEIGHTS / network["weights"]), 96, 32.0)
        return np.array(found.features[:], np.float32), found.dataset.labels.astype(np.int64)


def _loss(
    rows: NDArray[np.float32], labels: NDArray[np.int64], penalty: float, kernel: NDArray[np.float64], bias: NDArray[np.float64]
) -> float:
    from scipy.special import log_softmax

    likely = log_softmax(rows.astype(np.float64) @ kernel + bias, axis=1)[np.arange(len(labels)), labels]
    return float(-likely.mean() + penalty / 2 * (kernel**2).sum())
