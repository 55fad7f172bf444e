"""Describes an artifact in a screenful."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from typing import Any

from crossroads import artifact
from crossroads.artifact import DOCUMENTS, MANIFEST
from crossroads.files.text import first_few, printable
from crossroads.plain import to_plain


@dataclass(frozen=True, slots=True)
class Info:
    """The main facts of an artifact.

    Attributes:
        artifact: The folder.
        classes: Names of the classes.
        strategy: Its strategy.
        backbone: Its backbone.
        input: What the network takes.
        headline: The accuracy to read first: ``accuracy``, ``interval``, ``images`` and ``source``.
        data: Where the images come from.
        images: Number of images by split.
        weights: The weights that the run started from; None for random ones.
        seconds: Time of the run.
        crossroads: The version that wrote it.
        versions: Versions of the packages that computed it.
        files: Bytes of each file.
        warnings: The warnings of the run.
    """

    artifact: str
    classes: tuple[str, ...]
    strategy: str
    backbone: str
    input: str
    headline: dict[str, Any]
    data: str
    images: dict[str, int]
    weights: str | None
    seconds: float
    crossroads: str
    versions: dict[str, str]
    files: dict[str, int]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON."""
        return to_plain(self)

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yields the facts as (name, value), in the order in which they are printed."""
        figure = self.headline
        low, high = figure["interval"]
        where = {"test": "test images", "cross-validation": "cross-validated images"}.get(figure["source"], "validation images")
        yield "artifact", self.artifact
        yield "accuracy", f"{figure['accuracy']:.4f} ({low:.4f} to {high:.4f}, 95 %) on {figure['images']:,} {where}"
        yield "strategy", self.strategy
        yield "backbone", f"{self.backbone}, from {self.weights or 'random weights'}"
        yield "classes", f"{len(self.classes)}: {first_few([printable(name) for name in self.classes], 8)}"
        yield "input", self.input
        yield "data", f"{self.data} ({', '.join(f'{n:,} {split}' for split, n in self.images.items())})"
        yield "seconds", f"{self.seconds:.1f}"
        yield (
            "versions",
            ", ".join(f"{name} {version}" for name, version in {"crossroads": self.crossroads, **self.versions}.items()),
        )
        yield "files", ", ".join(f"{name} {_size(size)}" for name, size in self.files.items())
        if self.warnings:
            yield "warnings", f"{len(self.warnings)}, the first: {printable(self.warnings[0])}"


def info_of(folder: str | PathLike[str]) -> Info:
    """Reads the facts of an artifact. Raises `ArtifactError` if the folder is not one, or if its metrics were changed."""
    manifest, metrics = artifact.open_verified(folder, only=()), artifact.read_metrics(folder)
    facts = manifest.facts
    source = "validation" if metrics["test"] is None else "test"
    scores = metrics[source]
    usual = {"accuracy": scores["accuracy"], "interval": scores["accuracy_interval"], "images": scores["n"], "source": source}
    there = (name for name in (MANIFEST, *DOCUMENTS) if (manifest.folder / name).is_file())
    return Info(
        printable(str(manifest.folder)),
        manifest.classes,
        manifest.strategy,
        manifest.backbone,
        str(facts["preprocessing"]["input"]),
        dict(metrics.get("headline", usual)),
        printable(str(facts["data"]["origin"])),
        {name: int(split["n"]) for name, split in facts["data"]["splits"].items()},
        None if facts.get("pretrained") is None else str(facts["pretrained"].get("from")),
        float(metrics["seconds"]),
        str(facts["crossroads"]),
        dict(facts["versions"]),
        {name: int(record["bytes"]) for name, record in manifest.files.items()}
        | {name: (manifest.folder / name).stat().st_size for name in there},
        tuple(metrics.get("warnings", ())),
    )


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{max(1, round(size / 1e3))} kB"
