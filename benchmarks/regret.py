"""Measures the regret of the advice: how far the recommended strategy is below the best of all strategies, on every task."""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._measure import ROOT, SHARED, Row, Settings, fresh
from benchmarks.logme import at_the_end
from benchmarks.runs import BACKBONES, FROZEN, SCRATCH, Asked, asked, kept, shortened, weights_of
from benchmarks.tasks import TASKS, Task, task
from crossroads.advice.candidates import TIE
from crossroads.advice.estimate import Estimate, log_odds
from crossroads.advice.expectation import (
    LAWS,
    Base,
    EpochPenalty,
    Extrapolation,
    Law,
    Laws,
    Setting,
    StrategyOffset,
    clamped,
    combined_slope,
    expected,
    least_error,
    log_size,
)
from crossroads.advice.size import CurvePoint, slope_of
from crossroads.plain import from_plain
from crossroads.race.posterior import posterior
from crossroads.recipe import StrategyName

ADVICE = ROOT / "benchmarks" / "figures" / "advice.jsonl"
"""One line per measured advice."""

LEAST_ERROR = 0.002
"""Smallest error that the test sets of the tasks can show."""

FEW = 500
"""Images below which a data set is small for people who use a fixed number."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One task with one backbone: the advice, and the results of every strategy that was run.

    Attributes:
        task: Its name.
        backbone: A key of `BACKBONES`.
        advice: From `Advice.to_json`, with the seconds of the call.
        reached: Test accuracy of each strategy.
        validation: Validation accuracy of each strategy.
        seconds: Time of each run.
    """

    task: str
    backbone: str
    advice: dict[str, Any]
    reached: dict[str, float]
    validation: dict[str, float]
    seconds: dict[str, float]

    @property
    def source(self) -> str:
        """The data set that the task's images come from."""
        return task(self.task).source

    @property
    def complete(self) -> bool:
        """Whether strategies that train were run, so that the best of them is known."""
        return "finetune" in self.reached or BACKBONES[self.backbone]["weights"] == "none"

    @property
    def best(self) -> float:
        """The best test accuracy."""
        return max(self.reached.values())

    @property
    def setting(self) -> Setting:
        """The data set, as far as it affects an expectation."""
        size, points = (self.advice["evidence"][name] for name in ("size", "curve"))
        slope = slope_of([from_plain(CurvePoint, point) for point in points["points"]])
        return Setting(size["images"], size["effective"] / size["classes"], slope)

    def regret(self, strategy: str) -> float:
        """Returns how many points of test accuracy a strategy is below the best."""
        return 100 * (self.best - self.reached[strategy])


def regret(settings: Settings) -> Iterator[Row]:
    """Measures what is missing and yields every row."""
    seeds = 1
    found, random = (list(outcomes(seeds, measure=not settings.quick, random=random)) for random in (False, True))
    if not found:
        return
    penalties = fitted_penalties(kept())
    for name, law in fitted_laws(found).items():
        print(f"fitted to all tasks: {name}: {replace(law, epochs=penalties.get(name))}", file=sys.stderr)
    yield from summary(found)
    yield from by_parts(found)
    if random:
        yield from with_random_weights(random, fitted_laws(found))


def outcomes(seeds: int = 1, *, measure: bool = True, random: bool = False) -> Iterator[Outcome]:
    """Yields every task and backbone with stored runs. An advice that is not stored is measured.

    Args:
        seeds: Number of seeds.
        measure: Whether a missing advice is measured or left out.
        random: Whether to use the backbones with random weights, whose strategies are the frozen ones and from-scratch.
    """
    runs = kept()
    backbones = [name for name, found in BACKBONES.items() if (found["weights"] == "none") == random]
    for chosen in TASKS:
        for backbone in backbones:
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
    """Returns the run of each candidate of an advice, with the advised cut."""
    return {row["strategy"]: asked(task_name, backbone, row["strategy"], seed, row["cut"] or "") for row in advice["ranked"]}


def advised(chosen: Task, backbone: str, seed: int, *, measure: bool) -> dict[str, Any] | None:
    """Returns the advice on a task: stored, or measured in a process with its own cache; None if it may not be measured."""
    key = {"task": chosen.name, "backbone": backbone, "seed": seed}
    lines = [json.loads(line) for line in ADVICE.read_text(encoding="utf-8").splitlines()] if ADVICE.exists() else []
    found = next((line["advice"] for line in lines if line["asked"] == key), None)
    if found is not None or not measure or (chosen.shared and not SHARED.is_dir()):
        return found
    print(f"advice on {chosen.name}, {backbone}", file=sys.stderr, flush=True)
    value: dict[str, Any] = fresh("benchmarks.regret:measure_advice", chosen.name, backbone, seed).value
    ADVICE.parent.mkdir(parents=True, exist_ok=True)
    with ADVICE.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"asked": key, "advice": value}) + "\n")
    return value


def measure_advice(task_name: str, backbone: str, seed: int) -> dict[str, Any]:
    """Returns the advice on one task, with the seconds of the whole call."""
    import tempfile
    import time

    import crossroads

    chosen, network = task(task_name), BACKBONES[backbone]
    weights = weights_of(network)
    images = chosen.images(seed)
    size = chosen.image_size or network["image_size"]
    with tempfile.TemporaryDirectory(prefix="crossroads-bench-") as folder:
        os.environ["CROSSROADS_CACHE"] = str(Path(folder) / "cache")
        began = time.perf_counter()
        found = crossroads.advise(
            images, backbones=[network["backbone"]], weights=[weights], image_size=size, seed=seed, test_fraction=0.0
        )
        seconds = time.perf_counter() - began
        evidence = at_the_end(images, network["backbone"], weights, size)
    value = found.to_json()
    for row in value["ranked"]:  # without the folder, which differs between machines
        row["weights"] = row["weights"] and Path(row["weights"]).name
    return {**value, "seconds": round(seconds, 1), "logme": round(evidence, 4), "load": round(os.getloadavg()[0], 1)}


def bases_of(advice: Mapping[str, Any], name: str) -> tuple[Base, ...]:
    """Returns the measurements behind the expectation of a strategy; none if the advice has no such candidate."""
    row = next((row for row in advice["ranked"] if row["strategy"] == name), {"bases": []})
    return tuple(from_plain(Base, base) for base in row["bases"])


Part = Callable[[str, list[dict[str, Any]]], list[dict[str, Any]]]
"""Removes some of the measurements behind the expectation of a strategy."""

PARTS: dict[str, Part] = {
    "short trainings": lambda _, bases: [base for base in bases if base["kind"] == "probe"],
    "the learning gain of short trainings": lambda _, bases: [base | {"learning_gain": None} for base in bases],
}
"""Parts of the measurements that are removed in turn to see their effect."""


def without(part: Part, outcome: Outcome) -> Outcome:
    """Returns the outcome as if a part had not been measured."""
    ranked = [row | {"bases": part(row["strategy"], row["bases"])} for row in outcome.advice["ranked"]]
    return replace(outcome, advice=outcome.advice | {"ranked": ranked})


@dataclass(frozen=True, slots=True)
class Expected:
    """The expectation of a strategy on a task, with constants that were fitted without the task's source."""

    strategy: str
    accuracy: Estimate
    seconds: float


def expectations(outcome: Outcome, laws: Laws) -> list[Expected]:
    """Returns the expectation of every strategy that was run. The first is that of `advice.candidates.rank`."""
    rows = {row["strategy"]: row for row in outcome.advice["ranked"]}
    found = []
    for name in outcome.reached:
        bases = [
            base for base in bases_of(outcome.advice, name) if name in laws and (base.kind == "probe" or laws[name].extrapolation)
        ]
        if not bases:
            continue
        accuracy = expected(name, bases, outcome.setting, laws)
        found.append(Expected(name, accuracy, rows[name]["seconds"]))
    found.sort(key=lambda one: -one.accuracy.value)
    near = [one for one in found if found[0].accuracy.value - one.accuracy.value <= TIE]
    first = min(near, key=lambda one: one.seconds)
    return [first, *(one for one in found if one is not first)]


def chosen_by_race(outcome: Outcome, order: Sequence[Expected]) -> str:
    """Returns the strategy that a race would keep after running all of them."""
    first = next((outcome.validation[one.strategy] for one in order if one.strategy in FROZEN), 0.0)
    left = [one for one in order if outcome.validation[one.strategy] >= first]
    images = validation_images(outcome)
    return max(left, key=lambda one: posterior(one.accuracy, outcome.validation[one.strategy], images).value).strategy


def validation_images(outcome: Outcome) -> int:
    """Returns about a fifth of the training images, or of the tracks."""
    size = outcome.advice["evidence"]["size"]
    return max(4, round(0.2 * (size["groups"] or size["images"])))


def by_notes(outcome: Outcome) -> str:
    """Chooses by the table of four cases with a fixed number for small and photographs as similar, as people do."""
    similar = outcome.task.startswith(("ants", "CIFAR"))
    small = outcome.advice["evidence"]["size"]["images"] < FEW
    name = {(True, True): FROZEN[0], (True, False): FROZEN[1], (False, True): "finetune", (False, False): SCRATCH}[small, similar]
    return name if name in outcome.reached else FROZEN[0]


def always(name: str) -> Callable[[Outcome], str]:
    """Returns a rule that always chooses one strategy, or feature extraction if that was not run."""
    return lambda outcome: name if name in outcome.reached else FROZEN[0]


RULES: dict[str, Callable[[Outcome], str]] = {
    "always extract at the end": always(FROZEN[0]),
    "always finetune": always("finetune"),
    "the notes' table with fixed thresholds": by_notes,
}


def summary(found: Sequence[Outcome]) -> Iterator[Row]:
    """Yields every figure. The constants for each task are fitted without the source of its images.

    Only where every strategy was run, the best one is known. Regret and time are those of these tasks.
    """
    everything, all_orders = found, [expectations(outcome, fitted_laws(found, without=outcome.source)) for outcome in found]
    found = [outcome for outcome in everything if outcome.complete]
    orders = [order for outcome, order in zip(everything, all_orders, strict=True) if outcome.complete]
    choices = {
        "the advice": [order[0].strategy for order in orders],
        "the race's rule, all run to their end": [chosen_by_race(one, order) for one, order in zip(found, orders, strict=True)],
    } | {rule: [choose(outcome) for outcome in found] for rule, choose in RULES.items()}
    for rule, chosen in choices.items():
        regrets = [outcome.regret(name) for outcome, name in zip(found, chosen, strict=True)]
        yield from mean_and_most(f"regret, {rule}, of {len(found)}", "points", regrets)
    pairs = [
        (one.accuracy, outcome.reached[one.strategy])
        for outcome, order in zip(everything, all_orders, strict=True)
        for one in order
    ]
    inside = statistics.mean(float(contains(estimate, value)) for estimate, value in pairs)
    yield Row(f"regret, fraction of {len(pairs)} intervals that contain the reached accuracy", "", (inside,))
    yield Row("regret, mean error of an expectation, in log odds", "", (statistics.mean(errors_of(everything, all_orders)),))
    yield Row("regret, rank correlation of expected and reached accuracy", "", (_spearman(pairs),))
    each = [
        _spearman([(one.accuracy, outcome.reached[one.strategy]) for one in order])
        for outcome, order in zip(found, orders, strict=True)
        if len(order) > 3 and len({outcome.reached[one.strategy] for one in order}) > 2
    ]
    if each:
        yield Row(f"regret, the same inside each of {len(each)} tasks, mean", "", (statistics.mean(each),))
    yield from over_backbones(found, orders)
    shares = [outcome.advice["seconds"] / sum(outcome.seconds.values()) for outcome in found]
    yield from mean_and_most("regret, time of the advice as a fraction of that of all runs", "", shares)
    beyond = [outcome.advice["seconds"] - outcome.seconds[FROZEN[0]] for outcome in found]
    yield from mean_and_most("regret, advice beyond feature extraction", "s", beyond)


def contains(estimate: Estimate, reached: float) -> bool:
    """Returns whether an interval contains a test accuracy, to within what the test set can show.

    An interval never reaches 1. A test accuracy of 1.0 on a few hundred images does not contradict an upper end of 0.999.
    """
    return estimate.low - LEAST_ERROR <= reached <= estimate.high + LEAST_ERROR


def by_parts(found: Sequence[Outcome]) -> Iterator[Row]:
    """Yields the regret and the error of the expectations as if a part of the measurements were missing."""
    for name, part in PARTS.items():
        less = [without(part, outcome) for outcome in found]
        fitted = {source: fitted_laws(less, without=source) for source in {outcome.source for outcome in less}}
        orders = [expectations(outcome, fitted[outcome.source]) for outcome in less]
        regrets = regrets_of(less, orders)
        yield from mean_and_most(f"regret, the advice without {name}, of {len(regrets)}", "points", regrets)
        yield Row(
            f"regret, mean error of an expectation without {name}, in log odds", "", (statistics.mean(errors_of(less, orders)),)
        )


def regrets_of(found: Sequence[Outcome], orders: Sequence[Sequence[Expected]]) -> list[float]:
    """Returns the regret of the first in each order, in points, where every strategy was run."""
    return [outcome.regret(order[0].strategy) for outcome, order in zip(found, orders, strict=True) if outcome.complete]


def errors_of(found: Sequence[Outcome], orders: Sequence[Sequence[Expected]]) -> list[float]:
    """Returns the error of every expectation, in log odds."""
    return [
        abs(log_odds(one.accuracy.value, LEAST_ERROR) - log_odds(outcome.reached[one.strategy], LEAST_ERROR))
        for outcome, order in zip(found, orders, strict=True)
        for one in order
    ]


def with_random_weights(found: Sequence[Outcome], laws: Laws) -> Iterator[Row]:
    """Yields the regret with random weights, with constants that were fitted to pretrained backbones."""
    title = f"of {len(found)}"
    advised = regrets_of(found, [expectations(outcome, laws) for outcome in found])
    yield from mean_and_most(f"regret with random weights, the advice, {title}", "points", advised)
    extracted = [outcome.regret(FROZEN[0]) for outcome in found]
    yield from mean_and_most(f"regret with random weights, always extract at the end, {title}", "points", extracted)


def mean_and_most(name: str, unit: str, values: Sequence[float]) -> Iterator[Row]:
    """Yields two rows of a figure that each task has."""
    yield Row(f"{name}, mean", unit, (statistics.mean(values),))
    yield Row(f"{name}, most", unit, (max(values),))


def over_backbones(found: Sequence[Outcome], orders: Sequence[Sequence[Expected]]) -> Iterator[Row]:
    """Compares two rules on tasks with several backbones: the advice, and finetuning the backbone of the highest LogME."""
    chosen: dict[str, list[float]] = {"the advice": [], "finetuning the backbone of the highest LogME": []}
    for name in dict.fromkeys(outcome.task for outcome in found):
        known = [(one, order[0]) for one, order in zip(found, orders, strict=True) if one.task == name and "logme" in one.advice]
        if len(known) < 2:
            continue
        best = max(outcome.best for outcome, _ in known)
        outcome, first = max(known, key=lambda pair: pair[1].accuracy.value)
        rated, _ = max(known, key=lambda pair: float(pair[0].advice["logme"]))
        reached = (outcome.reached[first.strategy], rated.reached[always("finetune")(rated)])
        for regrets, accuracy in zip(chosen.values(), reached, strict=True):
            regrets.append(100 * (best - accuracy))
    for rule, regrets in chosen.items():
        if regrets:
            yield from mean_and_most(f"regret over backbones, {rule}, of {len(regrets)}", "points", regrets)


def _spearman(rows: Sequence[tuple[Estimate, float]]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr([estimate.value for estimate, _ in rows], [value for _, value in rows]).statistic)


PRIOR = (0.05, 1.0)
"""Ridge penalties of intercept and `by_size`, as a number of tasks. With few tasks `by_size` is mostly noise."""

STEP = 0.02
"""Spacing of the grid that is searched for the most likely constants of short trainings."""


def fitted_laws(found: Sequence[Outcome], without: str = "") -> dict[StrategyName, Law]:
    """Fits the laws of `advice.expectation`, except the effect of fewer epochs, to the tasks of all sources except one."""
    laws: dict[StrategyName, Law] = {}
    for name, usual in LAWS.items():
        offset = _fitted_offset(name, found, without)
        extrapolation = _fitted_extrapolation(name, found, without) if usual.extrapolation else None
        if offset or extrapolation:  # without an offset, every task has a short training, and no probe is used
            laws[name] = Law(offset or usual.offset, extrapolation)
    return laws


@dataclass(frozen=True, slots=True)
class _Point:
    """One task on which a strategy was run.

    Attributes:
        gain: How far it went beyond a base, in log odds.
        base: The base.
        error: Standard error of the base, in log odds.
        setting: The data set.
        source: Where its images come from.
    """

    gain: float
    base: Base
    error: float
    setting: Setting
    source: str


def _points(name: str, kind: str, found: Sequence[Outcome], without: str) -> list[_Point]:
    """Returns a point for each task, except those of one source. A short training from scratch is the same with each backbone."""
    points: dict[tuple[str, str], _Point] = {}
    for outcome in found:
        if outcome.source == without or name not in outcome.reached:
            continue
        setting = outcome.setting
        least = least_error(setting.images)
        for base in bases_of(outcome.advice, name):
            middle, low, high = (log_odds(value, least) for value in base.accuracy)
            if base.kind == kind:
                gain = log_odds(outcome.reached[name], least) - middle
                key = (outcome.task, "" if name == SCRATCH and kind != "probe" else outcome.backbone)
                points.setdefault(key, _Point(gain, base, (high - low) / 2 / 1.96, setting, outcome.source))
    return list(points.values())


def _scatter_factor(points: Sequence[_Point], constants: int) -> float:
    """Returns the factor by which the scatter of a new source is larger, because few sources estimate it badly."""
    from scipy.stats import t

    sources = len({point.source for point in points})
    return float(t.ppf(0.975, max(3, sources - constants)) / 1.96 * math.sqrt(1 + 1 / len(points)))


def _fitted_offset(name: str, found: Sequence[Outcome], without: str) -> StrategyOffset | None:
    """Fits an offset by ridge regression in log odds."""
    points = _points(name, "probe", found, without)
    if len(points) < 3:
        return None
    target = np.array([point.gain for point in points])
    design = np.array([[each.slope, each.slope * log_size(each.images_per_class)] for each in (point.setting for point in points)])
    intercept, by_size = np.linalg.solve(design.T @ design + np.diag(PRIOR), design.T @ target)
    variance = ((target - design @ (intercept, by_size)) ** 2).sum() / max(3, len(target) - 2)
    scatter = math.sqrt(variance) * _scatter_factor(points, 2)
    return StrategyOffset(round(float(intercept), 2), round(float(by_size), 2), round(scatter, 2))


def _fitted_extrapolation(name: str, found: Sequence[Outcome], without: str) -> Extrapolation | None:
    """Fits gain and scatter by maximum likelihood. Each short training has a standard error of its own."""
    points = _points(name, "short training", found, without)
    if len(points) < 3:
        return None
    gained, errors = np.array([point.gain for point in points]), np.array([point.error for point in points])
    halvings = np.array([clamped(point.base.halvings) for point in points])
    slopes = np.array([combined_slope(point.base, point.setting) for point in points])
    gain, scatter = np.arange(-10, 100)[:, None, None] * STEP, np.arange(5, 125)[:, None] * STEP
    variance = errors**2 + scatter**2 * halvings
    unlikely = ((gained - gain * slopes * halvings) ** 2 / variance + np.log(variance)).sum(axis=2)
    best, widest = np.unravel_index(int(np.argmin(unlikely)), unlikely.shape)
    spread = float(scatter[widest, 0]) * math.sqrt(len(points) / (len(points) - 1)) * _scatter_factor(points, 1)
    return Extrapolation(round(float(gain[best, 0, 0]), 2), round(spread, 2))


def fitted_penalties(runs: Mapping[Asked, dict[str, Any]]) -> dict[str, EpochPenalty]:
    """Fits the `epochs` of `advice.expectation.LAWS` to the runs with a quarter of the epochs and those with all.

    The mean of all strategies counts as one more task of each strategy, in the penalty and in the scatter. No penalty is negative.
    """
    lost: dict[str, list[float]] = {}
    for run, whole in runs.items():
        part = None if run.part > 1 else runs.get(shortened(run))
        if part is None:
            continue
        halvings = math.log2(whole["phases"][-1]["epochs"] / part["phases"][-1]["epochs"])
        if not halvings:
            continue
        less = log_odds(whole["test"], LEAST_ERROR) - log_odds(part["test"], LEAST_ERROR)
        lost.setdefault(run.strategy, []).append(less / halvings)
    each = [value for values in lost.values() for value in values]
    if len(each) < 3:
        return {}
    usual, spread = statistics.mean(each), statistics.variance(each)
    found = {}
    for name, values in lost.items():
        penalty = max(0.0, (sum(values) + usual) / (len(values) + 1))
        variance = (sum((value - penalty) ** 2 for value in values) + spread) / (len(values) + 1)
        found[name] = EpochPenalty(round(penalty, 2), round(math.sqrt(variance), 2))
    return found
