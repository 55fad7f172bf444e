"""Every strategy on real data, over several seeds: accuracy and seconds. Slow, and taken up where it stopped."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks._measure import Row, Settings
from benchmarks.runs import SCRATCH, STRATEGIES, asked, kept, measured
from benchmarks.tasks import WHOLE

TABLE = (
    (WHOLE.name, "MobileNet"),
    (WHOLE.name, "SqueezeNet"),
    ("GTSRB, 4,300 images", "MobileNet"),
    ("CIFAR-10, 900 per class", "MobileNet"),
    ("digits, 90 per class", "MobileNet"),
)


def strategies(settings: Settings) -> Iterator[Row]:
    for task_name, backbone in TABLE:
        for strategy in STRATEGIES:
            runs = [asked(task_name, backbone, strategy, seed) for seed in range(settings.runs)]
            known = kept()
            found = [known[run] for run in runs if run in known] if settings.quick else [measured(run) for run in runs]
            if not found:
                continue
            title = f"strategies, {task_name}, {'' if strategy == SCRATCH else backbone + ', '}{strategy}"
            for side in ("validation", "test"):
                if found[0][side] is not None:
                    yield Row(f"{title}, {side} accuracy", "", tuple(run[side] for run in found))
            yield Row(f"{title}, whole run", "s", tuple(run["seconds"] for run in found))
