"""LogME: the evidence of a linear model on frozen features, a published score for choosing a pretrained network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.features import at_the_end as end_features

ROUNDS = 50
"""Largest number of iterations of the fixed point, which converges in about ten."""


def logme(features: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Returns the log maximum evidence per image (You et al., 2021, algorithm 1), averaged over the classes, one against the rest.

    Args:
        features: Float (n, d).
        labels: Integers (n,).
    """
    left, singular, _ = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    return float(np.mean([_evidence(left, singular**2, features.shape[1], (labels == label) * 1.0) for label in np.unique(labels)]))


def _evidence(left: NDArray[np.float64], spread: NDArray[np.float64], width: int, target: NDArray[np.float64]) -> float:
    """Returns the evidence per image, maximized over the precisions of weights and noise (MacKay's fixed point)."""
    count, squares = len(target), (left.T @ target) ** 2
    rest = max(float(target @ target - squares.sum()), 0.0)
    prior, noise = 1.0, 1.0
    for _ in range(ROUNDS):
        ratio = prior / noise
        known = float((spread / (spread + ratio)).sum())
        length = float((spread * squares / (spread + ratio) ** 2).sum())
        error = float((squares / (1 + spread / ratio) ** 2).sum()) + rest
        before, prior, noise = ratio, known / (length + 1e-12), (count - known) / (error + 1e-12)
        if abs(prior / noise - before) <= 1e-5 * before:
            break
    return evidence(left, spread, width, target, prior, noise)


def evidence(
    left: NDArray[np.float64], spread: NDArray[np.float64], width: int, target: NDArray[np.float64], prior: float, noise: float
) -> float:
    """Returns the log density of the target per image, with weights of precision `prior` and noise of precision `noise`."""
    count, squares, ratio = len(target), (left.T @ target) ** 2, prior / noise
    length = float((spread * squares / (spread + ratio) ** 2).sum())
    error = float((squares / (1 + spread / ratio) ** 2).sum()) + max(float(target @ target - squares.sum()), 0.0)
    volume = float(np.log(prior + noise * spread).sum()) + (width - len(spread)) * np.log(prior)
    fit = width * np.log(prior) + count * np.log(noise) - volume - noise * error - prior * length
    return float(fit - count * np.log(2 * np.pi)) / (2 * count)


def at_the_end(dataset: Any, backbone: str, weights: str | None, image_size: int) -> float:
    """Returns LogME of a backbone's averages at its end, on a sample of the training images of a data set."""
    from crossroads.advice.recommend import SAMPLE
    from crossroads.advice.sample import sample
    from crossroads.data.dataset import TRAIN
    from crossroads.data.loading import median_side

    train = dataset.select(dataset.splits == TRAIN)
    side = float(median_side(train, seed=0))
    extraction = end_features(train.select(sample(train, SAMPLE, 0)), backbone, weights, image_size, side)
    return logme(np.asarray(extraction.features[:]), extraction.dataset.labels)
