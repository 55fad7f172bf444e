"""Covers settings of Keras that do not suit training: they are refused before an image is read, without loading Keras."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import crossroads
from crossroads._runtime import keras_setup
from crossroads._runtime.keras_setup import keras_backend, require_usable_keras
from crossroads.errors import SetupError
from refusals import refused

CHANNELS = '"image_data_format": "channels_first"'


@pytest.fixture
def unloaded(monkeypatch, tmp_path):
    """Makes Keras look as if it were not loaded yet. Returns the folder of its settings."""
    for name in ("KERAS_BACKEND", "KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return tmp_path


def refusal(code):
    with refused(code, SetupError) as caught:
        require_usable_keras()
    return caught.value


def test_usual_settings_are_accepted(unloaded):
    require_usable_keras()
    (unloaded / "keras.json").write_text('{"floatx": "float32", "epsilon": 1e-07, "backend": "tensorflow"}')
    require_usable_keras()
    (unloaded / "keras.json").write_text("no JSON, so Keras uses its defaults")
    require_usable_keras()
    assert keras_backend() == "tensorflow"


@pytest.mark.parametrize("settings", [{"image_data_format": "channels_first"}, {"floatx": "float16"}, {"floatx": "bfloat"}])
def test_the_file_that_holds_other_settings_is_named(unloaded, settings):
    (unloaded / "keras.json").write_text(json.dumps(settings))
    error = refusal("keras-types")
    assert str(next(iter(settings.values()))) in str(error.received)
    assert str(unloaded / "keras.json") in error.hint


@pytest.mark.parametrize("text", ["[]", '{"epsilon": 1}', None])
def test_a_file_that_keras_cannot_read_is_named(unloaded, text):
    file = unloaded / "keras.json"
    file.mkdir() if text is None else file.write_text(text)
    assert str(file) in refusal("keras-settings-unreadable").rule


def test_the_file_of_the_home_is_found_as_keras_finds_it(unloaded, monkeypatch):
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(unloaded))
    monkeypatch.setenv("USERPROFILE", str(unloaded))
    (unloaded / ".keras").mkdir()
    (unloaded / ".keras" / "keras.json").write_text('{"backend": "openvino"}')
    error = refusal("backend-cannot-train")
    assert "openvino" in str(error.received)
    assert str(unloaded / ".keras" / "keras.json") in error.hint


@pytest.mark.parametrize(
    ("backend", "code"),
    [("numpy", "backend-cannot-train"), ("theano", "backend-cannot-train"), ("torch", "backend-not-installed")],
)
def test_a_backend_that_cannot_train_or_is_not_installed_is_refused(unloaded, monkeypatch, backend, code):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: "Keras alone" if name == "keras" else None)
    monkeypatch.setenv("KERAS_BACKEND", backend)
    error = refusal(code)
    assert backend in str(error.received)
    assert "unset KERAS_BACKEND" in error.hint


def test_an_empty_variable_is_ignored(unloaded, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "")
    assert keras_backend() == "tensorflow"
    (unloaded / "keras.json").write_text('{"backend": "jax"}')
    assert keras_backend() == "jax"


@pytest.mark.parametrize("limit", ["KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH"])
def test_a_limit_on_training_is_refused(unloaded, monkeypatch, limit):
    monkeypatch.setenv(limit, "2")
    assert refusal("keras-limit").received == f"{limit} 2"


@pytest.mark.parametrize(
    ("change", "usual"),
    [
        (lambda: keras.config.set_floatx("float64"), lambda: keras.config.set_floatx("float32")),
        (lambda: keras.config.set_dtype_policy("mixed_float16"), lambda: keras.config.set_dtype_policy("float32")),
        (
            lambda: keras.config.set_image_data_format("channels_first"),
            lambda: keras.config.set_image_data_format("channels_last"),
        ),
    ],
)
def test_settings_of_the_calling_program_are_refused_before_images_are_read(tmp_path, change, usual):
    images = np.zeros((8, 8, 8, 3), np.uint8)
    change()
    try:
        with refused("keras-types", SetupError):
            crossroads.fit(tmp_path / "no-such-images", out=tmp_path / "run")
        with refused("keras-types", SetupError):
            crossroads.advise(tmp_path / "no-such-images")
        with refused("keras-types", SetupError):
            crossroads.ImageClassifier().fit(images, [0, 1] * 4)
    finally:
        usual()
    assert not (tmp_path / "run").exists()


def test_a_process_forked_from_one_with_tensorflow_is_refused(monkeypatch):
    monkeypatch.setattr(keras_setup, "_forked_after", True)
    assert "spawn" in refusal("forked-process").hint


@pytest.mark.skipif(keras_backend() != "tensorflow", reason="TensorFlow is not the backend")
def test_tensorflow_in_graph_mode_is_refused():
    import tensorflow as tf

    with tf.Graph().as_default():
        refusal("tensorflow-not-eager")


@pytest.mark.parametrize("command", [("fit", "no-such-images", "--out", "run"), ("advise", "no-such-images")])
def test_the_command_line_prints_one_line(tmp_path, command):
    environment = {**os.environ, "KERAS_BACKEND": "nonsense"}
    call = [sys.executable, "-m", "crossroads", *command, "-q"]
    done = subprocess.run(call, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "nonsense" in done.stderr


def test_a_graph_is_exported_in_another_process_without_docstrings(monkeypatch):
    from crossroads.networks.export import exports_here

    assert exports_here() == (keras_backend() == "tensorflow")
    monkeypatch.setattr("crossroads.networks.export.sys", SimpleNamespace(flags=SimpleNamespace(optimize=2)))
    assert not exports_here()


@pytest.mark.real
def test_a_run_without_docstrings_leaves_an_artifact(tmp_path):
    images, labels = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8), np.arange(24) % 2
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    call = [
        sys.executable,
        "-OO",
        "-m",
        "crossroads",
        "fit",
        "images.npz",
        "--out",
        "run",
        "--strategy",
        "from-scratch",
        "--epochs",
        "1",
    ]
    subprocess.run(call, cwd=tmp_path, capture_output=True, check=True)
    assert crossroads.load(tmp_path / "run").predict(list(images[:1]))
