"""HDF5 is read once in a process of its own first: its C library can loop for ever, or crash, over a damaged file.

Measured: of small files damaged at random, one in some thousands makes HDF5 1.14 hang within a call that nothing can interrupt.
The rehearsal takes a third of a second. The other formats need none: Python reads them, or a library that checks its header.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from crossroads.errors import CrossroadsError
from crossroads.networks._processes import module_command, module_environment
from crossroads.networks.weights.record import unreadable

SECONDS = 20.0
"""How long reading may take, and one second more for every `RATE` bytes."""
RATE = 10_000_000


def rehearse(path: Path, origin: str) -> None:
    """Read the file in another process and drop what it holds.

    Raises:
        WeightsError: The other process crashes, does not end, fails, or cannot be started.
    """
    command = module_command(__name__, str(path.absolute()))
    limit = SECONDS + path.stat().st_size / RATE
    try:
        done = subprocess.run(
            command, check=False, timeout=limit, env=module_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    except subprocess.TimeoutExpired as error:
        raise unreadable(origin, f"a file that takes more than {limit:.0f} seconds to read: it is damaged") from error
    except OSError as error:
        raise unreadable(origin, f"no process to read it first ({error.strerror})", "end other programs, and try again") from error
    if done.returncode < 0 or done.returncode == 0xC0000005:  # a signal on POSIX, an access violation on Windows
        raise unreadable(origin, "a damaged HDF5 file, over which its library crashes")
    if done.returncode:
        said = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        why = f": {said[-1]}" if said else ""
        raise unreadable(origin, f"exit code {done.returncode} of the process that reads it first{why}")


if __name__ == "__main__":
    from contextlib import suppress

    from crossroads.networks.weights.files import read_unrehearsed

    with suppress(CrossroadsError):  # told by the process that asked
        read_unrehearsed(Path(sys.argv[1]))
