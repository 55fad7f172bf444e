"""Training and inference on images in memory, beside bare Keras on the same network."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._measure import Row, Settings, alternate, fresh, seconds_of
from crossroads._runtime.keras_setup import load_keras
from crossroads._runtime.process import process_settings

SIZE, CLASSES, BATCH = 32, 43, 128
WARM, MEASURED = 1, 2
"""Epochs: the first builds the graph and does not count."""


def fit_throughput(settings: Settings) -> Iterator[Row]:
    images = settings.size(12_800, 512)
    for backbone in ("quiz-cnn", "small-cnn"):
        ours, theirs = fresh("benchmarks.throughput:train_both", backbone, images, settings.runs).value
        yield Row(f"fit-throughput, {backbone}", "images/s", tuple(ours), "bare keras.Model.fit", tuple(theirs))


def onednn(settings: Settings) -> Iterator[Row]:
    for title, function, arguments in (
        ("small-cnn 32 px, training", "benchmarks.throughput:train_ours", ("small-cnn", settings.size(6_400, 256))),
        ("mobilenet-v2 96 px, finetuning", "benchmarks.finetuning:train_ours", ("mobilenet-v2", settings.size(512, 64))),
        ("mobilenet 96 px, finetuning", "benchmarks.finetuning:train_ours", ("mobilenet", settings.size(512, 64))),
    ):
        sides = [partial(_in_its_own_process, function, arguments, on) for on in ("1", "0")]
        with_it, without = alternate(settings.runs, *sides, warm_up=False)
        yield Row(f"onednn, {title}", "images/s", with_it, "without oneDNN", without)


def _in_its_own_process(function: str, arguments: tuple[Any, ...], on: str) -> float:
    found: float = fresh(function, *arguments, TF_ENABLE_ONEDNN_OPTS=on).value
    return found


def xla(settings: Settings) -> Iterator[Row]:
    images = settings.size(2_560, 256)
    for backbone in ("quiz-cnn", "small-cnn"):
        ours, theirs = fresh("benchmarks.throughput:train_both", backbone, images, settings.runs, True).value
        yield Row(f"xla, {backbone}", "images/s", tuple(ours), "keras.Model.fit with jit_compile=True", tuple(theirs))


def predict_throughput(settings: Settings) -> Iterator[Row]:
    run = settings.scratch / "artifact"
    fresh("benchmarks.artifacts:make", str(run))
    images = settings.size(10_000, 256)
    ours, theirs = fresh("benchmarks.throughput:predict_both", str(run), images, settings.runs).value
    yield Row("predict-throughput, small-cnn", "images/s", tuple(ours), "keras.Model.predict", tuple(theirs))


@process_settings()
def train_both(backbone: str, images: int, runs: int, jit_compile: bool = False) -> list[tuple[float, ...]]:
    """Images a second of our loop and of bare Keras, with oneDNN: whole epochs, validation and, on our side, checkpoints."""
    load_keras()
    pixels, labels, held = _random(images)
    return alternate(
        runs,
        lambda: images * MEASURED / _train_ours(backbone, pixels, labels, held),
        lambda: images * MEASURED / _train_bare(backbone, pixels, labels, held, jit_compile),
        warm_up=False,
    )


@process_settings()
def train_ours(backbone: str, images: int) -> float:
    """Images a second of our loop, as the environment has it."""
    load_keras()
    return images * MEASURED / _train_ours(backbone, *_random(images))


def _random(images: int) -> tuple[Any, Any, slice]:
    import numpy as np

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, SIZE, SIZE, 3), dtype=np.uint8)
    return pixels, rng.integers(0, CLASSES, images, dtype=np.int32), slice(0, BATCH)


def _network(backbone: str) -> Any:
    from crossroads.networks import catalog
    from crossroads.networks.network import assemble, head_layers, seeded

    with seeded(0):
        return assemble(catalog.backbone(backbone).build(SIZE), SIZE, head_layers(None, CLASSES))


def _train_ours(backbone: str, pixels: Any, labels: Any, held: slice) -> float:
    from benchmarks.clocks import Clock
    from crossroads.networks import catalog
    from crossroads.recipe import Recipe
    from crossroads.strategies import plan_phases, resolve_recipe
    from crossroads.training.batches import Labelled
    from crossroads.training.checkpoint import Checkpoints
    from crossroads.training.loop import train

    asked = Recipe(
        strategy="from-scratch",
        epochs=WARM + MEASURED,
        batch_size=BATCH,
        augment=False,
        label_smoothing=0.0,
        optimizer="adam",
        schedule="constant",
    )
    (phase,) = plan_phases(resolve_recipe(asked, catalog.backbone(backbone), images=len(labels), image_size=SIZE))
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        data, validation = Labelled(pixels, labels), Labelled(pixels[held], labels[held])
        train(_network(backbone), phase, data, validation, Checkpoints(Path(folder)), "benchmark", clock)
    return clock.ends[-1] - clock.ends[WARM - 1]


def _train_bare(backbone: str, pixels: Any, labels: Any, held: slice, jit_compile: bool) -> float:
    import keras

    from benchmarks.clocks import KerasClock
    from crossroads.networks import catalog

    model = _network(backbone).trained
    model.compile(
        optimizer=keras.optimizers.Adam(catalog.backbone(backbone).defaults.learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )

    clock = KerasClock()
    floats = pixels.astype("float32")
    model.fit(
        floats,
        labels,
        batch_size=BATCH,
        epochs=WARM + MEASURED,
        validation_data=(floats[held], labels[held]),
        callbacks=[clock],
        verbose=0,
    )
    return clock.ends[-1] - clock.ends[WARM - 1]


def predict_both(run: str, images: int, runs: int) -> list[tuple[float, ...]]:
    """Images a second through the artifact's inference graph, and through its Keras model."""
    import numpy as np

    from crossroads import Predictor
    from crossroads.artifact import load_model

    pixels = np.random.default_rng(0).integers(0, 256, (images, SIZE, SIZE, 3), dtype=np.uint8)
    predictor, model = Predictor.load(run), load_model(run)
    return alternate(
        runs,
        lambda: images / seconds_of(lambda: predictor.probabilities(pixels)),
        lambda: images / seconds_of(lambda: model.predict(pixels, batch_size=BATCH, verbose=0)),
    )
