"""Finds classes for which flipping images would give wrong labels.

A class is asymmetric if its images look different when mirrored. Two classes are mirror images if a mirrored image of one looks
like the other.

A pooled linear discriminant (equal priors, shrunk covariance) is fitted on half of the groups of each class. Every class appears
twice: upright and mirrored. Each image of the other half is then assigned to the nearer of two class means. The result for each
pair of classes is how often a mirrored image of one is distinguished from the other, where 0.5 is chance. It is averaged over four
random halvings. We measured two things.

How often a class is distinguished from its own mirror image:

- ants/bees and CIFAR-10: 0.41 to 0.55
- scikit-learn's digits: 0.75 for 8, 0.87 for 0, and 0.90 to 1.00 for the others
- GTSRB: 0.46 to 1.00

The margin that is compared with `MARGIN`, for pairs of GTSRB classes:

- true pairs (19, 20), (33, 34) and (38, 39): 0.18 to 0.19
- true pair (36, 37), which has only 13 and 7 tracks: 0.08
- pair (10, 16), a sign with a lorry and a car and a sign with only a lorry: 0.09. No other wrong pair is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossroads.data.images import resize
from crossroads.data.labels import name_classes
from crossroads.data.perceptual_hash import SIDE, THUMBNAIL, fingerprint

ASYMMETRIC = 0.75
"""A class is asymmetric if its mirrored images are distinguished from its upright images at least this often."""

MARGIN = 0.06
"""How much harder it must be to distinguish mirror-image classes after mirroring than before.

For two classes, one rate is how often mirrored images of one are distinguished from the other. Three other rates must exceed it by
at least this margin: the rate for upright images of the two classes, and for each class the rate against its own mirror image.
"""

SIGMAS = 2.0
"""How far above chance the rate of an asymmetric class must be, in standard errors over the groups of the class."""

MAX_CLASSES = 2_000
_REPEATS = 4
_SHRINKAGE = 0.1
_PER_CLASS, _IMAGES = 400, 40_000

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MirrorClasses:
    """The effect of mirroring on the classes. Classes with fewer than four images or groups are left out.

    Attributes:
        pairs: Classes that are mirror images of each other.
        asymmetric: Classes whose images look different when mirrored.
        symmetric: Classes whose mirrored images cannot be distinguished from upright ones, so flipping does no harm.
    """

    pairs: tuple[tuple[str, str], ...] = ()
    asymmetric: tuple[str, ...] = ()
    symmetric: tuple[str, ...] = ()


def find_mirrors(
    thumbnails: NDArray[np.uint8], labels: NDArray[np.integer], classes: Sequence[str], groups: NDArray[np.integer] | None = None
) -> MirrorClasses:
    """Finds mirror-image classes and asymmetric classes from thumbnails.

    Args:
        thumbnails: uint8 (n, 16, 16), grey.
        labels: int (n,), indices into `classes`.
        classes: Class names.
        groups: int (n,) or None. A group is never divided between fitting and testing.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    k = len(classes)
    units = np.arange(len(labels)) if groups is None else np.asarray(groups)
    chosen = _sample(np.asarray(labels), k)
    thumbnails, labels, units = thumbnails[chosen], np.asarray(labels)[chosen], units[chosen]
    unit_counts = np.array([len(np.unique(units[labels == label])) for label in range(k)])
    known = np.flatnonzero(unit_counts >= 4)
    if len(known) == 0 or len(known) > MAX_CLASSES:
        return MirrorClasses()
    rows = np.flatnonzero(np.isin(labels, known))
    numbers = np.searchsorted(known, labels[rows])
    # With one thread, the result does not depend on the number of processors. More threads gain little on matrices of 256 columns.
    # On a busy machine, two threads took 100 times as long because they waited for each other.
    with threadpool_limits(1, user_api="blas"):
        mirrored, upright = _separability(_normalised(thumbnails[rows]), numbers, units[rows], len(known))
    own = mirrored.diagonal()
    certain = (own - 0.5) * 2 * np.sqrt(unit_counts[known]) >= SIGMAS
    asymmetric = (own >= ASYMMETRIC) & certain
    names = [classes[int(label)] for label in known]
    return MirrorClasses(
        pairs=tuple((names[one], names[other]) for one, other in _pairs(mirrored, upright, asymmetric)),
        asymmetric=tuple(name for name, is_so in zip(names, asymmetric, strict=True) if is_so),
        symmetric=tuple(name for name, is_so in zip(names, asymmetric, strict=True) if not is_so),
    )


def reasons_against_flip(
    pixels: NDArray[np.uint8], labels: NDArray[np.integer], classes: Sequence[str], groups: NDArray[np.integer] | None = None
) -> list[str]:
    """Returns the reasons why images must not be flipped in training. The list is empty if flipping is safe.

    Classes with fewer than four images or groups count as safe, because they give too little evidence.

    Args:
        pixels: uint8 (n, size, size, 3).
        labels: int (n,), indices into `classes`.
        classes: Class names.
        groups: int (n,) or None.
    """
    labels = np.asarray(labels)
    rows = _sample(labels, len(classes))
    thumbnails = np.empty((len(rows), THUMBNAIL, THUMBNAIL), np.uint8)
    for start in range(0, len(rows), 256):
        block = np.stack([resize(pixels[row], SIDE) for row in rows[start : start + 256]])
        thumbnails[start : start + 256] = fingerprint(block).thumbnails
    mirrored = find_mirrors(thumbnails, labels[rows], classes, None if groups is None else np.asarray(groups)[rows])
    reasons = [f"{one!r} and {other!r} are mirror images of each other" for one, other in mirrored.pairs]
    if mirrored.asymmetric:
        names = name_classes(mirrored.asymmetric, range(len(mirrored.asymmetric)))
        reasons.append(f"{len(mirrored.asymmetric)} of {len(classes)} classes look different when mirrored: {names}")
    return reasons


def _sample(labels: NDArray[np.integer], k: int) -> NDArray[np.int64]:
    """Returns a sample of at most 400 rows per class. The sample is always the same, and sampling it again does not change it."""
    limit = min(_PER_CLASS, max(20, _IMAGES // max(k, 1)))
    chosen = []
    for label, members in enumerate(_members(labels, k)):
        if len(members) > limit:
            members = members[np.sort(np.random.default_rng([0, label]).permutation(len(members))[:limit])]
        chosen.append(members)
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def _members(labels: NDArray[np.integer], k: int) -> list[NDArray[np.int64]]:
    """Returns the rows of each class."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.searchsorted(labels[order], np.arange(1, k))) if k else []


def _normalised(thumbnails: NDArray[np.uint8]) -> Floats:
    """Scales thumbnails to mean 0 and a standard deviation of about 1, float32 (n, 16, 16).

    A constant is added to the standard deviation, so that the noise of dark images is not amplified.
    """
    values = thumbnails.astype(np.float32)
    values -= values.mean((1, 2), keepdims=True)
    values /= values.std((1, 2), keepdims=True) + 8
    return values


def _separability(images: Floats, labels: NDArray[np.int64], units: NDArray[np.integer], k: int) -> tuple[Floats, Floats]:
    """Returns how often images of one class are distinguished from another class, float32 (k, k).

    The first array is for mirrored images, the second for upright images.
    """
    upright = images.reshape(len(images), -1)
    flipped = np.ascontiguousarray(images[:, :, ::-1]).reshape(len(images), -1)
    mirrored_rate, upright_rate = np.zeros((k, k), np.float32), np.zeros((k, k), np.float32)
    for repeat in range(_REPEATS):
        half = _half(labels, units, k, np.random.default_rng([1, repeat]))
        for fitted in (half, ~half):
            mirrored, plain = _rates(upright, flipped, labels, fitted, k)
            mirrored_rate += mirrored / (2 * _REPEATS)
            upright_rate += plain / (2 * _REPEATS)
    return mirrored_rate, upright_rate


def _half(labels: NDArray[np.int64], units: NDArray[np.integer], k: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draws half of the groups of each class at random, bool (n,). Each class is in both halves."""
    drawn = np.zeros(len(labels), bool)
    for members in _members(labels, k):
        drawn[members] = np.isin(units[members], rng.permutation(np.unique(units[members]))[::2])
    return drawn


def _rates(upright: Floats, flipped: Floats, labels: NDArray[np.int64], fitted: NDArray[np.bool_], k: int) -> tuple[Floats, Floats]:
    """Fits the discriminant on the rows `fitted`, tests it on the others, and returns the rates as `_separability` does."""
    # Class k + c is the mirror image of class c.
    weights, bias = _discriminant(
        np.concatenate([upright[fitted], flipped[fitted]]), np.concatenate([labels[fitted], k + labels[fitted]])
    )
    tested = np.flatnonzero(~fitted)
    counts = np.maximum(np.bincount(labels[tested], minlength=k), 1)[:, None]
    mirrored_vs_upright, upright_vs_mirrored, upright_vs_upright = np.zeros((3, k, k), np.float32)
    for start in range(0, len(tested), 2048):  # in blocks, so that the scores, (2048, 2k), need little memory
        rows = tested[start : start + 2048]
        own, image = labels[rows], np.arange(len(rows))
        scores = flipped[rows] @ weights + bias
        np.add.at(mirrored_vs_upright, own, _higher(scores[image, k + own], scores[:, :k]))
        scores = upright[rows] @ weights + bias
        np.add.at(upright_vs_mirrored, own, _higher(scores[image, own], scores[:, k:]))
        np.add.at(upright_vs_upright, own, _higher(scores[image, own], scores[:, :k]))
    mirrored = (mirrored_vs_upright / counts + (upright_vs_mirrored / counts).T) / 2
    plain = upright_vs_upright / counts
    return mirrored.astype(np.float32), ((plain + plain.T) / 2).astype(np.float32)


def _discriminant(images: Floats, classes: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Fits a linear discriminant with equal priors and a pooled, shrunk covariance.

    scikit-learn's `LinearDiscriminantAnalysis` gives the same results on digits, ants/bees and GTSRB. It estimates one covariance
    per class, however, so it takes 46 s instead of 6 s with 1,000 classes.

    Returns:
        The weights (256, classes) and the bias (classes,).
    """
    from sklearn.covariance import shrunk_covariance

    counts = np.bincount(classes)[:, None]
    means = np.zeros((len(counts), images.shape[1]), np.float32)
    np.add.at(means, classes, images)
    means /= np.maximum(counts, 1)
    residuals = images - means[classes]
    covariance = shrunk_covariance(residuals.T @ residuals / len(residuals), _SHRINKAGE)
    covariance.flat[:: len(covariance) + 1] += 1e-6  # the covariance of identical images is 0 and could not be inverted
    weights = np.linalg.solve(covariance, means.T).astype(np.float32)
    return weights, -(means.T * weights).sum(0) / 2


def _higher(own: Floats, others: Floats) -> Floats:
    """Returns 1 for each score of `others` that is below `own`, 0.5 for each that equals it, and otherwise 0."""
    rates: Floats = (own[:, None] > others).astype(np.float32) + np.float32(0.5) * (own[:, None] == others)
    return rates


def _pairs(mirrored: Floats, upright: Floats, asymmetric: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Returns the pairs of classes in which each is the best mirror image of the other, by at least `MARGIN`."""
    own = mirrored.diagonal()
    margins = np.minimum(np.minimum(own[:, None], own[None, :]), upright) - mirrored
    margins[~asymmetric] = -1
    margins[:, ~asymmetric] = -1
    np.fill_diagonal(margins, -1)
    best = margins.argmax(1)
    return [
        (one, int(other)) for one, other in enumerate(best) if one < other and best[other] == one and margins[one, other] >= MARGIN
    ]
