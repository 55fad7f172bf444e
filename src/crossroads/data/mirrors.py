"""Finds classes that change when their images are mirrored, and classes that become each other: a flip would teach them wrongly.

A pooled linear discriminant (equal priors, shrunk covariance) is fitted on half of the groups of each class. Every class appears
twice: upright and mirrored. The images of the other half are then assigned to the nearer of two means. This gives, for each pair
of classes, how often a mirrored image of one is distinguished from the other; 0.5 is chance. Measured over four halvings:

- each class against its own mirror image: ants/bees and CIFAR-10 0.41 to 0.55; scikit-learn's digits 8 0.75, 0 0.87, the others
  0.90 to 1.00; GTSRB 0.46 to 1.00;
- the margin of `MARGIN` on GTSRB: the true pairs (19, 20), (33, 34) and (38, 39) 0.18 to 0.19, (36, 37), of 13 and 7 tracks,
  0.08; (10, 16), one lorry beside two cars, 0.09, is the only reported pair that a person would not name.
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
"""A class is asymmetric if its mirrored images are distinguished from its own at least this often."""

MARGIN = 0.06
"""Two classes are mirror images if a mirrored image of one is distinguished from the other less often, by this margin, than the two
are distinguished upright, and than each is distinguished from its own mirror image."""

SIGMAS = 2.0
"""How far above chance an asymmetry must be, in standard errors over the groups of the class."""

MAX_CLASSES = 2_000
_REPEATS = 4
_SHRINKAGE = 0.1
_PER_CLASS, _IMAGES = 400, 40_000

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MirrorClasses:
    """What mirroring does to the classes. Those with fewer than four images or groups are too few to decide.

    Attributes:
        pairs: Classes that are mirror images of each other.
        asymmetric: Classes whose mirrored images differ from their own.
        symmetric: Classes whose mirrored images cannot be distinguished from their own, so a flip does no harm.
    """

    pairs: tuple[tuple[str, str], ...] = ()
    asymmetric: tuple[str, ...] = ()
    symmetric: tuple[str, ...] = ()


def find_mirrors(
    thumbnails: NDArray[np.uint8], labels: NDArray[np.integer], classes: Sequence[str], groups: NDArray[np.integer] | None = None
) -> MirrorClasses:
    """Determines from thumbnails what mirroring does to the classes.

    Args:
        thumbnails: uint8 (n, 16, 16), grey.
        labels: int (n,), indices into `classes`.
        classes: Class names.
        groups: int (n,) or None; images of one group are never both fitted and tested.
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
    # One thread gives the same answer on every machine, and matrices of 256 columns gain little from more. On a busy machine two
    # threads that waited for each other took 100 times as long.
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
    """Returns why images must not be mirrored in training, one sentence each; nothing if they may.

    A flip is refused only on evidence: classes with fewer than four images or groups count as safe.

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
    """Returns rows, at most a few hundred per class; the same ones in each call. A sample of a sample is itself."""
    limit = min(_PER_CLASS, max(20, _IMAGES // max(k, 1)))
    chosen = []
    for label, members in enumerate(_members(labels, k)):
        if len(members) > limit:
            members = members[np.sort(np.random.default_rng([0, label]).permutation(len(members))[:limit])]
        chosen.append(members)
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def _members(labels: NDArray[np.integer], k: int) -> list[NDArray[np.int64]]:
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.searchsorted(labels[order], np.arange(1, k))) if k else []


def _normalised(thumbnails: NDArray[np.uint8]) -> Floats:
    """Scales thumbnails to mean 0 and standard deviation 1, float32 (n, 16, 16), without amplifying the noise of dark images."""
    values = thumbnails.astype(np.float32)
    values -= values.mean((1, 2), keepdims=True)
    values /= values.std((1, 2), keepdims=True) + 8
    return values


def _separability(images: Floats, labels: NDArray[np.int64], units: NDArray[np.integer], k: int) -> tuple[Floats, Floats]:
    """Returns how often mirrored images, and upright ones, of one class are distinguished from another: float32 (k, k) each."""
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
    """Draws half of the groups of each class, so that each class is in both halves."""
    drawn = np.zeros(len(labels), bool)
    for members in _members(labels, k):
        drawn[members] = np.isin(units[members], rng.permutation(np.unique(units[members]))[::2])
    return drawn


def _rates(upright: Floats, flipped: Floats, labels: NDArray[np.int64], fitted: NDArray[np.bool_], k: int) -> tuple[Floats, Floats]:
    """Returns the rates of one halving: the discriminant is fitted on the rows `fitted` and tested on the others."""
    # Class c is upright, class k + c is its mirror image.
    weights, bias = _discriminant(
        np.concatenate([upright[fitted], flipped[fitted]]), np.concatenate([labels[fitted], k + labels[fitted]])
    )
    tested = np.flatnonzero(~fitted)
    counts = np.maximum(np.bincount(labels[tested], minlength=k), 1)[:, None]
    mirrored_vs_upright, upright_vs_mirrored, upright_vs_upright = np.zeros((3, k, k), np.float32)
    for start in range(0, len(tested), 2048):  # bounds the memory of the scores, (2048, 2k)
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
    """Fits a linear discriminant with equal priors and a pooled, shrunk covariance: weights (256, classes) and bias (classes,).

    `LinearDiscriminantAnalysis` of scikit-learn gives the same verdicts on digits, ants/bees and GTSRB, but estimates a covariance
    per class: with 1,000 classes it takes 46 s instead of 6.
    """
    from sklearn.covariance import shrunk_covariance

    counts = np.bincount(classes)[:, None]
    means = np.zeros((len(counts), images.shape[1]), np.float32)
    np.add.at(means, classes, images)
    means /= np.maximum(counts, 1)
    residuals = images - means[classes]
    covariance = shrunk_covariance(residuals.T @ residuals / len(residuals), _SHRINKAGE)
    covariance.flat[:: len(covariance) + 1] += 1e-6  # images that are all equal have no covariance
    weights = np.linalg.solve(covariance, means.T).astype(np.float32)
    return weights, -(means.T * weights).sum(0) / 2


def _higher(own: Floats, others: Floats) -> Floats:
    """Returns 1 for each score that `own` exceeds and one half for each equal score."""
    rates: Floats = (own[:, None] > others).astype(np.float32) + np.float32(0.5) * (own[:, None] == others)
    return rates


def _pairs(mirrored: Floats, upright: Floats, asymmetric: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Returns the pairs that are each other's best mirror image by at least `MARGIN`."""
    own = mirrored.diagonal()
    margins = np.minimum(np.minimum(own[:, None], own[None, :]), upright) - mirrored
    margins[~asymmetric] = -1
    margins[:, ~asymmetric] = -1
    np.fill_diagonal(margins, -1)
    best = margins.argmax(1)
    return [
        (one, int(other)) for one, other in enumerate(best) if one < other and best[other] == one and margins[one, other] >= MARGIN
    ]
