"""The frozen part: images to features, beside the other ways to run the same network; and how its cost grows."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks._measure import Row, Settings, alternate, crossroads, fresh, run, seconds_of
from benchmarks.random_weights import as_frozen, frozen_network, random_images

NETWORKS = (("mobilenet-v2", 96, 1_024, 64), ("resnet50", 224, 64, 4), ("alexnet", 227, 128, 4))
"""Backbone, side in pixels, images, images of a quick run."""

BATCHES = (8, 16, 32, 64)
"""Images a call or a request: each of the other sides is given the best of them."""

OURS, DECODED, KERAS, BARE = "engine", "files", "keras.Model.predict", "bare OpenVINO"
WITH_ONEDNN = f"{KERAS}, oneDNN asked for"
"""Keras beside Crossroads has the kernels that Crossroads asks TensorFlow for; by itself it has them on some processors only."""

AGAIN = (600, 4_300)
"""Images that are fitted twice. The second fit reads the network's weights; files are read, and digested, before the split."""

GROWTH = (1_000, 10_000, 100_000)


def engine(settings: Settings) -> Iterator[Row]:
    photos = settings.scratch / "photos"
    fresh("benchmarks.decoding:draw_photos", str(photos), max(settings.size(full, quick) for _, _, full, quick in NETWORKS))
    for network, size, full, quick in NETWORKS:
        images = settings.size(full, quick)
        batches = [batch for batch in BATCHES if batch <= images]
        sides = fresh("benchmarks.frozen:all_sides", network, size, images, batches or [images], str(photos), settings.runs).value
        ours, decoded = tuple(sides.pop(OURS)), tuple(sides.pop(DECODED))
        title = f"engine, {network} {size} px"
        usual = fresh("benchmarks.frozen:beside_usual_keras", network, size, images, batches or [images], settings.runs).value
        yield Row(f"{title}, beside {KERAS}", "images/s", tuple(usual[0]), KERAS, tuple(usual[1]))
        for against, theirs in sides.items():
            yield Row(f"{title}, beside {against}", "images/s", ours, against, tuple(theirs))
        yield Row(f"{title}, JPEG files", "images/s", decoded, f"{BARE}, ready pixels", tuple(sides[BARE]))


def beside_usual_keras(network: str, size: int, images: int, batches: list[int], runs: int) -> list[tuple[float, ...]]:
    """Images a second of the engine and of Keras as a program has it that imports Keras itself, in turns."""
    import keras  # noqa: F401 (before Crossroads, which would ask for oneDNN)

    frozen, pixels = frozen_network(network, size).frozen, random_images(images, size)
    ours, theirs = _warm_engine(frozen, pixels), peers.keras_predict(frozen)
    batch = peers.fastest(theirs, pixels, batches)
    return alternate(
        runs,
        lambda: images / seconds_of(lambda: ours(pixels)),
        lambda: images / seconds_of(lambda: theirs(pixels, batch)),
    )


def _warm_engine(frozen: Any, pixels: np.ndarray) -> Any:
    """The engine after it has seen the images: its graph made, its batch chosen."""
    from crossroads.features.engine import Engine

    ours = Engine(as_frozen(frozen))
    ours(pixels)
    if ours.runs_on != "openvino":
        raise RuntimeError(f"the engine runs on {ours.runs_on}")
    return ours


def all_sides(network: str, size: int, images: int, batches: list[int], photos: str, runs: int) -> dict[str, tuple[float, ...]]:
    """Images a second of each side, in turns, the network and its graph made and warm."""
    from crossroads.networks.export import to_openvino

    frozen, pixels = frozen_network(network, size).frozen, random_images(images, size)
    ours = _warm_engine(frozen, pixels)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        to_openvino(frozen, folder / "model.xml")
        others = {WITH_ONEDNN: peers.keras_predict(frozen), BARE: peers.bare_openvino(folder / "model.xml")}
        if peers.installed("onnxruntime"):
            others[peers.label("onnxruntime")] = peers.onnx_runtime(network, size, folder)
        if peers.installed("torch"):
            others[peers.label("torch")] = peers.pytorch(network, pixels[:8])
        best = {name: peers.fastest(side, pixels, batches) for name, side in others.items()}
        number = itertools.count()
        files, resize = _first_files(photos, images), _squash(size)
        actions = {
            OURS: lambda: ours(pixels),
            DECODED: lambda: _extract(files, resize, ours, folder / f"cache-{next(number)}"),
            **{name: lambda name=name, side=side: side(pixels, best[name]) for name, side in others.items()},
        }
        rates = alternate(runs, *[lambda action=action: images / seconds_of(action) for action in actions.values()])
        return dict(zip(actions, rates, strict=True))


def _first_files(folder: str, images: int) -> Any:
    import crossroads

    return crossroads.read(folder).select(np.arange(images))


def _squash(size: int) -> Any:
    from crossroads.data.images import Resize

    return Resize(size, "squash")


def _extract(dataset: Any, resize: Any, ours: Any, folder: Path) -> Any:
    """Features of a data set into a new cache in `folder`."""
    from crossroads.features.cache import Cache, Key
    from crossroads.features.extract import extract

    cache = Cache(folder)
    key = Key("benchmark", "none", resize, "end", "average", None, "float32", "benchmark")
    return extract(dataset, resize=resize, engine=lambda: ours, cache=cache, store=cache.store(key, ours.shape))


def second_fit(settings: Settings) -> Iterator[Row]:
    """What the same command spends on features when it is given again."""
    asked = "--strategy feature-extraction --backbone mobilenet-v2 --weights none --head sgd --epochs 1 --quiet --json"
    for images in (settings.size(count, count // 50) for count in AGAIN):
        photos = settings.scratch / f"photos-{images}"
        fresh("benchmarks.decoding:draw_photos", str(photos), images)
        first, second = [], []
        for number in range(settings.runs):
            cache = str(settings.scratch / f"cache-{images}-{number}")
            for part, found in (("first", first), ("second", second)):
                out = settings.scratch / f"{part}-{images}-{number}"
                said = run(crossroads("fit", photos, *asked.split(), "--out", out), CROSSROADS_CACHE=cache)
                (features,) = json.loads(said)["features"].values()
                found.append(features["seconds"])
        yield Row(f"second-fit, {images:,} photos, seconds on features", "s", tuple(second), "first fit", tuple(first))


def growth(settings: Settings) -> Iterator[Row]:
    counts = [settings.size(count, count // 100) for count in GROWTH]
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    peaks: dict[int, list[float]] = {count: [] for count in counts}
    for count in counts:
        fresh("benchmarks.frozen:write_images", str(_archive(settings, count)), count)
    for number in range(settings.runs):
        for count in counts:
            cache = settings.scratch / f"cache-{number}-{count}"
            found = fresh("benchmarks.frozen:extract_archive", str(_archive(settings, count)), str(cache))
            seconds[count].append(found.value)
            peaks[count].append(found.peak_mb)
    low, middle, high = counts
    for count in counts:
        yield Row(f"growth, {count:,} images, features", "s", tuple(seconds[count]))
    more = [1000 * (b - a) / (high - middle) for a, b in zip(seconds[middle], seconds[high], strict=True)]
    less = [1000 * (b - a) / (middle - low) for a, b in zip(seconds[low], seconds[middle], strict=True)]
    yield Row(f"growth, each image from {middle:,} to {high:,}", "ms", tuple(more), f"from {low:,} to {middle:,}", tuple(less))
    yield Row(f"growth, peak memory at {high:,}", "MB", tuple(peaks[high]), f"at {low:,}", tuple(peaks[low]))


def _archive(settings: Settings, count: int) -> Path:
    return settings.scratch / f"images-{count}.tar"


def write_images(path: str, count: int) -> None:
    """A .tar of PNG files of 32 px in ten class folders, no two alike."""
    import io
    import tarfile

    from PIL import Image

    rng = np.random.default_rng(0)
    with tarfile.open(path, "w") as archive:
        for number in range(count):
            picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((32, 32))
            file = io.BytesIO()
            picture.save(file, "png", compress_level=1)
            member = tarfile.TarInfo(f"{number % 10}/{number:06}.png")
            member.size = file.tell()
            file.seek(0)
            archive.addfile(member, file)


def extract_archive(path: str, cache: str) -> float:
    """Seconds from the archive to its features in a new cache, the graph made before."""
    import crossroads
    from crossroads.features.engine import Engine

    ours = Engine(as_frozen(frozen_network("mobilenet", 32).frozen))
    ours(random_images(64, 32))
    return seconds_of(lambda: _extract(crossroads.read(path), _squash(32), ours, Path(cache)))
