"""What is wrong or remarkable about labelled images before anything is trained on them, each finding with its hint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crossroads.data._pool import map_chunks
from crossroads.data.dataset import DIGEST_BYTES, SPLITS, TEST, TRAIN, VALIDATION, Dataset, MemorySource, digest_of
from crossroads.data.images import ValueRange, decode_with_range, dimensions, resize
from crossroads.data.loading import CHUNK, Refusal, read
from crossroads.data.mirrors import FlipVerdict, MirrorClasses, flip_is_safe, mirrors
from crossroads.data.perceptual_hash import SIDE, Fingerprints, near_pairs, sketch
from crossroads.data.pictures import misscaled, range_fault, value_range
from crossroads.errors import ImageRefused
from crossroads.files.text import plural

__all__ = ["Audit", "Finding", "FlipVerdict", "MirrorClasses", "audit", "flip_is_safe"]

Severity = Literal["error", "warning", "info"]
_ORDER = ("error", "warning", "info")

BLANK_SPREAD = 1.0
"""An image is blank where the values of each channel spread less than this (standard deviation of 255, at 32 px): one colour."""

BLACK_MEAN, BLACK_SPREAD = 16.0, 3.0
"""An image is nearly black where mean and spread of all its values are at most these: 46 images of GTSRB's training set."""

NEEDED = 3
"""Images, or groups, that a class needs to stand in train, validation and test."""

IMBALANCE = 10.0
"""The largest class may hold this many times the images of the smallest before the balance is a warning."""

BALANCE_HINT = "judge by balanced accuracy; class_weights = 'balanced' weighs the small classes up"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found.

    Attributes:
        code: Name of the check.
        severity: ``error``: training on it would mislead; ``warning``: look at it; ``info``: good to know.
        summary: What was found, a sentence.
        count: How many images, pairs, groups or classes.
        examples: A few of them by name.
        hint: What to do.
    """

    code: str
    severity: Severity
    summary: str
    count: int
    examples: tuple[str, ...]
    hint: str


@dataclass(frozen=True, slots=True)
class Audit:
    """What a data set holds and what is wrong with it.

    Attributes:
        origin: Where the images come from.
        n: Number of rows.
        readable: Rows that are images.
        counts: Images (readable or not) of each class, by name, in the order of the classes.
        groups: Number of groups, or None where the data names none.
        splits: Rows of each split that the data brings, by name; empty where it brings none.
        sides: Smallest, median and largest shorter side in pixels; None where nothing is readable.
        grey: Readable images without colour.
        mirror_classes: Pairs of classes that are mirror images of each other.
        asymmetric_classes: Classes that look different when mirrored.
        symmetric_classes: Classes that look the same when mirrored.
        findings: Errors first, then warnings, then remarks.
        notes: What the reader of the data left out or found odd.
        refused: The images that could not be read, with the reasons.
    """

    origin: str
    n: int
    readable: int
    counts: dict[str, int]
    groups: int | None
    splits: dict[str, int]
    sides: tuple[int, int, int] | None
    grey: int
    mirror_classes: tuple[tuple[str, str], ...]
    asymmetric_classes: tuple[str, ...]
    symmetric_classes: tuple[str, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    refused: tuple[Refusal, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in their order."""
        return tuple(self.counts)

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers; the notes as `warnings`, as everywhere else."""
        plain: dict[str, Any] = _plain(asdict(self))
        plain["refused"] = [refusal.to_json() for refusal in self.refused]
        plain["warnings"] = plain.pop("notes")
        return plain


@dataclass(frozen=True, slots=True, eq=False)
class _Survey:
    """What one pass over the images leaves: the rows that are images, with their digests and sketches, and the refusals.

    `extents` is float64 (n, 3): low, high and full of each image's `ValueRange`.
    """

    rows: NDArray[np.int64]
    sides: NDArray[np.int64]
    extents: NDArray[np.float64]
    digests: NDArray[np.uint8]
    sketches: Fingerprints
    refusals: list[Refusal]


def audit(
    dataset: Dataset,
    *,
    min_images: int = 10,
    examples: int = 5,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> Audit:
    """Reads and decodes each image once and reports what it finds; the same data gives the same report.

    Memory: about 330 bytes an image, whatever its size.

    Args:
        dataset: The labelled images.
        min_images: A class with fewer is reported.
        examples: Most examples a finding names.
        progress: Called with the rows done and their number.
        workers: Threads; None for one a CPU.
    """
    survey = _surveyed(dataset, progress, workers)
    turned = MirrorClasses()
    findings = [*_of_classes(dataset, min_images, examples), *_of_splits(dataset, examples)]
    if len(dataset):
        findings += _of_reading(dataset, survey, examples)
    if len(survey.rows):
        good = ~_blank(survey.sketches)
        findings += _of_copies(dataset, survey, good, examples)
        at = np.flatnonzero(good)
        rows = survey.rows[at]
        groups = None if dataset.groups is None else dataset.groups[rows]
        turned = mirrors(survey.sketches.thumbs[at], dataset.labels[rows], dataset.classes, groups)
        findings += _of_mirrors(turned, examples)
    present = () if dataset.splits is None or not dataset.splits.any() else tuple(np.unique(dataset.splits).tolist())
    sides = survey.sides
    return Audit(
        origin=dataset.origin,
        n=len(dataset),
        readable=len(survey.rows),
        counts=dict(zip(dataset.classes, dataset.counts().tolist(), strict=True)),
        groups=None if dataset.groups is None else len(np.unique(dataset.groups)),
        splits={SPLITS[side] or "none": int(np.count_nonzero(dataset.splits == side)) for side in present},
        sides=(int(sides.min()), int(np.median(sides)), int(sides.max())) if len(sides) else None,
        grey=int(np.count_nonzero(survey.sketches.grey)),
        mirror_classes=turned.pairs,
        asymmetric_classes=turned.asymmetric,
        symmetric_classes=turned.symmetric,
        findings=tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.severity))),
        notes=dataset.notes,
        refused=tuple(survey.refusals),
    )


def _surveyed(dataset: Dataset, progress: Callable[[int, int], None] | None, workers: int | None) -> _Survey:
    def work(rows: range) -> _Survey:
        kept: list[int] = []
        sides, extents, digests, refusals = [], [], [], []
        squares = np.empty((len(rows), SIDE, SIDE, 3), np.uint8)
        for row in rows:
            try:
                raw = read(dataset, row)
                side = min(dimensions(raw))
                pixels, extent = decode_with_range(raw, draft=SIDE)
                squares[len(kept)] = resize(pixels, SIDE)
            except ImageRefused as error:
                refusals.append(Refusal(row, dataset.name(row), str(error)))
                continue
            kept.append(row)
            sides.append(side)
            extents.append(_given_extent(dataset, row) or extent)
            digests.append(digest_of(raw))
        packed = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)
        ranges = np.array(extents, np.float64).reshape(-1, 3)
        return _Survey(np.array(kept, np.int64), np.array(sides, np.int64), ranges, packed, sketch(squares[: len(kept)]), refusals)

    n = len(dataset)
    parts = [work(range(0))]
    for part in map_chunks(work, n, chunk=CHUNK, workers=workers):
        parts.append(part)
        if progress is not None:
            progress(min((len(parts) - 1) * CHUNK, n), n)
    return _Survey(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.sides for part in parts]),
        np.concatenate([part.extents for part in parts]),
        np.concatenate([part.digests for part in parts]),
        Fingerprints.joined([part.sketches for part in parts]),
        [refusal for part in parts for refusal in part.refusals],
    )


def _given_extent(dataset: Dataset, row: int) -> ValueRange | None:
    """The range of values of an image in memory before it became 8-bit; None for a file."""
    images = dataset.images
    return value_range(images.picture(int(dataset.indices[row]))) if isinstance(images, MemorySource) else None


def _blank(sketches: Fingerprints) -> NDArray[np.bool_]:
    dark = (sketches.means <= BLACK_MEAN) & (sketches.spreads <= BLACK_SPREAD)
    blank: NDArray[np.bool_] = (sketches.spreads_within < BLANK_SPREAD) | dark
    return blank


def _of_reading(dataset: Dataset, survey: _Survey, examples: int) -> list[Finding]:
    findings = []
    if survey.refusals:
        lost = np.setdiff1d(dataset.labels, dataset.labels[survey.rows])
        named = ", ".join(repr(dataset.classes[label]) for label in lost[:examples]) + (", …" if len(lost) > examples else "")
        findings.append(
            Finding(
                "unreadable",
                "error" if len(lost) else "warning",
                f"{plural(len(survey.refusals), 'source')} of {len(dataset)} cannot be read as an image"
                + (f", among them all of {plural(len(lost), 'class', 'classes')}: {named}" if len(lost) else ""),
                len(survey.refusals),
                tuple(f"{refusal.name}: {refusal.reason}" for refusal in survey.refusals[:examples]),
                "fix or remove them; training leaves them out and lists them, with --strict the first is an error",
            )
        )
    dark = np.array(misscaled([ValueRange(*row) for row in survey.extents.tolist()]), bool)
    if dark.any():
        ranges = survey.extents[dark]
        what, hint = range_fault(ValueRange(*ranges[np.argmax(ranges[:, 1] / ranges[:, 2])].tolist()))
        findings.append(
            Finding(
                "value-range",
                "warning",
                f"{plural(len(ranges), 'image')} of {len(dark)} {what}",
                len(ranges),
                tuple(_labelled(dataset, row) for row in survey.rows[dark][:examples]),
                hint,
            )
        )
    blank = survey.rows[_blank(survey.sketches) & ~dark]
    if len(blank):
        findings.append(
            Finding(
                "blank",
                "warning",
                f"{plural(len(blank), 'image')} of one colour or nearly black",
                len(blank),
                tuple(_labelled(dataset, row) for row in blank[:examples]),
                "look at them; where nothing can be seen, remove them",
            )
        )
    return findings


def _of_classes(dataset: Dataset, min_images: int, examples: int) -> list[Finding]:
    counts = dataset.counts()
    k, n = len(counts), len(dataset)
    findings = []
    if n == 0:
        return [Finding("empty", "error", "there is no image", 0, (), "check the path and the layout of the data")]
    if np.count_nonzero(counts) < 2:
        only = dataset.classes[int(np.argmax(counts))]
        findings.append(
            Finding("one-class", "error", f"all images are of one class, {only!r}", 1, (only,), "add images of another class")
        )
    if dataset.splits is None or not dataset.splits.any():
        units = counts if dataset.groups is None else _groups_of(dataset)
        scarce = np.flatnonzero((units < NEEDED) & (counts > 0))
        unit = "image" if dataset.groups is None else "group"
        if len(scarce):
            findings.append(
                Finding(
                    "scarce-classes",
                    "warning",
                    f"{plural(len(scarce), 'class', 'classes')} of {k} with fewer than {NEEDED} {unit}s for train, validation and "
                    "test: trained on, but not on every side",
                    len(scarce),
                    tuple(f"{dataset.classes[label]} ({plural(int(units[label]), unit)})" for label in scarce[:examples]),
                    f"add images{' of other groups' if unit == 'group' else ''}, join classes, or move them out of the data",
                )
            )
    small = np.flatnonzero(counts < min_images)
    if len(small):
        findings.append(
            Finding(
                "small-classes",
                "warning",
                f"{len(small)} of {k} classes have fewer than {min_images} images",
                len(small),
                tuple(f"{dataset.classes[label]} ({counts[label]})" for label in small[:examples]),
                "add images, join classes, or move them out of the data",
            )
        )
    ratio = float(counts.max() / max(counts[counts > 0].min(), 1))
    if ratio > IMBALANCE:
        shares = counts[counts > 0] / n
        effective = float(np.exp(-(shares * np.log(shares)).sum()))
        largest, smallest = int(np.argmax(counts)), int(np.argmin(np.where(counts > 0, counts, n + 1)))
        findings.append(
            Finding(
                "balance",
                "warning",
                f"the largest class has {ratio:.3g} times the images of the smallest; "
                f"{k} classes count as {effective:.3g} equal ones",
                k,
                (f"{dataset.classes[largest]} ({counts[largest]})", f"{dataset.classes[smallest]} ({counts[smallest]})"),
                BALANCE_HINT,
            )
        )
    return findings


def _groups_of(dataset: Dataset) -> NDArray[np.int64]:
    """int64 (k,), the groups of each class."""
    pairs = np.unique(np.stack([dataset.labels.astype(np.int64), np.asarray(dataset.groups)]), axis=1)
    return np.bincount(pairs[0], minlength=len(dataset.classes)).astype(np.int64)


def _of_splits(dataset: Dataset, examples: int) -> list[Finding]:
    """Groups on two sides, and classes missing from a side, of a split that the data brings."""
    if dataset.splits is None or not dataset.splits.any():
        return []
    sides, cut = dataset.effective_splits(), dataset.groups_across_splits()
    findings = []
    if len(cut):
        findings.append(
            Finding(
                "group-on-two-sides",
                "error",
                f"{plural(len(cut), 'group')} on two sides of the split that the data brings",
                len(cut),
                tuple(f"the group of {dataset.name(int(row))}" for row in cut[:examples]),
                "move each group to one side; until then the scores say too much",
            )
        )
    k = len(dataset.classes)
    for side in (TRAIN, VALIDATION, TEST):
        counts = np.bincount(dataset.labels[sides == side], minlength=k)
        absent = np.flatnonzero((counts == 0) & (dataset.counts() > 0))
        if len(absent) and (counts.any() or side == TRAIN):
            findings.append(
                Finding(
                    "class-missing-from-split",
                    "error" if side == TRAIN else "warning",
                    f"{SPLITS[side]} has no image of {len(absent)} of {k} classes",
                    len(absent),
                    tuple(dataset.classes[label] for label in absent[:examples]),
                    "nothing can learn these classes: move images of them to train"
                    if side == TRAIN
                    else f"move images of them to {SPLITS[side]}: nothing is measured of these classes",
                )
            )
    return findings


def _of_copies(dataset: Dataset, survey: _Survey, good: NDArray[np.bool_], examples: int) -> list[Finding]:
    """Images that occur twice: to the byte, or nearly; under one label or two; on one side of a split or two."""
    _, firsts, numbers = np.unique(np.ascontiguousarray(survey.digests).view("V16").ravel(), return_index=True, return_inverse=True)
    again = np.flatnonzero(firsts[numbers] != np.arange(len(numbers)))
    exact = np.stack([firsts[numbers[again]], again], axis=1)
    # One of each set of exact copies is searched for near ones: many equal hashes would only crowd the others out.
    alone = np.unique(firsts[numbers[good]])
    near, complete = near_pairs(survey.sketches.select(alone))
    findings = _of_pairs(dataset, "exact", survey.rows[exact], examples)
    return findings + _of_pairs(dataset, "near", survey.rows[alone[near]], examples, "" if complete else "at least ")


def _of_pairs(dataset: Dataset, kind: str, pairs: NDArray[np.int64], examples: int, bound: str = "") -> list[Finding]:
    one, other = pairs[:, 0], pairs[:, 1]
    differ = dataset.labels[one] != dataset.labels[other]
    sides = dataset.effective_splits()
    cross = sides[one] != sides[other]
    family = np.zeros(len(pairs), bool) if dataset.groups is None else dataset.groups[one] == dataset.groups[other]
    word = "the same image" if kind == "exact" else "nearly the same image"
    plain = ~differ & ~cross
    cases: list[tuple[str, Severity, NDArray[np.bool_], str, str]] = [
        (
            f"{kind}-duplicates-with-different-labels",
            "error",
            differ,
            f"{word} under two labels",
            "decide which label is right and remove the other row",
        ),
        (
            f"{kind}-duplicates-on-two-sides",
            "error",
            cross,
            f"{word} on two sides of the split that the data brings",
            "keep each on one side; until then the scores say too much",
        ),
        (
            f"{kind}-duplicates",
            "warning",
            plain & ~family if kind == "near" else plain,
            f"{word} under one label",
            "keep one of each, or give both the same group so that no split parts them",
        ),
    ]
    if kind == "near":
        expected = "nothing to do: whole groups are kept in one split"
        cases.append(("near-duplicates-in-a-group", "info", plain & family, f"{word} within one group", expected))
    findings = []
    for check, severity, which, what, hint in cases:
        found = pairs[which]
        if len(found):
            shown = tuple(f"{_labelled(dataset, a)} = {_labelled(dataset, b)}" for a, b in found[:examples])
            findings.append(Finding(check, severity, f"{bound}{plural(len(found), 'pair')} of {what}", len(found), shown, hint))
    return findings


def _of_mirrors(turned: MirrorClasses, examples: int) -> list[Finding]:
    findings = []
    if turned.pairs:
        findings.append(
            Finding(
                "mirror-classes",
                "warning",
                f"{plural(len(turned.pairs), 'pair')} of classes that look like mirror images of each other",
                len(turned.pairs),
                tuple(f"{one} | {other}" for one, other in turned.pairs),
                "do not flip images in training: it would teach the one class under the other's name",
            )
        )
    if turned.asymmetric:
        findings.append(
            Finding(
                "asymmetric-classes",
                "info",
                f"{plural(len(turned.asymmetric), 'class', 'classes')} whose images look different when mirrored",
                len(turned.asymmetric),
                turned.asymmetric[:examples],
                "do not flip images in training",
            )
        )
    return findings


def _labelled(dataset: Dataset, row: int | np.integer[Any]) -> str:
    return f"{dataset.name(int(row))} ({dataset.classes[int(dataset.labels[row])]})"


def _plain(value: object) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
