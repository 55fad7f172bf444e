"""Covers training batches: each image once per epoch, the same batches wherever training resumes, weights and targets."""

import tracemalloc
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from crossroads.networks.catalog import backbone
from crossroads.recipe import Augmentation, Recipe
from crossroads.strategies import plan_phases, resolve_recipe
from crossroads.training.batches import (
    LARGE_STEP,
    STEPS_PER_EXECUTION,
    LabelledData,
    batches,
    class_weights,
    inference_batch_size,
    parts_per_epoch,
    steps_per_call,
    steps_per_epoch,
)


def phase(**options):
    return plan_phases(resolve_recipe(Recipe(strategy="from-scratch", **options), backbone("quiz-cnn"), images=10, image_size=8))[0]


def labelled(n, classes=3):
    """Returns images with their row number in the first pixel."""
    pixels = np.zeros((n, 8, 8, 3), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(n)
    return LabelledData(pixels, (np.arange(n) % classes).astype(np.int32))


def epoch_of(data, phase, epoch):
    return list(islice(batches(data, phase, 3, epoch), steps_per_epoch(len(data), phase.batch_size)))


@given(st.integers(1, 200), st.integers(1, 64))
def test_an_epoch_has_every_image_once_in_batches_of_nearly_equal_size(n, batch_size):
    data = labelled(n)
    epoch = epoch_of(data, phase(batch_size=batch_size), 0)
    indices = np.concatenate([inputs[:, 0, 0, 0] for inputs, _ in epoch])
    assert sorted(indices.tolist()) == list(range(n))
    sizes = [len(targets) for _, targets in epoch]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    for inputs, targets in epoch:
        np.testing.assert_array_equal(targets, inputs[:, 0, 0, 0] % 3)


def test_an_epoch_is_the_same_wherever_training_resumes():
    data, options = labelled(50), phase(batch_size=8, augmentation=Augmentation(shift=0.1))
    whole = list(islice(batches(data, options, 3, 0), 3 * 7))[2 * 7 :]
    resumed = epoch_of(data, options, 2)
    for (a, ya), (b, yb) in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(ya, yb)
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


@given(st.integers(1, 10**6), st.integers(1, 512))
def test_many_steps_are_a_multiple_of_the_steps_per_execution(n, batch_size):
    steps = steps_per_epoch(n, batch_size)
    least = -(-n // batch_size)
    assert least <= steps < least + STEPS_PER_EXECUTION
    assert steps <= n
    assert steps % STEPS_PER_EXECUTION == 0 or steps < 8 * STEPS_PER_EXECUTION or n < least + STEPS_PER_EXECUTION


@pytest.mark.parametrize(("n", "batch_size", "steps"), [(65, 1, 65), (72, 1, 72), (130, 2, 72), (63, 1, 63)])
def test_no_batch_is_empty(n, batch_size, steps):
    assert steps_per_epoch(n, batch_size) == steps
    assert min(len(targets) for _, targets in epoch_of(labelled(n), phase(batch_size=batch_size), 0)) >= 1


def test_the_order_depends_on_epoch_and_seed():
    data = labelled(50)
    order = [
        np.concatenate([i[:, 0, 0, 0] for i, _ in epoch_of(data, phase(seed=seed), epoch)]).tolist()
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert order[0] != order[1] != order[2] != order[0]


def test_targets_are_one_hot_with_label_smoothing():
    ((inputs, targets),) = epoch_of(labelled(6), phase(label_smoothing=0.1), 0)
    assert targets.shape == (6, 3)
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets.sum(axis=1), 1)
    np.testing.assert_array_equal(targets.argmax(axis=1), inputs[:, 0, 0, 0] % 3)


def test_label_smoothing_needs_memory_for_one_batch_only():
    tracemalloc.start()
    next(batches(labelled(6), phase(label_smoothing=0.1), 20_000, 0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 20_000 * 4 * 4


def test_balanced_weights_equal_those_of_scikit_learn():
    labels = np.array([0, 0, 0, 0, 1, 2, 2], np.int32)
    weights = class_weights(labels, 3, "balanced")
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=labels), rtol=1e-6)
    assert class_weights(labels, 3, "none") is None


def test_each_image_has_the_weight_of_its_class():
    ((_, targets, weights),) = epoch_of(labelled(7), phase(class_weights="balanced"), 0)
    expected = class_weights(labelled(7).labels, 3, "balanced")
    np.testing.assert_array_equal(weights, expected[targets])


@pytest.mark.parametrize("absent", [0, 2])
def test_a_class_without_images_has_weight_0(absent):
    labels = np.array([i for i in (0, 1, 2) if i != absent], np.int32)
    assert class_weights(labels, 3, "balanced")[absent] == 0


def test_each_epoch_has_each_image_in_one_of_its_views():
    inputs = np.arange(3 * 40, dtype=np.float32)[:, None]  # row v x n + i
    data = LabelledData(inputs, (np.arange(40) % 3).astype(np.int32), views=3)
    rows = [np.concatenate([i[:, 0] for i, _ in epoch_of(data, phase(batch_size=8), e)]).astype(int) for e in (0, 1)]
    for seen in rows:
        assert sorted(seen % 40) == list(range(40))
        assert set(seen // 40) == {0, 1, 2}
    assert (rows[0][np.argsort(rows[0] % 40)] != rows[1][np.argsort(rows[1] % 40)]).any()
    for inputs_of, targets in epoch_of(data, phase(batch_size=8), 0):
        np.testing.assert_array_equal(targets, inputs_of[:, 0].astype(int) % 40 % 3)


class Shaped:
    def __init__(self, *shape):
        self.shape = shape


@pytest.mark.parametrize(
    ("shape", "rows"),
    [((32, 32, 3), 256), ((96, 96, 3), 66), ((224, 224, 3), 12), ((600, 600, 3), 8), ((1280,), 256), ((62720,), 29)],
)
def test_large_inputs_run_in_smaller_batches(shape, rows):
    assert inference_batch_size(Shaped(1000, *shape)) == rows


def test_small_steps_run_several_per_call_and_large_ones_one_by_one():
    assert steps_per_call(64, 1_000) == steps_per_call(64, 0) == STEPS_PER_EXECUTION
    assert steps_per_call(64, LARGE_STEP + 1) == 1
    assert steps_per_call(63, 1_000) == 1


@given(st.integers(1, 200), st.integers(1, 64), st.integers(1, 8))
def test_parts_hold_every_image_once_and_each_step_has_equally_many(n, batch_size, parts):
    data, split = labelled(n), replace(phase(batch_size=batch_size), parts=parts)
    count = parts_per_epoch(n, split)
    assert count % steps_per_epoch(n, batch_size) == 0
    epoch = list(islice(batches(data, split, 3, 0), count))
    indices = np.concatenate([inputs[:, 0, 0, 0] for inputs, _ in epoch])
    assert sorted(indices.tolist()) == list(range(n))
    sizes = [len(targets) for _, targets in epoch]
    assert 1 <= min(sizes) <= max(sizes) <= min(sizes) + 1
