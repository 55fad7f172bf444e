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
from benchmarks.random_weights import frozen_network, random_images

NETWORKS = (("mobilenet-v2", 96, 512, 64), ("resnet50", 224, 64, 4), ("alexnet", 227, 128, 4))
"""Backbone, side in pixels, images, images of a quick run."""

BATCHES = (8, 16, 32, 64)
"""Images a call or a request: each of the other sides is given the best of them."""

OURS, DECODED, KERAS, BARE = "engine", "files", "keras.Model.predict", "bare OpenVINO"

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
        for against, theirs in sides.items():
            yield Row(f"{title}, beside {against}", "images/s", ours, against, tuple(theirs))
        yield Row(f"{title}, JPEG files", "images/s", decoded, f"{BARE}, ready pixels", tuple(sides[BARE]))


def all_sides(network: str, size: int, images: int, batches: list[int], photos: str, runs: int) -> dict[str, tuple[float, ...]]:
    """Images a second of each side, in turns, the network and its graph made and warm."""
    from crossroads.features.engine import Engine
    from crossroads.networks.export import to_openvino

    frozen, pixels = frozen_network(network, size).frozen, random_images(images, size)
    ours = Engine(frozen)
    ours(pixels)
    if ours.runs_on != "openvino":
        raise RuntimeError(f"the engine runs on {ours.runs_on}: {ours.note}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        to_openvino(frozen, folder / "model.xml")
        others = {KERAS: peers.keras_predict(frozen), BARE: peers.bare_openvino(folder / "model.xml")}
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
    key = Key("benchmark", "none", resize, "end", "average", None, "float32", "float32")
    return extract(dataset, resize=resize, engine=lambda: ours, cache=cache, store=cache.store(key, ours.shape))


def second_fit(settings: Settings) -> Iterator[Row]:
    """What the same command spends on features when it is given again."""
    photos = settings.scratch / "photos"
    fresh("benchmarks.decoding:draw_photos", str(photos), settings.size(600, 12))
    asked = "--strategy feature-extraction --backbone mobilenet-v2 --weights none --head sgd --quiet --json"
    first, second = [], []
    for number in range(settings.runs):
        cache = str(settings.scratch / f"cache-{number}")
        for part, found in (("first", first), ("second", second)):
            out = settings.scratch / f"{part}-{number}"
            said = run(crossroads("fit", photos, *asked.split(), "--out", out), CROSSROADS_CACHE=cache)
            (features,) = json.loads(said)["features"].values()
            found.append(features["seconds"])
    yield Row("second-fit, seconds on features", "s", tuple(second), "first fit", tuple(first))


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

    ours = Engine(frozen_network("mobilenet", 32).frozen)
    ours(random_images(64, 32))
    return seconds_of(lambda: _extract(crossroads.read(path), _squash(32), ours, Path(cache)))
