"""Small presets of KerasHub with random weights: a convnet, a ViT, and one with a class token and register tokens."""

from collections.abc import Callable
from pathlib import Path

import pytest

SIZE = 32


def _resnet(hub):
    return hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(None, None, 3),
    )


def _vit(hub):
    sides = {"image_shape": (SIZE, SIZE, 3), "patch_size": 8}
    return hub.models.ViTBackbone(num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, **sides)


def _dinov2(hub):
    sides = {"image_shape": (SIZE, SIZE, 3), "patch_size": 8, "position_embedding_shape": (48, 48, 3)}
    return hub.models.DINOV2Backbone(
        num_layers=2, hidden_dim=16, num_heads=2, intermediate_dim=32, num_register_tokens=4, use_mask_token=False, **sides
    )


def _siglip(hub):
    sizes = {"hidden_dim": 16, "num_layers": 2, "num_heads": 2, "intermediate_dim": 32}
    images = hub.models.SigLIPVisionEncoder(patch_size=8, image_shape=(SIZE, SIZE, 3), **sizes)
    text = hub.models.SigLIPTextEncoder(vocabulary_size=64, embedding_dim=16, max_sequence_length=8, **sizes)
    return hub.models.SigLIPBackbone(images, text, projection_dim=16)


BUILDERS: dict[str, tuple[Callable, str]] = {
    "resnet": (_resnet, "ResNetImageConverter"),
    "vit": (_vit, "ViTImageConverter"),
    "dinov2": (_dinov2, "DINOV2ImageConverter"),
    "siglip": (_siglip, "SigLIPImageConverter"),
}
"""Builder and image converter of each kind."""


def preset(kind: str, folder: Path, *, converter: bool = True) -> str:
    """Writes a preset to a folder and returns its name as a backbone. Skips the test, visibly, if KerasHub is not installed."""
    import keras

    hub = pytest.importorskip("keras_hub", reason="needs keras-hub: see the extra keras-hub")
    build, scaling = BUILDERS[kind]
    keras.utils.set_random_seed(3)
    build(hub).save_to_preset(str(folder))
    if converter:
        layer = getattr(hub.layers, scaling)
        layer(image_size=(SIZE, SIZE), scale=[1 / 127.5] * 3, offset=[-1.0, -1.0, -0.5]).save_to_preset(str(folder))
    return f"keras-hub:{folder}"
