"""Finds classes that change when their images are mirrored, and classes that become each other: a flip would teach them wrongly.

A pooled linear discriminant (equal priors, shrunk covariance) is fitted on half of the groups of each class. Every class appears
twice: upright and mirrored. The images of the other half are then assigned to the nearer of two means. This gives, for each pair
of classes, how often a mirrored image of one is distinguished from the other; 0.5 is chance. Measured over four halvings:

- each class against its own mirror image: ants/bees and CIFAR-10 0.41 to 0.55; scikit-learn's digits 0 0.87, 8 0.78, the others
  0.89 to 1.00; GTSRB 0.59 to 1.00;
- the margin of `MARGIN` on GTSRB: the true pairs (19, 20), (33, 34) and (38, 39) 0.15 to 0.21, (36, 37), of 13 and 7 tracks, 0.07
  to 0.13; (10, 16), one lorry beside two cars, 0.08 to 0.11, is the only pair that a person would not name; others below 0.04.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crossroads.data.images import resize
from crossroads.data.labels import name_classes
from crossroads.data.perceptual_hash import SIDE, THUMBNAIL, fingerprint

if TYPE_CHECKING:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

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
    """What mirroring does to the classes.

    Attributes:
        pairs: Classes that are mirror images of each other.
        asymmetric: Classes whose mirrored images differ from their own.
        symmetric: Classes whose mirrored images cannot be distinguished from their own, so a flip does no harm.
        unknown: Classes with fewer than four images or groups, which is too few to decide.
    """

    pairs: tuple[tuple[str, str], ...] = ()
    asymmetric: tuple[str, ...] = ()
    symmetric: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FlipVerdict:
    """Whether mirrored images keep their label; true if they do.

    Attributes:
        safe: No two classes are mirror images and no class is asymmetric, as far as the images show.
        reasons: Why not, one sentence each; empty if a flip is safe.
    """

    safe: bool
    reasons: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.safe


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
    unknown = tuple(classes[label] for label in range(k) if unit_counts[label] < 4)
    if len(known) == 0 or len(known) > MAX_CLASSES:
        return MirrorClasses(unknown=tuple(classes))
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
        unknown=unknown,
    )


def flip_is_safe(
    pixels: NDArray[np.uint8], labels: NDArray[np.integer], classes: Sequence[str], groups: NDArray[np.integer] | None = None
) -> FlipVerdict:
    """Decides whether images may be mirrored in training.

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
    return FlipVerdict(not reasons, tuple(reasons))


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
    """Returns the rows of each class."""
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
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    # Class c is upright, class k + c is its mirror image.
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=_SHRINKAGE, priors=np.full(2 * k, 1 / (2 * k)))
    model.fit(np.concatenate([upright[fitted], flipped[fitted]]), np.concatenate([labels[fitted], k + labels[fitted]]))
    tested = np.flatnonzero(~fitted)
    counts = np.maximum(np.bincount(labels[tested], minlength=k), 1)[:, None]
    mirrored_vs_upright, upright_vs_mirrored, upright_vs_upright = np.zeros((3, k, k))
    for start in range(0, len(tested), 2048):  # bounds the memory of the scores, (2048, 2k)
        rows = tested[start : start + 2048]
        own, image = labels[rows], np.arange(len(rows))
        scores = _scores(model, flipped[rows])
        np.add.at(mirrored_vs_upright, own, _higher(scores[image, k + own], scores[:, :k]))
        scores = _scores(model, upright[rows])
        np.add.at(upright_vs_mirrored, own, _higher(scores[image, own], scores[:, k:]))
        np.add.at(upright_vs_upright, own, _higher(scores[image, own], scores[:, :k]))
    mirrored = (mirrored_vs_upright / counts + (upright_vs_mirrored / counts).T) / 2
    plain = upright_vs_upright / counts
    return mirrored.astype(np.float32), ((plain + plain.T) / 2).astype(np.float32)


def _scores(model: LinearDiscriminantAnalysis, images: Floats) -> Floats:
    """Returns the score of each class, (n, 2k). With two classes scikit-learn gives only the difference of their scores."""
    scores: Floats = model.decision_function(images)
    return np.stack([np.zeros_like(scores), scores], axis=1) if scores.ndim == 1 else scores


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
