"""Covers what TensorBoard and MLflow receive of a run, with the real libraries and a local SQLite database."""

import shutil
import sqlite3
import subprocess
import sys
import types

import numpy as np
import pytest

import crossroads
import tiny_graphs
from crossroads import artifact
from crossroads.errors import DataError, MissingExtraError, RecipeError, TrainingError
from crossroads.progress import EpochRecord, Note, Relay, Silent
from crossroads.recipe import Recipe
from crossroads.run.folder import RunFolder
from crossroads.track import tracked
from pictures import folder_of, stripes
from refusals import refused
from watchers import Notes

STARTED = {"strategy": "finetune", "backbone": "small-cnn", "epochs": 2, "usual_epochs": 2, "expected": 0.9}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    images, labels = stripes(60)
    return folder_of(tmp_path_factory.mktemp("stripes"), images, labels)


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSROADS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Returns a recipe that solves a head on a tiny graph, without Keras."""
    graph = tiny_graphs.written(tiny_graphs.convnet(), tmp_path_factory.mktemp("graph") / "tiny.xml")
    options = {"strategy": "feature-extraction", "backbone": str(graph), "preprocessing": "tf", "image_size": tiny_graphs.SIZE}
    return Recipe(**options, validation=0.2, test_fraction=0.2)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """Returns a database with MLflow's tables, which take seconds to make."""
    mlflow = pytest.importorskip("mlflow")
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(empty_database, tmp_path, monkeypatch):
    path = shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def events(monkeypatch):
    """Returns a function that reads a folder of event files as TensorBoard does. TensorBoard loads no TensorFlow for it."""
    pytest.importorskip("tensorboard")
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", types.ModuleType("notf"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return lambda folder: EventAccumulator(str(folder)).Reload()


@pytest.fixture
def folder(tmp_path):
    """Returns the folder of an unfinished run."""
    folder = RunFolder(tmp_path / "run")
    folder.scratch.mkdir(parents=True)
    return folder


def logged(experiment="crossroads"):
    """Returns the runs of an experiment in the database, the oldest first."""
    import mlflow

    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"])


def epoch(number, phase="train", accuracy=0.5):
    return EpochRecord(phase, number, 1.0, 0.01, 0.7, 0.6, accuracy)


def scalars(found, tag):
    """Returns the steps and the values of a curve of TensorBoard."""
    return [(each.step, round(float(each.tensor_proto.float_val[0]), 4)) for each in found.Tensors(tag)]


def race(watcher):
    """Reports a race of two candidates, of which the second fails, and a cross-validation."""
    watcher.epoch(epoch(1, "head", 0.8), 1)
    watcher.note(Note("trying finetune", "run-started", **STARTED, run="candidate-00-run-1"))
    watcher.epoch(epoch(1), 2)
    watcher.epoch(epoch(2, accuracy=0.75), 2)
    watcher.note(Note("trying warm-start", "run-started", **{**STARTED, "strategy": "warm-start"}, run="candidate-01-run-1"))
    watcher.epoch(epoch(1, accuracy=0.25), 2)
    watcher.warning(Note("abandoned", "run-failed", strategy="warm-start"))
    watcher.note(Note("cross-validated", "folds-started", strategy="finetune"))
    watcher.epoch(epoch(1, "train", 0.1), 2)


def test_mlflow_receives_a_whole_run(source, recipe, database, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "stripes")
    run = crossroads.fit(source, out=tmp_path / "run", recipe=recipe, track="mlflow", watcher=Silent())
    (found,) = logged("stripes")
    facts = artifact.open_verified(run.artifact).facts
    assert (found.info.status, found.info.run_name) == ("FINISHED", "run")
    assert found.data.params["strategy"] == "feature-extraction"
    assert found.data.params["image_size"] == str(tiny_graphs.SIZE)
    assert found.data.params["seed"] == str(facts["recipe"]["seed"])
    figures, test = found.data.metrics, run.metrics["test"]
    assert figures["test_accuracy"] == test["accuracy"]
    assert (figures["test_accuracy_low"], figures["test_accuracy_high"]) == tuple(test["accuracy_interval"])
    assert figures["validation_accuracy"] == run.metrics["validation"]["accuracy"]
    assert figures["seconds"] == run.metrics["seconds"]
    assert figures["peak_memory_mb"] == run.metrics["peak_memory_mb"]
    assert "head/validation_accuracy" in figures
    tags = found.data.tags
    assert tags["crossroads.artifact"] == str((tmp_path / "run").resolve())
    assert tags["crossroads.data_digest"] == facts["data"]["digest"]
    assert tags["crossroads.version.crossroads"] == facts["crossroads"]
    assert tags["crossroads.strategy"] == "feature-extraction"
    documents = mlflow.MlflowClient().list_artifacts(found.info.run_id)
    assert [each.path for each in documents] == ["README.md", "report.html"]
    assert not (run.artifact / "checkpoint").exists()


def test_tensorboard_receives_a_whole_run_and_changes_nothing(source, recipe, tmp_path, events):
    options = {"recipe": recipe, "report": False, "watcher": Silent()}
    plain = crossroads.fit(source, out=tmp_path / "plain", **options)
    run = crossroads.fit(source, out=tmp_path / "run", track="tensorboard", **options)
    facts, expected = (artifact.open_verified(each.artifact).facts for each in (run, plain))
    assert all(facts[name] == expected[name] for name in ("weights", "recipe", "seeds", "data"))
    found = events(run.artifact / "tensorboard")
    assert scalars(found, "result/test_accuracy") == [(0, round(run.metrics["test"]["accuracy"], 4))]
    assert [step for step, _ in scalars(found, "head/validation_accuracy")] == [1]
    (tags,) = found.Tensors("tags")
    assert facts["data"]["digest"] in tags.tensor_proto.string_val[0].decode()
    assert found.SummaryMetadata("_hparams_/session_start_info").plugin_data.plugin_name == "hparams"


def test_each_candidate_is_a_nested_run_of_mlflow(database, folder):
    with tracked("mlflow", folder, Recipe(budget=60.0), Relay(Silent())) as tracking:
        race(tracking.watcher)
    whole, first, second = logged()
    assert whole.data.params["budget"] == "60.0"
    assert "strategy" not in whole.data.params  # it is not known before the end
    assert {each.data.tags["mlflow.parentRunId"] for each in (first, second)} == {whole.info.run_id}
    assert [each.info.status for each in (whole, first, second)] == ["FINISHED", "FINISHED", "FAILED"]
    assert first.data.params == {"strategy": "finetune", "backbone": "small-cnn", "epochs": "2"}
    assert first.data.metrics["train/validation_accuracy"] == 0.75
    assert second.data.metrics["train/validation_accuracy"] == 0.25
    assert whole.data.metrics["head/validation_accuracy"] == 0.8
    assert "train/validation_accuracy" not in whole.data.metrics  # the folds are left out


def test_each_candidate_has_a_folder_of_tensorboard(folder, events):
    with tracked("tensorboard", folder, Recipe(), Relay(Silent())) as tracking:
        race(tracking.watcher)
    assert {path.name for path in folder.event_files.iterdir() if path.is_dir()} == {
        "candidate-00-run-1-finetune",
        "candidate-01-run-1-warm-start",
    }
    found = events(folder.event_files / "candidate-00-run-1-finetune")
    assert scalars(found, "train/validation_accuracy") == [(1, 0.5), (2, 0.75)]


def interrupted_race(folder):
    """Raises `KeyboardInterrupt` within the first candidate of a race that is logged to MLflow."""
    with tracked("mlflow", folder, Recipe(), Relay(Silent())) as tracking:
        tracking.watcher.note(Note("trying finetune", "run-started", **STARTED, run="candidate-00-run-1"))
        tracking.watcher.epoch(epoch(1), 2)
        raise KeyboardInterrupt


def test_a_resumed_run_continues_its_runs_of_mlflow(database, folder):
    import mlflow

    with pytest.raises(KeyboardInterrupt):
        interrupted_race(folder)
    assert [each.info.status for each in logged()] == ["KILLED", "KILLED"]
    with tracked("mlflow", folder, Recipe(data="moved"), Relay(Silent())) as tracking:
        tracking.watcher.note(Note("trying finetune", "run-started", **STARTED, run="candidate-00-run-1"))
        tracking.watcher.epoch(epoch(2, accuracy=1.0), 2)
    _whole, candidate = found = logged()
    assert [each.info.status for each in found] == ["FINISHED", "FINISHED"]
    history = mlflow.MlflowClient().get_metric_history(candidate.info.run_id, "train/validation_accuracy")
    assert [(each.step, each.value) for each in history] == [(1, 0.5), (2, 1.0)]


def test_a_resumed_run_whose_mlflow_run_is_gone_begins_another(database, folder):
    (folder.scratch / "tracking.json").write_text('{"": "0123456789abcdef0123456789abcdef"}')
    watcher = Notes()
    with tracked("mlflow", folder, Recipe(), Relay(watcher)):
        pass
    assert [each.info.status for each in logged()] == ["FINISHED"]
    assert watcher.said == []


def test_a_database_that_fails_is_one_warning(database, folder):
    watcher = Notes()
    with tracked("mlflow", folder, Recipe(), Relay(watcher)) as tracking:
        with sqlite3.connect(database) as connection:
            connection.execute("DROP TABLE metrics")
        race(tracking.watcher)
    failed = [note for note in watcher.said if note.code == "tracker-failed"]
    assert [note.figures["tracker"] for note in failed] == ["mlflow"]


def test_event_files_that_cannot_be_written_end_no_run_and_are_one_warning(source, recipe, tmp_path):
    pytest.importorskip("tensorboard")

    class Blocks(Notes):
        def progress(self, stage, done, total):
            (tmp_path / "run" / "tensorboard").touch()

    watcher = Blocks()
    run = crossroads.fit(source, out=tmp_path / "run", recipe=recipe, track="tensorboard", report=False, watcher=watcher)
    failed = [note for note in run.warnings if getattr(note, "code", "") == "tracker-failed"]
    assert [note.figures["tracker"] for note in failed] == ["tensorboard"]


def failed_race(folder):
    """Raises an error within a race that is logged to TensorBoard, before anything of it is kept."""
    with folder.claim(Recipe(), given=(), resume=False), tracked("tensorboard", folder, Recipe(), Relay(Silent())) as tracking:
        race(tracking.watcher)
        assert any(folder.event_files.rglob("events*"))
        raise DataError("a mistake", code="a-mistake")


def test_a_run_that_fails_leaves_no_event_files(tmp_path):
    pytest.importorskip("tensorboard")
    with refused("a-mistake"):
        failed_race(RunFolder(tmp_path / "new" / "run"))
    assert not (tmp_path / "new").exists()


def test_a_server_that_does_not_answer_is_refused_before_images_are_read(recipe, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    with refused("tracker-unavailable", TrainingError, field="track") as caught:
        crossroads.fit(tmp_path / "no images", out=tmp_path / "run", recipe=recipe, track="mlflow", watcher=Silent())
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow")])
def test_a_missing_extra_is_refused_before_images_are_read(recipe, tmp_path, monkeypatch, name, package):
    monkeypatch.delitem(sys.modules, f"crossroads.track.{name}", raising=False)
    for module in [each for each in sys.modules if each.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with refused("missing-extra", MissingExtraError) as caught:
        crossroads.fit(tmp_path / "no images", out=tmp_path / "run", recipe=recipe, track=name, watcher=Silent())
    assert f"[{name}]" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused(tmp_path):
    with refused("unknown-tracker", RecipeError, field="track") as caught:
        crossroads.fit(np.zeros(1), out=tmp_path / "run", track="tensorbord")
    assert caught.value.hint == "did you mean 'tensorboard'?"


def test_event_files_are_written_without_tensorflow(tmp_path):
    pytest.importorskip("tensorboard")
    script = (
        "import sys\nfrom pathlib import Path\nfrom crossroads.track.tensorboard import TensorBoard\n"
        "from crossroads.track.tracker import Result\n"
        "board = TensorBoard(Path(sys.argv[1]))\nboard.epoch({'train/loss': 1.0}, 1)\n"
        "board.finish(Result({'seed': 1}, {'seconds': 1.0}, {'strategy': 'finetune'}))\nboard.close('finished')\n"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_mlflow_logs_to_a_file_in_the_current_folder_by_default(database, folder, tmp_path, monkeypatch):
    """The fixture has put the tables there."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with tracked("mlflow", folder, Recipe(), Relay(Silent())):
        pass
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert [each.info.status for each in logged()] == ["FINISHED"]
