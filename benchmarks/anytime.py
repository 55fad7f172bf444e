"""Times `fit` without a strategy under a budget: seconds to the first artifact and to the end, and peak memory.

`python -m benchmarks.anytime anytime.jsonl [--alone]` goes on where it stopped; each line of the file is one run.
`python -m benchmarks.anytime anytime.jsonl --table` prints the table of docs/benchmarks.md. The photographs are those of flowers5;
beyond their number, each is used again, mirrored and brightened.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks._measure import SHARED

PHOTOS = (80, 800, 8_000)
BUDGETS = (20, 60, 180, 600)
SIDE = 320
"""Shorter side of the photographs in pixels."""

CLASSES = 5


def photographs(count: int, folder: Path) -> None:
    """Writes photographs of five classes as JPEG files, equally many of each."""
    from PIL import Image, ImageEnhance, ImageOps

    import crossroads

    dataset = crossroads.read(SHARED / "flowers5.tar")
    rows = [[row for row in range(len(dataset)) if dataset.labels[row] == label] for label in range(CLASSES)]
    for label in range(CLASSES):
        home = folder / dataset.classes[label]
        home.mkdir(parents=True)
        for number in range(count // CLASSES):
            again, index = divmod(number, len(rows[label]))
            image = _opened(dataset.read(rows[label][index]))
            if again % 2:
                image = ImageOps.mirror(image)
            if again:
                image = ImageEnhance.Brightness(image).enhance(1 + 0.02 * again)
            scale = SIDE / min(image.size)
            resized = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
            resized.save(home / f"{number:05d}.jpg", quality=88)


def _opened(source: Any) -> Any:
    import io

    from PIL import Image

    return Image.open(io.BytesIO(source)).convert("RGB")


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Runs processes that each occupy a core."""
    code = "while True: pass"
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(processes)]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def measure(photos: Path, budget: int, others: int) -> dict[str, Any]:
    """Runs the command with an empty cache of features, and returns its figures."""
    with tempfile.TemporaryDirectory() as folder, busy(others):
        environment = os.environ | {"CROSSROADS_CACHE": str(Path(folder) / "cache"), "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-m", "crossroads", "fit", str(photos), "--out", f"{folder}/run", "--budget", f"{budget}s"]
        began = time.perf_counter()
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            lines, first = [], None
            for line in process.stdout or ():
                lines.append(line)
                if first is None and "note: saved:" in line:
                    first = time.perf_counter() - began
        seconds = time.perf_counter() - began
        if process.returncode:
            raise RuntimeError("".join(lines[-5:]))
        metrics = json.loads((Path(folder) / "run" / "metrics.json").read_text(encoding="utf-8"))
    part = next((match for line in lines if (match := re.search(r"([\d,]+) of ([\d,]+) training images are used", line))), None)
    return {
        "budget": budget,
        "busy": others,
        "first": None if first is None else round(first, 1),
        "seconds": round(seconds, 1),
        "late": round(max(0.0, seconds - 1.1 * budget - 15), 1),
        "peak_mb": metrics["peak_memory_mb"],
        "strategy": metrics["strategy"],
        "test": metrics["test"]["accuracy"],
        "part": None if part is None else part[0],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Returns a table in Markdown: one line per number of photographs and load, one cell per budget."""
    lines = ["| photographs | " + " | ".join(f"{budget} s" for budget in BUDGETS) + " |", "|" + " --- |" * (1 + len(BUDGETS))]
    for count in PHOTOS:
        for others in (0, 2):
            cells = []
            for budget in BUDGETS:
                row = next((r for r in rows if (r["photos"], r["budget"], r["busy"]) == (count, budget, others)), None)
                cells.append("-" if row is None else f"{row['first']:.0f} / {row['seconds']:.0f} s, {row['peak_mb']:.0f} MB")
            lines.append(f"| {count:,}, {'beside two busy processes' if others else 'alone'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(path: Path, *, show: bool, alone: bool) -> None:
    """Measures what is missing in the file, the short budgets first, or prints the table of what is there."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if show:
        print(table(rows))
        return
    done = {(row["photos"], row["budget"], row["busy"]) for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        for budget in BUDGETS:
            for count in PHOTOS:
                photos = Path(folder) / str(count)
                for others in (0,) if alone else (0, 2):
                    if (count, budget, others) in done:
                        continue
                    if not photos.exists():
                        photographs(count, photos)
                    with path.open("a") as file:
                        file.write(json.dumps({"photos": count, **measure(photos, budget, others)}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), show="--table" in sys.argv, alone="--alone" in sys.argv)
