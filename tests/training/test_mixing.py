"""Mixup: mixed inputs and targets, and partners within the batch."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossroads.data.augmentation import stream_of
from crossroads.training.mixing import Mix, mixed_targets, others, pairs


@pytest.mark.core
@pytest.mark.parametrize("shape", [(5, 3), (5, 4, 4, 2)])
def test_each_input_is_a_weighted_mean_with_its_partner(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    other, fractions = np.array([1, 0, 4, 2, 3], np.int32), np.linspace(0, 1, 5, dtype=np.float32)
    result = keras.ops.convert_to_numpy(Mix()((x, other[:, None], fractions[:, None])))
    by_row = fractions.reshape(-1, *[1] * (len(shape) - 1))
    np.testing.assert_allclose(result, by_row * x + (1 - by_row) * x[other], atol=1e-6)


@given(st.integers(1, 50), st.integers(0, 100))
def test_partners_are_a_permutation_of_the_batch(n, seed):
    ranks, fractions = pairs(n, 0.4, stream_of(seed, 0, 3))
    assert sorted(others(ranks).tolist()) == list(range(n))
    assert ((fractions >= 0) & (fractions <= 1)).all()


@given(st.integers(0, 1000), st.booleans())
def test_the_loss_of_mixed_targets_is_the_mixture_of_the_losses(seed, weighted):
    rng = np.random.default_rng(seed)
    targets, losses = np.eye(4, dtype=np.float32)[rng.integers(0, 4, 8)], rng.exponential(size=(8, 4))
    other, fractions = rng.permutation(8).astype(np.int32), rng.uniform(size=8).astype(np.float32)
    weights = rng.uniform(0, 3, 8).astype(np.float32) if weighted else None
    mixed, weight = mixed_targets(targets, other, fractions, weights)
    each = (losses * targets).sum(axis=1) * (1 if weights is None else weights)
    across = (losses * targets[other]).sum(axis=1) * (1 if weights is None else weights[other])
    result = (losses * mixed).sum(axis=1) * (1 if weight is None else weight)
    np.testing.assert_allclose(result, fractions * each + (1 - fractions) * across, rtol=1e-4)
    np.testing.assert_allclose(mixed.sum(axis=1), 1, rtol=1e-5)
