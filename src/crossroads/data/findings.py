"""Defines the checks of an audit. Each check yields findings with a code, a severity, examples and a hint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import SPLITS, TEST, TRAIN, VALIDATION, Dataset
from crossroads.data.images import ValueRange
from crossroads.data.imbalance import BALANCE_HINT, imbalance
from crossroads.data.labels import name_classes
from crossroads.data.mirrors import MirrorClasses
from crossroads.data.perceptual_hash import near_duplicates
from crossroads.data.pictures import misscaled, range_fault
from crossroads.data.survey import Survey
from crossroads.files.text import plural

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")

NEEDED = 3
"""Number of images (or groups) that a class needs to be in train, validation and test."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check.

    Attributes:
        code: Name of the check.
        severity: ``error`` if results on the data would be misleading, ``warning`` if the user should look into it, ``info``
            otherwise.
        summary: What the check found.
        count: Number of images, pairs, groups or classes.
        examples: The names of a few of them.
        hint: What to do.
    """

    code: str
    severity: Severity
    summary: str
    count: int
    examples: tuple[str, ...]
    hint: str


def reading_findings(dataset: Dataset, survey: Survey, examples: int) -> Iterator[Finding]:
    """Yields findings on images that are unreadable, use only the dark end of their value range, or are blank."""
    refusals = survey.refusals
    if refusals:
        lost = np.setdiff1d(dataset.labels, dataset.labels[survey.rows])
        summary = f"{len(refusals):,} of {plural(len(dataset), 'image')} cannot be read"
        if len(lost):
            summary += f", among them all of {plural(len(lost), 'class', 'classes')}: {name_classes(dataset.classes, lost)}"
        yield Finding(
            "unreadable",
            "error" if len(lost) else "warning",
            summary,
            len(refusals),
            tuple(f"{refusal.name}: {refusal.reason}" for refusal in refusals[:examples]),
            "fix or remove them; training skips and lists them, or stops at the first one if `strict` is on",
        )
    dark = np.array(misscaled([ValueRange(*values) for values in survey.ranges.tolist()]), bool)
    if dark.any():
        ranges = survey.ranges[dark]
        fault, hint = range_fault(ValueRange(*ranges[np.argmax(ranges[:, 1] / ranges[:, 2])].tolist()))
        summary = f"{plural(len(ranges), 'image')} of {len(dark)} {fault}"
        yield Finding("value-range", "warning", summary, len(ranges), _rows(dataset, survey.rows[dark], examples), hint)
    blank = survey.rows[survey.blank() & ~dark]
    if len(blank):
        summary = f"{plural(len(blank), 'image')} of one colour or nearly black"
        hint = "check them, and remove those that show nothing"
        yield Finding("blank", "warning", summary, len(blank), _rows(dataset, blank, examples), hint)


def class_findings(dataset: Dataset, min_images: int, examples: int) -> Iterator[Finding]:
    """Yields findings on the number of classes and their sizes."""
    counts = dataset.counts()
    k = len(counts)
    if len(dataset) == 0:
        yield Finding("no-images", "error", "there are no images", 0, (), "check the path and the layout of the data")
        return
    if np.count_nonzero(counts) < 2:
        only = dataset.classes[int(np.argmax(counts))]
        yield Finding("single-class", "error", f"all images are of one class, {only!r}", 1, (only,), "add images of another class")
    if dataset.splits is None or not dataset.splits.any():
        yield from _classes_too_small_to_split(dataset, examples)
    small = np.flatnonzero(counts < min_images)
    if len(small):
        summary = f"{plural(len(small), 'class', 'classes')} of {k} with fewer than {min_images} images"
        shown = tuple(f"{dataset.classes[label]} ({counts[label]})" for label in small[:examples])
        hint = "add images, merge classes, or remove them from the data"
        yield Finding("small-classes", "warning", summary, len(small), shown, hint)
    if (unbalanced := imbalance(dataset)) is not None:
        fractions = counts[counts > 0] / len(dataset)
        # The exponential of the entropy is the number of classes if all classes have the same size.
        effective = float(np.exp(-(fractions * np.log(fractions)).sum()))
        yield Finding(
            "classes-unbalanced",
            "warning",
            f"the largest class has {unbalanced.most / unbalanced.fewest:.3g} times as many images as the smallest; "
            f"the {k} classes are equivalent to {effective:.3g} classes of equal size",
            k,
            (f"{unbalanced.largest} ({unbalanced.most})", f"{unbalanced.smallest} ({unbalanced.fewest})"),
            BALANCE_HINT,
        )


def _classes_too_small_to_split(dataset: Dataset, examples: int) -> Iterator[Finding]:
    counts, unit = dataset.counts(), "image"
    available = counts
    if dataset.groups is not None:
        pairs = np.unique(np.stack([dataset.labels.astype(np.int64), dataset.groups]), axis=1)
        available, unit = np.bincount(pairs[0], minlength=len(counts)), "group"
    scarce = np.flatnonzero((available < NEEDED) & (counts > 0))
    if len(scarce):
        yield Finding(
            "scarce-classes",
            "warning",
            f"{plural(len(scarce), 'class', 'classes')} of {len(counts)} with fewer than {NEEDED} {unit}s for train, validation "
            "and test: used for training, but not in every split",
            len(scarce),
            tuple(f"{dataset.classes[label]} ({plural(int(available[label]), unit)})" for label in scarce[:examples]),
            f"add images{' of other groups' if unit == 'group' else ''}, merge classes, or remove them from the data",
        )


def split_findings(dataset: Dataset, examples: int) -> Iterator[Finding]:
    """Yields findings on groups that are in several splits of the data and on classes that are missing from one."""
    if dataset.splits is None or not dataset.splits.any():
        return
    assigned, divided = dataset.effective_splits(), dataset.groups_across_splits()
    if len(divided):
        summary = f"the split in the data divides {plural(len(divided), 'group')}"
        shown = tuple(f"the group of {dataset.name(int(row))}" for row in divided[:examples])
        hint = "move each group to one split; until then the scores are optimistically biased"
        yield Finding("groups-across-splits", "error", summary, len(divided), shown, hint)
    k, present = len(dataset.classes), dataset.counts() > 0
    for code in (TRAIN, VALIDATION, TEST):
        counts = np.bincount(dataset.labels[assigned == code], minlength=k)
        absent = np.flatnonzero((counts == 0) & present)
        if len(absent) and (counts.any() or code == TRAIN):
            yield Finding(
                "classes-missing-from-split",
                "error" if code == TRAIN else "warning",
                f"{SPLITS[code]} has no image of {len(absent)} of {k} classes",
                len(absent),
                tuple(dataset.classes[label] for label in absent[:examples]),
                f"move images of them to {SPLITS[code]}: without them these classes cannot be "
                f"{'learned' if code == TRAIN else 'measured'}",
            )


def duplicate_findings(dataset: Dataset, survey: Survey, visible: NDArray[np.bool_], examples: int) -> Iterator[Finding]:
    """Yields findings on exact and near duplicates: with different labels, across splits, or within one class.

    Args:
        dataset: The labelled images.
        survey: The survey of these images.
        visible: bool (n,), which readable images are not blank. Only these are searched for near duplicates.
        examples: Largest number of examples per finding.
    """
    digests = np.ascontiguousarray(survey.digests).view("V16").ravel()
    _, firsts, ids = np.unique(digests, return_index=True, return_inverse=True)
    copies = np.flatnonzero(firsts[ids] != np.arange(len(ids)))
    exact = np.stack([firsts[ids[copies]], copies], axis=1)
    # Of several exact copies, only one is searched for near duplicates. Many equal hashes would otherwise hide the near duplicates.
    distinct = np.unique(firsts[ids[visible]])
    near, complete = near_duplicates(survey.fingerprints.select(distinct))
    yield from _pair_findings(dataset, "exact", survey.rows[exact], examples)
    yield from _pair_findings(dataset, "near", survey.rows[distinct[near]], examples, "" if complete else "at least ")


def _pair_findings(
    dataset: Dataset, kind: Literal["exact", "near"], pairs: NDArray[np.int64], examples: int, prefix: str = ""
) -> Iterator[Finding]:
    first, second = pairs[:, 0], pairs[:, 1]
    assigned = dataset.effective_splits()
    other_label = dataset.labels[first] != dataset.labels[second]
    other_split = assigned[first] != assigned[second]
    same_group = np.zeros(len(pairs), bool)
    if dataset.groups is not None and kind == "near":  # near duplicates are normal among the frames of one object
        same_group = dataset.groups[first] == dataset.groups[second]
    plain = ~other_label & ~other_split
    what = "the same image" if kind == "exact" else "nearly the same image"
    biased = "keep each in one split; until then the scores are optimistically biased"
    grouped = "keep one image of each pair, or give both the same group so that they stay in one split"
    cases: tuple[tuple[str, Severity, NDArray[np.bool_], str, str], ...] = (
        (
            "-with-different-labels",
            "error",
            other_label,
            "under two labels",
            "decide which label is right, and remove the other image",
        ),
        ("-across-splits", "error", other_split, "in two splits of the data", biased),
        ("", "warning", plain & ~same_group, "under one label", grouped),
        ("-in-a-group", "info", plain & same_group, "within one group", "nothing to do: whole groups stay in one split"),
    )
    for suffix, severity, chosen, phrase, hint in cases:
        matches = pairs[chosen]
        if len(matches):
            summary = f"{prefix}{plural(len(matches), 'pair')} of {what} {phrase}"
            shown = tuple(f"{_row(dataset, one)} = {_row(dataset, other)}" for one, other in matches[:examples].tolist())
            yield Finding(f"{kind}-duplicates{suffix}", severity, summary, len(matches), shown, hint)


def mirror_findings(mirrored: MirrorClasses, examples: int) -> Iterator[Finding]:
    """Yields findings on classes that change when their images are mirrored."""
    if mirrored.pairs:
        summary = f"{plural(len(mirrored.pairs), 'pair')} of classes that look like mirror images of each other"
        pairs = tuple(f"{one} | {other}" for one, other in mirrored.pairs)
        hint = "do not flip images in training: a flipped image of one class looks like the other class"
        yield Finding("mirror-classes", "warning", summary, len(pairs), pairs, hint)
    if mirrored.asymmetric:
        names, hint = mirrored.asymmetric, "do not flip images in training"
        summary = f"{plural(len(names), 'class', 'classes')} whose images look different when mirrored"
        yield Finding("asymmetric-classes", "info", summary, len(names), names[:examples], hint)


def _rows(dataset: Dataset, rows: NDArray[np.int64], examples: int) -> tuple[str, ...]:
    return tuple(_row(dataset, row) for row in rows[:examples].tolist())


def _row(dataset: Dataset, row: int) -> str:
    return f"{dataset.name(row)} ({dataset.classes[int(dataset.labels[row])]})"
