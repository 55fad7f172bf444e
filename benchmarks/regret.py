"""Whether the advice is right: every strategy run to its end on every task, and what was advised compared with the best of them."""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._measure import ROOT, SHARED, Row, Settings, fresh
from benchmarks.runs import BACKBONES, FROZEN, SCRATCH, WEIGHTS, Asked, asked, kept
from benchmarks.tasks import TASKS, Task, task

ADVICE = ROOT / "benchmarks" / "figures" / "advice.jsonl"
"""One line an advice that was measured."""

FEW = 500
"""Images below which the notes' size is small, where people go by a fixed number."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One task with one backbone: what was advised, and what every strategy that was run to its end reached on the test.

    Attributes:
        task: Its name.
        backbone: A key of `BACKBONES`.
        advice: As `Advice.to_json` gives it, with the seconds that the call took.
        reached: Test accuracy of each strategy.
        validation: Validation accuracy of each.
        seconds: Of each whole run.
    """

    task: str
    backbone: str
    advice: dict[str, Any]
    reached: dict[str, float]
    validation: dict[str, float]
    seconds: dict[str, float]

    @property
    def best(self) -> float:
        return max(self.reached.values())

    def regret(self, strategy: str) -> float:
        """Points of test accuracy that a strategy lies below the best."""
        return 100 * (self.best - self.reached[strategy])


def regret(settings: Settings) -> Iterator[Row]:
    seeds = 1
    found = list(outcomes(seeds, measure=not settings.quick))
    if not found:
        return
    lifts = fitted_lifts(found)
    print(f"lifts fitted to all tasks: {json.dumps(lifts, indent=1)}", file=sys.stderr)
    yield from summary(found)


def outcomes(seeds: int = 1, *, measure: bool = True) -> Iterator[Outcome]:
    """Every task and backbone of which runs are kept; the advice is measured where it is not kept."""
    runs = kept()
    for chosen in TASKS:
        for backbone in BACKBONES:
            for seed in range(seeds):
                if asked(chosen.name, backbone, FROZEN[0], seed) not in runs:
                    continue
                advice = advised(chosen, backbone, seed, measure=measure)
                if advice is None:
                    continue
                here = {name: runs[run] for name, run in advised_runs(chosen.name, backbone, seed, advice).items() if run in runs}
                if len(here) < 2:
                    continue
                reached, validation, seconds = (
                    {name: run[key] for name, run in here.items()} for key in ("test", "validation", "seconds")
                )
                yield Outcome(chosen.name, backbone, advice, reached, validation, seconds)


def advised_runs(task_name: str, backbone: str, seed: int, advice: dict[str, Any]) -> dict[str, Asked]:
    """The run of each candidate of an advice, cut where it is advised to be cut."""
    return {row["strategy"]: asked(task_name, backbone, row["strategy"], seed, row["cut"] or "") for row in advice["ranked"]}


def advised(chosen: Task, backbone: str, seed: int, *, measure: bool) -> dict[str, Any] | None:
    """The advice on a task: kept, or measured in a process and a cache of its own; None where it is not to be measured."""
    key = {"task": chosen.name, "backbone": backbone, "seed": seed}
    lines = [json.loads(line) for line in ADVICE.read_text(encoding="utf-8").splitlines()] if ADVICE.exists() else []
    found = next((line["advice"] for line in lines if line["asked"] == key), None)
    if found is not None or not measure or (chosen.shared and not SHARED.is_dir()):
        return found
    print(f"advice on {chosen.name}, {backbone}", file=sys.stderr, flush=True)
    value: dict[str, Any] = fresh("benchmarks.regret:one", chosen.name, backbone, seed).value
    ADVICE.parent.mkdir(parents=True, exist_ok=True)
    with ADVICE.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"asked": key, "advice": value}) + "\n")
    return value


def one(task_name: str, backbone: str, seed: int) -> dict[str, Any]:
    """The advice on one task, with the seconds of the whole call."""
    import tempfile
    import time

    import crossroads

    chosen, network = task(task_name), BACKBONES[backbone]
    weights = network["weights"] if network["weights"] == "none" else str(WEIGHTS / network["weights"])
    images = chosen.images(seed)
    size = chosen.image_size or network["image_size"]
    with tempfile.TemporaryDirectory(prefix="crossroads-bench-") as folder:
        os.environ["CROSSROADS_CACHE"] = str(Path(folder) / "cache")
        began = time.perf_counter()
        found = crossroads.advise(
            images, backbones=[network["backbone"]], weights=[weights], image_size=size, seed=seed, test_share=0.0
        )
        seconds = time.perf_counter() - began
    return {**found.to_json(), "seconds": round(seconds, 1), "load": round(os.getloadavg()[0], 1)}


def chosen_by_advice(outcome: Outcome) -> str:
    """The strategy that stands first among those that were run."""
    return next(row["strategy"] for row in outcome.advice["ranked"] if row["strategy"] in outcome.reached)


def chosen_by_race(outcome: Outcome) -> str:
    """The strategy that a race would keep where every strategy is run to its end."""
    from crossroads.advice.estimate import Estimate
    from crossroads.race import believed

    images = validation_images(outcome)
    expected = {row["strategy"]: Estimate(*row["accuracy"].values()) for row in outcome.advice["ranked"]}
    frozen = [
        row["strategy"] for row in outcome.advice["ranked"] if row["strategy"] in FROZEN and row["strategy"] in outcome.reached
    ]
    first = outcome.validation[frozen[0]] if frozen else 0.0
    left = [name for name in outcome.reached if outcome.validation[name] >= first and name in expected]
    return max(left, key=lambda name: believed(expected[name], outcome.validation[name], images))


def validation_images(outcome: Outcome) -> int:
    """About a fifth of the training images, as the tasks have it; for tracks a fifth of those."""
    size = outcome.advice["evidence"]["size"]
    return max(4, round(0.2 * (size["groups"] or size["images"])))


def by_notes(outcome: Outcome) -> str:
    """The notes' table with a fixed number for small, and photographs as similar by name: what people do."""
    similar = outcome.task.startswith(("ants", "CIFAR"))
    small = outcome.advice["evidence"]["size"]["images"] < FEW
    name = {(True, True): FROZEN[0], (True, False): FROZEN[1], (False, True): "finetune", (False, False): SCRATCH}[small, similar]
    return name if name in outcome.reached else FROZEN[0]


def always(name: str) -> Callable[[Outcome], str]:
    return lambda outcome: name if name in outcome.reached else FROZEN[0]


RULES: dict[str, Callable[[Outcome], str]] = {
    "the advice": chosen_by_advice,
    "the race's rule, all run to their end": chosen_by_race,
    "always extract at the end": always(FROZEN[0]),
    "always finetune": always("finetune"),
    "the notes' table with fixed thresholds": by_notes,
}


def summary(found: Sequence[Outcome]) -> Iterator[Row]:
    for rule, choose in RULES.items():
        regrets = tuple(outcome.regret(choose(outcome)) for outcome in found)
        yield Row(f"regret, {rule}, mean of {len(found)}", "points", (statistics.mean(regrets),), "most", (max(regrets),))
    rows = [
        (row["accuracy"], outcome.reached[row["strategy"]])
        for outcome in found
        for row in outcome.advice["ranked"]
        if row["strategy"] in outcome.reached
    ]
    inside = statistics.mean(float(row["low"] <= value <= row["high"]) for row, value in rows)
    yield Row(f"regret, share of {len(rows)} intervals that hold what was reached", "", (inside,))
    yield Row("regret, rank correlation of expected and reached accuracy, all", "", (_spearman(rows),))
    each = [_spearman(_pairs(outcome)) for outcome in found if len(outcome.reached) > 2]
    yield Row("regret, the same inside a task, mean", "", (statistics.mean(each),))
    shares = tuple(outcome.advice["seconds"] / sum(outcome.seconds.values()) for outcome in found)
    yield Row("regret, advice's share of the time of running all", "", (statistics.median(shares),), "most", (max(shares),))
    beyond = tuple(outcome.advice["seconds"] - outcome.seconds[FROZEN[0]] for outcome in found)
    yield Row("regret, advice beyond feature extraction", "s", (statistics.median(beyond),), "most", (max(beyond),))


def _pairs(outcome: Outcome) -> list[tuple[dict[str, float], float]]:
    return [
        (row["accuracy"], outcome.reached[row["strategy"]])
        for row in outcome.advice["ranked"]
        if row["strategy"] in outcome.reached
    ]


def _spearman(rows: Sequence[tuple[dict[str, float], float]]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr([row["value"] for row, _ in rows], [value for _, value in rows]).statistic)


def fitted_lifts(found: Sequence[Outcome], without: str = "") -> dict[str, dict[str, float]]:
    """The constants of `advice.expectation.LIFTS`: least squares in log odds, the slope shrunk towards none."""
    lifts: dict[str, dict[str, float]] = {}
    for name in (*FROZEN, "finetune", "finetune-early", "warm-start", SCRATCH):
        x, y = [], []
        for outcome in found:
            row = next((row for row in outcome.advice["ranked"] if row["strategy"] == name), None)
            if outcome.task == without or row is None or name not in outcome.reached:
                continue
            size = outcome.advice["evidence"]["size"]
            least = 1 / (3 * max(10, size["images"]))
            x.append(min(1.5, max(-1.5, math.log10(max(size["effective"] / size["classes"], 1) / 30))))
            y.append(_logit(outcome.reached[name], least) - _logit(row["measured"]["value"], least))
        if len(x) < 3:
            continue
        design = np.stack([np.ones(len(x)), np.array(x)], axis=1)
        penalty = np.diag([0.05, 1.0 if name not in FROZEN else 20.0])
        level, slope = np.linalg.solve(design.T @ design + penalty, design.T @ np.array(y))
        scatter = float(np.sqrt(np.mean((np.array(y) - design @ (level, slope)) ** 2) * len(x) / max(1, len(x) - 2)))
        lifts[name] = {
            "level": round(float(level), 2),
            "by_size": round(float(slope), 2),
            "scatter": round(scatter, 2),
            "n": len(x),
        }
    return lifts


def _logit(share: float, least: float) -> float:
    inside = min(max(share, least), 1 - least)
    return math.log(inside / (1 - inside))
