"""From labelled images to an `Evaluation`, through the predictor: the one way in which anything is scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossroads import artifact
from crossroads.data.dataset import DIGEST_BYTES, TEST, Dataset
from crossroads.errors import ArtifactError
from crossroads.evaluation import Evaluation, evaluate
from crossroads.predictor import Predictor, Scored
from crossroads.training.watch import Watcher

BIASED = "these scores are optimistically biased"
"""What a warning says of scores on images that the classifier has learned from."""

OF_THE_WEIGHTS = "among those that the weights learned from, or were chosen by"
"""What a warning says of images that an artifact has seen whose weights are used."""


def score(
    predictor: Predictor, dataset: Dataset, strict: bool, watcher: Watcher, *, stage: str = "testing"
) -> tuple[Scored, Evaluation]:
    """Probabilities and scores of a data set whose classes are the predictor's; raises as `Predictor.probabilities_of`."""
    scored = predictor.probabilities_of(dataset, strict=strict, progress=partial(watcher.progress, stage))
    return scored, replace(_evaluation(scored.probabilities, scored.dataset), refused=scored.refusals)


def score_pixels(predictor: Predictor, pixels: NDArray[np.uint8], dataset: Dataset) -> Evaluation:
    """Scores of images that are already in memory, uint8 (n, size, size, 3), the rows of `dataset`."""
    return _evaluation(predictor.probabilities(pixels), dataset)


def _evaluation(probabilities: NDArray[np.float32], dataset: Dataset) -> Evaluation:
    names = _Names(dataset)
    return evaluate(probabilities, dataset.labels, dataset.classes, names=names, groups=dataset.groups)


class _Names(Sequence[str]):
    """The names of a data set's rows, made when asked for: few of them are shown."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, row: int) -> str:  # type: ignore[override]
        return self._dataset.name(row)


def test_rows(dataset: Dataset) -> Dataset:
    """The test rows of a data set that brings a split, else all."""
    if dataset.splits is None or not (dataset.splits == TEST).any() or (dataset.splits == TEST).all():
        return dataset
    test = dataset.select(dataset.splits == TEST)
    left_out = len(dataset) - len(test)
    return replace(
        test, notes=(*test.notes, f"{dataset.origin}: only its test split is scored; {left_out} other rows are left out")
    )


def count_seen(digests: NDArray[np.uint8], seen: NDArray[np.uint8]) -> int:
    """How many of the images with the first digests, uint8 (n, 16), are among those with the others, uint8 (m, 16)."""
    known = {digest.tobytes() for digest in seen}
    return sum(digest.tobytes() in known for digest in digests)


def seen_before(weights: str | None) -> NDArray[np.uint8]:
    """Digests of the images that a file of weights has seen, uint8 (n, 16); none unless it is the model of an artifact."""
    nothing = np.zeros((0, DIGEST_BYTES), np.uint8)
    if weights is None or not Path(weights).is_file():
        return nothing
    try:
        return artifact.read_seen(artifact.open_verified(Path(weights).parent, only=()))
    except ArtifactError:  # the file lies elsewhere, or beside what is no longer an artifact
        return nothing


def absent_classes(dataset: Dataset) -> Iterator[str]:
    """A remark on the classes that the data set has no image of."""
    absent = [dataset.classes[label] for label in np.flatnonzero(dataset.counts() == 0)]
    if absent:
        named = ", ".join(map(repr, absent[:5])) + (", …" if len(absent) > 5 else "")
        yield f"no images of {len(absent)} of {len(dataset.classes)} classes ({named}); balanced accuracy is over the others"
