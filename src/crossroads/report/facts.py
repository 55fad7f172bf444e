"""Derives from the scores what a report says: the verdict, what to do next, the worst classes, confused pairs and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossroads.artifact import Predictions
from crossroads.data.findings import Finding
from crossroads.evaluation import Interval, effective_count, wilson_interval
from crossroads.files.text import printable

WIDE = 0.15
"""Width of the interval of an accuracy from which more test images are the best next step."""

CONFUSED = 0.25
"""Fraction of all mistakes that one pair of classes must have to be worth a look of its own."""

WORTH_COLLECTING = 0.01
"""Accuracy that twice the images must add to be worth collecting them."""

BINS = 10

MOST_CLASSES, FEWER_CLASSES = 250, 100
"""The most classes that the confusion matrix shows, and the number that it shows if there are more. With 1,000 classes it would
have a million cells, which browsers do not handle."""


class ClassRow(NamedTuple):
    """One class.

    Attributes:
        label: Its index.
        name: Its name.
        images: Number of its images.
        recall: Fraction of them that are classified correctly; None without images.
        interval: The 95 % interval of the recall; None without images.
        precision: Fraction of the predictions of this class that are correct; None without predictions.
        mistaken_for: The class that its images are most often taken for; "" if all are correct.
        mistakes: How many of its images are taken for that class.
    """

    label: int
    name: str
    images: int
    recall: float | None
    interval: Interval | None
    precision: float | None
    mistaken_for: str
    mistakes: int


class Pair(NamedTuple):
    """Two classes of which the first is taken for the second.

    Attributes:
        true: Index of the true class.
        predicted: Index of the predicted class.
        images: Number of images.
        fraction: Fraction of the images of the true class.
    """

    true: int
    predicted: int
    images: int
    fraction: float


class Bin(NamedTuple):
    """The images whose confidence is within one range.

    Attributes:
        low: Lower end of the range.
        high: Upper end.
        images: Number of images.
        confidence: Their mean confidence.
        accuracy: Fraction of them that are classified correctly.
        interval: The 95 % interval of the accuracy.
    """

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class NextStep:
    """What to do next.

    Attributes:
        code: Name of the step, which stays the same when the wording changes.
        text: One sentence that starts with a verb.
    """

    code: str
    text: str


def percent(value: float, digits: int = 0) -> str:
    """Returns a fraction as ``85 %``."""
    return f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def independent_images(predictions: Predictions, chosen: NDArray[np.bool_]) -> float:
    """Returns the number of the chosen images, bool (n,); of images in groups the effective number of groups."""
    return float(chosen.sum()) if predictions.groups is None else effective_count(predictions.groups[chosen])


def class_rows(matrix: NDArray[np.int64], classes: Sequence[str], predictions: Predictions | None = None) -> list[ClassRow]:
    """Returns the classes, the worst first: those with the lowest recall, and of equal ones that with more images.

    Args:
        matrix: The confusion matrix, int64 (k, k).
        classes: The names of the classes.
        predictions: The predictions, whose groups make the intervals wider; None if the images are independent.
    """
    support, given, hits = matrix.sum(axis=1), matrix.sum(axis=0), matrix.diagonal()
    wrong = matrix - np.diag(hits)
    rows = []
    for label, name in enumerate(classes):
        images, worst = int(support[label]), int(wrong[label].argmax())
        mistakes = int(wrong[label, worst])
        n = independent_images(predictions, predictions.labels == label) if predictions is not None and images else images
        rows.append(
            ClassRow(
                label,
                name,
                images,
                hits[label] / images if images else None,
                wilson_interval(hits[label] / images * n, n) if images else None,
                float(hits[label] / given[label]) if given[label] else None,
                classes[worst] if mistakes else "",
                mistakes,
            )
        )
    return sorted(rows, key=lambda row: (2.0 if row.recall is None else row.recall, -row.images, row.label))


def confused_pairs(matrix: NDArray[np.int64], most: int = 10) -> list[Pair]:
    """Returns the pairs of classes with most mistakes, most first."""
    wrong = matrix - np.diag(matrix.diagonal())
    support = matrix.sum(axis=1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = ((int(index) // len(matrix), int(index) % len(matrix)) for index in order)
    return [
        Pair(true, predicted, int(wrong[true, predicted]), float(wrong[true, predicted] / support[true]))
        for true, predicted in pairs
        if wrong[true, predicted]
    ]


def shown_classes(matrix: NDArray[np.int64]) -> list[int]:
    """Returns the classes that the confusion matrix shows: all, or of very many those with most mistakes, in class order."""
    if len(matrix) <= MOST_CLASSES:
        return list(range(len(matrix)))
    paired = {label for pair in confused_pairs(matrix) for label in (pair.true, pair.predicted)}
    mistakes = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    order = [*paired, *(label for label in np.argsort(-mistakes, kind="stable").tolist() if label not in paired)]
    return sorted(order[:FEWER_CLASSES])


def reliability(predictions: Predictions) -> list[Bin]:
    """Returns the images by their confidence, in ranges of equal width. Ranges without images are left out."""
    confidence, correct = predictions.confidence.astype(np.float64), predictions.correct
    numbers = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins = []
    for index in np.unique(numbers).tolist():
        inside = numbers == index
        images, hits = int(inside.sum()), int(correct[inside].sum())
        n = independent_images(predictions, inside)
        interval = wilson_interval(hits / images * n, n)
        bins.append(Bin(index / BINS, (index + 1) / BINS, images, float(confidence[inside].mean()), hits / images, interval))
    return bins


def confident_mistakes(predictions: Predictions, most: int) -> list[int]:
    """Returns the rows of the mistakes with the highest confidence, highest first."""
    wrong = np.flatnonzero(~predictions.correct)
    rows: list[int] = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")[:most]].tolist()
    return rows


def unsure_hits(predictions: Predictions, most: int) -> list[int]:
    """Returns the rows of the correct predictions with the lowest confidence, lowest first."""
    right = np.flatnonzero(predictions.correct)
    rows: list[int] = right[np.argsort(predictions.confidence[right], kind="stable")[:most]].tolist()
    return rows


def cell_rows(predictions: Predictions, each: int, most: int) -> dict[tuple[int, int], list[int]]:
    """Returns rows for the cells of the confusion matrix: the most confident ones, at most `each` per cell and `most` in all.

    Cells with mistakes come first, and of these the ones with more images.
    """
    cells = np.stack([predictions.labels, predictions.predicted], axis=1)
    found, ids, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    ids = ids.reshape(-1)
    right = found[:, 0] == found[:, 1]
    chosen: dict[tuple[int, int], list[int]] = {}
    for cell in np.lexsort((-counts, right)).tolist():
        if most <= 0:
            break
        rows = np.flatnonzero(ids == cell)
        best = rows[np.argsort(-predictions.confidence[rows], kind="stable")[: min(each, most)]].tolist()
        most -= len(best)
        chosen[int(found[cell, 0]), int(found[cell, 1])] = best
    return chosen


def example_rows(finding: Finding, predictions: Predictions) -> list[int]:
    """Returns the rows of the images that a finding of an audit names as examples: ``NAME (CLASS)``, or two with `` = ``."""
    rows = {str(name): row for row, name in enumerate(predictions.names)}
    named = (text.rpartition(" (")[0] for example in finding.examples for text in example.split(" = "))
    return [rows[name] for name in map(printable, named) if name in rows]


def verdict(scores: Mapping[str, Any], images: str, strategy: str, backbone: str) -> str:
    """Returns the result in one sentence.

    Args:
        scores: The scores.
        images: What the images are called, such as ``test images``.
        strategy: The strategy.
        backbone: The backbone.
    """
    low, high = scores["accuracy_interval"]
    noun = images if scores["n"] != 1 else images.removesuffix("s")
    return (
        f"{strategy.capitalize()} on {backbone} classifies {percent(scores['accuracy'], 1)} of {scores['n']:,} {noun} correctly "
        f"({percent(0.95)} interval: {percent(low, 1)} to {percent(high, 1)})."
    )


def next_step(scores: Mapping[str, Any], classes: Sequence[str], gain: float | None, *, named: bool) -> NextStep:
    """Returns what to do next.

    Args:
        scores: The scores.
        classes: The names of the classes.
        gain: Accuracy that twice the images are expected to add; None if it was not measured.
        named: Whether the user named the strategy, so that no other was compared.
    """
    low, high = scores["accuracy_interval"]
    if scores.get("seen_in_training"):
        text = f"Remove the {scores['seen_in_training']:,} images that the classifier was trained on, and score it again"
        return NextStep("remove-seen-images", text)
    if high - low > WIDE:
        text = "Score it on more images, because the interval is wide: `crossroads report RUN DATA`"
        return NextStep("test-on-more-images", text)
    if scores["accuracy"] < 0.995:
        matrix = np.asarray(scores["confusion_matrix"], np.int64)
        pairs, wrong = confused_pairs(matrix, 1), int(matrix.sum() - matrix.trace())
        if pairs and len(classes) > 2 and pairs[0].images >= max(3, CONFUSED * wrong):
            true, predicted = classes[pairs[0].true], classes[pairs[0].predicted]
            text = f"Look at the images of {true} that are taken for {predicted}, which are {pairs[0].images} of {wrong} mistakes"
            return NextStep("look-at-a-pair", text)
        if gain is not None and gain >= WORTH_COLLECTING:
            return NextStep("collect-images", f"Collect more images: twice as many would add about {100 * gain:.1f} points")
        if named:
            text = "Let Crossroads compare the strategies: `crossroads fit DATA --out NEW` without a strategy"
            return NextStep("compare-strategies", text)
        return NextStep("look-at-mistakes", "Look at the most confident mistakes: their labels may be wrong")
    return NextStep("use-it", "Use it: `crossroads predict RUN IMAGES`")
