"""Checks labelled images before training. Reports each problem with a hint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossroads.data.dataset import SPLITS, Dataset
from crossroads.data.findings import (
    SEVERITIES,
    Finding,
    class_findings,
    duplicate_findings,
    mirror_findings,
    reading_findings,
    split_findings,
)
from crossroads.data.loading import Refusal
from crossroads.data.mirrors import MirrorClasses, find_mirrors
from crossroads.data.survey import survey
from crossroads.display import Shown
from crossroads.plain import to_plain


@dataclass(frozen=True, slots=True)
class Audit(Shown):
    """A summary of a data set and its problems.

    Attributes:
        origin: Where the images come from.
        n: Number of rows.
        readable: Number of rows whose image is readable.
        counts: Number of images of each class, readable or not, by name and in the order of the classes.
        groups: Number of groups, or None if the data has none.
        splits: Number of rows in each split of the data, by name. Empty if the data has no split.
        sides: Smallest, median and largest of the images' shorter sides, in pixels. None if no image is readable.
        grey: Number of readable images without colour.
        mirror_classes: Pairs of classes that are mirror images of each other.
        asymmetric_classes: Classes that look different when mirrored.
        symmetric_classes: Classes that look the same when mirrored.
        findings: The problems: errors first, then warnings, then information.
        notes: The reader's notes, for example on files that it ignored.
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

    def __repr__(self) -> str:
        """Returns the number of images and classes, and the codes of the findings."""
        found = ", ".join(dict.fromkeys(finding.code for finding in self.findings)) or "no problems"
        return f"Audit({self.origin!r}: {self.n:,} images of {len(self.counts)} classes; {found})"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in their order."""
        return tuple(self.counts)

    def to_json(self) -> dict[str, Any]:
        """Returns plain dicts, lists, strings and numbers. The key of the notes is `warnings`, as in all JSON output."""
        values = to_plain(self)
        values["warnings"] = values.pop("notes")
        return values


def audit(
    dataset: Dataset,
    *,
    min_images: int = 10,
    examples: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Decodes each image once and runs all checks. The same data always gives the same report.

    The audit needs about 330 bytes of memory per image, however large the image is.

    Args:
        dataset: The labelled images.
        min_images: A class with fewer images is reported.
        examples: Largest number of examples per finding.
        progress: Called with the number of rows done and the number of all rows.
    """
    surveyed = survey(dataset, progress)
    mirrored = MirrorClasses()
    findings = [*class_findings(dataset, min_images, examples), *split_findings(dataset, examples)]
    if len(dataset):
        findings += reading_findings(dataset, surveyed, examples)
    if len(surveyed.rows):
        visible = ~surveyed.blank()
        rows = surveyed.rows[visible]
        groups = None if dataset.groups is None else dataset.groups[rows]
        findings += duplicate_findings(dataset, surveyed, visible, examples)
        mirrored = find_mirrors(surveyed.fingerprints.thumbnails[visible], dataset.labels[rows], dataset.classes, groups)
        findings += mirror_findings(mirrored, examples)
    sides = surveyed.sides
    return Audit(
        origin=dataset.origin,
        n=len(dataset),
        readable=len(surveyed.rows),
        counts=dict(zip(dataset.classes, dataset.counts().tolist(), strict=True)),
        groups=None if dataset.groups is None else len(np.unique(dataset.groups)),
        splits=_split_counts(dataset),
        sides=(int(sides.min()), int(np.median(sides)), int(sides.max())) if len(sides) else None,
        grey=int(np.count_nonzero(surveyed.fingerprints.grey)),
        mirror_classes=mirrored.pairs,
        asymmetric_classes=mirrored.asymmetric,
        symmetric_classes=mirrored.symmetric,
        findings=tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        notes=dataset.notes,
        refused=tuple(surveyed.refusals),
    )


def _split_counts(dataset: Dataset) -> dict[str, int]:
    if dataset.splits is None or not dataset.splits.any():
        return {}
    codes, counts = np.unique(dataset.splits, return_counts=True)
    return {SPLITS[code] or "none": count for code, count in zip(codes.tolist(), counts.tolist(), strict=True)}
