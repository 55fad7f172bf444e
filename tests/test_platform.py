"""What differs between operating systems."""

import os
import platform
import subprocess
import sys

import pytest

from crossroads import _platform
from crossroads._platform import available_memory_mb, keep_freed_memory

ONEDNN = """
from crossroads._platform import library_versions, load_keras
load_keras()
from tensorflow.python.util import _pywrap_util_port
print(_pywrap_util_port.IsMklEnabled(), library_versions()["onednn"])
"""


def _told(code, *arguments, **environment):
    usual = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=usual | environment).stdout.strip()


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="not an x86 processor")
@pytest.mark.skipif(_platform.keras_backend() != "tensorflow", reason="a setting of TensorFlow's")
def test_tensorflow_trains_with_onednn_unless_the_user_says_otherwise():
    assert _told(ONEDNN) == "True 1"
    assert _told(ONEDNN, TF_ENABLE_ONEDNN_OPTS="0") == "False 0"


FAULTS = """
import resource, sys
import numpy as np
from crossroads import _platform
from crossroads._platform import available_memory_mb, keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
for _ in range(20):
    maps = [np.ones(1 << 18) for _ in range(40)]  # 2 MiB each
    del maps
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or not keep_freed_memory(), reason="not the GNU C library")
def test_freed_memory_is_used_again():
    faults = {how: int(_told(FAULTS, how)) for how in ("kept", "usual")}
    assert faults["kept"] < faults["usual"] / 4


def test_a_container_leaves_less_memory_than_its_machine_has(tmp_path, monkeypatch):
    usual = available_memory_mb()
    for name, text in (
        ("memory.max", "1073741824"),
        ("memory.current", "805306368"),
        ("memory.stat", "anon 1\ninactive_file 268435456"),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(_platform, "_CONTAINERS", ((str(tmp_path), "memory.max", "memory.current", "inactive_file"),))
    assert available_memory_mb() == min(512, usual or 512)
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(_platform, "_CONTAINERS", ((str(tmp_path), "memory.max", "memory.current", "inactive_file"),))
    assert available_memory_mb() != 512
