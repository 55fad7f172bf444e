"""Covers the estimates of memory: they agree with what was measured, and batches are split so that their activations fit."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossroads.networks.memory import ACTIVATIONS_MB, LEAST_PART, batch_parts, frozen_mb, part_mb, training_mb

LITE = (3_413_024, 19_843_040)
"""Parameters and activations of EfficientNet-Lite0 at 224 px."""


@pytest.mark.parametrize(
    ("parameters", "activations", "peak"),
    [  # `peak_memory_mb` of `fit` on 237 images
        (3.2e6, 16.7e6, 1_655),  # MobileNet, 224 px
        (2.3e6, 21.7e6, 2_105),  # MobileNetV2
        (23.6e6, 37.0e6, 2_944),  # ResNet50
        (0.7e6, 6.6e6, 1_359),  # SqueezeNet
        (3.2e6, 3.1e6, 978),  # MobileNet, 96 px
    ],
)
def test_the_memory_of_a_graph_from_keras_is_estimated_within_a_fifth(parameters, activations, peak):
    assert frozen_mb(int(parameters), activations, keras=True) == pytest.approx(peak, rel=0.2)


def test_the_memory_of_a_graph_without_keras_is_that_of_a_large_set_or_less():
    assert 0.85 * 870 < frozen_mb(*LITE, keras=False) < 1.1 * 870
    assert frozen_mb(*LITE, keras=False) < frozen_mb(*LITE, keras=True)


@pytest.mark.parametrize(
    ("parameters", "activations", "images", "train_batchnorm", "peak"),
    [  # the peak of a process that trains, in MB
        (*LITE, 8, True, 1_668),
        (*LITE, 16, True, 2_203),
        (*LITE, 32, True, 3_238),
        (*LITE, 8, False, 1_354),
        (*LITE, 32, False, 2_181),
        (3_200_000, 16.7e6, 32, True, 2_760),  # MobileNet, 224 px
        (700_000, 6.6e6, 32, True, 1_847),  # SqueezeNet, which has no BatchNorm
    ],
)
def test_the_memory_of_a_training_is_estimated_within_a_tenth(parameters, activations, images, train_batchnorm, peak):
    estimate = training_mb(parameters, activations, images, train_batchnorm=train_batchnorm)
    assert estimate == pytest.approx(peak, rel=0.1)


def test_the_default_network_trains_within_two_gigabytes():
    for train_batchnorm in (True, False):
        assert part_mb(32, *LITE, train_batchnorm=train_batchnorm) < 2_000


def test_a_small_network_trains_on_whole_batches():
    assert batch_parts(64, 506_080, 78_336, train_batchnorm=True) == 1  # small-cnn at 32 px


@given(st.integers(1, 512), st.floats(1e3, 1e8), st.booleans(), st.none() | st.floats(100, 16_000))
def test_a_part_fits_unless_it_is_the_smallest(batch_size, activations, train_batchnorm, limit_mb):
    parts = batch_parts(batch_size, 1_000_000, activations, train_batchnorm=train_batchnorm, limit_mb=limit_mb)
    images = math.ceil(batch_size / parts)
    assert 1 <= parts <= batch_size
    fixed = training_mb(1_000_000, activations, 0, train_batchnorm=train_batchnorm)
    needed = part_mb(batch_size, 1_000_000, activations, train_batchnorm=train_batchnorm, limit_mb=limit_mb)
    fits = needed - fixed <= ACTIVATIONS_MB + 1e-6 and (limit_mb is None or needed <= limit_mb + 1e-6)
    assert fits or images <= LEAST_PART
