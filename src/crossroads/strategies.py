"""The strategies as records: what is kept of a backbone, what is frozen, what the rest starts from. They plan, they never train."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from crossroads.errors import RecipeError, did_you_mean
from crossroads.networks.catalog import DEFAULT_FROM_SCRATCH, Backbone
from crossroads.recipe import Augmentation, ClassWeights, OptimizerName, Recipe, ScheduleName


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to use a backbone.

    Attributes:
        name: What the user writes.
        case: The case of the notes it answers: size and similarity of the data.
        start: What the first weights are.
        frozen: Whether a part of the backbone stays as it was and runs once an image.
        default_backbone: The backbone taken where the user names none.
    """

    name: str
    case: str
    start: Literal["random", "pretrained"]
    frozen: bool
    default_backbone: str


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of training with fixed options: everything that `training` needs to know, with nothing left open."""

    epochs: int
    batch_size: int
    optimizer: OptimizerName
    learning_rate: float
    schedule: ScheduleName
    weight_decay: float
    label_smoothing: float
    class_weights: ClassWeights
    augmentation: Augmentation
    early_stopping: int
    seed: int


STRATEGIES: tuple[Strategy, ...] = (
    Strategy(
        name="from-scratch",
        case="4: large, different",
        start="random",
        frozen=False,
        default_backbone=DEFAULT_FROM_SCRATCH,
    ),
)


def strategy(name: str) -> Strategy:
    """The record called `name`. Raises `RecipeError` that names the nearest known one."""
    for record in STRATEGIES:
        if record.name == name:
            return record
    raise RecipeError("no such strategy", received=repr(name), mend=did_you_mean(name, [record.name for record in STRATEGIES]))


def resolve(recipe: Recipe, backbone: Backbone, *, images: int, image_size: int) -> Recipe:
    """The recipe with every open choice filled in from the backbone's defaults.

    Args:
        recipe: What the user asked for.
        backbone: The backbone that will be trained.
        images: Training images.
        image_size: Side in pixels that was chosen for them.

    Raises:
        RecipeError: An option would do nothing, such as a weight decay for Adam.
    """
    defaults = backbone.defaults
    optimizer = recipe.optimizer or defaults.optimizer
    decay = recipe.weight_decay
    if decay is None:
        decay = defaults.weight_decay if optimizer == "adamw" else 0.0
    augment = recipe.augment
    if augment is None:
        augment = defaults.augment if recipe.augmentation is None else recipe.augmentation.moves
    movement = recipe.augmentation or defaults.augmentation
    if augment and not movement.moves:
        raise RecipeError(
            "augment = true does nothing while every augmentation is zero",
            received=f"backbone {backbone.name!r}, which has no augmentation of its own",
            mend="give an [augmentation] table in the recipe",
        )
    return replace(
        recipe,
        backbone=backbone.name,
        image_size=image_size,
        epochs=recipe.epochs or defaults.epochs_for(images),
        batch_size=recipe.batch_size or defaults.batch_size_for(images),
        optimizer=optimizer,
        learning_rate=recipe.learning_rate or defaults.learning_rate,
        schedule=recipe.schedule or defaults.schedule,
        weight_decay=decay,
        label_smoothing=defaults.label_smoothing if recipe.label_smoothing is None else recipe.label_smoothing,
        augment=augment,
        augmentation=movement if augment else Augmentation(),
    )


def plan(recipe: Recipe) -> tuple[Phase, ...]:
    """The phases that a resolved recipe asks for; training from scratch has one."""
    strategy(recipe.strategy)
    values = {name: getattr(recipe, name) for name in Phase.__dataclass_fields__}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        raise RecipeError(
            "a plan needs a resolved recipe", received=f"no value for {', '.join(missing)}", mend="call resolve first"
        )
    return (Phase(**values),)
