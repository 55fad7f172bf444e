"""Decodes the images of requests exactly as training and `crossroads predict` do, within the server's limit."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from crossroads.data.images import Resize, dimensions, load
from crossroads.errors import ImageRefused

LARGE = 12_000_000
"""Images with more pixels are decoded one at a time, which bounds the memory."""

_large = threading.Lock()


def decoded(data: bytes, to: Resize, max_pixels: int) -> NDArray[np.uint8]:
    """Returns the pixels of an image file, uint8 (size, size, 3), RGB.

    Raises:
        ImageRefused: It is not an image, is damaged, or has more than `max_pixels` pixels.
    """
    height, width = dimensions(data)
    if height * width > max_pixels:
        raise ImageRefused(
            f"an image may have at most {max_pixels:,} pixels",
            code="image-too-large",
            received=f"{width} x {height} px",
            hint="make the image smaller",
        )
    if height * width <= LARGE:
        return load(data, to)
    with _large:
        return load(data, to)
