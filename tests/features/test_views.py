"""Covers views: they are deterministic, and augmented like training images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from crossroads.data.augmentation import draw_transforms
from crossroads.features.views import view
from crossroads.recipe import Augmentation

FAR = Augmentation(shift=0.3, rotation=60, zoom=0.5, shear=20, brightness=0.2, contrast=0.3, flip=True)


def picture(size=24, seed=0):
    """Returns an image as smooth as a photograph. With noise, two correct interpolations would differ at every pixel."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC))


def test_the_first_view_is_the_image_itself():
    np.testing.assert_array_equal(view(picture(), bytes(16), 0, FAR), picture())


def test_a_view_depends_on_image_and_number_alone():
    same = [view(picture(), b"a" * 16, 1, FAR) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert same[0].shape == (24, 24, 3)
    assert same[0].dtype == np.uint8
    for digest, number in ((b"a" * 16, 2), (b"b" * 16, 1)):
        assert (view(picture(), digest, number, FAR) != same[0]).any()


@pytest.mark.core
@pytest.mark.parametrize("seed", range(12))
def test_views_are_augmented_as_training_images_are(seed):
    from crossroads.training.augment import Augment

    digest = np.random.default_rng(seed).bytes(16)
    words = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)]
    maps, colour = draw_transforms(FAR, 24, 1, np.random.Generator(np.random.Philox(np.random.SeedSequence([*words, 1]))))
    expected = np.asarray(Augment()((picture(seed=seed)[None], maps, colour)))[0]
    assert np.abs(view(picture(seed=seed), digest, 1, FAR).astype(float) - expected).max() <= 2
