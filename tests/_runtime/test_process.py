"""Covers the settings of the whole process: they are active during a run and restored after it."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
import threading
import warnings

import pytest

from crossroads._runtime import process
from crossroads._runtime.keras_setup import keras_backend
from crossroads._runtime.process import keep_freed_memory, process_settings, warnings_shown
from crossroads.errors import CrossroadsWarning

TENSORFLOW = pytest.mark.skipif(keras_backend() != "tensorflow", reason="TensorFlow is not the backend")


def output(code, *arguments, **environment):
    """Returns the standard output of a new Python process."""
    usual = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=usual | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


RUN = """
import json, logging, os, sys, warnings
import numpy as np
import crossroads
from crossroads.api import fit

def state():
    asker = sys.modules.get("openvino.frontend.tensorflow.utils")
    return {
        "environment": dict(os.environ),
        "level": logging.getLogger("tensorflow").level,
        "filters": [str(kept) for kept in warnings.filters],
        "stubs": [name for name in ("openvino_telemetry",) if name in sys.modules],
        "stderr": [os.fstat(2).st_dev, os.fstat(2).st_ino],
        "patched": [name for name in ("exec",) if name in vars(asker or sys)],
        "random": str(np.random.get_state()),
        "showwarning": str(warnings.showwarning),
    }

warnings.simplefilter("error")  # Keras raises a DeprecationWarning
images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
options = {"strategy": "from-scratch", "backbone": "quiz-cnn", "image_size": 16, "epochs": 1}
before = state()
during = []
class States(crossroads.api.Silent):
    def epoch(self, *record):
        during.append(state())
try:
    fit((images, np.arange(24) % 2), out=sys.argv[1] + "/none", watcher=States(), **(options | {"epochs": 0}))
except crossroads.CrossroadsError:
    refused = state()
fit((images, np.arange(24) % 2), out=sys.argv[1] + "/run", watcher=States(), **options)
after = state()
forked = os.fork()
if not forked:
    try:
        fit((images, np.arange(24) % 2), out=sys.argv[1] + "/forked", **options)
    except crossroads.CrossroadsError as error:
        os._exit(7 if type(error).__name__ == "SetupError" else 1)
    os._exit(0)
child = os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1])
print(json.dumps([before, during, refused, after, child]))
"""


@TENSORFLOW
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
def test_a_run_leaves_the_process_as_it_was_even_if_warnings_are_errors(tmp_path):
    before, during, refused, after, child = json.loads(output(RUN, str(tmp_path)).splitlines()[-1])
    assert refused == before
    assert after == before
    assert during
    assert during[0]["environment"] != before["environment"]
    assert during[0]["level"] == logging.ERROR
    assert child == 7, "a fit in a process that was forked from one with TensorFlow is refused"


def test_settings_are_restored_after_an_error_and_those_of_the_user_stay(monkeypatch):
    monkeypatch.setattr(process, "_loaded_here", True)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    before = dict(os.environ)

    @process_settings()
    def fails():
        during.update(os.environ)
        os.environ["KMP_INIT_AT_FORK"] = "FALSE"  # as an import does
        del os.environ["TF_ENABLE_ONEDNN_OPTS"]
        raise KeyError

    during: dict[str, str] = {}
    with pytest.raises(KeyError):
        fails()
    assert during["TF_CPP_MIN_LOG_LEVEL"] == "2"
    assert during["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert dict(os.environ) == before


def test_variables_of_the_caller_are_not_touched(monkeypatch):
    monkeypatch.delenv("CALLER_ANSWER", raising=False)
    with process_settings():
        os.environ["CALLER_ANSWER"] = "set by another thread meanwhile"
    assert os.environ.pop("CALLER_ANSWER")


def test_the_old_keras_is_hidden_if_it_is_not_installed(monkeypatch):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with process_settings():
        assert "TF_USE_LEGACY_KERAS" not in os.environ
    assert os.environ["TF_USE_LEGACY_KERAS"] == "1"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with process_settings():
        assert os.environ["TF_USE_LEGACY_KERAS"] == "1"


def test_the_last_of_several_threads_restores_the_settings():
    logger = logging.getLogger("tensorflow")
    before = logger.level
    inside, leave = threading.Event(), threading.Event()

    def other():
        with process_settings():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with process_settings():
        thread.start()
        inside.wait()
    assert logger.level == logging.ERROR
    leave.set()
    thread.join()
    assert logger.level == before


def test_a_warning_that_would_be_an_error_is_shown(recwarn):
    with warnings.catch_warnings(action="error"):
        asked = warnings.filters
        with warnings_shown(), pytest.warns(UserWarning, match="shown"):
            warnings.warn("shown", UserWarning, stacklevel=1)
        assert warnings.filters is asked
        with pytest.raises(UserWarning):
            warnings.warn("raised", UserWarning, stacklevel=1)


@pytest.mark.parametrize("filters", [{}, {"category": UserWarning}, {"category": CrossroadsWarning}], ids=repr)
def test_a_warning_of_this_package_stays_an_error(filters):
    with warnings.catch_warnings():
        warnings.simplefilter("error", **filters)
        with process_settings(), pytest.raises(CrossroadsWarning):
            warnings.warn("raised", CrossroadsWarning, stacklevel=1)


def test_filters_without_errors_are_left_alone():
    with warnings.catch_warnings():
        warnings.resetwarnings()
        asked = warnings.filters
        with warnings_shown():
            assert warnings.filters is asked


CHATTER = """
import os, sys
from crossroads._runtime.process import without_chatter
before = os.fstat(2)
try:
    with without_chatter():
        os.write(2, b"oneDNN custom operations are on\\nout of memory\\n")
        raise KeyError
except KeyError:
    pass
after = os.fstat(2)
print((before.st_dev, before.st_ino) == (after.st_dev, after.st_ino))
"""


@pytest.mark.parametrize("temporary", ["", "/no/such/folder"])
def test_start_up_notices_are_filtered_and_other_output_is_passed_on(temporary):
    command = [sys.executable, "-c", CHATTER]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "TMPDIR": temporary})
    assert done.stdout == "True\n"
    assert "out of memory\n" in done.stderr
    assert done.stderr == "out of memory\n" or temporary


def test_a_closed_error_stream_is_no_obstacle():
    command = (
        f"{sys.executable} -c 'from crossroads._runtime.process import without_chatter\nwith without_chatter(): print(1)' 2>&-"
    )
    if os.name == "posix":
        assert subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout == "1\n"


OWN_NETWORK = """
from crossroads._runtime.keras_setup import library_versions
from crossroads._runtime.process import process_settings
from crossroads.networks.construct import choose
with process_settings():
    print(choose("own_quiet_net:net").record.sizes)
    from tensorflow.python.util import _pywrap_util_port
    print(_pywrap_util_port.IsMklEnabled(), library_versions()["onednn"])
with process_settings():
    print(library_versions()["onednn"])
"""
X86 = platform.machine().lower() in ("x86_64", "amd64")


@TENSORFLOW
@pytest.mark.parametrize(
    ("asked", "shown"),
    [({}, ["True", "1", "1"]), pytest.param({"TF_ENABLE_ONEDNN_OPTS": "0"}, ["False", "0", "0"], marks=pytest.mark.slow)],
    ids=["by default", "disabled"],
)
def test_a_network_of_the_users_own_starts_tensorflow_quietly_and_with_onednn_unless_it_is_disabled(tmp_path, asked, shown):
    net = "import keras\nnet = keras.Sequential([keras.Input((24, 24, 3)), keras.layers.Conv2D(2, 3)])\n"
    (tmp_path / "own_quiet_net.py").write_text(net)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    places = os.pathsep.join(entry for entry in sys.path if entry)
    command = [sys.executable, "-c", OWN_NETWORK]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment | {"PYTHONPATH": places} | asked
    )
    sizes, *onednn = done.stdout.splitlines()
    assert sizes == "(24,)"
    assert " ".join(onednn).split() == shown or not X86
    assert "InitializeLog" not in done.stderr
    assert "oneDNN" not in done.stderr


FAULTS = """
import resource, sys
import numpy as np
from crossroads._runtime.process import keep_freed_memory, process_settings
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        maps = [np.ones(1 << 18) for _ in range(40)]  # 2 MiB each
        del maps
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
usual = faults()
with process_settings():
    kept = faults()
print(usual, kept, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or not keep_freed_memory(), reason="not the GNU C library")
def test_freed_memory_is_reused_during_a_run_and_not_after_it():
    usual, kept, after = map(int, output(FAULTS).split())
    assert kept < usual / 4
    assert after > kept * 2
