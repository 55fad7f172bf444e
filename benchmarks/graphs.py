"""Frozen networks of several files on several sets: feature extraction and early features, one line of JSON per run.

`python -m benchmarks.graphs graphs.jsonl` goes on where it stopped. `python -m benchmarks.graphs graphs.jsonl --table` prints the
table of docs/benchmarks.md.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._measure import SHARED

WEIGHTS = SHARED.parent / "weights"
NETWORKS: dict[str, dict[str, str]] = {
    "efficientnet-lite0": {"backbone": "efficientnet-lite0"},
    "efficientnet-lite2": {"backbone": "efficientnet-lite2"},
    "mobilenet": {"backbone": "mobilenet", "weights": str(WEIGHTS / "mobilenet_v1_1.0_224_imagenet_notop.weights.h5")},
    "mobilenet-v2 uint8": {"backbone": str(WEIGHTS / "mobilenet_v2_1.0_224_quant.tflite")},
    "squeezenet float16": {"backbone": str(WEIGHTS / "squeezenet_1.1_fp16.onnx"), "preprocessing": "caffe"},
    "insects uint8": {"backbone": str(WEIGHTS / "mobilenet_v2_1.0_224_inat_insect_quant.tflite")},
}
SETS = {
    "ants/bees": "ants_bees.tar",
    "sign_digits10": "sign_digits10.tar",
    "flowers5": "flowers5.tar",
    "trashnet6": "trashnet6.tar",
    "digits": None,
    "eurosat10": "eurosat10.tar",
    "GTSRB 4,300": "gtsrb_train_32px.tar.xz",
    "CIFAR-10 subset": "cifar10_subset.tar",
}
PER_CLASS = {"GTSRB 4,300": 100, "CIFAR-10 subset": 200}
"""Images per class that are drawn from the large sets."""

STRATEGIES = ("feature-extraction", "early-features")


def images_of(name: str) -> Any:
    """Returns the images of a set, with the splits that it has."""
    import numpy as np

    import crossroads

    if SETS[name] is None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = np.repeat(np.round(digits.images * 255 / 16).astype(np.uint8)[..., None], 3, axis=3)
        return crossroads.read((pixels, digits.target.astype(str)))
    dataset = crossroads.read(SHARED / str(SETS[name]))
    count = PER_CLASS.get(name)
    if count is None:
        return dataset
    order = np.random.default_rng(0).permutation(len(dataset))
    rows = np.concatenate([order[dataset.labels[order] == label][:count] for label in range(len(dataset.classes))])
    return dataset.select(np.sort(rows))


def measure(name: str, network: str, strategy: str) -> dict[str, Any]:
    """Fits one strategy with a fifth of the images held out as test, and returns its figures."""
    from dataclasses import replace

    import crossroads

    images = replace(images_of(name), splits=None)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        options = {"strategy": strategy, "validation": 0.15, "test_fraction": 0.2, "seed": 0, **NETWORKS[network]}
        run = crossroads.fit(images, out=Path(folder) / "run", watcher=crossroads.Silent(), **options)
        seconds = time.perf_counter() - began
    features = next(iter(run.metrics["features"].values()))
    return {
        "set": name,
        "network": network,
        "strategy": strategy,
        "test": run.metrics["test"]["accuracy"],
        "images": run.metrics["test"]["n"],
        "seconds": round(seconds, 1),
        "rate": round(features["computed"] / features["seconds"], 1) if features["computed"] else None,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Returns a table in Markdown: test accuracy of both strategies and images/s, by set and network."""
    found = {(row["set"], row["network"], row["strategy"]): row for row in rows}
    lines = ["| set | " + " | ".join(NETWORKS) + " |", "| --- |" + " --- |" * len(NETWORKS)]
    for name in SETS:
        cells = []
        for network in NETWORKS:
            pair = [found.get((name, network, strategy)) for strategy in STRATEGIES]
            shown = " / ".join("-" if row is None else f"{row['test']:.3f}" for row in pair)
            seconds = sum(row["seconds"] for row in pair if row)
            rate = next((row["rate"] for row in pair if row and row["rate"]), None)
            cells.append(f"{shown}, {seconds:.0f} s, {rate or '-'}/s")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(path: Path, *, show: bool) -> None:
    """Measures what is missing in the file, or prints the table of what is there."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if show:
        print(table(rows))
        return
    done = {(row["set"], row["network"], row["strategy"]) for row in rows}
    for name in SETS:
        for network in NETWORKS:
            for strategy in STRATEGIES:
                if (name, network, strategy) not in done:
                    with path.open("a") as file:
                        file.write(json.dumps(measure(name, network, strategy)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), show="--table" in sys.argv)
