"""One predictor that threads share from its first request on: how many fresh processes hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._measure import ROOT, Row, Settings, fresh
from benchmarks._sharing import FIRSTS

CONTROL = 50
"""One start of the control group, which is not made ready for threads, for so many of ours."""

PATIENCE = 60
"""Seconds after which a start hangs that otherwise takes a third of one."""


def threads(settings: Settings) -> Iterator[Row]:
    artifact = settings.scratch / "artifact"
    fresh("benchmarks.artifacts:make", str(artifact))
    ours, theirs = Starts(settings.progress), Starts(settings.progress, unprepared=True)
    for number in range(settings.starts):
        ours.make(number, artifact)
        if number % CONTROL == 0:
            theirs.make(number, artifact)
    title = f"threads, of {len(ours.ended):,} process starts"
    against = f"tables not filled, of {len(theirs.ended):,}"
    yield Row(f"{title}, hung", "", (float(ours.count("hung")),), against, (float(theirs.count("hung")),))
    yield Row(f"{title}, failed otherwise", "", (float(ours.count("failed")),), against, (float(theirs.count("failed")),))


class Starts:
    """The starts of one side, each in a line of the file of progress where there is one: what stands there is not done again."""

    def __init__(self, progress: Path | None, *, unprepared: bool = False) -> None:
        self.ended: dict[int, str] = {}
        self._progress, self._side = progress, "unprepared" if unprepared else "ours"
        lines = progress.read_text(encoding="utf-8").splitlines() if progress is not None and progress.exists() else []
        for line in map(json.loads, lines):
            if line["side"] == self._side:
                self.ended[line["start"]] = line["ended"]

    def make(self, number: int, artifact: Path) -> None:
        """The start of that number, if it is not done yet."""
        if number in self.ended:
            return
        first = FIRSTS[number % len(FIRSTS)]
        started = time.perf_counter()
        ended, said = start(artifact, first, unprepared=self._side == "unprepared")
        self.ended[number] = ended
        line: dict[str, Any] = {"start": number, "side": self._side, "first": first, "ended": ended}
        line["seconds"] = round(time.perf_counter() - started, 2)
        if ended != "finished":
            line["said"] = said[-2000:]
        if self._progress is not None:
            with self._progress.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def count(self, ended: str) -> int:
        return sum(how == ended for how in self.ended.values())


def start(artifact: Path, first: str, *, unprepared: bool = False, patience: float = PATIENCE) -> tuple[str, str]:
    """Starts a process whose threads share a predictor: ``finished``, ``hung`` or ``failed``, and what it said.

    Args:
        artifact: A finished one.
        first: What the threads ask for first, of `FIRSTS`.
        unprepared: Whether OpenVINO is used as it is imported, for the control group.
        patience: Seconds after which it hangs.
    """
    known = {"CROSSROADS_BENCH_PATIENCE": str(patience), "CROSSROADS_BENCH_UNPREPARED": "1" if unprepared else ""}
    command = [sys.executable, "-m", "benchmarks._sharing", str(artifact), first]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **known}, capture_output=True, text=True, check=False, timeout=patience + 60
        )
    except subprocess.TimeoutExpired as error:
        return "hung", str(error)
    if done.returncode == 0:
        return "finished", done.stdout
    return ("hung" if done.stderr.startswith("Timeout (") else "failed"), done.stderr
