"""Takes what a tracker logs from the recipe, from an epoch and from a finished run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from crossroads import artifact
from crossroads.progress import EpochRecord
from crossroads.recipe import Recipe
from crossroads.run.finish import Run
from crossroads.track.tracker import Result, Value

DOCUMENTS = ("*.html", "*.md")
"""Files in the artifact that are stored with the run, if the tracker stores files: the report and the model card."""

SCORES = ("accuracy", "balanced_accuracy", "loss")
"""The scores of each evaluation that are logged. Those with an interval are logged with its bounds."""


def set_parameters(recipe: Recipe) -> dict[str, Value]:
    """Returns the fields of a recipe that the user set. The others are chosen during the run."""
    return {name: value for name, value in parameters(recipe.to_mapping()).items() if (name, value) != ("strategy", "auto")}


def parameters(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Value]:
    """Returns the fields of a recipe that have a value. Those of a table get its name as a prefix."""
    flat: dict[str, Value] = {}
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            flat |= parameters(value, f"{prefix}{name}.")
        elif value is not None:
            flat[f"{prefix}{name}"] = value if isinstance(value, bool | int | float) else str(value)
    return flat


def epoch_figures(record: EpochRecord) -> dict[str, float]:
    """Returns the figures of an epoch. The name of its phase is their prefix, because the phases have curves of their own."""
    figures = {
        "loss": record.loss,
        "validation_loss": record.validation_loss,
        "validation_accuracy": record.validation_accuracy,
        "learning_rate": record.learning_rate,
        "seconds": record.seconds,
    }
    return {f"{record.phase}/{name}": float(value) for name, value in figures.items()}


def result_of(run: Run) -> Result:
    """Returns what a finished run logs."""
    facts, metrics = artifact.open_verified(run.artifact, only=()).facts, run.metrics
    return Result(
        parameters(facts["recipe"]),
        dict(_figures(metrics)),
        _tags(run, facts),
        tuple(sorted(path for pattern in DOCUMENTS for path in run.artifact.glob(pattern))),
    )


def _figures(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for split in ("validation", "test"):
        scores = metrics[split]
        if scores is not None:
            yield from _scores(split, scores)
    yield from _accuracy("headline", metrics["headline"])
    for name in ("best_epoch", "seconds", "peak_memory_mb"):
        if metrics[name] is not None:
            yield name, float(metrics[name])


def _scores(split: str, scores: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    yield f"{split}_images", float(scores["n"])
    for name in SCORES:
        yield f"{split}_{name}", float(scores[name])
        interval = scores.get(f"{name}_interval")
        if interval is not None:
            yield from _bounds(f"{split}_{name}", interval)


def _accuracy(name: str, headline: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    yield f"{name}_accuracy", float(headline["accuracy"])
    yield from _bounds(f"{name}_accuracy", headline["interval"])


def _bounds(name: str, interval: tuple[float, float]) -> Iterator[tuple[str, float]]:
    low, high = interval
    yield f"{name}_low", float(low)
    yield f"{name}_high", float(high)


def _tags(run: Run, facts: Mapping[str, Any]) -> dict[str, str]:
    """Returns the tags of a run. `facts` is the manifest of its artifact."""
    metrics = run.metrics
    test = metrics["test"] or {}
    tags = {
        "artifact": str(run.artifact.resolve()),
        "strategy": metrics["strategy"],
        "backbone": metrics["backbone"],
        "headline_source": metrics["headline"]["source"],
        "data_digest": facts["data"]["digest"],
        "test_digest": test.get("digest"),
        "version.crossroads": facts["crossroads"],
        **{f"version.{name}": version for name, version in facts["versions"].items()},
    }
    return {name: str(value) for name, value in tags.items() if value is not None}
