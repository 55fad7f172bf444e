"""Creates views, the augmented versions of an image.

A view depends only on the image and its number, so every process creates the same views.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossroads.data.augmentation import draw_transforms
from crossroads.recipe import Augmentation


def view(image: NDArray[np.uint8], digest: bytes, number: int, augmentation: Augmentation | None) -> NDArray[np.uint8]:
    """Returns one view of an image, with bilinear interpolation and the edge repeated outside the image.

    Args:
        image: uint8 (size, size, 3).
        digest: 16 bytes, of the source that was decoded.
        number: 0 for the image itself; every other number is augmented in its own way.
        augmentation: The limits of the augmentation; None for no augmentation.

    Returns:
        uint8 (size, size, 3).
    """
    if number == 0 or augmentation is None:
        return image
    words = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)]
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([*words, number])))
    maps, colour = draw_transforms(augmentation, len(image), 1, generator)
    warped = _warped(image, maps[0].astype(np.float64))
    gain, offset = colour[0]
    if (gain, offset) == (1, 0):
        return warped
    coloured: NDArray[np.uint8] = np.clip(np.rint(warped * gain + offset), 0, 255).astype(np.uint8)
    return coloured


def _warped(image: NDArray[np.uint8], affine: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Applies an affine map of `draw_transforms` from output to input pixels. First repeats the edge as far as the map reaches."""
    size = len(image)
    a0, a1, a2, b0, b1, b2 = affine[:6]
    corners = np.array([(x, y) for x in (0, size - 1) for y in (0, size - 1)], np.float64)
    mapped = np.stack([corners @ (a0, a1) + a2, corners @ (b0, b1) + b2])
    margin = int(np.ceil(max(0.0, -mapped.min(), mapped.max() - (size - 1)))) + 1
    padded = Image.fromarray(np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="edge"))
    # Pillow's origin is the corner of a pixel and the map's is its centre, so the map is shifted by half a pixel before and after.
    shift = margin + 0.5
    data = (a0, a1, a2 + shift - (a0 + a1) / 2, b0, b1, b2 + shift - (b0 + b1) / 2)
    return np.array(padded.transform((size, size), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR), np.uint8)
