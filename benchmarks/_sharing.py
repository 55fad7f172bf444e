"""One start of `benchmarks.threads`: ``python -m benchmarks._sharing ARTIFACT FIRST``. It ends with 0, or hangs until the watchdog.

``CROSSROADS_BENCH_UNPREPARED=1`` leaves out what makes OpenVINO ready for threads, for the control group.
"""

import faulthandler
import io
import os
import sys
import threading
from collections.abc import Callable

import numpy as np
from PIL import Image

from crossroads import inference
from crossroads.data.dataset import Dataset
from crossroads.predictor import Predictor

THREADS = 24
FIRSTS = ("probabilities", "batches", "predict", "predict-files", "probabilities-of", "several-predictors", "load-in-threads")
"""What the threads ask for first."""


class Files:
    """The same encoded image under each index."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def __len__(self) -> int:
        return 2

    def name(self, index: int) -> str:
        return f"{index}.png"

    def read(self, index: int) -> bytes:
        return self.raw


def request(artifact: str, first: str) -> Callable[[int], int]:
    """What the thread of that number does, and gives the number of its answers."""
    shared = [Predictor.load(artifact) for _ in range(3 if first == "several-predictors" else 1)] * THREADS
    size = shared[0].size
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels[0]).save(file, "PNG")
    rows = Dataset("benchmark", Files(file.getvalue()), np.arange(2), np.zeros(2, np.int32), shared[0].classes)
    asks: dict[str, Callable[[int], int]] = {
        "probabilities": lambda i: len(shared[i].probabilities(pixels)),
        "batches": lambda i: len(shared[i].probabilities(np.repeat(pixels, 40, axis=0))) // 40,
        "predict": lambda i: len(shared[i].predict(pixels, top=1)),
        "predict-files": lambda i: len(shared[i].predict([file.getvalue()] * 2, top=1)),
        "probabilities-of": lambda i: len(shared[i].probabilities_of(rows).probabilities),
        "several-predictors": lambda i: len(shared[i].probabilities(pixels)),
        "load-in-threads": lambda _: len(Predictor.load(artifact).probabilities(pixels)),
    }
    return asks[first]


def main(artifact: str, first: str) -> None:
    # The thread that waits inside OpenVINO holds Python's lock, so nothing of Python runs any more. This watchdog is a thread of C.
    faulthandler.dump_traceback_later(float(os.environ["CROSSROADS_BENCH_PATIENCE"]), exit=True)
    if os.environ.get("CROSSROADS_BENCH_UNPREPARED"):
        inference._fill_type_tables = lambda: None  # type: ignore[assignment]
    ask = request(artifact, first)
    together, answers = threading.Barrier(THREADS), []

    def one(number: int) -> None:
        together.wait()
        answers.append(ask(number))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if answers != [2] * THREADS:
        raise SystemExit(f"{answers} answers in place of 2 for each of {THREADS} threads")


if __name__ == "__main__":
    main(*sys.argv[1:])
