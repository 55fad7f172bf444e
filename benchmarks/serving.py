"""Requests a second and their times, beside an endpoint of FastAPI and Keras and beside LitServe with the same graph."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks._measure import ROOT, SHARED, Row, Settings, crossroads, fresh, run

LITSERVE = "LITSERVE_PYTHON"
"""Variable of the environment with the path of a Python that has LitServe, OpenVINO and Pillow. Without it, there is no row."""

CONNECTIONS = (16, 1, 128)
VARIANTS = {"one at a time": (1, 1), "batches of 8": (8, 1), "2 workers": (1, 2)}
"""Batch size and workers of LitServe. Its row is the best of them, measured first."""


@dataclass(frozen=True, slots=True)
class Side:
    """A running server.

    Attributes:
        name: What it is.
        port: Where it listens.
        path: Where predictions are asked for.
        field: Name of the field of the form.
        process: Its process.
    """

    name: str
    port: int
    path: str
    field: str
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Processor time of the server and of its workers so far."""
        processes = [self.process, *self.process.children(recursive=True)]
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    def load(self, files: Sequence[Path], connections: int, seconds: float, *more: str) -> dict[str, Any]:
        """What the clients saw, and ``per_cpu_second``: answered requests per second of processor time of the server."""
        command = [sys.executable, "-m", "benchmarks._load", "127.0.0.1", str(self.port), self.path, str(connections), str(seconds)]
        before, began = self.cpu_seconds(), time.perf_counter()
        seen: dict[str, Any] = json.loads(run([*command, *map(str, files), "--field", self.field, *more]))
        answered = seen["statuses"].get("200", 0)
        return seen | {"per_cpu_second": answered / max(0.01, self.cpu_seconds() - before), "wall": time.perf_counter() - began}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(name: str, command: Sequence[str | Path], port: int, path: str, field: str) -> Iterator[Side]:
    """A server that answers, until the context ends."""
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        env={"TF_CPP_MIN_LOG_LEVEL": "3"} | os.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise RuntimeError(f"{name} did not start")
        yield Side(name, port, path, field, psutil.Process(process.pid))
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        for child in children:
            if child.is_running():
                child.kill()


def ours(artifact: Path) -> Any:
    port = free_port()
    command = [*crossroads("serve", artifact), "--port", str(port)]
    return started("crossroads", command, port, "/v1/predict", "images")


def keras(model: Path) -> Any:
    port = free_port()
    return started(
        "FastAPI and Keras", [sys.executable, "-m", "benchmarks._endpoint", model, str(port)], port, "/predict", "images"
    )


def litserve(artifact: Path, size: int, batch: int, workers: int) -> Any:
    port = free_port()
    script = ROOT / "benchmarks" / "_litserve_endpoint.py"
    command = [os.environ[LITSERVE], script, artifact / "model.xml", str(size), str(port), str(batch), str(workers)]
    return started("LitServe", command, port, "/predict", "request")


def serving(settings: Settings) -> Iterator[Row]:
    seconds = 1.0 if settings.quick else 3.0
    for title, artifact, model, size, files in subjects(settings):
        with ExitStack() as stack:
            sides = [stack.enter_context(ours(artifact)), stack.enter_context(keras(model))]
            if LITSERVE in os.environ:
                sides.append(stack.enter_context(litserve(artifact, size, *best_variant(artifact, size, files, seconds))))
            for side in sides:
                warm_up(side, files)
            for connections in CONNECTIONS:
                yield from compared(title, sides, files, connections, seconds, settings.runs)


def subjects(settings: Settings) -> Iterator[tuple[str, Path, Path, int, list[Path]]]:
    """Name, artifact, Keras model, size and files: digits on a small network, and photos on EfficientNet-Lite0."""
    digits = settings.scratch / "digits"
    fresh("benchmarks.artifacts:make", str(digits))
    yield "digits, small-cnn 32 px", digits, digits / "model.keras", 32, [settings.scratch / "digit.png"]
    photos, model = settings.scratch / "photos", settings.scratch / "photos.keras"
    run([*crossroads("fit", SHARED / "ants_bees.tar", "--strategy", "feature-extraction", "--out", photos, "--no-report")])
    run([*crossroads("export", photos, "--out", model)])
    yield "photos, efficientnet-lite0 224 px", photos, model, 224, some_photos(settings.scratch)


def some_photos(folder: Path) -> list[Path]:
    """32 photos of ants and bees, of many sizes."""
    target = folder / "files"
    target.mkdir(exist_ok=True)
    with tarfile.open(SHARED / "ants_bees.tar") as archive:
        members = [member for member in archive.getmembers() if "/val/" in member.name and member.name.endswith(".jpg")]
        for number, member in enumerate(members[:: len(members) // 32][:32]):
            with (target / f"{number}.jpg").open("wb") as file:
                shutil.copyfileobj(archive.extractfile(member), file)
    return sorted(target.glob("*.jpg"))


def warm_up(side: Side, files: Sequence[Path]) -> None:
    """Waits until the server answers, which LitServe does after it listens."""
    end = time.monotonic() + 120
    while side.load(files, 4, 1.0)["rate"] == 0:
        if time.monotonic() > end:
            raise RuntimeError(f"{side.name} does not answer")


def best_variant(artifact: Path, size: int, files: Sequence[Path], seconds: float) -> tuple[int, int]:
    rates = {}
    for variant in VARIANTS.values():
        with litserve(artifact, size, *variant) as side:
            warm_up(side, files)
            rates[variant] = max(side.load(files, 16, seconds)["rate"] for _ in range(2))
    return max(rates, key=lambda variant: rates[variant])


def compared(
    title: str, sides: Sequence[Side], files: Sequence[Path], connections: int, seconds: float, runs: int
) -> Iterator[Row]:
    """Rows of rates and of times. The sides take turns."""
    rounds = [[side.load(files, connections, seconds) for side in sides] for _ in range(runs)]
    mine, *others = ([each[number] for each in rounds] for number in range(len(sides)))
    for side, theirs in zip(sides[1:], others, strict=True):
        for figure, unit in (
            ("rate", "requests/s"),
            ("per_cpu_second", "requests/CPU s"),
            ("p50_ms", "ms, p50"),
            ("p99_ms", "ms, p99"),
        ):
            name = f"serving, {title}, {connections} connections, {unit}, {side.name}"
            yield Row(name, unit, tuple(each[figure] for each in mine), side.name, tuple(each[figure] for each in theirs))


def overload(settings: Settings) -> Iterator[Row]:
    """Times at half and at twice the capacity, and the requests that are refused and lost."""
    for title, artifact, _, _, files in subjects(settings):
        with ours(artifact) as side:
            capacity = side.load(files, 16, 4.0)["rate"]
            for factor in (0.5, 2.0):
                seen = side.load(files, 1, 6.0, "--rate", str(max(1.0, factor * capacity)))
                name = f"overload, {title}, {factor:g} times the capacity"
                yield Row(f"{name}, p50", "ms", (seen["p50_ms"],))
                yield Row(f"{name}, p99", "ms", (seen["p99_ms"],))
                total = sum(seen["statuses"].values())
                yield Row(f"{name}, answered", "%", (100 * seen["statuses"].get("200", 0) / total,))
                yield Row(f"{name}, refused with 503", "%", (100 * seen["statuses"].get("503", 0) / total,))
                yield Row(f"{name}, lost", "requests", (seen["statuses"].get("0", 0),))


def endurance(settings: Settings) -> Iterator[Row]:
    """Memory after many requests, and requests that are lost at SIGTERM under load."""
    _, artifact, _, _, files = next(iter(subjects(settings)))
    with ours(artifact) as side:
        side.load(files, 16, 5.0)
        before, sent, rounds = side.process.memory_info().rss, 0, 0
        while sent < settings.size(100_000, 2_000):
            sent += sum(side.load(files, 16, 10.0)["statuses"].values())
            rounds += 1
        grown = (side.process.memory_info().rss - before) / 2**20
        yield Row(f"endurance, growth over {sent:,} requests", "MB", (grown,))
        clients = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._load", "127.0.0.1", str(side.port), side.path, "16", "4", *map(str, files)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(2.0)
        side.process.send_signal(signal.SIGTERM)
        statuses = json.loads(clients.communicate()[0])["statuses"]
        yield Row("endurance, answered before SIGTERM", "requests", (statuses.get("200", 0),))
        yield Row("endurance, lost at SIGTERM", "requests", (statuses.get("0", 0),))


def start(settings: Settings) -> Iterator[Row]:
    """Time from the start of the process to the first answer of ``/ready``, and the memory then."""
    _, artifact, _, _, files = list(subjects(settings))[-1]
    times, memory, later = [], [], []
    for _ in range(settings.runs):
        began = time.perf_counter()
        with ours(artifact) as side:
            while True:
                try:
                    with socket.create_connection(("127.0.0.1", side.port)) as connection:
                        connection.sendall(b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                        if connection.recv(100).startswith(b"HTTP/1.1 200"):
                            break
                except OSError:
                    time.sleep(0.01)
            times.append(time.perf_counter() - began)
            memory.append(side.process.memory_info().rss / 2**20)
            side.load(files, 16, 2.0)
            later.append(side.process.memory_info().rss / 2**20)
    yield Row("serving-start, ready", "s", tuple(times), "aim", (2.0,))
    yield Row("serving-start, memory when ready", "MB", tuple(memory), "aim", (300.0,))
    yield Row("serving-start, memory under load", "MB", tuple(later))
