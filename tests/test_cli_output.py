"""Covers output to a terminal that lacks characters or is closed: there is no traceback, and no run is lost."""

import io
import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from crossroads import cli
from pictures import stripes

CLASSES = ("größer", "猫")
OPTIONS = ["--strategy", "from-scratch", "--backbone", "quiz-cnn", "--image-size", "16", "--epochs", "1", "--batch-size", "16"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Returns class folders and files whose names are not ASCII, and one whose name is not UTF-8."""
    folder = tmp_path_factory.mktemp("data")
    for number, (image, label) in enumerate(zip(*stripes(40, classes=CLASSES), strict=True)):
        (folder / label).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / label / f"{number:02d} né.png")
    (folder / CLASSES[0] / "00 né.png").rename(os.fsdecode(os.fsencode(folder / CLASSES[0]) + b"/00 n\xe9.png"))
    return folder


def fit(stream, data, out, patch, *options):
    """Runs `crossroads fit` in this process with another standard output. Returns the exit status."""
    patch.setattr(sys, "stdout", stream)
    patch.setattr(sys, "argv", ["crossroads", "fit", str(data), "--out", str(out), *OPTIONS, *options])
    with pytest.raises(SystemExit) as done:
        cli.main()
    return done.value.code or 0


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Returns an artifact, and the output of its `fit` in ASCII."""
    out = tmp_path_factory.mktemp("run") / "run"
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    with pytest.MonkeyPatch.context() as patch:
        assert fit(stream, data, out, patch) == 0
    stream.flush()
    return out, stream.buffer.getvalue().decode("ascii")


def run(encoding, *arguments):
    """Runs one command in a process whose streams have this strict encoding. Returns exit status, output and errors."""
    environment = os.environ | {"PYTHONIOENCODING": f"{encoding}:strict"}
    command = [sys.executable, "-m", "crossroads", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    shown = done.stdout.decode(encoding), done.stderr.decode(encoding)
    assert "Traceback" not in shown[1]
    return done.returncode, *shown


def test_fit_ends_with_its_scores(trained):
    assert f"artifact: {trained[0]}" in trained[1].splitlines()


@pytest.mark.parametrize(("encoding", "spelt"), [("ascii", r"gr\xf6\xdfer"), ("cp1252", "größer"), ("utf-8", "größer")])
def test_evaluate_shows_its_table(trained, data, encoding, spelt):
    status, out, _ = run(encoding, "evaluate", trained[0], data)
    assert status == 0
    assert any(line.startswith(spelt) for line in out.splitlines())
    warning = next(line for line in out.splitlines() if "in the training or validation" in line)
    assert warning.startswith("note: ")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_predict_shows_names_and_refusals(trained, data, encoding):
    status, out, err = run(encoding, "predict", trained[0], data, data / "missing 猫.png")
    assert status == 2
    assert len(out.splitlines()) == 40
    assert r"00 n\xe9.png: " in out
    assert "missing \\u732b.png" in err


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_predict_prints_the_same_json_in_every_encoding(trained, data, encoding):
    missing = data / "a: missing 猫.png"
    status, out, _ = run(encoding, "predict", trained[0], data, missing, "--json")
    shown = json.loads(out)
    assert status == 2
    names = {row["name"] for row in shown["predictions"]}
    assert len(names) == 40
    assert rf"{data}/{CLASSES[0]}/00 n\xe9.png" in names
    assert {label["label"] for row in shown["predictions"] for label in row["labels"]} == set(CLASSES)
    (refused,) = shown["refused"]
    assert refused["name"] == str(missing)
    assert refused["reason"].startswith("the file cannot be read")
    assert shown["warnings"] == ["1 of 41 images were refused"]


def test_a_closed_pipe_loses_no_run(data, tmp_path, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        assert fit(stream, data, tmp_path / "run", monkeypatch) == 1
    assert (tmp_path / "run" / "crossroads.json").is_file()


def test_a_missing_standard_output_loses_no_run(data, tmp_path, monkeypatch):
    assert fit(None, data, tmp_path / "run", monkeypatch, "--json") == 0
    assert (tmp_path / "run" / "crossroads.json").is_file()
