"""Covers the replacement of an artifact: whenever the process is killed, the old or the new one is there as a whole."""

import os
import shutil

import pytest

import tiny_artifact
from crossroads import artifact
from crossroads.artifact import _replacement
from crossroads.artifact._manifest import manifest_text

pytestmark = pytest.mark.core


class Killed(BaseException):
    """Passes through every handler of errors, as a kill would."""


@pytest.fixture(scope="module")
def old_and_new(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    artifact.write(folder / "old", tiny_artifact.contents(), {"test": 1})
    artifact.write(folder / "new", tiny_artifact.contents(tiny_artifact.model(seed=5)), {"test": 2})
    return folder / "old", folder / "new"


def killed_after(moves, monkeypatch):
    """Lets the process be killed after this many moves of files."""
    done, move = [], os.replace

    def replace(source, target):
        if len(done) == moves:
            raise Killed
        done.append(source)
        move(source, target)

    monkeypatch.setattr(_replacement.os, "replace", replace)


@pytest.mark.parametrize("moves", range(len(artifact.FILES) + 1))
def test_a_kill_during_the_moves_leaves_the_new_artifact(old_and_new, tmp_path, monkeypatch, moves):
    old, new = old_and_new
    run = shutil.copytree(old, tmp_path / "run")
    shutil.copytree(new, run / artifact.PARTIAL)
    with monkeypatch.context() as patch:
        killed_after(moves, patch)
        with pytest.raises(Killed):
            _replacement.commit(run / artifact.PARTIAL, run)
    assert artifact.read_metrics(run) == {"test": 2}
    assert artifact.open_verified(run).facts == artifact.open_verified(new).facts
    assert {path.name for path in run.iterdir()} == {path.name for path in new.iterdir()}


def test_a_kill_before_the_replacement_leaves_the_old_artifact(old_and_new, tmp_path):
    old, new = old_and_new
    run = shutil.copytree(old, tmp_path / "run")
    shutil.copytree(new, run / artifact.PARTIAL)
    assert artifact.read_metrics(run) == {"test": 1}
    artifact.open_verified(run)


def test_amended_metrics_replace_the_others_and_nothing_else(old_and_new, tmp_path):
    run = shutil.copytree(old_and_new[0], tmp_path / "run")
    before = artifact.open_verified(run)
    artifact.amend(run, {"test": 3})
    after = artifact.open_verified(run)
    assert artifact.read_metrics(run) == {"test": 3}
    assert {name: after.files[name] for name in after.files if name != "metrics.json"} == {
        name: before.files[name] for name in before.files if name != "metrics.json"
    }
    assert not (run / artifact.PARTIAL).exists()


def test_a_keras_model_that_the_new_artifact_lacks_is_removed(old_and_new, tmp_path):
    run = shutil.copytree(old_and_new[0], tmp_path / "run")
    facts = artifact.open_verified(run, only=()).facts
    files = {name: record for name, record in facts["files"].items() if name != artifact.KERAS}
    (run / artifact.PARTIAL).mkdir()
    (run / artifact.PARTIAL / artifact.MANIFEST).write_text(manifest_text({**facts, "files": files}), encoding="utf-8")
    _replacement.commit(run / artifact.PARTIAL, run)
    assert artifact.KERAS not in artifact.open_verified(run).names
    assert not (run / artifact.KERAS).exists()
