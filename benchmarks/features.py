"""Features of images at the end of a backbone, as a head receives them."""

from __future__ import annotations

from typing import Any


def at_the_end(images: Any, backbone: str, weights: str, image_size: int, side: float) -> Any:
    """Returns the average-pooled features of a data set as an `Extraction`. `side` is the median shorter side of its images."""
    from crossroads.features.lookup import Lookup
    from crossroads.networks.construct import build, choose
    from crossroads.networks.network import frozen_part
    from crossroads.progress import Silent
    from crossroads.recipe import Recipe
    from crossroads.strategies import resolve

    choice = choose(backbone)
    asked = Recipe(strategy="feature-extraction", weights=weights)
    recipe = resolve(asked, choice.record, images=len(images), image_size=image_size, side=side)
    built = build(choice, image_size, weights=weights, seed=0)
    model = frozen_part(built.parts, image_size, built.keep, "average")
    return Lookup(model, choice.record, recipe, built.keep.name, Silent()).features(images, "features")
