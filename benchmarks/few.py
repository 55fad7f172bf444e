"""Compares what `fit --budget 120s` delivers on few images with always using one strategy, and what it reports with the truth.

`python -m benchmarks few` makes the trainings that benchmarks/figures/few.jsonl lacks, and yields the rows of docs/benchmarks.md.
`python -m benchmarks.few FILE` makes those that FILE lacks, and `python -m benchmarks.few FILE --table` prints its table. Each line
of a file is one training of one way on one draw of one set.

A draw takes 10, 20 or 40 images per class at random. `fit` gets these images alone and splits them itself. The classifier is then
scored on images of the same set that were not drawn.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._measure import ROOT, SHARED, Row, Settings, fresh
from benchmarks.regret import mean_and_most
from benchmarks.tasks import draw_each

FIGURES = ROOT / "benchmarks" / "figures" / "few.jsonl"

SETS = {
    "ants/bees": "ants_bees.tar",
    "flowers5": "flowers5.tar",
    "trashnet6": "trashnet6.tar",
    "sign_digits10": "sign_digits10.tar",
    "eurosat10": "eurosat10.tar",
    "CIFAR-10": "cifar10_subset.tar",
    "GTSRB": "gtsrb_train_32px.tar.xz",
}
COUNTS = (10, 20, 40)
DRAWS = 5

REMAINDER = 1_000
"""Most images that a classifier is scored on."""

BUDGET, TRAINING_BUDGET = "120s", "300s"
"""Budget of `fit`, and the limit of a named strategy that trains the network."""

FIT = "fit"
FROZEN, TRAINED = ("feature-extraction", "early-features"), ("finetune", "warm-start")
WAYS = (FIT, *FROZEN, *TRAINED)


@dataclass(frozen=True, slots=True)
class Cell:
    """One training: a set, a number of images per class, a draw, and a way (`FIT` or the name of a strategy)."""

    images: str
    count: int
    draw: int
    way: str


def drawn(name: str, count: int, draw: int) -> tuple[Any, Any]:
    """Returns the images that are drawn, and at most `REMAINDER` of the others, equally many of each class in both where possible.

    No group has images in both.
    """
    import crossroads

    rng = np.random.default_rng([draw, count])
    dataset = replace(crossroads.read(SHARED / SETS[name]), splits=None)
    source, rest = np.arange(len(dataset)), None
    if dataset.groups is not None:
        source, rest = _halves(dataset, rng)
    few = draw_each(dataset.select(source), count, rng)
    if rest is None:
        rest = np.setdiff1d(source, np.flatnonzero(np.isin(dataset.indices, few.indices)))
    return few, draw_each(dataset.select(rest), REMAINDER // len(dataset.classes), rng)


def _halves(dataset: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """Returns the rows of half of the groups of each class, and the other rows."""
    _, first = np.unique(dataset.groups, return_index=True)
    chosen = []
    for label in range(len(dataset.classes)):
        groups = rng.permutation(dataset.groups[first[dataset.labels[first] == label]])
        chosen.append(groups[: (len(groups) + 1) // 2])
    inside = np.isin(dataset.groups, np.concatenate(chosen))
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def one(of: dict[str, Any]) -> dict[str, Any]:
    """Returns the figures of one training, made with an empty cache of features."""
    import tempfile

    import crossroads

    cell = Cell(**of)
    few, rest = drawn(cell.images, cell.count, cell.draw)
    with tempfile.TemporaryDirectory(prefix="crossroads-bench-") as folder:
        os.environ["CROSSROADS_CACHE"] = str(Path(folder) / "cache")
        found = crossroads.fit(few, out=Path(folder) / "run", seed=cell.draw, **options_of(cell.way))
        truth = crossroads.evaluate(found, rest)
    metrics = found.metrics
    race = [{key: run[key] for key in RUN_FIGURES} for run in metrics.get("race", {}).get("runs", ())]
    head = next((phase["head"] for phase in metrics["phases"] if phase.get("head")), {})
    return {
        "truth": truth.accuracy,
        "images": truth.n,
        "strategy": metrics["strategy"],
        "headline": metrics["headline"],
        "validation": metrics["validation"]["accuracy"],
        "cut": metrics.get("cut", {}).get("name"),
        "head": {key: head.get(key) for key in ("kind", "penalty")},
        "seconds": round(metrics["seconds"], 1),
        "race": race,
    }


RUN_FIGURES = ("strategy", "epochs", "usual_epochs", "seconds", "validation_accuracy", "posterior", "won", "failed")


def options_of(way: str) -> dict[str, str]:
    """Returns the options of `crossroads.fit`."""
    if way == FIT:
        return {"budget": BUDGET}
    return {"strategy": way} if way in FROZEN else {"strategy": way, "budget": TRAINING_BUDGET}


def cells(draws: int = DRAWS) -> Iterator[Cell]:
    """Yields every training, draw by draw. In each draw, the trainings of the whole network come last."""
    for draw in range(draws):
        for ways in ((FIT, *FROZEN), *((way,) for way in TRAINED)):
            for count in COUNTS:
                for name in SETS:
                    yield from (Cell(name, count, draw, way) for way in ways)


def kept(path: Path) -> dict[Cell, dict[str, Any]]:
    """Returns the figures of every training in a file."""
    if not path.exists():
        return {}
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {Cell(**line.pop("cell")): line for line in lines}


def measure(path: Path, draws: int = DRAWS) -> None:
    """Makes the trainings that a file lacks, and adds a line for each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for cell in cells(draws):
        if cell in kept(path):
            continue
        print(f"{cell.images}, {cell.count} per class, draw {cell.draw}, {cell.way}", file=sys.stderr, flush=True)
        value = fresh("benchmarks.few:one", asdict(cell)).value
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"cell": asdict(cell), **value}) + "\n")


@dataclass(frozen=True, slots=True)
class Draw:
    """The results of every way on one draw.

    Attributes:
        images: The set.
        count: Images per class.
        accuracy: The accuracy of each way on the images that were not drawn.
        reported: The accuracy that `fit` reported, with its interval.
    """

    images: str
    count: int
    accuracy: dict[str, float]
    reported: dict[str, Any]

    @property
    def best(self) -> float:
        """The best accuracy of the ways that were measured."""
        return max(self.accuracy.values())

    def regret(self, way: str) -> float:
        """Returns how many points a way is below the best."""
        return 100 * (self.best - self.accuracy[way])

    @property
    def gain(self) -> float:
        """The points of `fit` above feature extraction."""
        return 100 * (self.accuracy[FIT] - self.accuracy[FROZEN[0]])

    @property
    def optimism(self) -> float:
        """The points by which the reported accuracy exceeds the accuracy on new images."""
        return 100 * (float(self.reported["accuracy"]) - self.accuracy[FIT])

    @property
    def covered(self) -> bool:
        """Whether the reported interval contains the accuracy on new images."""
        low, high = self.reported["interval"]
        return bool(low <= self.accuracy[FIT] <= high)


def draws_of(found: dict[Cell, dict[str, Any]]) -> list[Draw]:
    """Returns the draws that `fit` and feature extraction were measured on."""
    ways: dict[tuple[str, int, int], dict[str, dict[str, Any]]] = {}
    for cell, line in found.items():
        ways.setdefault((cell.images, cell.count, cell.draw), {})[cell.way] = line
    return [
        Draw(images, count, {way: line["truth"] for way, line in lines.items()}, lines[FIT]["headline"])
        for (images, count, _), lines in ways.items()
        if {FIT, FROZEN[0]} <= set(lines)
    ]


def few(settings: Settings) -> Iterator[Row]:
    """Makes the trainings that are missing, and yields every row."""
    if not settings.quick:
        measure(FIGURES)
    if draws := draws_of(kept(FIGURES)):
        yield from summary(draws)


def summary(draws: Sequence[Draw]) -> Iterator[Row]:
    """Yields the regret of each way, the gain over feature extraction, and how far the reported accuracy is from the truth."""
    for title, way in (("fit", FIT), ("always feature extraction", FROZEN[0]), ("always finetune", TRAINED[0])):
        regrets = [draw.regret(way) for draw in draws if way in draw.accuracy]
        if regrets:
            yield from mean_and_most(f"few, regret, {title}, of {len(regrets)} draws", "points", regrets)
    gains, title = [draw.gain for draw in draws], f"of {len(draws)} draws"
    yield Row(f"few, fit above feature extraction, {title}, mean", "points", (statistics.mean(gains),))
    yield Row(f"few, fit above feature extraction, {title}, least", "points", (min(gains),))
    yield Row(f"few, reported accuracy above the truth, {title}, mean", "points", (statistics.mean(d.optimism for d in draws),))
    covered = statistics.mean(float(draw.covered) for draw in draws)
    yield Row(f"few, fraction of {len(draws)} intervals (95 %) that contain the truth", "", (covered,))


def table(draws: Sequence[Draw]) -> str:
    """Returns a table in Markdown: one line per set and number of images per class, with means over the draws."""
    ways = [way for way in WAYS if any(way in draw.accuracy for draw in draws)]
    head = ("images", "per class", "draws", *ways, "best", "regret", "reported", "in interval")
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for name in (*SETS, ""):
        for count in COUNTS if name else (0,):
            some = [draw for draw in draws if (draw.images, draw.count) == (name, count) or not name]
            if some:
                cells = (name or "mean", str(count or "all"), str(len(some)), *_means(some, ways))
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _means(draws: Sequence[Draw], ways: Sequence[str]) -> Iterator[str]:
    for way in ways:
        values = [draw.accuracy[way] for draw in draws if way in draw.accuracy]
        yield f"{100 * statistics.mean(values):.1f}" if values else "-"
    yield f"{100 * statistics.mean(draw.best for draw in draws):.1f}"
    yield f"{statistics.mean(draw.regret(FIT) for draw in draws):.1f}"
    yield f"{100 * statistics.mean(float(draw.reported['accuracy']) for draw in draws):.1f}"
    yield f"{sum(draw.covered for draw in draws)} of {len(draws)}"


def main(path: Path, *, show: bool) -> None:
    """Measures what is missing in the file, or prints the table of what is there."""
    if show:
        print(table(draws_of(kept(path))))
    else:
        measure(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), show="--table" in sys.argv)
