"""Compares the second program of the notes, which runs a frozen AlexNet in every epoch, with a command that runs it once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._measure import SHARED, Row, Settings, alternate, crossroads, fresh, run, seconds_of
from benchmarks.random_weights import calibrate

SIZE, EPOCHS, BATCH = 227, 10, 128

COMMAND = (
    *("--backbone", "alexnet", "--strategy", "feature-extraction", "--head", "sgd", "--epochs", str(EPOCHS)),
    *("--batch-size", str(BATCH), "--image-size", str(SIZE), "--resize", "squash", "--test-fraction", "0", "--quiet", "--json"),
)


def notes_program(settings: Settings) -> Iterator[Row]:
    home = settings.scratch
    each, classes = settings.size(15, 4), settings.size(43, 4)
    fresh("benchmarks.notes:prepare", str(home), each, classes)
    theirs: list[dict[str, Any]] = []
    ours: list[dict[str, Any]] = []

    def repeat() -> None:
        theirs.append(fresh("benchmarks.notes:program", str(home), classes).value)

    def fit() -> None:
        """The first of a round computes the features, the second finds them."""
        out = home / f"run-{len(ours)}"
        command = crossroads("fit", home / "data", *COMMAND, "--weights", home / "alexnet.weights.h5", "--out", out)
        ours.append(json.loads(run(command, CROSSROADS_CACHE=str(home / f"cache-{len(theirs)}"))))

    cold, cached, whole = alternate(
        settings.runs, *[lambda side=side: seconds_of(side) for side in (fit, fit, repeat)], warm_up=False
    )
    against = "Keras, AlexNet in every epoch"
    first = ours[::2]
    title = f"notes-program, {each * classes} images"
    yield Row(f"{title}, whole command", "s", cold, against, whole)
    yield Row(f"{title}, whole command, features cached before", "s", cached, against, whole)
    for name, runs in (("features and 10 epochs", first), ("10 epochs, features cached before", ours[1::2])):
        yield Row(f"{title}, {name}", "s", tuple(map(_seconds, runs)), against, tuple(found["seconds"] for found in theirs))
    right = tuple(found["validation"]["accuracy"] for found in first)
    yield Row(f"{title}, validation accuracy", "", right, against, tuple(found["accuracy"] for found in theirs))


def _seconds(metrics: dict[str, Any]) -> float:
    """Of features and training."""
    (features,) = metrics["features"].values()
    return features["seconds"] + sum(phase["seconds"] for phase in metrics["phases"])


def prepare(home: str, each: int, classes: int) -> None:
    """`each` images of each class of GTSRB, split as in the notes, as files and as arrays; and AlexNet with random weights."""
    from PIL import Image
    from sklearn.model_selection import train_test_split

    import crossroads
    from crossroads.data.loading import load_all
    from crossroads.networks import catalog
    from crossroads.networks.network import seeded

    found = crossroads.read(SHARED / "gtsrb_train_32px.tar.xz")
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.choice(np.flatnonzero(found.labels == label), each, replace=False) for label in range(classes)])
    chosen = load_all(found.select(rows), 32)
    pixels, labels = chosen.pixels, chosen.dataset.labels
    X_train, X_val, y_train, y_val = train_test_split(pixels, labels, test_size=0.33, random_state=0)
    np.savez(Path(home) / "arrays.npz", X_train=X_train, X_val=X_val, y_train=y_train, y_val=y_val)
    for part, images, of in (("train", X_train, y_train), ("validation", X_val, y_val)):
        for number, (image, label) in enumerate(zip(images, of, strict=True)):
            place = Path(home) / "data" / part / f"{label:02}" / f"{number:05}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place)
    with seeded(0):
        parts = catalog.backbone("alexnet").build(SIZE)
    large = [np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BILINEAR)) for image in X_train[:32]]
    calibrate(parts.preprocessing, parts.backbone, np.stack(large))
    parts.backbone.save_weights(Path(home) / "alexnet.weights.h5")


def program(home: str, classes: int) -> dict[str, float]:
    """The notes' program in today's Keras: images of 32 px are enlarged and go through AlexNet in every step and every validation.

    Returns:
        ``seconds`` of its ten epochs, and the best validation ``accuracy`` of them.
    """
    import keras

    from crossroads.networks import catalog
    from crossroads.networks.network import head_layers

    parts = catalog.backbone("alexnet").build(SIZE)
    parts.backbone.load_weights(Path(home) / "alexnet.weights.h5")
    parts.backbone.trainable = False
    data = np.load(Path(home) / "arrays.npz")
    images = keras.Input((32, 32, 3))
    x = keras.layers.Resizing(SIZE, SIZE)(images)
    for layer in parts.preprocessing:
        x = layer(x)
    x = parts.backbone(x, training=False)
    for layer in head_layers("sgd", classes):
        x = layer(x)
    model = keras.Model(images, x)
    model.compile(
        optimizer=keras.optimizers.Adam(),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,  # faster on a CPU
    )
    histories = []
    seconds = seconds_of(
        lambda: histories.append(
            model.fit(
                data["X_train"].astype("float32"),
                data["y_train"],
                batch_size=BATCH,
                epochs=EPOCHS,
                validation_data=(data["X_val"].astype("float32"), data["y_val"]),
                verbose=0,
            )
        )
    )
    return {"seconds": seconds, "accuracy": max(histories[0].history["val_accuracy"])}
