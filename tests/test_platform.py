"""What differs between operating systems."""

import subprocess
import sys

import pytest

from crossroads._platform import keep_freed_memory

FAULTS = """
import resource, sys
import numpy as np
from crossroads._platform import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
for _ in range(20):
    maps = [np.ones(1 << 18) for _ in range(40)]  # 2 MiB each
    del maps
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or not keep_freed_memory(), reason="not the GNU C library")
def test_freed_memory_is_used_again():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], check=True, capture_output=True, text=True).stdout)
        for how in ("kept", "usual")
    }
    assert faults["kept"] < faults["usual"] / 4
