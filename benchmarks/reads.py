"""Files and bytes that `advise` and `fit` read, by a counter between the library and the files."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks._measure import Row, Settings, fresh

SIDE = 224
CLASSES = 10
COPIES = 20
"""Files that are copies of others."""


def reads(settings: Settings) -> Iterator[Row]:
    files = settings.size(3_000, 120)
    folder = settings.scratch / "drawn"
    total = fresh("benchmarks.reads:draw", str(folder), files).value
    for command in ("split", "advise", "fit"):
        title = f"reads, {files:,} files, {command}"
        for run in ("first", "second") if command != "split" else ("first",):
            cache = str(settings.scratch / f"cache-{command}")
            out = str(settings.scratch / f"{command}-{run}")
            counted = fresh("benchmarks.reads:count", command, str(folder), out, CROSSROADS_CACHE=cache).value
            for name in ("distinct files in full", "files in full", *(("beginnings and ends",) if command == "split" else ())):
                yield Row(f"{title}, {run} run, {name}", "reads", (counted[name],), "all files", (files,))
            yield Row(f"{title}, {run} run, bytes", "MB", (counted["bytes"] / 1e6,), "all files", (total / 1e6,))


def draw(folder: str, count: int) -> int:
    """Draws smooth pictures with grain as JPEG files in class folders. Returns their bytes."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    total = 0
    for number in range(count):
        place = Path(folder) / f"class{number % CLASSES}" / f"{number:05}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        if 0 < number <= COPIES:
            place.write_bytes((Path(folder) / "class0" / "00000.jpg").read_bytes())
        else:
            smooth = Image.fromarray(rng.integers(0, 256, (6 + number % CLASSES, 6, 3), dtype=np.uint8))
            pixels = np.asarray(smooth.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
            Image.fromarray((pixels + rng.normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8)).save(place, quality=85)
        total += place.stat().st_size
    return total


class Counted:
    """Images that count how they are read."""

    def __init__(self, images: Any) -> None:
        self._images, self._lock = images, threading.Lock()
        self.full: Counter[int] = Counter()
        self.parts: Counter[int] = Counter()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        return str(self._images.name(index))

    def read(self, index: int) -> bytes:
        raw = bytes(self._images.read(index))
        self._count(self.full, index, len(raw))
        return raw

    def size(self, index: int) -> int | None:
        return None if (size := self._images.size(index)) is None else int(size)

    def head(self, index: int, size: int) -> bytes:
        raw = bytes(self._images.head(index, size))
        self._count(self.parts, index, len(raw))
        return raw

    def short_digest(self, index: int) -> bytes:
        from crossroads.files.byte_ranges import END

        self._count(self.parts, index, min(2 * END, self._images.size(index)))
        return bytes(self._images.short_digest(index))

    def _count(self, counter: Counter[int], index: int, size: int) -> None:
        with self._lock:
            counter[index] += 1
            self.bytes += size

    def figures(self) -> dict[str, int]:
        """Returns the reads of whole files, the files among them, the reads of parts, and the bytes of all reads."""
        return {
            "distinct files in full": len(self.full),
            "files in full": self.full.total(),
            "beginnings and ends": self.parts.total(),
            "bytes": self.bytes,
        }


def count(command: str, folder: str, out: str) -> dict[str, int]:
    """Counts what a command reads: `split` reads and splits the files, as every run does first."""
    import crossroads
    from crossroads.data.partition import load_and_split
    from crossroads.progress import Silent
    from crossroads.recipe import Recipe

    dataset = crossroads.read(folder)
    images = Counted(dataset.images)
    dataset = replace(dataset, images=images)
    if command == "split":
        load_and_split(dataset, None, Recipe(), Silent())
    elif command == "advise":
        crossroads.advise(dataset, backbones="efficientnet-lite0")
    else:
        crossroads.fit(dataset, out=out, strategy="feature-extraction")
    return images.figures()
