"""Computes heat maps: which parts of an image speak for a class. Only the inference graph of the artifact is used.

- ``cam``: class activation maps (Zhou et al., 2016, https://arxiv.org/abs/1512.04150), where the scores are a linear function of
  the last feature map. The map is exact: its cells sum to the score, up to a constant.
- ``reciprocam``: the score of the feature map with only one position kept, for each position, where the scores are not linear (Byun
  and Lee, 2022, https://arxiv.org/abs/2209.14074; for transformers https://arxiv.org/abs/2310.02588). The other positions are set
  to their mean rather than to zero. A transformer has never seen tokens of zeros: of nine with random weights, the map with zeros
  found a planted patch in 0 to 15 % of images, and the one with means in 13 to 100 %.
- ``occlusion``: how far the score falls when a part of the image is blurred, for a network without a feature map.
"""

from __future__ import annotations

from os import PathLike
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from crossroads.errors import DataError
from crossroads.explain.split import Split, split_of, whole
from crossroads.inference import Part
from crossroads.predictor import Predictor

Method = Literal["cam", "reciprocam", "occlusion"]

CELLS = 16
"""Most cells of a map on one side. Finer feature maps are masked in blocks, since the rest of the graph runs once per cell."""

CHUNK_BYTES = 1 << 25
"""Bytes of masked feature maps that are computed at a time."""

WINDOWS, WINDOW = 8, 0.25
"""Windows of `occlusion` on one side, and their side as a fraction of the image's. Neighbours overlap by half or more."""


class Explainer:
    """Computes heat maps with the classifier of an artifact. Threads may share one.

    Args:
        classifier: The folder of a finished artifact, or a predictor.
        method: ``reciprocam`` or ``occlusion`` to use it in place of an exact method; None for the best one.

    Attributes:
        predictor: The predictor.
        method: How the maps are computed: ``cam``, ``reciprocam`` or ``occlusion``.

    Raises:
        ArtifactError: The folder is not an artifact, or was changed after it was written.
        DataError: The network has no feature map that the method needs.
    """

    def __init__(self, classifier: str | PathLike[str] | Predictor, *, method: Method | None = None) -> None:
        self.predictor = classifier if isinstance(classifier, Predictor) else Predictor.load(classifier)
        graph, size = self.predictor.graph, self.predictor.size
        split = None if method == "occlusion" else split_of(graph.model, size, graph.threads)
        exact = split is not None and split.linear
        if method is not None and ((method == "cam" and not exact) or (method == "reciprocam" and split is None)):
            raise DataError(
                "the method needs a feature map, and cam a linear function of it",
                code="method-not-possible",
                field="method",
                received=repr(method),
                hint="leave it out",
            )
        self._parts: Split | Part = split or whole(graph.model, graph.threads)
        self.method: Method = method or ("occlusion" if split is None else "cam" if exact else "reciprocam")

    def maps(self, pixels: NDArray[np.uint8], classes: NDArray[np.integer] | None = None) -> NDArray[np.float32]:
        """Computes a heat map for each image.

        Args:
            pixels: uint8 (n, size, size, 3), RGB.
            classes: The class to explain, by number, for each image (n,); None for the most probable one.

        Returns:
            float32 (n, size, size), from 0 for the parts that speak least for the class to 1. All 0 if all parts are equal.

        Raises:
            DataError: The shape or dtype of the pixels differs, or there is no such class.
        """
        size = self.predictor.size
        found = [_scaled(_resized(each, size)) for each in self.evidence(pixels, classes)]
        return np.stack(found) if found else np.zeros((0, size, size), np.float32)

    def evidence(self, pixels: NDArray[np.uint8], classes: NDArray[np.integer] | None = None) -> list[NDArray[np.float32]]:
        """Computes the evidence for a class in each cell of each image, float32 (rows, columns), without any scaling.

        Scores are differences from the mean score of all classes, because only differences determine the probabilities. With
        ``cam``, the cells sum to the score of the image, less that of an empty feature map. The arguments and errors are those of
        `maps`.
        """
        self.predictor.require_pixels(pixels)
        wanted = _checked(classes, len(pixels), len(self.predictor.classes))
        batch = self.predictor.graph.batch
        found: list[NDArray[np.float32]] = []
        for start in range(0, len(pixels), batch):
            part = slice(start, start + batch)
            found += self._evidence(pixels[part], None if wanted is None else wanted[part])
        return found

    def _evidence(self, pixels: NDArray[np.uint8], classes: NDArray[np.int64] | None) -> list[NDArray[np.float32]]:
        parts = self._parts
        if isinstance(parts, Split):
            features, scores = parts.body(pixels)
            chosen = scores.argmax(axis=1) if classes is None else classes
            return [_of_cells(parts, *each, exact=self.method == "cam") for each in zip(features, chosen, strict=True)]
        (scores,) = parts(pixels)
        chosen = scores.argmax(axis=1) if classes is None else classes
        return [_of_windows(parts, *each) for each in zip(pixels, _centred(scores), chosen, strict=True)]


def _of_cells(split: Split, features: NDArray[np.float32], number: int, *, exact: bool) -> NDArray[np.float32]:
    """Returns what each cell of a feature map contributes to a score on its own, float32 (rows, columns)."""
    masks, (rows, columns) = cells(split.sides)
    others = np.zeros_like(features) if exact else split.mean(features)
    step = max(1, CHUNK_BYTES // features.nbytes)
    empty = _centred(split.rest(split.masked(features, np.zeros_like(masks[:1]), others))[0])[0, number]
    scores = [split.rest(split.masked(features, masks[start : start + step], others))[0] for start in range(0, len(masks), step)]
    evidence: NDArray[np.float32] = (_centred(np.concatenate(scores))[:, number] - empty).reshape(rows, columns)
    return evidence


def cells(sides: tuple[int, int]) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """Returns a mask for each cell of a map, float32 (p, *sides), and the numbers of rows and columns. The masks sum to 1."""
    counts = min(sides[0], CELLS), min(sides[1], CELLS)
    row, column = (np.arange(side) * count // side for side, count in zip(sides, counts, strict=True))
    of_cell = row[:, None] * counts[1] + column
    masks = of_cell[None] == np.arange(counts[0] * counts[1])[:, None, None]
    return masks.astype(np.float32), counts


def _of_windows(graph: Part, image: NDArray[np.uint8], scores: NDArray[np.float32], number: int) -> NDArray[np.float32]:
    """Returns by how much a score falls where windows are blurred: the mean of the windows over each pixel."""
    size = len(image)
    side = max(1, round(WINDOW * size))
    starts = np.unique(np.linspace(0, size - side, min(WINDOWS, size - side + 1)).round().astype(int))
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(side / 2)))
    total, count = np.zeros((size, size), np.float64), np.zeros((size, size))
    for top in starts:
        occluded = np.repeat(image[None], len(starts), axis=0)
        for each, left in zip(occluded, starts, strict=True):
            each[top : top + side, left : left + side] = blurred[top : top + side, left : left + side]
        for left, fall in zip(starts, scores[number] - _centred(graph(occluded)[0])[:, number], strict=True):
            total[top : top + side, left : left + side] += fall
            count[top : top + side, left : left + side] += 1
    return (total / count).astype(np.float32)


def _centred(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns scores (n, k) as differences from their mean over the classes."""
    centred: NDArray[np.float32] = scores - scores.mean(axis=1, keepdims=True)
    return centred


def _resized(values: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(values).resize((size, size), Image.Resampling.BILINEAR), np.float32)


def _scaled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales values to 0..1."""
    low, high = float(values.min()), float(values.max())
    if not high - low > 1e-6 * max(abs(low), abs(high), 1e-30):
        return np.zeros_like(values)
    return ((values - low) / (high - low)).astype(np.float32)


def _checked(classes: NDArray[np.integer] | None, n: int, k: int) -> NDArray[np.int64] | None:
    """Returns the classes of n images. Raises `DataError` unless each is one of k."""
    if classes is None:
        return None
    wanted = np.asarray(classes)
    if wanted.shape != (n,) or wanted.dtype.kind not in "iu" or (n and not (wanted.min() >= 0 and wanted.max() < k)):
        raise DataError(
            f"classes must be {n} integers from 0 to {k - 1}",
            code="unknown-class",
            field="classes",
            received=f"{wanted.dtype} {wanted.shape}" if wanted.size > 8 else wanted.tolist(),
        )
    return wanted.astype(np.int64)
