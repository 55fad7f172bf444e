"""Finetuning steps a second, beside bare Keras on the same network: all of it, and with its lower half frozen."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._measure import Row, Settings, alternate, fresh
from benchmarks.random_weights import calibrate, random_images
from crossroads._runtime.keras_setup import load_keras
from crossroads._runtime.process import process_settings

BACKBONE, SIZE, CLASSES, BATCH = "mobilenet-v2", 96, 43, 32
WARM, MEASURED = 1, 2
"""Epochs: the first builds the graph and does not count."""


def finetune(settings: Settings) -> Iterator[Row]:
    images = settings.size(512, 64)
    for title, freeze_to, moves in (
        ("all of it", None, False),
        ("lower half frozen", "0.5", False),
        ("all of it, BatchNorm trained", None, True),
    ):
        ours, theirs = fresh("benchmarks.finetuning:both", freeze_to, images, settings.runs, moves).value
        yield Row(f"finetune, {BACKBONE} {SIZE} px, {title}", "steps/s", tuple(ours), "bare keras.Model.fit", tuple(theirs))


@process_settings()
def both(freeze_to: str | None, images: int, runs: int, moves: bool) -> list[tuple[float, ...]]:
    """Steps a second of our loop and of bare Keras with oneDNN, without augmentation, BatchNorm trained on both or on none."""
    load_keras()
    pixels, labels = _random(images)
    steps = -(-images // BATCH) * MEASURED
    with tempfile.TemporaryDirectory() as folder:
        inputs = pixels if freeze_to is None else _features(freeze_to, pixels, labels, Path(folder))
        return alternate(
            runs,
            lambda: steps / _ours(BACKBONE, freeze_to, inputs, labels, moves),
            lambda: steps / _bare(freeze_to, pixels, labels, moves),
            warm_up=False,
        )


@process_settings()
def train_ours(backbone: str, images: int) -> float:
    """Images a second of our loop with nothing frozen but BatchNorm, as the environment has it."""
    load_keras()
    return images * MEASURED / _ours(backbone, None, *_random(images))


def _random(images: int) -> tuple[np.ndarray, np.ndarray]:
    return random_images(images, SIZE), np.random.default_rng(0).integers(0, CLASSES, images, dtype=np.int32)


def _network(backbone: str, freeze_to: str | None) -> tuple[Any, Any]:
    """The network, frozen up to a cut, and the part of the backbone up to there."""
    from crossroads.networks import catalog
    from crossroads.networks.cuts import cuts, find, until
    from crossroads.networks.network import Layout, assemble, head_layers, seeded

    with seeded(0):
        parts = catalog.backbone(backbone).build(SIZE)
        calibrate(parts.preprocessing, parts.backbone, random_images(16, SIZE))
        keep = cuts(parts.backbone)[-1]
        freeze = None if freeze_to is None else find(parts.backbone, freeze_to)
        lower = None if freeze is None else until(parts.backbone, freeze)
        head = head_layers("linear", CLASSES)
        return (lambda frozen: assemble(parts, SIZE, head, Layout(keep, freeze if frozen else None))), lower


def _features(freeze_to: str, pixels: np.ndarray, labels: np.ndarray, folder: Path) -> Any:
    """The lower half's output from a cache on the disk, in float16 as `fit` keeps it."""
    import crossroads
    from benchmarks.random_weights import as_frozen
    from crossroads.data.images import Resize
    from crossroads.features.cache import Cache, Key
    from crossroads.features.engine import Engine
    from crossroads.features.extract import extract

    engine, cache, resize = Engine(as_frozen(_network(BACKBONE, freeze_to)[0](True).frozen)), Cache(folder), Resize(SIZE, "squash")
    key = Key("benchmark", "none", resize, freeze_to, "map", None, "float32", "float16")
    dataset = crossroads.read((pixels, labels))
    return extract(dataset, resize=resize, engine=lambda: engine, cache=cache, store=cache.store(key, engine.shape)).features


def _ours(backbone: str, freeze_to: str | None, inputs: Any, labels: np.ndarray, moves: bool = False) -> float:
    from benchmarks.clocks import Clock
    from crossroads.networks import catalog
    from crossroads.recipe import Recipe
    from crossroads.strategies import plan_phases, resolve_recipe
    from crossroads.training.batches import LabelledData
    from crossroads.training.checkpoint import Checkpoints
    from crossroads.training.loop import train

    asked = Recipe(
        strategy="finetune",
        weights="none",
        freeze_to=freeze_to,
        train_batchnorm=moves,
        augment=False,
        epochs=WARM + MEASURED,
        batch_size=BATCH,
    )
    *_, phase = plan_phases(resolve_recipe(asked, catalog.backbone(backbone), images=len(labels), image_size=SIZE))
    clock = Clock()
    held = LabelledData(inputs[:BATCH], labels[:BATCH])
    with tempfile.TemporaryDirectory() as folder:
        data, kept = LabelledData(inputs, labels), Checkpoints(Path(folder))
        train(_network(backbone, freeze_to)[0](freeze_to is not None), phase, data, held, kept, "benchmark", clock)
    return clock.ends[-1] - clock.ends[WARM - 1]


def _bare(freeze_to: str | None, pixels: np.ndarray, labels: np.ndarray, moves: bool) -> float:
    """The usual way: layers that are not trained are set so, and run in every step."""
    import keras

    from benchmarks.clocks import KerasClock

    network, lower = _network(BACKBONE, freeze_to)
    model = network(False).trained
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = moves
    if lower is not None:
        lower.trainable = False
    model.compile(
        optimizer=keras.optimizers.AdamW(5e-4, weight_decay=0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    clock, floats = KerasClock(), pixels.astype("float32")
    held = (floats[:BATCH], labels[:BATCH])
    model.fit(floats, labels, batch_size=BATCH, epochs=WARM + MEASURED, validation_data=held, callbacks=[clock], verbose=0)
    return clock.ends[-1] - clock.ends[WARM - 1]
