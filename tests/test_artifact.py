"""Covers artifacts: each is complete or absent, verified when opened, agrees with its model, and contains no code."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import tiny_artifact
from crossroads import artifact, inference
from crossroads.artifact import _draft, _export
from crossroads.artifact._manifest import file_record, manifest_text
from crossroads.errors import ArtifactError
from crossroads.networks.export import weights_digest
from crossroads.recipe import Recipe
from refusals import refused
from tiny_artifact import CLASSES, SIZE, contents, pixels

METRICS = {"test": {"accuracy": 0.5}}


@pytest.fixture(scope="module")
def whole() -> artifact.Contents:
    return contents()


@pytest.fixture(scope="module")
def written(tmp_path_factory, whole) -> Path:
    folder = tmp_path_factory.mktemp("written") / "run"
    artifact.write(folder, whole, METRICS)
    return folder


@pytest.fixture
def copy(written, tmp_path) -> Path:
    """Returns a finished artifact that a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "copy"))


@pytest.fixture
def instant(monkeypatch, written):
    """Makes saving the model a copy of files, for tests of the steps around it."""

    def save(model, folder):
        for name in ("model.keras", "model.xml", "model.bin"):
            shutil.copy(written / name, folder / name)

    monkeypatch.setattr(_export, "save", save)


def restated(folder, **changes):
    """Rewrites the manifest with changes and correct digests, as an attacker or another program would."""
    facts = json.loads((folder / "crossroads.json").read_text())
    facts.pop("digest")
    files = {name: file_record(folder / name) for name in facts["files"]}
    (folder / "crossroads.json").write_text(manifest_text({**facts, "files": files, **changes}))


@pytest.mark.core
def test_an_artifact_has_its_files_and_no_others(written):
    assert sorted(p.name for p in written.iterdir()) == sorted([*artifact.FILES, "crossroads.json"])
    assert artifact.is_finished(written)


@pytest.mark.core
def test_the_manifest_records_how_the_classifier_was_made(written, whole):
    facts = json.loads((written / "crossroads.json").read_text())
    assert facts["format"] == artifact.FORMAT == 4
    assert facts["classes"] == list(CLASSES)
    assert facts["preprocessing"] == {
        "size": SIZE,
        "mode": "squash",
        "filter": "bilinear",
        "crop_fraction": 1.0,
        "input": f"uint8 (n, {SIZE}, {SIZE}, 3) RGB",
    }
    assert (facts["backbone"], facts["strategy"]) == ("tiny", "from-scratch")
    assert Recipe.from_mapping(facts["recipe"]) == whole.recipe
    assert facts["seeds"]["split"] == 7
    assert facts["data"]["splits"]["train"] == {"n": 2, "digest": "cd"}
    assert facts["versions"]["backend"] == keras.backend.backend()
    assert {"python", "keras", "openvino", "numpy", "pillow"} <= facts["versions"].keys()
    assert facts["parity"]["n"] == 40
    assert facts["parity"]["max_difference"] < 1e-5
    assert set(facts["files"]) == set(artifact.FILES)


def test_recipe_history_and_metrics_come_back_as_given(written, whole):
    assert Recipe.from_mapping(tomllib.loads((written / "recipe.toml").read_text())) == whole.recipe
    assert (written / "history.csv").read_text() == whole.history
    assert artifact.read_metrics(written) == METRICS


@pytest.mark.core
def test_the_keras_model_comes_back_with_equal_outputs_and_weights(written, whole):
    loaded = artifact.load_model(written)
    ours, theirs = (keras.ops.convert_to_numpy(m(pixels(5), training=False)) for m in (whole.model, loaded))
    assert np.array_equal(ours, theirs)
    assert weights_digest(loaded) == artifact.open_verified(written).facts["weights"]


@pytest.mark.core
def test_the_graph_takes_any_number_of_images_in_float32(written, whole):
    graph = inference.Graph(written / "model.xml")
    assert graph.signature == (f"u8[?,{SIZE},{SIZE},3]", f"f32[?,{len(CLASSES)}]")
    expected = keras.ops.convert_to_numpy(whole.model(pixels(7), training=False))
    assert np.abs(graph(pixels(7)) - expected).max() < 1e-5
    for compiled in (graph._for_few, graph._for_many):
        assert str(compiled.get_property("INFERENCE_PRECISION_HINT")) == "<Type: 'float32'>"


def test_other_weights_have_another_digest(whole):
    assert weights_digest(tiny_artifact.model(seed=4)) != weights_digest(whole.model)
    assert weights_digest(tiny_artifact.model(seed=3)) == weights_digest(whole.model)


def test_an_optimizer_is_left_out_of_the_saved_model(tmp_path, whole):
    network = tiny_artifact.model()
    network.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    network.train_on_batch(pixels(4), np.array([0, 1, 2, 3]))
    _export.save(network, tmp_path)
    with zipfile.ZipFile(tmp_path / "model.keras") as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
        assert list(weights) == ["layers", "vars"]
    assert network.optimizer is not None


def test_writing_prints_nothing_on_standard_output(tmp_path, whole, capfd):
    artifact.write(tmp_path / "run", whole, METRICS)
    assert capfd.readouterr().out == ""


# --- no code


@pytest.mark.core
def test_a_lambda_layer_is_refused_when_saving_at_any_depth(tmp_path):
    hidden = keras.Sequential([keras.Input((36,)), keras.layers.Lambda(lambda x: x * 2, name="sly")])
    with refused("lambda-layer", ArtifactError, received="the Lambda layer 'sly'"):
        artifact.write(tmp_path / "run", contents(tiny_artifact.model(hidden)), METRICS)
    assert list(tmp_path.iterdir()) == []


def test_a_lambda_layer_is_refused_when_loading_even_with_correct_digests(copy):
    tiny_artifact.model(keras.layers.Lambda(lambda x: x * 2)).save(copy / "model.keras")
    restated(copy)
    with refused("unsafe-model", ArtifactError) as error:
        artifact.load_model(copy)
    assert "lambda" in str(error.value.received).lower()


def test_a_layer_of_unknown_origin_is_refused_when_saving(tmp_path):
    class Homemade(keras.layers.Layer):
        def call(self, x):
            return x

    with refused("custom-layer", ArtifactError):
        artifact.write(tmp_path / "run", contents(tiny_artifact.model(Homemade())), METRICS)
    assert list(tmp_path.iterdir()) == []


# --- verified when it is opened


def test_every_changed_byte_is_found(copy):
    for name in artifact.FILES:
        path = copy / name
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with refused("changed-file", ArtifactError, received="another digest", rule=f"{path} was changed"):
            artifact.open_verified(copy)
        path.write_bytes(before)
    assert artifact.open_verified(copy).classes == CLASSES


def test_digests_of_the_used_images_are_kept_without_their_order(copy):
    seen = artifact.read_seen(artifact.open_verified(copy))
    given = tiny_artifact.contents().seen
    assert len(given) == 3
    assert sorted(map(bytes, seen)) == [bytes(digest) for digest in seen] == sorted(map(bytes, given))


def test_an_artifact_without_digests_of_the_used_images_is_refused(copy):
    facts = json.loads((copy / "crossroads.json").read_text())
    del facts["files"]["seen.npy"], facts["digest"]
    (copy / "crossroads.json").write_text(manifest_text(facts))
    with refused("damaged-manifest", ArtifactError):
        artifact.read_seen(artifact.open_verified(copy, only=()))


@pytest.mark.parametrize("other", [np.zeros((3, 16)), np.zeros((3, 8), np.uint8), np.array([{}], dtype=object)], ids=str)
def test_other_arrays_than_digests_are_refused_and_never_unpickled(copy, other):
    np.save(copy / "seen.npy", other, allow_pickle=True)
    facts = json.loads((copy / "crossroads.json").read_text())
    facts["files"]["seen.npy"] = file_record(copy / "seen.npy")
    del facts["digest"]
    (copy / "crossroads.json").write_text(manifest_text(facts))
    with refused("not-digests", ArtifactError):
        artifact.read_seen(artifact.open_verified(copy))


def test_a_file_cut_short_or_missing_is_found(copy):
    (copy / "model.bin").write_bytes((copy / "model.bin").read_bytes()[:-8])
    with refused("changed-file", ArtifactError):
        artifact.open_verified(copy)
    (copy / "model.bin").unlink()
    with refused("unreadable-file", ArtifactError, received="No such file or directory"):
        artifact.open_verified(copy)


def test_only_the_named_files_are_verified(copy):
    (copy / "model.keras").write_bytes(b"")
    assert artifact.open_verified(copy, only=artifact.GRAPH).backbone == "tiny"


def test_other_files_in_the_folder_do_not_matter(copy):
    (copy / "checkpoint").mkdir()
    (copy / "notes.txt").write_text("mine")
    assert artifact.open_verified(copy).strategy == "from-scratch"


def test_a_changed_manifest_is_found(copy):
    path = copy / "crossroads.json"
    path.write_text(path.read_text().replace('"stop"', '"go"'))
    with refused("changed-file", ArtifactError):
        artifact.open_verified(copy)


def test_a_reformatted_manifest_is_still_valid(copy):
    path = copy / "crossroads.json"
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert artifact.open_verified(copy).classes == CLASSES


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"format": 9, "crossroads": "9.9"}, "other-format"),
        ({"format": 2}, "other-format"),
        ({"format": None}, "damaged-manifest"),
        ({"classes": []}, "damaged-manifest"),
        ({"classes": [1, 2]}, "damaged-manifest"),
        ({"preprocessing": {"size": 8, "mode": "stretch", "filter": "bilinear"}}, "damaged-manifest"),
        ({"preprocessing": 3}, "damaged-manifest"),
        ({"files": {}}, "damaged-manifest"),
        ({"files": {"model.keras": 5}}, "damaged-manifest"),
    ],
)
def test_a_manifest_of_another_form_is_refused(copy, changes, code):
    restated(copy, **changes)
    with refused(code, ArtifactError):
        artifact.open_verified(copy)


@pytest.mark.parametrize(("number", "remedy"), [(2, "train it again"), (9, "install the version")])
def test_another_format_names_the_remedy(copy, number, remedy):
    restated(copy, format=number)
    with refused("other-format", ArtifactError) as error:
        artifact.open_verified(copy)
    assert error.value.hint.startswith(remedy)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\udcff"])
def test_a_manifest_that_is_not_a_json_object_is_refused(copy, text):
    (copy / "crossroads.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with refused("damaged-manifest", ArtifactError):
        artifact.open_verified(copy)


def test_a_folder_that_is_not_an_artifact_is_refused_with_a_hint(tmp_path):
    with refused("not-an-artifact", ArtifactError, received="no such folder"):
        artifact.open_verified(tmp_path / "nowhere")
    with refused("not-an-artifact", ArtifactError, received="a folder without crossroads.json"):
        artifact.open_verified(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    with refused("not-an-artifact", ArtifactError, hint="finish the run with resume"):
        artifact.open_verified(tmp_path)


# --- the signature of the model, and its agreement with the graph


@pytest.mark.parametrize("changes", [{"classes": CLASSES[:3]}, {"resize": _draft.Resize(9)}])
def test_a_model_of_another_signature_is_refused(tmp_path, whole, changes):
    with refused("other-signature", ArtifactError):
        artifact.write(tmp_path / "run", replace(whole, **changes), METRICS)


def test_an_unresolved_recipe_is_refused(tmp_path, whole):
    with refused("unresolved-recipe", ArtifactError):
        artifact.write(tmp_path / "run", contents(whole.model, recipe=Recipe()), METRICS)


@pytest.mark.usefixtures("instant")
def test_a_graph_of_other_weights_is_refused_and_leaves_nothing(tmp_path):
    other = contents(tiny_artifact.model(seed=99))
    with refused("graph-disagrees", ArtifactError):
        artifact.write(tmp_path / "run", other, METRICS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("instant")
def test_parity_needs_images(tmp_path, whole):
    with refused("no-parity-images", ArtifactError):
        artifact.write(tmp_path / "run", contents(whole.model, parity=artifact.Parity(pixels(0))), METRICS)


def parity_of(monkeypatch, ours, theirs, amplified=0.0):
    monkeypatch.setattr(_export, "computed", lambda model, images: np.array(ours, np.float32))
    monkeypatch.setattr(_export, "rounded_otherwise", lambda model, images: np.array(ours, np.float32) + amplified)
    monkeypatch.setattr(_export, "Graph", lambda path: lambda images: np.array(theirs, np.float32))
    return _export.check_parity(None, Path("model.xml"), artifact.Parity(pixels(len(ours))))


def test_ties_are_allowed_and_counted(monkeypatch):
    found = parity_of(monkeypatch, [[0.5002, 0.4998], [0.9, 0.1]], [[0.4998, 0.5002], [0.9, 0.1]])
    assert found["ties"] == 1
    assert found["max_difference"] == pytest.approx(4e-4, rel=0.01)


def test_another_label_beyond_a_tie_is_an_error(monkeypatch):
    with refused("graph-labels-differ", ArtifactError, received="class 1 in place of 0 on image 1 of 2"):
        parity_of(monkeypatch, [[0.9, 0.1], [0.5008, 0.4992]], [[0.9, 0.1], [0.4999, 0.5001]])


@pytest.mark.parametrize("broken", [[[np.nan, 1.0]], [[1.0, 0.0]]])
def test_graph_probabilities_that_are_not_finite_or_far_off_are_refused(monkeypatch, broken):
    with refused("graph-disagrees", ArtifactError):
        parity_of(monkeypatch, [[0.5, 0.5]], broken)


def test_a_network_that_amplifies_rounding_has_a_larger_tolerance(monkeypatch):
    found = parity_of(monkeypatch, [[0.7, 0.3]], [[0.71, 0.29]], amplified=0.005)
    assert found["tolerance"] == pytest.approx(0.05)
    for amplified, theirs in ((0.0005, [[0.71, 0.29]]), (0.005, [[0.8, 0.2]]), (0.005, [[np.nan, 1.0]]), (np.nan, [[0.8, 0.2]])):
        with refused("graph-disagrees", ArtifactError):
            parity_of(monkeypatch, [[0.7, 0.3]], theirs, amplified=amplified)


def test_model_probabilities_that_are_not_finite_are_refused(monkeypatch):
    with refused("probabilities-not-finite", ArtifactError):
        parity_of(monkeypatch, [[np.nan, np.nan]], [[np.nan, np.nan]])


# --- complete or absent


@pytest.mark.usefixtures("instant")
def test_a_finished_artifact_is_never_overwritten(copy, whole):
    before = (copy / "crossroads.json").read_bytes()
    with refused("artifact-exists", ArtifactError):
        artifact.write(copy, whole, METRICS)
    assert (copy / "crossroads.json").read_bytes() == before


@pytest.mark.usefixtures("instant")
def test_an_unfinished_draft_is_removed(tmp_path, whole):
    with artifact.draft(tmp_path / "run", whole) as unfinished:
        assert artifact.open_verified(unfinished.path, only=artifact.GRAPH).classes == CLASSES
        assert not artifact.is_finished(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("instant")
def test_an_error_while_scoring_leaves_the_run_unchanged(tmp_path, whole):
    run = tmp_path / "run"
    (run / "checkpoint").mkdir(parents=True)
    (run / "history.csv").write_text("of the training")
    with pytest.raises(ZeroDivisionError), artifact.draft(run, whole):
        _ = 1 / 0
    assert sorted(p.name for p in run.iterdir()) == ["checkpoint", "history.csv"]
    assert (run / "history.csv").read_text() == "of the training"


@pytest.mark.usefixtures("instant")
def test_a_run_in_progress_becomes_an_artifact_beside_its_checkpoints(tmp_path, whole):
    run = tmp_path / "run"
    (run / "checkpoint").mkdir(parents=True)
    (run / "history.csv").write_text("of the training")
    (run / _draft.PARTIAL).mkdir()
    (run / _draft.PARTIAL / "model.bin").write_text("left by a run that was killed")
    (run / "model.keras").write_text("moved before the kill")
    artifact.write(run, whole, METRICS)
    artifact.open_verified(run)
    assert (run / "checkpoint").is_dir()
    assert not (run / _draft.PARTIAL).exists()


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize("fails_at", range(len(artifact.FILES) + 1))
def test_an_error_between_the_moves_undoes_them(tmp_path, whole, monkeypatch, fails_at):
    moves, replace = [], os.replace

    def failing(source, target):
        if len(moves) == fails_at:
            raise OSError(errno.EIO, "Input/output error")
        moves.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with refused("artifact-not-writable", ArtifactError, received="OSError: Input/output error"):
        artifact.write(tmp_path / "run", whole, METRICS)
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_is_moved_last_and_after_every_file_is_on_the_disk(tmp_path, whole, monkeypatch, instant):
    log, replace, sync = [], os.replace, _draft._sync
    monkeypatch.setattr(os, "replace", lambda a, b: (log.append(("move", Path(b).name)), replace(a, b)))
    monkeypatch.setattr(_draft, "_sync", lambda path: (log.append(("sync", path.name)), sync(path)))
    artifact.write(tmp_path / "run", whole, METRICS)
    moves = [i for i, (what, _) in enumerate(log) if what == "move"]
    assert log[moves[-1]] == ("move", "crossroads.json")
    assert log[moves[-1] - 1] == ("sync", "run")
    assert {name for what, name in log[: moves[0]] if what == "sync"} >= {*artifact.FILES, "crossroads.json"}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.parametrize("after", [1, len(artifact.FILES)])
def test_a_kill_between_the_moves_leaves_no_artifact_and_the_next_write_completes(tmp_path, written, whole, instant, after):
    run = tmp_path / "run"
    shutil.copytree(written, run / _draft.PARTIAL)
    program = (
        "import os, signal, sys; from pathlib import Path; from crossroads.artifact import _draft\n"
        "move, done = os.replace, []\n"
        "def killed(a, b):\n"
        f"    if len(done) == {after}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    done.append(b); move(a, b)\n"
        "os.replace = killed\n"
        "run = Path(sys.argv[1]); _draft._move(run / _draft.PARTIAL, run, _draft.FILES)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(run)], check=False).returncode == -signal.SIGKILL
    assert (run / "model.keras").exists()
    assert not artifact.is_finished(run)
    artifact.write(run, whole, METRICS)
    artifact.open_verified(run)
    assert sorted(p.name for p in run.iterdir()) == sorted([*artifact.FILES, "crossroads.json"])


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize("name", ["metrics.json", "history.csv", "crossroads.json"])
def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path, whole, monkeypatch, name):
    write = Path.write_text

    def full(path, *rest, **more):
        if path.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, *rest, **more)

    monkeypatch.setattr(Path, "write_text", full)
    with refused("disk-full", ArtifactError):
        artifact.write(tmp_path / "run", whole, METRICS)
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_found_before_saving(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(_draft.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**5))
    monkeypatch.setattr(_export, "save", lambda *a: pytest.fail("the work was begun"))
    with refused("disk-full", ArtifactError):
        artifact.write(tmp_path / "run", whole, METRICS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("instant")
def test_metrics_that_are_not_json_are_refused(tmp_path, whole):
    with refused("not-json", ArtifactError):
        artifact.write(tmp_path / "run", whole, {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("instant")
def test_a_file_name_that_is_not_utf_8_survives(tmp_path, whole):
    odd = "caf\udce9"
    asked = replace(whole, recipe=replace(whole.recipe, data=odd), data={**whole.data, "origin": odd})
    artifact.write(tmp_path / "run", asked, {"mistakes": [odd]})
    manifest = artifact.open_verified(tmp_path / "run")
    assert manifest.facts["data"]["origin"] == odd
    assert Recipe.from_mapping(manifest.facts["recipe"]) == asked.recipe
    assert artifact.read_metrics(tmp_path / "run") == {"mistakes": [odd]}
    # TOML cannot hold that name, but the file must still be readable.
    assert tomllib.loads((tmp_path / "run" / "recipe.toml").read_text("utf-8"))["data"] == r"caf\udce9"


# --- copying


def test_a_copy_is_the_same_artifact(tmp_path, written):
    manifest = artifact.copy(written, tmp_path / "deep" / "copy")
    assert manifest.folder == tmp_path / "deep" / "copy"
    assert sorted(p.name for p in manifest.folder.iterdir()) == sorted(p.name for p in written.iterdir())
    assert all((manifest.folder / p.name).read_bytes() == p.read_bytes() for p in written.iterdir())


def test_a_copy_overwrites_nothing(tmp_path, written, copy):
    before = {p.name: p.read_bytes() for p in copy.iterdir()}
    with refused("artifact-exists", ArtifactError):
        artifact.copy(written, copy)
    assert {p.name: p.read_bytes() for p in copy.iterdir()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "history.csv").write_text("mine")
    with refused("folder-not-empty", ArtifactError):
        artifact.copy(written, tmp_path / "mine")
    assert [p.read_text() for p in (tmp_path / "mine").iterdir()] == ["mine"]
    (tmp_path / "file").write_text("mine")
    with refused("artifact-not-writable", ArtifactError):
        artifact.copy(written, tmp_path / "file")


def test_a_changed_artifact_is_not_copied(tmp_path, copy):
    (copy / "history.csv").write_text("other")
    with refused("changed-file", ArtifactError):
        artifact.copy(copy, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_copy_that_fails_leaves_nothing(tmp_path, written, monkeypatch):
    def full(a, b):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_draft.shutil, "copyfile", full)
    with refused("disk-full", ArtifactError):
        artifact.copy(written, tmp_path / "new")
    assert not (tmp_path / "new").exists()


# --- OpenVINO


def test_openvino_is_imported_without_telemetry_or_files_in_the_home(tmp_path, written):
    program = (
        "import sys, socket\n"
        "def refuse(*a, **k): raise SystemExit('network')\n"
        "socket.socket.connect = refuse\n"
        "from pathlib import Path; from crossroads import inference\n"
        f"inference.Graph(Path({str(written / 'model.xml')!r}))\n"
        "inference.runtime().convert_model\n"
        "print(sorted(m for m in sys.modules if m.startswith('openvino_telemetry')))\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    for name in ("CI", "GITHUB_ACTIONS", "JENKINS_URL", "TF_BUILD"):  # where telemetry would switch itself off
        environment.pop(name, None)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_a_graph_is_refused(copy):
    (copy / "model.xml").write_text("<net>")
    with refused("not-a-graph", ArtifactError):
        inference.Graph(copy / "model.xml")


def test_an_error_while_making_batches_is_raised(written):
    def batches():
        yield pixels(3)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        inference.Graph(written / "model.xml").run(batches(), 10)


def test_a_file_of_an_artifact_is_refused_with_its_folder(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"PK")
    (tmp_path / artifact.MANIFEST).write_text("{}")
    with refused("not-an-artifact", ArtifactError, received="not a folder", hint=f"give {tmp_path}"):
        artifact.open_verified(tmp_path / "model.keras")
