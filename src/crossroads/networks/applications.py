"""Lists and builds the networks of `keras.applications`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crossroads.networks.records import Backbone, Defaults, Pretrained
from crossroads.recipe import Augmentation

if TYPE_CHECKING:
    from crossroads.networks.network import Parts

STORAGE = "https://storage.googleapis.com/tensorflow/keras-applications"

SIDES = (96, 128, 160, 192, 224, 256, 320, 384, 480, 600)
"""Image sides in pixels to choose a default from, up to that of the pretrained weights."""

LARGEST = 1024
"""Maximum image side in pixels."""

AUGMENTATION = Augmentation(shift=0.1, rotation=10, zoom=0.15, shear=5)
"""Augmentation for training from random weights."""

NORMALISED = Defaults(
    batch_size=(32, 64),
    optimizer="adamw",
    learning_rate=1e-3,
    schedule="one-cycle",
    weight_decay=0.05,
    label_smoothing=0.05,
    augment=True,
    augmentation=AUGMENTATION,
)
"""Defaults of training from random weights for networks with BatchNorm or LayerNorm throughout."""

PLAIN = Defaults(
    batch_size=(32, 64),
    optimizer="adamw",
    learning_rate=2e-4,
    schedule="one-cycle",
    weight_decay=0.02,
    label_smoothing=0.05,
    augment=True,
    augmentation=AUGMENTATION,
)
"""The same for networks without normalisation, which do not learn at a higher learning rate."""


DIGESTS = {
    "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5": "md5:d3e8ec802a04aa4fc771ee12a9a9b836",
    "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5": "md5:07fb09a5933dd0c8eaafa16978110389",
    "efficientnetb0_notop.h5": "md5:50bc09e76180e00e4465e1a485ddc09d",
    "efficientnetb1_notop.h5": "md5:74c4e6b3e1f6a1eea24c589628592432",
    "efficientnetb2_notop.h5": "md5:111f8e2ac8aa800a7a99e3239f7bfb39",
    "efficientnetb3_notop.h5": "md5:af6d107764bb5b1abb91932881670226",
    "efficientnetb4_notop.h5": "md5:ebc24e6d6c33eaebbd558eafbeedf1ba",
    "efficientnetb5_notop.h5": "md5:38879255a25d3c92d5e44e04ae6cec6f",
    "efficientnetb6_notop.h5": "md5:9ecce42647a20130c1f39a5d4cb75743",
    "efficientnetb7_notop.h5": "md5:cbcfe4450ddf6f3ad90b1b398090fe4a",
    "efficientnetv2-b0_notop.h5": "md5:893217f2bb855e2983157299931e43ff",
    "efficientnetv2-b1_notop.h5": "md5:0e80663031ca32d657f9caa404b6ec37",
    "efficientnetv2-b2_notop.h5": "md5:1dfe2e7a5d45b6632553a8961ea609eb",
    "efficientnetv2-b3_notop.h5": "md5:f6abf7b5849ac99a89b50dd3fd532856",
    "efficientnetv2-s_notop.h5": "md5:af0682fb74e8c54910f2d4393339c070",
    "efficientnetv2-m_notop.h5": "md5:1b8dc055df72dde80d614482840fe342",
    "efficientnetv2-l_notop.h5": "md5:b0b66b5c863aef5b46e8608fe1711615",
    "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5": "md5:4d473c1dd8becc155b73f8504c6f6626",
    "resnet101_weights_tf_dim_ordering_tf_kernels_notop.h5": "md5:88cf7a10940856eca736dc7b7e228a21",
    "resnet152_weights_tf_dim_ordering_tf_kernels_notop.h5": "md5:ee4c566cf9a93f14d82f913c2dc6dd0c",
    "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5": "md5:fac2f116257151a9d068a22e544a4917",
    "resnet101v2_weights_tf_dim_ordering_tf_kernels_notop.h5": "md5:c0ed64b8031c3730f411d2eb4eea35b5",
    "resnet152v2_weights_tf_dim_ordering_tf_kernels_notop.h5": "md5:ed17cf2e0169df9d443503ef94b23b33",
    "convnext_tiny_notop.h5": "sha256:d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
    "convnext_small_notop.h5": "sha256:6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab",
    "convnext_base_notop.h5": "sha256:40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45",
    "convnext_large_notop.h5": "sha256:96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd",
    "convnext_xlarge_notop.h5": "sha256:de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05",
    "densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5": "md5:30ee3e1110167f948a6b9946edeeb738",
    "densenet169_weights_tf_dim_ordering_tf_kernels_notop.h5": "md5:b8c4d4c20dd625c148057b9ff1c1176b",
    "densenet201_weights_tf_dim_ordering_tf_kernels_notop.h5": "md5:c13680b51ded0fb44dff2d8f86ac8bb1",
    "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5": "md5:bcbd6486424b2319ff4ef7d526e38f63",
    "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5": "md5:d19885ff4a710c122648d3b5c3b684e4",
    "xception_weights_tf_dim_ordering_tf_kernels_notop.h5": "md5:b0042744bf5b25fce3cb969f33bebb97",
    "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5": "md5:6d6bbae143d832006294945121d1f1fc",
    "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5": "md5:253f8cb515780f3b799900260a226db6",
    "nasnet_mobile_no_top.h5": "md5:1ed92395b5b598bdda52abe5c0dbfd63",
    "nasnet_large_no_top.h5": "md5:d81d89dc07e6e56530c4e77faddd61b5",
}
"""Digests of weight files, from Keras' source. There are none for the first two MobileNets."""


def build(name: str, scaling: str, size: int) -> Parts:
    """Builds preprocessing and a network of ``keras.applications`` with random weights, for images of side `size` pixels."""
    import keras

    from crossroads.networks.network import Parts
    from crossroads.networks.preprocessing import layers_of

    network: Any = getattr(keras.applications, name)
    backbone = network(weights=None, include_top=False, input_shape=(size, size, 3))
    if name.startswith("EfficientNetB"):
        backbone = _standardised(backbone)
    return Parts(preprocessing=layers_of(scaling), backbone=backbone)


def _standardised(model: Any) -> Any:
    """Returns EfficientNet as Keras builds it for ImageNet weights, which differs from what it builds for random weights.

    The weight file holds ImageNet's standard deviation in place of its variance. Keras therefore divides by the root of the
    deviation twice: in the Normalization layer, and in a Rescaling layer that it adds for ImageNet weights only. Here this layer is
    always present, and the Normalization layer starts with ImageNet's statistics, so that random and pretrained networks receive
    the same input.
    """
    import keras

    from crossroads.networks.scaling import IMAGENET_DEVIATION, IMAGENET_MEAN

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = layer(*args, **kwargs)
        if isinstance(layer, keras.layers.Normalization):
            return keras.layers.Rescaling([deviation**-0.5 for deviation in IMAGENET_DEVIATION], name="rescale_again")(outputs)
        return outputs

    model = keras.models.clone_model(model, call_function=call)
    normalise = next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
    normalise.adapt_mean.assign(IMAGENET_MEAN)
    normalise.adapt_variance.assign(IMAGENET_DEVIATION)
    normalise.finalize_state()
    return model


@dataclass(frozen=True, slots=True)
class _Net:
    """One network of a family; `key` replaces ``{}`` in the path of the family's weights."""

    name: str
    application: str
    reference_size: int
    parameters: int
    multiply_adds: int
    key: str


def _family(
    summary: str,
    source: str,
    year: int,
    licence: str,
    scaling: str,
    path: str,
    *members: _Net,
    smallest: int = 32,
    defaults: Defaults = NORMALISED,
) -> tuple[Backbone, ...]:
    """Returns the records of a family. `path` is the path of its weights below `STORAGE`, or a complete address."""
    return tuple(
        Backbone(
            name=member.name,
            summary=summary,
            builder="crossroads.networks.applications:build",
            application=member.application,
            sizes=(*(side for side in SIDES if side < member.reference_size), member.reference_size),
            limits=(smallest, LARGEST),
            scaling=scaling,
            licence=licence,
            year=year,
            source=source,
            defaults=defaults,
            reference_size=member.reference_size,
            parameters=member.parameters,
            multiply_adds=member.multiply_adds,
            pretrained=_weights(path.format(member.key), licence),
        )
        for member in members
    )


def _weights(path: str, licence: str) -> Pretrained:
    address = path if path.startswith("https://") else f"{STORAGE}/{path}"
    # Keras renames NASNet's files in its cache.
    file = address.rpartition("/")[2].replace("NASNet-", "nasnet_").replace("-no-top", "_no_top")
    return Pretrained(file=file, address=address, digest=DIGESTS.get(file), licence=licence)


APPLICATIONS: tuple[Backbone, ...] = (
    *_family(
        "depthwise separable convolutions; small",
        "Howard et al. 2017, https://arxiv.org/abs/1704.04861",
        2017,
        "Apache-2.0",
        "tf",
        "mobilenet/{}",
        _Net("mobilenet", "MobileNet", 224, 3_228_864, 567_716_352, "mobilenet_1_0_224_tf_no_top.h5"),
    ),
    *_family(
        "inverted residuals; small and fast",
        "Sandler et al. 2018, https://arxiv.org/abs/1801.04381",
        2018,
        "Apache-2.0",
        "tf",
        "mobilenet_v2/{}",
        _Net(
            "mobilenet-v2",
            "MobileNetV2",
            224,
            2_257_984,
            299_494_272,
            "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        ),
    ),
    *_family(
        "architecture search and channel attention; the small one is the fastest of the catalog",
        "Howard et al. 2019, https://arxiv.org/abs/1905.02244",
        2019,
        "Apache-2.0",
        "none",
        "mobilenet_v3/weights_mobilenet_v3_{}_no_top_v2.h5",
        _Net("mobilenet-v3-small", "MobileNetV3Small", 224, 939_120, 54_896_576, "small_224_1.0_float"),
        _Net("mobilenet-v3-large", "MobileNetV3Large", 224, 2_996_352, 214_080_960, "large_224_1.0_float"),
    ),
    *_family(
        "depth, width and image size scaled together",
        "Tan and Le 2019, https://arxiv.org/abs/1905.11946",
        2019,
        "Apache-2.0",
        "none",
        "https://storage.googleapis.com/keras-applications/{}_notop.h5",
        _Net("efficientnet-b0", "EfficientNetB0", 224, 4_049_571, 384_534_752, "efficientnetb0"),
        _Net("efficientnet-b1", "EfficientNetB1", 240, 6_575_239, 685_522_832, "efficientnetb1"),
        _Net("efficientnet-b2", "EfficientNetB2", 260, 7_768_569, 992_153_872, "efficientnetb2"),
        _Net("efficientnet-b3", "EfficientNetB3", 300, 10_783_535, 1_825_605_392, "efficientnetb3"),
        _Net("efficientnet-b4", "EfficientNetB4", 380, 17_673_823, 4_391_979_024, "efficientnetb4"),
        _Net("efficientnet-b5", "EfficientNetB5", 456, 28_513_527, 10_264_336_752, "efficientnetb5"),
        _Net("efficientnet-b6", "EfficientNetB6", 528, 40_960_143, 19_065_289_536, "efficientnetb6"),
        _Net("efficientnet-b7", "EfficientNetB7", 600, 64_097_687, 37_743_324_192, "efficientnetb7"),
    ),
    *_family(
        "EfficientNet with fused convolutions in its first blocks",
        "Tan and Le 2021, https://arxiv.org/abs/2104.00298",
        2021,
        "Apache-2.0",
        "none",
        "efficientnet_v2/{}_notop.h5",
        _Net("efficientnet-v2-b0", "EfficientNetV2B0", 224, 5_919_312, 716_806_176, "efficientnetv2-b0"),
        _Net("efficientnet-v2-b1", "EfficientNetV2B1", 240, 6_931_124, 1_195_539_360, "efficientnetv2-b1"),
        _Net("efficientnet-v2-b2", "EfficientNetV2B2", 260, 8_769_374, 1_696_134_832, "efficientnetv2-b2"),
        _Net("efficientnet-v2-b3", "EfficientNetV2B3", 300, 12_930_622, 3_009_922_816, "efficientnetv2-b3"),
        _Net("efficientnet-v2-s", "EfficientNetV2S", 384, 20_331_360, 8_364_337_152, "efficientnetv2-s"),
        _Net("efficientnet-v2-m", "EfficientNetV2M", 480, 53_150_388, 24_581_180_384, "efficientnetv2-m"),
        _Net("efficientnet-v2-l", "EfficientNetV2L", 480, 117_746_848, 56_078_419_008, "efficientnetv2-l"),
    ),
    *_family(
        "residual network",
        "He et al. 2015, https://arxiv.org/abs/1512.03385",
        2015,
        "MIT",
        "caffe",
        "resnet/{}_weights_tf_dim_ordering_tf_kernels_notop.h5",
        _Net("resnet50", "ResNet50", 224, 23_587_712, 3_855_925_248, "resnet50"),
        _Net("resnet101", "ResNet101", 224, 42_658_176, 7_568_146_432, "resnet101"),
        _Net("resnet152", "ResNet152", 224, 58_370_944, 11_280_367_616, "resnet152"),
    ),
    *_family(
        "residual network with normalisation before each convolution",
        "He et al. 2016, https://arxiv.org/abs/1603.05027",
        2016,
        "Apache-2.0",
        "tf",
        "resnet/{}_weights_tf_dim_ordering_tf_kernels_notop.h5",
        _Net("resnet50-v2", "ResNet50V2", 224, 23_564_800, 3_480_207_360, "resnet50v2"),
        _Net("resnet101-v2", "ResNet101V2", 224, 42_626_560, 7_192_428_544, "resnet101v2"),
        _Net("resnet152-v2", "ResNet152V2", 224, 58_331_648, 10_904_649_728, "resnet152v2"),
    ),
    *_family(
        "convolutional network with the design of transformers",
        "Liu et al. 2022, https://arxiv.org/abs/2201.03545",
        2022,
        "MIT",
        "none",
        "convnext/{}_notop.h5",
        _Net("convnext-tiny", "ConvNeXtTiny", 224, 27_820_128, 4_454_763_264, "convnext_tiny"),
        _Net("convnext-small", "ConvNeXtSmall", 224, 49_454_688, 8_682_944_256, "convnext_small"),
        _Net("convnext-base", "ConvNeXtBase", 224, 87_566_464, 15_353_705_472, "convnext_base"),
        _Net("convnext-large", "ConvNeXtLarge", 224, 196_230_336, 34_359_897_600, "convnext_large"),
        _Net("convnext-xlarge", "ConvNeXtXLarge", 224, 348_147_968, 60_918_982_656, "convnext_xlarge"),
    ),
    *_family(
        "each layer receives the outputs of all earlier layers of its block",
        "Huang et al. 2016, https://arxiv.org/abs/1608.06993",
        2016,
        "BSD-3-Clause",
        "torch",
        "densenet/{}_weights_tf_dim_ordering_tf_kernels_notop.h5",
        _Net("densenet121", "DenseNet121", 224, 7_037_504, 2_833_137_664, "densenet121"),
        _Net("densenet169", "DenseNet169", 224, 12_642_880, 3_358_179_328, "densenet169"),
        _Net("densenet201", "DenseNet201", 224, 18_321_984, 4_289_445_888, "densenet201"),
    ),
    *_family(
        "Inception branches of factorised convolutions",
        "Szegedy et al. 2015, https://arxiv.org/abs/1512.00567",
        2015,
        "Apache-2.0",
        "tf",
        "inception_v3/{}_weights_tf_dim_ordering_tf_kernels_notop.h5",
        _Net("inception-v3", "InceptionV3", 299, 21_802_784, 5_711_168_096, "inception_v3"),
        smallest=75,
    ),
    *_family(
        "Inception branches with residual connections",
        "Szegedy et al. 2016, https://arxiv.org/abs/1602.07261",
        2016,
        "Apache-2.0",
        "tf",
        "inception_resnet_v2/{}_weights_tf_dim_ordering_tf_kernels_notop.h5",
        _Net("inception-resnet-v2", "InceptionResNetV2", 299, 54_336_736, 13_154_258_016, "inception_resnet_v2"),
        smallest=75,
    ),
    *_family(
        "separable convolutions with residual connections",
        "Chollet 2016, https://arxiv.org/abs/1610.02357",
        2016,
        "MIT",
        "tf",
        "xception/{}_weights_tf_dim_ordering_tf_kernels_notop.h5",
        _Net("xception", "Xception", 299, 20_861_480, 8_355_355_496, "xception"),
        smallest=71,
    ),
    *_family(
        "stacked 3x3 convolutions; slow, no BatchNorm",
        "Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556",
        2014,
        "CC-BY-4.0",
        "caffe",
        "{0}/{0}_weights_tf_dim_ordering_tf_kernels_notop.h5",
        _Net("vgg16", "VGG16", 224, 14_714_688, 15_346_630_656, "vgg16"),
        _Net("vgg19", "VGG19", 224, 20_024_384, 19_508_428_800, "vgg19"),
        defaults=PLAIN,
    ),
    *_family(
        "cells from architecture search",
        "Zoph et al. 2017, https://arxiv.org/abs/1707.07012",
        2017,
        "Apache-2.0",
        "tf",
        "nasnet/{}-no-top.h5",
        _Net("nasnet-mobile", "NASNetMobile", 224, 4_269_716, 562_582_816, "NASNet-mobile"),
        _Net("nasnet-large", "NASNetLarge", 331, 84_916_818, 23_779_382_658, "NASNet-large"),
    ),
)
