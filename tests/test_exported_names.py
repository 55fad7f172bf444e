"""The public face: every name is there, documented, and costs nothing until it is used."""

import inspect
import json
import subprocess
import sys

import pytest

import crossroads


def loaded_by(code):
    """Which heavy libraries a fresh interpreter has loaded after `code`."""
    heavy = ("keras", "tensorflow", "jax", "sklearn", "scipy", "openvino", "numpy", "PIL", "rich", "pyarrow")
    script = f"import sys, json\n{code}\nprint(json.dumps([m for m in {heavy!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", crossroads.__all__)
def test_every_public_name_is_there_and_documented(name):
    thing = getattr(crossroads, name)
    assert inspect.getdoc(thing)


def test_dir_lists_them():
    assert set(crossroads.__all__) <= set(dir(crossroads))


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = crossroads.nonsense


def test_importing_crossroads_loads_nothing_heavy():
    assert loaded_by("import crossroads") == set()


def test_help_loads_nothing_heavy():
    code = "import sys; sys.argv = ['crossroads', '--help']\nfrom crossroads.cli import main\ntry: main()\nexcept SystemExit: pass"
    assert loaded_by(code) <= {"rich"}


def test_keras_is_loaded_where_it_is_told_to_be_quiet_and_not_by_an_import():
    assert not loaded_by("import crossroads.api") & {"keras", "tensorflow", "jax"}


def test_reading_auditing_and_predicting_need_no_keras():
    names = ("read", "Audit", "Evaluation", "Predictor", "Recipe", "Silent", "Watcher", "fit")
    code = f"import crossroads\nfor name in {names}: getattr(crossroads, name)"
    assert not loaded_by(code) & {"keras", "tensorflow", "jax"}
