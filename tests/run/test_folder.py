"""Covers the folder of a run: one process uses it, the same options resume it, and no file of the user is removed."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

import crossroads
import tiny_graphs
from crossroads.artifact import open_verified
from crossroads.errors import ArtifactError, RecipeError, TrainingError
from crossroads.recipe import Recipe
from crossroads.run.folder import RunFolder
from pictures import folder_of, stripes
from refusals import refused


def claim(folder, recipe=None, given=(), resume=False):
    return RunFolder(folder).claim(recipe or Recipe(), given=set(given), resume=resume)


class Stopped(Exception):
    pass


def unfinished(folder, recipe):
    """Returns a run that was killed before its first epoch. It has a recipe but no checkpoint."""
    with claim(folder, recipe):
        kept = (folder / "checkpoint" / "run.json").read_bytes()
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "checkpoint" / "run.json").write_bytes(kept)


def test_the_folder_and_its_parents_are_created_and_removed_after_an_error(tmp_path):
    inner = tmp_path / "a" / "b" / "c"
    with pytest.raises(Stopped), claim(inner):  # noqa: PT012
        assert (inner / "checkpoint" / "run.json").is_file()
        raise Stopped
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_stays_after_an_error(tmp_path):
    with pytest.raises(Stopped), claim(tmp_path):
        raise Stopped
    assert tmp_path.is_dir()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["thesis.txt", "checkpoint/my-weights.h5"])
def test_files_of_the_user_are_never_removed(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("precious")
    with refused("out-not-empty", ArtifactError), claim(tmp_path):
        pass
    assert (tmp_path / name).read_text() == "precious"


def test_a_file_among_the_checkpoints_survives_the_end_of_the_run(tmp_path):
    with claim(tmp_path):
        (tmp_path / "checkpoint" / "notes.txt").write_text("mine")
        (tmp_path / "checkpoint" / "train.pixels").write_text("ours")
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["notes.txt"]


def test_a_refused_process_leaves_the_run_of_the_first_one_alone(tmp_path):
    with claim(tmp_path / "run", Recipe(seed=3)):
        before = (tmp_path / "run" / "checkpoint" / "run.json").read_bytes()
        for resume in (False, True):
            with refused("run-in-use", TrainingError), claim(tmp_path / "run", resume=resume):
                pass
        assert (tmp_path / "run" / "checkpoint" / "run.json").read_bytes() == before


def test_an_unfinished_run_is_resumed_only_on_request_and_with_its_recipe(tmp_path):
    unfinished(tmp_path, Recipe(seed=5, validation=0.3))
    with refused("unfinished-run", TrainingError, field="out"), claim(tmp_path):
        pass
    with claim(tmp_path, resume=True) as recipe:
        assert (recipe.seed, recipe.validation) == (5, 0.3)


def test_an_option_that_equals_the_default_is_compared_too(tmp_path):
    unfinished(tmp_path, Recipe(seed=5))
    again = claim(tmp_path, Recipe(seed=0), given={"seed"}, resume=True)
    with refused("resumed-with-other-option", RecipeError, field="seed", received="0"), again:
        pass


def test_another_test_set_is_refused_and_another_path_of_the_same_one_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unfinished(tmp_path / "run", Recipe(test=str(tmp_path / "test")))
    other = claim(tmp_path / "run", Recipe(test="other"), given={"test"}, resume=True)
    with refused("resumed-with-other-option", RecipeError, field="test"), other:
        pass
    with claim(tmp_path / "run", Recipe(test="./test"), given={"test"}, resume=True):
        pass


@pytest.mark.parametrize("text", ["{", "[]", '{"epoch": 3}'])
def test_a_damaged_recipe_is_refused(tmp_path, text):
    unfinished(tmp_path, Recipe())
    (tmp_path / "checkpoint" / "run.json").write_text(text)
    with pytest.raises((TrainingError, RecipeError)), claim(tmp_path, resume=True):
        pass


SOLVED = {"strategy": "feature-extraction", "preprocessing": "tf", "image_size": tiny_graphs.SIZE}
TRAINED = {"strategy": "from-scratch", "backbone": "quiz-cnn", "image_size": 16, "epochs": 2, "batch_size": 16}


@pytest.mark.parametrize(
    ("options", "points"),
    [
        pytest.param(SOLVED, ("features of train", "between the files"), id="solved"),
        pytest.param(TRAINED, ("epoch 2 step 1",), id="trained", marks=pytest.mark.slow),
    ],
)
def test_kill_9_at_several_points_then_resume_gives_the_same_artifact(tmp_path, options, points):
    images, labels = stripes(60)
    data = folder_of(tmp_path / "data", images, labels)
    graph = tiny_graphs.written(tiny_graphs.convnet(), tmp_path / "tiny.xml")
    options = {"backbone": str(graph), "validation": 0.2, "test_fraction": 0.2} | options
    whole = crossroads.fit(data, out=tmp_path / "whole", **options)
    script = textwrap.dedent(
        """
        import os, signal, sys
        import crossroads
        from crossroads.artifact import _draft
        from crossroads.progress import Silent
        where = sys.argv[3]
        def kill(*_):
            os.kill(os.getpid(), signal.SIGKILL)
        class Kill(Silent):
            def progress(self, stage, done, total):
                if where == stage:
                    kill()
            def step(self, epoch, done, total):
                if where == f"epoch {epoch} step {done}":
                    kill()
        if where == "between the files":
            sync = _draft._sync
            _draft._sync = lambda path: kill() if path == _draft.Path(sys.argv[2]) else sync(path)
        crossroads.fit(sys.argv[1], out=sys.argv[2], resume=True, watcher=Kill(), **OPTIONS)
        """
    ).replace("OPTIONS", repr(options))
    out, environment = tmp_path / "run", os.environ | {"CROSSROADS_CACHE": str(tmp_path / "empty")}
    for where in points:
        command = [sys.executable, "-c", script, data, out, where]
        done = subprocess.run(command, capture_output=True, check=False, env=environment)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
        assert not (out / "crossroads.json").exists()
    resumed = crossroads.fit(data, out=out, resume=True, **options)
    assert open_verified(out).facts["weights"] == open_verified(whole.artifact).facts["weights"]
    assert resumed.metrics["test"] == whole.metrics["test"]
    assert {p.name for p in out.iterdir()} == {p.name for p in whole.artifact.iterdir()}


def test_the_time_of_earlier_processes_counts_up_to_the_last_file_that_they_wrote(tmp_path):
    unfinished(tmp_path, Recipe())
    state = tmp_path / "checkpoint"
    (state / "clock.json").write_text('{"spent": 5.0, "began": 1000.0}')
    os.utime(state / "run.json", (1030, 1030))
    folder = RunFolder(tmp_path)
    with folder.claim(Recipe(), given=set(), resume=True):
        assert folder.spent == 35
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_clock_starts_at_zero(tmp_path):
    unfinished(tmp_path, Recipe())
    (tmp_path / "checkpoint" / "clock.json").write_text("{")
    folder = RunFolder(tmp_path)
    with folder.claim(Recipe(), given=set(), resume=True):
        assert folder.spent == 0
