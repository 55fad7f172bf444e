"""Finds the training images whose features are most similar to those of an image."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from crossroads.artifact import read_neighbours
from crossroads.errors import ArtifactError, DataError
from crossroads.explain.split import whole
from crossroads.inference import Part
from crossroads.networks.head_input import until_head
from crossroads.predictor import Predictor


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A training image that resembles another image.

    Attributes:
        name: Its name.
        label: Its class.
        similarity: The cosine of the angle between the features of both images, at most 1.
        thumbnail: A small JPEG file; None if none was kept.
    """

    name: str
    label: str
    similarity: float
    thumbnail: bytes | None = None


class Nearest:
    """Finds the nearest training images with the features of an artifact. Threads may share one.

    Args:
        classifier: The folder of a finished artifact, or a predictor.

    Raises:
        ArtifactError: The folder is not an artifact, was changed after it was written, or has no training images.
    """

    def __init__(self, classifier: str | PathLike[str] | Predictor) -> None:
        self._predictor = classifier if isinstance(classifier, Predictor) else Predictor.load(classifier)
        manifest = self._predictor.manifest
        stored = read_neighbours(manifest)
        if stored is None:
            raise ArtifactError(
                "the nearest training images are found by the file neighbours.npz of the artifact",
                code="no-neighbours",
                received=f"{manifest.folder} without it",
                hint="fit it again",
            )
        self._stored = stored
        self._features = FeaturesOf(self._predictor)

    def __call__(self, pixels: NDArray[np.uint8], k: int = 5) -> list[tuple[Neighbour, ...]]:
        """Returns the `k` nearest training images of each image, uint8 (n, size, size, 3), nearest first.

        Raises:
            DataError: The shape or dtype of the pixels differs, or `k` is below 1.
        """
        if k < 1:
            raise DataError("the number of neighbours must be at least 1", code="out-of-range", field="nearest", received=k)
        self._predictor.require_pixels(pixels)
        similarities = self._features(pixels) @ self._stored.features.astype(np.float32).T
        return [tuple(self._neighbour(row, each[row]) for row in np.argsort(-each, kind="stable")[:k]) for each in similarities]

    def _neighbour(self, row: int, similarity: float) -> Neighbour:
        stored = self._stored
        thumbnail = None if stored.thumbnails is None else stored.thumbnails[row]
        label = self._predictor.classes[stored.labels[row]]
        return Neighbour(str(stored.names[row]), label, round(float(similarity), 4), thumbnail)


def nearest(classifier: str | PathLike[str] | Predictor, pixels: NDArray[np.uint8], k: int = 5) -> list[tuple[Neighbour, ...]]:
    """Returns the nearest training images of each image, as `Nearest` does. Raises the same errors."""
    return Nearest(classifier)(pixels, k)


class FeaturesOf:
    """Computes the features of images: what the head of a frozen backbone, or the last layer of a trained network, receives.

    Args:
        predictor: The classifier.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._graph = predictor.graph
        part, threads = until_head(self._graph.model), self._graph.threads
        self._part = whole(self._graph.model, threads) if part is None else Part(part, threads=threads)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the features of images, float32 (n, d), scaled to length 1."""
        step = self._graph.batch
        parts = [self._part(pixels[start : start + step])[0] for start in range(0, len(pixels), step)]
        return unit(np.concatenate([part.reshape(len(part), -1) for part in parts])) if parts else np.zeros((0, 0), np.float32)


def unit(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Returns features (n, d) scaled to length 1, float32. Rows of zeros stay."""
    rows = features.astype(np.float32)
    scaled: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return scaled
