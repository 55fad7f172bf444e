"""Covers failures after training: `--resume` finishes the run without training again."""

import shutil

import keras
import pytest

import crossroads
from crossroads import api
from crossroads.advice.estimate import Estimate
from crossroads.artifact import _draft, _export, open_verified
from crossroads.errors import ArtifactError, CrossroadsError, DataError
from crossroads.predictor import Predictor
from crossroads.race import anytime
from crossroads.race.records import Plan, RaceCandidate
from crossroads.run import finish
from crossroads.run.best import BestSoFar
from crossroads.strategies import drop_unused_options, resolve_recipe, strategy
from crossroads.training import solving
from pictures import stripes
from tiny_networks import SIZE, tiny

FULL = OSError(28, "No space left on device")
OPTIONS = {"validation": 0.25, "test_fraction": 0.25, "image_size": SIZE, "seed": 3}

CONVERSION = "the graph is made from the Keras model"
"""A step of trained networks only: what was frozen is a graph from the start."""

STEPS = {
    "the model is saved": (_export, "save", FULL),
    CONVERSION: (_export, "to_openvino", ArtifactError("no rule for an operation")),
    "the graph is compared": (_export, "check_parity", ArtifactError("the graph disagrees")),
    "the draft is described": (_draft, "_versions", RuntimeError("a fault")),
    "the artifact is loaded": (Predictor, "load", ArtifactError("no graph")),
    "validation is scored": (finish, "_validate", DataError("an image is gone")),
    "the test is scored": (finish, "score", KeyboardInterrupt()),
    "the metrics are written": (_draft, "json_text", FULL),
    "the files reach the disk": (_draft, "_sync", FULL),
    "the files are moved": (_draft, "_move", KeyboardInterrupt()),
}


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path_factory.getbasetemp() / "cache of what is never lost"))


@pytest.fixture(scope="module")
def network():
    return tiny()


def fit(out, network, **options):
    images, labels = stripes(64, size=SIZE)
    return crossroads.fit((images, labels), out=out, backbone=network, **OPTIONS, **options)


def broken_off(monkeypatch, step, out, work):
    """Runs `work`, which fails at a step. Returns a copy of the folder as a kill at that moment would leave it."""
    home, name, error = STEPS[step]
    killed = out.with_name(f"{out.name}, killed when {step}")

    def failing(*_, **__):
        shutil.copytree(out, killed)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(home, name, failing)
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else (CrossroadsError, RuntimeError)):
            work()
    assert not (out / "crossroads.json").exists()
    return killed


def finishes_without_training(monkeypatch, work):
    """Runs `work`, which resumes, and fails the test if anything is trained or solved."""
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "fit", lambda *_, **__: pytest.fail("trained again"))
        patch.setattr(solving, "_solved", lambda *_, **__: pytest.fail("solved again"))
        return work()


def test_a_solved_head_survives_a_failure_of_each_later_step(network, tmp_path, monkeypatch):
    """One run fails at each step in turn and is resumed each time. A copy at each failure shows what a kill would leave."""
    options, out = {"strategy": "feature-extraction"}, tmp_path / "run"
    first, *others = (step for step in STEPS if step != CONVERSION)
    killed = [broken_off(monkeypatch, first, out, lambda: fit(out, network, **options))]
    monkeypatch.setattr(solving, "_solved", lambda *_, **__: pytest.fail("solved again"))
    killed += [broken_off(monkeypatch, step, out, lambda: fit(out, network, resume=True, **options)) for step in others]
    for folder in (out, killed[0], killed[-1]):
        run = fit(folder, network, resume=True, **options)
        assert run.metrics["test"]["accuracy"] > 0.8
        assert open_verified(folder).facts["strategy"] == "feature-extraction"
        assert not (folder / "checkpoint").exists()


def test_trained_epochs_survive(network, tmp_path, monkeypatch):
    options, out = {"strategy": "finetune", "epochs": 2, "batch_size": 16}, tmp_path / "run"
    killed = broken_off(monkeypatch, CONVERSION, out, lambda: fit(out, network, **options))
    found = []
    for folder in (out, killed):
        finishes_without_training(monkeypatch, lambda folder=folder: fit(folder, network, resume=True, **options))
        found.append(open_verified(folder).facts["weights"])
    assert found[0] == found[1]


@pytest.fixture
def raced(monkeypatch, network):
    """Makes `fit` without a strategy race a head on frozen features against a short finetuning, without advice."""

    def planned(partition, _backbones, own, _clock, watcher, _first):
        candidates = []
        for name, accuracy in (("feature-extraction", 0.6), ("finetune", 0.9)):
            choice = api.Tasks(partition, None, own, watcher).choice(partition.recipe)
            asked = drop_unused_options(api.replace(partition.recipe, epochs=2, weights="own"), strategy(name))
            recipe = resolve_recipe(asked, choice.record, images=len(partition.train), image_size=SIZE)
            candidates.append(RaceCandidate(recipe, Estimate(accuracy, 0.0, 1.0), 1.0, 0.5 if recipe.epochs else 0.0))
        return Plan(tuple(candidates), 600.0, 0.0, {})

    monkeypatch.setattr(anytime, "choose_candidates", planned)


@pytest.mark.usefixtures("raced")
def test_the_runs_of_a_race_survive(network, tmp_path, monkeypatch):
    out, killed = tmp_path / "run", tmp_path / "killed"

    def interrupted(*_):
        shutil.copytree(out, killed)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(BestSoFar, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(out, network)
    for folder in (out, killed):
        assert open_verified(folder)  # the best result so far
        run = finishes_without_training(monkeypatch, lambda folder=folder: fit(folder, network, resume=True))
        assert {row["strategy"] for row in run.metrics["race"]["runs"]} >= {"feature-extraction", "finetune"}
        assert not any(row["failed"] for row in run.metrics["race"]["runs"])
        assert not (folder / "checkpoint").exists()


def test_checkpoints_that_cannot_be_removed_are_no_failure(network, tmp_path, monkeypatch):
    from pathlib import Path

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path, **given: refused() if "checkpoint" in str(path) else unlink(path, **given))
    assert open_verified(fit(tmp_path / "run", network, strategy="feature-extraction").artifact)
