"""HDF5 is read once in a process of its own first: its C library can loop for ever, or crash, over a damaged file.

Measured: of small files damaged at random, one in some thousands makes HDF5 1.14 hang within a call that nothing can interrupt.
The rehearsal takes a third of a second. The other formats need none: Python reads them, or a library that checks its header.
"""

from __future__ import annotations

import math
import signal
import subprocess
from pathlib import Path

from crossroads.networks._processes import module_command, module_environment
from crossroads.networks.weights.record import unreadable

SECONDS = 20.0
"""Processor time that reading may take, and one second more for every `RATE` bytes."""
RATE = 10_000_000

STAGE = "crossroads.networks.weights._rehearsed"
"""The module that the other process runs."""

_OVER = -getattr(signal, "SIGXCPU", -1 << 32)  # what a process ends with; on Windows, which has no such signal, no process does

BUSY = 15
"""How many times as long it may take on the clock: on a machine that is busy, or slow to read."""

_READ: set[tuple[Path, int, int]] = set()  # path, size and time of change of the files that this process has seen read to their end


def rehearse(path: Path, origin: str) -> None:
    """Read the file in another process and drop what it holds.

    Raises:
        WeightsError: The other process crashes, does not end, fails, or cannot be started.
    """
    facts = path.stat()
    known = (path.absolute(), facts.st_size, facts.st_mtime_ns)
    if known in _READ:
        return
    limit = SECONDS + facts.st_size / RATE
    command = module_command(STAGE, str(path.absolute()), str(math.ceil(limit)))
    try:
        done = subprocess.run(
            command, check=False, timeout=BUSY * limit, env=module_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    except subprocess.TimeoutExpired as error:
        what = f"a file that takes more than {BUSY * limit:.0f} seconds to read: it is damaged, or the machine is very busy"
        raise unreadable(origin, what) from error
    except OSError as error:
        raise unreadable(origin, f"no process to read it first ({error.strerror})", "end other programs, and try again") from error
    if done.returncode == _OVER:
        raise unreadable(origin, f"a file that takes more than {limit:.0f} seconds of a processor to read: it is damaged")
    if done.returncode < 0 or done.returncode == 0xC0000005:  # a signal on POSIX, an access violation on Windows
        raise unreadable(origin, "a damaged HDF5 file, over which its library crashes")
    if done.returncode:
        said = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        why = f": {said[-1]}" if said else ""
        raise unreadable(origin, f"exit code {done.returncode} of the process that reads it first{why}")
    _READ.add(known)


def limit_processor(seconds: int) -> None:
    """End this process by a signal once it has used a processor for so long; where the system has no such limit, nothing."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
