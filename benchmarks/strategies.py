"""Every strategy on real data, over several seeds: validation accuracy and seconds. Slow, and taken up where it stopped."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._measure import ROOT, SHARED, Row, Settings, fresh

KEPT = ROOT / "build" / "bench"
"""Where the figures of each finished run stay, so that a second call measures only what is missing; `make clean` removes it."""

WEIGHTS = SHARED.parent / "weights"
MOBILENET = {"backbone": "mobilenet", "weights": str(WEIGHTS / "mobilenet_v1_imagenet_to_conv_pw_12.weights.h5")}
SQUEEZENET = {"backbone": "squeezenet", "weights": str(WEIGHTS / "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5")}
GTSRB_IMAGES = 4_300
SCRATCH = "from-scratch"


@dataclass(frozen=True, slots=True)
class Job:
    """One set of images with one backbone.

    Attributes:
        name: What the rows are called.
        data: What `images_of` knows.
        options: Of `crossroads.fit`, for every pretrained strategy.
        tuned: Further options for the strategies that train the backbone, which must end in minutes on two cores.
        early: Further options for those that cut it early.
        scratch: Options of training from scratch, with the default network.
    """

    name: str
    data: str
    options: dict[str, Any]
    tuned: dict[str, Any] = field(default_factory=dict)
    early: dict[str, Any] = field(default_factory=dict)
    scratch: dict[str, Any] = field(default_factory=dict)


JOBS = (
    Job("ants/bees, MobileNet", "ants-bees", MOBILENET | {"image_size": 224}, tuned={"epochs": 5}),
    Job("ants/bees, SqueezeNet", "ants-bees", SQUEEZENET | {"image_size": 227}, tuned={"epochs": 5}),
    Job("GTSRB 4,300, MobileNet", "gtsrb", MOBILENET | {"image_size": 96}, tuned={"epochs": 5}),
    Job("CIFAR-10 subset, MobileNet", "cifar10", MOBILENET | {"image_size": 96}, tuned={"epochs": 2}),
    Job("digits, MobileNet", "digits", MOBILENET | {"image_size": 96}, tuned={"epochs": 5}),
)
STRATEGIES = ("feature-extraction", "early-features", "finetune", "finetune-early", "warm-start", SCRATCH)
EARLY, TUNED = ("early-features", "finetune-early"), ("finetune", "finetune-early", "warm-start")


def strategies(settings: Settings) -> Iterator[Row]:
    for job in JOBS:
        for strategy in STRATEGIES:
            found = [_kept(job, strategy, seed, settings.quick) for seed in range(settings.runs)]
            title = f"strategies, {job.name}, {strategy}"
            yield Row(f"{title}, validation accuracy", "", tuple(run["validation"]["accuracy"] for run in found))
            yield Row(f"{title}, whole run", "s", tuple(run["seconds"] for run in found))


def options_of(job: Job, strategy: str) -> dict[str, Any]:
    if strategy == SCRATCH:
        return {"strategy": strategy, **job.scratch}
    extra = (job.tuned if strategy in TUNED else {}) | (job.early if strategy in EARLY else {})
    return {"strategy": strategy, **job.options, **extra}


def _kept(job: Job, strategy: str, seed: int, quick: bool) -> dict[str, Any]:
    options = options_of(job, strategy)
    if quick and strategy not in ("feature-extraction", "early-features"):
        options |= {"epochs": 1}
    stem = json.dumps([job.data, options, seed], sort_keys=True)
    place = KEPT / f"{job.data}-{strategy}-{seed}-{_short(stem)}.json"
    if not place.exists():
        print(f"{job.name}, {strategy}, seed {seed}", file=sys.stderr, flush=True)
        value = fresh("benchmarks.strategies:one", job.data, options, seed).value
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"asked": json.loads(stem), **value}), encoding="utf-8")
    return json.loads(place.read_text(encoding="utf-8"))


def _short(text: str) -> str:
    import hashlib

    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def one(data: str, options: dict[str, Any], seed: int) -> dict[str, Any]:
    """Metrics of one run; features are computed anew, in a cache of its own."""
    import os
    import tempfile

    import crossroads

    with tempfile.TemporaryDirectory(prefix="crossroads-bench-") as folder:
        os.environ["CROSSROADS_CACHE"] = str(Path(folder) / "cache")
        return crossroads.fit(images_of(data, seed), out=Path(folder) / "run", seed=seed, test_share=0.0, **options).metrics


def images_of(data: str, seed: int) -> Any:
    """Labelled images with a split into train and validation, or for digits without one."""
    import crossroads
    from crossroads.data.dataset import TEST

    if data == "digits":
        from crossroads.demo import digits

        return digits()
    if data == "gtsrb":
        return gtsrb_part(seed)
    found = crossroads.read(SHARED / {"ants-bees": "ants_bees.tar", "cifar10": "cifar10_subset.tar"}[data])
    return found.select(found.splits != TEST)  # CIFAR-10's test part is left alone, and a tenth of the rest is for validation


def gtsrb_part(seed: int, images: int = GTSRB_IMAGES) -> Any:
    """`images` training images drawn at random from four fifths of the tracks, as many of the other tracks for validation."""
    from dataclasses import replace

    import numpy as np

    import crossroads
    from crossroads.data.dataset import TRAIN, VALIDATION
    from crossroads.data.splits import split

    found = crossroads.read(SHARED / "gtsrb_train_32px.tar.xz")
    parts = split(found, validation=0.2, test=0.0, seed=seed)
    rng = np.random.default_rng(seed)
    chosen = []
    for side, part in ((TRAIN, parts.train), (VALIDATION, parts.validation)):
        rows = np.sort(rng.permutation(len(part))[:images])
        chosen.append(replace(part.select(rows), splits=np.full(len(rows), side, np.uint8)))
    train, validation = chosen
    return replace(
        train,
        **{
            name: np.concatenate([getattr(train, name), getattr(validation, name)])
            for name in ("indices", "labels", "groups", "splits")
        },
    )
