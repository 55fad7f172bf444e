"""Collects the training images that the artifact keeps, by their features, so that users can look up the nearest ones."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossroads.artifact import MOST_BYTES, MOST_ROWS, Neighbours
from crossroads.data.dataset import Dataset
from crossroads.data.images import Resize
from crossroads.data.loading import load_all
from crossroads.errors import DataError
from crossroads.explain.nearest import FeaturesOf, unit
from crossroads.files.text import printable
from crossroads.predictor import Predictor
from crossroads.progress import Note, Watcher, stage
from crossroads.recipe import Recipe
from crossroads.run.results import TrainingResult, UsedImages

MOST_COMPUTED = 1_000
"""Number of images of a trained network. Computing their features takes a fraction of the time of an epoch. Those of a frozen
network are known."""

THUMBNAIL, THUMBNAIL_BYTES = Resize(96, "crop", crop_fraction=1.0), 4_000
"""How thumbnails are made, and how many bytes one takes at most on average."""


def neighbours_of(training: TrainingResult, predictor: Predictor, recipe: Recipe, watcher: Watcher) -> Neighbours | None:
    """Returns training images with their features, evenly drawn from each class if there are many.

    Images may have to be read again. If one cannot be read any more, there is a warning, and no neighbours.

    Args:
        training: The training.
        predictor: The saved classifier.
        recipe: Says whether thumbnails are kept.
        watcher: Receives the warning.
    """
    try:
        return _neighbours(training, predictor, watcher, keep_thumbnails=recipe.keep_thumbnails)
    except DataError as error:
        text = f"the artifact keeps no training images for `crossroads explain`, because one cannot be read any more: {error}"
        watcher.warning(Note(text, "no-neighbours"))
        return None


def _neighbours(training: TrainingResult, predictor: Predictor, watcher: Watcher, *, keep_thumbnails: bool) -> Neighbours:
    images, known = training.train, training.features
    labels = images.dataset.labels
    if known is None:
        rows = _drawn(labels, MOST_COMPUTED)
        with stage(watcher.progress, "features of training images to keep"):
            features = _computed(predictor, images, rows)
    else:
        rows = _drawn(labels, _room(known.shape[1], thumbnails=keep_thumbnails))
        features = np.concatenate([unit(known[rows[at : at + 1024]]).astype(np.float16) for at in range(0, len(rows), 1024)])
    chosen = images.dataset.select(rows)
    names = np.array([printable(chosen.name(row)) for row in range(len(chosen))], np.str_)
    return Neighbours(features, labels[rows].astype(np.int32), names, _thumbnails(chosen) if keep_thumbnails else None)


def _room(width: int, *, thumbnails: bool) -> int:
    """Returns how many images with features of this width the file may hold."""
    return max(1, min(MOST_ROWS, MOST_BYTES // (2 * width + (THUMBNAIL_BYTES if thumbnails else 0))))


def _drawn(labels: NDArray[np.integer], most: int) -> NDArray[np.int64]:
    """Returns at most this many rows, in order, evenly drawn from each class."""
    if len(labels) <= most:
        return np.arange(len(labels))
    by_class = np.argsort(labels, kind="stable")
    return np.sort(by_class[np.linspace(0, len(labels) - 1, most).round().astype(np.int64)])


def _computed(predictor: Predictor, images: UsedImages, rows: NDArray[np.int64]) -> NDArray[np.float16]:
    """Returns the features of training images, computed by the saved classifier."""
    features_of, parts = FeaturesOf(predictor), []
    for start in range(0, len(rows), 64):
        some = rows[start : start + 64]
        if images.pixels is None:
            pixels = load_all(images.dataset.select(some), predictor.manifest.resize, strict=True).pixels
        else:
            pixels = np.asarray(images.pixels[some])
        parts.append(features_of(pixels).astype(np.float16))
    return np.concatenate(parts)


def _thumbnails(dataset: Dataset) -> tuple[bytes, ...]:
    """Returns a small JPEG file of each image."""
    files = []
    for start in range(0, len(dataset), 256):
        part = dataset.select(range(start, min(start + 256, len(dataset))))
        for pixels in load_all(part, THUMBNAIL, strict=True).pixels:
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=80)
            files.append(file.getvalue())
    return tuple(files)
