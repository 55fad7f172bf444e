"""Every choice of a run as one typed, strict record that is read from and written to TOML."""

from __future__ import annotations

import math
import numbers
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from crossroads.errors import RecipeError, did_you_mean, nearest

T = TypeVar("T")
StrategyName = Literal["feature-extraction", "early-features", "finetune", "finetune-early", "warm-start", "from-scratch"]
AskedStrategy = Literal["auto", "feature-extraction", "early-features", "finetune", "finetune-early", "warm-start", "from-scratch"]
HeadName = Literal["linear", "mlp", "sgd"]
PoolingName = Literal["average", "average-2", "average-3", "average-4", "max", "max-2", "max-3", "max-4", "none"]
UnfreezeName = Literal["at-once", "gradual"]
FeatureType = Literal["float32", "float16"]
ResizeMode = Literal["squash", "crop"]
Precision = Literal["float32", "int8"]
OptimizerName = Literal["adam", "adamw"]
ScheduleName = Literal["constant", "cosine", "one-cycle"]
ClassWeights = Literal["none", "balanced"]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far a training image may be moved before the network sees it. All zero means not at all.

    Attributes:
        shift: Largest shift along each axis, as a share of the image's side, in [0, 0.5].
        rotation: Largest rotation either way, in degrees, in [0, 180].
        zoom: Largest change of scale either way, as a share, in [0, 0.9].
        shear: Largest shear either way, in degrees, in [0, 45].
        brightness: Largest change of brightness either way, as a share of full scale, in [0, 1].
        contrast: Largest change of contrast either way, as a share, in [0, 1].
        flip: Mirror half of the images. Refused where two classes are mirror images of each other.
    """

    shift: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        _check_types(self)  # 8 degrees and 8.0 are the same, also to a digest
        for name, top in (
            ("shift", 0.5),
            ("rotation", 180.0),
            ("zoom", 0.9),
            ("shear", 45.0),
            ("brightness", 1.0),
            ("contrast", 1.0),
        ):
            _require_range(f"augmentation.{name}", getattr(self, name), 0.0, top)

    @property
    def active(self) -> bool:
        """Whether any image is changed at all."""
        return self != Augmentation()


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a run does. A field that is None takes a default; in a resolved recipe None means that it does not matter.

    Attributes:
        data: Path of the labelled images, or None for arrays in memory.
        test: Path of a separate test set, or None.
        class_names: Path of a file that names integer labels, or None.
        backbone: A name from the catalog, or None for the default of the strategy.
        strategy: How much of the backbone is kept, frozen and trained; ``auto`` measures which fits and races the best against
            each other.
        budget: Seconds that choosing a strategy and training may take, for ``auto``; in a file and as an option also ``90s`` or
            ``5m``, in (0, 10000000]. None for what takes about ten minutes.
        weights: What a pretrained strategy starts from: ``imagenet``, ``none`` for random weights, the path of a file, or ``own``
            for those that a network of the user's own brings.
        cut: Where the backbone ends: the name of a layer, the index of a cut, or a share of the depth such as ``0.6``.
        freeze_to: The cut up to which the backbone is frozen while the rest is finetuned.
        pooling: How a map of features becomes a vector: its average or maximum, over all of it or in a grid.
        head: ``linear`` is solved; ``mlp`` is trained by AdamW, ``sgd`` by Adam as in the notes.
        views: Versions of each training image whose features are cached, in [1, 1000]: the image itself and views - 1 that are
            moved.
        feature_type: How features are cached.
        precision: What the frozen part is computed in.
        image_size: Side in pixels of the square that each image is resized to, in [8, 2048].
        resize: ``squash`` scales both sides, whatever the aspect ratio; ``crop`` takes the middle, as ImageNet's tests do.
        epochs: Passes over the training images, in [1, 100000].
        batch_size: Images per step, in [1, 65536].
        validation: Share of the images (whole groups) that choose the best epoch, in (0, 0.9].
        test_fraction: Share held out for the test where neither the data nor `test` brings one, in [0, 0.9]; 0 for no test.
        seed: Decides the split, the first weights, the order and the augmentation, in [0, 2147483647]; cached views are the same
            for every seed.
        augment: Whether training images are moved at all.
        augmentation: How far; None takes the backbone's default.
        optimizer: Adam, or AdamW (decoupled weight decay).
        learning_rate: Peak of the schedule, in (0, 100].
        schedule: Course of the learning rate over the steps.
        weight_decay: For AdamW, in [0, 10]; never on biases and normalisation.
        label_smoothing: Share of the target spread over all classes, in [0, 0.9].
        class_weights: `balanced` weighs each class by the inverse of its frequency.
        mixup: Concentration of the Beta distribution that pairs of training images are mixed by, in [0, 10]; 0 for no mixing.
        warm_up: Share of the steps in which the learning rate rises, in [0, 0.9].
        layer_decay: Factor of the learning rate from one block to the one below it, in (0, 1]; for finetuning.
        l2_sp: Strength of the pull of finetuned weights towards the pretrained ones (L2-SP), in [0, 10].
        ema: Momentum of the moving average of weights that is kept in place of the last ones, in [0, 0.99999]; 0
            for none.
        unfreeze: ``gradual`` begins finetuning at the head and sets the blocks below free one after another.
        train_batchnorm: Whether BatchNorm layers and their statistics move while finetuning.
        early_stopping: Epochs without a better validation loss after which training ends, in [0, 100000]; 0 for never.
        strict: Whether an unreadable image is an error, and a class with too few images, or groups, for every side of the split.
    """

    data: str | None = None
    test: str | None = None
    class_names: str | None = None
    backbone: str | None = None
    strategy: AskedStrategy = "auto"
    budget: float | None = None
    weights: str | None = None
    cut: str | None = None
    freeze_to: str | None = None
    pooling: PoolingName | None = None
    head: HeadName | None = None
    views: int | None = None
    feature_type: FeatureType | None = None
    precision: Precision | None = None
    image_size: int | None = None
    resize: ResizeMode | None = None
    epochs: int | None = None
    batch_size: int | None = None
    validation: float = 0.1
    test_fraction: float = 0.1
    seed: int = 0
    augment: bool | None = None
    augmentation: Augmentation | None = None
    optimizer: OptimizerName | None = None
    learning_rate: float | None = None
    schedule: ScheduleName | None = None
    weight_decay: float | None = None
    label_smoothing: float | None = None
    class_weights: ClassWeights = "none"
    mixup: float | None = None
    warm_up: float | None = None
    layer_decay: float | None = None
    l2_sp: float | None = None
    ema: float | None = None
    unfreeze: UnfreezeName | None = None
    train_batchnorm: bool | None = None
    early_stopping: int = 0
    strict: bool = False

    def __post_init__(self) -> None:
        _check_types(self)
        _require_range("validation", self.validation, 0.0, 0.9, open_low=True)
        _require_range("test_fraction", self.test_fraction, 0.0, 0.9)
        _require_range("seed", self.seed, 0, 2**31 - 1)
        _require_range("early_stopping", self.early_stopping, 0, 100_000)
        for name, low, high in (("image_size", 8, 2048), ("epochs", 1, 100_000), ("batch_size", 1, 65_536), ("views", 1, 1000)):
            _require_range(name, getattr(self, name), low, high)
        for name, top in (("mixup", 10.0), ("warm_up", 0.9), ("l2_sp", 10.0), ("ema", 0.99999)):
            _require_range(name, getattr(self, name), 0.0, top)
        _require_range("layer_decay", self.layer_decay, 0.0, 1.0, open_low=True)
        _require_range("budget", self.budget, 0.0, 10_000_000, open_low=True)
        _require_range("learning_rate", self.learning_rate, 0.0, 100.0, open_low=True)
        _require_range("weight_decay", self.weight_decay, 0.0, 10.0)
        _require_range("label_smoothing", self.label_smoothing, 0.0, 0.9)
        if self.weight_decay and self.optimizer == "adam":
            raise RecipeError(
                "weight_decay does nothing with optimizer 'adam'", received=self.weight_decay, hint="use optimizer 'adamw'"
            )
        if self.augment is False and self.augmentation is not None and self.augmentation.active:
            raise RecipeError("augmentation does nothing with augment = false", hint="set augment = true or drop [augmentation]")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str = "recipe") -> Self:
        """A recipe from plain values; an unknown key or a wrong type is a `RecipeError` that names the nearest known key."""
        return _build(cls, values, where, "")

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """A recipe from a TOML file. Raises `RecipeError` where the file is missing, not TOML, or not a recipe."""
        return cls.from_mapping(read_toml(path), str(path))

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, without the fields that are None."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def to_toml(self) -> str:
        """The recipe as TOML text; `from_toml` of it gives an equal recipe."""
        values = self.to_mapping()
        tables = {key: value for key, value in values.items() if isinstance(value, dict)}
        lines = [f"{key} = {_toml(value)}" for key, value in values.items() if key not in tables]
        for name, table in tables.items():
            lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
        return "\n".join(lines) + "\n"

    def with_options(self, **options: Any) -> Self:
        """A copy with those options replaced that are not None."""
        return replace(self, **{key: value for key, value in options.items() if value is not None})


def read_toml(path: str | Path) -> dict[str, Any]:
    """The keys of a TOML file as they stand there. Raises `RecipeError` where it is missing or not TOML."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError("the recipe must be a readable file", received=f"{path} ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} must be TOML", received=str(error)) from error


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = "".join(
            f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else c for c in value.replace("\\", "\\\\").replace('"', '\\"')
        )
        return f'"{escaped}"'
    return repr(value)


def _require_range(name: str, value: float | None, low: float, high: float, *, open_low: bool = False) -> None:
    if value is None:
        return
    if not math.isfinite(value) or value < low or value > high or (open_low and value == low):
        bracket = "(" if open_low else "["
        raise RecipeError(f"{name} must lie in {bracket}{low:g}, {high:g}]", received=value)


OPTIONS = "options"
"""Where values come from that were given one by one, in Python or on the command line; else it is the name of a file."""

_TIME = re.compile(r"(\d+(?:\.\d*)?|\.\d+)([smh]?)")


def _seconds_of(text: str, where: str, key: str) -> float:
    """Seconds of a time such as ``90``, ``90s``, ``5m`` or ``1h``. Raises `RecipeError` where it is none."""
    found = _TIME.fullmatch(text)
    seconds = float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if not seconds:
        raise RecipeError(f"{where}: {key} must be a time above 0", received=repr(text), hint="write it as 90s, 5m or 1h")
    return seconds


NUMBERED = ("cut", "freeze_to")
"""Names of layers that may be given as an index or a share of the depth too: as numbers, in Python and in TOML."""


def _check_types(record: Any) -> None:
    """Bring the fields of a frozen record to their declared types, NumPy's numbers too, or raise `RecipeError`."""
    for name, hint in typing.get_type_hints(type(record)).items():
        object.__setattr__(record, name, _coerce(hint, getattr(record, name), type(record).__name__, name))


def _build(cls: type[T], values: Mapping[str, Any], where: str, prefix: str) -> T:
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, value in values.items():
        if key not in hints:
            raise RecipeError(f"{where}: unknown key", received=repr(prefix + key), hint=did_you_mean(key, hints))
        arguments[key] = _coerce(hints[key], value, where, prefix + key)
    try:
        return cls(**arguments)
    except RecipeError as error:
        if where == OPTIONS:
            raise
        raise RecipeError(f"{where}: {error.rule}", received=error.received, hint=error.hint) from None


def _coerce(hint: Any, value: object, where: str, key: str) -> object:
    choices = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    if value is None and type(None) in choices:
        return None
    expected = next(choice for choice in choices if choice is not type(None))
    if typing.get_origin(expected) is Literal:
        return _one_of(typing.get_args(expected), value, where, key)
    if is_dataclass(expected) and isinstance(value, Mapping):
        return _build(typing.cast(type, expected), value, where, f"{key}.")
    if key == "budget" and isinstance(value, str):
        return _seconds_of(value, where, key)
    # NumPy's numbers, which come from a grid of parameters, count as Python's; a boolean is no number.
    numeric = type(value) is not bool
    if expected is float and numeric and isinstance(value, numbers.Real):
        return float(value)
    if expected is int and numeric and isinstance(value, numbers.Integral):
        return int(value)
    if key in NUMBERED and numeric and isinstance(value, numbers.Real):
        return str(int(value) if isinstance(value, numbers.Integral) else float(value))
    if expected not in (float, int) and isinstance(value, expected):
        return value
    raise RecipeError(f"{where}: {key} must be {_kind(expected)}", received=repr(value))


def _one_of(names: tuple[str, ...], value: object, where: str, key: str) -> object:
    if value not in names:
        close = nearest(str(value), names)
        hint = None if close is None else f"did you mean {close!r}?"
        raise RecipeError(f"{where}: {key} must be one of {', '.join(names)}", received=repr(value), hint=hint)
    return value


def _kind(expected: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}.get(expected, "a table")
