"""The main job on real data, from the archive to the tested artifact, over several seeds. Slow: run when named."""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks._measure import SHARED, Row, Settings, crossroads, fresh, run

SCRATCH = ("--strategy", "from-scratch")
QUIZ = ("--backbone", "quiz-cnn", "--epochs", "10")


def gtsrb(settings: Settings) -> Iterator[Row]:
    archive = SHARED / "gtsrb_train_32px.tar.xz"
    for title, options in (("quiz-cnn, 10 epochs", QUIZ), ("default network", ("--strategy", "from-scratch"))):
        yield from _fits(f"gtsrb, {title}", [archive, *options], settings)


def small_sets(settings: Settings) -> Iterator[Row]:
    pickles = SHARED / "small_traffic_set"
    train, test = pickles / "small_train_traffic.p", pickles / "small_test_traffic.p"
    yield from _fits("small-sets, quiz pickles", [train, "--test", test, *QUIZ, "--validation", "0.2"], settings)
    photos = SHARED / "ants_bees.tar"
    with tarfile.open(photos) as archive:
        archive.extractall(settings.scratch, filter="data")
    yield from _fits("small-sets, ants/bees from .tar", [photos, *SCRATCH], settings)
    yield from _fits("small-sets, ants/bees from a folder", [settings.scratch / "hymenoptera_data", *SCRATCH], settings)
    metrics = []
    for seed in range(settings.runs):
        out = settings.scratch / f"digits-{seed}"
        metrics.append(fresh("benchmarks.jobs:fit_digits", str(out), seed, 1 if settings.quick else None).value)
    yield from _rows("small-sets, digits from arrays", metrics)


def fit_digits(out: str, seed: int, epochs: int | None) -> dict[str, Any]:
    import crossroads
    from crossroads.demo import digits

    options = {} if epochs is None else {"epochs": epochs}
    return crossroads.fit(digits(), out=out, strategy="from-scratch", seed=seed, **options).to_json()


def _fits(title: str, arguments: Sequence[str | Path], settings: Settings) -> Iterator[Row]:
    metrics = []
    for seed in range(settings.runs):
        out = settings.scratch / f"{title.replace('/', '-')}-{seed}"
        command = crossroads("fit", *arguments, "--out", out, "--seed", str(seed), "--json")
        if settings.quick:
            command += ["--epochs", "1"]
        print(f"{title}, seed {seed}", file=sys.stderr, flush=True)
        metrics.append(json.loads(run(command, show_errors=True)))
    yield from _rows(title, metrics)


def _rows(title: str, metrics: Sequence[dict[str, Any]]) -> Iterator[Row]:
    """One row a figure that every run has."""
    for part in ("validation", "test"):
        if all(run[part] for run in metrics):
            yield Row(f"{title}, {part} accuracy", "", tuple(run[part]["accuracy"] for run in metrics))
    yield Row(f"{title}, whole run", "s", tuple(run["seconds"] for run in metrics))
    if all(run["peak_memory_mb"] for run in metrics):
        yield Row(f"{title}, peak memory", "MB", tuple(run["peak_memory_mb"] for run in metrics))
