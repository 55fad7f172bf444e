"""A table of a million rows: what it takes to read and to split it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks._measure import Row, Settings, fresh

LIMIT_MB = 1024.0
CLASSES, FILES = 100, 1_000


def manifest_memory(settings: Settings) -> Iterator[Row]:
    rows = settings.size(1_000_000, 10_000)
    table = settings.scratch / "manifest" / "labels.csv"
    fresh("benchmarks.manifest:write", str(table), rows)
    runs = [fresh("benchmarks.manifest:read_and_split", str(table), rows) for _ in range(settings.runs)]
    title = f"manifest-memory, {rows:,} rows of CSV"
    yield Row(f"{title}, peak", "MB", tuple(run.peak_mb for run in runs), "limit", (LIMIT_MB,))
    yield Row(f"{title}, read", "s", tuple(run.value[0] for run in runs))
    yield Row(f"{title}, split", "s", tuple(run.value[1] for run in runs))


def write(table: str, rows: int) -> None:
    """The table, over 1,000 small real files that many links to their folder name again: 100 classes, and groups of ten rows."""
    from PIL import Image

    files = Path(table).parent / "files"
    files.mkdir(parents=True)
    for file in range(FILES):
        Image.new("RGB", (2, 2)).save(files / f"{file:03}.png")
    with Path(table).open("w", encoding="utf-8") as lines:
        lines.write("path,label,group\n")
        for row in range(rows):
            link, file = divmod(row, FILES)
            if file == 0:
                (files.parent / f"{link:04}").symlink_to(files)
            lines.write(f"{link:04}/{file:03}.png,class {file % CLASSES},{file % CLASSES}-{link}\n")


def read_and_split(table: str, rows: int) -> tuple[float, float]:
    """Seconds of each."""
    import crossroads
    from crossroads.data.splits import split

    started = time.perf_counter()
    dataset = crossroads.read(table)
    read = time.perf_counter()
    parts = split(dataset, validation=0.1, test=0.1, seed=0)
    done = time.perf_counter()
    counted = len(parts.train) + len(parts.validation) + parts.test.n
    if counted != rows:
        raise RuntimeError(f"{counted} of {rows} rows came back")
    return read - started, done - read
