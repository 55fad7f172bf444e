"""Draws the random transforms that augment images. They depend only on seeds and indices, so every draw can be repeated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crossroads.recipe import Augmentation


def generator_for(seed: int, epoch: int, purpose: int) -> np.random.Generator:
    """Returns an independent generator for each seed, epoch and purpose.

    It is Philox, a counter-based generator (Salmon et al., 2011).
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, purpose])))


def draw_transforms(
    augmentation: Augmentation, size: int, n: int, generator: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draws one transform for each of `n` images.

    The transform of image i depends on the generator and i, but not on n.

    Args:
        augmentation: The ranges to draw from.
        size: Side of the images in pixels.
        n: Number of images.
        generator: Source of the random numbers. It is used once.

    Returns:
        Two arrays: the affine maps from output to input pixels, float32 (n, 8), in the order of
        `keras.ops.image.affine_transform`; and the gain and offset of the pixel values in [0, 255], float32 (n, 2).
    """
    u = generator.uniform(-1.0, 1.0, (n, 9))
    angle, shear = np.deg2rad(augmentation.rotation * u[:, 0]), np.deg2rad(augmentation.shear * u[:, 1])
    # The zoom is uniform on a logarithmic scale, so enlarging and shrinking are equally likely. The zooms of the two axes differ by
    # at most a third of the range, and neither leaves the range.
    zoom, both, apart = np.log1p(augmentation.zoom), u[:, 2] * 5 / 6, u[:, 3] / 6
    wide, high = np.exp(zoom * (both + apart)), np.exp(zoom * (both - apart))
    mirror = np.where(u[:, 8] < 0, -1.0, 1.0) if augmentation.flip else np.ones(n)
    a0, a1 = np.cos(angle) * wide * mirror, -np.sin(angle + shear) * high
    b0, b1 = np.sin(angle) * wide * mirror, np.cos(angle + shear) * high
    centre, reach = (size - 1) / 2, augmentation.shift * size
    # (x, y) is the output pixel that shows the centre of the input. A shift is therefore a fraction of the output, even with zoom
    # and rotation.
    x, y = centre + reach * u[:, 4], centre + reach * u[:, 5]
    a2, b2 = centre - a0 * x - a1 * y, centre - b0 * x - b1 * y
    zero = np.zeros(n)
    maps = np.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1).astype(np.float32)
    gain = 1 + augmentation.contrast * u[:, 6]
    # Contrast scales values around mid-grey, so it does not change the brightness of a mid-grey image.
    offset = 127.5 * (1 - gain) + 255 * augmentation.brightness * u[:, 7]
    return maps, np.stack([gain, offset], axis=1).astype(np.float32)
