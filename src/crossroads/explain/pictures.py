"""Draws heat maps over images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_COLOURS = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32)
"""Five colours of Matplotlib's map ``inferno``, which grows evenly brighter, for 0, 0.25, … 1."""

OPACITY = 0.6
"""Opacity of the heat map."""


def overlay(pixels: NDArray[np.uint8], heat: NDArray[np.float32]) -> Image.Image:
    """Returns an image under a heat map: bright where the map is 1, dark where it is 0.

    Args:
        pixels: uint8 (height, width, 3).
        heat: float32 (height, width), in 0..1.
    """
    at = np.clip(heat, 0, 1) * (len(_COLOURS) - 1)
    points = np.arange(len(_COLOURS))
    colours = np.stack([np.interp(at, points, _COLOURS[:, channel]) for channel in range(3)], axis=-1)
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    mixed = (1 - OPACITY) * grey[..., None] + OPACITY * colours
    return Image.fromarray(mixed.round().astype(np.uint8))
