"""Defines the strategies as records, resolves recipes for them, and plans their phases of training. Nothing here trains."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from crossroads.data.images import CROP, FILTER, Resize, default_crop_fraction
from crossroads.errors import RecipeError, did_you_mean, option, without_effect
from crossroads.networks.catalog import DEFAULT_FROM_SCRATCH, PRETRAINED_DEFAULT, Backbone, Defaults
from crossroads.recipe import Augmentation, ClassWeights, HeadName, OptimizerName, Recipe, ScheduleName, StrategyName

EARLY = 0.6
"""Fraction of the depth at which the early strategies cut a backbone if the user names no cut."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to use a backbone.

    Attributes:
        name: The name in a recipe.
        case: The case of the notes that it is for: size and similarity of the data.
        start: The initial weights.
        keeps: How much of the backbone is kept: all of it, or an early part.
        frozen: Whether the kept part is frozen and runs once per image.
        tuned: Whether the kept part is finetuned after the head, with small learning rates.
        default_backbone: The backbone if the user names none.
    """

    name: StrategyName
    case: str
    start: Literal["random", "pretrained"]
    keeps: Literal["end", "early"]
    frozen: bool
    tuned: bool
    default_backbone: str


@dataclass(frozen=True, slots=True)
class Solve:
    """A phase that solves a linear head on frozen features."""

    name: Literal["head"]
    class_weights: ClassWeights
    seed: int


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase that trains with gradient steps; all its options are set.

    Attributes:
        name: "head" trains the head alone, the others everything that is not frozen.
        epochs: Passes over the training images.
        batch_size: Images per step.
        optimizer: Adam or AdamW.
        learning_rate: Peak of the schedule, at the head.
        schedule: Schedule of the learning rate.
        warm_up: Fraction of the steps in which the learning rate rises.
        weight_decay: Decoupled weight decay, except for biases and normalisation layers.
        layer_decay: Factor of the learning rate from one block to the one below it.
        train_batchnorm: Whether BatchNorm layers are trained and their statistics updated.
        label_smoothing: Fraction of the target that is spread over all classes.
        class_weights: Whether classes are weighted by the inverse of their frequency.
        augmentation: Limits of the random transformations of the training images.
        early_stopping: Epochs without a better validation loss after which training ends; 0 for never.
        seed: Seed of order and augmentation.
        parts: Parts of a batch that are trained on one after another, so that their activations fit into memory. Their gradients
            are averaged before the weights change. BatchNorm statistics are those of a part.
    """

    name: Literal["head", "tune", "train"]
    epochs: int
    batch_size: int
    optimizer: OptimizerName
    learning_rate: float
    schedule: ScheduleName
    warm_up: float
    weight_decay: float
    layer_decay: float
    train_batchnorm: bool
    label_smoothing: float
    class_weights: ClassWeights
    augmentation: Augmentation
    early_stopping: int
    seed: int
    parts: int = 1


STRATEGIES: tuple[Strategy, ...] = (
    Strategy(
        name="feature-extraction",
        case="1: small, similar",
        start="pretrained",
        keeps="end",
        frozen=True,
        tuned=False,
        default_backbone=PRETRAINED_DEFAULT,
    ),
    Strategy(
        name="early-features",
        case="2: small, different",
        start="pretrained",
        keeps="early",
        frozen=True,
        tuned=False,
        default_backbone=PRETRAINED_DEFAULT,
    ),
    Strategy(
        name="finetune",
        case="3: large, similar",
        start="pretrained",
        keeps="end",
        frozen=False,
        tuned=True,
        default_backbone=PRETRAINED_DEFAULT,
    ),
    Strategy(
        name="finetune-early",
        case="2: small, different, the alternative",
        start="pretrained",
        keeps="early",
        frozen=False,
        tuned=True,
        default_backbone=PRETRAINED_DEFAULT,
    ),
    Strategy(
        name="warm-start",
        case="4: large, different, the alternative",
        start="pretrained",
        keeps="end",
        frozen=False,
        tuned=False,
        default_backbone=PRETRAINED_DEFAULT,
    ),
    Strategy(
        name="from-scratch",
        case="4: large, different",
        start="random",
        keeps="end",
        frozen=False,
        tuned=False,
        default_backbone=DEFAULT_FROM_SCRATCH,
    ),
)

SGD_HEAD = Defaults(batch_size=(128, 128), optimizer="adam", learning_rate=1e-3, schedule="constant", passes=1, epochs=(10, 10))
"""The head of the second program in the notes: Adam with its default settings, ten epochs, batches of 128."""

MLP_HEAD = Defaults(
    batch_size=(64, 128),
    optimizer="adamw",
    learning_rate=1e-3,
    schedule="one-cycle",
    weight_decay=0.05,
    label_smoothing=0.05,
    passes=100_000,
    epochs=(10, 60),
)

TUNE = Defaults(
    batch_size=(32, 64),
    optimizer="adamw",
    learning_rate=5e-4,
    schedule="cosine",
    weight_decay=0.01,
    augment=True,
    augmentation=Augmentation(shift=0.08, rotation=8, zoom=0.12, shear=4),
    passes=15_000,
    epochs=(4, 20),
)
TUNE_WARM_UP = 0.1
TUNE_LAYER_DECAY = 0.85
ONE_CYCLE_WARM_UP = 0.2

WARM_PASSES, WARM_EPOCHS = 40_000, (5, 30)
"""Number of images that a warm start processes in all, and its minimum and maximum of epochs. Random weights need several hundred
thousand. With 4,300 signs, MobileNet at 96 px has an accuracy on new tracks of 0.966 after two epochs and 0.986 after nine. With
430 signs it has 0.829 after eight epochs and 0.906 after thirty."""

_GRADIENT = (
    "epochs",
    "batch_size",
    "optimizer",
    "learning_rate",
    "schedule",
    "weight_decay",
    "label_smoothing",
    "warm_up",
)
ABOUT_GRAPHS = ("preprocessing", "backbone_licence", "backbone_source")
"""Options about the graph of a file."""

_TUNED = ("layer_decay", "train_batchnorm", "freeze_to")
_SOLVED = "with a linear head, which is solved"
_NOT_SOLVED = "unless a linear head is solved on frozen features"
_PRETRAINED = ("weights", "head", "views", "feature_type")


def strategy(name: str) -> Strategy:
    """Returns the strategy called `name`. Raises `RecipeError`, with the nearest known name, if there is none."""
    for record in STRATEGIES:
        if record.name == name:
            return record
    raise RecipeError(
        "no such strategy",
        code="unknown-strategy",
        field="strategy",
        received=repr(name),
        hint=did_you_mean(name, [record.name for record in STRATEGIES]),
    )


def needs_keras(recipe: Recipe) -> bool:
    """Returns whether a recipe with a named strategy trains by gradient descent, rather than solving a head on frozen features."""
    return not strategy(recipe.strategy).frozen or recipe.head not in (None, "linear")


def resolve_recipe(recipe: Recipe, backbone: Backbone, *, images: int, image_size: int, side: float = 0.0) -> Recipe:
    """Fills in the options that the user left open and the strategy uses. The other options stay None.

    Args:
        recipe: The requested recipe.
        backbone: The backbone.
        images: Number of training images.
        image_size: Side in pixels to which they are resized.
        side: Median of the shorter sides of the images, in pixels.

    Raises:
        RecipeError: An option has no effect, such as epochs for a head that is solved.
    """
    record = strategy(recipe.strategy)
    if backbone.trainable:
        about_graphs: dict[str, Any] = dict.fromkeys(ABOUT_GRAPHS)  # they are for graphs that are compared with this backbone
        recipe = replace(recipe, **about_graphs)
    else:
        require_frozen(recipe, record, backbone.name)
    if record.start == "random" and recipe.weights == "none":
        recipe = replace(recipe, weights=None)  # this strategy starts from random weights anyway
    resolved = _with_resizing(replace(recipe, backbone=backbone.name, image_size=image_size), record, backbone, side)
    if record.start == "pretrained":
        resolved = _with_parts(resolved, record, backbone)
    else:
        _refuse_options(resolved, (*_PRETRAINED, *_TUNED), "with training from scratch")
    if not record.tuned:
        _refuse_options(resolved, _TUNED, _with_strategy(record))
    if record.frozen and resolved.head == "linear":
        _refuse_options(resolved, _GRADIENT, _SOLVED)
        if recipe.early_stopping:
            raise without_effect("early_stopping", recipe.early_stopping, _SOLVED)
        return replace(_with_cached_views(resolved), refit=recipe.refit is not False)
    _refuse_options(resolved, ("refit",), _NOT_SOLVED)
    defaults = _defaults(resolved, record, backbone)
    return _with_augmentation(_with_schedule(resolved, defaults, images, tuned=record.tuned), record, defaults)


def _with_resizing(recipe: Recipe, record: Strategy, backbone: Backbone, side: float) -> Recipe:
    """Sets how images become square: as the user wants, else as the backbone expects, else as suits the images."""
    # Photographs have a margin around their subject, as those of ImageNet do; small images are often cropped already.
    crop = Resize(recipe.image_size or 1, "crop", crop_fraction=CROP)
    photographs = record.start == "pretrained" and side >= crop.minimum_side
    mode = recipe.resize or backbone.resize or ("crop" if photographs else "squash")
    fraction = recipe.crop_fraction
    if fraction is None and mode == backbone.resize:
        fraction = backbone.crop_fraction
    return replace(
        recipe,
        resize=mode,
        crop_fraction=default_crop_fraction(mode) if fraction is None else fraction,
        resample=recipe.resample or backbone.resample or FILTER,
    )


def require_frozen(recipe: Recipe, record: Strategy, graph: str) -> None:
    """Raises `RecipeError` if a strategy would train the graph of a file, or load other weights into it."""
    if not record.frozen:
        raise RecipeError(
            "a graph from a file stays frozen: it has no layers that can be trained",
            code="graph-not-trainable",
            field="strategy",
            received=f"{record.name!r} with {graph}",
            hint=f"set {option('strategy')} to feature-extraction or early-features, or use a backbone of the catalog",
        )
    if recipe.weights not in (None, "own"):
        raise without_effect("weights", repr(recipe.weights), "on a graph from a file, which contains its weights")


def plan_phases(recipe: Recipe, *, images: int = 1) -> tuple[Solve | Phase, ...]:
    """Plans the phases of a resolved recipe, in their order.

    Training from scratch and a warm start have one phase, which trains everything. A strategy on frozen features has one phase for
    the head, which is solved or trained. Finetuning has that phase, then one for everything that is not frozen.

    Args:
        recipe: The result of `resolve_recipe`.
        images: Number of training images, for the epochs of a trained head before finetuning.
    """
    record = strategy(recipe.strategy)
    if recipe.image_size is None or recipe.backbone is None:
        raise _unresolved("no image size or backbone")
    if record.start == "random" or not (record.frozen or record.tuned):
        return (_phase(recipe, "train", train_batchnorm=True),)
    solved = Solve("head", recipe.class_weights, recipe.seed)
    if record.frozen:
        return (solved,) if recipe.head == "linear" else (_phase(recipe, "head"),)
    return (solved if recipe.head == "linear" else _head_first(recipe, images), _phase(recipe, "tune"))


def refuse_strategy_options(recipe: Recipe) -> None:
    """Raises `RecipeError` if a recipe without a strategy has an option that only some strategies use."""
    for name in ("cut", "pooling", "head", "views", "feature_type", *_TUNED):
        if getattr(recipe, name) is not None:
            raise RecipeError(
                f"{option(name)} belongs to one strategy, and none is named",
                code="option-needs-strategy",
                field=name,
                received=repr(getattr(recipe, name)),
                hint=f"set {option('strategy')}, or leave it out",
            )


def drop_unused_options(recipe: Recipe, record: Strategy) -> Recipe:
    """Adapts a recipe for any strategy to one strategy by removing the options that have no effect with it."""
    unused: set[str] = set()
    if record.start == "random":
        unused |= {*_PRETRAINED, *_TUNED, "cut", "pooling"}
    if not record.tuned:
        unused |= set(_TUNED)
    solved = record.frozen and recipe.head in (None, "linear")
    unused |= set(_GRADIENT) if solved else {"refit"}
    if record.frozen and (recipe.views or 1) == 1:
        unused |= {"augment", "augmentation"}
    if _trains_all_at_once(record):
        unused |= {"head", "views", "feature_type"}
    cleared: dict[str, Any] = dict.fromkeys(unused)
    return replace(recipe, strategy=record.name, **cleared, early_stopping=0 if solved else recipe.early_stopping)


def _trains_all_at_once(record: Strategy) -> bool:
    """Returns whether a strategy trains the backbone and the head in one phase, from pretrained weights."""
    return record.start == "pretrained" and not (record.frozen or record.tuned)


def _with_parts(recipe: Recipe, record: Strategy, backbone: Backbone) -> Recipe:
    """Sets weights, cut, pooling and head."""
    cut = recipe.cut if recipe.cut is not None else (str(EARLY) if record.keeps == "early" else None)
    whole = _trains_all_at_once(record)
    if whole and recipe.head not in (None, "sgd"):
        raise without_effect("head", repr(recipe.head), f"{_with_strategy(record)}, which trains head and backbone together")
    return replace(
        recipe,
        weights=recipe.weights or ("imagenet" if backbone.builder else "own"),
        cut=cut,
        pooling=recipe.pooling or ("average-4" if record.keeps == "early" else "average"),
        head=recipe.head or ("sgd" if whole else "linear"),
    )


def _with_augmentation(recipe: Recipe, record: Strategy, defaults: Defaults) -> Recipe:
    """Sets the augmentation. Cached features can be augmented only as views."""
    if record.frozen or recipe.freeze_to is not None:
        return _with_cached_views(recipe)
    if not record.tuned:
        _refuse_options(recipe, ("views", "feature_type"), "without a frozen part")
    if (recipe.views or 1) > 1:
        raise without_effect("views", recipe.views, "without a frozen part: images are augmented in each epoch")
    augment = recipe.augment
    if augment is None:
        augment = defaults.augment if recipe.augmentation is None else recipe.augmentation.active
    augmentation = recipe.augmentation or defaults.augmentation
    if augment and not augmentation.active:
        received = f"backbone {recipe.backbone!r}, which has no augmentation of its own"
        raise without_effect(
            "augment", received, "while every augmentation is zero", hint="add an [augmentation] table to the recipe"
        )
    kept = replace(recipe, views=1, feature_type=recipe.feature_type or "float32") if record.tuned else recipe
    return replace(kept, augment=augment, augmentation=augmentation if augment else Augmentation())


def _with_cached_views(recipe: Recipe) -> Recipe:
    """Sets the views of each image that are cached, and their augmentation."""
    views, augmentation = recipe.views or 1, recipe.augmentation or TUNE.augmentation
    if views == 1 and (recipe.augment or (recipe.augmentation is not None and recipe.augmentation.active)):
        raise without_effect("augmentation", "one view per image", "with frozen features", hint=f"set {option('views')} to 4")
    if views > 1 and (recipe.augment is False or not augmentation.active):
        hint = f"leave {option('views')} out, or turn {option('augment')} on"
        raise without_effect("views", views, "on images that are not augmented", hint=hint)
    return replace(
        recipe,
        views=views,
        feature_type=recipe.feature_type or ("float16" if recipe.freeze_to is not None else "float32"),
        augment=views > 1,
        augmentation=augmentation if views > 1 else Augmentation(),
    )


def _defaults(recipe: Recipe, record: Strategy, backbone: Backbone) -> Defaults:
    if record.tuned:
        return TUNE
    if record.frozen:
        return MLP_HEAD if recipe.head == "mlp" else SGD_HEAD
    if record.start == "pretrained":
        return replace(backbone.defaults, passes=WARM_PASSES, epochs=WARM_EPOCHS)
    return backbone.defaults


def _with_schedule(recipe: Recipe, defaults: Defaults, images: int, *, tuned: bool) -> Recipe:
    optimizer = recipe.optimizer or defaults.optimizer
    decay = recipe.weight_decay
    if decay is None:
        decay = defaults.weight_decay if optimizer == "adamw" else 0.0
    schedule = recipe.schedule or defaults.schedule
    if schedule == "constant" and recipe.warm_up:
        raise without_effect("warm_up", recipe.warm_up, "with a constant learning rate")
    warm_up = {"constant": 0.0, "cosine": TUNE_WARM_UP if tuned else 0.0, "one-cycle": ONE_CYCLE_WARM_UP}[schedule]
    common = replace(
        recipe,
        epochs=recipe.epochs or defaults.epochs_for(images),
        batch_size=recipe.batch_size or defaults.batch_size_for(images),
        optimizer=optimizer,
        learning_rate=recipe.learning_rate or defaults.learning_rate,
        schedule=schedule,
        warm_up=warm_up if recipe.warm_up is None else recipe.warm_up,
        weight_decay=decay,
        label_smoothing=defaults.label_smoothing if recipe.label_smoothing is None else recipe.label_smoothing,
    )
    if not tuned:
        return common
    return replace(
        common,
        layer_decay=recipe.layer_decay or TUNE_LAYER_DECAY,
        train_batchnorm=recipe.train_batchnorm or False,
    )


def _phase(recipe: Recipe, name: Literal["head", "tune", "train"], *, train_batchnorm: bool = False) -> Phase:
    """Returns a phase with the options of the recipe."""
    values = {key: getattr(recipe, key) for key in Phase.__dataclass_fields__ if key not in ("name", "train_batchnorm", "parts")}
    if values["layer_decay"] is None:
        values["layer_decay"] = 1.0
    missing = [key for key, value in values.items() if value is None]
    if missing:
        raise _unresolved(f"no value for {', '.join(missing)}")
    if (name == "head" and recipe.views is not None) or recipe.freeze_to is not None:
        values["augmentation"] = Augmentation()  # the cached views are augmented already
    return Phase(
        name=name,
        train_batchnorm=train_batchnorm or bool(recipe.train_batchnorm),
        **values,
    )


def _head_first(recipe: Recipe, images: int) -> Phase:
    """Returns the phase that trains a head before finetuning, with the default options of such a head."""
    kind: HeadName = recipe.head or "sgd"
    cleared: dict[str, Any] = dict.fromkeys((*_GRADIENT, *_TUNED))
    bare = replace(recipe, **cleared, early_stopping=0)
    resolved = _with_schedule(bare, MLP_HEAD if kind == "mlp" else SGD_HEAD, images, tuned=False)
    return _phase(resolved, "head")


def _refuse_options(recipe: Recipe, names: tuple[str, ...], context: str) -> None:
    """Raises `RecipeError` if one of these options, which have no effect in this context, is set."""
    for name in names:
        value = getattr(recipe, name)
        if value is not None:
            raise without_effect(name, repr(value), context)


def _with_strategy(record: Strategy) -> str:
    return f"with {option('strategy')} {record.name}"


def _unresolved(received: str) -> RecipeError:
    return RecipeError(
        "phases are planned for a resolved recipe",
        code="unresolved-recipe",
        received=received,
        hint="call resolve_recipe first",
    )
