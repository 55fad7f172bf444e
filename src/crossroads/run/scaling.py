"""Checks the preprocessing that the user named for a graph on some training images."""

from __future__ import annotations

import numpy as np

from crossroads.data.dataset import Dataset
from crossroads.data.loading import load_all
from crossroads.features.lookup import resize_of
from crossroads.heads.probe import probe
from crossroads.networks.body import Body
from crossroads.networks.graphs import probe_scalings
from crossroads.progress import Note
from crossroads.recipe import Recipe

IMAGES = 200
"""Number of training images on which scalings are compared."""


def note_on_scaling(body: Body, train: Dataset, recipe: Recipe) -> Note | None:
    """Returns a note if another scaling of the pixels is clearly better than the one that the user named for a graph.

    Args:
        body: The graph.
        train: Training images.
        recipe: A resolved recipe.
    """
    if recipe.preprocessing is None:
        return None
    rows = np.random.default_rng([recipe.seed, 17]).permutation(len(train))[:IMAGES]
    loaded = load_all(train.select(np.sort(rows)), resize_of(recipe))
    labels = loaded.dataset.labels
    if len(np.unique(labels)) < 2:
        return None
    return probe_scalings(body, loaded.pixels, labels, lambda features, classes: probe(features, classes).losses)
