"""Covers the public names: each exists, is documented, and loads nothing before it is used."""

import inspect
import json
import subprocess
import sys

import pytest

import crossroads


def loaded_by(code):
    """Returns the heavy libraries that a new interpreter has loaded after `code`."""
    heavy = ("keras", "tensorflow", "jax", "sklearn", "scipy", "openvino", "numpy", "PIL", "rich", "pyarrow")
    script = f"import sys, json\n{code}\nprint(json.dumps([m for m in {heavy!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", crossroads.__all__)
def test_every_public_name_exists_and_is_documented(name):
    assert inspect.getdoc(getattr(crossroads, name))


def test_dir_lists_the_public_names():
    assert set(crossroads.__all__) <= set(dir(crossroads))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = crossroads.nonsense


def test_importing_crossroads_loads_nothing_heavy():
    assert loaded_by("import crossroads") == set()


def test_help_loads_nothing_heavy():
    code = "import sys; sys.argv = ['crossroads', '--help']\nfrom crossroads.cli import main\ntry: main()\nexcept SystemExit: pass"
    assert loaded_by(code) <= {"rich"}


def test_importing_the_api_does_not_load_keras():
    assert not loaded_by("import crossroads.api") & {"keras", "tensorflow", "jax"}


def test_reading_auditing_and_predicting_need_no_keras():
    names = ("read", "Audit", "Evaluation", "Predictor", "Recipe", "Silent", "Watcher", "fit")
    code = f"import crossroads\nfor name in {names}: getattr(crossroads, name)"
    assert not loaded_by(code) & {"keras", "tensorflow", "jax"}
