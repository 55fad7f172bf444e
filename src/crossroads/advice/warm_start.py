"""A short warm start of a backbone that was looked at: what training all of it does with these images."""

from __future__ import annotations

from dataclasses import replace

from crossroads.advice.backbone_evidence import BackboneEvidence
from crossroads.advice.cost import Machine, memory_mb, step_seconds
from crossroads.advice.short_training import Limit, ShortTraining, allowed, run_short_training
from crossroads.errors import RecipeError
from crossroads.progress import Watcher
from crossroads.recipe import Recipe
from crossroads.strategies import WARM_EPOCHS, drop_unused_options, resolve_recipe, strategy

SECONDS = 15.0
"""Time that the steps are expected to take; it ends after twice that. Of 344 signs MobileNet then sees 2,750 images and reaches
0.80 of those held out. Before statistics settled that was 0.65; 700 and 1,400 images told little, 0.23 and 0.40."""

EPOCHS, IMAGES = 2, 40
"""At least: the first epoch tells what it takes to begin, and the second what an epoch takes; a quarter as many images
are held out."""


def short_warm_start(
    seen: BackboneEvidence, asked: Recipe, machine: Machine, budget: float | None, memory_limit_mb: float | None, watcher: Watcher
) -> ShortTraining | None:
    """A short warm start of a backbone; None where too few images could be seen, where memory or an option stands in its way.

    Args:
        seen: What the backbone sees.
        asked: What the user asked for.
        machine: What this machine does.
        budget: In seconds, of the training that is advised on; None for any time.
        memory_limit_mb: What is free; None where it is not known.
        watcher: Receives progress and notes.
    """
    cut, epochs = seen.built.keep, asked.epochs or WARM_EPOCHS[1]
    if seen.recipe.weights == "none" or epochs < EPOCHS:
        return None
    size, resize = seen.profile.image_size, seen.recipe.resize
    wanted = replace(asked, backbone=seen.recipe.backbone, weights=seen.recipe.weights, image_size=size, resize=resize, epochs=None)
    try:
        plain = drop_unused_options(wanted, strategy("warm-start"))
        batch_size = resolve_recipe(plain, seen.choice.record, images=len(seen.dataset), image_size=size).batch_size or 0
    except RecipeError:  # reported where the candidate is left out
        return None
    need = memory_mb(cut.parameters, cut.activations, batch_size, trained=True)
    if memory_limit_mb is not None and need > memory_limit_mb:
        return None
    seconds = allowed(SECONDS, budget)
    passes = int(seconds / step_seconds(cut.multiply_adds, machine, depthwise=seen.depthwise))
    return run_short_training(seen.dataset, seen.choice, plain, Limit(passes, (EPOCHS, epochs), 2 * seconds, IMAGES), watcher)
