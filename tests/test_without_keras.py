"""Covers an installation without the extra `train`: frozen strategies work whole, and what trains says what to install."""

import json
import os
import subprocess
import sys

import pytest

WITHOUT = """
import importlib.machinery, json, sys
from pathlib import Path

finder = importlib.machinery.PathFinder.find_spec
absent = ("keras", "tensorflow", "h5py", "jax")
importlib.machinery.PathFinder.find_spec = classmethod(
    lambda cls, name, path=None, target=None: None if name.split(".")[0] in absent else finder(name, path, target)
)
"""

WORK = """
import crossroads
from crossroads import demo
from crossroads.run.export import export_keras
from pictures import stripes

images, labels = stripes(40, size=32)
options = {"strategy": "feature-extraction", "image_size": 32, "test_fraction": 0.2, "validation": 0.25}
run = crossroads.fit((images, labels), out="run", watcher=crossroads.Silent(), **options)


def code_of(call):
    try:
        call()
    except crossroads.CrossroadsError as error:
        return error.code


digits, labels_of_digits = demo.digits()
demo.digits = lambda: (digits[:200], labels_of_digits[:200])
shown, sample = demo.run_demo(None, crossroads.Silent())
print(json.dumps({
    "demo": [shown.metrics["backbone"], shown.metrics["test"]["n"]],
    "files": sorted(path.name for path in Path("run").iterdir()),
    "test": run.metrics["test"]["n"],
    "evaluated": crossroads.evaluate("run", (images, labels)).n,
    "predicted": len(crossroads.load("run").predict(images[:3])),
    "finetune": code_of(lambda: crossroads.fit((images, labels), out="other", **options | {"strategy": "finetune"})),
    "mlp": code_of(lambda: crossroads.fit((images, labels), out="other", head="mlp", **options)),
    "export": code_of(lambda: export_keras("run", "model.keras")),
    "left": sorted(path.name for path in Path().iterdir()),
    "loaded": sorted({name.split(".")[0] for name in sys.modules} & set(absent)),
}))
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Returns what a process without Keras did."""
    folder = tmp_path_factory.mktemp("without")
    environment = os.environ | {"CROSSROADS_CACHE": str(folder / "cache"), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    work = folder / "work"
    work.mkdir()
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT + WORK], cwd=work, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_a_frozen_strategy_needs_no_keras(done):
    assert done["loaded"] == []
    assert done["files"] == [
        *("README.md", "crossroads.json", "held_out.npz", "history.csv", "metrics.json", "model.bin", "model.xml"),
        *("neighbours.npz", "recipe.toml", "report.html", "seen.npy", "thumbnails.npz"),
    ]
    assert (done["test"], done["evaluated"], done["predicted"]) == (8, 40, 3)


def test_the_demo_needs_no_keras(done):
    assert done["demo"] == ["efficientnet-lite0", 20]


def test_what_trains_is_refused_before_anything_is_written(done):
    assert (done["finetune"], done["mlp"], done["export"]) == ("missing-extra",) * 3
    assert done["left"] == ["run", "runs"]
