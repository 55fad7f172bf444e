"""What the process does that reads a file first: ``python -m crossroads.networks.weights._rehearsed FILE SECONDS``."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from crossroads.errors import CrossroadsError
from crossroads.networks.weights._hdf5_check import limit_processor
from crossroads.networks.weights.read import read_unrehearsed

if __name__ == "__main__":
    limit_processor(int(sys.argv[2]))
    with suppress(CrossroadsError):  # told by the process that asked
        read_unrehearsed(Path(sys.argv[1]))
