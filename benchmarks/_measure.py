"""What every benchmark shares: rows of a table, sides that take turns, fresh processes with their time and peak memory."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure.

    Attributes:
        runs: Turns of each side.
        quick: Whether only to check that it runs.
        scratch: A folder that is removed after.
        starts: Process starts, for `threads`.
        progress: A file in which `threads` notes each start, and from which it goes on; None for none.
    """

    runs: int
    quick: bool
    scratch: Path
    starts: int = 100
    progress: Path | None = None

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        name: What was measured; unique.
        unit: Of both sides, such as ``images/s``; empty for a share.
        ours: One sample a run.
        against: What the other side is; empty where there is none.
        theirs: One sample a run, or a single limit.
    """

    name: str
    unit: str
    ours: tuple[float, ...]
    against: str = ""
    theirs: tuple[float, ...] = ()

    def ratio(self) -> tuple[float, float, float] | None:
        """Median of ours over median of theirs, with the least and greatest ratio of a single run; None without a side above 0."""
        if not self.theirs or not all(self.theirs):
            return None
        theirs = self.theirs * len(self.ours) if len(self.theirs) == 1 else self.theirs
        single = [a / b for a, b in zip(self.ours, theirs, strict=True)]
        return statistics.median(self.ours) / statistics.median(theirs), min(single), max(single)

    def cells(self) -> tuple[str, str, str, str, str]:
        """Name, ours, theirs, ratio, runs, as text."""
        theirs = f"{self.against}: {_shown(self.theirs, self.unit)}" if self.theirs else "-"
        ratio = self.ratio()
        share = "-" if ratio is None else f"{ratio[0]:.2f} ({ratio[1]:.2f}..{ratio[2]:.2f})"
        return self.name, _shown(self.ours, self.unit), theirs, share, str(len(self.ours))

    def to_json(self) -> dict[str, Any]:
        """All samples, and what the table says of them."""
        ratio = self.ratio()
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": list(self.ours),
            "against": self.against or None,
            "theirs": list(self.theirs),
            "median_ours": statistics.median(self.ours),
            "median_theirs": statistics.median(self.theirs) if self.theirs else None,
            "ratio": None if ratio is None else dict(zip(("median", "min", "max"), ratio, strict=True)),
        }


def _shown(samples: Sequence[float], unit: str) -> str:
    low, middle, high = min(samples), statistics.median(samples), max(samples)
    spread = "" if low == high else f" ({_number(low)}..{_number(high)})"
    return f"{_number(middle)}{' ' * bool(unit)}{unit}{spread}"


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"


def alternate(runs: int, *sides: Callable[[], float], warm_up: bool = True) -> list[tuple[float, ...]]:
    """`runs` samples of each side, taken in turns (A B A B ...) so that what else the machine does meets both alike.

    Args:
        runs: Rounds that count.
        sides: Each returns one sample.
        warm_up: One round first that does not count: file caches, allocators, threads.
    """
    rounds = [[side() for side in sides] for _ in range(runs + warm_up)]
    return list(zip(*rounds[warm_up:], strict=True))


def seconds_of(action: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


class Fresh(NamedTuple):
    """What a function gave back in a fresh process, and the most memory that the process held, in MiB."""

    value: Any
    peak_mb: float


def fresh(function: str, *arguments: Any, **environment: str) -> Fresh:
    """Calls ``module:function`` of this package with plain JSON values in a new Python process, with further variables.

    Raises:
        RuntimeError: The process failed; carries the end of what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "benchmarks._child", str(answer), function, json.dumps(arguments)]
        run(command, **environment)
        return Fresh(**json.loads(answer.read_text(encoding="utf-8")))


def run(command: Sequence[str], *, show_errors: bool = False, **environment: str) -> str:
    """Standard output of a command, run from the root of the repository with further variables of the environment.

    Raises:
        RuntimeError: The command failed; carries the end of what it said.
    """
    done = subprocess.run(
        list(command),
        cwd=ROOT,
        env={"TF_CPP_MIN_LOG_LEVEL": "3"} | os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=None if show_errors else subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)[:200]} exited with {done.returncode}\n{(done.stderr or '')[-2000:]}")
    return done.stdout


def crossroads(*arguments: str | Path) -> list[str]:
    """A call of the console script that is installed beside this Python."""
    return [str(Path(sysconfig.get_path("scripts")) / "crossroads"), *map(str, arguments)]


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MiB.

    On Linux from /proc: `getrusage` there also counts what the parent held when it started this process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
