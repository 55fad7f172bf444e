"""Reads an HDF5 file in a child process first, because the C library can hang or crash on a damaged file.

Of small files with random damage, about one in several thousand makes HDF5 1.14 hang in a call that cannot be interrupted. The
check takes a third of a second. Other formats do not need it, because Python reads them, or a library that checks the header.

The child process runs this module: ``python -m crossroads.networks.weights._hdf5_check FILE SECONDS [MEMBER]``.
"""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from crossroads.errors import CrossroadsError
from crossroads.files.byte_ranges import ByteRange
from crossroads.files.trees import open_archive
from crossroads.networks._processes import module_command, module_environment
from crossroads.networks.weights.record import unreadable

SECONDS = 20.0
"""Limit of the CPU time for reading, in seconds. One second is added for every `RATE` bytes."""
RATE = 10_000_000
BUSY = 15
"""Factor by which the wall-clock time may exceed the limit of the CPU time, for busy machines and slow disks."""
_PROGRAM = "crossroads.networks.weights._hdf5_check"
_CPU_LIMIT_EXIT = -getattr(signal, "SIGXCPU", -1 << 32)  # exit code at the processor limit; Windows has no such signal
_CHECKED: set[tuple[Path, int, int]] = set()  # path, size and modification time of the files that this process has checked


def check_hdf5(path: Path, origin: str, member: str = "") -> None:
    """Reads an HDF5 file, or the member of a zip archive, in a child process and drops the result.

    Raises:
        WeightsError: The child crashes, does not end, fails, or cannot be started.
    """
    facts = path.stat()
    known = (path.absolute(), facts.st_size, facts.st_mtime_ns)
    if known in _CHECKED:
        return
    limit = SECONDS + facts.st_size / RATE
    command = module_command(_PROGRAM, str(path.absolute()), str(math.ceil(limit)), member)
    try:
        done = subprocess.run(
            command, check=False, timeout=BUSY * limit, env=module_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    except subprocess.TimeoutExpired as error:
        what = f"a file that takes more than {BUSY * limit:.0f} seconds to read; it is damaged, or the machine is very busy"
        raise unreadable(origin, what, code="weights-hang") from error
    except OSError as error:
        what = f"no child process to check it ({error.strerror})"
        raise unreadable(origin, what, "end other programs, and try again", code="weights-check") from error
    if done.returncode == _CPU_LIMIT_EXIT:
        what = f"a damaged file, which takes more than {limit:.0f} seconds of CPU time to read"
        raise unreadable(origin, what, code="weights-hang")
    if done.returncode < 0 or done.returncode == 0xC0000005:  # a signal on POSIX, an access violation on Windows
        raise unreadable(origin, "a damaged HDF5 file, on which its library crashes", code="weights-crash")
    if done.returncode:
        lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        why = f": {lines[-1]}" if lines else ""
        raise unreadable(origin, f"exit code {done.returncode} of the child process that checks it{why}", code="weights-check")
    _CHECKED.add(known)


def limit_processor(seconds: int) -> None:
    """Makes a signal end this process after `seconds` of CPU time. Does nothing on Windows, which has no such limit."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))


def _main(path: Path, seconds: int, member: str) -> None:
    from crossroads.networks.weights._hdf5 import read_hdf5  # h5py is installed with Keras; the parent process does not need it

    limit_processor(seconds)
    with suppress(CrossroadsError):  # the parent reads the file again and reports it
        span = ByteRange.from_path(path)
        read_hdf5(open_archive(span, "zip", path.name).byte_range(member) if member else span, path.name)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
