"""Covers runs on few images: cross-validated figures, the head solved again on everything, and which accuracy is reported first."""

from types import SimpleNamespace

import numpy as np
import pytest

import crossroads
from crossroads import artifact
from crossroads.progress import Silent
from crossroads.run import results, solved
from crossroads.run.metrics import TestMetrics as Tested
from crossroads.run.metrics import ValidationMetrics, headline
from crossroads.run.results import is_few
from crossroads.run.solved import Pool, solve_final_head
from crossroads.strategies import Solve
from crossroads.training.batches import LabelledData
from crossroads.training.checkpoint import Checkpoints
from pictures import stripes
from tiny_networks import tiny
from watchers import Notes

pytestmark = pytest.mark.core


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path / "cache"))


def fit(out, n=80, watcher=None, **options):
    images, labels = stripes(n, classes=("level", "slanting", "upright"), size=16)
    options = {"strategy": "feature-extraction", "backbone": tiny()} | options
    return crossroads.fit((images, labels), out=out, watcher=watcher, **options)


def test_few_images_are_cross_validated_and_the_head_is_solved_on_all_of_them(tmp_path):
    watcher = Notes()
    run = fit(tmp_path / "run", watcher=watcher)
    validation, test = run.metrics["validation"], run.metrics["test"]
    assert validation["cross_validated"] == {"folds": 5, "repeats": 8}
    assert validation["n"] + test["n"] == 80
    assert validation["interval_method"] == "wilson, cross-validated"
    assert run.metrics["fitted_on"] == ["train", "validation"]
    assert artifact.open_verified(run.artifact).facts["data"]["fitted_on"] == ["train", "validation"]
    assert run.metrics["headline"] == {
        "accuracy": validation["accuracy"],
        "interval": validation["accuracy_interval"],
        "images": validation["n"],
        "source": "cross-validation",
    }
    notes = {note.code: note.figures for note in watcher.said}
    assert notes["cross-validated"] == {"images": validation["n"], "folds": 5, "repeats": 8}
    assert notes["few-test-images"]["images"] == test["n"]
    assert notes["few-test-images"]["interval"] == list(test["accuracy_interval"])
    assert any(note.code == "few-test-images" for note in run.metrics["notes"])
    assert run.metrics["phases"][0]["validation_accuracy"] == pytest.approx(validation["accuracy"])


def test_without_refit_the_head_is_solved_on_train_alone(tmp_path):
    run = fit(tmp_path / "run", refit=False)
    assert run.metrics["fitted_on"] == ["train"]
    assert run.metrics["validation"]["cross_validated"]


@pytest.mark.parametrize("refit", [True, False])
def test_many_validation_images_choose_the_head_and_keep_their_figures(refit, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FEW", 5)
    run = fit(tmp_path / "run", refit=refit, validation=0.3, test_fraction=0.0)
    assert run.metrics["validation"]["cross_validated"] is None
    assert run.metrics["validation"]["n"] == 24
    assert run.metrics["fitted_on"] == (["train", "validation"] if refit else ["train"])
    assert run.metrics["headline"]["source"] == "validation"


def test_a_network_that_is_trained_has_no_cross_validation(tmp_path):
    watcher = Notes()
    run = fit(tmp_path / "run", n=60, watcher=watcher, strategy="finetune", epochs=1, batch_size=16)
    assert run.metrics["validation"]["cross_validated"] is None
    assert run.metrics["fitted_on"] == ["train"]
    assert run.metrics["headline"]["source"] == "test"
    assert any(getattr(note, "code", "") == "few-test-images" for note in watcher.said)


def pool(n=40, m=10, views=1, groups=None, seed=0):
    rng = np.random.default_rng(seed)
    labels = (np.arange(n + m) % 2).astype(np.int32)
    features = (labels[:, None] * 1.0 + rng.normal(size=(n + m, 6))).astype(np.float32)
    train = LabelledData(np.tile(features[:n], (views, 1)), labels[:n], views, None if groups is None else groups[:n])
    validation = LabelledData(features[n:], labels[n:], groups=None if groups is None else groups[n:])
    return Pool(train, validation, rng.integers(0, 256, (n + m, 16)).astype(np.uint8), 2)


def solve(images, folder, refit=True):
    return solve_final_head(Solve("head", "none", 0), images, refit, Checkpoints(folder), "one: run", Silent())


def test_a_resumed_head_is_loaded_with_its_probabilities(tmp_path, monkeypatch):
    first = solve(pool(), tmp_path / "phase")
    monkeypatch.setattr(solved, "cross_validate", None)  # it must not be called again
    second = solve(pool(), tmp_path / "phase")
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    np.testing.assert_array_equal(first.layers[0].kernel, second.layers[0].kernel)
    assert (first.cross_validated, first.refitted) == (second.cross_validated, second.refitted)


def test_views_and_validation_images_become_one_pool(tmp_path):
    images = pool(views=3)
    assert images.plain.tolist() == [*range(40), *range(120, 130)]
    assert images.units()[:40].tolist() == images.units()[40:80].tolist()
    assert images.weights("none").tolist() == [1.0] * 120 + [3.0] * 10
    head = solve(images, tmp_path / "phase")
    assert head.probabilities.shape == (50, 2)


def test_equal_images_and_groups_stay_in_one_fold():
    images = pool(groups=np.repeat(np.arange(25), 2))
    images.digests[[0, 49]] = 7  # the same image in train and in validation
    units = images.units()
    assert units[0] == units[1] == units[48] == units[49]
    assert len(set(units)) == 24


def test_validation_images_in_few_groups_are_few():
    assert is_few(199, None)
    assert not is_few(200, None)
    assert is_few(3000, np.arange(3000) // 30)


def scored(n, accuracy=0.75):
    return SimpleNamespace(accuracy=accuracy, accuracy_interval=(accuracy - 0.1, accuracy + 0.1), n=n)


@pytest.mark.parametrize(
    ("crossed", "effective", "source"),
    [
        ({"folds": 5, "repeats": 8}, 8.0, "cross-validation"),
        ({"folds": 5, "repeats": 8}, 30.0, "test"),
        (None, 8.0, "test"),
        ({"folds": 5, "repeats": 8}, None, "cross-validation"),
        (None, None, "validation"),
    ],
)
def test_the_accuracy_that_says_most_is_reported_first(crossed, effective, source):
    test = None if effective is None else Tested(scored(40), 0, "", effective)
    assert headline(ValidationMetrics(scored(72), crossed), test).source == source
