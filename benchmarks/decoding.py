"""Folders of JPEG photos to arrays, beside tf.data and a pool of threads with Pillow."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks._measure import SHARED, Row, Settings, alternate, fresh, seconds_of

SIDES = (64, 224)
AGAINST = ("tf.data", "Pillow threads")
JPEG = b"\xff\xd8\xff"


def decode_jpeg(settings: Settings) -> Iterator[Row]:
    drawn = settings.scratch / "photos"
    fresh("benchmarks.decoding:draw_photos", str(drawn), settings.size(600, 8))
    folders = {"drawn photos 500×375": drawn}
    if SHARED.is_dir() and not settings.quick:
        with tarfile.open(SHARED / "ants_bees.tar") as archive:
            archive.extractall(settings.scratch, filter="data")
        folders["ants/bees"] = settings.scratch / "hymenoptera_data"
    for title, folder in folders.items():
        for side in SIDES:
            ours, *others = fresh("benchmarks.decoding:decode_all", str(folder), side, settings.runs).value
            for against, theirs in zip(AGAINST, others, strict=True):
                yield Row(f"decode-jpeg, {title} to {side} px, beside {against}", "images/s", tuple(ours), against, tuple(theirs))


def draw_photos(folder: str, count: int) -> None:
    """Pictures with the smooth light, the edges and the grain of a photo, in four class folders, quality 90."""
    import numpy as np
    from PIL import Image, ImageDraw

    rng = np.random.default_rng(0)
    width, height = 500, 375
    for number in range(count):
        picture = np.zeros((height, width, 3), np.float32)
        for cells, strength in ((3, 110), (12, 60), (60, 30)):
            noise = Image.fromarray(rng.integers(0, 256, (cells, cells + 1, 3), dtype=np.uint8))
            picture += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), np.float32) / 255 * strength
        image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
        pen = ImageDraw.Draw(image)
        for _ in range(12):
            x, y, reach = *rng.integers(0, (width, height)).tolist(), int(rng.integers(10, 90))
            pen.ellipse((x, y, x + reach, y + reach // 2), fill=tuple(rng.integers(0, 256, 3).tolist()))
        grain = np.asarray(image, np.float32) + rng.normal(0, 4, (height, width, 1))
        place = Path(folder) / f"class{number % 4}" / f"{number:04}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(place, quality=90)


def decode_all(folder: str, side: int, runs: int) -> list[tuple[float, ...]]:
    """Images a second of ours, of tf.data and of Pillow in threads, on the same JPEG files, each to one uint8 array."""
    import numpy as np
    import tensorflow as tf
    from PIL import Image

    import crossroads
    from crossroads.data.loading import load_all

    dataset = load_all(crossroads.read(folder), side).dataset  # without broken files, which would end the other two
    dataset = dataset.select([row for row in range(len(dataset)) if bytes(dataset.read(row)[:3]) == JPEG])
    paths = [str(Path(folder) / dataset.name(row)) for row in range(len(dataset))]
    n = len(paths)

    def ours() -> object:
        return load_all(dataset, side)

    def one(path: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        small = tf.image.resize(image, (side, side), antialias=True)
        return tf.cast(tf.round(small), tf.uint8)

    files = tf.data.Dataset.from_tensor_slices(paths)
    batches = files.map(one, num_parallel_calls=tf.data.AUTOTUNE).batch(64).prefetch(tf.data.AUTOTUNE)

    def tensorflow() -> object:
        return np.concatenate(list(batches.as_numpy_iterator()))

    def small(path: str) -> np.ndarray:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))

    def pillow() -> object:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return np.stack(list(pool.map(small, paths)))

    rates = [lambda action=action: n / seconds_of(action) for action in (ours, tensorflow, pillow)]
    return alternate(runs, *rates)
