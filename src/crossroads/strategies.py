"""The strategies as records: what is kept of a backbone, what is frozen, what the rest starts from. They plan, they never train."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from crossroads.data.images import Resize
from crossroads.errors import RecipeError, did_you_mean
from crossroads.networks.catalog import DEFAULT_FROM_SCRATCH, PRETRAINED_DEFAULT, Backbone, Defaults
from crossroads.recipe import Augmentation, ClassWeights, HeadName, OptimizerName, Recipe, ScheduleName, StrategyName, UnfreezeName

EARLY = 0.6
"""Share of the depth at which a backbone is cut where a strategy wants early features and the user names no cut."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to use a backbone.

    Attributes:
        name: What the user writes.
        case: The case of the notes it answers: size and similarity of the data.
        start: What the first weights are.
        keeps: How much of the backbone is kept: all of it, or an early part.
        frozen: Whether all that is kept stays as it was and runs once an image.
        tuned: Whether what is kept is finetuned after the head, with small rates.
        default_backbone: The backbone taken where the user names none.
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
    """A linear head on frozen features, solved and not approximated."""

    name: Literal["head"]
    class_weights: ClassWeights
    seed: int


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of training with fixed options: everything that `training` needs to know, with nothing left open.

    Attributes:
        name: What the history calls it; "head" trains the head alone, the others everything that is not frozen.
        epochs: Passes over the training images.
        batch_size: Images a step.
        optimizer: Adam or AdamW.
        learning_rate: Peak of the schedule, at the head.
        schedule: Course of the learning rate.
        warm_up: Share of the steps in which it rises.
        weight_decay: Decoupled; never on biases and normalisation.
        l2_sp: Strength of the pull towards the first weights (L2-SP).
        layer_decay: Factor of the learning rate from one block to the one below it.
        ema: Momentum of the average of weights that is validated and kept; 0 for none.
        train_batchnorm: Whether BatchNorm layers and their statistics move.
        unfreeze: Whether all blocks are trained from the start, or one after another from the head down.
        label_smoothing: Share of the target spread over all classes.
        mixup: Concentration of the Beta distribution that pairs of images are mixed by; 0 for none.
        class_weights: Whether classes are weighed by the inverse of their frequency.
        augmentation: How far images are moved.
        early_stopping: Epochs without a better validation loss after which training ends; 0 for never.
        seed: Decides order, movement and mixing.
    """

    name: Literal["head", "tune", "train"]
    epochs: int
    batch_size: int
    optimizer: OptimizerName
    learning_rate: float
    schedule: ScheduleName
    warm_up: float
    weight_decay: float
    l2_sp: float
    layer_decay: float
    ema: float
    train_batchnorm: bool
    unfreeze: UnfreezeName
    label_smoothing: float
    mixup: float
    class_weights: ClassWeights
    augmentation: Augmentation
    early_stopping: int
    seed: int


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
"""The head of the notes' second program: Adam as it comes, ten epochs, batches of 128."""

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
"""Images that a warm start sees in all, and its least and most epochs: pretrained weights are soon where random ones get in several
hundred thousand. MobileNet at 96 px on 4,300 signs reaches 0.966 of other tracks after two epochs and 0.986 after nine; on 430
signs 0.829 after eight and 0.906 after thirty."""

_GRADIENT = (
    "epochs",
    "batch_size",
    "optimizer",
    "learning_rate",
    "schedule",
    "weight_decay",
    "label_smoothing",
    "mixup",
    "warm_up",
)
_TUNED = ("layer_decay", "l2_sp", "ema", "unfreeze", "train_batchnorm", "freeze_to")
_PRETRAINED = ("weights", "head", "views", "feature_type", "precision")


def strategy(name: str) -> Strategy:
    """The record called `name`. Raises `RecipeError` that names the nearest known one."""
    for record in STRATEGIES:
        if record.name == name:
            return record
    raise RecipeError("no such strategy", received=repr(name), hint=did_you_mean(name, [record.name for record in STRATEGIES]))


def resolve_recipe(recipe: Recipe, backbone: Backbone, *, images: int, image_size: int, side: float = 0.0) -> Recipe:
    """The recipe with every open choice filled in that matters to its strategy; what does not matter stays None.

    Args:
        recipe: What the user asked for.
        backbone: The backbone that will be used.
        images: Training images.
        image_size: Side in pixels that was chosen for them.
        side: Median of the shorter sides of the images, in pixels.

    Raises:
        RecipeError: An option would do nothing, such as a weight decay for Adam, or epochs for a head that is solved.
    """
    record = strategy(recipe.strategy)
    if record.start == "random" and recipe.weights == "none":
        recipe = replace(recipe, weights=None)  # random weights are what this strategy starts from
    # Photographs have room around what they show, as ImageNet's have; small images are often cut close already.
    photographs = record.start == "pretrained" and side >= Resize(image_size, "crop").minimum_side
    mode = recipe.resize or ("crop" if photographs else "squash")
    named = replace(recipe, backbone=backbone.name, image_size=image_size, resize=mode)
    if record.start == "pretrained":
        named = _with_parts(named, record, backbone)
    else:
        _refuse(named, (*_PRETRAINED, *_TUNED), "training from scratch")
    if not record.tuned:
        _refuse(named, _TUNED, f"strategy {record.name!r}")
    if record.frozen and named.head == "linear":
        _refuse(named, _GRADIENT, "a linear head, which is solved")
        if recipe.early_stopping:
            raise _idle("early_stopping", recipe.early_stopping, "a linear head, which is solved")
        return _with_cached_views(named)
    defaults = _defaults(named, record, backbone)
    return _with_views(_with_schedule(named, defaults, images, tuned=record.tuned), record, defaults)


def plan_phases(recipe: Recipe, *, images: int = 1) -> tuple[Solve | Phase, ...]:
    """The phases that a resolved recipe asks for, in their order.

    From scratch and warm start have one, in which everything is trained. Frozen features need a head: solved, or trained.
    Finetuning has the head's phase first and then one for all that is not frozen.

    Args:
        recipe: What `resolve` returned.
        images: Training images, for the epochs of a trained head before finetuning.
    """
    record = strategy(recipe.strategy)
    if recipe.image_size is None or recipe.backbone is None:
        raise RecipeError("a plan needs a resolved recipe", received="no image size or backbone", hint="call resolve first")
    if record.start == "random" or not (record.frozen or record.tuned):
        return (_phase(recipe, "train", train_batchnorm=True),)
    solved = Solve("head", recipe.class_weights, recipe.seed)
    if record.frozen:
        return (solved,) if recipe.head == "linear" else (_phase(recipe, "head"),)
    return (solved if recipe.head == "linear" else _head_first(recipe, images), _phase(recipe, "tune"))


def refuse_strategy_options(recipe: Recipe) -> None:
    """Raises `RecipeError` where a recipe that leaves the strategy open names what the strategy decides."""
    for name in ("cut", "pooling", "head", "views", "feature_type", "precision", *_TUNED):
        if getattr(recipe, name) is not None:
            raise RecipeError(
                f"{name} belongs to one strategy, and none is named",
                received=repr(getattr(recipe, name)),
                hint="add --strategy, or leave it out",
            )


def drop_unused_options(recipe: Recipe, record: Strategy) -> Recipe:
    """A recipe without what would do nothing with a strategy: what is asked for all strategies at once, for this one alone."""
    idle: set[str] = set()
    if record.start == "random":
        idle |= {*_PRETRAINED, *_TUNED, "cut", "pooling"}
    if not record.tuned:
        idle |= set(_TUNED)
    solved = record.frozen and recipe.head in (None, "linear")
    if solved:
        idle |= set(_GRADIENT)
    if record.frozen and (recipe.views or 1) == 1:
        idle |= {"augment", "augmentation"}
    if record.start == "pretrained" and not (record.frozen or record.tuned):
        idle |= {"head", "views", "feature_type", "precision"}
    cleared: dict[str, Any] = dict.fromkeys(idle)
    return replace(recipe, strategy=record.name, **cleared, early_stopping=0 if solved else recipe.early_stopping)


def _with_parts(recipe: Recipe, record: Strategy, backbone: Backbone) -> Recipe:
    cut = recipe.cut if recipe.cut is not None else (str(EARLY) if record.keeps == "early" else None)
    whole = record.start == "pretrained" and not (record.frozen or record.tuned)
    if whole and recipe.head not in (None, "sgd"):
        raise _idle("head", repr(recipe.head), f"strategy {record.name!r}, which trains its head with all the rest")
    return replace(
        recipe,
        weights=recipe.weights or ("imagenet" if backbone.builder else "own"),
        cut=cut,
        pooling=recipe.pooling or ("average-4" if record.keeps == "early" else "average"),
        head=recipe.head or ("sgd" if whole else "linear"),
    )


def _with_views(recipe: Recipe, record: Strategy, defaults: Defaults) -> Recipe:
    """Augmentation, and how features are cached; frozen features know augmentation as views only."""
    if record.frozen or recipe.freeze_to is not None:
        return _with_cached_views(recipe)
    if not record.tuned:
        _refuse(recipe, ("views", "feature_type", "precision"), "no frozen part")
    if (recipe.views or 1) > 1:
        raise _idle("views", recipe.views, "no frozen part: images are moved anew in each epoch")
    augment = recipe.augment
    if augment is None:
        augment = defaults.augment if recipe.augmentation is None else recipe.augmentation.active
    movement = recipe.augmentation or defaults.augmentation
    if augment and not movement.active:
        raise RecipeError(
            "augment = true does nothing while every augmentation is zero",
            received=f"backbone {recipe.backbone!r}, which has no augmentation of its own",
            hint="give an [augmentation] table in the recipe",
        )
    kept = replace(recipe, views=1, feature_type=recipe.feature_type or "float32") if record.tuned else recipe
    return replace(kept, augment=augment, augmentation=movement if augment else Augmentation())


def _with_cached_views(recipe: Recipe) -> Recipe:
    views, moved = recipe.views or 1, recipe.augmentation or TUNE.augmentation
    if views == 1 and (recipe.augment or (recipe.augmentation is not None and recipe.augmentation.active)):
        raise _idle("augmentation", "one view an image", "frozen features", hint="add --views 4")
    if views > 1 and (recipe.augment is False or not moved.active):
        raise _idle("views", views, "images that are not moved", hint="leave --views out, or set augment = true")
    return replace(
        recipe,
        views=views,
        feature_type=recipe.feature_type or ("float16" if recipe.freeze_to is not None else "float32"),
        augment=views > 1,
        augmentation=moved if views > 1 else Augmentation(),
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
        raise _idle("warm_up", recipe.warm_up, "a constant learning rate")
    usual = {"constant": 0.0, "cosine": TUNE_WARM_UP if tuned else 0.0, "one-cycle": ONE_CYCLE_WARM_UP}[schedule]
    common = replace(
        recipe,
        epochs=recipe.epochs or defaults.epochs_for(images),
        batch_size=recipe.batch_size or defaults.batch_size_for(images),
        optimizer=optimizer,
        learning_rate=recipe.learning_rate or defaults.learning_rate,
        schedule=schedule,
        warm_up=usual if recipe.warm_up is None else recipe.warm_up,
        weight_decay=decay,
        label_smoothing=defaults.label_smoothing if recipe.label_smoothing is None else recipe.label_smoothing,
        mixup=recipe.mixup or 0.0,
    )
    if not tuned:
        return common
    return replace(
        common,
        layer_decay=recipe.layer_decay or TUNE_LAYER_DECAY,
        l2_sp=recipe.l2_sp or 0.0,
        ema=recipe.ema or 0.0,
        unfreeze=recipe.unfreeze or "at-once",
        train_batchnorm=recipe.train_batchnorm or False,
    )


def _phase(recipe: Recipe, name: Literal["head", "tune", "train"], *, train_batchnorm: bool = False) -> Phase:
    """One phase with the recipe's own options."""
    optional = {"l2_sp": 0.0, "layer_decay": 1.0, "ema": 0.0, "unfreeze": "at-once"}
    values = {key: getattr(recipe, key) for key in Phase.__dataclass_fields__ if key not in ("name", "train_batchnorm")}
    values |= {key: usual for key, usual in optional.items() if values[key] is None}
    missing = [key for key, value in values.items() if value is None]
    if missing:
        raise RecipeError(
            "a plan needs a resolved recipe", received=f"no value for {', '.join(missing)}", hint="call resolve first"
        )
    if (name == "head" and recipe.views is not None) or recipe.freeze_to is not None:
        values["augmentation"] = Augmentation()  # the views are in the cache
    return Phase(
        name=name,
        train_batchnorm=train_batchnorm or bool(recipe.train_batchnorm),
        **values,
    )


def _head_first(recipe: Recipe, images: int) -> Phase:
    """The phase of a trained head before finetuning, with the options of such a head."""
    kind: HeadName = recipe.head or "sgd"
    nothing: dict[str, Any] = dict.fromkeys((*_GRADIENT, *_TUNED))
    bare = replace(recipe, **nothing, early_stopping=0)
    resolved = _with_schedule(bare, MLP_HEAD if kind == "mlp" else SGD_HEAD, images, tuned=False)
    return _phase(resolved, "head")


def _refuse(recipe: Recipe, names: tuple[str, ...], where: str) -> None:
    for name in names:
        value = getattr(recipe, name)
        if value is not None:
            raise _idle(name, repr(value), where)


def _idle(name: str, value: object, where: str, hint: str = "leave it out") -> RecipeError:
    return RecipeError(f"{name} does nothing with {where}", received=value, hint=hint)
