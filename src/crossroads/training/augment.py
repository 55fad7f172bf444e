"""Augments images as part of the training graph. `crossroads.data.augmentation` draws its parameters."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class Augment(keras.layers.Layer):  # type: ignore[misc]
    """Applies drawn affine maps and colours to a batch, with bilinear interpolation. The edge is repeated outside the image.

    It is part of the training graph only and never saved.
    """

    def __init__(self, **options: Any) -> None:
        # Whatever dtype policy is set globally: 16-bit maps would miss their pixels.
        super().__init__(dtype="float32", **options)

    def call(self, inputs: tuple[Any, Any, Any]) -> Any:
        """Transforms images uint8 (n, s, s, 3) by maps (n, 8) and colours (n, 2) into float32 (n, s, s, 3) in [0, 255]."""
        images, maps, colour = inputs
        transformed = ops.image.affine_transform(
            ops.cast(images, "float32"), maps, interpolation="bilinear", fill_mode="nearest", data_format="channels_last"
        )
        gain, offset = colour[:, 0, None, None, None], colour[:, 1, None, None, None]
        return ops.clip(transformed * gain + offset, 0.0, 255.0)
