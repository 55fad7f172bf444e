"""Subjects of reports with made-up scores, for tests of what a report shows."""

from __future__ import annotations

import io
import json

import numpy as np
from PIL import Image

from crossroads.advice.estimate import Estimate
from crossroads.advice.profile import Depth, Profile, Similarity
from crossroads.advice.size import Curve, CurvePoint
from crossroads.artifact import Manifest, Predictions
from crossroads.data.images import Resize
from crossroads.evaluation import evaluate
from crossroads.plain import to_plain
from crossroads.race.records import RaceReport, RunRow
from crossroads.report.subject import Epoch, Subject
from crossroads.report.thumbnails import Thumbnails, wanted

HOSTILE = ("<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "a|b `c` \udce9")


def about(value, margin=0.03):
    """Returns an estimate with limits at this distance."""
    return Estimate(value, max(0.0, value - margin), min(1.0, value + margin))


PROFILE = Profile(
    "efficientnet-lite0",
    96,
    600,
    tuple(
        Depth(f"block{index}", depth, about(high), about(low))
        for index, (depth, high, low) in enumerate(
            [(0.02, 0.6, 0.66), (0.2, 0.74, 0.7), (0.4, 0.83, 0.6), (0.6, 0.91, 0.5), (0.8, 0.94, 0.42), (1.0, 0.9, 0.3)]
        )
    ),
    Similarity(about(0.62, 0.1), 0.9, 0.8, 0.9),
)
CURVE = Curve(
    tuple(CurvePoint(images, about(value)) for images, value in [(75, 0.7), (150, 0.78), (300, 0.85), (600, 0.9)]),
    0.0,
    2.2,
    0.5,
    0.7,
    about(0.9185),
    about(0.942),
)
RACE = RaceReport(
    240.0,
    230.0,
    False,
    (
        RunRow("feature-extraction", "efficientnet-lite0", None, None, True, 12.0, about(0.9), 0.9, 0.4, 0.9, None, False, 80.0),
        RunRow("finetune", "efficientnet-lite0", 6, 20, False, 75.0, about(0.93), 0.935, 0.3, 0.93, None, True, 80.0),
        RunRow("early-features", "mobilenet-v2", None, None, True, 25.0, about(0.88), 0.887, 0.5, 0.88, None, False, 80.0),
        RunRow("from-scratch", "small-cnn", 0, 30, False, 60.0, about(0.5), None, None, None, "its time was over", False),
    ),
    "finetune won: it is the most accurate on validation",
)
ADVICE = {
    "case": {"number": 3, "size": 0.53, "title": "large", "similarity": to_plain(about(0.62, 0.1)), "doubt": None},
    "reasons": ["600 images of 5 classes"],
    "evidence": {"profiles": [to_plain(PROFILE)], "curve": to_plain(CURVE)},
}
HISTORY = tuple(Epoch("train", n, 1.4 / n + 0.05, 1.5 / n + 0.2 + 0.01 * n, 1 - 0.5 / n - 0.002 * n) for n in range(1, 13))


def predictions(k=5, n=400, accuracy=0.9, groups=None, seed=0):
    """Returns made-up predictions whose mistakes go to neighbouring classes, and their probabilities."""
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(0, k, n)).astype(np.int32)
    wrong = rng.random(n) > accuracy
    predicted = np.where(wrong, (labels + rng.choice([1, 1, 1, 2], n)) % k, labels)
    probabilities = rng.dirichlet(np.full(k, 0.2), n) * 0.4
    probabilities[np.arange(n), predicted] += 0.45 + 0.15 * rng.random(n)
    probabilities = (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)
    top = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    names = np.array([f"photos/class {label}/{row:05d}.jpg" for row, label in enumerate(labels)])
    digests = rng.integers(0, 256, (n, 16), dtype=np.uint8)
    ranked = np.take_along_axis(probabilities, top, axis=1)
    return Predictions(names, labels, digests, top.astype(np.int32), ranked, groups), probabilities


def picture(seed, side=48):
    """Returns a small JPEG file."""
    file = io.BytesIO()
    colour = tuple(np.random.default_rng(seed).integers(40, 220, 3).tolist())
    Image.new("RGB", (side, side), colour).save(file, "JPEG")
    return file.getvalue()


def thumbnails_of(made):
    """Returns a picture for every row that a report shows, with heat maps for the first of them."""
    rows = wanted(made)
    order = [*rows.with_maps, *rows.others]
    maps = [picture(row + 1) for row in rows.with_maps] + [b""] * len(rows.others)
    return Thumbnails(made.digests[order], tuple(map(picture, order)), tuple(maps), "cam")


def subject(folder, *, k=5, n=400, classes=None, advice=True, history=HISTORY, pictures=True, source="test", **changes):
    """Returns a subject with k classes and n images. Its folder holds a recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text('data = "photos"\n')
    names = tuple(classes or (f"class {label}" for label in range(k)))
    made, probabilities = predictions(len(names), n, **changes)
    scores = evaluate(probabilities, made.labels, names, names=made.names).to_json()
    digest = "0123456789abcdef" * 2
    facts = {
        "crossroads": "0.1.0",
        "recipe": {"data": "photos"},
        "preprocessing": {"input": "uint8 (n, 160, 160, 3) RGB"},
        "versions": {"python": "3.12", "openvino": "2026.1"},
        "data": {"origin": "photos", "digest": digest, "splits": {"train": {"n": 900, "digest": digest}, "test": {"n": n}}},
        "pretrained": {"from": "imagenet", "digest": digest},
        "weights": digest,
        "backbone": "efficientnet-lite0",
        "strategy": "finetune",
    }
    phase = {"name": "train", "epochs": len(history), "best_epoch": 9}
    metrics = {
        "seconds": 230.0,
        "peak_memory_mb": 900.0,
        "phases": [phase],
        "epochs": phase["epochs"],
        "best_epoch": 9,
        "test": {**scores, "digest": digest},
        "validation": {**scores, "cross_validated": None},
        "warnings": ["class 2 has few images"],
        "refused": [{"split": "train", "name": "photos/broken.jpg", "reason": "the file is truncated"}],
    }
    if advice:
        metrics |= {"advice": json.loads(json.dumps(ADVICE)), "race": to_plain(RACE), "asked": {"strategy": "auto"}}
    files = {"model.xml": {"bytes": 100, "blake2b": digest}}
    manifest = Manifest(folder, names, Resize(160), facts, files)
    shown = {"thumbnails": thumbnails_of(made)} if pictures else {}
    return Subject(manifest, metrics, tuple(history), source, scores, made, **shown)
