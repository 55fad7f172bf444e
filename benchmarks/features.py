"""Features of images at the end of a backbone, as a head receives them."""

from __future__ import annotations

from typing import Any


def at_the_end(images: Any, backbone: str, weights: str | None, image_size: int, side: float) -> Any:
    """Returns the average-pooled features of a data set as an `Extraction`. `side` is the median shorter side of its images."""
    from crossroads.features.bodies import body_of
    from crossroads.features.lookup import Lookup
    from crossroads.networks.construct import choose
    from crossroads.progress import Silent
    from crossroads.recipe import Recipe
    from crossroads.strategies import resolve_recipe

    choice = choose(backbone)
    asked = Recipe(strategy="feature-extraction", weights=weights)
    recipe = resolve_recipe(asked, choice.record, images=len(images), image_size=image_size, side=side)
    body = body_of(choice, image_size, weights)
    return Lookup(body.until(body.end, "average"), backbone, recipe, body.end.name, Silent()).features(images, "features")
