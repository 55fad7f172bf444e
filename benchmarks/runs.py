"""Runs of one strategy on one task to its end, each kept as a line of a file, so that what is measured is never measured twice."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks._measure import ROOT, SHARED, fresh
from benchmarks.tasks import Task, task
from crossroads.race.decisions import REDUCTION_FACTOR

FIGURES = ROOT / "benchmarks" / "figures" / "runs.jsonl"
"""One line a finished run. It is in the repository, since running everything takes many hours."""

WEIGHTS = SHARED.parent / "weights"
BACKBONES: dict[str, dict[str, Any]] = {
    "MobileNet": {"backbone": "mobilenet", "weights": "mobilenet_v1_imagenet_to_conv_pw_12.weights.h5", "image_size": 224},
    "SqueezeNet": {
        "backbone": "squeezenet",
        "weights": "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "image_size": 227,
    },
    "EfficientNet-Lite0": {"backbone": "efficientnet-lite0", "weights": None, "image_size": 224},
    "random MobileNet": {"backbone": "mobilenet", "weights": "none", "image_size": 224},
}
SCRATCH = "from-scratch"
FROZEN, TUNED = ("feature-extraction", "early-features"), ("finetune", "finetune-early", "warm-start")
EARLY = ("early-features", "finetune-early")
STRATEGIES = (*FROZEN, *TUNED, SCRATCH)


@dataclass(frozen=True, slots=True)
class Asked:
    """What identifies a run.

    Attributes:
        task: Name of a task.
        backbone: A key of `BACKBONES`; "" from scratch, which takes the default network.
        strategy: Its name.
        seed: Of the draw of the images and of the training.
        cut: Where the backbone ends; "" for the strategy's default.
        part: One in so many of the epochs that `fit` takes.
    """

    task: str
    backbone: str
    strategy: str
    seed: int
    cut: str = ""
    part: int = 1


def asked(task_name: str, backbone: str, strategy: str, seed: int, cut: str = "") -> Asked:
    """What identifies a run; from scratch is the same whatever the backbone of the others, and only early strategies are cut."""
    return Asked(task_name, "" if strategy == SCRATCH else backbone, strategy, seed, cut if strategy in EARLY else "")


def shortened(run: Asked) -> Asked:
    """The same run with a quarter of the epochs, as a race gives it a first turn."""
    return replace(run, part=REDUCTION_FACTOR)


def options_of(run: Asked) -> dict[str, Any]:
    """Options of `crossroads.fit`; how many epochs a part of a run has, the whole run tells, which is kept."""
    if run.part > 1:
        whole = kept()[replace(run, part=1)]
        return options_of(replace(run, part=1)) | {"epochs": max(1, round(whole["phases"][-1]["epochs"] / run.part))}
    if run.strategy == SCRATCH:
        return {"strategy": SCRATCH}
    chosen, found = task(run.task), BACKBONES[run.backbone]
    options = {"strategy": run.strategy, "backbone": found["backbone"], "weights": weights_of(found)}
    options["image_size"] = chosen.image_size or found["image_size"]
    options |= {"cut": run.cut} if run.cut else {}
    return options | ({"epochs": chosen.tuned_epochs} if run.strategy in TUNED and chosen.tuned_epochs else {})


def weights_of(backbone: Mapping[str, Any]) -> str | None:
    """Returns the weights option of an entry of `BACKBONES`; None for the weights that are installed with Crossroads."""
    weights = backbone["weights"]
    return weights if weights in (None, "none") else str(WEIGHTS / weights)


def kept() -> dict[Asked, dict[str, Any]]:
    """Every run that was made."""
    if not FIGURES.exists():
        return {}
    lines = map(json.loads, FIGURES.read_text(encoding="utf-8").splitlines())
    return {Asked(**line.pop("asked")): line for line in lines}


def measured(run: Asked) -> dict[str, Any]:
    """The figures of a run: kept ones, or those of a run that is made now in a process of its own, and kept."""
    found = kept().get(run)
    if found is not None:
        return found
    print(
        f"{run.task}, {run.backbone}, {run.strategy}, seed {run.seed}{f', one in {run.part} epochs' if run.part > 1 else ''}",
        file=sys.stderr,
        flush=True,
    )
    value: dict[str, Any] = fresh("benchmarks.runs:one", asdict(run)).value
    FIGURES.parent.mkdir(parents=True, exist_ok=True)
    with FIGURES.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"asked": asdict(run), **value}) + "\n")
    return value


def one(of: dict[str, Any]) -> dict[str, Any]:
    """Figures of one run; features are computed anew, in a cache of its own."""
    import tempfile

    import crossroads

    run = Asked(**of)
    chosen: Task = task(run.task)
    with tempfile.TemporaryDirectory(prefix="crossroads-bench-") as folder:
        os.environ["CROSSROADS_CACHE"] = str(Path(folder) / "cache")
        found = crossroads.fit(
            chosen.images(run.seed), out=Path(folder) / "run", seed=run.seed, test_fraction=0.0, **options_of(run)
        )
    scores = {side: found.metrics[side] and found.metrics[side]["accuracy"] for side in ("validation", "test")}
    phases = [{key: phase[key] for key in ("name", "epochs", "validation_accuracy")} for phase in found.metrics["phases"]]
    return {**scores, "seconds": found.metrics["seconds"], "phases": phases, "load": round(os.getloadavg()[0], 1)}


def everything(seeds: int, tasks: tuple[str, ...], backbones: tuple[str, ...], strategies: tuple[str, ...]) -> Iterator[Asked]:
    """All runs of these, seed by seed."""
    for seed in range(seeds):
        for task_name in tasks:
            for strategy in strategies:
                for backbone in ("",) if strategy == SCRATCH else backbones:
                    yield asked(task_name, backbone, strategy, seed)
