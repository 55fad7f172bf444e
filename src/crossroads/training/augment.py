"""Moving training images: how far is drawn by `crossroads.data.augmentation`, the moving is part of the training graph."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class Augment(keras.layers.Layer):  # type: ignore[misc]
    """Moves a batch as `draw` says: uint8 (n, s, s, 3), float32 (n, 8) and (n, 2) in; float32 (n, s, s, 3) in [0, 255] out.

    Bilinear; what comes in from outside is the nearest pixel of the edge. Part of the training graph only, never saved.
    """

    def __init__(self, **options: Any) -> None:
        # Whatever the program has set for all layers: in 16 bits the maps would miss their pixels.
        super().__init__(dtype="float32", **options)

    def call(self, inputs: tuple[Any, Any, Any]) -> Any:
        """Images, maps and colours in, moved images out."""
        images, maps, colour = inputs
        moved = ops.image.affine_transform(
            ops.cast(images, "float32"), maps, interpolation="bilinear", fill_mode="nearest", data_format="channels_last"
        )
        gain, offset = colour[:, 0, None, None, None], colour[:, 1, None, None, None]
        return ops.clip(moved * gain + offset, 0.0, 255.0)
