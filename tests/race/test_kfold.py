"""Covers the cross-validation of a training: how images are dealt, what is predicted, and what the race makes of it."""

from dataclasses import replace

import numpy as np
import pytest

import tiny_networks
from crossroads.advice.estimate import Estimate
from crossroads.data.loading import Loaded
from crossroads.data.partition import load_and_split
from crossroads.networks.construct import choose
from crossroads.progress import Silent, StopTraining
from crossroads.race import kfold
from crossroads.race.decisions import Results
from crossroads.race.kfold import affordable_folds, correct_out_of_fold, cross_validate_training, deal_images
from crossroads.race.records import Plan, RaceCandidate
from crossroads.race.running import race
from crossroads.recipe import Recipe
from crossroads.run.folder import RunFolder
from crossroads.run.results import HeldOut, UsedImages
from crossroads.run.task import Tasks
from crossroads.strategies import resolve_recipe
from pictures import stripes
from rows import dataset
from watchers import Notes

pytestmark = pytest.mark.core


def loaded(labels, groups=None, digests=None):
    rows = dataset(labels)
    rows = replace(rows, groups=None if groups is None else np.asarray(groups))
    names = np.zeros((len(labels), 16), np.uint8)
    names[:, 0] = np.arange(len(labels)) if digests is None else digests
    return Loaded(rows, np.zeros((len(labels), 4, 4, 3), np.uint8), names, ())


def test_the_largest_number_of_folds_that_ends_in_time_is_taken():
    assert [affordable_folds(10.0, left) for left in (49.0, 50.0, 30.0, 29.9, 0.0)] == [4, 5, 3, 0, 0]


def test_each_fold_has_its_part_of_both_splits_and_of_every_class():
    train, validation = loaded([0, 1] * 12), loaded([0, 1] * 3, digests=range(100, 106))
    fold = deal_images(train, validation, 3)
    for number in range(3):
        left_out = fold == number
        assert np.bincount(train.dataset.labels[left_out[:24]]).tolist() == [4, 4]
        assert np.bincount(validation.dataset.labels[left_out[24:]]).tolist() == [1, 1]


def test_groups_and_equal_images_stay_in_one_fold():
    train = loaded([0, 1] * 12, groups=np.arange(24) // 4, digests=[*range(23), 0])  # the first and the last are equal
    validation = loaded([0, 1] * 3, groups=[10, 10, 11, 11, 12, 12], digests=range(100, 106))
    fold = deal_images(train, validation, 3)
    assert all(len(set(fold[:24][train.dataset.groups == group])) == 1 for group in range(6))
    assert fold[0] == fold[23]


def test_the_only_image_of_a_class_is_never_left_out():
    fold = deal_images(loaded([0, 1] * 6 + [2]), loaded([0, 1, 0, 1], digests=range(100, 104)), 3)
    assert fold[12] == -1
    assert (np.delete(fold, 12) >= 0).all()


def test_a_training_without_validation_images_is_impossible():
    assert deal_images(loaded([0, 1] * 6), loaded([0], digests=[100]), 3) is None


def test_images_that_were_never_left_out_are_marked():
    everything = dataset([0, 1, 0, 1, 0])
    train, validation, both = everything.select([0, 1, 2]), everything.select([3, 4]), everything.select([0, 1, 3, 4])
    probabilities = np.eye(2, dtype=np.float32)[[0, 0, 1, 1]]
    held_out = HeldOut(UsedImages(both, np.zeros((4, 16), np.uint8), (), None), probabilities, {"folds": 3, "repeats": 1})
    assert correct_out_of_fold(held_out, train, validation) == "10-10"


@pytest.fixture(name="made")
def _made(tmp_path, monkeypatch):
    """Returns a plan with a head and a training on few images, the function that makes their tasks, and the folder."""
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path / "cache"))
    network, folder = tiny_networks.tiny(), RunFolder(tmp_path / "run")
    folder.scratch.mkdir(parents=True)
    partition = load_and_split(stripes(36, size=16), None, Recipe(validation=0.25, test_fraction=0.0), Silent())

    def candidate(name, **options):
        record = choose(network).record
        asked = Recipe(strategy=name, backbone=record.name, weights="own", image_size=16, **options)
        recipe = resolve_recipe(asked, record, images=len(partition.train), image_size=16)
        return RaceCandidate(recipe, Estimate(0.6, 0.5, 0.99), 0.0)

    plan = Plan((candidate("feature-extraction"), candidate("warm-start", epochs=1, batch_size=48)), 600.0, 0.0, {})
    return plan, Tasks(partition, folder.scratch, network, Silent()).task_for, folder


class Keeper:
    """Keeps the figures of what it saves."""

    def __init__(self):
        self.kept, self.saved = "", []

    def save(self, name, task, fitted):
        self.kept = name
        self.saved.append((name, None if fitted.held_out is None else fitted.held_out.cross_validated))

    def seconds_to_save(self, *, frozen):
        return 0.0


def test_the_race_cross_validates_a_training_before_it_may_win(made, monkeypatch):
    plan, task_of, folder = made
    monkeypatch.setattr(Results, "contender", lambda self: self.runs[-1])
    monkeypatch.setattr(kfold, "FOLDS", (3,))
    watcher, keeper = Notes(), Keeper()
    results = race(plan, task_of, folder, keeper, watcher).results
    head, trained = results.runs
    assert len(head.crossed) == len(trained.crossed) == 36  # each image is predicted by a network that was trained without it
    assert "-" not in trained.crossed
    said = {note.code: note.figures for note in watcher.said}
    assert said["folds-started"]["folds"] == 3
    assert said["folds-compared"]["images"] == 36
    won = results.winner() is trained
    assert said["folds-compared"]["gain"] or not won
    assert trained.images == 36
    assert keeper.saved[-1][0] == results.winner().name
    assert not won or keeper.saved[-1][1] == {"folds": 3, "repeats": 1}


def test_without_time_the_validation_images_decide(made, monkeypatch):
    plan, task_of, folder = made
    monkeypatch.setattr(Results, "contender", lambda self: replace(self.runs[-1], seconds=1e6))
    watcher = Notes()
    results = race(plan, task_of, folder, Keeper(), watcher).results
    assert results.runs[-1].crossed == ""
    assert "not-cross-validated" in [note.code for note in watcher.said]


def test_a_deadline_ends_the_cross_validation(made):
    plan, task_of, folder = made

    class Stops(Silent):
        def step(self, epoch, done, total):
            raise StopTraining

    with pytest.raises(StopTraining):
        cross_validate_training(task_of(plan.candidates[1].recipe), 3, folder, "candidate-01-run-1", Stops())
