"""Which classes change when their images are mirrored, and which become another class: where a flip would teach falsehoods.

A pooled linear discriminant (equal priors, shrunk covariance) is fitted on half of the groups of each class, with every class a
second time as its mirror image, and asked on the other half: which of two means is an image nearer to? That gives, for each pair
of classes, how often a mirrored image of the one can be told from the other; 0.5 means never. Measured over four halvings:

- each class against its own mirror: ants/bees and CIFAR-10 0.41 to 0.55; scikit-learn's digits 0 0.87, 8 0.78, the others 0.89
  to 1.00; GTSRB 0.59 to 1.00;
- the margin of `MARGIN` on GTSRB: the true pairs (19, 20), (33, 34) and (38, 39) 0.15 to 0.21, (36, 37), of 13 and 7 tracks, 0.07
  to 0.13; (10, 16), one lorry beside two cars, 0.08 to 0.11, is the one pair that the eye would not name; all others below 0.04.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossroads.data.images import resize
from crossroads.data.perceptual_hash import SIDE, THUMB, sketch

ASYMMETRIC = 0.75
"""A class whose mirrored images are told from its own at least so often is asymmetric."""

MARGIN = 0.06
"""Two classes are mirrors where a mirrored image of the one is told from the other so much less often than the two are told apart,
and than each is told from its own mirror image."""

SIGMAS = 2.0
"""How far an asymmetry must lie above chance, in standard errors over the groups of the class."""

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
        asymmetric: Classes whose mirror image is not one of their own.
        symmetric: Classes whose mirror images cannot be told from their own: a flip does them no harm.
        unknown: Classes with too few images or groups (below four) to tell.
    """

    pairs: tuple[tuple[str, str], ...] = ()
    asymmetric: tuple[str, ...] = ()
    symmetric: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FlipVerdict:
    """Whether mirrored images keep their label; true where they do.

    Attributes:
        safe: No two classes are mirrors and no class is asymmetric, as far as the images show.
        reasons: Why not, each a sentence; empty where it is safe.
    """

    safe: bool
    reasons: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.safe


def mirrors(
    thumbs: NDArray[np.uint8], labels: NDArray[np.integer], classes: Sequence[str], groups: NDArray[np.integer] | None = None
) -> MirrorClasses:
    """What mirroring does to the classes, from thumbnails.

    Args:
        thumbs: uint8 (n, 16, 16), grey.
        labels: int (n,), indices into `classes`.
        classes: Class names.
        groups: int (n,) or None; images of one group never test what they taught.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    k = len(classes)
    unit = np.arange(len(labels)) if groups is None else np.asarray(groups)
    chosen = _sample(np.asarray(labels), k)
    thumbs, labels, unit = thumbs[chosen], np.asarray(labels)[chosen], unit[chosen]
    units = np.array([len(np.unique(unit[labels == label])) for label in range(k)])
    known = np.flatnonzero(units >= 4)
    unknown = tuple(classes[label] for label in range(k) if units[label] < 4)
    if len(known) == 0 or len(known) > MAX_CLASSES:
        return MirrorClasses(unknown=tuple(classes))
    rows = np.flatnonzero(np.isin(labels, known))
    numbers = np.searchsorted(known, labels[rows])
    # One thread: the answer is then the same on every machine, and matrices of 256 columns gain little from more (on a busy machine
    # two threads waiting for each other took 100 times as long).
    with threadpool_limits(1, user_api="blas"):
        mirrored, upright = _told_apart(_normalised(thumbs[rows]), numbers, unit[rows], len(known))
    own = mirrored.diagonal()
    certain = (own - 0.5) * 2 * np.sqrt(units[known]) >= SIGMAS
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
    """Whether images may be mirrored in training.

    Evidence speaks against a flip, never for one: classes with fewer than four images or groups count as safe.

    Args:
        pixels: uint8 (n, size, size, 3).
        labels: int (n,), indices into `classes`.
        classes: Class names.
        groups: int (n,) or None.
    """
    found = _of_pixels(pixels, labels, classes, groups)
    reasons = [f"{one!r} and {other!r} are mirror images of each other" for one, other in found.pairs]
    if found.asymmetric:
        shown = ", ".join(map(repr, found.asymmetric[:5])) + (", …" if len(found.asymmetric) > 5 else "")
        reasons.append(f"{len(found.asymmetric)} of {len(classes)} classes look different when mirrored: {shown}")
    return FlipVerdict(not reasons, tuple(reasons))


def _of_pixels(
    pixels: NDArray[np.uint8], labels: NDArray[np.integer], classes: Sequence[str], groups: NDArray[np.integer] | None
) -> MirrorClasses:
    labels = np.asarray(labels)
    rows = _sample(labels, len(classes))
    thumbs = np.empty((len(rows), THUMB, THUMB), np.uint8)
    for start in range(0, len(rows), 256):
        block = np.stack([resize(pixels[row], SIDE) for row in rows[start : start + 256]])
        thumbs[start : start + 256] = sketch(block).thumbs
    return mirrors(thumbs, labels[rows], classes, None if groups is None else np.asarray(groups)[rows])


def _sample(labels: NDArray[np.integer], k: int) -> NDArray[np.int64]:
    """Rows, at most some hundred of each class; the same ones each time. A sample of a sample is itself."""
    most = min(_PER_CLASS, max(20, _IMAGES // max(k, 1)))
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(k + 1))
    chosen = []
    for label in range(k):
        members = order[starts[label] : starts[label + 1]]
        if len(members) > most:
            members = members[np.sort(np.random.default_rng([0, label]).permutation(len(members))[:most])]
        chosen.append(members)
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def _normalised(thumbs: NDArray[np.uint8]) -> Floats:
    """float32 (n, 16, 16) of mean 0 and spread 1, without blowing up the noise of a dark image."""
    values = thumbs.astype(np.float32)
    values -= values.mean((1, 2), keepdims=True)
    values /= values.std((1, 2), keepdims=True) + 8
    return values


def _told_apart(images: Floats, labels: NDArray[np.int64], unit: NDArray[np.integer], k: int) -> tuple[Floats, Floats]:
    """How often a mirrored image of one class, or an upright one, is told from another: float32 (k, k) each; 0.5 is chance."""
    upright = images.reshape(len(images), -1)
    turned = np.ascontiguousarray(images[:, :, ::-1]).reshape(len(images), -1)
    mirrored_rate, upright_rate = np.zeros((k, k), np.float32), np.zeros((k, k), np.float32)
    for repeat in range(_REPEATS):
        first = _half(labels, unit, k, np.random.default_rng([1, repeat]))
        for taught in (first, ~first):
            one, other = _rates(upright, turned, labels, taught, k)
            mirrored_rate += one / (2 * _REPEATS)
            upright_rate += other / (2 * _REPEATS)
    return mirrored_rate, upright_rate


def _half(labels: NDArray[np.int64], unit: NDArray[np.integer], k: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Half of the groups of each class."""
    taken = np.zeros(len(labels), bool)
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(k + 1))
    for label in range(k):
        members = order[starts[label] : starts[label + 1]]
        taken[members] = np.isin(unit[members], rng.permutation(np.unique(unit[members]))[::2])
    return taken


def _rates(upright: Floats, turned: Floats, labels: NDArray[np.int64], taught: NDArray[np.bool_], k: int) -> tuple[Floats, Floats]:
    """One halving of `_told_apart`: means and covariance from the rows `taught`, answers from the others."""
    own = labels[taught]
    counts = np.bincount(own, minlength=k).astype(np.float32)[:, None]
    means, turned_means = np.zeros((k, upright.shape[1]), np.float32), np.zeros((k, upright.shape[1]), np.float32)
    np.add.at(means, own, upright[taught])
    np.add.at(turned_means, own, turned[taught])
    means /= np.maximum(counts, 1)
    turned_means /= np.maximum(counts, 1)
    spread = np.concatenate([upright[taught] - means[own], turned[taught] - turned_means[own]])
    covariance = spread.T @ spread / len(spread)
    level = max(float(np.trace(covariance)) / len(covariance), 1e-6)
    covariance = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * level * np.eye(len(covariance), dtype=np.float32)
    whiten = np.linalg.inv(np.linalg.cholesky(covariance)).T.astype(np.float32)
    means, turned_means = means @ whiten, turned_means @ whiten
    asked = np.flatnonzero(~taught)
    number = np.maximum(np.bincount(labels[asked], minlength=k), 1).astype(np.float32)[:, None]
    wins = np.zeros((3, k, k), np.float32)
    for start in range(0, len(asked), 2048):  # bounds memory: one distance to each class an image
        rows = asked[start : start + 2048]
        at = np.arange(len(rows)), labels[rows]
        for flipped, source in ((True, turned[rows] @ whiten), (False, upright[rows] @ whiten)):
            to_upright, to_turned = _distances(source, means), _distances(source, turned_means)
            if flipped:
                np.add.at(wins[0], labels[rows], _nearer(to_turned[at], to_upright))
            else:
                np.add.at(wins[1], labels[rows], _nearer(to_upright[at], to_turned))
                np.add.at(wins[2], labels[rows], _nearer(to_upright[at], to_upright))
    wins /= number
    return (wins[0] + wins[1].T) / 2, (wins[2] + wins[2].T) / 2


def _nearer(own: Floats, others: Floats) -> Floats:
    """1 where an image is nearer to its own mean than to each other one, one half where it is as near."""
    rates: Floats = (own[:, None] < others).astype(np.float32) + np.float32(0.5) * (own[:, None] == others)
    return rates


def _distances(images: Floats, means: Floats) -> Floats:
    """float32 (n, k), squared distances up to a term that depends on the image alone."""
    return np.asarray((means * means).sum(1) - 2 * images @ means.T, np.float32)


def _pairs(mirrored: Floats, upright: Floats, asymmetric: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Pairs that are each other's best mirror by the margin of `MARGIN`."""
    own = mirrored.diagonal()
    margins = np.minimum(np.minimum(own[:, None], own[None, :]), upright) - mirrored
    margins[~asymmetric] = -1
    margins[:, ~asymmetric] = -1
    np.fill_diagonal(margins, -1)
    best = margins.argmax(1)
    return [
        (one, int(other)) for one, other in enumerate(best) if one < other and best[other] == one and margins[one, other] >= MARGIN
    ]
