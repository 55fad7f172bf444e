"""Covers exported files: each runs in its own runtime with the answers of the artifact, and a different one is not kept."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossroads import artifact
from crossroads.data.dataset import digest_of
from crossroads.errors import ArtifactError, BackboneError, RecipeError
from crossroads.exports import exporting
from crossroads.exports._images import DRAWN, choose_images
from crossroads.exports._writers import write_openvino
from crossroads.exports.exporting import FORMATS, compare, export
from crossroads.inference import Graph, read_model
from refusals import refused
from tiny_artifact import CLASSES, SIZE, contents, model, pixels
from watchers import Notes


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "run"
    artifact.write(folder, contents(), {})
    return folder


def class_names(exported) -> list[str]:
    """Returns the class names in an exported file or beside it."""
    file, *beside = exported.files
    if exported.format == "openvino":
        return json.loads(read_model(file).get_rt_info(["crossroads", "classes"]).astype(str))
    if exported.format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file)
        assert [each.name for each in (*session.get_inputs(), *session.get_outputs())] == ["images", "probabilities"]
        return json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    labels = file / "labels.txt" if file.is_dir() else beside[0]
    return labels.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("chosen", FORMATS, ids=lambda each: each.name)
def test_every_format_gives_the_answers_of_the_artifact(run, tmp_path, monkeypatch, chosen):
    monkeypatch.setattr(exporting, "TIMED_SECONDS", 0)
    for package in {"onnx": ("onnxruntime", "tf2onnx"), "litert": ("ai_edge_litert",)}.get(chosen.name, ()):
        pytest.importorskip(package)
    watcher = Notes()
    out = tmp_path / f"tiny{chosen.suffix}"
    exported = export(run, out, watcher=watcher)
    assert [note.code for note in watcher.said] == ["export-compared-on-drawn-images"]
    assert (exported.format, exported.files[0]) == (chosen.name, out)
    assert exported.comparison.agreeing == exported.comparison.images == DRAWN
    assert exported.comparison.max_difference < 1e-4
    assert sorted(path.name for path in exported.files) == sorted(os.listdir(tmp_path))  # noqa: PTH208
    assert class_names(exported) == list(CLASSES)
    found = chosen.open(out)(pixels(20))
    assert np.abs(found - Graph(run / "model.xml")(pixels(20))).max() < 1e-4
    with refused("export-target", ArtifactError, field="out"):
        export(run, out)


def test_a_file_with_other_answers_is_not_kept(run, tmp_path, monkeypatch):
    artifact.write(tmp_path / "other", contents(model(seed=4)), {})
    other = artifact.open_verified(tmp_path / "other")

    def broken(classifier, path):
        write_openvino(replace(classifier, manifest=other), path)

    monkeypatch.setattr(exporting, "FORMATS", (replace(FORMATS[0], write=broken),))
    with refused("export-disagrees", ArtifactError):
        export(run, tmp_path / "exports" / "tiny.xml")
    assert not list((tmp_path / "exports").iterdir())


def test_float16_weights_halve_the_file(run, tmp_path):
    whole, half = (export(run, tmp_path / name, half=name == "half.xml") for name in ("whole.xml", "half.xml"))
    sizes = [exported.files[1].stat().st_size for exported in (whole, half)]
    assert sizes[1] < 0.7 * sizes[0]
    with refused("option-without-effect", RecipeError, field="fp16"):
        export(run, tmp_path / "half.onnx", half=True)


class Fixed:
    """Returns the same probabilities for any images, as an artifact or an exported file."""

    def __init__(self, *rows):
        self.rows = np.array(rows, np.float32)

    def __call__(self, images):
        return self.rows


def test_what_counts_as_a_disagreement():
    images = pixels(2)
    artifact_says = Fixed((0.5, 0.4996, 0.0004), (0, 1, 0))
    tie = compare(Fixed((0.4996, 0.5, 0.0004), (0, 1, 0)), artifact_says, images, 1e-3)
    assert (tie.agreeing, tie.images) == (1, 2)
    for rows in (
        ((0.5, 0.4996, 0.0004), (1, 0, 0)),  # another label
        ((0.52, 0.4796, 0.0004), (0, 1, 0)),  # the same labels, other probabilities
        ((np.nan, 0.5, 0.5), (0, 1, 0)),
        ((0.5, 0.5), (0, 1)),
    ):
        with refused("export-disagrees", ArtifactError):
            compare(Fixed(*rows), artifact_says, images, 1e-3)


@pytest.mark.parametrize(
    ("name", "named", "code", "kind"),
    [
        ("tiny.pt", None, "export-target", ArtifactError),
        ("tiny.onnx", "litert", "export-target", ArtifactError),
        ("tiny.onnx", "saved-model", "export-target", ArtifactError),
        ("tiny.onnx", "torch", "unknown-format", BackboneError),
    ],
)
def test_a_name_that_does_not_fit_is_refused(run, tmp_path, name, named, code, kind):
    with refused(code, kind):
        export(run, tmp_path / name, named)
    assert not list(tmp_path.iterdir())


def test_images_that_were_not_trained_on_are_compared(tmp_path):
    folder, digests = tmp_path / "images", []
    folder.mkdir()
    for number, image in enumerate(pixels(30)):
        Image.fromarray(image).save(folder / f"{number}.png")
        digests.append(np.frombuffer(digest_of((folder / f"{number}.png").read_bytes()), np.uint8))
    (folder / "broken.png").write_bytes(b"broken")
    artifact.write(tmp_path / "run", contents(seen=np.stack(digests[:20])), {})
    chosen = choose_images(artifact.open_verified(tmp_path / "run"), folder, Notes())
    assert np.array_equal(chosen.pixels, pixels(30)[20:])
    artifact.write(tmp_path / "all", contents(seen=np.stack(digests)), {})
    watcher = Notes()
    assert choose_images(artifact.open_verified(tmp_path / "all"), folder, watcher).pixels.shape == (30, SIZE, SIZE, 3)
    assert [note.code for note in watcher.said][-1] == "export-compared-on-training-images"
