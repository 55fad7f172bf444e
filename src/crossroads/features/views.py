"""Views: moved versions of an image, the same in every process, since they depend on the image and their number alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossroads.data.augmentation import draw_transforms
from crossroads.recipe import Augmentation


def view(image: NDArray[np.uint8], digest: bytes, number: int, moves: Augmentation | None) -> NDArray[np.uint8]:
    """One view of an image.

    Args:
        image: uint8 (size, size, 3).
        digest: 16 bytes, of what was decoded.
        number: 0 for the image itself; any other is moved, each in its own way.
        moves: How far; None for not at all.

    Returns:
        uint8 (size, size, 3). Bilinear; what comes in from outside is the nearest pixel of the edge.
    """
    if number == 0 or moves is None:
        return image
    words = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)]
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([*words, number])))
    maps, colour = draw_transforms(moves, len(image), 1, generator)
    moved = _moved(image, maps[0].astype(np.float64))
    gain, offset = colour[0]
    if (gain, offset) == (1, 0):
        return moved
    coloured: NDArray[np.uint8] = np.clip(np.rint(moved * gain + offset), 0, 255).astype(np.uint8)
    return coloured


def _moved(image: NDArray[np.uint8], affine: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Applies a map of `draw_transforms` by Pillow, to an image whose edge is repeated as far as the map reaches."""
    size = len(image)
    a0, a1, a2, b0, b1, b2 = affine[:6]
    corners = np.array([(x, y) for x in (0, size - 1) for y in (0, size - 1)], np.float64)
    reached = np.stack([corners @ (a0, a1) + a2, corners @ (b0, b1) + b2])
    margin = int(np.ceil(max(0.0, -reached.min(), reached.max() - (size - 1)))) + 1
    padded = Image.fromarray(np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="edge"))
    # Pillow counts from the corner of a pixel, the map from its centre.
    shift = margin + 0.5
    data = (a0, a1, a2 + shift - (a0 + a1) / 2, b0, b1, b2 + shift - (b0 + b1) / 2)
    moved = padded.transform((size, size), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    return np.array(moved, np.uint8)
