"""Defines how each preprocessing scales pixels, as numbers. Neither Keras nor an inference engine is needed."""

from __future__ import annotations

from dataclasses import dataclass

Channels = tuple[float, float, float]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's red, green and blue channels in [0, 1], as in torchvision."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""The same of the images that CLIP was trained on (https://github.com/openai/CLIP, clip/clip.py)."""

CAFFE_MEAN = (103.939, 116.779, 123.68)
"""Mean of the blue, green and red channels in [0, 255], as VGG and `keras.applications` subtract it."""

BVLC_MEAN = (104.00698793, 116.66876762, 122.67891434)
"""The same for Caffe's own models: the mean of Caffe's ``ilsvrc_2012_mean.npy``."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """An affine function of each channel of an RGB image in [0, 255]: ``(x * factor - mean) / deviation``.

    Attributes:
        factor: Multiplies every channel first.
        mean: Subtracted from each channel, in the order of the output.
        deviation: Each channel is divided by it, in the order of the output.
        bgr: Whether the output has blue first.
        each: Whether each image is then scaled to mean 0 and variance 1 over all its values.
    """

    factor: float = 1.0
    mean: Channels = (0.0, 0.0, 0.0)
    deviation: Channels = (1.0, 1.0, 1.0)
    bgr: bool = False
    each: bool = False

    @property
    def scale(self) -> Channels:
        """What each channel is multiplied by, in the order of the output: ``x * scale + offset``."""
        red, green, blue = (self.factor / deviation for deviation in self.deviation)
        return red, green, blue

    @property
    def offset(self) -> Channels:
        """What is then added to each channel."""
        red, green, blue = (-mean / deviation for mean, deviation in zip(self.mean, self.deviation, strict=True))
        return red, green, blue


SCALINGS = {
    "none": Scaling(),
    "tf": Scaling(1 / 127.5, (1.0, 1.0, 1.0)),
    "torch": Scaling(1 / 255, IMAGENET_MEAN, IMAGENET_DEVIATION),
    "clip": Scaling(1 / 255, CLIP_MEAN, CLIP_DEVIATION),
    "caffe": Scaling(mean=CAFFE_MEAN, bgr=True),
    "bvlc": Scaling(mean=BVLC_MEAN, bgr=True),
    "lite": Scaling(mean=(127.0, 127.0, 127.0), deviation=(128.0, 128.0, 128.0)),
    "centre": Scaling(1 / 255, (0.5, 0.5, 0.5)),
    "each": Scaling(1 / 255, each=True),
}
"""The preprocessings of `records.PREPROCESSINGS` by name."""
