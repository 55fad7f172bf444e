"""Covers augmentation: parameters drawn within their limits, and the layer that applies them."""

import keras
import numpy as np
import pytest

from crossroads.data.augmentation import draw_transforms, generator_for
from crossroads.recipe import Augmentation
from crossroads.training.augment import Augment

pytestmark = pytest.mark.core
EVERYTHING = Augmentation(shift=0.2, rotation=30, zoom=0.3, shear=10, brightness=0.2, contrast=0.4, flip=True)


def picture(size=16, seed=0):
    rough = np.random.default_rng(seed).integers(0, 256, (1, size // 4, size // 4, 3), dtype=np.uint8)
    return rough.repeat(4, axis=1).repeat(4, axis=2)


def augmented(images, maps, colour):
    return keras.ops.convert_to_numpy(Augment()((images, maps.astype("float32"), colour.astype("float32"))))


def drawn(augmentation, n=64, size=16, epoch=0, seed=0):
    return draw_transforms(augmentation, size, n, generator_for(seed, epoch, 1))


def test_a_draw_depends_on_seed_epoch_and_index_alone():
    few, many = drawn(EVERYTHING, n=5), drawn(EVERYTHING, n=50)
    for a, b in zip(few, many, strict=True):
        np.testing.assert_array_equal(a, b[:5])
    assert not np.array_equal(few[0], drawn(EVERYTHING, n=5, epoch=1)[0])
    assert not np.array_equal(few[0], drawn(EVERYTHING, n=5, seed=1)[0])


def test_no_augmentation_is_the_identity():
    image = picture()
    maps, colour = drawn(Augmentation(), n=1)
    np.testing.assert_allclose(augmented(image, maps, colour), image, atol=1e-3)


def test_a_shift_stays_within_its_limit():
    maps, _ = drawn(Augmentation(shift=0.25), n=2000, size=16)
    for axis in (2, 5):
        assert np.abs(maps[:, axis]).max() <= 4
        assert np.abs(maps[:, axis]).max() > 3.9
    np.testing.assert_array_equal(maps[:, [0, 1, 3, 4]], np.tile([1, 0, 0, 1], (2000, 1)).astype("float32"))


def scales(maps):
    """Returns the scale of each axis of the input, (n, 2)."""
    return np.hypot(maps[:, [0, 1]], maps[:, [3, 4]])


@pytest.mark.parametrize("more", [{}, {"rotation": 40, "shear": 20, "shift": 0.2, "flip": True}])
def test_a_zoom_stays_within_its_range_on_both_axes(more):
    maps, _ = drawn(Augmentation(zoom=0.15, **more), n=20_000)
    zooms = scales(maps)
    assert zooms.max() <= 1.15 + 1e-6
    assert zooms.min() >= 1 / 1.15 - 1e-6
    assert (zooms.max(axis=0) > 1.14).all()
    assert (zooms.min(axis=0) < 1 / 1.14).all()
    apart = np.abs(np.log(zooms[:, 0] / zooms[:, 1])).max() / np.log(1.15)
    assert apart == pytest.approx(1 / 3, abs=0.01)


def test_a_shift_is_a_fraction_of_the_output_whatever_the_zoom_and_rotation():
    maps, _ = drawn(Augmentation(shift=0.1, zoom=0.5, rotation=90, shear=20), n=20_000, size=17)
    maps = maps.astype(np.float64)
    linear, offsets = maps[:, [[0, 1], [3, 4]]], maps[:, [2, 5]]
    shown_at = np.linalg.solve(linear, (8.0 - offsets)[:, :, None])[:, :, 0]  # the output pixel that shows the centre of the input
    reached = np.abs(shown_at - 8.0).max(axis=0) / 17
    assert (reached <= 0.1 + 1e-6).all()
    assert (reached > 0.099).all()


def test_the_layer_ignores_the_global_dtype_policy_and_data_format():
    image, (maps, colour) = picture(), drawn(EVERYTHING, n=1)
    expected = augmented(image, maps, colour)
    policy, order = keras.config.dtype_policy(), keras.config.image_data_format()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        keras.config.set_image_data_format("channels_first")
        result = augmented(image, maps, colour)
    finally:
        keras.config.set_dtype_policy(policy)
        keras.config.set_image_data_format(order)
    np.testing.assert_array_equal(result, expected)


def test_a_shift_of_whole_pixels_is_exact():
    image = picture()
    maps = np.array([[1, 0, 2, 0, 1, 0, 0, 0]])
    result = augmented(image, maps, np.array([[1, 0]]))
    np.testing.assert_allclose(result[:, :, :-2], image[:, :, 2:], atol=1e-3)
    np.testing.assert_allclose(result[:, :, -1], image[:, :, -1], atol=1e-3)


def test_rotation_zoom_and_shear_keep_the_centre():
    maps, _ = drawn(Augmentation(rotation=40, zoom=0.5, shear=20), n=200, size=17)
    centre = np.array([8.0, 8.0])
    x = maps[:, 0] * centre[0] + maps[:, 1] * centre[1] + maps[:, 2]
    y = maps[:, 3] * centre[0] + maps[:, 4] * centre[1] + maps[:, 5]
    np.testing.assert_allclose(np.stack([x, y], 1), np.tile(centre, (200, 1)), atol=1e-4)


def test_flip_mirrors_about_half_of_the_images():
    image = picture()
    maps, colour = drawn(Augmentation(flip=True), n=400)
    mirrored = maps[:, 0] < 0
    assert 0.4 < mirrored.mean() < 0.6
    result = augmented(image, maps[mirrored][:1], colour[:1])
    np.testing.assert_allclose(result, image[:, :, ::-1], atol=1e-3)


def test_contrast_keeps_mid_grey_and_brightness_is_added():
    grey = np.full((1, 8, 8, 3), 127, np.uint8)
    maps, colour = drawn(Augmentation(contrast=0.5), n=1, size=8)
    np.testing.assert_allclose(augmented(grey, maps, colour), 127, atol=0.5)
    _, colour = drawn(Augmentation(brightness=0.2), n=2000, size=8)
    assert 50 < np.abs(colour[:, 1]).max() <= 51
    np.testing.assert_array_equal(colour[:, 0], 1)


def test_pixels_are_clipped_to_their_range():
    maps, colour = drawn(EVERYTHING, n=1)
    colour[:] = [3.0, 0.0]
    result = augmented(picture(), maps, colour)
    assert result.min() >= 0
    assert result.max() <= 255
