"""Defines the recipe: every choice of a run as one typed, strict record that is read from and written to TOML.

Each field states its help, group, range and default once. Checks, the options of ``crossroads fit``, the parameters of
`crossroads.ImageClassifier`, docstrings and the reference page are derived from that, so an option is added or removed here alone.
"""

from __future__ import annotations

import numbers
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from crossroads.errors import RecipeError, option, without_effect
from crossroads.recipe.fields import Option, Range, build, check, declare, toml
from crossroads.recipe.memory import FORM, require_memory

StrategyName = Literal["feature-extraction", "early-features", "finetune", "finetune-early", "warm-start", "from-scratch"]
AskedStrategy = Literal["auto", StrategyName]
HeadName = Literal["linear", "mlp", "sgd"]
PoolingName = Literal["average", "average-2", "average-3", "average-4", "class-token", "class-and-average"]
FeatureType = Literal["float32", "float16"]
ResizeMode = Literal["squash", "crop"]
ResampleName = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
OptimizerName = Literal["adam", "adamw"]
ScheduleName = Literal["constant", "cosine", "one-cycle"]
ClassWeights = Literal["none", "balanced"]

GROUPS = ("Data", "Strategy", "Features", "Training", "Finetuning", "Augmentation")
DATA, STRATEGY, FEATURES, TRAINING, FINETUNING, AUGMENTATION = GROUPS


_TIME = re.compile(r"(\d+(?:\.\d*)?|\.\d+)([smh]?)")


def _seconds(value: object) -> object:
    """Converts a time such as ``90``, ``90s``, ``5m`` or ``1h`` to seconds."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    return value if match is None else float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _position(value: object) -> object:
    """Converts a number, which is the index of a cut or a fraction of the depth, to text."""
    if type(value) is bool or not isinstance(value, numbers.Real):
        return value
    return str(int(value) if isinstance(value, numbers.Integral) else float(value))


_POSITION = "the name of a layer, an index or a fraction of the depth"


@declare
@dataclass(frozen=True, slots=True)
class Augmentation:
    """How strongly a training image is augmented before the network receives it. If all values are zero, it is not augmented."""

    TABLE: ClassVar[str] = "augmentation"

    shift: Annotated[
        float,
        Option("Largest shift along each axis, as a fraction of the side.", AUGMENTATION, Range(0, 0.5)),
    ] = 0.0
    rotation: Annotated[float, Option("Largest rotation in either direction, in degrees.", AUGMENTATION, Range(0, 180))] = 0.0
    zoom: Annotated[float, Option("Largest change of scale in either direction, as a fraction.", AUGMENTATION, Range(0, 0.9))] = 0.0
    shear: Annotated[float, Option("Largest shear in either direction, in degrees.", AUGMENTATION, Range(0, 45))] = 0.0
    brightness: Annotated[
        float,
        Option("Largest change of brightness in either direction, as a fraction of the full range.", AUGMENTATION, Range(0, 1)),
    ] = 0.0
    contrast: Annotated[
        float, Option("Largest change of contrast in either direction, as a fraction.", AUGMENTATION, Range(0, 1))
    ] = 0.0
    flip: Annotated[
        bool,
        Option(
            "Mirror half of the images; refused if that would change what an image shows.",
            AUGMENTATION,
        ),
    ] = False

    def __post_init__(self) -> None:
        check(self)  # turns 8 degrees into 8.0, so that equal values have equal digests

    @property
    def active(self) -> bool:
        """Whether any image is changed."""
        return self != Augmentation()


@declare
@dataclass(frozen=True, slots=True)
class Recipe:
    """Every choice of a run.

    A field that is None takes a default that depends on the run. In a resolved recipe, None means that the field has no effect.
    """

    data: Annotated[str | None, Option("Path of the labelled images.", DATA, metavar="PATH")] = None
    test: Annotated[
        str | None, Option("Path of a separate test set, read only for the final evaluation.", DATA, metavar="PATH")
    ] = None
    class_names: Annotated[
        str | None, Option("Path of a file that names integer labels, with lines such as 14,Stop.", DATA, metavar="PATH")
    ] = None
    keep_thumbnails: Annotated[
        bool, Option("Keep small pictures of training images in the artifact, for `crossroads explain --nearest`.", DATA)
    ] = False
    backbone: Annotated[
        str | None,
        Option(
            "A name from `crossroads backbones`, the path of a .onnx, .tflite, .xml or .keras file, package.module:function, "
            "hf:OWNER/NAME for a graph on the Hugging Face hub, or keras-hub:PRESET with the name or folder of a KerasHub preset.",
            STRATEGY,
            unset="small-cnn for from-scratch, otherwise efficientnet-lite0, and for auto also the two cheapest networks whose "
            "downloaded weights are cached",
        ),
    ] = None
    strategy: Annotated[
        AskedStrategy,
        Option(
            "How much of the backbone is kept, frozen and trained; auto measures which strategy fits and races the best "
            "candidates.",
            STRATEGY,
        ),
    ] = "auto"
    budget: Annotated[
        float | None,
        Option(
            "Time limit of the whole run, such as 90s, 5m or 1h. A named strategy trains for as many epochs as fit.",
            STRATEGY,
            Range(0, 10_000_000, above=True),
            unset="10 minutes with auto, and none with a named strategy",
            metavar="TIME",
            form="a number of seconds, or a time such as 90s, 5m or 1h",
            convert=_seconds,
        ),
    ] = None
    memory: Annotated[
        str | None,
        Option(
            "Largest memory of the process, such as 4g, or 50% for half of the machine's. A candidate that needs more is left out, "
            "and a named strategy that does is refused.",
            STRATEGY,
            unset="what the machine has available",
            metavar="SIZE",
            form=FORM,
        ),
    ] = None
    preprocessing: Annotated[
        str | None,
        Option(
            "Scaling of the pixels for a graph from a file: none, tf, lite, torch, caffe, bvlc, clip, centre or each.",
            STRATEGY,
            metavar="NAME",
            unset="taken from the preprocessor_config.json beside the file",
        ),
    ] = None
    backbone_licence: Annotated[
        str | None,
        Option(
            "Licence of a graph from a file, such as Apache-2.0; recorded in the artifact.",
            STRATEGY,
            metavar="NAME",
            unset="that of the model card or LICENSE beside the file",
        ),
    ] = None
    backbone_source: Annotated[
        str | None,
        Option(
            "Source of a graph from a file, such as its address; recorded in the artifact.",
            STRATEGY,
            metavar="TEXT",
            unset="that of the model card beside the file, or its name on the hub",
        ),
    ] = None
    weights: Annotated[
        str | None,
        Option(
            "Initial weights of a pretrained strategy: imagenet, own for those of your own network, none for random weights, "
            "or the path of a file.",
            STRATEGY,
            unset="imagenet, or own for your own network",
        ),
    ] = None
    cut: Annotated[
        str | None,
        Option(
            "Where the backbone ends: the name of a layer, the index of a cut, or a fraction of the depth such as 0.6.",
            STRATEGY,
            unset="the end, or 0.6 for early-features and finetune-early",
            metavar="CUT",
            form=_POSITION,
            convert=_position,
        ),
    ] = None
    freeze_to: Annotated[
        str | None,
        Option("The cut up to which the backbone stays frozen.", FINETUNING, metavar="CUT", form=_POSITION, convert=_position),
    ] = None
    pooling: Annotated[
        PoolingName | None,
        Option(
            "How a feature map becomes a vector: by the average over the map, or by the averages over the cells of a 2x2, 3x3 "
            "or 4x4 grid. For transformers, the class token can also be used, alone or with the average over the patches.",
            FEATURES,
            unset="average, or average-4 for early-features and finetune-early",
        ),
    ] = None
    head: Annotated[
        HeadName | None,
        Option(
            "Kind of head: linear is solved directly, mlp trains one hidden layer, and sgd trains one dense layer with Adam.",
            FEATURES,
            unset="linear, or sgd for warm-start",
        ),
    ] = None
    views: Annotated[
        int | None,
        Option(
            "Number of versions of each training image whose features are cached: the image itself and augmented copies.",
            FEATURES,
            Range(1, 1000),
            unset="1",
        ),
    ] = None
    feature_type: Annotated[
        FeatureType | None,
        Option("Data type of cached features.", FEATURES, unset="float32, or float16 with freeze_to"),
    ] = None
    refit: Annotated[
        bool | None,
        Option(
            "Solve the final head again on the training and validation images together; only for a linear head on frozen features.",
            FEATURES,
            unset="true",
        ),
    ] = None
    image_size: Annotated[
        int | None,
        Option("Side in pixels of the square that each image is resized to.", DATA, Range(8, 2048), unset="chosen from the images"),
    ] = None
    resize: Annotated[
        ResizeMode | None,
        Option(
            "How an image becomes a square: squash ignores the aspect ratio, and crop takes the central square.",
            DATA,
            unset="that of the preprocessor_config.json beside a graph, else crop for pretrained strategies on large images",
        ),
    ] = None
    crop_fraction: Annotated[
        float | None,
        Option(
            "Fraction of the image that is kept, in the middle: of the shorter side with crop, of both sides with squash.",
            DATA,
            Range(0, 1, above=True),
            unset="that of the preprocessor_config.json beside a graph, else 0.875 with crop and 1 with squash",
        ),
    ] = None
    resample: Annotated[
        ResampleName | None,
        Option(
            "Filter for resizing images.",
            DATA,
            unset="that of the preprocessor_config.json beside a graph, else bilinear",
        ),
    ] = None
    epochs: Annotated[
        int | None,
        Option(
            "Number of passes over the training images.",
            TRAINING,
            Range(1, 100_000),
            unset="chosen from the number of images, or 10 for head sgd",
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        Option("Number of images per training step.", TRAINING, Range(1, 65_536), unset="the backbone's or the strategy's"),
    ] = None
    validation: Annotated[
        float, Option("Fraction of the images held out to choose the best epoch and head.", DATA, Range(0, 0.9, above=True))
    ] = 0.1
    test_fraction: Annotated[
        float, Option("Fraction of the images held out as the test set if you provide none; 0 for no test.", DATA, Range(0, 0.9))
    ] = 0.1
    seed: Annotated[
        int,
        Option(
            "Random seed for the split, the initial weights, the order of the images and the augmentation.",
            DATA,
            Range(0, 2**31 - 1),
        ),
    ] = 0
    augment: Annotated[bool | None, Option("Augment training images.", TRAINING, unset="the backbone's, true for finetuning")] = (
        None
    )
    augmentation: Annotated[
        Augmentation | None,
        Option("How strongly training images are augmented.", TRAINING, unset="the backbone's or the strategy's", form="a table"),
    ] = None
    optimizer: Annotated[
        OptimizerName | None,
        Option("Adam, or AdamW with decoupled weight decay.", TRAINING, unset="the backbone's, adamw for finetuning"),
    ] = None
    learning_rate: Annotated[
        float | None,
        Option(
            "Peak learning rate of the schedule.",
            TRAINING,
            Range(0, 100, above=True),
            unset="the backbone's, 0.0005 for finetuning",
        ),
    ] = None
    schedule: Annotated[
        ScheduleName | None, Option("Learning-rate schedule.", TRAINING, unset="the backbone's, cosine for finetuning")
    ] = None
    weight_decay: Annotated[
        float | None,
        Option(
            "Weight decay of adamw for all weights except biases and normalisation parameters.",
            TRAINING,
            Range(0, 10),
            unset="the backbone's, 0.01 for finetuning",
        ),
    ] = None
    label_smoothing: Annotated[
        float | None,
        Option(
            "Fraction of the target probability that is spread over all classes.",
            TRAINING,
            Range(0, 0.9),
            unset="the backbone's, 0 for finetuning",
        ),
    ] = None
    class_weights: Annotated[
        ClassWeights,
        Option("balanced gives each class a weight in inverse proportion to its number of images.", TRAINING),
    ] = "none"
    warm_up: Annotated[
        float | None,
        Option(
            "Fraction of the steps over which the learning rate rises to its peak.",
            TRAINING,
            Range(0, 0.9),
            unset="0.2 for one-cycle, 0.1 for finetuning, otherwise 0",
        ),
    ] = None
    layer_decay: Annotated[
        float | None,
        Option(
            "Learning rate of each block of layers, as a fraction of the learning rate of the block above it.",
            FINETUNING,
            Range(0, 1, above=True),
            unset="0.85",
        ),
    ] = None
    train_batchnorm: Annotated[
        bool | None, Option("Train BatchNorm layers and update their statistics.", FINETUNING, unset="false")
    ] = None
    early_stopping: Annotated[
        int,
        Option(
            "Number of epochs without a lower validation loss after which training stops; 0 for never.", TRAINING, Range(0, 100_000)
        ),
    ] = 0
    strict: Annotated[bool, Option("Refuse unreadable images, and classes too small to be split.", DATA)] = False

    def __post_init__(self) -> None:
        check(self)
        if self.memory is not None:
            require_memory(self.memory)
        if self.weight_decay and self.optimizer == "adam":
            context = f"with {option('optimizer')} adam"
            raise without_effect("weight_decay", self.weight_decay, context, hint=f"set {option('optimizer')} to adamw")
        if self.augment is False and self.augmentation is not None and self.augmentation.active:
            context = f"if {option('augment')} is false"
            raise without_effect("augmentation", self.augmentation, context, hint="leave one of them out")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: str | None = None) -> Self:
        """Returns a recipe from plain values.

        Args:
            values: Keys are names of fields. `augmentation` may be a mapping.
            source: The file that the values come from, which errors name.

        Raises:
            RecipeError: A key is unknown (the hint names the nearest known one), or a value is not accepted.
        """
        try:
            return build(cls, values)
        except RecipeError as error:
            if source is None:
                raise
            raise error.from_source(source) from None

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Returns a recipe from a TOML file. Raises `RecipeError` if the file is missing, not TOML, or not a recipe."""
        return cls.from_mapping(read_toml(path), str(path))

    def to_mapping(self) -> dict[str, Any]:
        """Returns plain values, without the fields that are None."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def to_toml(self) -> str:
        """Returns the recipe as TOML text; `from_toml` of it gives an equal recipe."""
        values = self.to_mapping()
        tables = {key: value for key, value in values.items() if isinstance(value, dict)}
        lines = [f"{key} = {toml(value)}" for key, value in values.items() if key not in tables]
        for name, table in tables.items():
            lines += ["", f"[{name}]", *(f"{key} = {toml(value)}" for key, value in table.items())]
        return "\n".join(lines) + "\n"

    def with_options(self, **values: Any) -> Self:
        """Returns a copy in which the given fields are replaced. Fields that are None stay as they are."""
        return replace(self, **{key: value for key, value in values.items() if value is not None})

    def without_limits(self) -> Self:
        """Returns a copy without the limits of a run, its budget and its memory, which are not a choice of the training."""
        return replace(self, budget=None, memory=None)


def read_toml(path: str | Path) -> dict[str, Any]:
    """Returns the keys of a TOML file as they are. Raises `RecipeError` if it is missing or not TOML."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(
            f"the file of {option('recipe')} must be readable",
            code="recipe-unreadable",
            field="recipe",
            received=f"{path} ({error.strerror})",
            hint="check the path",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"{path} must be TOML",
            code="recipe-not-toml",
            field="recipe",
            received=str(error),
            hint="write lines such as `epochs = 10`",
        ) from error
