"""Trains all layers of a pretrained backbone briefly, to predict the accuracy of the whole training."""

from __future__ import annotations

from dataclasses import replace

from crossroads.advice.backbone_evidence import BackboneEvidence
from crossroads.advice.cost import Machine, step_seconds
from crossroads.advice.short_training import Limit, ShortTraining, limit_by_budget, run_short_training
from crossroads.errors import RecipeError
from crossroads.networks.memory import part_mb
from crossroads.progress import Watcher
from crossroads.recipe import Recipe
from crossroads.strategies import WARM_EPOCHS, drop_unused_options, resolve_recipe, strategy

SECONDS = 15.0
"""Expected time of the steps; the training ends after twice that. With 344 signs MobileNet then sees 2,750 images and reaches a
validation accuracy of 0.80. With 700 and 1,400 images it reached 0.23 and 0.40, which says little."""

EPOCHS, IMAGES = 2, 40
"""Smallest number of epochs and of training images. The first epoch shows the time to start, the second the time per epoch. A
quarter as many images are held out."""


def short_warm_start(
    evidence: BackboneEvidence,
    asked: Recipe,
    machine: Machine,
    budget: float | None,
    memory_limit_mb: float | None,
    watcher: Watcher,
) -> ShortTraining | None:
    """Returns a short warm start; None if time or images are too few, the memory is too small, or an option excludes it.

    Args:
        evidence: The backbone.
        asked: The requested recipe.
        machine: The speed of this machine.
        budget: Budget of the training that is advised on, in seconds; None if there is none.
        memory_limit_mb: The most memory that the process may use; None if unknown.
        watcher: Receives progress and notes.
    """
    cut, epochs = evidence.body.end, asked.epochs or WARM_EPOCHS[1]
    if evidence.recipe.weights == "none" or epochs < EPOCHS:
        return None
    base, size = evidence.recipe, evidence.profile.image_size
    wanted = replace(asked, backbone=base.backbone, weights=base.weights, image_size=size, resize=base.resize, epochs=None)
    try:
        plain = drop_unused_options(wanted, strategy("warm-start"))
        batch_size = resolve_recipe(plain, evidence.choice.record, images=len(evidence.dataset), image_size=size).batch_size or 0
    except RecipeError:  # reported when the candidate is left out
        return None
    need = part_mb(batch_size, cut.parameters, cut.activations, train_batchnorm=True, limit_mb=memory_limit_mb)
    if memory_limit_mb is not None and need > memory_limit_mb:
        return None
    seconds = limit_by_budget(SECONDS, budget)
    passes = int(seconds / step_seconds(cut.multiply_adds, machine, depthwise=evidence.body.depthwise))
    limit = Limit(passes, (EPOCHS, epochs), 2 * seconds, IMAGES, memory_limit_mb)
    return run_short_training(evidence.dataset, evidence.choice, plain, limit, watcher)
