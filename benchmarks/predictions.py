"""`crossroads predict` on many files, beside the engine on the same images decoded ahead."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks._measure import Row, Settings, alternate, fresh

CLASSES, PHOTO_SIZE = 5, 224


def predict(settings: Settings) -> Iterator[Row]:
    small, photos = settings.size(100_000, 300), settings.size(2_000, 40)
    digits, pictures = settings.scratch / "digits", settings.scratch / "pictures"
    fresh("benchmarks.artifacts:make", str(digits))
    fresh("benchmarks.predictions:make_for_photos", str(pictures))
    fresh("benchmarks.predictions:draw_small", str(settings.scratch / "small"), small)
    fresh("benchmarks.decoding:draw_photos", str(settings.scratch / "photos"), photos)
    for title, run, folder, suffix, count in (
        (f"{small:,} files of 32 px to CSV", digits, "small", ".csv", small),
        (f"{photos:,} photos of 500×375 to Parquet", pictures, "photos", ".parquet", photos),
    ):
        names = str(run), str(settings.scratch / folder), suffix
        ours, engine, ours_cpu, parts_cpu = fresh("benchmarks.predictions:both", *names, settings.runs).value
        rates = [tuple(count / seconds for seconds in side) for side in (ours, engine)]
        yield Row(f"predict, {title}", "images/s", rates[0], "engine, decoded ahead", rates[1])
        cpu = [tuple(1e3 * seconds / count for seconds in side) for side in (ours_cpu, parts_cpu)]
        yield Row(f"predict, {title}, processor time per image", "ms", cpu[0], "decoding and engine", cpu[1])
        peak = fresh("benchmarks.predictions:once", *names).peak_mb
        yield Row(f"predict, {title}, peak memory", "MB", (peak,))


def make_for_photos(run: str) -> None:
    """An artifact of the default network at 224 px. What it was fitted to does not matter here."""
    import numpy as np

    import crossroads

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (10 * CLASSES, 32, 32, 3), dtype=np.uint8)
    options = {"strategy": "feature-extraction", "image_size": PHOTO_SIZE, "resize": "crop", "test_fraction": 0}
    crossroads.fit((images, np.arange(len(images)) % CLASSES), out=run, **options)


def draw_small(folder: str, count: int) -> None:
    """Noise in PNG files of 32 px, 1,000 in a folder."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(count):
        place = Path(folder) / f"{number // 1000:03}" / f"{number:06}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(place, compress_level=1)


def both(run: str, folder: str, suffix: str, runs: int) -> list[list[float]]:
    """Seconds of the whole prediction and of the engine, then processor seconds of the whole and of its parts alone."""
    import numpy as np

    from crossroads import Predictor
    from crossroads.data.loading import stream_pictures
    from crossroads.data.readers.unlabelled import list_images, read_image

    predictor = Predictor.load(run)
    files, resize, numbers = list(list_images([folder])), predictor.manifest.resize, iter(range(1000))

    def decoded() -> Iterator[Any]:
        return (image for _, image, _ in stream_pictures(files, resize, read=read_image, per_task=64))

    pixels = np.stack(list(decoded()))
    sides: tuple[Callable[[], object], ...] = (
        lambda: _predict(predictor, folder, Path(run).with_name(f"found-{next(numbers)}{suffix}")),
        lambda: predictor.probabilities(pixels),
        lambda: sum(1 for _ in decoded()),
    )
    processor: list[list[float]] = [[] for _ in sides]

    def timed(number: int) -> float:
        started, used = time.perf_counter(), time.process_time()
        sides[number]()
        processor[number].append(time.process_time() - used)
        return time.perf_counter() - started

    whole, engine, _ = alternate(runs, *(lambda number=number: timed(number) for number in range(len(sides))))
    parts = [sum(each) for each in zip(*processor[1:], strict=True)]
    return [list(whole), list(engine), processor[0][1:], parts[1:]]


def once(run: str, folder: str, suffix: str) -> None:
    """One prediction, for its peak memory."""
    from crossroads import Predictor

    _predict(Predictor.load(run), folder, Path(run).with_name(f"once{suffix}"))


def _predict(predictor: Any, folder: str, out: Path) -> None:
    from crossroads.data.readers.unlabelled import list_images
    from crossroads.outputs.predictions import predict_files
    from crossroads.progress import Silent

    predict_files(predictor, list_images([folder]), out=out, watcher=Silent())
